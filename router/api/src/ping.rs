//! A full-size probe to a peer and back.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_types::{Nickname, NodeId, PathKind, Problem};

use crate::{Client, Route};

/// Sends a full-size probe to a peer and back.
pub const PING: Route<PingRequest, PingAnswer> = Route::post("/v1/ping");

/// `POST /v1/ping`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PingRequest {
    /// A nickname, an identity, or the beginning of one.
    pub node: String,
}

/// A full-size probe went to a peer and back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PingAnswer {
    /// Who answered.
    #[schemars(with = "String")]
    pub node: NodeId,
    /// What people call it.
    #[schemars(with = "String")]
    pub nickname: Nickname,
    /// Its host's addresses on the mesh.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// By what it went.
    pub path: Option<PathKind>,
    /// Through whom, where the path is a relay.
    #[schemars(with = "Option<String>")]
    pub via: Option<NodeId>,
    /// How many hops it took to get there, 1 where it went straight; null where that is not known.
    #[serde(default)]
    pub hops: Option<usize>,
    /// Who passed it on, in order, as far as that is known.
    #[serde(default)]
    pub relays: Vec<RelayStatus>,
    /// The round trip.
    pub rtt_ms: f64,
    /// Probes sent before it that have not come back.
    #[serde(default)]
    pub lost: u32,
    /// Share of frames or probes lost on that way of late, 0 to 1.
    #[serde(default)]
    pub loss: f64,
    /// The largest IP packet of the underlay that is known to reach the peer whole; null where nothing is known, and over
    /// control connections.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// Ethernet frame bytes each way.
    pub bytes: u16,
}

/// A member that passes a peer's frames on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RelayStatus {
    /// Who.
    #[schemars(with = "String")]
    pub node: NodeId,
    /// What people call it.
    pub nickname: String,
}

impl Client {
    /// Sends a full-size probe to a peer and back.
    pub async fn ping(&self, node: &str) -> Result<PingAnswer, Problem> {
        let node = node.to_owned();
        self.request(PING, &PingRequest { node }).await
    }
}
