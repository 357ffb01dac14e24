//! Members of a line that relay for each other: what passes, what is refused, and what is counted.
//!
//! Needs root; says so and passes without.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and looks for one kind of report"
)]

mod common;
mod line;

use std::net::UdpSocket as StdUdp;
use std::time::Duration;

use common::{PATIENCE, receive, sealed, stream};
use line::{DIRECT, Host, LEFT, MIDDLE, PORT, RIGHT, Who, drops, line};
use weft_kernel::packet::{Direction as Heading, Options as PacketOptions, PacketSocket};
use weft_router::worker::Report;
use weft_router_proto::crypto::seal::{Backend, TAG};
use weft_router_proto::io::DataPlane;
use weft_router_proto::overlay::{RELAY_CONTROL_LANE, Via};
use weft_router_proto::sleeve::bundle;
use weft_router_proto::sleeve::lane::SendLane;
use weft_router_proto::sleeve::payload::{self, Kind};
use weft_router_proto::sleeve::relayed::{self, Relayed};
use weft_router_proto::switch::DropReason;
use weft_types::{NodeId, Segment};

const FARTHER: Who = Who(3);

#[test]
fn a_stream_over_a_relay_arrives_whole_and_the_relay_counts_it() {
    let Some([left, middle, right]) = line() else {
        return;
    };
    let tap = middle
        .netns
        .run(|| PacketSocket::open("weft", &PacketOptions::capture()).unwrap())
        .unwrap();

    stream((&left.netns, &right.netns), right.who.overlay(), 50_000_000);

    for host in [&left, &middle, &right] {
        let counters = host.workers.counters();
        assert_eq!((counters.auth_drops, counters.replay_drops), (0, 0));
    }
    let counters = middle.workers.counters();
    let [there, back] = &counters.relayed[..] else {
        panic!("{:?}", counters.relayed);
    };
    assert_eq!((there.from, there.to), (LEFT.node(), RIGHT.node()));
    assert_eq!((back.from, back.to), (RIGHT.node(), LEFT.node()));
    assert!(there.bytes > 50_000_000 && there.datagrams > 50_000_000 / u64::from(DIRECT));
    assert!(back.datagrams > 0);
    // The bridge of the relay sees none of it, but for what is for everybody.
    let mut buffer = vec![0; 1 << 16];
    while tap.wait(Duration::ZERO).unwrap() {
        let received = tap.recv(&mut buffer).unwrap();
        assert!(received.frame.starts_with(&[0xff; 6]), "{received:?}");
    }
}

#[test]
fn a_stream_passes_two_relays_and_each_counts_what_it_got_from_whom() {
    let Some([left, middle, right, farther]) = line() else {
        return;
    };

    stream(
        (&left.netns, &farther.netns),
        farther.who.overlay(),
        20_000_000,
    );

    for host in [&left, &middle, &right, &farther] {
        let counters = host.workers.counters();
        assert_eq!((counters.auth_drops, counters.replay_drops), (0, 0));
    }
    // Address resolution is for everybody, and crosses other pairs.
    let (there, back) = (FARTHER.node(), LEFT.node());
    let carried = |host: &Host| {
        let relayed = host.workers.counters().relayed;
        let pairs = relayed.iter().map(|one| (one.from, one.to));
        pairs
            .filter(|(_, to)| [there, back].contains(to))
            .collect::<Vec<_>>()
    };
    assert_eq!(carried(&middle), [(back, there), (RIGHT.node(), back)]);
    assert_eq!(carried(&right), [(MIDDLE.node(), there), (there, back)]);
}

#[test]
fn frames_of_every_size_pass_a_relay_unchanged() {
    let Some([left, _middle, right]) = line() else {
        return;
    };
    let (here, there) = (left.socket(7), right.socket(7));
    let mut buffer = [0; 4000];
    for len in [0, 1, 100, 1200, 1322, 1323, 3000] {
        let bytes: Vec<u8> = (0..=250).cycle().skip(len).take(len).collect();
        here.send_to(&bytes, (RIGHT.overlay(), 7)).unwrap();

        let got = receive(&there, &mut buffer).0;
        assert_eq!(buffer[..got], bytes);
    }
}

