//! Who started a daemon, and how it is told how that comes on: a command at the other end of a pipe, or a service manager.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::oneshot;

use crate::word::Word;

/// Who started a daemon.
pub(super) enum Starter {
    /// A command that reads words from a pipe, and ends after the last.
    Command,
    /// Who does not wait, and is told of a start that went well: what goes wrong ends the process.
    Manager(Box<dyn FnOnce(&Word)>),
}

impl Starter {
    /// Tells how the start comes on.
    pub(super) fn hear(&self, word: &Word) {
        if matches!(self, Self::Command) {
            // Who has gone is noticed by `gone`.
            let _ = say(word);
        }
    }

    /// Tells how the start came out. An error means that whoever waited has gone.
    pub(super) fn conclude(self, word: &Word) -> io::Result<()> {
        match self {
            Self::Command => {
                say(word)?;
                let_go()
            }
            Self::Manager(_) if matches!(word, Word::Failed { .. }) => Ok(()),
            Self::Manager(tell) => {
                tell(word);
                Ok(())
            }
        }
    }

    /// Resolves when the command that waits has gone.
    pub(super) async fn gone(&self) {
        match self {
            Self::Command => reader_has_gone().await,
            Self::Manager(_) => std::future::pending().await,
        }
    }
}

/// Waits on a thread, which ends when the other end of the pipe is closed: with the command at the latest.
async fn reader_has_gone() {
    let (tell, gone) = oneshot::channel();
    std::thread::spawn(move || {
        let stdout = io::stdout();
        let mut pipe = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        while poll(&mut pipe, PollTimeout::NONE) == Err(Errno::EINTR) {}
        let _ = tell.send(());
    });
    let _ = gone.await;
}

fn say(word: &Word) -> io::Result<()> {
    let mut pipe = io::stdout().lock();
    serde_json::to_writer(&mut pipe, word)?;
    pipe.write_all(b"\n")?;
    pipe.flush()
}

/// Puts /dev/null in place of both pipes.
fn let_go() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(null.as_fd())?;
    nix::unistd::dup2_stdout(null.as_fd())?;
    Ok(())
}
