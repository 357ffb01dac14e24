//! What the core knows about itself and its mesh, for people: a plain value, made on request.
//!
//! Byte counts and drops are not here, but for those of control connections: they are counted where packets are handled,
//! and the driver adds them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weft_types::{MacAddr, MeshId, Mtu, Nickname, NodeId, Problem, TokenId, WireCounters};
pub use weft_types::{PathKind, PeerState, SwitchKind};

use crate::keys::Cipher;
use crate::switch::DropReason;

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterStatus {
    /// The mesh; `None` before this node is a member of one.
    pub mesh: Option<MeshStatus>,
    /// This node.
    pub node: NodeStatus,
    /// Every other member, sorted by nickname and node.
    pub peers: Vec<PeerStatus>,
    /// What a person told us to dial.
    pub targets: Vec<TargetStatus>,
    /// Containers on ports of this host.
    pub containers: Vec<ContainerStatus>,
    /// Tokens that can be listed: issued here, or reusable.
    pub tokens: Vec<TokenStatus>,
    /// What is wrong at the moment.
    pub problems: Vec<Problem>,
    /// What was counted here. Of `auth_drops` that are link datagrams, forged or replayed; those of sessions, and their
    /// replays, are counted where they are opened.
    pub counters: WireCounters,
    /// Every cipher that a data session has had since the start: idle sessions go, and come back with the next frame.
    pub ciphers: BTreeSet<Cipher>,
    /// What was passed on over control connections, and what was not.
    pub transit: TransitStatus,
    /// How often frames have left one way for another since the start, over all peers.
    pub switches: BTreeMap<Switching, u64>,
}

/// Datagrams on control connections. Those of other ways are counted where packets are handled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransitStatus {
    /// By the neighbour that it came from and the member that it is for: datagrams, and bytes of them.
    pub carried: BTreeMap<(NodeId, NodeId), (u64, u64)>,
    /// What was dropped, our own datagrams included.
    pub drops: BTreeMap<DropReason, u64>,
}

/// The mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshStatus {
    /// What people call it.
    pub name: Nickname,
    /// The hash of its genesis.
    pub id: MeshId,
    /// Whether payload is sealed.
    pub encrypted: bool,
    /// How many members there are, ourselves included.
    pub members: usize,
    /// The largest IP packet.
    pub mtu: Mtu,
    /// Where addresses come from.
    pub ranges: Vec<IpNet>,
}

/// A container on a port of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStatus {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its addresses on the mesh.
    pub addresses: Vec<IpAddr>,
    /// The host's end of its veth pair.
    pub port: String,
}

/// This node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Who it is.
    pub id: NodeId,
    /// What people call it.
    pub nickname: Nickname,
    /// Its addresses on the mesh.
    pub addresses: Vec<IpNet>,
    /// Since the core began.
    pub uptime: Duration,
    /// Addresses of the underlay it says it can be reached at.
    pub advertised: Vec<SocketAddr>,
}

/// Switches of one kind: what was left, what was taken, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Switching {
    /// By what frames travelled.
    pub from: PathKind,
    /// By what they have travelled since.
    pub to: PathKind,
    /// Why.
    pub why: SwitchKind,
}

/// One way was left for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchStatus {
    /// When: with the peer the name of this switch, by which the driver remembers its time of day.
    pub at: Instant,
    /// By what frames have travelled since.
    pub path: PathKind,
    /// Who passes them on.
    pub via: Option<NodeId>,
    /// Why, in a few words.
    pub reason: String,
}

/// Another member.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerStatus {
    /// Who it is.
    pub id: NodeId,
    /// What people call it.
    pub nickname: Nickname,
    /// Its host's addresses on the mesh.
    pub addresses: Vec<IpNet>,
    /// How things stand.
    pub state: PeerState,
    /// By what its frames travel; `None` while they do not.
    pub path: Option<PathKind>,
    /// Who passes them on.
    pub via: Option<NodeId>,
    /// The largest IP packet of the underlay that is known to pass on that way.
    pub mtu: Option<u16>,
    /// How the way has changed, oldest first.
    pub switches: Vec<SwitchStatus>,
    /// Its address in the underlay.
    pub endpoint: Option<SocketAddr>,
    /// Smoothed round trip of heartbeats.
    pub rtt: Option<Duration>,
    /// Share of heartbeats lost, 0 to 1.
    pub loss: f64,
    /// How long it has been in this state.
    pub since: Duration,
    /// Why it is in this state, in a few words.
    pub reason: String,
    /// The cipher of the data session, if there is one.
    pub cipher: Option<Cipher>,
}

/// Something a person told us to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetStatus {
    /// As it was written.
    pub target: String,
    /// The state in a word: connected, connecting, waiting, ourself.
    pub state: &'static str,
    /// Who answered there.
    pub node: Option<NodeId>,
    /// When it is tried again.
    pub retry_in: Option<Duration>,
    /// The last error, in a few words; empty if there was none.
    pub last_error: String,
}

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenStatus {
    /// Which.
    pub id: TokenId,
    /// Admits more than one node.
    pub reusable: bool,
    /// live, used, expired or voided.
    pub state: &'static str,
    /// What is left of its life.
    pub expires_in: Option<Duration>,
    /// Who joined with it (single use).
    pub used_by: Option<NodeId>,
}
