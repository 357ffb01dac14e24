//! Lets programs on this host see and steer the router.
//!
//! ```text
//!   weft CLI ──HTTP+JSON──▶ Unix socket ─┐
//!                                        ├─▶ ApiRequest ──▶ hub      hub ──▶ Event ──▶ /v1/events
//!   browser, Prometheus ──▶ TCP 6782 ────┘   (read only)
//! ```
//!
//! The hub is asked one [`ApiRequest`] at a time over a bounded channel and answers through the request's own oneshot;
//! it knows nothing of HTTP. **Failure policy.** A hub that does not answer within [`HUB_TIMEOUT`] is reported as an
//! internal error; nothing here waits for ever, and nothing that changes state is reachable by TCP.

pub mod client;
pub mod model;
pub mod server;

mod assemble;
mod listen;
mod metrics;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{broadcast, mpsc, oneshot};
use weft_router_proto::io::{Command, Reply};
use weft_router_proto::status::RouterStatus;
use weft_types::NodeId;

pub use model::Event;

/// The port of status and metrics on loopback.
pub const STATUS_PORT: u16 = 6782;

/// How long the hub gets for an answer. Commands that wait for others (`ping`, `leave`) are the slowest: a ping gives up
/// after 5 s by itself.
pub const HUB_TIMEOUT: Duration = Duration::from_secs(15);

/// How many requests may wait for the hub: people and scrapers are few, and a full queue makes them wait, not fail.
pub const QUEUE: usize = 32;

/// What somebody on this host wants from the hub.
#[derive(Debug)]
pub enum ApiRequest {
    /// Hand a command to the core; its reply goes back as it is.
    Command {
        /// What.
        command: Command,
        /// Where the answer goes.
        answer: oneshot::Sender<Reply>,
    },
    /// Stop: close connections, remove devices, end the process. Answered when the stop has begun.
    Shutdown {
        /// Where the answer goes.
        answer: oneshot::Sender<()>,
    },
    /// Say how things stand.
    Status {
        /// Where the answer goes.
        answer: oneshot::Sender<Report>,
    },
}

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
    /// Frames that left unsealed: 0, or a bug of ours.
    pub plaintext_frames: u64,
}

/// What was exchanged with one peer: bytes of sealed datagrams, and what was wrong inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerTraffic {
    /// Sent.
    pub tx_bytes: u64,
    /// Received and found genuine.
    pub rx_bytes: u64,
    /// Frames out of its sessions that spoke in another's name.
    pub rx_forged: u64,
}

/// What was passed on from one member to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Datagrams.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The API's end of the hub.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Where requests go.
    pub requests: mpsc::Sender<ApiRequest>,
    /// Where events come from. A listener that is too slow is told how many it missed.
    pub events: broadcast::Sender<Event>,
}
