//! What a starting daemon tells the command that started it: one line of JSON, how the start came out.

use serde::{Deserialize, Serialize};
use weft_api::ping::PingAnswer;
use weft_api::status::Status;
use weft_types::Problem;

use crate::secret::Secret;

/// How a start came out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case")]
pub(crate) enum Word {
    /// It did not work; the daemon is gone, or going.
    Failed {
        /// Why.
        problem: Problem,
    },
    /// The router is ready.
    Ready {
        /// How things stand.
        status: Status,
        /// Whether a mesh was begun.
        created: bool,
        /// Admits one host, where a mesh was begun.
        token: Option<Secret>,
    },
    /// A peer was reached and a full-size sealed probe went there and back.
    Verified {
        /// How things stand.
        status: Status,
        /// The probe.
        ping: PingAnswer,
        /// From the start of the daemon, in seconds.
        seconds: f64,
    },
}
