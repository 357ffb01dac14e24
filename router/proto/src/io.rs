//! What goes into a router core and what comes out: the whole contract between the core and its driver.
//!
//! ```text
//!   TCP, UDP, disk, commands ──▶ Input ──▶ Router ──▶ Output ──▶ TCP, UDP, disk, replies
//!                                            │
//!                                            └──▶ Snapshot, DataPlane ──▶ packet workers, kernel planner
//! ```
//!
//! The driver feeds one [`Input`] at a time, then drains outputs until there are none, then sleeps until the next
//! deadline. Whatever it cannot do comes back as an input; it decides nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weft_types::{MacAddr, Mtu, Nickname, NodeId, Problem, TokenId};

use crate::genesis::Genesis;
use crate::keys::{SessionIndex, SessionKeys};
use crate::lanes::Slot;
pub use crate::overlay::PathAnswer;
use crate::overlay::Via;
use crate::snapshot::Snapshot;
use crate::status::PathKind;
use crate::store::Change;

/// One TCP connection. The dialling side's numbers are the core's, the accepting side's the driver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// Whether this end opened it.
    pub dialled: bool,
    /// Counts, never reused in one run.
    pub number: u64,
}

/// Ties a save to what waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Ties a reply to the command it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Where to dial: what a person wrote, `host[:port]`, not resolved yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(pub String);

/// Why a dial or a look-up failed, as far as the system tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum ConnectError {
    /// The host answered: nobody listens (ECONNREFUSED).
    #[error("it refuses the connection")]
    Refused,
    /// Nothing came back within the time a dial gets.
    #[error("it does not answer")]
    TimedOut,
    /// No route, or a router on the way said no (EHOSTUNREACH, ENETUNREACH, EACCES, EPERM).
    #[error("there is no route to it")]
    Unreachable,
}

/// Something happened.
#[derive(Debug)]
pub enum Input {
    /// A stranger connected.
    Accepted {
        /// Numbered by the driver.
        conn: ConnId,
        /// Its address.
        from: SocketAddr,
    },
    /// Somebody asks for something.
    Command {
        /// Comes back with the reply.
        id: RequestId,
        /// What.
        command: Command,
    },
    /// A connection is over, whoever ended it. The last input about `conn`.
    Closed {
        /// Which.
        conn: ConnId,
    },
    /// A dial failed. The last input about `conn`.
    ConnectFailed {
        /// Which.
        conn: ConnId,
        /// Why.
        why: ConnectError,
    },
    /// A dial succeeded.
    Connected {
        /// Which.
        conn: ConnId,
    },
    /// Sealed datagrams of a session that shall travel over control connections ([`Via::Control`]).
    ByControl {
        /// For whom.
        peer: NodeId,
        /// In order, each whole.
        datagrams: Vec<Vec<u8>>,
    },
    /// The machine was compared with what a mesh needs (answers [`Output::CheckGenesis`]).
    GenesisChecked {
        /// Which connection asked.
        conn: ConnId,
        /// Whether this machine can join.
        verdict: Result<(), Problem>,
    },
    /// A datagram of a session came directly from an address: the first of a session, the first from another address, or
    /// one in a second.
    Heard {
        /// Whose session.
        peer: NodeId,
        /// Where it came from; differs from what we send to when the peer roams.
        from: SocketAddr,
    },
    /// A link datagram (heartbeat) arrived on the sleeve's socket, still sealed.
    LinkDatagram {
        /// Where it came from.
        from: SocketAddr,
        /// As it came.
        bytes: Vec<u8>,
    },
    /// The host's own underlay addresses, at start and whenever they change.
    LocalAddresses(Vec<IpAddr>),
    /// A probe of one way came back by the same way (answers [`DataPlane::PathProbe`]).
    PathAnswered(PathAnswer),
    /// A probe came back.
    ProbeAnswered {
        /// From whom.
        peer: NodeId,
        /// Which.
        id: u64,
        /// How long it took, measured where packets are handled.
        rtt: Duration,
    },
    /// Bytes of a connection, in order, cut anywhere.
    Received {
        /// Which.
        conn: ConnId,
        /// At most 64 KiB.
        bytes: Vec<u8>,
    },
    /// A name was looked up (answers [`Output::Resolve`]). Empty: it has no address.
    Resolved {
        /// What was asked.
        target: Target,
        /// Its addresses, with the port.
        addresses: Vec<SocketAddr>,
    },
    /// A save could not be done: nothing of it is durable yet. The driver owes it, does it before or with any later one, and
    /// tells [`Self::Saved`] when it could.
    SaveFailed {
        /// Which.
        ticket: Ticket,
        /// Why.
        problem: Problem,
    },
    /// A save is durable.
    Saved {
        /// Which.
        ticket: Ticket,
    },
    /// A message came out of a data session (rekeying travels inside the session it replaces).
    SessionMessage {
        /// Whose session.
        peer: NodeId,
        /// Opened.
        bytes: Vec<u8>,
    },
    /// Bytes given by [`Output::Send`] have left the driver's queue: what a connection owes is the sum of its sends
    /// less the sum of these. Reported whenever the queue is empty, and at least every 64 KiB.
    Sent {
        /// Which.
        conn: ConnId,
        /// How many since the last report.
        bytes: usize,
    },
    /// There is a frame for a peer and no session.
    SessionWanted {
        /// For whom.
        peer: NodeId,
    },
    /// A datagram was too large for the way to an address, as this host or a router on the way says. A hint: nobody has
    /// proved it.
    TooBig {
        /// Where it was sent to.
        to: SocketAddr,
        /// The largest UDP payload that is said to pass.
        datagram: u16,
    },
    /// Frames travel that are small, few, and for everybody: said at most once a second for each peer and direction.
    Chatter {
        /// To or from whom.
        peer: NodeId,
    },
    /// Frames travel: said at most once a second for each peer and direction.
    Traffic {
        /// To or from whom.
        peer: NodeId,
        /// Which way.
        direction: Direction,
    },
}

