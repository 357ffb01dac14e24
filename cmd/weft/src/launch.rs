//! Starts the daemon: runs this program again, apart from the terminal, and listens until it says how it went.
//!
//! ```text
//!   weft up ──spawn──▶ weft daemon          argv: "daemon", environment: no WEFT_*
//!      │ config (JSON, with the token) ──▶ stdin
//!      │ stdout ◀── Progress, a JSON line   stderr ──▶ <state>/weft.log, or the journal
//!      ▼
//!   prints, and ends; the daemon has put /dev/null in place of both pipes
//! ```
//!
//! **Failure policy.** A daemon that has not said how it went after [`DEADLINE`] is ended. If this command is killed
//! first, the daemon finds its pipe closed, and stops too: nobody would know of it.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use weft_router::{keyfile, persist};
use weft_types::{Code, Nickname, Problem};
use zeroize::Zeroize;

use crate::config::Config;
use crate::progress::Progress;

/// Longer than the daemon gives itself for a join, so that its own words arrive.
const DEADLINE: Duration = Duration::from_secs(45);

/// How long a failing daemon gets to put its devices away.
const EXIT: Duration = Duration::from_secs(5);

/// A log longer than this is put aside at the next start; one older is kept.
const LOG_LIMIT: u64 = 8 << 20;

/// The log's name in the state directory.
pub(crate) const LOG: &str = "weft.log";
/// Where an older one is put.
const OLD_LOG: &str = "weft.log.1";
/// A file that is written to see whether there is room.
pub(crate) const PROBE: &str = "probe";

/// What the node was called last: a name given once is kept by a start that gives none.
const NAME: &str = "name";
/// What takes its place when it is whole.
const NEW_NAME: &str = "name.new";

/// Every file that a router keeps in its state directory.
pub(crate) const STATE_FILES: [&str; 10] = [
    NAME,
    NEW_NAME,
    keyfile::FILE,
    "node.key.new",
    LOG,
    OLD_LOG,
    persist::FILE,
    "weft.redb.new",
    persist::LOCK,
    PROBE,
];

/// Starts a daemon and returns how it went.
pub(crate) fn launch(config: &Config) -> Result<Progress, Problem> {
    prepare_state_dir(&config.state_dir)?;
    let log = if std::env::var_os("JOURNAL_STREAM").is_some() {
        Stdio::inherit()
    } else {
        Stdio::from(open_log(&config.state_dir)?)
    };
    let mut child = spawn(log)?;
    let sent = send(&mut child, config);
    let result = match sent {
        Ok(()) => listen(&mut child, config),
        Err(problem) => Err(problem),
    };
    if !matches!(
        result,
        Ok(Progress::Ready { .. } | Progress::Verified { .. })
    ) {
        put_away(&mut child);
    }
    result
}

/// Makes the state directory, for nobody else's eyes.
pub(crate) fn prepare_state_dir(directory: &Path) -> Result<(), Problem> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| state_problem(directory, &error))
}

/// Names what is wrong with the state directory.
pub(crate) fn state_problem(directory: &Path, error: &std::io::Error) -> Problem {
    let what = format!("the state directory {} cannot be used", directory.display());
    let kind = error.kind();
    if kind == ErrorKind::PermissionDenied {
        return Problem::new(Code::Privilege, what)
            .why(error.to_string())
            .fix("Run the command with sudo, or choose another directory with --state-dir");
    }
    if matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        return Problem::new(
            Code::DiskFull,
            format!("the disk that holds {} is full", directory.display()),
        )
        .why(error.to_string())
        .fix("Make room, and run the same command again: a token is still good");
    }
    Problem::new(Code::StateDirectory, what)
        .why(error.to_string())
        .fix("Choose another directory with --state-dir")
}

/// Keeps what this node is called, or that nobody said. Where that fails the host's name will do.
pub(crate) fn save_name(state_dir: &Path, name: Option<&Nickname>) {
    if saved_name(state_dir).as_ref() == name {
        return;
    }
    let path = state_dir.join(NAME);
    let new = state_dir.join(NEW_NAME);
    let saved = match name {
        Some(name) => fs::write(&new, name.as_str()).and_then(|()| fs::rename(&new, &path)),
        None => fs::remove_file(&path),
    };
    if let Err(error) = saved {
        tracing::warn!(%error, "the node's name is not saved");
    }
}

/// What this node was called last.
pub(crate) fn saved_name(state_dir: &Path) -> Option<Nickname> {
    Nickname::new(&fs::read_to_string(state_dir.join(NAME)).ok()?).ok()
}

fn open_log(state_dir: &Path) -> Result<File, Problem> {
    let path = state_dir.join(LOG);
    if fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_LIMIT) {
        let _ = fs::rename(&path, state_dir.join(OLD_LOG));
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| state_problem(state_dir, &error))
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
fn listen(child: &mut Child, config: &Config) -> Result<Progress, Problem> {
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
        .fix(format!("Look into its log: {}", log_path(config).display()))),
    }
}

/// The daemon ended without a word: says what its log ends with.
fn died(child: &mut Child, config: &Config) -> Problem {
    let status =
        wait(child, EXIT).map_or_else(|| "it hangs".to_owned(), |status| status.to_string());
    let mut why = status;
    if let Some(line) = last_line(&log_path(config)) {
        why = format!("{why}; its log ends with: {line}");
    }
    Problem::new(Code::Internal, "the router ended without a word")
        .why(why)
        .fix(format!("Look into its log: {}", log_path(config).display()))
}

fn log_path(config: &Config) -> PathBuf {
    config.state_dir.join(LOG)
}

/// What the last router said as it ended, if it ended with a problem.
pub(crate) fn last_words(state_dir: &Path) -> Option<String> {
    last_line(&state_dir.join(LOG)).filter(|line| line.starts_with("WFT-"))
}

/// The end of a log, as far as it fits into a sentence.
fn last_line(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(4096)))
        .ok()?;
    let mut bytes = Vec::new();
    file.take(4096).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.chars().take(300).collect())
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
