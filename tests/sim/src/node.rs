//! One virtual host: a router core, its disk, and its end of every connection.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_router_proto::io::{ConnId, Event, Reply, RequestId};
use weft_router_proto::overlay::{Path, Via};
use weft_router_proto::router::Router;
use weft_router_proto::sleeve::SessionIndex;
use weft_router_proto::snapshot::Snapshot;
use weft_router_proto::store::Saved;
use weft_router_proto::tunnel::Counters;
use weft_types::{NodeId, Problem};

use crate::nat::Realm;
use crate::rogue::Rogue;
use crate::worker::Workers;

/// Names a node of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub usize);

/// One virtual host.
pub struct Node {
    /// Its address in the underlay.
    pub address: SocketAddr,
    /// What survives a crash.
    pub disk: Saved,
    /// The running router, if it runs.
    pub core: Option<Router>,
    /// Who runs there instead, if it was turned.
    pub(crate) rogue: Option<Rogue>,
    /// What it forwards by.
    pub snapshot: Option<Arc<Snapshot>>,
    /// What happened there since it was started.
    pub events: Vec<Event>,
    /// The answers it gave.
    pub replies: BTreeMap<RequestId, Reply>,
    /// Why it stopped of its own accord.
    pub halted: Option<Problem>,
    /// Who it is, once it was started.
    pub(crate) identity: Option<NodeId>,
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
    /// When the frames of each flow came, and their numbers: [`crate::Sim::flow`].
    pub arrivals: BTreeMap<NodeId, Vec<(Duration, u64)>>,
    /// By what way frames for whom leave, whenever that has changed since it was started.
    pub paths: Vec<(Duration, NodeId, Option<Via>)>,
    /// When it asked whom by a way to it.
    pub probes: Vec<(Duration, NodeId)>,
    /// Where it has connected to, or tried.
    pub dials: Vec<(Duration, SocketAddr)>,
    /// What it has sent, IP headers included.
    pub sent: Sent,
    /// What its core has cost, if that is measured.
    pub spent: Spent,
    /// What it does to what it shall pass on.
    pub malice: Malice,
    /// What its addresses are part of.
    pub(crate) realm: Realm,
    /// Of the running router.
    pub(crate) workers: Option<Workers>,
}

/// Bytes that a host has sent, headers of IP, TCP and UDP included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// On connections, with the acknowledgements of what came.
    pub tcp: u64,
    /// As datagrams.
    pub udp: u64,
}

/// Time taken by a router's core, by a clock that whoever measures brings along: nothing in a simulation depends on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// What shows how much time has been spent altogether.
    pub clock: Option<fn() -> Duration>,
    /// What the core has taken since there is a clock.
    pub total: Duration,
}

impl Spent {
    pub(crate) fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let Some(clock) = self.clock else {
            return work();
        };
        let start = clock();
        let done = work();
        self.total += clock().saturating_sub(start);
        done
    }
}

/// What a member does to the datagrams that it shall pass on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Malice {
    /// Share that it drops.
    pub drops: f64,
    /// Share that it changes.
    pub mutates: f64,
    /// How long it holds them back.
    pub delays: Duration,
}

/// One end of a virtual TCP connection.
pub(crate) struct Connection {
    pub(crate) peer: NodeIndex,
    /// The life that the other end belongs to: a later one numbers its connections anew.
    pub(crate) life: u64,
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
    pub(crate) fn new(address: SocketAddr, realm: Realm, keys: u64) -> Self {
        Self {
            address,
            keys,
            identity: None,
            disk: Saved::default(),
            core: None,
            rogue: None,
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
            arrivals: BTreeMap::new(),
            paths: Vec::new(),
            probes: Vec::new(),
            dials: Vec::new(),
            sent: Sent::default(),
            spent: Spent::default(),
            malice: Malice::default(),
            realm,
            workers: None,
        }
    }

    /// Begins another life, of which nothing is known yet.
    pub(crate) fn begin(&mut self, identity: NodeId, life: u64, skew: Duration) {
        self.identity = Some(identity);
        self.life = life;
        self.skew = skew;
        self.halted = None;
        self.wake = None;
        self.snapshot = None;
        self.events.clear();
        self.paths.clear();
        self.workers = None;
    }

    /// Whether nobody listens there.
    pub(crate) const fn is_down(&self) -> bool {
        self.core.is_none() && self.rogue.is_none()
    }

    /// Everybody it forwards to.
    pub fn peers(&self) -> Vec<NodeId> {
        self.snapshot
            .iter()
            .flat_map(|snapshot| &snapshot.peers)
            .map(|peer| peer.node)
            .collect()
    }

    /// Whether a frame for `peer` would leave now, and by which session of ours.
    pub fn session_to(&self, peer: NodeId) -> Option<SessionIndex> {
        self.workers.as_ref()?.session_to(peer)
    }

    /// What the packet workers of the running router have counted.
    pub fn counters(&self) -> Option<Counters> {
        let workers = self.workers.as_ref()?;
        Some(workers.cells().read())
    }

    /// Takes a snapshot, and notes what it changes.
    pub(crate) fn forward_by(&mut self, snapshot: Arc<Snapshot>, now: Duration) {
        let via = |snapshot: &Snapshot, peer| Some(snapshot.peer(peer)?.path?.via);
        let before = self.snapshot.replace(Arc::clone(&snapshot));
        let known = before.iter().flat_map(|before| &before.peers);
        let peers: BTreeSet<NodeId> = known.chain(&snapshot.peers).map(|peer| peer.node).collect();
        for peer in peers {
            let taken = via(&snapshot, peer);
            if before.as_ref().and_then(|before| via(before, peer)) != taken {
                self.paths.push((now, peer, taken));
            }
        }
    }

    /// By what way its frames for `peer` leave.
    pub fn path_to(&self, peer: NodeId) -> Option<Path> {
        self.snapshot.as_ref()?.peer(peer)?.path
    }
}