#[test]
fn a_session_with_the_relay_is_asked_for_where_there_is_none() {
    let Some([mut left, _middle, _right]) = line() else {
        return;
    };
    left.workers.command(DataPlane::Retire {
        index: LEFT.keys(MIDDLE).local,
    });
    let socket = left.socket(7);
    socket.send_to(b"lost", (RIGHT.overlay(), 7)).unwrap();

    let wanted = left.hear(|report| match report {
        Report::SessionWanted { peer } => Some(peer),
        _ => None,
    });
    assert_eq!(wanted, MIDDLE.node());
    left.until(|counters| drops(counters, DropReason::NoSession) > 0);
}

/// The left member, whose every datagram the test makes by hand: the workers of the middle one take it for the real one.
struct ByHand {
    outer: SendLane,
    inner: SendLane,
    socket: StdUdp,
}

impl ByHand {
    fn new(left: &Host) -> Self {
        let lane = |peer: Who, lane| SendLane::new(&LEFT.keys(peer), lane, Backend::AwsLc);
        Self {
            outer: lane(MIDDLE, RELAY_CONTROL_LANE),
            inner: lane(RIGHT, 1),
            socket: left
                .netns
                .run(|| StdUdp::bind("0.0.0.0:0").unwrap())
                .unwrap(),
        }
    }

    /// A frame for the right member, sealed for it.
    fn frame(&mut self) -> Vec<u8> {
        let mut frame = RIGHT.mac().as_bytes().to_vec();
        frame.extend(LEFT.mac().as_bytes());
        frame.extend([0x12, 0x34]);
        frame.extend([0xa7; 46]);
        let head = payload::encode(Kind::Frames, Segment::DEFAULT);
        let record = bundle::encode(frame.len(), None).unwrap();
        sealed(&mut self.inner, &[&head, &record, &frame])
    }

    /// Puts it into a datagram for the middle member.
    fn wrapped(&mut self, relayed: Relayed, carried: &[u8]) -> Vec<u8> {
        let mut datagram = [&[0; relayed::ROOM], carried, &[0; TAG]].concat();
        relayed.seal(&mut datagram, &mut self.outer).unwrap();
        datagram
    }

    fn send(&self, datagram: &[u8]) {
        self.socket
            .send_to(datagram, MIDDLE.underlay(LEFT))
            .unwrap();
    }

    fn relay(&mut self, relayed: Relayed, carried: &[u8]) {
        let datagram = self.wrapped(relayed, carried);
        self.send(&datagram);
    }
}

const TO_RIGHT: fn() -> Relayed = || Relayed::towards(RIGHT.node());

fn arrived(host: &Host, from: Who) -> impl Fn(u64) + '_ {
    move |count| {
        host.until(|counters| {
            let found = counters.peers.iter().find(|(node, _)| *node == from.node());
            found.is_some_and(|(_, peer)| peer.rx_datagrams == count)
        });
    }
}

#[test]
fn a_relay_passes_on_as_often_as_it_may_and_never_back() {
    let Some([left, middle, right]) = line() else {
        return;
    };
    let mut hand = ByHand::new(&left);
    let frame = hand.frame();
    let last = Relayed {
        hops: 1,
        ..TO_RIGHT()
    };
    hand.relay(last, &frame);
    arrived(&right, LEFT)(1);

    let spent = Relayed {
        hops: 0,
        ..TO_RIGHT()
    };
    let frame = hand.frame();
    hand.relay(spent, &frame);
    middle.dropped(DropReason::RelayHops, 1);

    hand.relay(Relayed::towards(LEFT.node()), &frame);
    middle.dropped(DropReason::RelayReturn, 1);
    hand.relay(Relayed::towards(NodeId::new([9; 32])), &frame);
    middle.dropped(DropReason::RelayUnknown, 1);

    // The middle one would itself send by the left one.
    middle.switch(2, RIGHT, Via::Relay(LEFT.node()));
    hand.relay(TO_RIGHT(), &frame);
    middle.dropped(DropReason::RelayReturn, 2);
    middle.switch(3, RIGHT, Via::Control);
    hand.relay(TO_RIGHT(), &frame);
    middle.dropped(DropReason::NoRelay, 1);

    // What was refused is no reason to refuse what follows.
    middle.switch(4, RIGHT, Via::Direct(RIGHT.underlay(MIDDLE)));
    hand.relay(TO_RIGHT(), &frame);
    arrived(&right, LEFT)(2);
    assert_eq!(middle.workers.counters().relayed[0].datagrams, 2);
}

