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

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use weft_types::{Code, Problem};
use zeroize::Zeroize;

use crate::config::Config;
use crate::fault::broken;
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
    let result = sent.and_then(|()| listen(&mut child, config));
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

/// Waits for the daemon's word.
fn listen(child: &mut Child, config: &Config) -> Result<Word, Problem> {
    let pipe = child.stdout.take();
    let pipe = pipe
        .ok_or("no pipe")
        .map_err(broken("the daemon cannot speak"))?;
    match first_line(pipe).recv_timeout(DEADLINE) {
        Ok(Ok(line)) if !line.is_empty() => {
            serde_json::from_str(&line).map_err(broken("the daemon's answer makes no sense"))
        }
        Ok(Ok(_) | Err(_)) => Err(died(child, config)),
        Err(_) => Err(not_ready(config)),
    }
}

/// Reads on a thread, since a pipe cannot be read with a deadline; it ends with this command at the latest.
fn first_line(pipe: ChildStdout) -> mpsc::Receiver<io::Result<String>> {
    let (told, word) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(pipe).read_line(&mut line);
        let _ = told.send(read.map(|_| line));
    });
    word
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
