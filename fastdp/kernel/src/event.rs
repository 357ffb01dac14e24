//! Waits for descriptors, and wakes a thread that waits.
//!
//! Packet workers are plain threads: they sleep in [`wait`] on a TAP, a socket and an [`EventFd`], and whoever wants
//! their attention rings the [`EventFd`]. Rings add up until they are heard, so none is lost and none needs a queue.

use std::fs::File;
use std::future::pending;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
pub use nix::poll::{PollFd, PollFlags};
use nix::sys::time::TimeSpec;
use tokio::time::{Instant, sleep_until};

/// Resolves at the deadline; never where there is none. Safe to cancel.
pub async fn alarm(deadline: Option<impl Into<Instant>>) {
    match deadline {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}

/// A bell between threads: eventfd(2).
#[derive(Debug)]
pub struct EventFd {
    file: File,
}

impl EventFd {
    /// Makes a silent bell.
    #[expect(unsafe_code, reason = "eventfd(2) has no safe wrapper at hand")]
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer; the result is checked below.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor, nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { file: fd.into() })
    }

    /// Rings: the waiting thread wakes up, or does not fall asleep.
    pub fn ring(&self) {
        // The one failure is a counter at its limit, 2^64 - 2 unheard rings: the bell rings already.
        let _ = (&self.file).write(&1_u64.to_ne_bytes());
    }

    /// Silences the bell; true if it had rung.
    pub fn hear(&self) -> bool {
        let mut count = [0; 8];
        (&self.file).read(&mut count).is_ok()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Sleeps until one of `fds` is ready, a signal arrives, or `timeout` is over; `None` waits without end. Returns how many
/// are ready: what each is ready for is read with [`PollFd::revents`].
pub fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    match nix::poll::ppoll(fds, timeout.map(TimeSpec::from_duration), None) {
        Ok(ready) => Ok(ready.unsigned_abs() as usize),
        Err(Errno::EINTR) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rung_bell_ends_a_wait_and_is_silent_once_heard() {
        let bell = EventFd::new().unwrap();
        bell.ring();
        bell.ring();

        let mut fds = [PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
        let ready = wait(&mut fds, None).unwrap();

        assert_eq!(ready, 1);
        assert!(bell.hear());
        assert!(!bell.hear());
        assert_eq!(wait(&mut fds, Some(Duration::ZERO)).unwrap(), 0);
    }
}
