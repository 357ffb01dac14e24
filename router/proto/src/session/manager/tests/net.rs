//! Two nodes and a network between them, on virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weft_types::{BootId, MeshId};

use super::super::*;
use crate::crypto::noise::NoiseKey;
use crate::crypto::seeded::SeededCrypto;
use crate::crypto::{Crypto, Secret32};
use crate::keys::{SessionIndex, SessionKeys};
use crate::session::{Directory, IndexAllocator, PeerFacts};
pub(super) use crate::virtual_time::origin;

pub(super) const SMALL: usize = 0;
pub(super) const LARGE: usize = 1;

#[derive(Clone, Copy)]
pub(super) struct Weather {
    /// Percent.
    pub(super) loss: u64,
    pub(super) duplicate: u64,
    /// Milliseconds, at least 1; a wide span reorders.
    pub(super) delay: (u64, u64),
}

impl Weather {
    pub(super) const FINE: Self = Self {
        loss: 0,
        duplicate: 0,
        delay: (5, 20),
    };
    pub(super) const FOUL: Self = Self {
        loss: 30,
        duplicate: 20,
        delay: (1, 700),
    };
}

/// Two nodes with packet workers, and a network between them on virtual time.
pub(super) struct Net {
    pub(super) nodes: [Node; 2],
    pub(super) now: Instant,
    pub(super) weather: Weather,
    pub(super) chance: SeededCrypto,
    pub(super) sent: u64,
    pub(super) flying: BTreeMap<(Instant, u64), Packet>,
    pub(super) next_frame: Instant,
    pub(super) traffic: bool,
    pub(super) block_handshakes_in_session: bool,
    pub(super) unicasts: usize,
    pub(super) frames_without_key: usize,
    pub(super) frames_without_session: usize,
    pub(super) keys_seen: BTreeSet<[u8; 32]>,
    /// First messages, as they passed.
    pub(super) seen: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
pub(super) struct Packet {
    to: usize,
    what: What,
}

#[derive(Clone)]
enum What {
    Control(Vec<u8>),
    /// Inside a session: index and key of the one it was sealed by. No bytes: a frame.
    Sealed(SessionIndex, [u8; 32], Option<Vec<u8>>),
}

impl Net {
    pub(super) fn new(seed: u64, weather: Weather) -> Self {
        let now = origin();
        Self {
            nodes: [Node::new(SMALL, seed, 1), Node::new(LARGE, seed, 1)],
            now,
            weather,
            chance: SeededCrypto::new(!seed),
            sent: 0,
            flying: BTreeMap::new(),
            next_frame: now,
            traffic: false,
            block_handshakes_in_session: false,
            unicasts: 0,
            frames_without_key: 0,
            frames_without_session: 0,
            keys_seen: BTreeSet::new(),
            seen: Vec::new(),
        }
    }

    pub(super) fn want(&mut self, who: usize) {
        let now = self.now;
        self.nodes[who].want(id(1 - who), now);
        self.drain(who);
    }

    pub(super) fn peer_gone(&mut self, who: usize) {
        self.nodes[who].act(|sessions, around| sessions.peer_gone(id(1 - who), around));
        self.drain(who);
    }

    pub(super) fn peer_back(&mut self, who: usize) {
        let now = self.now;
        self.nodes[who].act(|sessions, around| sessions.peer_back(id(1 - who), around, now));
        self.drain(who);
    }

    pub(super) fn restart(&mut self, who: usize) {
        let counter = self.nodes[who].boot + 1;
        self.nodes[who] = Node::new(who, u64::from_be_bytes(self.array()), counter);
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = (0..2)
                .filter_map(|who| Some((self.nodes[who].sessions.poll_timeout()?.0, who)))
                .min();
            let packet = self.flying.keys().next().copied();
            let frame = self.traffic.then_some(self.next_frame);
            let next = [due.map(|(at, _)| at), packet.map(|(at, _)| at), frame]
                .into_iter()
                .flatten()
                .min()
                .filter(|&at| at <= end);
            let Some(next) = next else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            if packet.is_some_and(|(at, _)| at <= self.now) {
                let packet = self.flying.pop_first().expect("one is there").1;
                self.arrive(packet);
            } else if frame.is_some_and(|at| at <= self.now) {
                self.next_frame = self.now + Duration::from_millis(500);
                self.send_frame(SMALL);
                self.send_frame(LARGE);
            } else if let Some((_, who)) = due {
                self.nodes[who].wake(self.now);
                self.drain(who);
            }
        }
    }

