//! Turns what was said into what it means, once: flag, then environment, then file, then default.
//!
//! clap has put flags and environment together already ([`args`]); here the file and the defaults join them.
//! **Failure policy.** A wrong flag or variable is a usage error (exit 2), a wrong line of the file names its place
//! (exit 9). Nothing is guessed and nothing unknown is skipped.

mod args;
mod file;
mod said;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use weft_api::settings::Settings;
use weft_router::resolve::{DEFAULT_PORT, is_target};
use weft_router_proto::genesis::Genesis;
use weft_types::{Code, Mtu, Nickname, Problem};

use crate::secret::Secret;
use crate::{state_dir, token};

pub(crate) use args::{Global, LogFormat, RouterArgs};
pub(crate) use file::File;
pub(crate) use said::Said;

/// The bridge; as short as a device that others are named after must be.
const BRIDGE: &str = "weft";

/// Where a device's name ends: IFNAMSIZ less the zero.
pub(crate) const MAX_DEVICE: usize = 15;

/// Where the bridge's name ends: room is left for the longest suffix we add.
const MAX_BRIDGE: usize = MAX_DEVICE - "-tap".len();

/// The kernel's bound for a socket's path, without the terminating zero: unix(7).
const MAX_SOCKET: usize = 107;

/// What an operator would ask about; netlink_proto warns of every notice that comes while a socket is being closed.
const LOG_FILTER: &str = "info,netlink_proto=error";

const WRITE_JOIN: &str = "Write: sudo weft join HOST --token TOKEN";
const MAKE_TOKEN: &str =
    "Make one on a host of the mesh, sudo weft token create, and give it with --token";

/// Where keys and state are, unless somebody says otherwise: the unit does not.
pub(crate) const STATE_DIR: &str = "/var/lib/weft";
const SOCKET: &str = "/run/weft/weft.sock";
const FILE: &str = "/etc/weft/weft.toml";

/// Everything a router is told. Travels to the daemon as JSON, on a pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Config {
    /// Which command this is for.
    pub(crate) purpose: Purpose,
    /// Where keys and state are.
    pub(crate) state_dir: PathBuf,
    /// Where the local API is.
    pub(crate) socket: PathBuf,
    /// What people call this node.
    pub(crate) nickname: Nickname,
    /// Control TCP and data UDP.
    pub(crate) port: u16,
    /// The only address to listen on.
    pub(crate) listen: Option<IpAddr>,
    /// Addresses to be reached at, beside those of the interfaces.
    pub(crate) advertise: Vec<SocketAddr>,
    /// The bridge's name.
    pub(crate) bridge: String,
    /// Where status and metrics are read by TCP.
    pub(crate) status_listen: Option<SocketAddr>,
    /// What to dial.
    pub(crate) peers: Vec<String>,
    /// Where a new mesh takes addresses from.
    pub(crate) range: Ipv4Net,
    /// This host's address on the mesh.
    pub(crate) address: Option<IpNet>,
    /// The largest IP packet of a new mesh.
    pub(crate) mtu: Mtu,
    /// Admits this node.
    pub(crate) token: Option<Secret>,
    /// Why the file that was to hold a token holds none: bad for who needs one.
    pub(crate) token_missing: Option<Problem>,
    /// What to log.
    pub(crate) log: String,
    /// How to log.
    pub(crate) log_format: LogFormat,
    /// Stay in the foreground.
    pub(crate) foreground: bool,
    /// What of this was said for this command.
    pub(crate) said: Said,
}

/// Which command a configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Purpose {
    /// `weft join`: a mesh of others, proven to work.
    Join,
    /// `weft up`: the mesh of this node, or a new one.
    Up,
}

/// Where a running router is found: all that most verbs need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where keys and state are.
    pub(crate) state_dir: PathBuf,
    /// Where the local API is.
    pub(crate) socket: PathBuf,
    /// The bridge's name, as far as the file says.
    pub(crate) bridge: String,
}

