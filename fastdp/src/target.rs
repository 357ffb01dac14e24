//! Names the container that is to be attached.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use weft_kernel::netns::{NAMED, NetNs};
use weft_types::{Code, Problem};

/// A network namespace, as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One that `ip netns` knows.
    Name(String),
    /// The file that stands for it.
    Path(PathBuf),
    /// That of a running process.
    Pid(u32),
}

impl Target {
    /// Opens the namespace.
    pub fn open(&self) -> Result<NetNs, Problem> {
        let opened = match self {
            Self::Name(name) => NetNs::open(Path::new(NAMED).join(name)),
            Self::Path(path) => NetNs::open(path),
            Self::Pid(pid) => NetNs::of_pid(*pid),
        };
        opened.map_err(|error| self.no_container(error.to_string()))
    }

    fn no_container(&self, why: String) -> Problem {
        Problem::new(Code::AttachTarget, format!("there is no container {self}"))
            .why(why)
            .fix("Name a running process by its number, a namespace of `ip netns list`, or the path of a namespace")
    }
}

impl FromStr for Target {
    type Err = Infallible;

    /// A number is a process, what has a slash is a path, all else a name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.parse() {
            Ok(pid) => Self::Pid(pid),
            Err(_) if text.contains('/') => Self::Path(text.into()),
            Err(_) => Self::Name(text.to_owned()),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Path(path) => path.display().fmt(f),
            Self::Pid(pid) => pid.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_process_a_path_or_a_name() {
        let of = |text: &str| text.parse::<Target>().unwrap();

        assert_eq!(of("4711"), Target::Pid(4711));
        assert_eq!(of("/proc/1/ns/net"), Target::Path("/proc/1/ns/net".into()));
        assert_eq!(of("blue"), Target::Name("blue".into()));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let problem = Target::Name("no-such-namespace".into()).open().unwrap_err();

        assert_eq!(problem.code, Code::AttachTarget);
        assert!(problem.what.contains("no-such-namespace"));
    }
}
