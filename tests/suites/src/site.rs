//! Hosts on one underlay with the real program on each, and what a person sees who types commands there.
//!
//! A failure of the site itself (no namespace, no cable) ends the test with a panic: nothing that is tested is at fault.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;
use weft_lab::{Host, Lab, Link, Underlay, Weft, wait_until};

/// Who has no privileges at all.
const NOBODY: u32 = 65534;

/// How long the kernel and the last process may take to let go of what a failed command held.
const LET_GO: Duration = Duration::from_secs(30);

/// An underlay and the program that its hosts run.
#[derive(Debug)]
pub struct Site {
    binary: PathBuf,
    /// The network between the hosts.
    pub underlay: Underlay,
    /// Where hosts come from.
    pub lab: Lab,
}

impl Site {
    /// Opens a site. `name` is for people who look at it.
    pub fn new(name: &str, binary: PathBuf) -> Self {
        let lab = Lab::new(name);
        let underlay = lab.underlay("net").expect("an underlay");
        Self {
            binary,
            underlay,
            lab,
        }
    }

    /// Adds a host on which nothing runs yet.
    pub fn node(&self, name: &str) -> Node {
        let host = self.lab.host(name).expect("a host");
        let link = self.underlay.join(&host).expect("a cable");
        let weft = Weft::new(&self.binary, &host).expect("a folder");
        Node {
            binary: self.binary.clone(),
            host,
            link,
            weft,
        }
    }
}

/// A host with the program. What still runs is killed when it goes.
#[derive(Debug)]
pub struct Node {
    binary: PathBuf,
    /// The host.
    pub host: Host,
    /// Its cable.
    pub link: Link,
    /// The program on it.
    pub weft: Weft,
}

impl Node {
    /// Types a command: `weft` and these words.
    pub fn run(&self, words: &[&str]) -> Said {
        self.finish(self.weft.command(words), None)
    }

    /// Types a command where these mounts are seen.
    pub fn run_within(&self, mounts: &Mounts, words: &[&str]) -> Said {
        self.finish(self.weft.command(words), Some(mounts))
    }

    /// Types a command as somebody without privileges.
    pub fn run_unprivileged(&self, words: &[&str]) -> Said {
        // The program may lie where nobody else can look; an open file needs no way to it.
        let program = File::open(&self.binary).expect("the program");
        let prepared = self.weft.command(words);
        let mut command = Command::new("/proc/self/fd/0");
        command.args(words).stdin(program).uid(NOBODY).gid(NOBODY);
        for (name, value) in prepared.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        self.finish(command, None)
    }

    /// Runs a prepared command on the host.
    pub fn finish(&self, mut command: Command, mounts: Option<&Mounts>) -> Said {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let begun = Instant::now();
        let output = self
            .host
            .run(|| {
                if let Some(mounts) = mounts {
                    mounts.enter();
                }
                command.output()
            })
            .expect("a namespace")
            .expect("the program runs");
        Said {
            command: format!("{command:?}"),
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: begun.elapsed(),
        }
    }

    /// Begins a mesh and returns the token of the join line.
    pub fn create(&self) -> String {
        let said = self.run(&["up", "-o", "json"]).expect_code(0);
        let value = said.json();
        let token = value["join"]["token"].as_str().expect("a token");
        token.to_owned()
    }

    /// Types `weft join` to the host at the other end of a cable.
    pub fn join(&self, to: &Self, token: &str) -> Said {
        self.run(&["join", &to.address(), "--token", token])
    }

    /// Makes a token, with these flags.
    pub fn token(&self, flags: &[&str]) -> String {
        let words = [&["token", "create"], flags].concat();
        self.run(&words).expect_code(0).out.trim().to_owned()
    }

    /// Returns the underlay address as it is typed.
    pub fn address(&self) -> String {
        self.link.v4().to_string()
    }

    /// Reads the whole status.
    pub fn status(&self) -> Value {
        let said = self.run(&["status", "-o", "json"]);
        assert!(matches!(said.code, Some(0 | 4 | 5)), "{said}");
        said.json()
    }

    /// Returns the one process of the running router.
    pub fn process(&self) -> i32 {
        let running = self.host.processes().expect("/proc");
        assert_eq!(running.len(), 1, "one router runs on {}", self.host.name());
        running[0]
    }

    /// Reads how much memory the running router holds, in bytes.
    pub fn resident_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process());
        let text = std::fs::read_to_string(path).expect("the process");
        let kibibytes: u64 = text
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .expect("VmRSS");
        kibibytes * 1024
    }

    /// Waits until no process runs and no device of ours is left, as after a command that failed.
    pub fn assert_untouched(&self) {
        let mut seen = String::new();
        let clean = wait_until(LET_GO, || {
            let running = self.host.processes().expect("/proc");
            let devices: Vec<String> = self.devices();
            seen = format!("processes {running:?}, devices {devices:?}");
            running.is_empty() && devices == ["eth0", "lo"]
        });
        assert!(clean.is_some(), "left on {}: {seen}", self.host.name());
    }

    /// Lists the host's network devices, sorted.
    pub fn devices(&self) -> Vec<String> {
        let names = self.host.run(|| {
            let all = nix::net::if_::if_nameindex().expect("a list of devices");
            let mut names: Vec<String> = all
                .iter()
                .map(|device| device.name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        });
        names.expect("a namespace")
    }
}

/// A mount namespace of its own, in which a disk can be full and a device missing.
#[derive(Debug)]
pub struct Mounts {
    namespace: File,
}

impl Mounts {
    /// Makes one in which `path` is an empty disk of so many bytes.
    pub fn with_small_disk(path: &Path, bytes: usize) -> Self {
        std::fs::create_dir_all(path).expect("a mount point");
        Self::with(|| {
            let size = format!("size={bytes},mode=700");
            mount(
                Some("tmpfs"),
                path,
                Some("tmpfs"),
                MsFlags::empty(),
                Some(size.as_str()),
            )
        })
    }

    /// Makes one in which the device at `path` is there and cannot be opened as what it is.
    pub fn without_device(path: &Path) -> Self {
        Self::with(|| {
            let null = Some("/dev/null");
            mount(null, path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        })
    }

    fn with(change: impl FnOnce() -> nix::Result<()> + Send) -> Self {
        let namespace = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("privacy");
            change().expect("the mount");
            File::open("/proc/thread-self/ns/mnt").expect("the namespace")
        });
        Self { namespace }
    }

    /// Runs work that sees these mounts.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_a_thread(|| {
            self.enter();
            work()
        })
    }

    /// Moves the calling thread in, for the rest of its life.
    fn enter(&self) {
        // Threads share a working directory, and who does cannot change its mounts alone.
        unshare(CloneFlags::CLONE_FS).expect("a working directory of its own");
        setns(&self.namespace, CloneFlags::CLONE_NEWNS).expect("the mount namespace");
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join()).expect("the thread")
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    command: String,
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub err: String,
    /// How long it took.
    pub took: Duration,
}

impl Said {
    /// Fails unless it ended with this code.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Fails unless it ended with this code and named the problem by its number, with something to do about it.
    #[track_caller]
    pub fn expect_problem(self, code: i32, number: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        assert!(self.err.contains(number), "no {number}: {self}");
        self
    }

    /// Reads standard output as one JSON value.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            command,
            code,
            out,
            err,
            took,
        } = self;
        write!(
            f,
            "{command} ended with {code:?} after {took:?}\n{out}{err}"
        )
    }
}