impl Place {
    /// Finds it.
    pub(crate) fn new(global: &Global, file: &File) -> Result<Self, Problem> {
        let pick = |flag: &Option<PathBuf>, file: &Option<PathBuf>, default: &str| {
            let path = flag.clone().or_else(|| file.clone());
            absolute(&path.unwrap_or_else(|| default.into()))
        };
        Ok(Self {
            state_dir: pick(&global.state_dir, &file.state_dir, STATE_DIR)?,
            socket: pick(&global.socket, &file.socket, SOCKET)?,
            bridge: file.bridge.clone().unwrap_or_else(|| BRIDGE.to_owned()),
        })
    }
}

/// Reads the configuration file: the one named, or the usual one where it exists.
pub(crate) fn read_file(global: &Global) -> Result<File, Problem> {
    match &global.config {
        Some(path) => File::read(path),
        None if Path::new(FILE).exists() => File::read(Path::new(FILE)),
        None => Ok(File::default()),
    }
}

impl Config {
    /// Puts everything together.
    pub(crate) fn new(
        purpose: Purpose,
        global: &Global,
        args: RouterArgs,
        file: File,
    ) -> Result<Self, Problem> {
        let said = Said::new(global, &args);
        let Place {
            state_dir,
            socket,
            bridge,
        } = Place::new(global, &file)?;
        let port = args.port.or(file.port).unwrap_or(DEFAULT_PORT);
        let advertise = either(args.advertise, file.advertise);
        let status_listen = args.status_listen.or(file.status_listen);
        let found = token::find(args.token, args.token_file.or(file.token_file))?;
        let config = Self {
            purpose,
            nickname: nickname(args.name.or(file.name), &state_dir)?,
            state_dir,
            socket,
            port,
            listen: args.listen.or(file.listen),
            advertise: addresses_and_ports(&advertise, port)?,
            bridge: args.bridge.unwrap_or(bridge),
            status_listen: status_address(status_listen.as_deref())?,
            peers: either(args.peers, file.peers),
            range: args.range.or(file.range).unwrap_or(Genesis::DEFAULT_RANGE),
            address: args.address.or(file.address),
            mtu: mesh_mtu(args.mtu.or(file.mtu))?,
            token: found.token,
            token_missing: found.missing,
            log: args.log.or(file.log).unwrap_or(LOG_FILTER.to_owned()),
            log_format: args.log_format.or(file.log_format).unwrap_or_default(),
            foreground: args.foreground,
            said,
        };
        config.check()?;
        Ok(config)
    }

    /// Refuses what makes no sense together.
    fn check(&self) -> Result<(), Problem> {
        check_bridge(&self.bridge)?;
        check_peers(&self.peers)?;
        self.check_join()?;
        check_socket(&self.socket)?;
        check_filter(&self.log)?;
        check_range(self.range)
    }

    /// Everything that a running router cannot change, as its flags are written.
    pub(crate) fn settings(&self) -> Settings {
        let list = |all: &[SocketAddr]| {
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            all.join(",")
        };
        let or = |value: Option<String>, default: &str| value.unwrap_or(default.to_owned());
        let format = match self.log_format {
            LogFormat::Json => "json",
            LogFormat::Text => "text",
        };
        let settings = [
            (
                "address",
                or(self.address.map(|net| net.to_string()), "any"),
            ),
            ("advertise", list(&self.advertise)),
            ("bridge", self.bridge.clone()),
            ("listen", or(self.listen.map(|ip| ip.to_string()), "all")),
            ("log", self.log.clone()),
            ("log-format", format.to_owned()),
            ("mtu", self.mtu.to_string()),
            ("name", self.nickname.to_string()),
            ("port", self.port.to_string()),
            ("range", self.range.to_string()),
            ("state-dir", self.state_dir.display().to_string()),
            (
                "status-listen",
                or(self.status_listen.map(|at| at.to_string()), "off"),
            ),
        ];
        settings
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }

    fn check_join(&self) -> Result<(), Problem> {
        let (what, fix) = match self.purpose {
            Purpose::Join if self.peers.is_empty() => ("join needs a host of the mesh", WRITE_JOIN),
            Purpose::Join if self.token.is_none() => {
                let missing = self.token_missing.clone();
                let none = || Problem::new(Code::Usage, "join needs a token").fix(MAKE_TOKEN);
                return Err(missing.unwrap_or_else(none));
            }
            Purpose::Join | Purpose::Up => return Ok(()),
        };
        Err(Problem::new(Code::Usage, what).fix(fix))
    }
}

