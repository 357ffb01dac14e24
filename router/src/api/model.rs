//! Names what travels over the local API, in JSON: the schema under `docs/schema/` is made from these types.
//!
//! **Invariant.** Within one major version a field is added, never renamed, moved or given another meaning. Readers
//! ignore fields they do not know. Times of day are RFC 3339 in UTC; durations carry their unit in the name.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_types::{MacAddr, MeshId, Nickname, NodeId, Problem, TokenId};

/// How things stand: `GET /v1/status`, `weft status -o json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The release of the router that answers.
    pub version: String,
    /// The mesh; null before this node is a member of one.
    pub mesh: Option<MeshStatus>,
    /// This node.
    pub node: NodeStatus,
    /// Every other member, sorted by nickname.
    pub peers: Vec<PeerStatus>,
    /// What crosses the underlay.
    pub wire: WireStatus,
    /// What is wrong at the moment; empty on a healthy mesh.
    pub problems: Vec<Problem>,
    /// What a person told this node to dial.
    pub targets: Vec<TargetStatus>,
    /// How each other member is reached, with a control connection or without one.
    pub connections: Vec<ConnectionStatus>,
    /// Frames and datagrams dropped since the start, by reason.
    pub drops: BTreeMap<String, u64>,
    /// What this node has passed on for other members since the start.
    #[serde(default)]
    pub relayed: Vec<RelayedStatus>,
    /// How often frames have left one way for another since the start, over all peers.
    #[serde(default)]
    pub switches: Vec<SwitchCount>,
}

/// What this node has passed on from one member to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RelayedStatus {
    /// Whom it came from: a relay itself, maybe.
    #[schemars(with = "String")]
    pub from: NodeId,
    /// Whom it is for in the end.
    #[schemars(with = "String")]
    pub to: NodeId,
    /// Datagrams.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The mesh this node is a member of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MeshStatus {
    /// What people call it.
    #[schemars(with = "String")]
    pub name: Nickname,
    /// The hash of its genesis record.
    #[schemars(with = "String")]
    pub id: MeshId,
    /// Whether every frame is sealed.
    pub encrypted: bool,
    /// How many members there are, this node included.
    pub members: usize,
    /// How many of the other members are reached.
    pub connected: usize,
    /// The largest IP packet, in bytes.
    pub mtu: u16,
}

/// This node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStatus {
    /// Its public key: who it is, for life.
    #[schemars(with = "String")]
    pub id: NodeId,
    /// What people call it.
    #[schemars(with = "String")]
    pub nickname: Nickname,
    /// Its addresses on the mesh.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// Since the router was started.
    pub uptime_seconds: u64,
    /// Addresses of the underlay at which others may reach it.
    #[schemars(with = "Vec<String>")]
    pub advertised: Vec<SocketAddr>,
}

/// How things stand with a peer.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// A link to it is up, or its frames travel through another member.
    Connected,
    /// It is being dialled.
    Connecting,
    /// Nobody reaches it.
    Down,
    /// Others reach it, this node does not.
    Indirect,
}

/// By what a peer's frames travel.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// Inside the control connection: the last resort.
    Control,
    /// The kernel's VXLAN device.
    Fastdp,
    /// Through another member.
    Relay,
    /// The userspace transport.
    Sleeve,
}

/// Another member of the mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PeerStatus {
    /// Its public key.
    #[schemars(with = "String")]
    pub id: NodeId,
    /// What people call it.
    #[schemars(with = "String")]
    pub nickname: Nickname,
    /// Its host's addresses on the mesh.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// How things stand.
    pub state: PeerState,
    /// By what its frames travel; null while they do not.
    pub path: Option<PathKind>,
    /// Through whom, where the path is a relay.
    #[schemars(with = "Option<String>")]
    pub via: Option<NodeId>,
    /// Its address in the underlay.
    #[schemars(with = "Option<String>")]
    pub endpoint: Option<SocketAddr>,
    /// Smoothed round trip; null before the first was measured.
    pub rtt_ms: Option<f64>,
    /// Share of heartbeats lost, 0 to 1.
    pub loss: f64,
    /// The largest IP packet of the underlay that is known to reach it whole, by probes; null where nothing is known, and
    /// over control connections.
    pub mtu: Option<u16>,
    /// Sealed bytes sent to it.
    pub tx_bytes: u64,
    /// Genuine sealed bytes received from it.
    pub rx_bytes: u64,
    /// Frames out of its sessions that were dropped because they spoke in another's name.
    pub rx_forged: u64,
    /// When it came into this state.
    pub since: String,
    /// Why it is in this state, in a few words.
    pub reason: String,
}

/// What crosses the underlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WireStatus {
    /// Ciphers of the data sessions in use, joined by a comma; `none` without a session.
    pub cipher: String,
    /// Sessions renewed since the start.
    pub rekeys: u64,
    /// Datagrams refused because they came before.
    pub replay_drops: u64,
    /// Frames that left in clear: always 0 on an encrypted mesh.
    pub plaintext_frames: u64,
    /// Datagrams refused because nobody here sealed them.
    pub auth_drops: u64,
    /// Control messages of members that could not be read, or came again.
    #[serde(default)]
    pub bad_payloads: u64,
}

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

/// Why frames take another way, in a word.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SwitchKind {
    /// The way taken is better, and answers.
    Better,
    /// There was none before.
    First,
    /// The way left is known no more.
    Gone,
    /// The way left lost frames, or held them back.
    Lossy,
    /// The way left does not answer.
    Silent,
    /// The way left takes much longer.
    Slow,
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

