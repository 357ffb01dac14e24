//! Says what can be said on the command line, and nothing about what it means ([`crate::config`] does).
//!
//! Every flag has a twin in the environment, `WEFT_` and its name; the flag wins.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use ipnet::{IpNet, Ipv4Net};
use weft_types::Nickname;

use crate::secret::Secret;

/// What was said.
#[derive(Debug, Parser)]
#[command(
    name = "weft",
    version,
    about = "One encrypted network for containers and hosts, wherever they run",
    after_help = "Start with: sudo weft up",
    propagate_version = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// What every verb knows.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb knows.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// How to answer
    #[arg(short, long, global = true, env = "WEFT_OUTPUT", value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
    /// Say nothing where nothing was asked for
    #[arg(short, long, global = true, env = "WEFT_QUIET", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(crate) quiet: bool,
    /// The router's Unix socket [default: /run/weft/weft.sock]
    #[arg(long, global = true, env = "WEFT_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Where the router keeps its keys and state [default: /var/lib/weft]
    #[arg(long, global = true, env = "WEFT_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// The configuration file [default: /etc/weft/weft.toml, if it exists]
    #[arg(long, global = true, env = "WEFT_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// How to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON value per line, for programs
    Json,
    /// Words and tables, for people
    Text,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Put a container on the mesh
    Attach(AttachArgs),
    /// Print a shell's completion script
    Completion(CompletionArgs),
    /// Look into the configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Dial hosts, and remember them
    Connect(Targets),
    /// The daemon itself, as `up` starts it
    #[command(hide = true)]
    Daemon,
    /// Show it all on this machine: three hosts in namespaces, joined, measured, and searched for clear text
    Demo(DemoArgs),
    /// Take a container off the mesh
    Detach(DetachArgs),
    /// Stop the router; its state stays
    #[command(visible_alias = "stop")]
    Down,
    /// Show what happens
    Events(EventsArgs),
    /// Dial hosts no more
    Forget(Targets),
    /// Join a mesh, and prove that an encrypted full-size packet passes both ways
    Join(RouterArgs),
    /// Leave the mesh for good
    Leave,
    /// Print the manual page
    Man(ManArgs),
    /// Show the other members
    Peers,
    /// Send a full-size packet to a member and back
    Ping(PingArgs),
    /// Print everything known, or what a template asks for
    Report(ReportArgs),
    /// Stop the router and remove everything it made: devices, files, identity
    Reset(ResetArgs),
    /// Say how things stand
    Status(StatusArgs),
    /// Make, list and revoke join tokens
    #[command(subcommand)]
    Token(TokenVerb),
    /// Follow a member's frames from relay to relay
    Trace(TraceArgs),
    /// Start the router: begin a mesh, or go on with the one this node is in
    #[command(visible_alias = "launch")]
    Up(RouterArgs),
    /// Print the release
    Version,
    /// Wait for something to become true
    Wait(WaitArgs),
}

/// How the router shall run: of `up` and `join`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RouterArgs {
    /// Hosts of the mesh to dial
    #[arg(value_name = "HOST[:PORT]", env = "WEFT_PEERS", value_delimiter = ',')]
    pub(crate) peers: Vec<String>,
    /// What people call this node [default: the host's name]
    #[arg(long, env = "WEFT_NAME", value_name = "NICK")]
    pub(crate) name: Option<Nickname>,
    /// Where a new mesh takes its IPv4 addresses from [default: 10.32.0.0/12]
    #[arg(long, env = "WEFT_RANGE", value_name = "CIDR")]
    pub(crate) range: Option<Ipv4Net>,
    /// This host's address on the mesh [default: the mesh gives one]
    #[arg(long, env = "WEFT_ADDRESS", value_name = "CIDR")]
    pub(crate) address: Option<IpNet>,
    /// Port of control (TCP) and data (UDP) [default: 6783]
    #[arg(long, env = "WEFT_PORT", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// The only address to listen on [default: all]
    #[arg(long, env = "WEFT_LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<IpAddr>,
    /// Addresses at which others reach this node, beside those of its interfaces
    #[arg(
        long,
        env = "WEFT_ADVERTISE",
        value_name = "ADDR[:PORT]",
        value_delimiter = ','
    )]
    pub(crate) advertise: Vec<String>,
    /// The largest IP packet of a new mesh [default: 1350]
    #[arg(long, env = "WEFT_MTU", value_name = "N")]
    pub(crate) mtu: Option<u16>,
    /// The token that admits this node; `-` reads it from standard input
    #[arg(
        long,
        env = "WEFT_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        conflicts_with = "token_file"
    )]
    pub(crate) token: Option<Secret>,
    /// A file that holds the token
    #[arg(long, env = "WEFT_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The bridge's device name; other devices are named after it [default: weft]
    #[arg(long, env = "WEFT_BRIDGE", value_name = "NAME")]
    pub(crate) bridge: Option<String>,
    /// Where status and metrics are read by TCP, or `off` [default: 127.0.0.1:6782]
    #[arg(long, env = "WEFT_STATUS_LISTEN", value_name = "ADDR:PORT")]
    pub(crate) status_listen: Option<String>,
    /// What to log: error, warn, info, debug, trace, or per module [default: info]
    #[arg(long, env = "WEFT_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// How to log
    #[arg(long, env = "WEFT_LOG_FORMAT", value_enum)]
    pub(crate) log_format: Option<LogFormat>,
    /// Stay in the foreground, as under systemd
    #[arg(long, env = "WEFT_FOREGROUND", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(crate) foreground: bool,
}

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// One JSON object per line
    Json,
    /// Words and fields
    Text,
}

