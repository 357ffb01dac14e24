//! One overlay against a made-up underlay: which ways answer, how soon, and what they do to frames.

use std::collections::BTreeMap;

use weft_types::NodeId;

use super::*;
use crate::keys::SessionIndex;
use crate::virtual_time::origin;

const MS: Duration = Duration::from_millis(1);
const DIRECT: Via = Via::Direct(SocketAddr::V4(std::net::SocketAddrV4::new(
    std::net::Ipv4Addr::new(192, 0, 2, 2),
    6783,
)));

fn relay(n: u8) -> NodeId {
    NodeId::new([n; 32])
}

/// So long at most one probe is sent.
const BUSY_PROBES: Duration = Duration::from_millis(89);

/// What a way does to what is sent by it.
#[derive(Clone, Copy, Debug)]
struct Wire {
    open: bool,
    delay: Duration,
    largest: u16,
    /// Of a thousand frames so many are lost.
    lost: u64,
    /// Of a thousand probes or their answers so many are lost.
    probes_lost: u64,
    /// While it is not open, probes wait in it as in a host that resolves its neighbour's address anew.
    holds: bool,
}

const WIRE: Wire = Wire {
    open: true,
    delay: Duration::from_millis(1),
    largest: 1472,
    lost: 0,
    probes_lost: 0,
    holds: false,
};

struct World {
    overlay: Overlay,
    now: Instant,
    start: Instant,
    wires: BTreeMap<Via, Wire>,
    answers: VecDeque<(Instant, PathAnswer)>,
    /// Probes that wait in a way, and since when.
    held: Vec<(Instant, Via, OverlayOutput)>,
    /// Frames a second, while there are any.
    rate: u64,
    /// Sent and received by slot.
    counts: BTreeMap<u8, (u64, u64)>,
    counted: Instant,
    /// Thousandths of a frame that are still to be lost.
    owed: u64,
    switches: Vec<Switch>,
    punches: usize,
    probes: usize,
    seed: u32,
}

impl World {
    fn new(known: &Known, relays: &[NodeId]) -> Self {
        let now = origin();
        let mut world = Self {
            overlay: Overlay::new(1452, Turn::First, now),
            now,
            start: now,
            wires: BTreeMap::new(),
            answers: VecDeque::new(),
            held: Vec::new(),
            rate: 10_000,
            counts: BTreeMap::new(),
            counted: now,
            owed: 0,
            switches: Vec::new(),
            punches: 0,
            probes: 0,
            seed: 1,
        };
        world
            .overlay
            .handle_input(OverlayInput::Known(known.clone()), now);
        let detour = |&by| Detour { hops: 1, by };
        let relays: Vec<Detour> = relays.iter().map(detour).collect();
        world
            .overlay
            .handle_input(OverlayInput::Relays(&relays), now);
        world.overlay.handle_input(OverlayInput::Session(true), now);
        for via in world.overlay.ways.keys() {
            world.wires.insert(*via, WIRE);
        }
        world
    }

    fn linked(relays: &[NodeId]) -> Self {
        let Via::Direct(address) = DIRECT else {
            unreachable!("it is direct")
        };
        let known = Known {
            link: LinkState::Passes(address),
            addresses: vec![address],
            control: true,
        };
        Self::new(&known, relays)
    }

    fn via(&self) -> Option<Via> {
        self.overlay.path().map(|path| path.via)
    }

    /// Frames travel, at the rate, by the way in use.
    fn travel(&mut self) {
        let took = self.now - self.counted;
        self.counted = self.now;
        let frames = u64::try_from(took.as_micros()).unwrap() * self.rate / 1_000_000;
        let Some(path) = self.overlay.path() else {
            return;
        };
        let wire = self.wires.get(&path.via).copied().unwrap_or(WIRE);
        let (sent, came) = self.counts.entry(path.slot.number()).or_default();
        *sent += frames;
        if wire.open && path.datagram <= wire.largest {
            self.owed += frames * wire.lost;
            *came += frames - self.owed / 1000;
            self.owed %= 1000;
        }
    }

