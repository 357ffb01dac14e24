//! All there is of a simulation, its clock, and the agenda of what will happen.
//!
//! ```text
//!   sim, connections, plane, underlay, record, view ── each does its share of what happens, and knows none of the others' inside
//!     └─▶ Sim ── nodes, NATs, weather, flows, dice; the agenda, which names all that can happen
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use weft_router_proto::io::{ConnId, Input, Ticket};
use weft_router_proto::router::Router;
use weft_router_proto::store::Change;
use weft_router_proto::tunnel::TooBig;
use weft_types::NodeId;

use crate::dice::{Chance, Dice, Purpose};
use crate::nat::{Nat, Realm};
use crate::net::Weather;
use crate::node::{Node, NodeIndex, Parcel};
use crate::recorder::Recorder;

/// The world.
pub struct Sim {
    /// What the run is a function of.
    pub seed: u64,
    /// How the underlay behaves.
    pub weather: Weather,
    /// The test's own.
    pub dice: Dice,
    pub(crate) chance: Chance,
    origin: Instant,
    pub(crate) elapsed: Duration,
    pub(crate) nodes: Vec<Node>,
    pub(crate) nats: Vec<Nat>,
    pub(crate) flows: BTreeMap<(NodeIndex, NodeIndex), Flow>,
    /// Counts frames.
    pub(crate) frames: u64,
    /// Notes what happens, where it was asked for: [`Self::recorded`].
    pub(crate) recorder: Option<Recorder>,
    agenda: BTreeMap<(Duration, u64), Entry>,
    entries: u64,
    /// How many things have happened at this instant.
    pub(crate) busy: u32,
}

/// Something that will happen: to a node if it is still in the same life then, or between nodes.
pub(crate) struct Entry {
    pub(crate) node: NodeIndex,
    /// `None` for what no crash makes void.
    pub(crate) life: Option<u64>,
    pub(crate) what: What,
}

pub(crate) enum What {
    /// A frame of a flow is due.
    Flow {
        from: NodeIndex,
        to: NodeIndex,
    },
    /// A datagram leaves that was held back.
    Depart {
        to: SocketAddr,
        datagram: Vec<u8>,
    },
    Input(Input),
    /// Workers look after what waits.
    KeepHouse,
    /// The listener's side of a dial: who dials, in which life, and by which connection of its own.
    Knock {
        from: NodeIndex,
        life: u64,
        seen: IpAddr,
        conn: ConnId,
    },
    /// A datagram is in the realm of its destination.
    Packet {
        realm: Realm,
        from: SocketAddr,
        to: SocketAddr,
        datagram: Vec<u8>,
    },
    Parcel {
        conn: ConnId,
        parcel: Parcel,
    },
    Retry {
        conn: ConnId,
    },
    Save {
        ticket: Ticket,
        changes: Vec<Change>,
    },
    /// A router on the way had no room for a datagram.
    TooBig(TooBig),
    Wake,
}

/// Frames that one host sends another for as long as it lasts.
#[derive(Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) every: Duration,
    pub(crate) len: usize,
}

impl Sim {
    /// An empty world.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            weather: Weather::default(),
            dice: Purpose::Script.dice(seed, [0; 3]),
            chance: Chance::new(seed),
            origin: origin(),
            elapsed: Duration::ZERO,
            nodes: Vec::new(),
            nats: Vec::new(),
            flows: BTreeMap::new(),
            frames: 0,
            recorder: None,
            agenda: BTreeMap::new(),
            entries: 0,
            busy: 0,
        }
    }

    /// One host.
    pub fn node(&self, index: NodeIndex) -> &Node {
        &self.nodes[index.0]
    }

    /// Who a host is.
    ///
    /// # Panics
    ///
    /// If no router was ever started there.
    pub fn id(&self, index: NodeIndex) -> NodeId {
        let identity = self.node(index).identity;
        identity.unwrap_or_else(|| panic!("seed {}: node {} is nobody", self.seed, index.0))
    }

    /// The running router.
    ///
    /// # Panics
    ///
    /// If none runs there.
    pub fn core(&self, index: NodeIndex) -> &Router {
        self.node(index)
            .core
            .as_ref()
            .unwrap_or_else(|| panic!("seed {}: node {} is down", self.seed, index.0))
    }

    /// What a host's clock shows.
    pub fn now(&self, index: NodeIndex) -> Instant {
        self.origin + self.elapsed + self.node(index).skew
    }

    /// How long the simulation has run.
    pub const fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Every host, running or not.
    pub fn indices(&self) -> impl Iterator<Item = NodeIndex> + use<> {
        (0..self.nodes.len()).map(NodeIndex)
    }

    /// Dice for what happens now.
    pub(crate) fn throw(&mut self, purpose: Purpose, whose: [usize; 3]) -> Dice {
        let whose = whose.map(|number| number as u64);
        self.chance.dice(purpose, whose, self.elapsed)
    }

    /// Notes something, if anything is noted.
    pub(crate) fn note(&mut self, what: impl FnOnce(&mut Recorder, Duration)) {
        if let Some(recorder) = &mut self.recorder {
            what(recorder, self.elapsed);
        }
    }

    pub(crate) fn later(&mut self, after: Duration, node: NodeIndex, what: What) {
        self.later_in(self.node(node).life, after, node, what);
    }

    /// The same for one life of a node, which may be over.
    pub(crate) fn later_in(&mut self, life: u64, after: Duration, node: NodeIndex, what: What) {
        let life = Some(life);
        self.enter(after, Entry { node, life, what });
    }

    /// The same for what happens whoever crashes.
    pub(crate) fn later_to_nobody(&mut self, after: Duration, what: What) {
        let (node, life) = (NodeIndex(0), None);
        self.enter(after, Entry { node, life, what });
    }

    fn enter(&mut self, after: Duration, entry: Entry) {
        self.entries += 1;
        self.agenda
            .insert((self.elapsed + after, self.entries), entry);
    }

    /// When the next thing happens.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.agenda.keys().next().map(|&(at, _)| at)
    }

    /// Goes on to what happens next.
    pub(crate) fn advance(&mut self) -> Option<Entry> {
        let ((at, _), entry) = self.agenda.pop_first()?;
        self.busy = if at == self.elapsed { self.busy + 1 } else { 0 };
        self.elapsed = at;
        Some(entry)
    }
}

impl Drop for Sim {
    #[expect(
        clippy::print_stderr,
        reason = "whatever panics, the seed must be known"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("WEFT_SIM_SEED={} replays it", self.seed);
        }
    }
}

/// Where the clock begins: any instant does, and no run depends on which.
fn origin() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one instant that all others are counted from"
    )]
    Instant::now()
}
