//! Keeps who this node is: `node.key` in the state directory, for the eyes of its owner only.
//!
//! **Invariant.** The file is whole or absent: it is written under another name, made durable, and renamed.
//! **Failure policy.** A file that others can read, or that is damaged, is refused and left as it is: a node that made
//! itself a new key would be a stranger to its mesh, and the old key may still be saved from a backup.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tracing::info;
use weft_router_proto::crypto::Crypto;
use weft_router_proto::identity::NodeKeys;
use weft_router_proto::router::{last_boot, saved_node};
use weft_router_proto::store::Saved;
use weft_types::{Code, NodeId, Problem};
use zeroize::Zeroizing;

use crate::persist::{self, new_file, sync_directory};
use crate::private::{self, io_problem};

/// The file's name in the state directory.
pub const FILE: &str = "node.key";

/// Reads the node's keys, or makes them where there are none and the state beside them is no node's. The directory must
/// exist, and be ours alone.
///
/// Fails where the file was changed ([`Code::KeyDamaged`]), belongs to another state ([`Code::KeyMismatch`]), or is gone
/// ([`Code::KeyMissing`]).
pub fn load_or_create(
    directory: &Path,
    saved: &Saved,
    crypto: &mut dyn Crypto,
) -> Result<NodeKeys, Problem> {
    let path = directory.join(FILE);
    match private::open(&path, OpenOptions::new().read(true)) {
        Ok(file) => {
            let (keys, checked) = read(&path, file)?;
            belongs(&path, keys.node(), saved)?;
            if !checked {
                create(directory, &path, &keys).map_err(|error| io_problem(&path, &error))?;
            }
            Ok(keys)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if last_boot(saved).is_ok_and(|boot| boot == 0) {
                return make(directory, &path, crypto);
            }
            Err(missing(&path))
        }
        Err(error) => Err(io_problem(&path, &error)),
    }
}

/// Fails where there are keys and no state beside them: begun anew, this node would be in no mesh, or in a new one.
pub fn check_alone(directory: &Path) -> Result<(), Problem> {
    let (key, state) = (directory.join(FILE), directory.join(persist::FILE));
    if key.symlink_metadata().is_ok() && state.symlink_metadata().is_err() {
        return Err(stateless(&state));
    }
    Ok(())
}

fn make(directory: &Path, path: &Path, crypto: &mut dyn Crypto) -> Result<NodeKeys, Problem> {
    let keys = NodeKeys::generate(crypto);
    create(directory, path, &keys).map_err(|error| io_problem(path, &error))?;
    info!(node = %keys.node(), "node key made");
    Ok(keys)
}

/// Reads keys; whether their file has a checksum.
fn read(path: &Path, file: File) -> Result<(NodeKeys, bool), Problem> {
    let metadata = file.metadata().map_err(|error| io_problem(path, &error))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(exposed(path, mode));
    }
    // One byte more than a key file has: what is too long is damaged too.
    let mut bytes = Zeroizing::new(Vec::with_capacity(NodeKeys::FILE_LEN + 1));
    file.take(NodeKeys::FILE_LEN as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| io_problem(path, &error))?;
    let keys =
        NodeKeys::from_bytes(&bytes).map_err(|error| damaged(path).why(error.to_string()))?;
    Ok((keys, bytes.len() == NodeKeys::FILE_LEN))
}

/// Fails where the state was saved by another node.
fn belongs(path: &Path, node: NodeId, saved: &Saved) -> Result<(), Problem> {
    match saved_node(saved) {
        Some(other) if other != node => Err(mismatch(path, node, other)),
        Some(_) | None => Ok(()),
    }
}

const CURE: &str = "Restore the state directory from a backup. Without one this node must become a new one: sudo weft reset --force, and join again";

fn mismatch(path: &Path, key: NodeId, state: NodeId) -> Problem {
    let what = format!("the key in {} is another node's", path.display());
    Problem::new(Code::KeyMismatch, what)
        .why(format!(
            "it is the key of {}, and the state beside it was saved by {}",
            key.short(),
            state.short()
        ))
        .fix(CURE)
}