    /// Lives on for this long.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            while let Some(output) = self.overlay.poll_output() {
                self.carry_out(output);
            }
            let answer = self.answers.front().map(|(at, _)| *at);
            let wake = self.overlay.poll_timeout().map(|(at, _)| at);
            let tick = self.now + 20 * MS;
            let next = [answer, wake, Some(tick)].into_iter().flatten().min();
            let next = next.unwrap_or(tick).max(self.now);
            if next > end {
                self.now = end;
                if self.rate > 0 {
                    self.overlay.handle_input(OverlayInput::Traffic, self.now);
                }
                return self.travel();
            }
            self.now = next;
            self.travel();
            if self.rate > 0 {
                self.overlay.handle_input(OverlayInput::Traffic, self.now);
            }
            if answer == Some(next)
                && let Some((_, answer)) = self.answers.pop_front()
            {
                self.overlay
                    .handle_input(OverlayInput::Answer(&answer), self.now);
            } else if wake.is_some_and(|at| at <= next) {
                self.overlay.handle_timeout(self.now);
                let later = self.overlay.poll_timeout().map(|(at, _)| at);
                assert!(later.is_none_or(|at| at > self.now), "a busy loop");
            }
        }
    }

    fn carry_out(&mut self, output: OverlayOutput) {
        let (via, slot, id, datagram) = match output {
            OverlayOutput::Probe {
                via,
                slot,
                id,
                datagram,
            } => (via, slot, id, datagram),
            OverlayOutput::Punch => return self.punches += 1,
            OverlayOutput::Switched(switch) => return self.switches.push(switch),
        };
        self.probes += 1;
        let wire = self.wires.get(&via).copied();
        if wire.is_some_and(|wire| wire.holds && !wire.open) {
            self.held.push((self.now, via, output));
        }
        let Some(wire) = wire.filter(|wire| wire.open) else {
            return;
        };
        if datagram > wire.largest || self.chance() < wire.probes_lost {
            return;
        }
        self.answer((wire.delay * 2, Duration::ZERO), slot, id);
    }

    /// Answers a probe that has waited on its way.
    fn answer(&mut self, (trip, waited): (Duration, Duration), slot: Option<Slot>, id: u64) {
        let (sent, came) = slot
            .and_then(|slot| self.counts.get(&slot.number()).copied())
            .unwrap_or_default();
        let answer = PathAnswer {
            peer: relay(2),
            id,
            rtt: trip + waited,
            seen_at: None,
            session: SessionIndex(1),
            sent,
            highest: if came == 0 { 0 } else { sent },
            received: came,
        };
        let at = self.now + trip;
        let place = self.answers.partition_point(|(other, _)| *other <= at);
        self.answers.insert(place, (at, answer));
    }

    /// A way passes again, and what has waited in it for less than three seconds with it: Linux asks for a neighbour three
    /// times, a second apart.
    fn heal(&mut self, via: Via) {
        self.wire(via).open = true;
        let held = self.held.extract_if(.., |(_, by, _)| *by == via);
        for (since, _, probe) in held.collect::<Vec<_>>() {
            let waited = self.now - since;
            let OverlayOutput::Probe { slot, id, .. } = probe else {
                continue;
            };
            if waited < Duration::from_secs(3) {
                let trip = self.wire(via).delay * 2;
                self.answer((trip, waited), slot, id);
            }
        }
    }

    /// Below a thousand, by the constants of Numerical Recipes.
    fn chance(&mut self) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        u64::from(self.seed >> 16) % 1000
    }

    fn wire(&mut self, via: Via) -> &mut Wire {
        self.wires.entry(via).or_insert(WIRE)
    }

    /// Lives until the path is this; returns how long that took.
    fn until(&mut self, via: Via, limit: Duration) -> Duration {
        let start = self.now;
        while self.via() != Some(via) {
            assert!(self.now - start < limit, "still by {:?}", self.via());
            self.run(5 * MS);
        }
        self.now - start
    }
}

