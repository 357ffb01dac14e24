//! Opens the Unix socket and says who may speak on it.
//!
//! The socket is 0660: the kernel turns away whoever is neither its owner nor in its group. What the peer's credentials
//! say is checked once more per connection, so a loosened mode does not open the router.
//!
//! **Failure policy.** A socket that a dead process left behind is replaced; one that is answered is never touched.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::{UnixListener, UnixStream};
use weft_types::{Code, Problem};

/// Whose members may steer the router beside root, where the system has such a group.
const GROUP: &str = "weft";

/// The kernel's bound for a socket's path, without the terminating zero: unix(7).
const MAX_PATH: usize = 107;

/// A socket of ours; its file goes with it.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Begins to listen.
    pub(super) async fn bind(path: &Path) -> Result<(Self, UnixListener), Problem> {
        if path.as_os_str().len() > MAX_PATH {
            return Err(too_long(path));
        }
        match UnixStream::connect(path).await {
            Ok(_) => return Err(already_running(path)),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => clear(path)?,
            // Absent, or something that bind will complain about in better words.
            Err(_) => {}
        }
        if let Some(directory) = path.parent() {
            open_directory(directory).map_err(|error| cannot_listen(path, &error))?;
        }
        // The file exists with the process's umask for a moment: at worst too strict.
        let listener = UnixListener::bind(path).map_err(|error| {
            if error.kind() == ErrorKind::AddrInUse {
                already_running(path)
            } else {
                cannot_listen(path, &error)
            }
        })?;
        let inode = permit(path).map_err(|error| cannot_listen(path, &error))?;
        let socket = Self {
            path: path.to_owned(),
            inode,
        };
        Ok((socket, listener))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Another router may have put its own there meanwhile.
        if fs::metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the socket that a dead process left behind, and nothing else: whatever is no socket refuses connections, too.
fn clear(path: &Path) -> Result<(), Problem> {
    let found = fs::symlink_metadata(path).map_err(|error| cannot_listen(path, &error))?;
    if !found.file_type().is_socket() {
        return Err(no_socket(path));
    }
    fs::remove_file(path).map_err(|error| cannot_listen(path, &error))
}

/// Makes a directory, and those above it, through which others find the socket: its own mode says who may use it.
fn open_directory(directory: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = directory
        .ancestors()
        .take_while(|above| !above.as_os_str().is_empty() && !above.exists())
        .collect();
    for made in missing.into_iter().rev() {
        fs::create_dir(made)?;
        // Whatever the process's umask is: a router's keeps all others out.
        fs::set_permissions(made, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// The group whose members may steer the router beside root, where the system has it.
pub fn socket_group() -> Option<u32> {
    group_id(&fs::read_to_string("/etc/group").unwrap_or_default(), GROUP)
}

fn permit(path: &Path) -> io::Result<u64> {
    if let Some(gid) = socket_group() {
        // Without CAP_CHOWN, and out of that group, it stays ours, which is stricter.
        let _ = std::os::unix::fs::chown(path, None, Some(gid));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    fs::metadata(path).map(|meta| meta.ino())
}

/// Finds a group in the text of group(5).
fn group_id(table: &str, name: &str) -> Option<u32> {
    table.lines().find_map(|line| id_in(line, name))
}

fn id_in(line: &str, name: &str) -> Option<u32> {
    let mut fields = line.split(':');
    if fields.next()? != name {
        return None;
    }
    fields.nth(1)?.parse().ok()
}

fn too_long(path: &Path) -> Problem {
    let what = format!("the socket path {} is too long", path.display());
    Problem::new(Code::Configuration, what)
        .why(format!("the kernel takes {MAX_PATH} bytes"))
        .fix("Choose a shorter one with --socket")
}

fn no_socket(path: &Path) -> Problem {
    let what = format!("{} is there, and is no socket", path.display());
    Problem::new(Code::Configuration, what)
        .why("what is no socket is never replaced by one")
        .fix("Choose another path with --socket")
}

fn already_running(path: &Path) -> Problem {
    Problem::new(
        Code::DaemonRunning,
        format!("a weft router answers at {} already", path.display()),
    )
    .fix("See how it is: weft status. Stop it: sudo weft down. Run a second one with --socket and --state-dir of its own")
}

fn cannot_listen(path: &Path, error: &io::Error) -> Problem {
    let what = format!("cannot listen on the socket {}", path.display());
    if error.kind() == ErrorKind::PermissionDenied {
        return Problem::new(Code::Privilege, what)
            .why(error.to_string())
            .fix("Run the command with sudo, or choose another path with --socket");
    }
    Problem::new(Code::Configuration, what)
        .why(error.to_string())
        .fix("Choose another path with --socket")
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    allowed: bool,
}

impl Caller {
    /// Whether it is root, the router's own user, or a member of the socket's group.
    pub(super) const fn allowed(self) -> bool {
        self.allowed
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let io = stream.io();
        let path = io
            .local_addr()
            .ok()
            .and_then(|addr| addr.as_pathname().map(Path::to_owned));
        let allowed = io.peer_cred().is_ok_and(|cred| {
            let socket = path.and_then(|path| fs::metadata(path).ok());
            cred.uid() == 0
                || socket.is_some_and(|socket| {
                    cred.uid() == socket.uid()
                        || cred.gid() == socket.gid()
                        || cred.pid().is_some_and(|pid| in_group(pid, socket.gid()))
                })
        });
        Self { allowed }
    }
}

/// Whether a process has a supplementary group: proc(5), `Groups:`.
fn in_group(pid: i32, gid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    let mut groups = groups(status.as_deref().unwrap_or_default());
    groups.any(|one| one.parse() == Ok(gid))
}

fn groups(status: &str) -> impl Iterator<Item = &str> {
    let mut lines = status.lines();
    let groups = lines.find_map(|line| line.strip_prefix("Groups:"));
    groups.into_iter().flat_map(str::split_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_live_socket_is_refused_and_a_stale_one_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weft.sock");
        let (socket, listener) = Socket::bind(&path).await.unwrap();

        let second = Socket::bind(&path).await.unwrap_err();
        drop(listener);
        std::mem::forget(socket); // as a killed process does
        let third = Socket::bind(&path).await;

        assert_eq!(second.code, Code::DaemonRunning);
        assert!(third.is_ok());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "text").unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();

        for taken in [&path, &link] {
            let problem = Socket::bind(taken).await.unwrap_err();

            assert_eq!(problem.code, Code::Configuration);
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }

    #[tokio::test]
    async fn the_way_to_the_socket_is_open_whatever_the_umask() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/weft.sock");

        let (_socket, _listener) = Socket::bind(&path).await.unwrap();

        for made in ["a", "a/b"] {
            let mode = fs::metadata(directory.path().join(made)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o755, "{made}");
        }
    }

    #[tokio::test]
    async fn the_socket_is_closed_to_others_and_goes_with_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/weft.sock");
        let (socket, _listener) = Socket::bind(&path).await.unwrap();

        let mode = fs::metadata(&path).unwrap().mode() & 0o777;
        drop(socket);

        assert_eq!(mode, 0o660);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_path_the_kernel_cannot_take_is_a_matter_of_configuration() {
        let problem = Socket::bind(Path::new(&format!("/tmp/{}", "x".repeat(200))))
            .await
            .unwrap_err();

        assert_eq!(problem.code, Code::Configuration);
    }

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let table = "root:x:0:\nweft-users:x:998:\nweft:x:999:alice,bob\n";

        assert_eq!(group_id(table, "weft"), Some(999));
        assert_eq!(group_id(table, "wef"), None);
    }
}
