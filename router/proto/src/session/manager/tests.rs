use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use weft_types::{BootId, MeshId};

use super::*;
use crate::crypto::Secret32;
use crate::crypto::noise::NoiseKey;
use crate::crypto::seeded::SeededCrypto;
use crate::session::handshake::Initiation;

const SMALL: usize = 0;
const LARGE: usize = 1;

#[test]
fn a_wanted_session_comes_up_at_both_ends() {
    let mut net = Net::new(1, Weather::FINE);

    net.want(SMALL);
    net.run(Duration::from_secs(2));

    net.assert_agreed();
    assert_eq!(net.nodes[SMALL].ups, 1);
    assert_eq!(net.nodes[LARGE].ups, 1);
    assert_eq!(net.nodes[LARGE].registers, [vec![b"of 0".to_vec()]]);
    assert_eq!(net.nodes[SMALL].registers, [vec![b"of 1".to_vec()]]);
}

#[test]
fn both_may_begin_at_once() {
    for seed in 0..20 {
        let mut net = Net::new(seed, Weather::FINE);

        net.want(SMALL);
        net.want(LARGE);
        net.run(Duration::from_secs(2));

        net.assert_agreed();
        assert_eq!(net.nodes[SMALL].ups, 1);
        assert_eq!(net.nodes[LARGE].ups, 1);
    }
}

#[test]
fn a_session_that_nobody_uses_dies_silently_and_is_remade_on_demand() {
    let mut net = Net::new(2, Weather::FINE);
    net.want(SMALL);
    net.run(Duration::from_secs(185));

    assert_eq!(net.nodes[SMALL].downs, 1);
    assert_eq!(net.nodes[LARGE].downs, 1);
    assert!(net.nodes.iter().all(|node| node.plane.keys.is_empty()));
    assert!(net.nodes.iter().all(|node| node.indices.in_use() == 0));
    assert!(
        net.nodes
            .iter()
            .all(|node| node.sessions.poll_timeout().is_none())
    );

    net.want(LARGE);
    net.run(Duration::from_secs(2));
    net.assert_agreed();
}

#[test]
fn a_used_session_is_rekeyed_and_no_frame_is_lost() {
    let mut net = Net::new(3, Weather::FINE);
    net.want(SMALL);
    net.run(Duration::from_secs(2));

    net.traffic = true;
    net.run(Duration::from_secs(600));

    net.assert_agreed();
    assert_eq!(net.frames_without_key, 0);
    assert_eq!(net.frames_without_session, 0);
    let rekeys = net.nodes[SMALL].sessions.counters().rekeys;
    assert!((4..=5).contains(&rekeys), "{rekeys} rekeys");
    assert_eq!(net.nodes[SMALL].downs, 0);
    assert!(
        net.unicasts <= 2,
        "only the first handshake went over the control plane"
    );
}

#[test]
fn a_rekey_falls_back_to_the_control_plane_after_a_second() {
    let mut net = Net::new(4, Weather::FINE);
    net.want(SMALL);
    net.run(Duration::from_secs(2));
    net.traffic = true;
    net.run(Duration::from_secs(100));
    let before = net.unicasts;

    net.block_handshakes_in_session = true;
    net.run(Duration::from_secs(23));

    assert!(net.unicasts > before);
    assert_eq!(net.nodes[SMALL].sessions.counters().rekeys, 1);
    net.assert_agreed();
}

#[test]
fn a_restarted_side_gets_a_new_session() {
    let mut net = Net::new(5, Weather::FINE);
    net.want(SMALL);
    net.run(Duration::from_secs(2));

    net.restart(LARGE);
    net.want(LARGE);
    net.run(Duration::from_secs(2));

    net.assert_agreed();
    assert_eq!(net.nodes[SMALL].downs, 1);
    assert_eq!(net.nodes[SMALL].ups, 2);
    assert_eq!(net.nodes[SMALL].registers.len(), 2);
}

#[test]
fn news_of_a_restart_voids_the_sessions_of_the_earlier_run_only() {
    let mut net = Net::new(6, Weather::FINE);
    net.want(SMALL);
    net.run(Duration::from_secs(2));

    net.nodes[SMALL].peer_restarted(boot(LARGE, 1));
    assert!(net.nodes[SMALL].sessions.is_up(id(LARGE)));
    net.nodes[SMALL].peer_restarted(boot(LARGE, 2));
    assert!(!net.nodes[SMALL].sessions.is_up(id(LARGE)));
}

#[test]
fn a_peer_that_is_gone_leaves_no_key_and_no_deadline() {
    let mut net = Net::new(7, Weather::FINE);
    net.want(SMALL);
    net.run(Duration::from_secs(2));

    let node = &mut net.nodes[SMALL];
    let mut around = Surroundings {
        crypto: &mut node.crypto,
        indices: &mut node.indices,
        directory: &Records,
    };
    node.sessions.peer_gone(id(LARGE), &mut around);
    node.drain_ignoring_messages();

    assert!(node.plane.keys.is_empty());
    assert_eq!(node.indices.in_use(), 0);
    assert_eq!(node.sessions.poll_timeout(), None);
}