#[test]
fn a_linked_peer_is_reached_directly_at_once_and_with_full_datagrams_soon() {
    let mut world = World::linked(&[relay(3)]);
    assert_eq!(world.via(), Some(DIRECT));

    world.run(50 * MS);

    assert_eq!(world.overlay.path().unwrap().datagram, 1472);
    assert!(world.switches.len() <= 1);
}

#[test]
fn a_silent_cut_is_left_for_a_relay_within_a_second_and_taken_back_after_it_heals() {
    for cut_at in 0..50 {
        let mut world = World::linked(&[relay(3), relay(4)]);
        world.run(Duration::from_secs(1) + cut_at * 7 * MS);

        world.wire(DIRECT).open = false;
        let left = world.until(Via::Relay(relay(3)), Duration::from_secs(2));
        assert!(left <= 300 * MS, "{left:?}");

        world.run(Duration::from_secs(3));
        world.wire(DIRECT).open = true;
        let back = world.until(DIRECT, Duration::from_secs(6));
        assert!(back <= Duration::from_secs(5), "{back:?}");

        let switches = world.switches.len();
        world.run(Duration::from_secs(30));
        assert_eq!(world.switches.len(), switches, "it flaps");
    }
}

#[test]
fn addresses_that_die_together_are_left_together() {
    let other = Via::Direct("[2001:db8::2]:6783".parse().unwrap());
    let (Via::Direct(first), Via::Direct(second)) = (DIRECT, other) else {
        unreachable!("they are direct")
    };
    let known = Known {
        link: LinkState::Passes(first),
        addresses: vec![first, second],
        control: true,
    };
    for cut_at in 0..50 {
        let mut world = World::new(&known, &[relay(3)]);
        // Both have answered, and one of them a long time ago.
        world.overlay.be_eager(world.now);
        world.run(Duration::from_secs(20) + cut_at * 7 * MS);
        let all = world.overlay.ways.values();
        let good = all.filter(|way| way.health == Health::Good);
        assert_eq!(good.count(), 2);

        world.wire(DIRECT).open = false;
        world.wire(other).open = false;
        let left = world.until(Via::Relay(relay(3)), Duration::from_secs(2));
        assert!(left <= 300 * MS, "{left:?}");
        assert_eq!(world.switches.len(), 2, "{:?}", world.switches);

        world.wire(other).open = true;
        world.until(other, Duration::from_secs(5));
        world.wire(DIRECT).open = true;
        world.run(Duration::from_secs(20));
        world.wire(other).open = false;
        let left = world.until(DIRECT, Duration::from_secs(2));
        assert!(left <= 300 * MS, "{left:?}");
    }
}

#[test]
fn a_cut_is_left_at_once_whatever_went_before() {
    let addresses: Vec<SocketAddr> = ["192.0.2.2:6783", "[2001:db8::2]:6783", "198.51.100.2:6783"]
        .map(|address| address.parse().unwrap())
        .to_vec();
    for seed in 1..=60 {
        let known = Known {
            link: LinkState::Passes(addresses[0]),
            addresses: addresses.clone(),
            control: true,
        };
        let mut world = World::new(&known, &[relay(3), relay(4)]);
        world.seed = seed;
        let ways: Vec<Via> = addresses.iter().copied().map(Via::Direct).collect();
        for (via, holds) in ways.iter().zip([true, true, false]) {
            world.wire(*via).holds = holds;
        }
        world.run(Duration::from_secs(1));
        for cut in 0..20 {
            let rest = Duration::from_millis(world.chance() * 12 + 1);
            world.run(rest);
            let by = world.via();
            for via in &ways {
                world.wire(*via).open = false;
            }
            let start = world.now;
            while world.via().is_none_or(|via| ways.contains(&via)) {
                world.run(5 * MS);
                let took = world.now - start;
                assert!(
                    took <= 500 * MS,
                    "seed {seed}, cut {cut} after {rest:?} by {by:?}: {took:?}, {:?}",
                    world.switches.iter().rev().take(3).collect::<Vec<_>>()
                );
            }
            let lasts = Duration::from_millis(world.chance() * 8 + 1);
            world.run(lasts);
            for via in &ways {
                world.heal(*via);
                let apart = Duration::from_millis(world.chance() / 2);
                world.run(apart);
            }
        }
    }
}

