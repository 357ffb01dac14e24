//! The way that a peer's frames take, hop by hop.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_types::{Nickname, NodeId, PathKind, Problem};

use crate::ping::PingRequest;
use crate::{Client, Route};

/// Follows a peer's frames from relay to relay.
pub const TRACE: Route<PingRequest, TraceAnswer> = Route::post("/v1/trace");

/// The way that a peer's frames take, hop by hop: `POST /v1/trace`, which is asked like a ping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TraceAnswer {
    /// Whose frames were followed.
    #[schemars(with = "String")]
    pub node: NodeId,
    /// What people call it.
    #[schemars(with = "String")]
    pub nickname: Nickname,
    /// Whether the last hop leads to it.
    pub complete: bool,
    /// From here on, in order.
    pub hops: Vec<HopStatus>,
}

/// One hop: what a node on the way says about the way that it takes itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HopStatus {
    /// Who says it.
    #[schemars(with = "String")]
    pub from: NodeId,
    /// What people call it.
    pub from_nickname: String,
    /// To whom its frames go next.
    #[schemars(with = "String")]
    pub to: NodeId,
    /// What people call that.
    pub to_nickname: String,
    /// By what; null where it knows no way.
    pub path: Option<PathKind>,
    /// Smoothed round trip from it to the member, if it has measured one.
    pub rtt_ms: Option<f64>,
    /// Share of frames or probes lost between it and the member, 0 to 1.
    pub loss: f64,
    /// The largest IP packet of the underlay that is known to pass.
    pub mtu: Option<u16>,
}

impl Client {
    /// Follows a peer's frames from relay to relay.
    pub async fn trace(&self, node: &str) -> Result<TraceAnswer, Problem> {
        let node = node.to_owned();
        self.request(TRACE, &PingRequest { node }).await
    }
}
