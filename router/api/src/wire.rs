//! What crosses the underlay: a part of the status. Counters are declared in [`weft_types::WireCounters`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_types::WireCounters;

/// What crosses the underlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WireStatus {
    /// Ciphers of the data sessions in use, joined by a comma; `none` without a session.
    pub cipher: String,
    /// What was counted.
    #[serde(flatten)]
    pub counters: WireCounters,
}
