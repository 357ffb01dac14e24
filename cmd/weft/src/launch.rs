//! Starts the daemon: runs this program again, apart from the terminal, and listens until it says how it went.
//!
//! ```text
//!   weft up ──spawn──▶ weft daemon          argv: "daemon", environment: no WEFT_*
//!      │ config (JSON, with the token) ──▶ stdin
//!      │ stdout ◀── Words, JSON lines   stderr ──▶ <state>/weft.log, or the journal
//!      ▼
//!   prints, and ends; the daemon has put /dev/null in place of both pipes
//! ```
//!
//! **Failure policy.** A daemon that has not said how it went after [`DEADLINE`] is ended. Ctrl-C is passed on, and the
//! daemon undoes what it began and says so; a second one does not wait for that. If this command is killed first, the
//! daemon finds its pipe closed, and stops too: nobody would know of it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::sync::mpsc;
use weft_types::{Code, Problem};
use zeroize::Zeroize;

use crate::config::Config;
use crate::context::{block_on, interrupt};
use crate::fault::broken;
use crate::state_dir;
use crate::word::Word;

/// Longer than the daemon gives itself for a join, so that its own words arrive.
const DEADLINE: Duration = Duration::from_secs(45);

/// How long a failing daemon gets to put its devices away.
const EXIT: Duration = Duration::from_secs(5);

/// How a start came out.
pub(crate) struct Launched {
    pub(crate) word: Word,
    /// Ctrl-C came meanwhile.
    pub(crate) interrupted: bool,
}

/// What shells count a command as that ended by Ctrl-C: 128 + SIGINT.
pub(crate) const INTERRUPTED: i32 = 130;

/// Starts a daemon and returns how it went; `hear` is told how it comes on.
pub(crate) fn launch(config: &Config, hear: impl FnMut(&Word)) -> Result<Launched, Problem> {
    state_dir::prepare(&config.state_dir)?;
    let log = if std::env::var_os("JOURNAL_STREAM").is_some() {
        Stdio::inherit()
    } else {
        Stdio::from(state_dir::open_log(&config.state_dir)?)
    };
    let mut child = spawn(log)?;
    let sent = send(&mut child, config);
    let result = sent.and_then(|()| block_on(listen(&mut child, config, hear)));
    let runs = |launched: &Launched| {
        matches!(launched.word, Word::Ready { .. } | Word::Verified { .. }) && !launched.interrupted
    };
    if !result.as_ref().is_ok_and(runs) {
        put_away(&mut child);
    }
    result
}

fn spawn(log: Stdio) -> Result<Child, Problem> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("weft")
        .arg("daemon")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log);
    // The configuration is complete on the pipe; what is left here could only contradict it, or leak.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("WEFT_")) {
            command.env_remove(name);
        }
    }
    command
        .spawn()
        .map_err(broken("the daemon cannot be started"))
}

fn send(child: &mut Child, config: &Config) -> Result<(), Problem> {
    const WHAT: &str = "the daemon did not take its configuration";
    let pipe = child.stdin.take();
    let mut pipe = pipe.ok_or("no pipe").map_err(broken(WHAT))?;
    let mut wire = serde_json::to_vec(config).map_err(broken(WHAT))?;
    let sent = pipe.write_all(&wire);
    wire.zeroize();
    sent.map_err(broken(WHAT))
}

/// Waits for the daemon's last word.
async fn listen(
    child: &mut Child,
    config: &Config,
    mut hear: impl FnMut(&Word),
) -> Result<Launched, Problem> {
    let pipe = child.stdout.take();
    let pipe = pipe
        .ok_or("no pipe")
        .map_err(broken("the daemon cannot speak"))?;
    let mut words = words(pipe);
    let mut signals = interrupt()?;
    let mut interrupted = false;
    let deadline = tokio::time::sleep(DEADLINE);
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            word = words.recv() => match word.transpose().map_err(broken("the daemon's answer makes no sense"))? {
                Some(word) if word.is_interim() => hear(&word),
                Some(word) => return Ok(Launched { word, interrupted }),
                None if interrupted => return Ok(undone()),
                None => return Err(died(child, config)),
            },
            _ = signals.recv() => {
                if interrupted {
                    std::process::exit(INTERRUPTED);
                }
                interrupted = true;
                stop(child);
            }
            () = &mut deadline => return Err(not_ready(config)),
        }
    }
}

/// Reads on a thread, since a pipe cannot be read with a deadline; it ends with this command at the latest.
fn words(pipe: ChildStdout) -> mpsc::UnboundedReceiver<serde_json::Result<Word>> {
    let (told, words) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if told.send(serde_json::from_str(&line)).is_err() {
                return;
            }
        }
    });
    words
}

/// Has the daemon undo what it began.
fn stop(child: &Child) {
    if let Ok(process) = i32::try_from(child.id()) {
        let _ = nix::sys::signal::kill(Pid::from_raw(process), Signal::SIGINT);
    }
}

/// It ended before it had begun anything.
fn undone() -> Launched {
    let what = "interrupted before anything was begun";
    Launched {
        word: Word::Failed {
            problem: Problem::new(Code::CutShort, what),
        },
        interrupted: true,
    }
}

fn not_ready(config: &Config) -> Problem {
    let what = format!("the router was not ready within {} s", DEADLINE.as_secs());
    Problem::new(Code::StartTimedOut, what).fix(state_dir::look_into_log(&config.state_dir))
}

/// The daemon ended without a word: says what its log ends with.
fn died(child: &mut Child, config: &Config) -> Problem {
    let status = wait(child, EXIT);
    let mut why = status.map_or_else(|| "it hangs".to_owned(), |status| status.to_string());
    if let Some(line) = state_dir::last_line(&state_dir::log(&config.state_dir)) {
        why = format!("{why}; its log ends with: {line}");
    }
    Problem::new(Code::Internal, "the router ended without a word")
        .why(why)
        .fix(state_dir::look_into_log(&config.state_dir))
}

/// Sees a failed daemon off: its pipe is closed and it stops by itself, else it is ended.
fn put_away(child: &mut Child) {
    drop(child.stdout.take());
    if wait(child, EXIT).is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn wait(child: &mut Child, within: Duration) -> Option<std::process::ExitStatus> {
    let until = Instant::now() + within;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            // Nothing waits for a child with a deadline: std offers no such thing, and a signal would be heard everywhere.
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) | Err(_) => return None,
        }
    }
}
