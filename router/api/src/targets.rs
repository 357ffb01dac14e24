//! What a person told this node to dial: a part of the status, and the way to change it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_types::{NodeId, Problem};

use crate::{Client, Done, Route};

/// Dials, for good.
pub const CONNECT: Route<TargetsRequest, Done> = Route::post("/v1/connect");
/// Dials no more.
pub const FORGET: Route<TargetsRequest, Done> = Route::post("/v1/forget");
/// Dials at once whoever is waited for.
pub const RETRY: Route<(), Done> = Route::post("/v1/retry");

/// Something a person told this node to dial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TargetStatus {
    /// As it was written.
    pub target: String,
    /// `connected`, `connecting`, `waiting` or `ourself`.
    pub state: String,
    /// Who answered there.
    #[schemars(with = "Option<String>")]
    pub node: Option<NodeId>,
    /// When it is tried again.
    pub retry_in_ms: Option<u64>,
    /// The last error, in a few words; empty if there was none.
    pub last_error: String,
}

/// `POST /v1/connect`, `POST /v1/forget`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetsRequest {
    /// Each `host[:port]`.
    pub targets: Vec<String>,
}

impl Client {
    /// Dials, for good.
    pub async fn connect(&self, targets: Vec<String>) -> Result<Done, Problem> {
        self.request(CONNECT, &TargetsRequest { targets }).await
    }

    /// Dials no more.
    pub async fn forget(&self, targets: Vec<String>) -> Result<Done, Problem> {
        self.request(FORGET, &TargetsRequest { targets }).await
    }

    /// Dials at once whoever is waited for.
    pub async fn retry(&self) -> Result<Done, Problem> {
        self.ask(RETRY).await
    }
}
