//! Network namespaces as values: made, opened, entered for the length of a closure, and gone on drop.
//!
//! A namespace lives while something refers to it: a process inside, a socket, a bind mount, or the descriptor that a
//! [`NetNs`] holds. An anonymous one therefore vanishes with its value and can leave nothing behind; a named one is also
//! bound to a file (as `ip netns` does it), so that other programs find it, and the file goes with the value.
//!
//! **Invariant.** No function here changes the namespace of a thread that it did not start itself, but for
//! [`enter_user_namespace`], whose purpose that is. `setns` acts on one thread, so work inside a namespace runs on a
//! thread of its own which ends with the work. A socket opened there stays in that namespace for life and may be carried
//! out, and so may a child process: it inherits the namespace of the thread that starts it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid};

/// The folder in which `ip netns` and `weft attach NAME` look for named namespaces.
pub const NAMED: &str = "/run/netns";

/// The file that stands for the namespace of the thread that opens it.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace, kept alive by this value.
#[derive(Debug)]
pub struct NetNs {
    file: File,
    bound: Option<PathBuf>,
}

/// Why a namespace could not be made, found or entered.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// The namespace could not be given its name.
    #[error("cannot bind a network namespace to {}: {source}", path.display())]
    Bind {
        /// The file it was to be bound to.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a namespace: without `CAP_SYS_ADMIN` it always does.
    #[error("cannot create a network namespace: {0}")]
    Create(#[source] io::Error),
    /// The namespace exists but may not be entered.
    #[error("cannot enter a network namespace: {0}")]
    Enter(#[source] io::Error),
    /// There is no such namespace, or it may not be looked at.
    #[error("cannot open the network namespace {}: {source}", path.display())]
    Open {
        /// The file that was tried.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No thread could be started to work in the namespace.
    #[error("cannot start a thread for a network namespace: {0}")]
    Thread(#[source] io::Error),
}

impl NetNs {
    /// Creates a namespace without a name. It holds nothing but a loopback device that is down.
    pub fn create() -> Result<Self, NetNsError> {
        let file = on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| NetNsError::Create(errno.into()))?;
            open(Path::new(OWN))
        })??;
        Ok(Self { file, bound: None })
    }

    /// Creates a namespace and binds it to the file `name` in [`NAMED`], where other programs find it by that name.
    pub fn create_named(name: &str) -> Result<Self, NetNsError> {
        Self::create_bound(&Path::new(NAMED).join(name))
    }

    /// Creates a namespace and binds it to the file `path`, which must not exist; its folder is made if need be.
    pub fn create_bound(path: &Path) -> Result<Self, NetNsError> {
        let refused = |source| NetNsError::Bind {
            path: path.to_owned(),
            source,
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(refused)?;
        }
        File::create_new(path).map_err(refused)?;
        let made = on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| NetNsError::Create(errno.into()))?;
            mount(
                Some(OWN),
                path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .map_err(|errno| refused(errno.into()))?;
            open(Path::new(OWN))
        });
        match made.and_then(|inner| inner) {
            Ok(file) => Ok(Self {
                file,
                bound: Some(path.to_owned()),
            }),
            Err(error) => {
                remove_bound(path);
                Err(error)
            }
        }
    }

    /// Opens the namespace that a file stands for. Dropping the value leaves the file alone.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NetNsError> {
        Ok(Self {
            file: open(path.as_ref())?,
            bound: None,
        })
    }

    /// Opens the namespace of a running process.
    pub fn of_pid(pid: u32) -> Result<Self, NetNsError> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// Opens the namespace that the calling thread is in.
    pub fn current() -> Result<Self, NetNsError> {
        Self::open(OWN)
    }

    /// Runs `work` on a thread inside the namespace and waits for its end. A panic of `work` is a panic here.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
        on_own_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| NetNsError::Enter(errno.into()))?;
            Ok(work())
        })?
    }

    /// Runs a future on a thread inside the namespace, under a tokio runtime that ends with it, and waits for its end.
    pub fn block_on<F: Future>(
        &self,
        work: impl FnOnce() -> F + Send,
    ) -> Result<F::Output, NetNsError>
    where
        F::Output: Send,
    {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(NetNsError::Thread)?;
            Ok(runtime.block_on(work()))
        })?
    }

    /// Starts a child process inside the namespace. The outer error is the namespace's, the inner one the program's.
    pub fn spawn(&self, command: &mut Command) -> Result<io::Result<Child>, NetNsError> {
        self.run(|| command.spawn())
    }

    /// Returns another handle on the same namespace. It does not own the name.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            bound: None,
        })
    }

    /// Returns the number by which the kernel tells namespaces apart: equal numbers are one namespace.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.ino())
    }

    /// Returns the file the namespace is bound to, if this value bound it.
    pub fn bound(&self) -> Option<&Path> {
        self.bound.as_deref()
    }

    /// Leaves the name behind when the value is dropped: the namespace then lives until somebody calls
    /// [`remove_bound`].
    pub fn keep(&mut self) {
        self.bound = None;
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        if let Some(path) = &self.bound {
            remove_bound(path);
        }
    }
}

