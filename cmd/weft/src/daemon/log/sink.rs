//! Writes the log: to standard error, which may be a terminal, the journal, or the log in the state directory.
//!
//! The log in the state directory belongs to the router: it is put aside when it is long, also while the router runs, and
//! it takes none of the last room on the disk, which the state needs more.
//! **Failure policy.** What cannot be written is lost, and nobody is told: there is nobody.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::state_dir;

/// What a disk must have left for a line to be written.
const RESERVE: u64 = 512 << 10;
/// How long an answer of the disk about its room is believed.
const BELIEVED: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Clone)]
pub(super) struct Sink {
    /// The log in the state directory, if standard error is that.
    own: Option<Arc<Mutex<Own>>>,
}

impl Sink {
    /// Looks where standard error leads to.
    pub(super) fn open(state_dir: &Path) -> Self {
        let own = Own::open(state_dir).map(|own| Arc::new(Mutex::new(own)));
        Self { own }
    }

    /// Writes a line, if that can be done.
    pub(super) fn put(&self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        if let Some(own) = &self.own {
            let mut own = own.lock().unwrap_or_else(PoisonError::into_inner);
            if !own.admits(line.len() as u64, Instant::now()) {
                return;
            }
        }
        let _ = io::stderr().write_all(line);
    }
}

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log in the state directory.
struct Own {
    state_dir: PathBuf,
    length: u64,
    room: Option<(Instant, bool)>,
}

impl Own {
    /// Takes charge of the log, if standard error is that.
    fn open(state_dir: &Path) -> Option<Self> {
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?);
        let (to, log) = (
            stderr.metadata().ok()?,
            state_dir::log(state_dir).symlink_metadata().ok()?,
        );
        let same = (to.dev(), to.ino()) == (log.dev(), log.ino());
        same.then(|| Self {
            state_dir: state_dir.to_owned(),
            length: to.len(),
            room: None,
        })
    }

    /// Whether there is room for a line; makes some, where the log is long.
    fn admits(&mut self, length: u64, now: Instant) -> bool {
        if !self.has_room(now) {
            return false;
        }
        if self.length + length > state_dir::LOG_LIMIT {
            self.begin_anew();
        }
        self.length += length;
        true
    }

    fn has_room(&mut self, now: Instant) -> bool {
        match self.room {
            Some((at, room)) if now.saturating_duration_since(at) < BELIEVED => room,
            _ => {
                let room = nix::sys::statvfs::statvfs(&self.state_dir)
                    .is_ok_and(|disk| disk.blocks_available() * disk.fragment_size() >= RESERVE);
                self.room = Some((now, room));
                room
            }
        }
    }

    /// Puts the log aside and goes on in a new one; where that fails, in the same one, from its beginning.
    fn begin_anew(&mut self) {
        self.length = 0;
        let replaced = state_dir::put_log_aside(&self.state_dir)
            .and_then(|()| state_dir::open_log(&self.state_dir).map_err(io::Error::other))
            .and_then(|log| Ok(nix::unistd::dup2_stderr(log)?));
        if replaced.is_err()
            && let Ok(log) = io::stderr().as_fd().try_clone_to_owned()
        {
            let _ = File::from(log).set_len(0);
        }
    }
}
