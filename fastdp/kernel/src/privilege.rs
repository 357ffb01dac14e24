//! Gives up what a router does not need: capabilities, ways to more of them, and being looked into.
//!
//! All of it is a property of the calling thread or its process and is inherited, so it is done before there is a second
//! thread. What was given up cannot be had again.

use std::io;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// A capability: capabilities(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Capability {
    /// Links, addresses, routes, TAP devices.
    NetAdmin = 12,
    /// Ports below 1024.
    NetBindService = 10,
    /// Packet sockets.
    NetRaw = 13,
}

impl Capability {
    const fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// The layout of a capability set: capget(2).
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// Half a set: of 32 capabilities each.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Keeps of the thread's capabilities those that are named, and no way to others.
pub fn keep_only(keep: &[Capability]) -> io::Result<()> {
    let kept = keep
        .iter()
        .fold(0, |bits, capability| bits | capability.bit());
    prctl::set_no_new_privs()?;
    bound(kept)?;
    let mut halves = capabilities()?;
    for (half, kept) in halves.iter_mut().zip([kept & 0xffff_ffff, kept >> 32]) {
        let kept = u32::try_from(kept).unwrap_or_default();
        half.permitted &= kept;
        half.effective = half.permitted;
        half.inheritable &= kept;
    }
    set_capabilities(&halves)
}

/// Takes what is not kept out of the set that a process may ever have. Without CAP_SETPCAP that cannot be done, nor needs
/// it to be: with no new privileges no program gives any.
#[expect(unsafe_code, reason = "prctl(PR_CAPBSET_DROP) has no safe form")]
fn bound(kept: u64) -> io::Result<()> {
    for number in 0..64_u32 {
        if kept & (1 << number) != 0 {
            continue;
        }
        // SAFETY: takes numbers alone.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number)) };
        if result == 0 {
            continue;
        }
        match io::Error::last_os_error() {
            // The kernel knows no more of them.
            error if error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
            error if error.raw_os_error() == Some(libc::EPERM) => return Ok(()),
            error => return Err(error),
        }
    }
    Ok(())
}

#[expect(unsafe_code, reason = "capget(2) has no safe form")]
fn capabilities() -> io::Result<[Half; 2]> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut halves = [Half::default(); 2];
    // SAFETY: both pointers are to live structures of the layout that the version stands for.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
    if result == 0 {
        Ok(halves)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[expect(unsafe_code, reason = "capset(2) has no safe form")]
fn set_capabilities(halves: &[Half; 2]) -> io::Result<()> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    // SAFETY: both pointers are to live structures of the layout that the version stands for.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Lets nobody but root look into this process, and no dump of its memory reach a disk: it holds keys.
pub fn hide_memory() -> io::Result<()> {
    prctl::set_dumpable(false)?;
    Ok(setrlimit(Resource::RLIMIT_CORE, 0, 0)?)
}

/// Raises the number of descriptors that may be open as far as this process may, and says how many that are.
pub fn raise_descriptors(enough: u64) -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted: rlim_t = hard.min(enough).max(soft);
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    Ok(wanted)
}

/// How many descriptors may be open.
pub fn descriptors() -> u64 {
    // Every kernel answers; the least that any gives otherwise.
    getrlimit(Resource::RLIMIT_NOFILE).map_or(256, |(soft, _)| soft)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;

    use super::*;

    /// A line of what the kernel says of this thread: proc(5).
    fn status(name: &str) -> String {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.expect("a line").trim().to_owned()
    }

    fn set(name: &str) -> u64 {
        u64::from_str_radix(&status(name), 16).unwrap()
    }

    #[test]
    fn what_is_kept_is_no_more_than_what_was_named() {
        // Capabilities are a thread's own: the others keep theirs.
        let seen = thread::spawn(|| {
            keep_only(&[Capability::NetAdmin, Capability::NetRaw]).unwrap();
            (
                set("CapPrm:"),
                set("CapEff:"),
                set("CapBnd:"),
                status("NoNewPrivs:"),
            )
        });
        let (permitted, effective, bound, no_new) = seen.join().unwrap();

        let named = Capability::NetAdmin.bit() | Capability::NetRaw.bit();
        assert_eq!(permitted & !named, 0);
        assert_eq!(effective, permitted);
        assert_eq!(no_new, "1");
        if nix::unistd::geteuid().is_root() && permitted == named {
            assert_eq!(bound & !named, 0);
        }
    }

    #[test]
    fn the_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();

        assert_eq!(raise_descriptors(u64::MAX).unwrap(), hard);
        assert_eq!(descriptors(), hard);
    }
}
