//! The script that a reader is told to run: it does what it says, and leaves nothing, whenever it is stopped.
//!
//! The program among the examples has its test in itself.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weft_lab::{requires_program, requires_root, requires_weft, wait_for, wait_until};

/// How long all of it may take: a few seconds on a machine that has nothing else to do.
const LIMIT: Duration = Duration::from_secs(120);

/// The script at work, and where it may leave files.
struct Script {
    child: Child,
    folder: tempfile::TempDir,
}

impl Script {
    fn start(weft: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        let output = File::create(folder.path().join("output")).unwrap();
        let mut command = Command::new("sh");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WEFT_") {
                command.env_remove(name);
            }
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/two-hosts.sh");
        let child = command
            .arg(script)
            .env("WEFT", weft)
            .env("TMPDIR", folder.path().join("tmp"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    fn said(&self) -> String {
        let mut text = String::new();
        let mut file = File::open(self.folder.path().join("output")).unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }

    /// Waits for its end; returns its exit code.
    fn end(&mut self) -> Option<i32> {
        let ended = wait_for(LIMIT, || self.child.try_wait().unwrap());
        let Some((_, status)) = ended else {
            panic!("it does not end: {}", self.said());
        };
        status.code()
    }

    /// Fails where a namespace, a process or a file is left.
    fn assert_clean(&self) {
        let ours = format!("weft-example-{}-", self.child.id());
        let named: Vec<String> = names("/run/netns")
            .into_iter()
            .filter(|name| name.starts_with(&ours))
            .collect();
        assert!(named.is_empty(), "left: {named:?}\n{}", self.said());
        let files = names(self.folder.path().join("tmp"));
        assert!(files.is_empty(), "left: {files:?}\n{}", self.said());
        // A router is told by its state directory, which its log in it keeps open.
        let folder = self.folder.path().join("tmp");
        let gone = wait_until(LIMIT, || !somebody_holds(&folder));
        assert!(gone.is_some(), "a router is left\n{}", self.said());
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            // Its own way out, so that nothing is left by a test that failed.
            let _ = kill(pid(&self.child), Signal::SIGTERM);
            let _ = wait_for(LIMIT, || self.child.try_wait().ok().flatten());
        }
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

fn names(directory: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

/// Whether a process has a file open in a folder, also one that was removed.
fn somebody_holds(folder: &Path) -> bool {
    let processes = names("/proc")
        .into_iter()
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    processes
        .flat_map(|process| fs::read_dir(format!("/proc/{process}/fd")))
        .flatten()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .any(|path| path.starts_with(folder))
}

#[test]
fn the_script_joins_two_hosts_and_leaves_nothing() {
    let binary = requires_weft!();
    requires_root!();
    requires_program!("ip");
    requires_program!("ping");

    let mut script = Script::start(&binary);
    let code = script.end();

    let said = script.said();
    assert_eq!(code, Some(0), "{said}");
    for word in [
        "mesh \"",
        "bytes verified both ways, encrypted",
        "3 packets transmitted, 3 received",
        "# Done.",
    ] {
        assert!(said.contains(word), "no {word}: {said}");
    }
    script.assert_clean();
}

#[test]
fn the_script_that_is_stopped_in_the_middle_leaves_nothing() {
    let binary = requires_weft!();
    requires_root!();
    requires_program!("ip");
    requires_program!("ping");
    for step in ["# 2.", "# 4.", "# 6."] {
        let mut script = Script::start(&binary);

        let there = wait_until(LIMIT, || script.said().contains(step));
        assert!(there.is_some(), "{step}: {}", script.said());
        kill(pid(&script.child), Signal::SIGTERM).unwrap();

        assert_eq!(script.end(), Some(130), "{step}: {}", script.said());
        script.assert_clean();
    }
}
