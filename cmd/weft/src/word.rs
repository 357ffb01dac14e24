//! What a starting daemon tells the command that started it: lines of JSON, of which the last says how the start came out.

use serde::{Deserialize, Serialize};
use weft_api::ping::PingAnswer;
use weft_api::status::Status;
use weft_types::Problem;

use crate::secret::Secret;

/// How a start comes on, and comes out.
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
    /// One way into the mesh leads nowhere; others are tried.
    Tried {
        /// Why.
        problem: Problem,
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

impl Word {
    /// Whether the start goes on after it.
    pub(crate) const fn is_interim(&self) -> bool {
        matches!(self, Self::Tried { .. })
    }
}
