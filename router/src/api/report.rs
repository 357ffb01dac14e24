//! How things stand, as the hub gives it out: what the core knows and what was counted, not yet in words.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use weft_router_proto::status::RouterStatus;
use weft_types::NodeId;

use crate::worker::PeerTraffic;

/// How things stand, as the hub gives it out.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the core knows.
    pub core: RouterStatus,
    /// What the packet workers have counted.
    pub traffic: Traffic,
    /// What the clock showed when the ways changed.
    pub times: SwitchTimes,
}

/// What the clock showed when a peer's way changed, by peer and moment.
pub type SwitchTimes = BTreeMap<NodeId, BTreeMap<Instant, SystemTime>>;

/// What is counted where packets are handled. Counts begin with the process and only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Per peer.
    pub peers: BTreeMap<NodeId, PeerTraffic>,
    /// Passed on for others: from whom, for whom.
    pub relayed: BTreeMap<(NodeId, NodeId), Carried>,
    /// Frames and datagrams dropped, by `DropReason`'s name.
    pub drops: BTreeMap<&'static str, u64>,
    /// Of these: datagrams that came a second time, or too late to tell.
    pub replay_drops: u64,
    /// Of these: datagrams whose index or tag did not check out.
    pub auth_drops: u64,
}

/// What was passed on from one member to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Datagrams.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
}