#[test]
fn a_relayed_datagram_that_is_replayed_anywhere_is_neither_delivered_nor_sent_on() {
    let Some([left, middle, right]) = line() else {
        return;
    };
    let tap = right
        .netns
        .run(|| PacketSocket::open("left", &PacketOptions::capture()).unwrap())
        .unwrap();
    let mut hand = ByHand::new(&left);
    let frame = hand.frame();
    let relayed = hand.wrapped(TO_RIGHT(), &frame);
    hand.send(&relayed);
    arrived(&right, LEFT)(1);

    // On the first hop.
    hand.send(&relayed);
    middle.until(|counters| counters.replay_drops == 1);
    // On the second hop: what the cable carried, sent to the right one again, by somebody on its host.
    let mut buffer = vec![0; 1 << 16];
    let captured = loop {
        assert!(tap.wait(PATIENCE).unwrap());
        let received = tap.recv(&mut buffer).unwrap();
        let udp = received.frame.get(42..).unwrap_or_default();
        if received.direction == Heading::Incoming && udp.len() == relayed.len() {
            break udp.to_vec();
        }
    };
    let stranger = right.netns.run(|| StdUdp::bind("127.0.0.1:0").unwrap());
    let stranger = stranger.unwrap();
    stranger.send_to(&captured, ("127.0.0.1", PORT)).unwrap();
    right.until(|counters| counters.replay_drops == 1);
    // The inside by itself, and once more through the relay by the one that has sent it.
    stranger.send_to(&frame, ("127.0.0.1", PORT)).unwrap();
    right.until(|counters| counters.replay_drops == 2);
    hand.relay(TO_RIGHT(), &frame);
    right.until(|counters| counters.replay_drops == 3);

    arrived(&right, LEFT)(1);
    assert_eq!(middle.workers.counters().relayed[0].datagrams, 2);
    assert_eq!(right.workers.counters().auth_drops, 0);
}

#[test]
fn what_was_changed_on_the_way_is_counted_where_it_would_be_opened() {
    let Some([left, middle, right]) = line() else {
        return;
    };
    let mut hand = ByHand::new(&left);
    let mut frame = hand.frame();
    let at = frame.len() - 20;
    frame[at] ^= 1;
    hand.relay(TO_RIGHT(), &frame);

    right.until(|counters| counters.auth_drops == 1);
    assert_eq!(middle.workers.counters().auth_drops, 0);

    let relayed = hand.wrapped(TO_RIGHT(), &frame);
    let mut changed = relayed.clone();
    changed[at] ^= 1;
    hand.send(&changed);
    middle.until(|counters| counters.auth_drops == 1);
    assert_eq!(right.workers.counters().auth_drops, 1);
}

#[test]
fn nothing_is_relayed_within_what_is_relayed() {
    let Some([left, _middle, right]) = line() else {
        return;
    };
    let mut hand = ByHand::new(&left);
    let frame = hand.frame();
    // For the right one, in it for the right one again.
    let mut within = [&[0; relayed::ROOM], &frame[..], &[0; TAG]].concat();
    TO_RIGHT().seal(&mut within, &mut hand.inner).unwrap();
    hand.relay(TO_RIGHT(), &within);

    right.dropped(DropReason::Nested, 1);
}