/// Of `connect` and `forget`.
#[derive(Debug, Args)]
pub(crate) struct Targets {
    /// Which
    #[arg(required = true, value_name = "HOST[:PORT]")]
    pub(crate) targets: Vec<String>,
}

/// Of `attach`.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// The container's address on the mesh, with the prefix length of the range
    #[arg(
        long = "address",
        env = "WEFT_ADDRESS",
        value_name = "CIDR",
        required = true,
        value_delimiter = ','
    )]
    pub(crate) addresses: Vec<IpNet>,
    /// The device's name inside the container
    #[arg(
        long,
        env = "WEFT_INTERFACE",
        value_name = "NAME",
        default_value = "weft0"
    )]
    pub(crate) interface: String,
    /// The router's bridge, where its name was chosen [default: weft]
    #[arg(long, env = "WEFT_BRIDGE", value_name = "NAME")]
    pub(crate) bridge: Option<String>,
    /// The container: a Docker or Podman name, a named namespace, a process id, or a path
    pub(crate) target: String,
}

/// Of `detach`.
#[derive(Debug, Args)]
pub(crate) struct DetachArgs {
    /// The device's name inside the container
    #[arg(
        long,
        env = "WEFT_INTERFACE",
        value_name = "NAME",
        default_value = "weft0"
    )]
    pub(crate) interface: String,
    /// The container, as it was attached
    pub(crate) target: String,
}

/// Of `completion`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Of `config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Read the configuration as `up` does, and say what is wrong with it
    Check(Box<RouterArgs>),
}

/// Of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Leave it up, and say how to look around
    #[arg(long, env = "WEFT_KEEP", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(crate) keep: bool,
}

/// Of `events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Go on as they happen
    #[arg(short, long, env = "WEFT_FOLLOW", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(crate) follow: bool,
}

/// Of `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write a page per verb into this directory instead
    #[arg(long, env = "WEFT_MAN_DIR", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// Of `ping`.
#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// A nickname, a mesh address, an identity, or the beginning of one
    pub(crate) node: String,
    /// How many times, a second apart; 0 goes on until Ctrl-C
    #[arg(short, long, env = "WEFT_COUNT", value_name = "N", default_value_t = 1)]
    pub(crate) count: u32,
}

/// Of `trace`.
#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// A nickname, a mesh address, an identity, or the beginning of one
    pub(crate) node: String,
}

/// Of `report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// What to print, e.g. '{{.node.nickname}}' or '{% for p in peers %}{{ p.nickname }} {% endfor %}'
    #[arg(short = 'f', long, env = "WEFT_FORMAT", value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
}

/// Of `reset`.
#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    /// Go on where the mesh cannot be told that this node is gone
    #[arg(long, env = "WEFT_FORCE", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(crate) force: bool,
    /// The bridge's device name, where it was chosen [default: weft]
    #[arg(long, env = "WEFT_BRIDGE", value_name = "NAME")]
    pub(crate) bridge: Option<String>,
}

/// Of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// One part of it
    #[arg(value_enum)]
    pub(crate) part: Option<Part>,
}

/// A part of the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Control connections
    Connections,
    /// The other members
    Peers,
    /// What was told to be dialled
    Targets,
    /// What crosses the underlay
    Wire,
}

/// Of `token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Make one and print it, alone
    Create {
        /// Admits any number of nodes
        #[arg(long, env = "WEFT_REUSABLE", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
        reusable: bool,
        /// How long it is good
        #[arg(long, env = "WEFT_TTL", value_name = "DURATION", default_value = "15m", value_parser = humantime::parse_duration)]
        ttl: Duration,
    },
    /// Show them, without their secrets
    List,
    /// Make one worthless
    Revoke {
        /// Its id, or the beginning of it
        id: String,
    },
}