/// Unbinds a namespace from its file and removes the file. What is not there is no error: the aim is reached.
pub fn remove_bound(path: &Path) {
    // A name bound twice needs two unmounts; each call undoes one, and the file can go when none is left.
    while umount2(path, MntFlags::MNT_DETACH).is_ok() {}
    let _ = fs::remove_file(path);
}

/// Lists the names in [`NAMED`], sorted.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(NAMED)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Why the process could not become its own administrator in a user namespace.
#[derive(Debug, thiserror::Error)]
pub enum UserNamespaceError {
    /// The kernel or its security module forbids it to this user.
    #[error(
        "this kernel does not let user {uid} create a user namespace with a network of its own ({step}: {source})"
    )]
    Forbidden {
        /// The user who asked.
        uid: u32,
        /// The step that was refused.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The process has more than one thread, and only one of them could be moved.
    #[error("a user namespace must be entered before the process starts threads")]
    Threaded,
}

/// Moves the process into a user namespace in which it is root, with a network, mounts and a `/run` of its own.
///
/// Meant for programs that build namespaces and want to serve users who are not root. Must be called before the process
/// starts threads. Nothing outside changes; everything made inside ends with the last process inside.
pub fn enter_user_namespace() -> Result<(), UserNamespaceError> {
    let (uid, gid) = (Uid::current(), Gid::current());
    let refused = |step: &'static str| {
        move |source: io::Error| UserNamespaceError::Forbidden {
            uid: uid.as_raw(),
            step,
            source,
        }
    };
    let errno = |step: &'static str| move |errno: nix::Error| refused(step)(errno.into());
    let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    match unshare(flags) {
        Err(nix::Error::EINVAL) => return Err(UserNamespaceError::Threaded),
        outcome => outcome.map_err(errno("unshare"))?,
    }
    // user_namespaces(7): without this the group map may not be written by an unprivileged process.
    fs::write("/proc/self/setgroups", "deny").map_err(refused("setgroups"))?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).map_err(refused("uid_map"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).map_err(refused("gid_map"))?;
    let recursive = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, recursive, None::<&str>)
        .map_err(errno("private mounts"))?;
    // The host's /run belongs to the host's root, who is a stranger here; names of namespaces need a writable one.
    mount(
        Some("weft"),
        "/run",
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=755"),
    )
    .map_err(errno("a private /run"))
}

fn open(path: &Path) -> Result<File, NetNsError> {
    File::open(path).map_err(|source| NetNsError::Open {
        path: path.to_owned(),
        source,
    })
}

/// Runs `work` on a thread that ends with it, so that whatever it does to its namespace concerns nobody else.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(NetNsError::Thread)?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    /// Namespaces need privilege; without it the tests say so and pass.
    fn created() -> Option<NetNs> {
        match NetNs::create() {
            Ok(namespace) => Some(namespace),
            Err(NetNsError::Create(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_closure_runs_inside_and_the_caller_stays_outside() {
        let Some(namespace) = created() else { return };
        let outside = NetNs::current().unwrap().inode().unwrap();

        let inside = namespace
            .run(|| NetNs::current().unwrap().inode().unwrap())
            .unwrap();

        assert_eq!(inside, namespace.inode().unwrap());
        assert_ne!(inside, outside);
        assert_eq!(NetNs::current().unwrap().inode().unwrap(), outside);
    }

    #[test]
    fn a_child_process_is_born_inside() {
        let Some(namespace) = created() else { return };

        let mut command = Command::new("sleep");
        let mut child = namespace
            .spawn(command.arg("60").stdout(Stdio::null()))
            .unwrap()
            .unwrap();
        let found = NetNs::of_pid(child.id()).unwrap().inode().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();

        assert_eq!(found, namespace.inode().unwrap());
    }

    #[test]
    fn a_bound_namespace_is_found_by_its_file_and_takes_it_along() {
        if created().is_none() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blue");

        let namespace = NetNs::create_bound(&path).unwrap();
        let found = NetNs::open(&path).unwrap();

        assert_eq!(found.inode().unwrap(), namespace.inode().unwrap());
        assert!(matches!(
            NetNs::create_bound(&path),
            Err(NetNsError::Bind { .. })
        ));
        drop(found);
        assert!(path.exists());
        drop(namespace);
        assert!(!path.exists());
    }

    #[test]
    #[should_panic(expected = "from inside")]
    fn a_panic_inside_is_a_panic_outside() {
        let namespace = NetNs::current().unwrap();

        let _ = on_own_thread(|| -> () { panic!("from inside {namespace:?}") });
    }

    #[test]
    fn a_file_that_is_no_namespace_is_refused_on_entry() {
        let namespace = NetNs::open("/dev/null").unwrap();

        assert!(matches!(namespace.run(|| ()), Err(NetNsError::Enter(_))));
        assert!(matches!(
            NetNs::open("/nonexistent"),
            Err(NetNsError::Open { .. })
        ));
    }
}
