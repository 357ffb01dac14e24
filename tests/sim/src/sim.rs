//! The clock, the agenda, and what each output of a core does to the world.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_router_proto::crypto::Crypto;
use weft_router_proto::crypto::seeded::SeededCrypto;
use weft_router_proto::identity::NodeKeys;
use weft_router_proto::io::{
    Command, ConnId, ConnectError, Input, Output, Reply, RequestId, Target, Ticket,
};
use weft_router_proto::router::{Intent, Router, RouterConfig};
use weft_router_proto::store::{Change, Saved};
use weft_router_proto::token::Token;
use weft_router_proto::tunnel::TooBig;
use weft_types::{Mtu, Nickname, NodeId, Problem};

use crate::dice::{Chance, Dice, Purpose};
use crate::nat::{Nat, Realm};
use crate::net::Weather;
use crate::node::{Connection, Node, Parcel};
use crate::plane::Flow;
use crate::record::Recorder;
use crate::underlay::Reach;
use crate::worker::Workers;

/// How long a kernel keeps trying to deliver before it gives a connection up (TCP_USER_TIMEOUT of the driver).
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a held-back segment is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// How long a dial gets.
const DIAL: Duration = Duration::from_secs(5);
/// Ten years each way.
const SKEW: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// How often a test looks whether what it waits for has come true.
const LOOK: Duration = Duration::from_millis(5);
/// So many wake-ups at one instant are a busy loop.
const BUSY: u32 = 10_000;

/// Names a node of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub usize);

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
    busy: u32,
}

/// Something that will happen: to a node if it is still in the same life then, or between nodes.
struct Entry {
    node: NodeIndex,
    /// `None` for what no crash makes void.
    life: Option<u64>,
    what: What,
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

    /// Adds a host without a running router.
    pub fn add_host(&mut self) -> NodeIndex {
        self.add_host_in(None)
    }

    /// The same behind a NAT. All sites number their hosts alike, so another site's inner addresses lead nowhere.
    pub fn add_host_in(&mut self, realm: Realm) -> NodeIndex {
        let [.., high, low] = self.nodes.len().to_be_bytes();
        let ip = match realm {
            None => Ipv4Addr::new(192, 0, high, low + 1),
            Some(_) => Ipv4Addr::new(10, 0, high, low + 1),
        };
        let keys = self.seed ^ (self.nodes.len() as u64 + 1) << 32;
        self.nodes
            .push(Node::new(SocketAddr::from((ip, 6783)), realm, keys));
        NodeIndex(self.nodes.len() - 1)
    }

    /// Copies a host with its disk and keys, as one copies a virtual machine.
    pub fn clone_host(&mut self, original: NodeIndex) -> NodeIndex {
        let copy = self.add_host();
        let (disk, keys) = (self.node(original).disk.clone(), self.node(original).keys);
        let node = &mut self.nodes[copy.0];
        (node.disk, node.keys) = (disk, keys);
        copy
    }

    /// Puts a disk back as it once was, as one restores a snapshot of a virtual machine. Its router must be down.
    ///
    /// # Panics
    ///
    /// If it runs.
    pub fn restore(&mut self, index: NodeIndex, disk: Saved) {
        let node = &mut self.nodes[index.0];
        assert!(
            node.core.is_none(),
            "seed {}: its disk is in use",
            self.seed
        );
        node.disk = disk;
    }

    /// Starts a router: `intent` matters if its disk has no mesh yet. Why it does not start is in [`Node::halted`].
    pub fn start(&mut self, index: NodeIndex, intent: Intent, targets: &[NodeIndex]) {
        let life = self.node(index).life + 1;
        let mut dice = Purpose::Life.dice(self.seed, [index.0 as u64, life, 0]);
        let crypto = SeededCrypto::new(dice.next());
        let mut keys = SeededCrypto::new(self.node(index).keys);
        let keys = NodeKeys::generate(&mut keys as &mut dyn Crypto);
        self.nodes[index.0].identity = Some(keys.node());
        self.note(|recorder, _| recorder.name(keys.node(), index));
        let config = RouterConfig {
            keys,
            nickname: Nickname::new(&format!("n{}", index.0)).expect("a short name"),
            port: 6783,
            advertise: Vec::new(),
            targets: targets
                .iter()
                .map(|&target| Target(self.node(target).address.to_string()))
                .collect(),
            intent,
            features: vec!["aes".to_owned()],
            release: "simulation".to_owned(),
        };
        let skew = dice.up_to(SKEW);
        let node = &mut self.nodes[index.0];
        node.life = life;
        node.skew = skew;
        node.halted = None;
        node.wake = None;
        node.snapshot = None;
        node.events.clear();
        node.paths.clear();
        node.workers = None;
        let now = self.origin + self.elapsed + skew;
        match Router::new(config, &node.disk, Box::new(crypto), now) {
            Ok(core) => {
                node.workers = node.identity.map(|node| Workers::new(node, now));
                node.core = Some(core);
            }
            Err(problem) => {
                self.note(|recorder, at| recorder.refused(at, index, &problem));
                return self.nodes[index.0].halted = Some(problem);
            }
        }
        let address = self.nodes[index.0].address.ip();
        self.input(index, Input::LocalAddresses(vec![address]));
    }

