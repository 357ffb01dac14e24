//! Owns the names of one lab, so that two labs never meet and a crashed one can be swept up.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use weft_kernel::netns::{self, NetNs, NetNsError};

use crate::inside::kill_inside;
use crate::underlay::Subnet;
use crate::{Container, Host, LabError, Lan, NatProfile, Underlay};

/// What every name of every lab begins with.
const PREFIX: &str = "weftlab-";

/// What every name of a lab begins with that outlives its process: a sweep leaves it alone.
const KEPT: &str = "weftkept-";

/// Tells apart the labs of one process: tests run side by side.
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A set of hosts and underlays with names of their own.
///
/// Namespaces are called `weftlab-PID-N-LAB-HOST`. They vanish with the values that stand for them; what a killed
/// process leaves is found by its PID and removed by [`Lab::sweep`]. Who wants to leave a lab up makes it by
/// [`Lab::kept`] and forgets its values ([`std::mem::forget`]): it stands until [`Lab::take_down`].
#[derive(Debug)]
pub struct Lab {
    prefix: String,
}

impl Lab {
    /// Opens a lab. `name` is for people who look at `ip netns` while it runs.
    pub fn new(name: &str) -> Self {
        Self::named(PREFIX, name)
    }

    /// Opens a lab that may outlive this process.
    pub fn kept(name: &str) -> Self {
        Self::named(KEPT, name)
    }

    fn named(begins: &str, name: &str) -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        Self {
            prefix: format!("{begins}{}-{number}-{name}", std::process::id()),
        }
    }

    /// Makes a host: a namespace with its loopback device up and a name that `ip netns exec` knows.
    pub fn host(&self, name: &str) -> Result<Host, LabError> {
        Host::create(name, &self.namespace(name))
    }

    /// Makes a container: a namespace that has nothing but loopback until `weft attach` connects it.
    pub fn container(&self, name: &str) -> Result<Container, LabError> {
        self.host(name)
    }

    /// Makes a switch with the subnet 192.0.2.0/24 and 2001:db8::/64, which hosts can join.
    pub fn underlay(&self, name: &str) -> Result<Underlay, LabError> {
        Underlay::create(self.host(name)?, Subnet::Public)
    }

    /// Makes a switch with the subnet 2001:db8::/64 only.
    pub fn underlay_v6(&self, name: &str) -> Result<Underlay, LabError> {
        Underlay::create(self.host(name)?, Subnet::PublicV6)
    }

    /// Makes a private network behind an address translator that is a station of `outside`, which may be another such
    /// network: a carrier's.
    pub fn lan(
        &self,
        name: &str,
        outside: &Underlay,
        profile: NatProfile,
    ) -> Result<Lan, LabError> {
        Lan::create(self.host(name)?, outside, profile)
    }

    /// Returns the full name of a namespace of this lab.
    pub fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// Removes what labs left behind whose process is gone, with the processes inside and the folders of their routers.
    /// Returns the names.
    pub fn sweep() -> Vec<String> {
        let mut swept = Vec::new();
        for name in netns::names() {
            if creator(&name).is_none_or(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
                continue;
            }
            remove(&name);
            swept.push(name);
        }
        swept
    }

    /// Removes every kept lab, with the processes inside and the folders of their routers. Returns the names. A user's
    /// namespaces have no names outside of them: there what can be found are the folders.
    pub fn take_down() -> BTreeSet<String> {
        let mut taken = BTreeSet::new();
        for name in netns::names() {
            if name.starts_with(KEPT) {
                remove(&name);
                taken.insert(name);
            }
        }
        for folder in Self::kept_folders() {
            if fs::remove_dir_all(&folder).is_ok() {
                let name = folder.file_name().unwrap_or_default();
                taken.insert(name.to_string_lossy().into_owned());
            }
        }
        taken
    }

    /// Returns the folders of the routers of kept labs.
    pub fn kept_folders() -> Vec<PathBuf> {
        folders(KEPT)
    }

    /// Says whether this process may make namespaces.
    pub fn possible() -> Result<(), NetNsError> {
        NetNs::create().map(drop)
    }
}

/// Reads the PID out of a name of [`Lab`].
fn creator(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Removes a host: its processes, its namespace, its routers' folders.
fn remove(name: &str) {
    let path = Path::new(netns::NAMED).join(name);
    if let Ok(namespace) = NetNs::open(&path) {
        kill_inside(&namespace);
    }
    netns::remove_bound(&path);
    for folder in folders(&format!("{name}-")) {
        let _ = fs::remove_dir_all(folder);
    }
}

/// Those that [`crate::Weft`] has made for hosts whose names begin like this.
fn folders(prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(std::env::temp_dir());
    let entries = entries.into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::requires_root;

    #[test]
    fn only_names_of_labs_have_a_creator() {
        assert_eq!(creator("weftlab-17-0-mesh-a"), Some(17));
        assert_eq!(creator("weftlab-x"), None);
        assert_eq!(creator("blue"), None);
    }

    #[test]
    fn a_lab_leaves_nothing_behind() {
        requires_root!();
        let lab = Lab::new("gone");
        let host = lab.host("a").unwrap();
        let name = lab.namespace("a");
        assert!(netns::names().contains(&name));
        let mut child = host
            .netns()
            .spawn(Command::new("sleep").arg("600"))
            .unwrap()
            .unwrap();

        drop(host);

        assert!(!netns::names().contains(&name));
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_sweep_takes_what_the_dead_left_and_only_that() {
        requires_root!();
        let lab = Lab::new("living");
        let _host = lab.host("a").unwrap();
        // No process has this number: it is above the kernel's limit.
        let orphan = format!("{PREFIX}4194305-0-dead-a");
        let mut left = NetNs::create_named(&orphan).unwrap();
        left.keep();

        let swept = Lab::sweep();

        assert!(swept.contains(&orphan));
        assert!(!netns::names().contains(&orphan));
        assert!(netns::names().contains(&lab.namespace("a")));
    }
}
