//! The real program on a host of the lab: one command after the other as a person types them, or a daemon under guard.
//!
//! Each host has a folder of its own for state and socket, so many routers run on one machine. **Invariant.** A guard
//! ends what it started by its process id, and a host kills what still runs inside when it goes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use weft_kernel::netns::NetNs;

use crate::{Host, LabError, wait_for};

/// How long a daemon may take to put its devices away before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Finds the program that tests run: what `WEFT_BIN` says, else the one built beside the running test.
pub fn binary() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("WEFT_BIN") {
        return Some(path.into());
    }
    let test = std::env::current_exe().ok()?;
    // A test is target/PROFILE/deps/NAME, an example target/PROFILE/examples/NAME, the program target/PROFILE/weft.
    let found = test.parent()?.parent()?.join("weft");
    found.is_file().then_some(found)
}

/// The program on one host, with its own state directory and socket.
#[derive(Debug)]
pub struct Weft {
    binary: PathBuf,
    folder: TempDir,
    host: String,
    netns: NetNs,
}

impl Weft {
    /// Prepares a folder for a host. Nothing runs yet.
    pub fn new(binary: impl Into<PathBuf>, host: &Host) -> Result<Self, LabError> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("{}-", host.full_name()))
            .tempdir()
            .map_err(LabError::io("make a folder for a router's state"))?;
        Ok(Self {
            binary: binary.into(),
            folder,
            host: host.full_name().to_owned(),
            netns: host
                .netns()
                .try_clone()
                .map_err(LabError::io("keep a namespace open"))?,
        })
    }

    /// Returns the folder that holds the state and the socket.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns where the router keeps its state.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Returns where the router listens for commands.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("weft.sock")
    }

    /// Returns the full name of the host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Prepares a command. The caller's `WEFT_*` settings do not reach it.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WEFT_") {
                command.env_remove(name);
            }
        }
        command
            .env("WEFT_STATE_DIR", self.state_dir())
            .env("WEFT_SOCKET", self.socket())
            .stdin(Stdio::null())
            .args(args);
        command
    }

    /// Runs a command on the host to its end, and returns what it printed.
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Output, LabError> {
        let mut command = self.command(args);
        self.netns
            .run(|| command.output())?
            .map_err(LabError::io(format!("run {}", self.binary.display())))
    }
}

/// A router in the foreground, as a service manager runs it. Dropping it ends it.
#[derive(Debug)]
pub struct Daemon {
    args: Vec<String>,
    child: Child,
    log: PathBuf,
    weft: Weft,
}

impl Daemon {
    /// Starts `weft ARGS --foreground` on a host. `args` is how a person would start it: `["up"]`, or
    /// `["join", "192.0.2.1", "--token", token]`.
    pub fn start(weft: Weft, args: &[&str]) -> Result<Self, LabError> {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let log = weft.folder.path().join("output");
        let child = spawn(&weft, &args, &log)?;
        Ok(Self {
            args,
            child,
            log,
            weft,
        })
    }

    /// Returns the program on the host, for commands to the running router.
    pub fn weft(&self) -> &Weft {
        &self.weft
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns everything it printed so far, of all its lives.
    pub fn output(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Says how it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks it to end, kills it if it does not within 5 seconds, and returns how it ended.
    pub fn stop(&mut self) -> io::Result<ExitStatus> {
        signal(&self.child, Signal::SIGTERM);
        match wait_for(GRACE, || self.child.try_wait().ok().flatten()) {
            Some((_, status)) => Ok(status),
            None => self.kill9(),
        }
    }

    /// Kills it without warning.
    pub fn kill9(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }

    /// Starts it again after its end, with the same state. A token is not given twice: a node that has joined is in.
    pub fn restart(&mut self) -> Result<(), LabError> {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let again: Vec<String> = match self.args.first().map(String::as_str) {
            Some("join") => vec!["up".to_owned()],
            _ => self.args.clone(),
        };
        self.child = spawn(&self.weft, &again, &self.log)?;
        Ok(())
    }

    /// Reads the memory it holds, in bytes.
    pub fn resident_memory(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        status
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmRSS:")?
                    .split_whitespace()
                    .next()?
                    .parse::<u64>()
                    .ok()
            })
            .map(|kibibytes| kibibytes * 1024)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = self.stop();
        }
    }
}

fn spawn(weft: &Weft, args: &[String], log: &Path) -> Result<Child, LabError> {
    let output = File::options()
        .create(true)
        .append(true)
        .open(log)
        .and_then(|file| Ok((file.try_clone()?, file)))
        .map_err(LabError::io("open a daemon's log"))?;
    let mut command = weft.command(args);
    command
        .arg("--foreground")
        .stdout(output.0)
        .stderr(output.1);
    weft.netns
        .spawn(&mut command)?
        .map_err(LabError::io(format!("start {}", weft.binary.display())))
}

fn signal(child: &Child, signal: Signal) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;
    use crate::{Lab, requires_root, wait_until};

    /// A program that says what it was given. Another process writes it: a descriptor of ours, open for writing, could
    /// be inherited by a child that another test starts, and the kernel runs no program that somebody writes.
    fn stand_in(folder: &Path, body: &str) -> PathBuf {
        let path = folder.join("weft");
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod 755 \"$0\"";
        let status = Command::new("sh")
            .args(["-c", write])
            .args([path.as_os_str(), OsStr::new(body)])
            .status()
            .unwrap();
        assert!(status.success());
        path
    }

    #[test]
    fn a_command_runs_on_its_host_with_its_own_place() {
        requires_root!();
        let folder = tempfile::tempdir().unwrap();
        let binary = stand_in(
            folder.path(),
            "echo $1 $WEFT_STATE_DIR $WEFT_SOCKET; readlink /proc/self/ns/net",
        );
        let lab = Lab::new("command");
        let host = lab.host("a").unwrap();
        let weft = Weft::new(binary, &host).unwrap();

        let printed = String::from_utf8(weft.run(&["status"]).unwrap().stdout).unwrap();

        let inode = host.netns().inode().unwrap();
        let expected = format!(
            "status {} {}\nnet:[{inode}]\n",
            weft.state_dir().display(),
            weft.socket().display()
        );
        assert_eq!(printed, expected);
    }

    #[test]
    fn a_daemon_is_stopped_killed_and_started_again() {
        requires_root!();
        let folder = tempfile::tempdir().unwrap();
        let body = "echo \"$@\"; trap 'exit 7' TERM; while :; do sleep 0.05; done";
        let binary = stand_in(folder.path(), body);
        let lab = Lab::new("daemon");
        let host = lab.host("a").unwrap();
        let weft = Weft::new(binary, &host).unwrap();
        let up = |daemon: &Daemon, lives| {
            wait_until(GRACE, || daemon.output().lines().count() == lives).is_some()
        };

        let mut daemon = Daemon::start(weft, &["join", "192.0.2.1", "--token", "x"]).unwrap();
        assert!(up(&daemon, 1));
        assert_eq!(daemon.ended(), None);
        assert_eq!(daemon.stop().unwrap().code(), Some(7));
        daemon.restart().unwrap();
        assert!(up(&daemon, 2));
        assert!(daemon.resident_memory().unwrap() > 0);
        assert_eq!(daemon.kill9().unwrap().signal(), Some(9));
        daemon.restart().unwrap();
        assert!(up(&daemon, 3));
        let pid = daemon.pid();
        assert_eq!(
            daemon.output().lines().next(),
            Some("join 192.0.2.1 --token x --foreground")
        );
        assert_eq!(daemon.output().lines().last(), Some("up --foreground"));
        drop(daemon);

        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
