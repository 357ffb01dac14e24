//! One virtual host: a router core, its disk, and its end of every connection.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_router_proto::io::{ConnId, Event, Reply, RequestId};
use weft_router_proto::router::Router;
use weft_router_proto::session::SessionKeys;
use weft_router_proto::sleeve::SessionIndex;
use weft_router_proto::snapshot::Snapshot;
use weft_router_proto::store::Saved;
use weft_types::{NodeId, Problem};

use crate::sim::NodeIndex;

/// One virtual host.
pub struct Node {
    /// Its address in the underlay.
    pub address: SocketAddr,
    /// What survives a crash.
    pub disk: Saved,
    /// The running router, if it runs.
    pub core: Option<Router>,
    /// What it forwards by.
    pub snapshot: Option<Arc<Snapshot>>,
    /// What happened there since it was started.
    pub events: Vec<Event>,
    /// The answers it gave.
    pub replies: BTreeMap<RequestId, Reply>,
    /// Why it stopped of its own accord.
    pub halted: Option<Problem>,
    /// What its identity is drawn from.
    pub(crate) keys: u64,
    /// Counts the starts: an entry of the agenda made for an earlier life is void.
    pub(crate) life: u64,
    /// What its `Instant`s are ahead of the simulation's.
    pub(crate) skew: Duration,
    /// The other end of each connection, once it is known.
    pub(crate) connections: BTreeMap<ConnId, Connection>,
    pub(crate) accepted: u64,
    pub(crate) requests: u64,
    pub(crate) wake: Option<Instant>,
    /// Frames that came out of a session, by who sent them.
    pub delivered: BTreeMap<NodeId, u64>,
    /// Receiving keys by our index.
    pub(crate) sessions: BTreeMap<SessionIndex, (NodeId, SessionKeys)>,
    /// Sessions that are sent by only after something came in under them.
    pub(crate) unproved: BTreeSet<SessionIndex>,
    /// The session each peer is sent by.
    pub(crate) sending: BTreeMap<NodeId, SessionIndex>,
    pub(crate) links: BTreeSet<SessionIndex>,
}

/// One end of a virtual TCP connection.
pub(crate) struct Connection {
    pub(crate) peer: NodeIndex,
    pub(crate) remote: ConnId,
    /// When the last segment sent on it arrives: later ones do not overtake it.
    pub(crate) last: Duration,
    /// What a partition holds back on its way to us, in order, and since when.
    pub(crate) stalled: VecDeque<Parcel>,
    pub(crate) stalled_since: Option<Duration>,
}

/// What travels on a virtual TCP connection.
pub(crate) enum Parcel {
    Bytes(Vec<u8>),
    Close,
}

impl Node {
    pub(crate) fn new(address: SocketAddr, keys: u64) -> Self {
        Self {
            address,
            keys,
            disk: Saved::default(),
            core: None,
            snapshot: None,
            events: Vec::new(),
            replies: BTreeMap::new(),
            halted: None,
            life: 0,
            skew: Duration::ZERO,
            connections: BTreeMap::new(),
            accepted: 0,
            requests: 0,
            wake: None,
            delivered: BTreeMap::new(),
            sessions: BTreeMap::new(),
            unproved: BTreeSet::new(),
            sending: BTreeMap::new(),
            links: BTreeSet::new(),
        }
    }

    /// Everybody it forwards to.
    pub fn peers(&self) -> Vec<NodeId> {
        self.snapshot
            .iter()
            .flat_map(|snapshot| &snapshot.peers)
            .map(|peer| peer.node)
            .collect()
    }

    /// Whether a frame for `peer` would leave now, and by which of the peer's indices.
    pub fn session_to(&self, peer: NodeId) -> Option<SessionIndex> {
        let local = self.sending.get(&peer)?;
        self.sessions.get(local).map(|(_, keys)| keys.remote)
    }

    /// The keys that the peer's datagrams with this index are opened by.
    pub fn receiving(&self, index: SessionIndex) -> Option<&SessionKeys> {
        self.sessions.get(&index).map(|(_, keys)| keys)
    }
}