fn check_peers(peers: &[String]) -> Result<(), Problem> {
    if peers.iter().any(|peer| peer.starts_with("wft1-")) {
        let what = "a token stands where a host is expected";
        return Err(Problem::new(Code::Usage, what).fix(WRITE_JOIN));
    }
    let Some(peer) = peers.iter().find(|peer| !is_target(peer)) else {
        return Ok(());
    };
    let what = format!("{peer:?} is no host: HOST, HOST:PORT or [ADDRESS]:PORT");
    Err(Problem::new(Code::Usage, what))
}

fn check_range(range: Ipv4Net) -> Result<(), Problem> {
    if !(8..=29).contains(&range.prefix_len()) {
        let what = format!("the range {range} is too large or too small");
        let problem = Problem::new(Code::Configuration, what);
        return Err(problem.fix("Choose a prefix length from 8 to 29"));
    }
    if range == range.trunc() {
        return Ok(());
    }
    let what = format!("{range} is an address in a range, and no range");
    let fix = format!("Write the range: --range {}", range.trunc());
    Err(Problem::new(Code::Configuration, what).fix(fix))
}

/// Refuses a path that the kernel takes for no socket: unix(7).
fn check_socket(path: &Path) -> Result<(), Problem> {
    if path.as_os_str().len() <= MAX_SOCKET {
        return Ok(());
    }
    let what = format!("the socket path {} is too long", path.display());
    Err(Problem::new(Code::Configuration, what)
        .why(format!("the kernel takes {MAX_SOCKET} bytes"))
        .fix("Choose a shorter one with --socket"))
}

/// Refuses what says not what to log. A word alone would be taken for the name of a module, and nothing be logged.
fn check_filter(filter: &str) -> Result<(), Problem> {
    let unfit = |why: String| {
        Problem::new(Code::Configuration, format!("{filter:?} says not what to log"))
            .why(why)
            .fix("Write a level, error, warn, info, debug or trace, also per module: info,weft_router=debug")
    };
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let words = filter.split(',').map(str::trim);
    for word in words.filter(|word| !word.contains(['=', '['])) {
        if !is_level(word) {
            return Err(unfit(format!("{word:?} is no level")));
        }
    }
    EnvFilter::try_new(filter)
        .map(drop)
        .map_err(|error| unfit(error.to_string()))
}

/// A list of the file counts where none was said.
fn either(said: Vec<String>, file: Vec<String>) -> Vec<String> {
    if said.is_empty() { file } else { said }
}

/// What was said, else the last name, else the host's.
fn nickname(said: Option<Nickname>, state_dir: &Path) -> Result<Nickname, Problem> {
    let known = said.or_else(|| state_dir::saved_name(state_dir));
    known.map_or_else(host_name, Ok)
}

/// Refuses what the kernel would not take as a device's name.
pub(crate) fn check_bridge(name: &str) -> Result<(), Problem> {
    if is_device_name(name, MAX_BRIDGE) {
        return Ok(());
    }
    let what = format!("{name:?} is no device name for the bridge");
    let rule = format!("it has 1 to {MAX_BRIDGE} characters, no white space, no slash");
    let problem = Problem::new(Code::Configuration, what).why(rule);
    Err(problem.fix("Choose another with --bridge"))
}

/// Whether the kernel takes a device's name of at most so many bytes.
pub(crate) fn is_device_name(name: &str, longest: usize) -> bool {
    !name.is_empty()
        && name.len() <= longest
        && !matches!(name, "." | "..")
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%'))
}

fn addresses_and_ports(texts: &[String], port: u16) -> Result<Vec<SocketAddr>, Problem> {
    let each = texts.iter();
    each.map(|text| address_and_port(text, port)).collect()
}

fn address_and_port(text: &str, port: u16) -> Result<SocketAddr, Problem> {
    text.parse::<SocketAddr>()
        .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port)))
        .map_err(|_| not_to_advertise(text))
}