/// Which way frames travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the peer.
    Received,
    /// To the peer.
    Sent,
}

/// Something shall happen.
#[derive(Debug)]
pub enum Output {
    /// The other end of an accepted connection has proved who it is. Until this is said it counts as a stranger, and
    /// may be dropped in favour of a later one.
    Authenticated {
        /// Which.
        conn: ConnId,
    },
    /// Compare the machine with what this mesh needs; answer with [`Input::GenesisChecked`].
    CheckGenesis {
        /// Who asks.
        conn: ConnId,
        /// Range, MTU and the rest.
        genesis: Arc<Genesis>,
    },
    /// Close a connection after what was sent on it has left; answer with [`Input::Closed`].
    Close {
        /// Which.
        conn: ConnId,
    },
    /// Open a TCP connection, within 5 s; answer with [`Input::Connected`] or [`Input::ConnectFailed`].
    Connect {
        /// Numbered by the core.
        conn: ConnId,
        /// Where to.
        to: SocketAddr,
    },
    /// Tell the packet workers.
    DataPlane(DataPlane),
    /// For `weft events`, the log, and whoever waits.
    Event(Event),
    /// This router cannot go on: stop and say why.
    Halt(Problem),
    /// Answers a command.
    Reply {
        /// Which.
        id: RequestId,
        /// The answer.
        reply: Reply,
    },
    /// Look a name up; answer with [`Input::Resolved`].
    Resolve {
        /// What.
        target: Target,
    },
    /// Make changes durable, in order of these outputs; answer with [`Input::Saved`] or [`Input::SaveFailed`].
    Save {
        /// Comes back.
        ticket: Ticket,
        /// All or nothing.
        changes: Vec<Change>,
    },
    /// Send bytes on a connection.
    Send {
        /// Which.
        conn: ConnId,
        /// In order.
        bytes: Vec<u8>,
    },
    /// Send a link datagram (heartbeat) from the sleeve's socket.
    SendDatagram {
        /// Where to.
        to: SocketAddr,
        /// Sealed.
        bytes: Vec<u8>,
    },
    /// Forward by this from here on.
    Snapshot(Arc<Snapshot>),
}

/// How many pings are under way at once: many times what people ask for.
pub const MAX_PINGS: usize = 64;
/// How many probes one ping sends at most: four a second, for as long as a way of the longest round trips is waited for.
pub const MAX_PROBES: usize = 64;

/// What the packet workers are told beside the snapshot.
#[derive(Debug)]
pub enum DataPlane {
    /// Link datagrams with this index are for the hub; others are dropped where they arrive.
    AdmitLink(SessionIndex),
    /// Datagrams came over control connections: take them like any that came by UDP.
    Datagrams {
        /// From whom, as members on the way say: what is opened proves who it is from.
        from: NodeId,
        /// Each whole.
        datagrams: Vec<Vec<u8>>,
    },
    /// Send by these keys from here on, and receive by them too. An older session of the peer keeps receiving.
    Install {
        /// Whose.
        peer: NodeId,
        /// Both directions.
        keys: SessionKeys,
    },
    /// Receive by these keys, but do not send by them until something valid came in under them.
    InstallReceiving {
        /// Whose.
        peer: NodeId,
        /// Both directions.
        keys: SessionKeys,
    },
    /// Send one datagram of exactly `datagram` bytes by one way, whatever way frames take; never split. The peer's worker
    /// answers by the way that it came, with a small one.
    PathProbe {
        /// To whom.
        peer: NodeId,
        /// By what way.
        via: Via,
        /// Whose lanes it uses and asks about; `None` tries a way that carries no frames.
        slot: Option<Slot>,
        /// Comes back.
        id: u64,
        /// Bytes of the sealed datagram; the least there is where it is smaller.
        datagram: u16,
    },
    /// Send a probe of `size` bytes of frame; the peer's worker answers with one of the same size. Of those that are out
    /// the last [`MAX_PINGS`] × [`MAX_PROBES`] are remembered.
    Probe {
        /// To whom.
        peer: NodeId,
        /// Comes back.
        id: u64,
        /// Ethernet frame bytes that it shall weigh.
        size: u16,
    },
    /// Wipe one session.
    Retire {
        /// Our index of it.
        index: SessionIndex,
    },
    /// Forget a link's index.
    RetireLink(SessionIndex),
    /// Send a message inside the peer's session.
    SessionMessage {
        /// To whom.
        peer: NodeId,
        /// At most 1200 bytes.
        bytes: Vec<u8>,
    },
}