    /// Ends a router at once. The kernel closes its connections; what was not saved is lost.
    pub fn crash(&mut self, index: NodeIndex) {
        let node = &mut self.nodes[index.0];
        node.core = None;
        node.workers = None;
        node.life += 1;
        node.snapshot = None;
        let connections = std::mem::take(&mut node.connections);
        for connection in connections.into_values() {
            self.ship(&connection, Parcel::Close, Duration::ZERO);
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

    /// Asks a router for something; the answer appears in [`Node::replies`].
    pub fn command(&mut self, index: NodeIndex, command: Command) -> RequestId {
        let node = &mut self.nodes[index.0];
        node.requests += 1;
        let id = RequestId(node.requests);
        self.input(index, Input::Command { id, command });
        id
    }

    /// Makes a token there.
    ///
    /// # Panics
    ///
    /// If it makes none.
    pub fn token(&mut self, index: NodeIndex, reusable: bool, ttl: Duration) -> Token {
        let id = self.command(index, Command::TokenCreate { reusable, ttl });
        let seed = self.seed;
        let asked = self.run_until(Duration::from_secs(5), |sim| {
            sim.node(index).replies.contains_key(&id)
        });
        assert!(asked, "seed {seed}: no answer to a command");
        match self.node(index).replies.get(&id) {
            Some(Reply::Token(text)) => Token::parse(text.reveal()).expect("our own token"),
            other => panic!("seed {seed}: no token but {other:?}"),
        }
    }

    /// Begins a mesh on a new host and waits until its router is ready.
    pub fn create(&mut self) -> NodeIndex {
        let index = self.add_host();
        let range = "10.32.0.0/12".parse().expect("a network");
        self.start(
            index,
            Intent::Create {
                name: None,
                range,
                mtu: Mtu::MESH,
                address: None,
            },
            &[],
        );
        let seed = self.seed;
        let ready = self.run_until(Duration::from_secs(1), |sim| {
            sim.node(index).snapshot.is_some()
        });
        assert!(ready, "seed {seed}: the creator does not get ready");
        index
    }

    /// Adds a host that joins by `via` with `token`; does not wait.
    pub fn join(&mut self, via: NodeIndex, token: Token) -> NodeIndex {
        self.join_in(None, via, token)
    }

    /// The same behind a NAT.
    pub fn join_in(&mut self, realm: Realm, via: NodeIndex, token: Token) -> NodeIndex {
        let index = self.add_host_in(realm);
        self.start(
            index,
            Intent::Join {
                token,
                address: None,
            },
            &[via],
        );
        index
    }

    /// Begins a mesh in the open network and lets one more host of each realm join by its creator, one after the other;
    /// does not wait for the last. The creator comes first.
    pub fn grow(&mut self, realms: &[Realm]) -> Vec<NodeIndex> {
        let mut nodes = vec![self.create()];
        let token = self.token(nodes[0], true, Duration::from_secs(900));
        for &realm in realms {
            nodes.push(self.join_in(realm, nodes[0], token.clone()));
            self.run(Duration::from_millis(200));
        }
        nodes
    }

    /// Lets time pass until `done`, for `most` at most. Says whether it came true. Looks every `LOOK`: to compare all
    /// views costs more than what most entries do.
    pub fn run_until(&mut self, most: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.elapsed + most;
        let mut look = self.elapsed;
        loop {
            if self.elapsed >= look {
                if done(self) {
                    return true;
                }
                look = self.elapsed + LOOK;
            }
            let Some((&(at, _), _)) = self.agenda.first_key_value() else {
                self.elapsed = end;
                return done(self);
            };
            if at > end {
                self.elapsed = end;
                return done(self);
            }
            self.step();
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    fn step(&mut self) {
        let Some(((at, _), entry)) = self.agenda.pop_first() else {
            return;
        };
        self.busy = if at == self.elapsed { self.busy + 1 } else { 0 };
        self.elapsed = at;
        let index = entry.node;
        if entry.life.is_some_and(|life| self.node(index).life != life) {
            return;
        }
        let now = self.now(index);
        match entry.what {
            What::Flow { from, to } => self.emit(from, to),
            What::Depart { to, datagram } => self.udp(index, to, datagram),
            What::Input(input) => self.input(index, input),
            What::KeepHouse => self.keep_house(index),
            What::Knock {
                from,
                life,
                seen,
                conn,
            } => {
                // A kernel answers for a process that is gone: no connection comes of it.
                if self.node(from).life == life {
                    self.knock(index, from, seen, conn);
                }
            }
            What::Packet {
                realm,
                from,
                to,
                datagram,
            } => self.packet(realm, from, to, &datagram),
            What::Parcel { conn, parcel } => self.parcel(index, conn, parcel),
            What::Retry { conn } => self.retry(index, conn),
            What::Save { ticket, changes } => {
                let disk = &mut self.nodes[index.0].disk;
                changes.into_iter().for_each(|change| disk.apply(change));
                self.input(index, Input::Saved { ticket });
            }
            What::TooBig(said) => self.too_big(index, said),
            What::Wake => {
                let node = &mut self.nodes[index.0];
                node.wake = None;
                if let Some(core) = &mut node.core {
                    if let Some((deadline, reason)) = core.poll_timeout()
                        && deadline <= now
                    {
                        assert!(
                            self.busy < BUSY,
                            "seed {}: busy loop over {reason}",
                            self.seed
                        );
                        core.handle_timeout(now);
                    }
                    self.drain(index);
                }
            }
        }
    }

    pub(crate) fn input(&mut self, index: NodeIndex, input: Input) {
        let now = self.now(index);
        if let Some(core) = &mut self.nodes[index.0].core {
            core.handle_input(input, now);
            self.drain(index);
        }
    }

    fn drain(&mut self, index: NodeIndex) {
        let mut outputs = VecDeque::new();
        if let Some(core) = &mut self.nodes[index.0].core {
            while let Some(output) = core.poll_output() {
                outputs.push_back(output);
            }
        }
        for output in outputs {
            self.output(index, output);
        }
        let now = self.now(index);
        let node = &mut self.nodes[index.0];
        let deadline = node
            .core
            .as_ref()
            .and_then(|core| core.poll_timeout())
            .map(|(deadline, _)| deadline);
        if let Some(deadline) = deadline
            && node.wake.is_none_or(|wake| deadline < wake)
        {
            node.wake = Some(deadline);
            self.later(deadline.saturating_duration_since(now), index, What::Wake);
        }
    }

    fn output(&mut self, index: NodeIndex, output: Output) {
        self.note(|recorder, at| recorder.output(at, index, &output));
        match output {
            Output::Authenticated { .. } => {}
            Output::CheckGenesis { conn, .. } => {
                self.later(
                    Duration::from_millis(1),
                    index,
                    What::Input(Input::GenesisChecked {
                        conn,
                        verdict: Ok(()),
                    }),
                );
            }
            Output::Close { conn } => {
                if let Some(connection) = self.nodes[index.0].connections.remove(&conn) {
                    let after = connection.last.saturating_sub(self.elapsed);
                    self.ship(&connection, Parcel::Close, after);
                }
                self.later(Duration::ZERO, index, What::Input(Input::Closed { conn }));
            }
            Output::Connect { conn, to } => self.dial(index, conn, to),
            Output::DataPlane(command) => self.data_plane(index, command),
            Output::Event(event) => self.nodes[index.0].events.push(event),
            Output::Halt(problem) => self.halt(index, problem),
            Output::Reply { id, reply } => {
                self.nodes[index.0].replies.insert(id, reply);
            }
            Output::Resolve { target } => {
                let addresses = target.0.parse().into_iter().collect();
                self.later(
                    Duration::from_millis(1),
                    index,
                    What::Input(Input::Resolved { target, addresses }),
                );
            }
            Output::Save { ticket, changes } => {
                let mut dice = self.throw(Purpose::Save, [index.0, 0, 0]);
                let took = Duration::from_micros(200) + dice.up_to(Duration::from_millis(2));
                self.later(took, index, What::Save { ticket, changes });
            }
            Output::Send { conn, bytes } => self.send(index, conn, bytes),
            Output::SendDatagram { to, bytes } => self.udp(index, to, bytes),
            Output::Snapshot(snapshot) => {
                let (now, elapsed) = (self.now(index), self.elapsed);
                let node = &mut self.nodes[index.0];
                node.forward_by(Arc::clone(&snapshot), elapsed);
                if let Some(workers) = &mut node.workers {
                    let acts = workers.forward_by(snapshot, now);
                    self.carry_out(index, acts);
                }
            }
        }
    }

    fn halt(&mut self, index: NodeIndex, problem: Problem) {
        self.crash(index);
        self.nodes[index.0].halted = Some(problem);
    }

    fn dial(&mut self, index: NodeIndex, conn: ConnId, to: SocketAddr) {
        let failed = |why| What::Input(Input::ConnectFailed { conn, why });
        let common = &self.weather.common;
        let round_trip = 2 * (common.delay + common.jitter);
        let (target, seen) = match self.reach(index, to) {
            Reach::Host(target, seen) => (target, seen),
            Reach::Nat => return self.later(DIAL, index, failed(ConnectError::TimedOut)),
            Reach::Nowhere => {
                return self.later(round_trip, index, failed(ConnectError::Unreachable));
            }
        };
        if self.weather.is_tcp_blocked(index, target) || self.weather.is_tcp_blocked(target, index)
        {
            return self.later(DIAL, index, failed(ConnectError::TimedOut));
        }
        if self.node(target).core.is_none() {
            return self.later(round_trip, index, failed(ConnectError::Refused));
        }
        let took = self.segment(index, target);
        let knock = What::Knock {
            from: index,
            life: self.node(index).life,
            seen,
            conn,
        };
        self.later(took, target, knock);
        // The listener may die before it hears the knock: the dialler's kernel then gets a reset.
        self.later(DIAL, index, What::Retry { conn });
    }

    fn knock(&mut self, index: NodeIndex, from: NodeIndex, seen: IpAddr, remote: ConnId) {
        self.nodes[index.0].accepted += 1;
        let conn = ConnId {
            dialled: false,
            number: self.node(index).accepted,
        };
        let lives = [index, from].map(|n| self.node(n).life);
        let link = |peer, life, remote| Connection {
            peer,
            life,
            remote,
            last: Duration::ZERO,
            stalled: VecDeque::new(),
            stalled_since: None,
        };
        let [theirs, ours] = [link(from, lives[1], remote), link(index, lives[0], conn)];
        self.nodes[index.0].connections.insert(conn, theirs);
        self.nodes[from.0].connections.insert(remote, ours);
        let port = 40_000 + u16::try_from(remote.number % 20_000).unwrap_or_default();
        let address = SocketAddr::from((seen, port));
        self.input(
            index,
            Input::Accepted {
                conn,
                from: address,
            },
        );
        self.later(
            self.weather.between(index, from).delay,
            from,
            What::Input(Input::Connected { conn: remote }),
        );
    }

    fn send(&mut self, index: NodeIndex, conn: ConnId, bytes: Vec<u8>) {
        let sent = bytes.len();
        let Some(connection) = self.nodes[index.0].connections.get(&conn) else {
            return;
        };
        let took = self.segment(index, connection.peer);
        let Some(connection) = self.nodes[index.0].connections.get_mut(&conn) else {
            return;
        };
        let arrival = self.elapsed + took;
        connection.last = connection.last.max(arrival);
        let after = connection.last - self.elapsed;
        let (peer, life) = (connection.peer, connection.life);
        let what = What::Parcel {
            conn: connection.remote,
            parcel: Parcel::Bytes(bytes),
        };
        self.count_tcp(index, peer, sent);
        self.later_in(life, after, peer, what);
        self.later(after, index, What::Input(Input::Sent { conn, bytes: sent }));
    }

    /// How long a TCP segment takes that leaves now.
    fn segment(&mut self, from: NodeIndex, to: NodeIndex) -> Duration {
        let mut dice = self.throw(Purpose::Segment, [from.0, to.0, 0]);
        self.weather.segment(from, to, &mut dice)
    }

    /// Dice for what happens now.
    pub(crate) fn throw(&mut self, purpose: Purpose, whose: [usize; 3]) -> Dice {
        let whose = whose.map(|number| number as u64);
        self.chance.dice(purpose, whose, self.elapsed)
    }

    /// Sends the last word on a connection that this end has forgotten.
    fn ship(&mut self, connection: &Connection, parcel: Parcel, after: Duration) {
        let took = after.max(self.weather.common.delay);
        let what = What::Parcel {
            conn: connection.remote,
            parcel,
        };
        self.later_in(connection.life, took, connection.peer, what);
    }

    fn parcel(&mut self, index: NodeIndex, conn: ConnId, parcel: Parcel) {
        let elapsed = self.elapsed;
        let Some(connection) = self.nodes[index.0].connections.get_mut(&conn) else {
            return;
        };
        let blocked = self.weather.is_tcp_blocked(connection.peer, index);
        if blocked || !connection.stalled.is_empty() {
            if connection.stalled_since.is_none() {
                connection.stalled_since = Some(elapsed);
                self.later(RETRY, index, What::Retry { conn });
            }
            if let Some(connection) = self.nodes[index.0].connections.get_mut(&conn) {
                connection.stalled.push_back(parcel);
            }
            return;
        }
        self.unpack(index, conn, parcel);
    }

    fn unpack(&mut self, index: NodeIndex, conn: ConnId, parcel: Parcel) {
        match parcel {
            Parcel::Bytes(bytes) => self.input(index, Input::Received { conn, bytes }),
            Parcel::Close => {
                self.nodes[index.0].connections.remove(&conn);
                self.input(index, Input::Closed { conn });
            }
        }
    }

    fn retry(&mut self, index: NodeIndex, conn: ConnId) {
        let elapsed = self.elapsed;
        let Some(connection) = self.nodes[index.0].connections.get_mut(&conn) else {
            // The dial that this was to watch: no connection came of it.
            return self.input(
                index,
                Input::ConnectFailed {
                    conn,
                    why: ConnectError::TimedOut,
                },
            );
        };
        let Some(since) = connection.stalled_since else {
            return;
        };
        if self.weather.is_tcp_blocked(connection.peer, index) {
            if elapsed - since < USER_TIMEOUT {
                return self.later(RETRY, index, What::Retry { conn });
            }
            // Both kernels give up.
            let (peer, life, remote) = (connection.peer, connection.life, connection.remote);
            self.nodes[index.0].connections.remove(&conn);
            self.input(index, Input::Closed { conn });
            if self.node(peer).life == life
                && self.nodes[peer.0].connections.remove(&remote).is_some()
            {
                self.input(peer, Input::Closed { conn: remote });
            }
            return;
        }
        connection.stalled_since = None;
        let stalled = std::mem::take(&mut connection.stalled);
        for parcel in stalled {
            if self.nodes[index.0].connections.contains_key(&conn) {
                self.unpack(index, conn, parcel);
            }
        }
    }

    pub(crate) fn later(&mut self, after: Duration, node: NodeIndex, what: What) {
        self.later_in(self.node(node).life, after, node, what);
    }

    /// The same for one life of a node, which may be over.
    fn later_in(&mut self, life: u64, after: Duration, node: NodeIndex, what: What) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_on_its_way_is_not_that_of_the_next_run() {
        let mut sim = Sim::new(1);
        let creator = sim.create();
        let token = sim.token(creator, true, Duration::from_secs(900));
        let node = sim.join(creator, token);
        let linked = sim.run_until(Duration::from_secs(1), |sim| {
            sim.converged(&[creator, node])
        });
        assert!(linked);
        sim.weather.common.delay = Duration::from_millis(100);
        sim.crash(node);
        sim.start(node, Intent::Resume, &[creator]);
        sim.run(Duration::from_millis(50));

        sim.crash(node);
        sim.start(node, Intent::Resume, &[creator]);
        let before = sim.node(creator).accepted;
        sim.run(Duration::from_millis(80));
        let of_the_first_run = sim.node(creator).accepted - before;
        sim.run(Duration::from_millis(50));
        let of_the_second = sim.node(creator).accepted - before;

        assert_eq!(of_the_first_run, 0);
        assert!(of_the_second > 0);
    }
}
