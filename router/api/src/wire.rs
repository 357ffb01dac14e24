//! What crosses the underlay: a part of the status. Counters are declared in [`weft_types::WireCounters`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_types::WireCounters;

/// What crosses the underlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WireStatus {
    /// Ciphers of the data sessions that there are, or, where all are idle, that there were; joined by a comma. `none` before
    /// the first.
    pub cipher: String,
    /// How many members there is a data session with. Idle ones end, and come back with the next frame.
    #[serde(default)]
    pub sessions: usize,
    /// What was counted.
    #[serde(flatten)]
    pub counters: WireCounters,
}