/// What somebody asks of the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A container was put on a port of ours: let the mesh know.
    Attach {
        /// The container's Ethernet address.
        mac: MacAddr,
        /// Its addresses, with the prefix length of their network.
        addresses: Vec<IpNet>,
        /// The host's end of its veth pair.
        port: String,
    },
    /// Dial these, for good: they are remembered.
    Connect {
        /// `host[:port]`.
        targets: Vec<Target>,
    },
    /// A container is gone.
    Detach {
        /// Its Ethernet address.
        mac: MacAddr,
    },
    /// Dial these no more.
    Forget {
        /// As they were given.
        targets: Vec<Target>,
    },
    /// Leave the mesh for good.
    Leave,
    /// Send a full-size probe through the data path.
    Ping {
        /// Whom.
        node: NodeId,
    },
    /// Dial at once whoever is waited for.
    Retry,
    /// Make a token.
    TokenCreate {
        /// Admits more than one node.
        reusable: bool,
        /// How long it lives.
        ttl: Duration,
    },
    /// Void a token.
    TokenRevoke {
        /// Which.
        token: TokenId,
    },
    /// Follow a member's frames from relay to relay.
    Trace {
        /// Whose.
        node: NodeId,
    },
}

/// One hop of a trace: what a node on the way says about the way that it takes itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Hop {
    /// Who says it.
    pub from: NodeId,
    /// To whom its frames go next.
    pub to: NodeId,
    /// By what; `None` where it knows no way.
    pub path: Option<PathKind>,
    /// Smoothed round trip from it to the end of the way, if it has measured one.
    pub rtt: Option<Duration>,
    /// Share of frames or probes lost on it, 0 to 1.
    pub loss: f64,
    /// The largest IP packet of the underlay that is known to pass.
    pub mtu: Option<u16>,
}

/// A full-size probe went there and back: how, and what is known of the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Pong {
    /// How long it took.
    pub rtt: Duration,
    /// Ethernet frame bytes each way.
    pub size: u16,
    /// How many probes left before it and have not come back.
    pub lost: u32,
    /// By what it travelled.
    pub path: PathKind,
    /// Who passed it on.
    pub via: Option<NodeId>,
    /// Share of frames or probes lost on that way of late, 0 to 1.
    pub loss: f64,
    /// The largest IP packet of the underlay that is known to pass on it.
    pub mtu: Option<u16>,
}

/// The answer to a [`Command`].
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Done.
    Done,
    /// It cannot be done.
    Failed(Problem),
    /// A full-size probe went there and back.
    Pong(Pong),
    /// The token, as it is handed to a joiner: secret, shown once.
    Token(TokenText),
    /// Hop by hop; the last leads to the member, or to one that did not answer.
    Trace(Vec<Hop>),
}

/// A token in words: shown by its own method only, never by `Debug`.
#[derive(Clone, PartialEq, Eq, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct TokenText(String);

impl TokenText {
    /// Takes the text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one who asked.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for TokenText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// Something an operator may want to know, as it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This node is a member: it was admitted, or created the mesh, or resumed.
    Joined {
        /// The mesh's name.
        mesh: Nickname,
        /// This host's mesh addresses.
        addresses: Vec<IpNet>,
        /// The mesh's MTU.
        mtu: Mtu,
    },
    /// A join, or a dial on behalf of one, failed. The router goes on trying unless a [`Output::Halt`] follows.
    JoinAttemptFailed(Problem),
    /// A link to a peer is up.
    LinkUp {
        /// To whom.
        node: NodeId,
        /// What people call it.
        nickname: Nickname,
        /// Its address.
        endpoint: SocketAddr,
    },
    /// A link to a peer is down.
    LinkDown {
        /// To whom.
        node: NodeId,
        /// Why, in a few words.
        reason: String,
    },
    /// A member appeared for the first time.
    MemberJoined {
        /// Who.
        node: NodeId,
        /// What people call it.
        nickname: Nickname,
    },
    /// A member left for good.
    MemberLeft {
        /// Who.
        node: NodeId,
    },
    /// Frames for a peer take another way.
    PathChanged {
        /// To whom.
        node: NodeId,
        /// Since when: what status tells of the same switch.
        at: Instant,
        /// By what they travelled.
        from: Option<PathKind>,
        /// By what they travel.
        to: PathKind,
        /// Who passes them on.
        via: Option<NodeId>,
        /// Why, in a few words.
        reason: String,
    },
    /// Something needs attention.
    Problem(Problem),
    /// Data sessions with a peer are up.
    SessionUp {
        /// With whom.
        node: NodeId,
    },
    /// No data session with a peer is left.
    SessionDown {
        /// With whom.
        node: NodeId,
    },
}
