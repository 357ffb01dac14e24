//! Opens what nobody else may read or write: the state directory, and files in it; and says why it cannot.
//!
//! **Invariant.** A directory that others may write in is not used: they could put a file of theirs in place of any of ours.
//! What is opened is a regular file under its own name: no symbolic link, and nothing that makes its opener wait.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use weft_types::{Code, Problem};

/// Makes a directory for nobody else's eyes, or finds that nobody else may change what is in one.
pub fn directory(path: &Path) -> Result<(), Problem> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| io_problem(path, &error))?;
    let found = fs::metadata(path).map_err(|error| io_problem(path, &error))?;
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(foreign(path, owner));
    }
    if mode & 0o022 != 0 {
        return Err(open_to_others(path, mode));
    }
    Ok(())
}

/// Opens a file of ours, which is made with mode 0600 where the options say so.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // Without O_NONBLOCK a FIFO makes its opener wait for the other end; a regular file does not care.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = options.mode(0o600).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(file)
}

/// Names what the system said about a file or directory of ours.
pub fn io_problem(path: &Path, error: &io::Error) -> Problem {
    let shown = path.display();
    let what = format!("{shown} cannot be used");
    let kind = error.kind();
    let problem = if kind == io::ErrorKind::PermissionDenied {
        Problem::new(Code::Privilege, what)
            .fix("Run the command with sudo, or choose another directory with --state-dir")
    } else if matches!(
        kind,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    ) {
        let what = format!("the disk that holds {shown} is full");
        Problem::new(Code::DiskFull, what)
            .fix("Make room, and try again: df -h shows how much there is")
    } else {
        Problem::new(Code::StateDirectory, what).fix("Choose another directory with --state-dir")
    };
    problem.why(error.to_string())
}

fn foreign(path: &Path, owner: u32) -> Problem {
    let shown = path.display();
    let what = format!("the state directory {shown} belongs to another user");
    Problem::new(Code::StateDirectory, what)
        .why(format!("user {owner} could replace this node's key and state"))
        .fix(format!(
            "Take it over, if what is in it is this node's: sudo chown -R root: {shown}. Or choose another with --state-dir"
        ))
}

fn open_to_others(path: &Path, mode: u32) -> Problem {
    let shown = path.display();
    let what = format!("others may write in the state directory {shown}");
    Problem::new(Code::StateDirectory, what)
        .why(format!("its mode is {mode:04o}, 0700 is safe"))
        .fix(format!(
            "See that all files in it are yours, ls -l {shown}, and close it: chmod 700 {shown}. Or choose another with --state-dir"
        ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn refused(path: &Path) -> Problem {
        directory(path).expect_err("others may change it")
    }

    #[test]
    fn a_directory_is_made_for_nobody_else() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");

        directory(&path).unwrap();

        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert!(directory(&path).is_ok());
    }

    #[test]
    fn a_directory_that_others_may_write_in_is_refused() {
        let path = tempfile::tempdir().unwrap();
        for (mode, fine) in [
            (0o777, false),
            (0o1777, false),
            (0o770, false),
            (0o755, true),
        ] {
            fs::set_permissions(path.path(), fs::Permissions::from_mode(mode)).unwrap();

            assert_eq!(directory(path.path()).is_ok(), fine, "{mode:o}");
        }
    }

    #[test]
    fn a_directory_of_another_user_is_refused() {
        let path = tempfile::tempdir().unwrap();
        if std::os::unix::fs::chown(path.path(), Some(65534), None).is_err() {
            use std::io::Write;
            writeln!(io::stderr(), "skipped: only root gives directories away").unwrap();
            return;
        }

        assert_eq!(refused(path.path()).code, Code::StateDirectory);
    }

    #[test]
    fn nothing_but_a_regular_file_is_opened_and_nothing_is_waited_for() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(at("file"), "").unwrap();
        symlink(at("file"), at("link")).unwrap();

        let mut read = OpenOptions::new();
        read.read(true);

        assert!(open(&at("file"), &mut read).is_ok());
        assert!(open(&at("fifo"), &mut read).is_err());
        assert!(open(&at("link"), &mut read).is_err());
        assert!(open(parent.path(), &mut read).is_err());
    }
}