#[test]
fn nobody_answering_is_given_up() {
    let mut net = Net::new(
        8,
        Weather {
            loss: 100,
            ..Weather::FINE
        },
    );

    net.want(SMALL);
    net.run(Duration::from_secs(60));

    assert_eq!(net.nodes[SMALL].sessions.poll_timeout(), None);
    assert_eq!(net.nodes[SMALL].sessions.counters().failures, 1);
    assert_eq!(net.nodes[SMALL].indices.in_use(), 0);
}

#[test]
fn an_old_first_message_is_refused() {
    let mut net = Net::new(9, Weather::FINE);
    net.want(SMALL);
    net.run(Duration::from_secs(2));
    let recorded = net.seen.clone();

    for (to, bytes) in recorded.into_iter().filter(|(_, bytes)| bytes[0] == 1) {
        let now = net.now;
        net.nodes[to].receive(id(1 - to), &bytes, Via::Unicast, now);
        let outputs = net.nodes[to].drain();
        assert!(outputs.is_empty(), "{outputs:?}");
        assert_eq!(net.nodes[to].sessions.counters().replays, 1);
    }
    net.assert_agreed();
}

#[test]
fn a_first_message_in_anothers_name_is_refused() {
    let now = origin();
    let mut node = Node::new(SMALL, 1, 1);
    let mut crypto = SeededCrypto::new(77);
    // A member, with a key of its own, that calls itself LARGE.
    let liar = Local {
        key: key(7),
        ..local(LARGE, 1)
    };
    let (_, noise) = Initiation::begin(
        &liar,
        &key(SMALL).public(),
        1,
        SessionIndex(1),
        Cipher::ChaCha20Poly1305,
        Vec::new(),
        &mut crypto,
    )
    .expect("begins");

    node.receive(
        id(LARGE),
        &Message::Initiate(&noise).encode(),
        Via::Unicast,
        now,
    );

    assert_eq!(node.sessions.counters().failures, 1);
    assert!(node.drain().is_empty());
}

#[test]
fn strangers_cost_no_memory() {
    let mut node = Node::new(SMALL, 1, 1);

    node.receive(NodeId::new([99; 32]), &[1; 200], Via::Unicast, origin());
    node.want(NodeId::new([99; 32]), origin());

    assert!(node.sessions.peers.is_empty());
}

