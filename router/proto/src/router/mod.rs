//! The machine made of all the others: one whole router, without its sockets, disk and clock.
//!
//! Call [`Router::handle_input`] when something happened, then [`Router::poll_output`] until `None`, then sleep until
//! [`Router::poll_timeout`] and call [`Router::handle_timeout`].
//!
//! **Invariant.** Nothing leaves before the boot counter is durable: the first output is a save, and until it is
//! confirmed every other input is refused or deferred.

use std::time::Instant;

use ipnet::{IpNet, Ipv4Net};
use weft_types::{Mtu, Nickname, Problem};

use crate::crypto::Crypto;
use crate::identity::NodeKeys;
use crate::io::{Input, Output, Target};
use crate::status::RouterStatus;
use crate::store::Saved;
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
    pub advertise: Vec<std::net::SocketAddr>,
    /// What to dial, beside what is remembered.
    pub targets: Vec<Target>,
    /// What to do where the store has no mesh yet.
    pub intent: Intent,
    /// Optional features, as they stand in the node record: `aes` where the hardware has it.
    pub features: Vec<String>,
    /// The release, for people.
    pub release: String,
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

/// One whole router.
pub struct Router {
    _private: (),
}

impl Router {
    /// Wakes a router: reads what was saved, draws a boot id. Fails on damaged or contradicting state.
    pub fn new(config: RouterConfig, saved: &Saved, crypto: Box<dyn Crypto>, now: Instant) -> Result<Self, Problem> {
        let _ = (config, saved, crypto, now);
        Ok(Self { _private: () })
    }

    /// Takes in what happened.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        let _ = (input, now);
    }

    /// Gives out what shall happen, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// Says when it wants to be woken, and for what.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    /// Wakes it.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// How things stand.
    pub fn status(&self, now: Instant) -> RouterStatus {
        let _ = now;
        unreachable!("no core yet")
    }
}
