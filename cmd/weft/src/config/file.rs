//! Reads `weft.toml`: the flags of `weft up` under their own names, and nothing else.
//!
//! ```toml
//! name = "b"
//! port = 6783
//! peers = ["a.example", "192.0.2.7:6783"]
//! token-file = "/etc/weft/token"
//! ```

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};
use serde::Deserialize;
use weft_types::{Code, Nickname, Problem};

use super::args::LogFormat;

/// What the file says. A secret is not among it: it belongs into a file of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct File {
    #[serde(default)]
    pub(crate) peers: Vec<String>,
    #[serde(default)]
    pub(crate) advertise: Vec<String>,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) name: Option<Nickname>,
    pub(crate) range: Option<Ipv4Net>,
    pub(crate) address: Option<IpNet>,
    pub(crate) port: Option<u16>,
    pub(crate) listen: Option<IpAddr>,
    pub(crate) mtu: Option<u16>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) bridge: Option<String>,
    pub(crate) status_listen: Option<String>,
    pub(crate) log: Option<String>,
    pub(crate) log_format: Option<LogFormat>,
}

impl File {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Problem> {
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads the text of a file called `name`.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self, Problem> {
        let file: Self = toml::from_str(text).map_err(|error| {
            let (line, column) = position(text, error.span().map_or(0, |span| span.start));
            let why = error.message().lines().collect::<Vec<_>>().join("; ");
            wrong(format!("{name}, line {line}, column {column} is wrong")).why(why)
        })?;
        if file.port == Some(0) {
            return Err(wrong(format!("{name}: no router listens on port 0")));
        }
        Ok(file)
    }
}

fn wrong(what: String) -> Problem {
    Problem::new(Code::Configuration, what).fix("Correct it, and look again: weft config check")
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    let code = if error.kind() == std::io::ErrorKind::PermissionDenied {
        Code::Privilege
    } else {
        Code::Configuration
    };
    Problem::new(code, format!("{} cannot be read", path.display()))
        .why(error.to_string())
        .fix("Name another file with --config, or run the command with sudo")
}

/// Where an offset is, as editors count: from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    (line, before[start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_with_its_place() {
        let problem = File::parse("port = 1\n  token = \"wft1-x\"\n", "weft.toml").unwrap_err();

        assert_eq!(problem.code, Code::Configuration);
        assert_eq!(problem.what, "weft.toml, line 2, column 3 is wrong");
        assert!(
            problem.why.contains("unknown field `token`"),
            "{}",
            problem.why
        );
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused_with_its_place() {
        for (text, place) in [
            ("name = \"\\u001b\"", "line 1, column 8"),
            ("\n\nport = \"x\"", "line 3, column 8"),
            ("range = \"10.0.0.0\"", "line 1, column 9"),
            ("port = ", "line 1, column 8"),
        ] {
            let problem = File::parse(text, "weft.toml").unwrap_err();
            assert!(problem.what.contains(place), "{text:?}: {}", problem.what);
        }
    }
}