fn missing(path: &Path) -> Problem {
    let what = format!("the node's key is missing: {}", path.display());
    Problem::new(Code::KeyMissing, what)
        .why("the state of a node is here, and a new key would make it a stranger to its mesh")
        .fix(CURE)
}

fn stateless(path: &Path) -> Problem {
    let what = format!("the node's state is missing: {}", path.display());
    Problem::new(Code::StateMissing, what)
        .why("the key of a node is here, and a new state would forget which mesh it is in")
        .fix(CURE)
}

fn exposed(path: &Path, mode: u32) -> Problem {
    let shown = path.display();
    let what = format!("the node's key in {shown} can be read by others");
    let problem = Problem::new(Code::StateDirectory, what);
    problem.why(format!("its mode is {mode:04o}, 0600 is safe"))
        .fix(format!("If nobody has read it: chmod 600 {shown}. If in doubt, give this node a new identity: weft reset --force, then weft join"))
}

fn damaged(path: &Path) -> Problem {
    let what = format!("the node's key in {} is damaged", path.display());
    Problem::new(Code::KeyDamaged, what).fix(CURE)
}

fn create(directory: &Path, path: &Path, keys: &NodeKeys) -> io::Result<()> {
    let temporary = directory.join(format!("{FILE}.new"));
    let mut file = new_file(&temporary)?;
    file.write_all(&keys.to_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_directory(directory)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;
    use crate::crypto::SystemCrypto;

    fn load(directory: &Path) -> Result<NodeKeys, Problem> {
        load_or_create(directory, &Saved::default(), &mut SystemCrypto::new())
    }

    /// What a node saves at its first start.
    fn saved_by(node: NodeId) -> Saved {
        let mut saved = Saved::default();
        for change in weft_router_proto::router::first_changes(node) {
            saved.apply(change);
        }
        saved
    }

    fn load_beside(directory: &Path, saved: &Saved) -> Result<NodeKeys, Problem> {
        load_or_create(directory, saved, &mut SystemCrypto::new())
    }

    #[test]
    fn a_key_of_another_node_is_refused_and_so_is_none_beside_a_state() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let node = load(path).unwrap().node();
        let other = NodeId::new([7; 32]);

        assert!(load_beside(path, &saved_by(node)).is_ok());
        let problem = load_beside(path, &saved_by(other)).unwrap_err();
        assert_eq!(problem.code, Code::KeyMismatch);
        std::fs::remove_file(path.join(FILE)).unwrap();
        let problem = load_beside(path, &saved_by(node)).unwrap_err();
        assert_eq!(problem.code, Code::KeyMissing);
        assert!(!path.join(FILE).exists(), "no key is made");
    }

    #[test]
    fn a_key_without_a_state_begins_no_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert!(check_alone(path).is_ok());
        load(path).unwrap();

        assert_eq!(check_alone(path).unwrap_err().code, Code::StateMissing);
        std::fs::write(path.join(persist::FILE), "").unwrap();
        assert!(check_alone(path).is_ok());
    }

    #[test]
    fn a_fifo_in_place_of_the_key_makes_nobody_wait() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();

        assert!(load(directory.path()).is_err());
    }

    #[test]
    fn a_node_stays_who_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let first = load(directory.path()).unwrap();
        let path = directory.path().join(FILE);

        assert_eq!(load(directory.path()).unwrap().node(), first.node());
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        load(directory.path()).unwrap();
        let path = directory.path().join(FILE);
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();

        let problem = load(directory.path()).unwrap_err();

        assert_eq!(problem.code, Code::StateDirectory);
        assert!(problem.fix.contains("chmod 600"));
    }

    #[test]
    fn a_damaged_key_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        load(directory.path()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for damaged in [
            &whole[..whole.len() - 1],
            &[whole.as_slice(), b"x"].concat(),
            &[&whole[..40], b"?", &whole[41..]].concat(),
            b"",
        ] {
            std::fs::write(&path, damaged).unwrap();

            assert_eq!(load(directory.path()).unwrap_err().code, Code::KeyDamaged);
            assert_eq!(std::fs::read(&path).unwrap(), damaged);
        }
    }

    #[test]
    fn what_a_crash_left_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(format!("{FILE}.new")), b"half").unwrap();

        assert!(load(directory.path()).is_ok());
    }
}
