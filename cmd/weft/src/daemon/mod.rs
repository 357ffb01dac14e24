//! The daemon: a router, the host's devices, and the ties between them and to whoever started it.
//!
//! ```text
//!   config ──▶ host: bridge, TAP ──▶ router ──snapshots──▶ host: kernel tables
//!                                      │
//!                                      └── progress ──▶ Word ──▶ the command that waits, or systemd
//! ```
//!
//! **Failure policy.** A start that fails is undone: connections closed, devices put away, the problem reported, and the
//! same command may be given again. What fails later is in the status and the log, and the daemon goes on.

mod log;
mod patience;
mod privilege;
mod signals;
mod start;
mod starter;
mod watchdog;

use std::io::IsTerminal;

use sd_notify::NotifyState;
use weft_types::{Code, ExitCode, Problem};

use self::log::Later;
use self::start::{Started, start};
use self::starter::Starter;
use crate::config::Config;
use crate::fault::broken;
use crate::output::Outcome;
use crate::word::Word;
use crate::{machine, state_dir};

/// Two: the hub, and a second one so that a slow answer to a person delays no heartbeat. Frames have threads of their own.
const THREADS: usize = 2;

/// Runs as the daemon that [`crate::launch`] starts: configuration on standard input, progress on standard output.
pub(crate) fn detached() -> Outcome {
    let config = given()?;
    // Else the process is called as the link is that it was started by: `exe`.
    let _ = nix::sys::prctl::set_name(c"weft");
    // Fails where this process leads a group already: then it is apart from the terminal, too.
    let _ = nix::unistd::setsid();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let later = match log::to_stderr(&config) {
        Ok(later) => later,
        Err(problem) => {
            let told = problem.clone();
            let _ = Starter::Command.conclude(&Word::Failed { problem: told });
            return Err(problem);
        }
    };
    run(config, later, Starter::Command)
}

/// Reads the configuration from the pipe.
fn given() -> Result<Config, Problem> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let problem = Problem::new(Code::Usage, "this verb is the daemon's own");
        return Err(problem.fix("Write: sudo weft up"));
    }
    serde_json::from_reader(stdin.lock()).map_err(|error| {
        Problem::new(Code::Usage, "the daemon was given no configuration").why(error.to_string())
    })
}

/// Runs in the foreground, as under systemd; `tell` is told how the start went, unless it failed. No token is made: what
/// it tells may go into a journal.
pub(crate) fn foreground(config: Config, tell: impl FnOnce(&Word) + 'static) -> Outcome {
    machine::check(&config)?;
    state_dir::prepare(&config.state_dir)?;
    let later = log::to_stderr(&config)?;
    run(config, later, Starter::Manager(Box::new(tell)))
}

/// Runs a router until it is stopped.
fn run(config: Config, later: Later, starter: Starter) -> Outcome {
    privilege::give_up(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("weft-hub")
        .enable_all()
        .build()
        .map_err(broken("the daemon cannot start"))?;
    runtime.spawn(later.say());
    runtime.block_on(live(config, starter))
}

async fn live(config: Config, starter: Starter) -> Outcome {
    match start(config, &starter).await {
        Ok((started, word)) => {
            let heard = starter.conclude(&word);
            drop(word);
            serve(started, heard.is_ok()).await
        }
        Err(problem) => {
            tracing::error!(code = %problem.code, %problem, "the router did not start");
            let told = problem.clone();
            let _ = starter.conclude(&Word::Failed { problem: told });
            Err(problem)
        }
    }
}

/// Serves until told to stop, or the router ends. Told by a signal, as by a service manager that may start it again
/// at once, it leaves the devices as they are.
async fn serve(mut started: Started, wanted: bool) -> Outcome {
    let mut progress = started.running.progress.clone();
    let mut again = false;
    if wanted {
        // Fails where there is no systemd: then nobody wants to know.
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        tokio::select! {
            _ = progress.wait_for(|reached| reached.ended.is_some()) => {}
            name = started.signals.stop() => {
                tracing::info!(signal = name, "stopping");
                again = true;
            }
            () = watchdog::feed(&started.running.api) => {}
        }
    } else {
        tracing::warn!("the command that started the router has gone, so it stops");
    }
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    let ended = started.running.shutdown().await;
    match (wanted, again) {
        (true, true) => started.host.leave_standing(),
        (true, false) => started.host.close().await,
        (false, _) => started.host.undo().await,
    }
    ended.map(|()| ExitCode::Ok)
}