fn not_to_advertise(text: &str) -> Problem {
    let what = format!("{text:?} is no address to advertise");
    Problem::new(Code::Configuration, what)
        .fix("Write an address, or an address and a port: 203.0.113.7:6783, [2001:db8::1]:6783")
}

fn status_address(text: Option<&str>) -> Result<Option<SocketAddr>, Problem> {
    match text {
        None => Ok(Some((Ipv4Addr::LOCALHOST, weft_api::STATUS_PORT).into())),
        Some("off") => Ok(None),
        Some(text) => on_loopback(text).map(Some),
    }
}

fn on_loopback(text: &str) -> Result<SocketAddr, Problem> {
    let address = text.parse().ok();
    let local = address.filter(|address: &SocketAddr| address.ip().is_loopback());
    local.ok_or_else(|| exposed(text))
}

fn exposed(text: &str) -> Problem {
    let what = format!("status cannot be served at {text:?}");
    Problem::new(Code::Configuration, what)
        .why("it is not encrypted, so it stays on loopback")
        .fix("Write 127.0.0.1:PORT, [::1]:PORT or off")
}

fn mesh_mtu(bytes: Option<u16>) -> Result<Mtu, Problem> {
    let Some(bytes) = bytes else {
        return Ok(Mtu::MESH);
    };
    let mtu = Mtu::new(bytes).filter(|mtu| *mtu >= Mtu::MIN_MESH);
    mtu.ok_or_else(|| {
        let what = format!("a mesh cannot have an MTU of {bytes}");
        let fix = format!("Choose one from {} to {}", Mtu::MIN_MESH, Mtu::MAX);
        Problem::new(Code::Configuration, what).fix(fix)
    })
}

/// The host's own name, as far as it goes for a nickname: its first label.
fn host_name() -> Result<Nickname, Problem> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let label = name.trim().split('.').next().unwrap_or_default();
    let what = "the host's name cannot be this node's nickname";
    Nickname::new(label).map_err(|error| {
        let problem = Problem::new(Code::Configuration, what).why(error.to_string());
        problem.fix("Choose one with --name")
    })
}

fn absolute(path: &Path) -> Result<PathBuf, Problem> {
    std::path::absolute(path).map_err(|error| {
        let what = format!("{} is no path", path.display());
        Problem::new(Code::Configuration, what).why(error.to_string())
    })
}

/// What a command line and a file make, for the tests of others too.
#[cfg(test)]
pub(crate) fn parsed(line: &str, file: &str) -> Result<Config, Problem> {
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        global: Global,
        #[command(subcommand)]
        verb: Verb,
    }

    #[derive(clap::Subcommand)]
    enum Verb {
        Join(RouterArgs),
        Up(RouterArgs),
    }

    let line = Line::try_parse_from(line.split(' ')).unwrap();
    let (purpose, args) = match line.verb {
        Verb::Join(args) => (Purpose::Join, args),
        Verb::Up(args) => (Purpose::Up, args),
    };
    Config::new(purpose, &line.global, args, File::parse(file, "weft.toml")?)
}

#[cfg(test)]
mod tests {
    use super::parsed as config;
    use super::*;

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let all = "port = 7001\nmtu = 1400\nname = \"filed\"\npeers = [\"a\"]\nrange = \"10.99.0.0/16\"\n";

        let none = config("weft up --name x", "").unwrap();
        let filed = config("weft up", all).unwrap();
        let flagged = config("weft up b --port 7002 --name said", all).unwrap();