    pub(super) fn send_frame(&mut self, who: usize) {
        let now = self.now;
        match self.nodes[who].plane.sending() {
            None => {
                self.frames_without_session += 1;
                self.want(who);
            }
            Some((index, key)) => {
                self.nodes[who].sessions.note_used(id(1 - who), now);
                self.launch(1 - who, What::Sealed(index, key, None));
            }
        }
    }

    pub(super) fn arrive(&mut self, Packet { to, what }: Packet) {
        let now = self.now;
        match what {
            What::Control(bytes) => self.nodes[to].receive(id(1 - to), &bytes, Via::Unicast, now),
            What::Sealed(index, key, bytes) => {
                if !self.nodes[to].plane.open(index, &key) {
                    // Sealed to a run that is over: nothing to hold against the keys.
                    if self.nodes[to].boot == 1 && self.nodes[1 - to].boot == 1 && bytes.is_none() {
                        self.frames_without_key += 1;
                    }
                    return;
                }
                match bytes {
                    None => self.nodes[to].sessions.note_used(id(1 - to), now),
                    Some(bytes) => self.nodes[to].receive(id(1 - to), &bytes, Via::Session, now),
                }
            }
        }
        self.drain(to);
    }

    pub(super) fn drain(&mut self, who: usize) {
        for output in self.nodes[who].drain() {
            match output {
                Output::Install { keys, .. } | Output::InstallReceiving { keys, .. } => {
                    assert!(self.keys_seen.insert(keys.send) || self.is_pair(who, &keys));
                }
                Output::SessionMessage { bytes, .. } => {
                    assert!(bytes.len() <= message::MAX_IN_SESSION);
                    if self.block_handshakes_in_session && bytes[0] <= 3 {
                        continue;
                    }
                    if let Some((index, key)) = self.nodes[who].plane.sending() {
                        self.launch(1 - who, What::Sealed(index, key, Some(bytes)));
                    }
                }
                Output::Unicast { bytes, .. } => {
                    self.unicasts += 1;
                    if bytes[0] == 1 {
                        self.seen.push((1 - who, bytes.clone()));
                    }
                    self.launch(1 - who, What::Control(bytes));
                }
                Output::Down { .. }
                | Output::Registers { .. }
                | Output::Retire { .. }
                | Output::Up { .. } => {}
            }
        }
    }

    /// Whether the other side holds the same keys crossed: then a key seen before is theirs, not used again.
    pub(super) fn is_pair(&self, who: usize, keys: &SessionKeys) -> bool {
        self.nodes[1 - who]
            .plane
            .keys
            .get(&keys.remote)
            .is_some_and(|theirs| theirs.receive == keys.send && theirs.send == keys.receive)
    }

    fn launch(&mut self, to: usize, what: What) {
        let Weather {
            loss,
            duplicate,
            delay: (least, most),
        } = self.weather;
        let copies = if self.below(100) < duplicate { 2 } else { 1 };
        for _ in 0..copies {
            if self.below(100) < loss {
                continue;
            }
            let delay = Duration::from_millis(least + self.below(most - least));
            self.sent += 1;
            let packet = Packet {
                to,
                what: what.clone(),
            };
            self.flying.insert((self.now + delay, self.sent), packet);
        }
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        let chance: &mut dyn Crypto = &mut self.chance;
        chance.below(bound)
    }

    pub(super) fn array(&mut self) -> [u8; 8] {
        let chance: &mut dyn Crypto = &mut self.chance;
        chance.array()
    }

    pub(super) fn assert_agreed(&self) {
        let sending = |who: usize| {
            let plane = &self.nodes[who].plane;
            let index = plane.current.expect("a session to send in");
            plane.keys.get(&index).expect("with its keys")
        };
        let (small, large) = (sending(SMALL), sending(LARGE));
        assert!(self.nodes.iter().all(|node| node.ups == node.downs + 1));
        assert_eq!(small.send, large.receive);
        assert_eq!(small.receive, large.send);
        assert_eq!((small.local, small.remote), (large.remote, large.local));
    }
}

pub(super) struct Node {
    pub(super) sessions: Sessions,
    pub(super) plane: Plane,
    pub(super) crypto: SeededCrypto,
    pub(super) indices: IndexAllocator,
    pub(super) boot: u64,
    pub(super) ups: usize,
    pub(super) downs: usize,
    pub(super) registers: Vec<Vec<Vec<u8>>>,
    pub(super) who: usize,
}

/// What packet workers do with keys.
#[derive(Default)]
pub(super) struct Plane {
    pub(super) keys: BTreeMap<SessionIndex, SessionKeys>,
    pub(super) current: Option<SessionIndex>,
    pub(super) awaited: Option<SessionIndex>,
}

impl Plane {
    pub(super) fn sending(&self) -> Option<(SessionIndex, [u8; 32])> {
        let keys = self.keys.get(&self.current?)?;
        Some((keys.remote, keys.send))
    }

