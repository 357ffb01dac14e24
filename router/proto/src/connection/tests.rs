use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::crypto::seeded::SeededCrypto;
use crate::virtual_time::origin;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 6783))
}

enum Packet {
    Datagram(Vec<u8>),
    Heartbeat(Heartbeat),
    Keys(LinkKeys),
}

/// Two ends of one link, numbered 0 and 1, and the network between them.
struct Pair {
    start: Instant,
    now: Instant,
    crypto: SeededCrypto,
    ends: [Link; 2],
    addresses: [SocketAddr; 2],
    /// By (time, order of sending): which end it is for.
    flying: BTreeMap<(Instant, u64), (usize, Packet)>,
    sent: u64,
    delay: Duration,
    /// Whether datagrams sent by an end pass.
    udp: [bool; 2],
    tcp: bool,
    /// Of a hundred datagrams, how many are lost.
    loss: u64,
    events: [Vec<(Duration, LinkOutput)>; 2],
    datagrams: Vec<Vec<u8>>,
}

impl Pair {
    fn new(delay: Duration) -> Self {
        let (start, mut crypto) = (origin(), SeededCrypto::new(7));
        let addresses = [address(1), address(2)];
        let ends = [1, 0].map(|peer: usize| Link::new(addresses[peer], &mut crypto, start));
        Self {
            start,
            now: start,
            crypto,
            ends,
            addresses,
            flying: BTreeMap::new(),
            sent: 0,
            delay,
            udp: [true; 2],
            tcp: true,
            loss: 0,
            events: [Vec::new(), Vec::new()],
            datagrams: Vec::new(),
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            (0..2).for_each(|end| self.drain(end));
            let wake = self.ends.iter().filter_map(Link::poll_timeout).min();
            let arrival = self.flying.keys().next().map(|&(at, _)| at);
            let Some(next) = wake.map(|(at, _)| at).into_iter().chain(arrival).min() else {
                break;
            };
            if next > end {
                break;
            }
            assert!(next >= self.now, "a deadline lies in the past");
            self.now = next;
            while let Some(first) = self
                .flying
                .first_entry()
                .filter(|first| first.key().0 <= next)
            {
                let (to, packet) = first.remove();
                self.deliver(to, packet);
            }
            for end in &mut self.ends {
                end.handle_timeout(&mut self.crypto, next);
                let later = end.poll_timeout().is_none_or(|(at, _)| at > next);
                assert!(later, "a wake-up leaves a deadline behind");
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, to: usize, packet: Packet) {
        let now = self.now;
        match packet {
            Packet::Datagram(mut bytes) => {
                let from = self.addresses[1 - to];
                let _ = self.ends[to].handle_datagram(from, &mut bytes, now);
            }
            Packet::Heartbeat(heartbeat) => self.ends[to].handle_heartbeat(&heartbeat, now),
            Packet::Keys(keys) => self.ends[to].handle_keys(&keys, now),
        }
        self.drain(to);
    }

    fn drain(&mut self, end: usize) {
        while let Some(output) = self.ends[end].poll_output() {
            match output {
                LinkOutput::SendDatagram { to, bytes } => {
                    self.datagrams.push(bytes.clone());
                    let lost = (&mut self.crypto as &mut dyn Crypto).below(100) < self.loss;
                    if self.udp[end] && !lost && to == self.addresses[1 - end] {
                        self.fly(end, Packet::Datagram(bytes));
                    }
                }
                LinkOutput::SendHeartbeat(heartbeat) if self.tcp => {
                    self.fly(end, Packet::Heartbeat(heartbeat));
                }
                LinkOutput::SendKeys(keys) if self.tcp => self.fly(end, Packet::Keys(keys)),
                LinkOutput::SendHeartbeat(_) | LinkOutput::SendKeys(_) => {}
                LinkOutput::AdmitLink(_)
                | LinkOutput::Down(_)
                | LinkOutput::RetireLink(_)
                | LinkOutput::UdpSilent
                | LinkOutput::UdpWorks(_)
                | LinkOutput::Up { .. } => self.events[end].push((self.now - self.start, output)),
            }
        }
    }

    fn fly(&mut self, from: usize, packet: Packet) {
        self.sent += 1;
        self.flying
            .insert((self.now + self.delay, self.sent), (1 - from, packet));
    }

    /// Takes the events of one end, without those about indexes.
    fn events(&mut self, end: usize) -> Vec<LinkOutput> {
        let about_index = |output: &LinkOutput| {
            matches!(output, LinkOutput::AdmitLink(_) | LinkOutput::RetireLink(_))
        };
        std::mem::take(&mut self.events[end])
            .into_iter()
            .map(|(_, output)| output)
            .filter(|output| !about_index(output))
            .collect()
    }

    fn carriers(&self) -> [Option<Carrier>; 2] {
        [0, 1].map(|end: usize| self.ends[end].carrier())
    }
}

const BY_UDP: [Option<Carrier>; 2] = [Some(Carrier::ByUdp); 2];
const BY_TCP: [Option<Carrier>; 2] = [Some(Carrier::ByTcp); 2];

#[test]
fn a_link_is_up_and_by_udp_after_two_round_trips() {
    let mut pair = Pair::new(ms(10));

    pair.run(ms(41));

    for end in 0..2 {
        assert_eq!(
            pair.events(end),
            [
                LinkOutput::Up { rtt: ms(20) },
                LinkOutput::UdpWorks(pair.addresses[1 - end])
            ]
        );
        assert!(pair.ends[end].is_up());
    }
    assert_eq!(pair.carriers(), BY_UDP);
}

#[test]
fn a_quiet_link_costs_what_it_may_and_never_falls() {
    let mut pair = Pair::new(ms(10));
    pair.run(ms(3000));
    pair.datagrams.clear();
    pair.sent = 0;

    pair.run(ms(60_000));

    assert_eq!(
        pair.sent, 218,
        "eleven in six seconds each way, and nothing by TCP"
    );
    assert!(pair.datagrams.iter().all(|bytes| bytes.len() == 44));
    assert_eq!(pair.ends[0].rtt(), Some(ms(20)));
    assert_eq!(pair.ends[0].loss(), 0.0);
    assert_eq!(pair.carriers(), BY_UDP);
}

#[test]
fn a_dead_peer_is_given_up_within_a_second() {
    let mut pair = Pair::new(ms(1));
    pair.run(ms(5000));
    pair.events(0);
    (pair.udp, pair.tcp) = ([false; 2], false);

    pair.run(ms(1000));

    assert_eq!(pair.events(0), [LinkOutput::Down(DownReason::Silent)]);
    assert_eq!(pair.ends[0].poll_timeout(), None);
}

#[test]
fn a_closed_connection_is_the_end_at_once_and_its_indexes_are_retired() {
    let mut pair = Pair::new(ms(1));
    pair.run(ms(5000));
    let Some((_, LinkOutput::AdmitLink(index))) = pair.events[0].first().cloned() else {
        panic!("a link begins with its index");
    };
    assert!(pair.ends[0].owns(index));

    pair.ends[0].handle_closed();

    assert_eq!(
        std::iter::from_fn(|| pair.ends[0].poll_output()).collect::<Vec<_>>(),
        [
            LinkOutput::RetireLink(index),
            LinkOutput::Down(DownReason::Closed)
        ]
    );
    assert!(!pair.ends[0].owns(index));
}

#[test]
fn blocked_datagrams_are_told_of_and_the_link_lives_by_tcp() {
    let mut pair = Pair::new(ms(10));
    pair.udp = [false; 2];

    pair.run(ms(60_000));

    for end in 0..2 {
        assert_eq!(
            pair.events(end),
            [LinkOutput::Up { rtt: ms(20) }, LinkOutput::UdpSilent]
        );
    }
    assert_eq!(pair.carriers(), BY_TCP);
}

#[test]
fn one_way_that_is_blocked_moves_both_ends_to_tcp_and_back() {
    for blocked in 0..2 {
        let mut pair = Pair::new(ms(10));
        pair.run(ms(5000));
        pair.events(0);
        pair.events(1);
        pair.udp[blocked] = false;

        // A second until the deaf end goes to TCP, three in which its trials are heard, and one more.
        pair.run(ms(5500));

        assert_eq!(pair.carriers(), BY_TCP);
        assert_eq!(pair.events(0), [LinkOutput::UdpSilent]);
        assert_eq!(pair.events(1), [LinkOutput::UdpSilent]);

        pair.run(ms(20_000));
        pair.udp[blocked] = true;
        pair.run(ms(5000));

        assert_eq!(pair.carriers(), BY_UDP, "back within 5 s");
        assert!((0..2).all(|end| pair.ends[end].is_up()));
        assert_eq!(pair.events(0).len(), 1);
    }
}

#[test]
fn a_flapping_path_changes_carriers_and_never_ends_the_link() {
    let mut pair = Pair::new(ms(10));
    for round in 0..50 {
        pair.udp = [round % 2 == 0; 2];
        pair.run(ms(730));
    }
    pair.udp = [true; 2];
    pair.run(ms(6000));

    assert_eq!(pair.carriers(), BY_UDP);
    let changes = pair.events(0).len();
    assert!(changes <= 12, "{changes} changes in 36 s");
}

#[test]
fn a_fifth_lost_ends_no_link_and_is_measured() {
    let mut pair = Pair::new(ms(30));
    pair.loss = 20;

    pair.run(ms(600_000));

    for end in 0..2 {
        assert!(pair.ends[end].is_up());
        assert!((0.05..0.4).contains(&pair.ends[end].loss()));
    }
}

#[test]
fn keys_are_renewed_without_losing_a_datagram() {
    let mut pair = Pair::new(ms(40));

    pair.run(ms(400_000));

    let admitted = |output: &(Duration, LinkOutput)| matches!(output.1, LinkOutput::AdmitLink(_));
    let retired = |output: &(Duration, LinkOutput)| matches!(output.1, LinkOutput::RetireLink(_));
    assert_eq!(pair.events[0].iter().filter(|e| admitted(e)).count(), 4);
    assert_eq!(pair.events[0].iter().filter(|e| retired(e)).count(), 3);
    assert_eq!(pair.ends[0].loss(), 0.0);
    assert_eq!(pair.ends[0].forged() + pair.ends[0].replayed(), 0);
    assert_eq!(pair.carriers(), BY_UDP);
}

#[test]
fn stamps_begin_again_every_71_minutes_and_nobody_notices() {
    let mut pair = Pair::new(ms(10));
    pair.run(ms(5000));
    pair.events(0);

    pair.run(Duration::from_secs(2 * 3600));

    assert_eq!(pair.ends[0].rtt(), Some(ms(20)));
    assert_eq!(pair.ends[0].loss(), 0.0);
    assert_eq!(pair.events(0), []);
    assert_eq!(pair.carriers(), BY_UDP);
}

#[test]
fn a_peer_that_moves_is_followed() {
    let mut pair = Pair::new(ms(10));
    pair.run(ms(3000));
    pair.events(1);
    pair.addresses[0] = address(9);

    pair.run(ms(3000));

    assert_eq!(pair.events(1), [LinkOutput::UdpWorks(address(9))]);
    assert_eq!(pair.ends[1].endpoint(), Some(address(9)));
    assert_eq!(pair.carriers(), BY_UDP);
}

#[test]
fn every_replayed_and_every_forged_datagram_is_counted_and_draws_nothing() {
    let mut pair = Pair::new(ms(10));
    pair.run(ms(3250));
    let (now, from, sent) = (pair.now, address(66), pair.datagrams.clone());
    // An end does not know the index of what it sent itself, so of all datagrams half are forged for it.
    for bytes in &sent {
        for _ in 0..3 {
            assert!(
                pair.ends[0]
                    .handle_datagram(from, &mut bytes.clone(), now)
                    .is_err()
            );
        }
        for bit in [0, 33, 64, 130, bytes.len() * 8 - 1] {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let refused = pair.ends[0].handle_datagram(from, &mut damaged, now);
            assert_eq!(refused, Err(LinkError::Inauthentic));
        }
    }

    let counted = pair.ends[0].forged() + pair.ends[0].replayed();
    assert_eq!(counted, 8 * u64::try_from(sent.len()).unwrap());
    assert!(pair.ends[0].replayed() > 0);
    assert!(pair.ends[0].poll_output().is_none());
    assert_eq!(pair.ends[0].endpoint(), Some(address(2)));
}

#[test]
fn no_prefix_of_a_datagram_is_taken() {
    let mut pair = Pair::new(ms(10));
    pair.run(ms(3250));
    pair.udp = [false; 2];
    let before = pair.datagrams.len();
    pair.run(ms(500));
    let (now, from) = (pair.now, address(2));
    let lost = pair.datagrams.split_off(before);

    for bytes in &lost {
        for len in 0..bytes.len() {
            let mut prefix = bytes[..len].to_vec();
            let refused = pair.ends[0].handle_datagram(from, &mut prefix, now);
            assert_eq!(refused, Err(LinkError::Inauthentic));
        }
    }

    let mut taken = |bytes: &Vec<u8>| {
        let mut whole = bytes.clone();
        pair.ends[0].handle_datagram(from, &mut whole, now).is_ok()
    };
    assert!(lost.iter().any(&mut taken), "whole ones are");
}

#[test]
fn a_peer_that_asks_without_end_is_answered_with_moderation() {
    let (now, mut crypto) = (origin(), SeededCrypto::new(1));
    let mut link = Link::new(address(2), &mut crypto, now);
    while link.poll_output().is_some() {}
    let asks = Heartbeat {
        wants_answer: true,
        stamp: 1,
        echo: 0,
        hold: 0,
        needed: true,
    };

    for _ in 0..1000 {
        link.handle_heartbeat(&asks, now);
    }

    assert_eq!(std::iter::from_fn(|| link.poll_output()).count(), 1);
}

#[test]
fn a_clock_that_leaps_gives_the_peer_time_to_answer() {
    let mut pair = Pair::new(ms(10));
    pair.run(ms(5000));
    let leap = Duration::from_secs(86_400);
    for flying in std::mem::take(&mut pair.flying) {
        pair.flying
            .insert((flying.0.0 + leap, flying.0.1), flying.1);
    }
    pair.now += leap;
    let now = pair.now;
    for end in &mut pair.ends {
        end.handle_timeout(&mut pair.crypto, now);
    }

    pair.run(ms(3000));

    assert!(pair.ends.iter().all(Link::is_up));
    assert_eq!(pair.carriers(), BY_UDP);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_the_network_does_deadlines_advance_and_a_good_network_heals(
        // (datagrams there, back, connection, loss, for how long)
        phases in prop::collection::vec((any::<bool>(), any::<bool>(), 0..100_u64, 1..4000_u64), 1..20),
    ) {
        let mut pair = Pair::new(ms(15));
        for (there, back, loss, time) in phases {
            (pair.udp, pair.loss) = ([there, back], loss);
            pair.run(ms(time));
        }
        (pair.udp, pair.loss) = ([true; 2], 0);
        pair.run(ms(8000));

        // The connection was there all the time, so the link is too.
        prop_assert_eq!(pair.carriers(), BY_UDP);
    }

    #[test]
    fn random_datagrams_do_not_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..96)) {
        let (now, mut crypto) = (origin(), SeededCrypto::new(1));
        let mut link = Link::new(address(2), &mut crypto, now);

        prop_assert!(link.handle_datagram(address(2), &mut bytes, now).is_err());
    }

    #[test]
    fn random_heartbeats_do_no_harm(
        stamp: u64, echo: u64, hold: u32, wants_answer: bool, needed: bool,
    ) {
        let (now, mut crypto) = (origin(), SeededCrypto::new(1));
        let mut link = Link::new(address(2), &mut crypto, now);

        link.handle_heartbeat(&Heartbeat { wants_answer, stamp, echo, hold, needed }, now);

        prop_assert!(link.rtt().is_none_or(|rtt| rtt <= MAX_ROUND_TRIP));
    }
}
