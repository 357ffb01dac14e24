//! Says what can be said on the command line about a router and where it is. What it means says [`super::Config`].

use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, ValueEnum};
use ipnet::{IpNet, Ipv4Net};
use weft_types::Nickname;

use crate::output::Format;
use crate::secret::Secret;

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
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// One JSON object per line
    Json,
    /// Words and fields
    #[default]
    Text,
}