/// `POST /v1/connect`, `POST /v1/forget`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetsRequest {
    /// Each `host[:port]`.
    pub targets: Vec<String>,
}

/// `POST /v1/ping`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PingRequest {
    /// A nickname, an identity, or the beginning of one.
    pub node: String,
}

/// A full-size probe went to a peer and back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PingAnswer {
    /// Who answered.
    #[schemars(with = "String")]
    pub node: NodeId,
    /// What people call it.
    #[schemars(with = "String")]
    pub nickname: Nickname,
    /// Its host's addresses on the mesh.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// By what it went.
    pub path: Option<PathKind>,
    /// Through whom, where the path is a relay.
    #[schemars(with = "Option<String>")]
    pub via: Option<NodeId>,
    /// How many hops it took to get there, 1 where it went straight; null where that is not known.
    #[serde(default)]
    pub hops: Option<usize>,
    /// Who passed it on, in order, as far as that is known.
    #[serde(default)]
    pub relays: Vec<RelayStatus>,
    /// The round trip.
    pub rtt_ms: f64,
    /// Probes sent before it that have not come back.
    #[serde(default)]
    pub lost: u32,
    /// Share of frames or probes lost on that way of late, 0 to 1.
    #[serde(default)]
    pub loss: f64,
    /// The largest IP packet of the underlay that is known to reach the peer whole; null where nothing is known, and over
    /// control connections.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// Ethernet frame bytes each way.
    pub bytes: u16,
}

/// A member that passes a peer's frames on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RelayStatus {
    /// Who.
    #[schemars(with = "String")]
    pub node: NodeId,
    /// What people call it.
    pub nickname: String,
}

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

/// `POST /v1/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Admits more than one node.
    pub reusable: bool,
    /// How long it lives.
    pub ttl_seconds: u64,
}

/// A new token: secret, and shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenAnswer {
    /// As it is handed to a joiner.
    pub token: String,
}

/// A token, without its secret: `GET /v1/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenStatus {
    /// Which.
    #[schemars(with = "String")]
    pub id: TokenId,
    /// Admits more than one node.
    pub reusable: bool,
    /// `live`, `used`, `expired` or `voided`.
    pub state: String,
    /// What is left of its life.
    pub expires_in_seconds: Option<u64>,
    /// Who joined with it (single use).
    #[schemars(with = "Option<String>")]
    pub used_by: Option<NodeId>,
}

/// `POST /v1/tokens/revoke`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRevokeRequest {
    /// The token's id, or the beginning of it.
    pub token: String,
}

/// `POST /v1/attach`: a container was put on a port of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// The container's Ethernet address.
    #[schemars(with = "String")]
    pub mac: MacAddr,
    /// Its addresses, with the prefix length of their network.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// The host's end of its veth pair.
    pub port: String,
}

/// `POST /v1/detach`: a container is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DetachRequest {
    /// The container's Ethernet address.
    #[schemars(with = "String")]
    pub mac: MacAddr,
}

/// The answer of everything that has nothing to say but "done".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {}

/// Something happened: one line of `GET /v1/events`, `weft events -o json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When, by this host's clock.
    pub time: String,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// This node is a member: it was admitted, or created the mesh, or resumed.
    Joined {
        /// The mesh's name.
        #[schemars(with = "String")]
        mesh: Nickname,
        /// This host's mesh addresses.
        #[schemars(with = "Vec<String>")]
        addresses: Vec<IpNet>,
        /// The largest IP packet, in bytes.
        mtu: u16,
    },
    /// A join, or a dial on behalf of one, failed.
    JoinAttemptFailed {
        /// Why.
        problem: Problem,
    },
    /// A link to a peer is down.
    LinkDown {
        /// To whom.
        #[schemars(with = "String")]
        node: NodeId,
        /// Why, in a few words.
        reason: String,
    },
    /// A link to a peer is up.
    LinkUp {
        /// To whom.
        #[schemars(with = "String")]
        node: NodeId,
        /// What people call it.
        #[schemars(with = "String")]
        nickname: Nickname,
        /// Its address.
        #[schemars(with = "String")]
        endpoint: SocketAddr,
    },
    /// A member appeared for the first time.
    MemberJoined {
        /// Who.
        #[schemars(with = "String")]
        node: NodeId,
        /// What people call it.
        #[schemars(with = "String")]
        nickname: Nickname,
    },
    /// A member left for good.
    MemberLeft {
        /// Who.
        #[schemars(with = "String")]
        node: NodeId,
    },
    /// The reader was too slow for the stream.
    Missed {
        /// How many events it did not see.
        events: u64,
    },
    /// Frames for a peer take another way.
    PathChanged {
        /// To whom.
        #[schemars(with = "String")]
        node: NodeId,
        /// By what they travelled; null where they did not.
        from: Option<PathKind>,
        /// By what they travel.
        path: PathKind,
        /// Through whom, where that is a relay.
        #[schemars(with = "Option<String>")]
        via: Option<NodeId>,
        /// Why, in a few words.
        reason: String,
    },
    /// Something needs attention.
    Problem {
        /// What.
        problem: Problem,
    },
    /// No data session with a peer is left.
    SessionDown {
        /// With whom.
        #[schemars(with = "String")]
        node: NodeId,
    },
    /// A data session with a peer is up.
    SessionUp {
        /// With whom.
        #[schemars(with = "String")]
        node: NodeId,
    },
    /// The router stops. The last event.
    Stopping {
        /// Why, where it was not asked to.
        problem: Option<Problem>,
    },
}
