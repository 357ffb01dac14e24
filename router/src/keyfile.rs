//! Keeps who this node is: `node.key` in the state directory, for the eyes of its owner only.
//!
//! **Invariant.** The file is whole or absent: it is written under another name, made durable, and renamed.
//! **Failure policy.** A file that others can read, or that is damaged, is refused and left as it is: a node that made
//! itself a new key would be a stranger to its mesh, and the old key may still be saved from a backup.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tracing::info;
use weft_router_proto::crypto::Crypto;
use weft_router_proto::identity::NodeKeys;
use weft_types::{Code, Problem};
use zeroize::Zeroizing;

use crate::persist::{io_problem, new_file, sync_directory};

/// The file's name in the state directory.
pub const FILE: &str = "node.key";

/// Reads the node's keys, or makes them where there are none. The directory must exist, and be ours alone.
pub fn load_or_create(directory: &Path, crypto: &mut dyn Crypto) -> Result<NodeKeys, Problem> {
    let path = directory.join(FILE);
    match File::open(&path) {
        Ok(file) => read(&path, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let keys = NodeKeys::generate(crypto);
            create(directory, &path, &keys).map_err(|error| io_problem(&path, &error))?;
            info!(node = %keys.node(), "node key made");
            Ok(keys)
        }
        Err(error) => Err(io_problem(&path, &error)),
    }
}

fn read(path: &Path, file: File) -> Result<NodeKeys, Problem> {
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
    NodeKeys::from_bytes(&bytes).map_err(|error| damaged(path).why(error.to_string()))
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
    Problem::new(Code::StateDamaged, what)
        .fix("Restore it from a backup, or give this node a new identity: weft reset --force, then weft join")
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
        load_or_create(directory, &mut SystemCrypto::new())
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
            b"",
        ] {
            std::fs::write(&path, damaged).unwrap();

            assert_eq!(load(directory.path()).unwrap_err().code, Code::StateDamaged);
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
