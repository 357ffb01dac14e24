//! Routers: how they are started, asked and stopped, what happens to them, and what each output of theirs does to the world.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use weft_router_proto::crypto::Crypto;
use weft_router_proto::crypto::seeded::SeededCrypto;
use weft_router_proto::identity::NodeKeys;
use weft_router_proto::io::{Command, Input, Output, Reply, RequestId, Target};
use weft_router_proto::router::{Intent, Router, RouterConfig};
use weft_router_proto::store::Saved;
use weft_router_proto::token::Token;
use weft_types::{Mtu, Nickname, Problem};

use crate::dice::Purpose;
use crate::nat::Realm;
use crate::node::{Node, NodeIndex, Parcel};
use crate::rogue::Rogue;
use crate::worker::Workers;
use crate::world::{Sim, What};

/// Ten years each way.
const SKEW: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// How often a test looks whether what it waits for has come true.
const LOOK: Duration = Duration::from_millis(5);
/// So many wake-ups at one instant are a busy loop.
const BUSY: u32 = 10_000;

impl Sim {
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
        let config = self.config(index, intent, targets);
        let identity = config.keys.node();
        self.note(|recorder, _| recorder.name(identity, index));
        self.nodes[index.0].begin(identity, life, dice.up_to(SKEW));
        let now = self.now(index);
        let node = &mut self.nodes[index.0];
        match Router::new(config, &node.disk, Box::new(crypto), now) {
            Ok(core) => {
                node.workers = Some(Workers::new(identity, now));
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

    fn config(&self, index: NodeIndex, intent: Intent, targets: &[NodeIndex]) -> RouterConfig {
        let mut keys = SeededCrypto::new(self.node(index).keys);
        let target = |&target| Target(self.node(target).address.to_string());
        RouterConfig {
            keys: NodeKeys::generate(&mut keys as &mut dyn Crypto),
            nickname: Nickname::new(&format!("n{}", index.0)).expect("a short name"),
            port: 6783,
            advertise: Vec::new(),
            targets: targets.iter().map(target).collect(),
            intent,
            features: vec!["aes".to_owned()],
            release: "simulation".to_owned(),
            // The clocks of simulated hosts say nothing: what is left of lives counts alone.
            wall_clock: Duration::ZERO,
        }
    }

    /// Measures what every core costs from now on, by `clock`: [`Node::spent`].
    pub fn measure(&mut self, clock: fn() -> Duration) {
        for node in &mut self.nodes {
            node.spent.clock = Some(clock);
        }
    }

    /// Ends a router at once. The kernel closes its connections; what was not saved is lost.
    pub fn crash(&mut self, index: NodeIndex) {
        let node = &mut self.nodes[index.0];
        node.core = None;
        node.rogue = None;
        node.workers = None;
        node.life += 1;
        node.snapshot = None;
        let connections = std::mem::take(&mut node.connections);
        for connection in connections.into_values() {
            self.ship(&connection, Parcel::Close, Duration::ZERO);
        }
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
            if self.next_at().is_none_or(|at| at > end) {
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
        let Some(entry) = self.advance() else {
            return;
        };
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
                        node.spent.time(|| core.handle_timeout(now));
                    }
                } else if let Some(rogue) = &mut node.rogue {
                    rogue.handle_timeout(now);
                }
                self.drain(index);
            }
        }
    }

    pub(crate) fn input(&mut self, index: NodeIndex, input: Input) {
        let now = self.now(index);
        let node = &mut self.nodes[index.0];
        if let Some(core) = &mut node.core {
            node.spent.time(|| core.handle_input(input, now));
        } else if let Some(rogue) = &mut node.rogue {
            rogue.handle_input(input, now);
        }
        self.drain(index);
    }

    /// Makes a member do as it is told from here on: its router ends, and somebody with all that it knew takes its place,
    /// linked to nobody.
    ///
    /// # Panics
    ///
    /// If no member runs there.
    pub fn turn(&mut self, index: NodeIndex) {
        let mut keys = SeededCrypto::new(self.node(index).keys);
        let keys = NodeKeys::generate(&mut keys as &mut dyn Crypto);
        let core = self.core(index);
        let mesh = core.status(self.now(index)).mesh.expect("a member").id;
        let membership = core.membership().expect("a member").clone();
        self.crash(index);
        let seed = self.dice.next();
        let node = &mut self.nodes[index.0];
        let known = (mesh, membership);
        let rogue = Rogue::new(keys, known, &node.disk, node.address, seed);
        node.rogue = Some(rogue);
        node.wake = None;
    }

    /// A member that was turned.
    ///
    /// # Panics
    ///
    /// If it was not.
    pub fn rogue(&self, index: NodeIndex) -> &Rogue {
        let rogue = self.node(index).rogue.as_ref();
        rogue.expect("a member that was turned")
    }

    /// Tells a member that was turned what to do.
    ///
    /// # Panics
    ///
    /// If it was not.
    pub fn instruct<T>(&mut self, index: NodeIndex, what: impl FnOnce(&mut Rogue) -> T) -> T {
        let rogue = self.nodes[index.0].rogue.as_mut();
        let done = what(rogue.expect("a member that was turned"));
        self.drain(index);
        done
    }

    fn drain(&mut self, index: NodeIndex) {
        let mut outputs = VecDeque::new();
        let node = &mut self.nodes[index.0];
        if let Some(core) = &mut node.core {
            node.spent
                .time(|| outputs.extend(std::iter::from_fn(|| core.poll_output())));
        } else if let Some(rogue) = &mut node.rogue {
            outputs.extend(std::iter::from_fn(|| rogue.poll_output()));
        }
        for output in outputs {
            self.output(index, output);
        }
        let now = self.now(index);
        let node = &mut self.nodes[index.0];
        let core = node.core.as_ref();
        let deadline = core.and_then(|core| core.poll_timeout());
        let deadline = deadline
            .map(|(deadline, _)| deadline)
            .or_else(|| node.rogue.as_ref().and_then(Rogue::poll_timeout));
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
