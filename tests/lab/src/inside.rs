//! Who runs inside a namespace.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weft_kernel::netns::{NetNs, NetNsError};

/// Kills every process whose network is this namespace, and no other.
pub(crate) fn kill_inside(namespace: &NetNs) {
    // Twice, because a process may be starting another one while it is found.
    for _ in 0..2 {
        for pid in inside(namespace).unwrap_or_default() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Lists the processes whose network is this namespace, but for ourselves.
pub(crate) fn inside(namespace: &NetNs) -> io::Result<Vec<i32>> {
    let wanted = namespace.inode()?;
    let ourselves = std::process::id();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let here = NetNs::of_pid(pid).and_then(|theirs| theirs.inode().map_err(NetNsError::Enter));
        if pid != ourselves && here.is_ok_and(|inode| inode == wanted) {
            found.extend(i32::try_from(pid));
        }
    }
    Ok(found.into_iter().collect())
}