        assert_eq!((none.port, none.mtu), (6783, Mtu::MESH));
        assert_eq!(none.socket, Path::new("/run/weft/weft.sock"));
        assert_eq!(none.status_listen, Some("127.0.0.1:6782".parse().unwrap()));
        assert_eq!((filed.port, filed.mtu.get()), (7001, 1400));
        assert_eq!(filed.nickname.as_str(), "filed");
        assert_eq!(filed.range.to_string(), "10.99.0.0/16");
        assert_eq!((flagged.port, flagged.nickname.as_str()), (7002, "said"));
        assert_eq!(flagged.peers, ["b"]);
    }

    #[test]
    fn an_advertised_address_takes_the_port_of_the_router() {
        let config = config(
            "weft up --name x --port 7000 --advertise 203.0.113.7,[2001:db8::1]:1 --status-listen off",
            "",
        )
        .unwrap();

        assert_eq!(config.advertise[0], "203.0.113.7:7000".parse().unwrap());
        assert_eq!(config.advertise[1], "[2001:db8::1]:1".parse().unwrap());
        assert_eq!(config.status_listen, None);
    }

    #[test]
    fn every_mistake_has_its_code() {
        for (line, code) in [
            ("weft join --name x --token wft1-x", Code::Usage),
            ("weft join a --name x", Code::Usage),
            ("weft join a wft1-secret --name x", Code::Usage),
            ("weft up a/b --name x", Code::Usage),
            ("weft up a:0 --name x", Code::Usage),
            ("weft up --name x --mtu 1279", Code::Configuration),
            ("weft up --name x --mtu 9217", Code::Configuration),
            ("weft up --name x --range 10.0.0.0/31", Code::Configuration),
            ("weft up --name x --range 10.0.0.0/30", Code::Configuration),
            ("weft up --name x --range 10.0.0.1/16", Code::Configuration),
            ("weft up --name x --log loud", Code::Configuration),
            (
                "weft up --name x --log info,weft_router=loud",
                Code::Configuration,
            ),
            ("weft up --name x --log =", Code::Configuration),
            (
                "weft up --name x --bridge twelve-chars",
                Code::Configuration,
            ),
            ("weft up --name x --bridge a/b", Code::Configuration),
            ("weft up --name x --advertise host", Code::Configuration),
            (
                "weft up --name x --status-listen 0.0.0.0:6782",
                Code::Configuration,
            ),
            (
                "weft join a --name x --token-file /nonexistent",
                Code::Configuration,
            ),
        ] {
            assert_eq!(config(line, "").unwrap_err().code, code, "{line}");
        }
        let echoed = config("weft join a wft1-secret --name x", "").unwrap_err();
        assert!(!echoed.to_string().contains("wft1-secret"));
    }

    #[test]
    fn a_filter_is_a_level_or_levels_of_modules() {
        for filter in [
            LOG_FILTER,
            "trace",
            "off",
            "info,weft_router=debug",
            "weft_router::hub=trace, warn",
        ] {
            assert_eq!(check_filter(filter), Ok(()), "{filter}");
        }
    }

    #[test]
    fn a_file_without_a_token_is_bad_for_who_needs_one() {
        let up = config("weft up --name x --token-file /nonexistent", "").unwrap();
        let join = config("weft join a --name x --token-file /nonexistent", "").unwrap_err();

        let missing = up.token_missing.unwrap();
        assert_eq!((up.token, missing.code), (None, Code::Configuration));
        assert_eq!(join, missing);
    }

    #[test]
    fn what_was_said_is_known_by_its_flag() {
        let config = config(
            "weft up --name x --port 7000 --status-listen off",
            "mtu = 1400",
        )
        .unwrap();

        assert_eq!(
            config.said.flags().collect::<Vec<_>>(),
            ["name", "port", "status-listen"]
        );
        assert_eq!(config.settings()["status-listen"], "off");
        for flag in config.said.flags() {
            assert!(config.settings().contains_key(flag), "{flag}");
        }
    }

    #[test]
    fn what_travels_to_the_daemon_arrives_whole() {
        let config = config("weft join a --token wft1-x --name x", "").unwrap();

        let wire = serde_json::to_vec(&config).unwrap();

        assert_eq!(serde_json::from_slice::<Config>(&wire).unwrap(), config);
    }

    #[test]
    fn hosts_are_told_from_nonsense() {
        for host in [
            "a",
            "a.example",
            "a:1",
            "192.0.2.1",
            "192.0.2.1:6783",
            "2001:db8::1",
            "[2001:db8::1]:7",
        ] {
            assert!(is_target(host), "{host}");
        }
        for host in ["", ":1", "a:", "a:x", "a:65536", "a b", "-x", "http://a"] {
            assert!(!is_target(host), "{host}");
        }
    }
}