#[test]
fn of_two_relays_that_work_the_nearer_is_taken_unless_it_is_slow() {
    let (near, far) = (Via::Relay(relay(3)), Via::Relay(relay(4)));
    let mut world = World::linked(&[]);
    let detours = [(1, relay(3)), (2, relay(4))].map(|(hops, by)| Detour { hops, by });
    world
        .overlay
        .handle_input(OverlayInput::Relays(&detours), world.now);
    world.wire(far);
    world.run(Duration::from_secs(5));
    world.wire(DIRECT).open = false;
    // The nearer one answers later: nobody has talked with it.
    world.wire(near).open = false;
    world.until(far, Duration::from_secs(5));
    world.wire(near).open = true;

    world.until(near, Duration::from_secs(5));
    let switches = world.switches.len();
    world.run(Duration::from_secs(20));
    assert_eq!(world.switches.len(), switches);

    world.wire(near).delay = 40 * MS;
    world.until(far, Duration::from_secs(30));
    let switches = world.switches.len();
    world.run(Duration::from_secs(60));
    assert_eq!(world.switches.len(), switches);
}

#[test]
fn a_lossy_way_is_not_taken_for_a_dead_one() {
    // Both ways together: of 10 %, 20 % and 30 % each way, ten times ten minutes.
    for (lost, most) in [(190, 0), (360, 5), (510, 100)] {
        let switches = |seed| {
            let mut world = World::linked(&[relay(3)]);
            world.seed = seed;
            world.run(Duration::from_secs(5));
            world.wire(DIRECT).probes_lost = lost;
            world.run(Duration::from_secs(10));
            let before = world.switches.len();
            world.run(Duration::from_secs(600));
            world.switches.len() - before
        };
        let counts: Vec<usize> = (1..=10).map(switches).collect();
        assert!(counts.iter().sum::<usize>() <= most, "{lost}: {counts:?}");
    }
}

#[test]
fn one_lost_probe_moves_nothing() {
    let mut world = World::linked(&[relay(3)]);
    world.run(Duration::from_secs(5));
    let switches = world.switches.len();
    for _ in 0..100 {
        world.wire(DIRECT).open = false;
        world.run(BUSY_PROBES);
        world.wire(DIRECT).open = true;
        world.run(Duration::from_millis(777));
    }

    assert_eq!(world.switches.len(), switches);
}

#[test]
fn where_nothing_relays_the_control_connections_carry() {
    let mut world = World::linked(&[]);
    world.run(Duration::from_secs(1));

    world.wire(DIRECT).open = false;

    world.until(Via::Control, Duration::from_secs(1));
    assert!(world.punches > 0 || world.overlay.wants_punch(world.now));
}

#[test]
fn a_relay_that_loses_one_in_a_hundred_is_left_within_a_second() {
    let mut world = World::linked(&[relay(3), relay(4)]);
    world.wire(DIRECT).open = false;
    world.until(Via::Relay(relay(3)), Duration::from_secs(2));
    world.run(Duration::from_secs(3));

    world.wire(Via::Relay(relay(3))).lost = 10;
    let left = world.until(Via::Relay(relay(4)), Duration::from_secs(2));

    assert!(left <= Duration::from_secs(1), "{left:?}");
    assert!(matches!(
        world.switches.last(),
        Some(Switch { reason: Reason::Lossy(Via::Relay(node), loss), .. })
            if *node == relay(3) && *loss > 0.003
    ));
}

