//! What a router is told once, when it is made.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use weft_types::{Mtu, Nickname};

use crate::identity::NodeKeys;
use crate::io::Target;
use crate::token::Token;

/// What a router is told once.
pub struct RouterConfig {
    /// Who it is.
    pub keys: NodeKeys,
    /// What people call it.
    pub nickname: Nickname,
    /// The port of control TCP and sleeve UDP.
    pub port: u16,
    /// Addresses to be reached at, beside those of the host's interfaces.
    pub advertise: Vec<SocketAddr>,
    /// What to dial, beside what is remembered.
    pub targets: Vec<Target>,
    /// What to do where the store has no mesh yet.
    pub intent: Intent,
    /// Optional features, as they stand in the node record: `aes` where the hardware has it.
    pub features: Vec<String>,
    /// The release, for people.
    pub release: String,
    /// What the wall clock shows, since 1970: a node that is switched off grows no tokens younger.
    pub wall_clock: Duration,
}

/// What to do where the store has no mesh yet. Where it has one, it is resumed and this is ignored, but for a token of
/// another mesh, which is refused.
pub enum Intent {
    /// Begin a mesh.
    Create {
        /// Its name; made up if `None`.
        name: Option<Nickname>,
        /// Where IPv4 addresses come from.
        range: Ipv4Net,
        /// The largest IP packet.
        mtu: Mtu,
        /// The creator's own address; the first of the range if `None`.
        address: Option<IpNet>,
    },
    /// Join by a token.
    Join {
        /// Admits us.
        token: Token,
        /// The address to ask for; the creator chooses if `None`.
        address: Option<IpNet>,
    },
    /// Only resume.
    Resume,
}
