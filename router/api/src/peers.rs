//! The other members: a part of the status, and how a person names one of them.

use std::net::SocketAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_types::{Code, Nickname, NodeId, PathKind, PeerState, Problem};

use crate::status::{Status, not_joined};

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
    fn is_called(&self, name: &str) -> bool {
        self.nickname.as_str() == name
            || self.id.to_string() == name
            || self
                .addresses
                .iter()
                .any(|net| net.addr().to_string() == name)
    }

    /// Whether its nickname or identity begins like this.
    fn begins_with(&self, name: &str) -> bool {
        self.nickname.as_str().starts_with(name) || self.id.to_string().starts_with(name)
    }
}

impl Status {
    /// Finds a member by nickname, identity, mesh address, or an unambiguous beginning of the first two. An exact match
    /// wins over a beginning.
    ///
    /// # Errors
    ///
    /// [`Code::NotJoined`], [`Code::UnknownNode`], [`Code::AmbiguousNode`].
    pub fn find_peer(&self, name: &str) -> Result<&PeerStatus, Problem> {
        if self.mesh.is_none() {
            return Err(not_joined());
        }
        let exact = self.peers.iter().filter(|peer| peer.is_called(name));
        let mut found: Vec<&PeerStatus> = exact.collect();
        if found.is_empty() {
            let beginning = self.peers.iter().filter(|peer| peer.begins_with(name));
            found = beginning.collect();
        }
        match found.as_slice() {
            [peer] => Ok(peer),
            [] => Err(self.unknown(name)),
            several => Err(ambiguous(name, several)),
        }
    }

    /// What a node is called, whoever it is.
    pub fn name_of(&self, node: NodeId) -> String {
        let peer = self.peers.iter().find(|peer| peer.id == node);
        let own = (node == self.node.id).then_some(&self.node.nickname);
        let known = peer.map(|peer| &peer.nickname).or(own);
        known.map_or_else(|| node.short(), ToString::to_string)
    }

    fn unknown(&self, name: &str) -> Problem {
        let own = &self.node;
        let why = if own.nickname.as_str() == name || own.id.to_string() == name {
            "it is this node itself".to_owned()
        } else {
            format!("the mesh has {} other members", self.peers.len())
        };
        Problem::new(
            Code::UnknownNode,
            format!("no other member is called {name:?}"),
        )
        .why(why)
        .fix("See who there is: weft peers")
    }
}

fn ambiguous(name: &str, found: &[&PeerStatus]) -> Problem {
    let names: Vec<String> = found
        .iter()
        .map(|peer| format!("{} {}", peer.nickname, peer.id.short()))
        .collect();
    Problem::new(
        Code::AmbiguousNode,
        format!("{name:?} may be several members"),
    )
    .why(names.join(", "))
    .fix("Write more of the identity")
}