#[test]
fn a_relay_that_holds_everything_back_is_left_within_a_second() {
    let mut world = World::linked(&[relay(3), relay(4)]);
    world.wire(DIRECT).open = false;
    world.until(Via::Relay(relay(3)), Duration::from_secs(2));
    world.run(Duration::from_secs(3));

    world.wire(Via::Relay(relay(3))).delay = 300 * MS;
    let left = world.until(Via::Relay(relay(4)), Duration::from_secs(2));

    assert!(left <= Duration::from_secs(1), "{left:?}");
}

#[test]
fn a_path_that_shrinks_is_found_out_within_three_seconds() {
    for after in 0..20 {
        let mut world = World::linked(&[relay(3)]);
        world.run(Duration::from_secs(2) + after * 51 * MS);

        world.wire(DIRECT).largest = 1252;
        let start = world.now;
        while world.overlay.path().unwrap().datagram > 1252 {
            world.run(5 * MS);
            assert!(world.now - start < Duration::from_secs(3));
        }
        world.run(Duration::from_secs(2));

        assert_eq!(world.overlay.path().unwrap().datagram, 1252);
        assert_eq!(world.via(), Some(DIRECT));
    }
}

#[test]
fn a_quiet_peer_is_not_probed() {
    let mut world = World::linked(&[relay(3)]);
    world.run(Duration::from_secs(2));
    world.rate = 0;
    world.run(ACTIVE + Duration::from_secs(1));

    let probes = world.probes;
    world.run(Duration::from_secs(600));

    assert_eq!(world.probes, probes);
}

#[test]
fn probes_of_a_busy_peer_weigh_little() {
    let mut world = World::linked(&[relay(3)]);
    world.run(Duration::from_secs(5));

    let probes = world.probes;
    world.run(Duration::from_secs(60));

    // Eleven a second, and what is asked about the size.
    assert!(world.probes - probes <= 680, "{}", world.probes - probes);
}

#[test]
fn a_way_that_comes_and_goes_is_not_followed() {
    let mut world = World::linked(&[relay(3)]);
    for _ in 0..60 {
        world.run(Duration::from_millis(600));
        let wire = world.wire(DIRECT);
        wire.open = !wire.open;
    }
    assert!(world.switches.len() <= 12, "{}", world.switches.len());

    world.wire(DIRECT).open = true;
    world.until(DIRECT, Duration::from_secs(5));
}

#[test]
fn an_address_that_an_authentic_datagram_came_from_is_tried_and_taken() {
    let mut world = World::new(
        &Known {
            control: true,
            ..Known::default()
        },
        &[relay(3)],
    );
    world.run(Duration::from_secs(1));
    assert_eq!(world.via(), Some(Via::Relay(relay(3))));

    let seen: SocketAddr = "198.51.100.7:40000".parse().unwrap();
    world.wires.insert(Via::Direct(seen), WIRE);
    world
        .overlay
        .handle_input(OverlayInput::Heard(seen), world.now);

    world.until(Via::Direct(seen), Duration::from_secs(1));
}

#[test]
fn without_a_session_nothing_is_asked_and_nothing_is_held_against_a_way() {
    let mut world = World::linked(&[relay(3)]);
    world.run(Duration::from_secs(1));
    world
        .overlay
        .handle_input(OverlayInput::Session(false), world.now);
    world.wire(DIRECT).open = false;

    let probes = world.probes;
    world.run(Duration::from_secs(30));

    assert_eq!(world.probes, probes);
    assert_eq!(world.via(), Some(DIRECT));
}

#[test]
fn a_young_link_gets_its_time_and_a_mute_one_is_left() {
    let Via::Direct(address) = DIRECT else {
        unreachable!("it is direct")
    };
    let known = Known {
        link: LinkState::Trying(address),
        addresses: vec![address],
        control: true,
    };
    let mut world = World::new(&known, &[]);
    assert_eq!(world.via(), Some(DIRECT));
    world.wire(DIRECT).open = false;

    let took = world.until(Via::Control, Duration::from_secs(2));

    assert!(took <= YOUNG + 100 * MS, "{took:?}");
    assert!(world.now - world.start >= 200 * MS);
}

