//! The router's state directory: what files are in it, and those that the command and the daemon keep there themselves.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use weft_router::keyfile;
use weft_router::persist;
use weft_router::private;
use weft_router::private::io_problem;
use weft_types::{Nickname, Problem};

/// A log that would be longer than this is put aside; one older is kept.
pub(crate) const LOG_LIMIT: u64 = 4 << 20;

/// The log's name in the state directory.
const LOG: &str = "weft.log";
/// Where an older one is put.
const OLD_LOG: &str = "weft.log.1";
/// A file that is written to see whether there is room.
pub(crate) const PROBE: &str = "probe";

/// Whose turn it is to start a router.
pub(crate) const TURN: &str = "turn.lock";

/// What the node was called last: a name given once is kept by a start that gives none.
const NAME: &str = "name";
/// What takes its place when it is whole.
const NEW_NAME: &str = "name.new";

/// Every file that a router keeps in its state directory.
const FILES: [&str; 11] = [
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
    TURN,
];

/// Makes the state directory, for nobody else's eyes; refuses one that others may change.
pub(crate) fn prepare(directory: &Path) -> Result<(), Problem> {
    private::directory(directory)
}

/// Whether a directory is empty or holds the router's own files: what `--state-dir /home` must never remove.
pub(crate) fn looks_ours(directory: &Path) -> bool {
    let ours = |name: &str| FILES.contains(&name);
    fs::read_dir(directory).is_ok_and(|mut entries| {
        entries.all(|entry| entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(ours)))
    })
}

/// Removes the router's own files.
pub(crate) fn remove(directory: &Path) -> Result<(), Problem> {
    for name in FILES {
        match fs::remove_file(directory.join(name)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io_problem(directory, &error)),
        }
    }
    // Under systemd the directory is a mount of its own, and stays; one with files of others stays too.
    let _ = fs::remove_dir(directory);
    Ok(())
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

/// What to do where a router ended or hangs without a word.
pub(crate) fn look_into_log(state_dir: &Path) -> String {
    format!("Look into its log: {}", log(state_dir).display())
}

/// Opens the log, and puts a long one aside.
pub(crate) fn open_log(state_dir: &Path) -> Result<File, Problem> {
    let path = log(state_dir);
    if fs::symlink_metadata(&path).is_ok_and(|meta| meta.len() > LOG_LIMIT) {
        let _ = put_log_aside(state_dir);
    }
    private::open(&path, OpenOptions::new().create(true).append(true))
        .map_err(|error| io_problem(&path, &error))
}

/// Puts the log aside, in place of an older one.
pub(crate) fn put_log_aside(state_dir: &Path) -> io::Result<()> {
    fs::rename(log(state_dir), state_dir.join(OLD_LOG))
}

/// Where the log is.
pub(crate) fn log(state_dir: &Path) -> PathBuf {
    state_dir.join(LOG)
}

/// What the last router said as it ended, if it ended with a problem.
pub(crate) fn last_words(state_dir: &Path) -> Option<String> {
    last_line(&log(state_dir)).filter(|line| line.starts_with("WFT-"))
}

/// The end of a log, as far as it fits into a sentence.
pub(crate) fn last_line(path: &Path) -> Option<String> {
    let mut file = private::open(path, OpenOptions::new().read(true)).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(4096)))
        .ok()?;
    let mut bytes = Vec::new();
    file.take(4096).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.chars().take(300).collect())
}