/// Of `wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// What for: ready, joined, peers=N or encrypted
    #[arg(long = "for", env = "WEFT_FOR", value_name = "CONDITION")]
    pub(crate) condition: Condition,
    /// How long
    #[arg(long, env = "WEFT_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
}

/// What `wait` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Data sessions are up to every member that is reached.
    Encrypted,
    /// This node is in a mesh.
    Joined,
    /// So many members are reached.
    Peers(usize),
    /// The router answers.
    Ready,
}

impl std::str::FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| text.strip_prefix("peers=")?.parse().ok();
        match text {
            "encrypted" => Ok(Self::Encrypted),
            "joined" => Ok(Self::Joined),
            "ready" => Ok(Self::Ready),
            other => number(other)
                .map(Self::Peers)
                .ok_or_else(|| "one of: ready, joined, peers=N, encrypted".to_owned()),
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Encrypted => f.write_str("encrypted"),
            Self::Joined => f.write_str("joined"),
            Self::Peers(count) => write!(f, "peers={count}"),
            Self::Ready => f.write_str("ready"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_twin_in_the_environment() {
        let mut command = Cli::command();
        command.build();
        let mut commands = vec![&command];
        let mut checked = 0;
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands());
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long() else { continue };
                if matches!(long, "help" | "version") {
                    continue;
                }
                let twin = format!("WEFT_{}", long.to_uppercase().replace('-', "_"));
                let twin = if long == "dir" {
                    "WEFT_MAN_DIR".to_owned()
                } else {
                    twin
                };
                assert_eq!(
                    arg.get_env().and_then(|name| name.to_str()),
                    Some(twin.as_str()),
                    "{} --{long}",
                    command.get_name()
                );
                checked += 1;
            }
        }
        assert!(checked > 30);
    }

    #[test]
    fn every_verb_and_flag_is_documented() {
        let docs = include_str!("../../../docs/cli.md");
        let mut command = Cli::command();
        command.build();
        let mut commands = vec![(String::new(), &command)];
        while let Some((path, command)) = commands.pop() {
            for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
                let path = format!("{path} {}", verb.get_name());
                let leaf = verb.get_subcommands().next().is_none();
                assert!(
                    !leaf || docs.contains(&format!("`{}", path.trim())),
                    "{path}"
                );
                commands.push((path, verb));
            }
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long() else { continue };
                if matches!(long, "help" | "version") {
                    continue;
                }
                let twin = arg.get_env().and_then(|name| name.to_str()).unwrap();
                assert!(docs.contains(&format!("--{long}")), "{path} --{long}");
                assert!(docs.contains(twin), "{twin}");
            }
        }
    }

    #[test]
    fn every_line_of_the_contract_is_understood() {
        for line in [
            "up",
            "up 192.0.2.1 host:7000 --name a --range 10.99.0.0/16 --address 10.99.0.1/16 --port 7000 --listen 192.0.2.9 --advertise 203.0.113.1 --advertise 203.0.113.2:1 --mtu 1400 --token-file f --state-dir d --socket s --foreground",
            "launch",
            "join 192.0.2.1 --token wft1-x",
            "join 192.0.2.1 [2001:db8::1]:6783 --token - -q",
            "down",
            "stop",
            "reset --force",
            "connect a b:1",
            "forget a",
            "leave",
            "status",
            "status connections",
            "status peers -o json",
            "status targets",
            "status wire",
            "peers",
            "ping b",
            "trace b",
            "events -f",
            "report -f {{.node.nickname}}",
            "wait --for ready",
            "wait --for peers=3 --timeout 2s",
            "wait --for encrypted",
            "token create --reusable --ttl 1h",
            "token list",
            "token revoke 0a",
            "attach --address 10.32.1.7/12 web",
            "detach web",
            "version",
            "completion bash",
            "completion zsh",
            "completion fish",
            "man",
            "demo --keep",
            "config check",
        ] {
            let words = std::iter::once("weft").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "",
            "uq",
            "up --port 0",
            "up --port 65536",
            "up --range 10.0.0.0/33",
            "up --name \u{1b}[31m",
            "up --token a --token-file b",
            "connect",
            "ping",
            "wait",
            "wait --for peers=x",
            "wait --for joined --timeout soon",
            "attach web",
            "token",
            "token create --ttl 15",
            "status dns",
            "down --force",
        ] {
            let words =
                std::iter::once("weft").chain(line.split(' ').filter(|word| !word.is_empty()));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn a_token_on_the_command_line_is_not_shown_by_debug() {
        let cli = Cli::try_parse_from(["weft", "join", "a", "--token", "wft1-topsecret"]).unwrap();

        assert!(!format!("{cli:?}").contains("topsecret"));
    }
}