#[test]
fn a_router_that_answers_each_probe_that_is_too_large_draws_no_more_of_them() {
    let Via::Direct(address) = DIRECT else {
        unreachable!("it is direct")
    };
    let mut world = World::linked(&[relay(3)]);
    world.run(Duration::from_secs(2));
    world.wire(DIRECT).largest = 1252;

    let (start, probes) = (world.now, world.probes);
    while world.overlay.path().unwrap().datagram > 1252 {
        world.overlay.handle_input(
            OverlayInput::TooBig {
                to: address,
                datagram: 1252,
            },
            world.now,
        );
        world.run(5 * MS);
        assert!(world.now - start < Duration::from_secs(3));
    }

    assert!(world.probes - probes < 60, "{}", world.probes - probes);
}

/// A peer that no link leads to, at an address that it has told.
fn unlinked() -> World {
    let Via::Direct(address) = DIRECT else {
        unreachable!("it is direct")
    };
    let known = Known {
        addresses: vec![address],
        control: true,
        ..Known::default()
    };
    let mut world = World::new(&known, &[relay(3)]);
    world.until(DIRECT, Duration::from_secs(3));
    world
}

#[test]
fn a_quiet_peer_without_a_link_is_kept_reachable_by_a_probe_now_and_then() {
    let mut world = unlinked();
    world.rate = 0;
    world.run(ACTIVE + Duration::from_secs(1));

    let probes = world.probes;
    world.run(Duration::from_secs(3600));

    // The mapping bears all: at most two minutes apart.
    let count = world.probes - probes;
    assert!((33..=45).contains(&count), "{count}");
    assert_eq!(world.via(), Some(DIRECT));
}

#[test]
fn a_quiet_peer_whose_mapping_is_lost_is_sought_at_once() {
    let mut world = unlinked();
    world.rate = 0;
    world.run(Duration::from_secs(120));
    let punches = world.punches;

    world.wire(DIRECT).open = false;
    world.run(Duration::from_secs(60));
    assert!(world.punches > punches);
    assert_ne!(world.via(), Some(DIRECT));
}

#[test]
fn whoever_was_heard_makes_the_other_wait() {
    let Via::Direct(address) = DIRECT else {
        unreachable!("it is direct")
    };
    let mut world = unlinked();
    world.rate = 0;
    world.run(ACTIVE + Duration::from_secs(1));

    let probes = world.probes;
    for _ in 0..100 {
        world
            .overlay
            .handle_input(OverlayInput::Heard(address), world.now);
        world.run(Duration::from_secs(10));
    }

    assert_eq!(world.probes, probes);
}

#[test]
fn chatter_asks_for_no_probes_where_heartbeats_go_by_the_way_in_use() {
    let quiet = |link: LinkState| {
        let Via::Direct(address) = DIRECT else {
            unreachable!("it is direct")
        };
        let known = Known {
            link,
            addresses: vec![address],
            control: true,
        };
        let mut world = World::new(&known, &[relay(3)]);
        world.run(20 * ACTIVE);
        world.rate = 0;
        world.run(20 * ACTIVE);
        world
    };
    let chat = |world: &mut World| {
        let before = world.probes;
        for _ in 0..60 {
            world.overlay.handle_input(OverlayInput::Chatter, world.now);
            world.run(Duration::from_secs(1));
        }
        world.probes - before
    };
    let Via::Direct(address) = DIRECT else {
        unreachable!("it is direct")
    };

    let mut linked = quiet(LinkState::Passes(address));
    assert_eq!((linked.via(), chat(&mut linked)), (Some(DIRECT), 0));

    // The heartbeats stop: another way is taken at once, and looked after.
    linked.wire(DIRECT).open = false;
    let known = Known {
        link: LinkState::Silent,
        addresses: vec![address],
        control: true,
    };
    linked
        .overlay
        .handle_input(OverlayInput::Known(known), linked.now);
    linked.run(MS);
    assert_eq!(linked.via(), Some(Via::Relay(relay(3))));
    assert!(chat(&mut linked) >= 200);

    // Nobody else tells how a peer without a link is reached.
    let mut unlinked = quiet(LinkState::Silent);
    assert_eq!(unlinked.via(), Some(DIRECT));
    assert!(chat(&mut unlinked) >= 200);
    unlinked.wire(DIRECT).open = false;
    for _ in 0..2 {
        unlinked
            .overlay
            .handle_input(OverlayInput::Chatter, unlinked.now);
        unlinked.run(Duration::from_millis(500));
    }
    assert_eq!(unlinked.via(), Some(Via::Relay(relay(3))));
}

