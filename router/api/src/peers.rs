//! The other members: a part of the status, and how a person names one of them.

use std::net::SocketAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_types::{Nickname, NodeId, PathKind, PeerState};

/// Another member of the mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PeerStatus {
    /// Its public key.
    #[schemars(with = "String")]
    pub id: NodeId,
    /// What people call it.
    #[schemars(with = "String")]
    pub nickname: Nickname,
    /// Its host's addresses on the mesh.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// How things stand.
    pub state: PeerState,
    /// By what its frames travel; null while they do not.
    pub path: Option<PathKind>,
    /// Through whom, where the path is a relay.
    #[schemars(with = "Option<String>")]
    pub via: Option<NodeId>,
    /// Its address in the underlay.
    #[schemars(with = "Option<String>")]
    pub endpoint: Option<SocketAddr>,
    /// Smoothed round trip; null before the first was measured.
    pub rtt_ms: Option<f64>,
    /// Share of heartbeats lost, 0 to 1.
    pub loss: f64,
    /// The largest IP packet of the underlay that is known to reach it whole, by probes; null where nothing is known, and
    /// over control connections.
    pub mtu: Option<u16>,
    /// Sealed bytes sent to it.
    pub tx_bytes: u64,
    /// Genuine sealed bytes received from it.
    pub rx_bytes: u64,
    /// Frames out of its sessions that were dropped because they spoke in another's name.
    pub rx_forged: u64,
    /// When it came into this state.
    pub since: String,
    /// Why it is in this state, in a few words.
    pub reason: String,
}

impl PeerStatus {
    /// Whether a person may mean it by this: its nickname, identity or mesh address.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.nickname.as_str() == name
            || self.id.to_string() == name
            || self
                .addresses
                .iter()
                .any(|net| net.addr().to_string() == name)
    }

    /// Whether its nickname or identity begins like this.
    pub(crate) fn begins_with(&self, name: &str) -> bool {
        self.nickname.as_str().starts_with(name) || self.id.to_string().starts_with(name)
    }
}
