//! How each other member is reached, and how that has changed: parts of the status.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_types::{Nickname, NodeId, PathKind, PeerState, SwitchKind};

/// How another member is reached: over a control connection, through others, or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionStatus {
    /// To whom.
    #[schemars(with = "String")]
    pub node: NodeId,
    /// What people call it.
    #[schemars(with = "String")]
    pub nickname: Nickname,
    /// How things stand.
    pub state: PeerState,
    /// By what its frames travel; null while they do not.
    #[serde(default)]
    pub path: Option<PathKind>,
    /// Through whom, where the path is a relay.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub via: Option<NodeId>,
    /// Its address.
    #[schemars(with = "Option<String>")]
    pub endpoint: Option<SocketAddr>,
    /// When it came into this state.
    pub since: String,
    /// Why, in a few words.
    pub reason: String,
    /// How the way of its frames has changed of late, oldest first.
    pub switches: Vec<SwitchStatus>,
}

/// Frames left one way for another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SwitchStatus {
    /// When.
    pub time: String,
    /// By what they have travelled since.
    pub path: PathKind,
    /// Through whom, where that is a relay.
    #[schemars(with = "Option<String>")]
    pub via: Option<NodeId>,
    /// Why, in a few words.
    pub reason: String,
}

/// How often frames have left a way of one kind for another, for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SwitchCount {
    /// By what they travelled.
    pub from: PathKind,
    /// By what they have travelled since.
    pub to: PathKind,
    /// Why.
    pub reason: SwitchKind,
    /// How often.
    pub count: u64,
}