#[test]
fn what_is_said_about_a_session_counts_only_inside_it() {
    let mut net = Net::new(10, Weather::FINE);
    net.want(SMALL);
    // Up to the answer, not to the confirmation.
    net.run(Duration::from_millis(9));
    while net.nodes[LARGE].plane.keys.is_empty() {
        net.run(Duration::from_millis(1));
    }
    let index = *net.nodes[LARGE].plane.keys.keys().next().expect("pending");
    let now = net.now;

    net.nodes[LARGE].receive(
        id(SMALL),
        &Message::Confirm(index).encode(),
        Via::Unicast,
        now,
    );

    assert!(!net.nodes[LARGE].sessions.is_up(id(SMALL)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_the_network_does_both_ends_agree_in_the_end(seed: u64, both: bool) {
        let mut net = Net::new(seed, Weather::FOUL);
        net.want(SMALL);
        if both {
            net.want(LARGE);
        }
        net.traffic = true;
        net.run(Duration::from_secs(40));
        if seed % 3 == 0 {
            net.restart(usize::from(both));
        }
        net.run(Duration::from_secs(300));

        net.weather = Weather::FINE;
        net.run(Duration::from_secs(15));
        net.assert_agreed();
    }

    #[test]
    fn a_rekey_in_foul_weather_loses_no_overlap(seed: u64) {
        let mut net = Net::new(seed, Weather::FINE);
        net.want(SMALL);
        net.run(Duration::from_secs(2));
        net.weather = Weather::FOUL;
        net.traffic = true;

        net.run(Duration::from_secs(500));

        prop_assert_eq!(net.frames_without_key, 0);
    }

    #[test]
    fn random_messages_do_not_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        inside: bool,
    ) {
        let mut node = Node::new(SMALL, 1, 1);
        let via = if inside { Via::Session } else { Via::Unicast };
        node.receive(id(LARGE), &bytes, via, origin());
    }
}

#[derive(Clone, Copy)]
struct Weather {
    /// Percent.
    loss: u64,
    duplicate: u64,
    /// Milliseconds, at least 1; a wide span reorders.
    delay: (u64, u64),
}

impl Weather {
    const FINE: Self = Self {
        loss: 0,
        duplicate: 0,
        delay: (5, 20),
    };
    const FOUL: Self = Self {
        loss: 30,
        duplicate: 20,
        delay: (1, 700),
    };
}

/// Two nodes with packet workers, and a network between them on virtual time.
struct Net {
    nodes: [Node; 2],
    now: Instant,
    weather: Weather,
    chance: SeededCrypto,
    sent: u64,
    flying: BTreeMap<(Instant, u64), Packet>,
    next_frame: Instant,
    traffic: bool,
    block_handshakes_in_session: bool,
    unicasts: usize,
    frames_without_key: usize,
    frames_without_session: usize,
    keys_seen: BTreeSet<[u8; 32]>,
    /// First messages, as they passed.
    seen: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
struct Packet {
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
    fn new(seed: u64, weather: Weather) -> Self {
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

    fn want(&mut self, who: usize) {
        let now = self.now;
        self.nodes[who].want(id(1 - who), now);
        self.drain(who);
    }

    fn restart(&mut self, who: usize) {
        let counter = self.nodes[who].boot + 1;
        self.nodes[who] = Node::new(who, u64::from_be_bytes(self.array()), counter);
    }

    fn run(&mut self, time: Duration) {
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

    fn send_frame(&mut self, who: usize) {
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

    fn arrive(&mut self, Packet { to, what }: Packet) {
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

    fn drain(&mut self, who: usize) {
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
    fn is_pair(&self, who: usize, keys: &SessionKeys) -> bool {
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

    fn below(&mut self, bound: u64) -> u64 {
        let chance: &mut dyn Crypto = &mut self.chance;
        chance.below(bound)
    }

    fn array(&mut self) -> [u8; 8] {
        let chance: &mut dyn Crypto = &mut self.chance;
        chance.array()
    }

    fn assert_agreed(&self) {
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

struct Node {
    sessions: Sessions,
    plane: Plane,
    crypto: SeededCrypto,
    indices: IndexAllocator,
    boot: u64,
    ups: usize,
    downs: usize,
    registers: Vec<Vec<Vec<u8>>>,
    who: usize,
}

/// What packet workers do with keys.
#[derive(Default)]
struct Plane {
    keys: BTreeMap<SessionIndex, SessionKeys>,
    current: Option<SessionIndex>,
    awaited: Option<SessionIndex>,
}

impl Plane {
    fn sending(&self) -> Option<(SessionIndex, [u8; 32])> {
        let keys = self.keys.get(&self.current?)?;
        Some((keys.remote, keys.send))
    }

    fn open(&mut self, index: SessionIndex, key: &[u8; 32]) -> bool {
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
    fn new(who: usize, seed: u64, counter: u64) -> Self {
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

    fn act(&mut self, act: impl FnOnce(&mut Sessions, &mut Surroundings<'_>)) {
        let directory = Own(self.who);
        let mut around = Surroundings {
            crypto: &mut self.crypto,
            indices: &mut self.indices,
            directory: &directory,
        };
        act(&mut self.sessions, &mut around);
    }

    fn want(&mut self, peer: NodeId, now: Instant) {
        self.act(|sessions, around| sessions.want(peer, around, now));
    }

    fn receive(&mut self, from: NodeId, bytes: &[u8], via: Via, now: Instant) {
        self.act(|sessions, around| sessions.handle_message(from, bytes, via, around, now));
    }

    fn peer_restarted(&mut self, boot: Boot) {
        self.act(|sessions, around| sessions.peer_restarted(id(LARGE), boot, around));
    }

    /// Every wake-up moves the deadline forward.
    fn wake(&mut self, now: Instant) {
        self.act(|sessions, around| sessions.handle_timeout(around, now));
        assert!(
            self.sessions.poll_timeout().is_none_or(|(at, _)| at > now),
            "{:?}",
            self.sessions.poll_timeout()
        );
    }

    fn drain_ignoring_messages(&mut self) {
        let _ = self.drain();
    }

    fn drain(&mut self) -> Vec<Output> {
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
struct Records;

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
struct Own(usize);

impl Directory for Own {
    fn facts(&self, peer: NodeId) -> Option<PeerFacts> {
        Records.facts(peer)
    }

    fn registers(&self) -> Vec<Vec<u8>> {
        vec![format!("of {}", self.0).into_bytes()]
    }
}

fn id(who: usize) -> NodeId {
    NodeId::new([byte(who) + 1; 32])
}

fn byte(who: usize) -> u8 {
    u8::try_from(who).expect("a small number")
}

fn key(who: usize) -> NoiseKey {
    NoiseKey::from_secret(&Secret32::new([byte(who) + 1; 32]))
}

fn boot(who: usize, counter: u64) -> Boot {
    Boot {
        counter,
        id: BootId::new([byte(who); 8]),
    }
}

fn local(who: usize, counter: u64) -> Local {
    Local {
        node: id(who),
        key: key(who),
        mesh: MeshId::new([9; 32]),
        boot: boot(who, counter),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "virtual time has to begin somewhere"
)]
fn origin() -> Instant {
    Instant::now()
}
