//! Lets one command at a time start a router, or end it for good, with a state directory.
//!
//! Who looks whether a router runs and then makes devices must not meet another who does the same. The lock is a file's, so
//! it goes with the process that has it, however that ends.

use std::fs::{File, TryLockError};
use std::path::Path;

use weft_router::private;
use weft_router::private::io_problem;
use weft_types::{Code, Problem};

use crate::state_dir;

/// Held while a command is at it.
pub(crate) struct Turn {
    _lock: File,
}

impl Turn {
    /// Takes it; the directory is made where it is missing.
    ///
    /// # Errors
    ///
    /// [`Code::DaemonRunning`] where another has it; what keeps the directory from being used.
    pub(crate) fn take(directory: &Path) -> Result<Self, Problem> {
        state_dir::prepare(directory)?;
        let path = directory.join(state_dir::TURN);
        let unfit = |error| io_problem(&path, &error);
        let mut options = File::options();
        options.write(true).create(true).truncate(false);
        let file = private::open(&path, &mut options).map_err(unfit)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _lock: file }),
            Err(TryLockError::WouldBlock) => Err(another(directory)),
            Err(TryLockError::Error(error)) => Err(unfit(error)),
        }
    }
}

fn another(directory: &Path) -> Problem {
    let directory = directory.display();
    let what = format!("a weft router with {directory} runs or is being started already");
    Problem::new(Code::DaemonRunning, what)
        .why("another weft command is at it")
        .fix("Wait for that one, and see how it came out: weft status")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");

        let first = Turn::take(&state).unwrap();
        let second = Turn::take(&state).map(|_| ()).unwrap_err();
        drop(first);

        assert_eq!(second.code, Code::DaemonRunning);
        assert!(Turn::take(&state).is_ok());
        assert!(state_dir::looks_ours(&state));
    }
}
