//! Starts the daemon: runs this program again, apart from the terminal, and listens until it says how it went.
//!
//! ```text
//!   weft up ──spawn──▶ weft daemon          argv: "daemon", environment: no WEFT_*
//!      │ config (JSON, with the token) ──▶ stdin
//!      │ stdout ◀── Word, a JSON line   stderr ──▶ <state>/weft.log, or the journal
//!      ▼
//!   prints, and ends; the daemon has put /dev/null in place of both pipes
//! ```
//!
//! **Failure policy.** A daemon that has not said how it went after [`DEADLINE`] is ended. If this command is killed
//! first, the daemon finds its pipe closed, and stops too: nobody would know of it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use weft_types::{Code, Problem};
use zeroize::Zeroize;

use crate::config::Config;
use crate::state_dir;
use crate::word::Word;

/// Longer than the daemon gives itself for a join, so that its own words arrive.
const DEADLINE: Duration = Duration::from_secs(45);

/// How long a failing daemon gets to put its devices away.
const EXIT: Duration = Duration::from_secs(5);

/// Starts a daemon and returns how it went.
pub(crate) fn launch(config: &Config) -> Result<Word, Problem> {
    state_dir::prepare(&config.state_dir)?;
    let log = if std::env::var_os("JOURNAL_STREAM").is_some() {
        Stdio::inherit()
    } else {
        Stdio::from(state_dir::open_log(&config.state_dir)?)
    };
    let mut child = spawn(log)?;
    let sent = send(&mut child, config);
    let result = match sent {
        Ok(()) => listen(&mut child, config),
        Err(problem) => Err(problem),
    };
    if !matches!(result, Ok(Word::Ready { .. } | Word::Verified { .. })) {
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
    command.spawn().map_err(|error| {
        Problem::new(Code::Internal, "the daemon cannot be started").why(error.to_string())
    })
}

fn send(child: &mut Child, config: &Config) -> Result<(), Problem> {
    let broken = |error: &dyn std::fmt::Display| {
        Problem::new(Code::Internal, "the daemon did not take its configuration")
            .why(error.to_string())
    };
    let mut pipe = child.stdin.take().ok_or_else(|| broken(&"no pipe"))?;
    let mut wire = serde_json::to_vec(config).map_err(|error| broken(&error))?;
    let sent = pipe.write_all(&wire);
    wire.zeroize();
    sent.map_err(|error| broken(&error))
}

/// Waits for the daemon's word.
fn listen(child: &mut Child, config: &Config) -> Result<Word, Problem> {
    let Some(pipe) = child.stdout.take() else {
        return Err(Problem::new(
            Code::Internal,
            "the daemon has no pipe to speak on",
        ));
    };
    let (told, word) = mpsc::channel();
    // A thread, since a pipe cannot be read with a deadline; it ends with this command at the latest.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(pipe).read_line(&mut line);
        let _ = told.send(read.map(|_| line));
    });
    match word.recv_timeout(DEADLINE) {
        Ok(Ok(line)) if !line.is_empty() => serde_json::from_str(&line).map_err(|error| {
            Problem::new(Code::Internal, "the daemon's answer makes no sense")
                .why(error.to_string())
        }),
        Ok(Ok(_) | Err(_)) => Err(died(child, config)),
        Err(_) => Err(Problem::new(
            Code::StartTimedOut,
            format!("the router was not ready within {} s", DEADLINE.as_secs()),
        )
        .fix(format!(
            "Look into its log: {}",
            state_dir::log(&config.state_dir).display()
        ))),
    }
}

/// The daemon ended without a word: says what its log ends with.
fn died(child: &mut Child, config: &Config) -> Problem {
    let status =
        wait(child, EXIT).map_or_else(|| "it hangs".to_owned(), |status| status.to_string());
    let mut why = status;
    if let Some(line) = state_dir::last_line(&state_dir::log(&config.state_dir)) {
        why = format!("{why}; its log ends with: {line}");
    }
    Problem::new(Code::Internal, "the router ended without a word")
        .why(why)
        .fix(format!(
            "Look into its log: {}",
            state_dir::log(&config.state_dir).display()
        ))
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
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) | Err(_) => return None,
        }
    }
}