    pub(super) fn open(&mut self, index: SessionIndex, key: &[u8; 32]) -> bool {
        if self
            .keys
            .get(&index)
            .is_none_or(|keys| keys.receive != *key)
        {
            return false;
        }
        if self.awaited == Some(index) {
            self.current = self.awaited.take();
        }
        true
    }
}

impl Node {
    pub(super) fn new(who: usize, seed: u64, counter: u64) -> Self {
        Self {
            sessions: Sessions::new(local(who, counter)),
            plane: Plane::default(),
            crypto: SeededCrypto::new(seed.wrapping_mul(2).wrapping_add(who as u64)),
            indices: IndexAllocator::default(),
            boot: counter,
            ups: 0,
            downs: 0,
            registers: Vec::new(),
            who,
        }
    }

    pub(super) fn act(&mut self, act: impl FnOnce(&mut Sessions, &mut Surroundings<'_>)) {
        let directory = Own(self.who);
        let mut around = Surroundings {
            crypto: &mut self.crypto,
            indices: &mut self.indices,
            directory: &directory,
        };
        act(&mut self.sessions, &mut around);
    }

    pub(super) fn want(&mut self, peer: NodeId, now: Instant) {
        self.act(|sessions, around| sessions.want(peer, around, now));
    }

    pub(super) fn receive(&mut self, from: NodeId, bytes: &[u8], via: Via, now: Instant) {
        self.act(|sessions, around| sessions.handle_message(from, bytes, via, around, now));
    }

    pub(super) fn peer_restarted(&mut self, boot: Boot) {
        self.act(|sessions, around| sessions.peer_restarted(id(LARGE), boot, around));
    }

    /// Every wake-up moves the deadline forward.
    pub(super) fn wake(&mut self, now: Instant) {
        self.act(|sessions, around| sessions.handle_timeout(around, now));
        assert!(
            self.sessions.poll_timeout().is_none_or(|(at, _)| at > now),
            "{:?}",
            self.sessions.poll_timeout()
        );
    }

    pub(super) fn drain_ignoring_messages(&mut self) {
        let _ = self.drain();
    }

    pub(super) fn drain(&mut self) -> Vec<Output> {
        let mut outputs = Vec::new();
        while let Some(output) = self.sessions.poll_output() {
            match &output {
                Output::Down { .. } => self.downs += 1,
                Output::Install { keys, .. } => {
                    self.plane.keys.insert(keys.local, keys.clone());
                    self.plane.current = Some(keys.local);
                    self.plane.awaited = None;
                }
                Output::InstallReceiving { keys, .. } => {
                    self.plane.keys.insert(keys.local, keys.clone());
                    self.plane.awaited = Some(keys.local);
                }
                Output::Registers { registers, .. } => self.registers.push(registers.clone()),
                Output::Retire { index } => {
                    assert!(self.plane.keys.remove(index).is_some());
                }
                Output::SessionMessage { .. } | Output::Unicast { .. } => {}
                Output::Up { .. } => self.ups += 1,
            }
            outputs.push(output);
        }
        assert_eq!(self.sessions.is_up(id(1 - self.who)), self.ups > self.downs);
        outputs
    }
}

/// The two nodes' records.
pub(super) struct Records;

impl Directory for Records {
    fn facts(&self, peer: NodeId) -> Option<PeerFacts> {
        let who = [SMALL, LARGE].into_iter().find(|&who| id(who) == peer)?;
        Some(PeerFacts {
            key: key(who).public(),
            cipher: Cipher::between(true, false),
        })
    }

    fn registers(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }
}

/// The same, and one node's registers.
pub(super) struct Own(usize);

impl Directory for Own {
    fn facts(&self, peer: NodeId) -> Option<PeerFacts> {
        Records.facts(peer)
    }

    fn registers(&self) -> Vec<Vec<u8>> {
        vec![format!("of {}", self.0).into_bytes()]
    }
}

pub(super) fn id(who: usize) -> NodeId {
    NodeId::new([byte(who) + 1; 32])
}

pub(super) fn byte(who: usize) -> u8 {
    u8::try_from(who).expect("a small number")
}

pub(super) fn key(who: usize) -> NoiseKey {
    NoiseKey::from_secret(&Secret32::new([byte(who) + 1; 32]))
}

pub(super) fn boot(who: usize, counter: u64) -> Boot {
    Boot {
        counter,
        id: BootId::new([byte(who); 8]),
    }
}

pub(super) fn local(who: usize, counter: u64) -> Local {
    Local {
        node: id(who),
        key: key(who),
        mesh: MeshId::new([9; 32]),
        boot: boot(who, counter),
    }
}