#[test]
fn what_was_lost_is_not_told_of_a_way_once_nobody_measures_it() {
    let Via::Direct(address) = DIRECT else {
        unreachable!("it is direct")
    };
    let known = |link| Known {
        link,
        addresses: vec![address],
        control: true,
    };
    let loss = |world: &World| world.overlay.report().unwrap().loss;
    let mut world = World::new(&known(LinkState::Passes(address)), &[]);
    world.run(Duration::from_secs(20));
    assert_eq!(loss(&world), Some(0.0));

    // It is cut, the frames cease, and it heals when nobody asks any more.
    world.wire(DIRECT).open = false;
    world.run(Duration::from_secs(5));
    let silent = OverlayInput::Known(known(LinkState::Silent));
    world.overlay.handle_input(silent, world.now);
    world.rate = 0;
    world.run(2 * ACTIVE);
    assert_eq!(loss(&world), None);
    world.wire(DIRECT).open = true;
    let passes = OverlayInput::Known(known(LinkState::Passes(address)));
    world.overlay.handle_input(passes, world.now);
    world.overlay.handle_input(OverlayInput::Traffic, world.now);

    assert_eq!(world.via(), Some(DIRECT));
    assert_eq!(loss(&world), Some(0.0));
}

#[test]
fn a_way_that_heals_just_before_the_frames_cease_is_used_for_its_heartbeats() {
    let Via::Direct(address) = DIRECT else {
        unreachable!("it is direct")
    };
    let mut known = Known {
        link: LinkState::Passes(address),
        addresses: vec![address],
        control: true,
    };
    let mut world = World::new(&known, &[]);
    world.run(Duration::from_secs(5));
    world.wire(DIRECT).open = false;
    world.run(Duration::from_secs(5));
    known.link = LinkState::Silent;
    world
        .overlay
        .handle_input(OverlayInput::Known(known.clone()), world.now);
    world.rate = 0;
    world.run(ACTIVE - 10 * MS);
    assert_eq!(world.via(), Some(Via::Control));

    known.link = LinkState::Passes(address);
    world
        .overlay
        .handle_input(OverlayInput::Known(known), world.now);
    world.run(Duration::from_secs(1));

    assert_eq!(world.via(), Some(DIRECT));
    assert!(world.overlay.report().unwrap().works);
}

#[test]
fn a_way_that_fails_each_time_it_is_used_is_tried_ever_more_seldom() {
    // It passes probes until frames take it, as a network that runs over the mesh does: they would be its own.
    let mut world = World::linked(&[relay(3)]);
    world.run(Duration::from_secs(1));
    let tries = |world: &mut World, time: Duration| {
        let (end, before) = (world.now + time, world.switches.len());
        while world.now < end {
            world.wire(DIRECT).open = world.via() != Some(DIRECT);
            world.run(20 * MS);
        }
        world.switches.len() - before
    };

    let (first, last) = (
        tries(&mut world, Duration::from_secs(60)),
        tries(&mut world, Duration::from_secs(1200)),
    );

    assert!(first <= 12, "{first}");
    assert!(last <= 12, "{last}");
    // Once it does not, it is used, and stays in use.
    world.wire(DIRECT).open = true;
    world.until(DIRECT, Duration::from_secs(601));
    world.run(Duration::from_secs(100));
    assert_eq!(world.via(), Some(DIRECT));
}
