//! The ways between the ends of a line: over relays and control connections, what probes tell of them, and switches.
//!
//! Needs root; says so and passes without.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and looks for one kind of report"
)]

mod common;
mod line;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket as StdUdp};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{PATIENCE, receive, sealed, stream};
use line::{DIRECT, Host, LEFT, MIDDLE, OVER, RIGHT, Who, drops, line};
use weft_lab::net;
use weft_router::worker::Report;
use weft_router_proto::crypto::seal::Backend;
use weft_router_proto::io::{DataPlane, Direction, PathAnswer};
use weft_router_proto::overlay::{Slot, Via};
use weft_router_proto::sleeve::lane::{OVERHEAD, SendLane};
use weft_router_proto::sleeve::path_probe::PathProbe;
use weft_router_proto::sleeve::payload::{self, Kind};
use weft_router_proto::switch::DropReason;
use weft_types::Segment;

impl Host {
    fn probe(&self, peer: Who, via: Via, slot: Option<Slot>, id: u64, datagram: u16) {
        self.workers.command(DataPlane::PathProbe {
            peer: peer.node(),
            via,
            slot,
            id,
            datagram,
        });
    }

    fn answer(&mut self) -> PathAnswer {
        self.hear(|report| match report {
            Report::PathAnswered(answer) => Some(answer),
            _ => None,
        })
    }
}

/// Carries what the ends give to the control plane, as their hubs would, until told to stop.
fn carry(left: &mut Host, right: &mut Host, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let moved = [hand_over(left, right), hand_over(right, left)];
        if !moved.contains(&true) {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

/// Whether there was anything.
fn hand_over(from: &mut Host, to: &Host) -> bool {
    let mut any = false;
    while let Ok(report) = from.reports.try_recv() {
        if let Report::ByControl { peer, datagrams } = report {
            assert_eq!(peer, to.who.node());
            let from = from.who.node();
            to.workers.command(DataPlane::Datagrams { from, datagrams });
            any = true;
        }
    }
    any
}

#[test]
fn frames_take_the_control_connections_where_nothing_else_is_left() {
    let Some([mut left, middle, mut right]) = line() else {
        return;
    };
    left.switch(2, RIGHT, Via::Control);
    right.switch(2, LEFT, Via::Control);
    let (here, there) = (left.socket(7), right.socket(7));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| carry(&mut left, &mut right, &stop));
        let mut buffer = [0; 4000];
        for len in [1, 1322, 3000] {
            let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
            here.send_to(&bytes, (RIGHT.overlay(), 7)).unwrap();
            let (got, from) = receive(&there, &mut buffer);
            assert_eq!(buffer[..got], bytes);
            there.send_to(&bytes, from).unwrap();
            let got = receive(&here, &mut buffer).0;
            assert_eq!(buffer[..got], bytes);
        }
        stop.store(true, Ordering::Relaxed);
    });

    assert_eq!(middle.workers.counters().relayed, []);
    let counters = right.workers.counters();
    assert_eq!((counters.auth_drops, counters.replay_drops), (0, 0));
}

#[test]
fn what_floods_in_over_control_connections_is_dropped_and_counted() {
    let Some([mut left, _middle, mut right]) = line() else {
        return;
    };
    let flood = DataPlane::Datagrams {
        from: LEFT.node(),
        datagrams: vec![vec![0xff; 100]; 3000],
    };

    right.workers.command(flood);

    let counters = right.until(|counters| counters.auth_drops > 0);
    let dropped = drops(&counters, DropReason::ControlFlood);
    assert_eq!(dropped, 3000 - 2048);
    right.until(|counters| counters.auth_drops == 2048);
    // Afterwards there is room again.
    left.switch(2, RIGHT, Via::Control);
    let (here, there) = (left.socket(7), right.socket(7));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| carry(&mut left, &mut right, &stop));
        here.send_to(b"after", (RIGHT.overlay(), 7)).unwrap();
        let mut buffer = [0; 100];
        let (got, _) = receive(&there, &mut buffer);
        assert_eq!(&buffer[..got], b"after");
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_stream_survives_every_switch_of_ways() {
    let Some([mut left, middle, mut right]) = line() else {
        return;
    };
    let stop = AtomicBool::new(false);
    let listener = right
        .netns
        .run(|| TcpListener::bind((RIGHT.overlay(), 5201)).unwrap())
        .unwrap();
    let mut sender = left
        .netns
        .run(|| TcpStream::connect((RIGHT.overlay(), 5201)).unwrap())
        .unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let block: Vec<u8> = (0..=250).cycle().take(251 * 1000).collect();
    for generation in 2..14 {
        let via = match generation % 2 {
            0 => Via::Control,
            _ => Via::Relay(MIDDLE.node()),
        };
        left.switch(generation, RIGHT, via);
        right.switch(generation, LEFT, via);
        stop.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| carry(&mut left, &mut right, &stop));
            let sent = block.clone();
            let sender = &mut sender;
            scope.spawn(move || sender.write_all(&sent).unwrap());
            let mut got = vec![0; block.len()];
            receiver.read_exact(&mut got).unwrap();
            stop.store(true, Ordering::Relaxed);
            assert!(got == block, "generation {generation}");
        });
    }
    // What is written before a worker has looked at its snapshot takes the way before.
    assert!(middle.workers.counters().relayed[0].bytes > 251_000);
}

#[test]
fn a_probe_comes_back_by_each_way_and_tells_what_arrived() {
    let Some([mut left, _middle, mut right]) = line() else {
        return;
    };
    let slot = Slot::default();
    let relay = Via::Relay(MIDDLE.node());
    let (here, there) = (left.socket(7), right.socket(7));
    for _ in 0..10 {
        here.send_to(&[1; 100], (RIGHT.overlay(), 7)).unwrap();
        receive(&there, &mut [0; 100]);
    }

    left.probe(RIGHT, relay, Some(slot), 1, OVER);
    let answer = left.answer();
    assert_eq!((answer.peer, answer.id), (RIGHT.node(), 1));
    assert_eq!(answer.session, LEFT.keys(RIGHT).local);
    assert_eq!(answer.seen_at, None);
    assert_eq!(answer.sent, answer.received);
    assert_eq!(answer.highest, answer.received);
    assert!(answer.received >= 10);

    left.probe(RIGHT, relay, None, 2, 0);
    let answer = left.answer();
    assert_eq!((answer.id, answer.highest, answer.received), (2, 0, 0));

    left.probe(MIDDLE, Via::Direct(MIDDLE.underlay(LEFT)), None, 3, DIRECT);
    let answer = left.answer();
    assert_eq!((answer.peer, answer.id), (MIDDLE.node(), 3));
    assert_eq!(answer.seen_at, Some(LEFT.underlay(MIDDLE)));
    assert!(answer.rtt < PATIENCE);

    left.probe(RIGHT, Via::Control, None, 4, 1200);
    let asked = left.hear(|report| match report {
        Report::ByControl { peer, datagrams } => Some((peer, datagrams)),
        _ => None,
    });
    assert_eq!(asked.0, RIGHT.node());
    let [datagram] = &asked.1[..] else {
        panic!("one datagram")
    };
    assert_eq!(datagram.len(), 1200);
    right.workers.command(DataPlane::Datagrams {
        from: LEFT.node(),
        datagrams: asked.1,
    });
    let (peer, datagrams) = right.hear(|report| match report {
        Report::ByControl { peer, datagrams } => Some((peer, datagrams)),
        _ => None,
    });
    assert_eq!(peer, LEFT.node());
    left.workers.command(DataPlane::Datagrams {
        from: RIGHT.node(),
        datagrams,
    });
    let answer = left.answer();
    assert_eq!((answer.id, answer.seen_at), (4, None));
}

#[test]
fn a_probe_that_does_not_fit_is_not_answered() {
    let Some([mut left, _middle, _right]) = line() else {
        return;
    };
    left.probe(RIGHT, Via::Relay(MIDDLE.node()), None, 1, OVER + 1);
    left.probe(RIGHT, Via::Relay(MIDDLE.node()), None, 2, OVER);

    assert_eq!(left.answer().id, 2);
    // That it does not fit is what a search asks, and no fault.
    left.dropped(DropReason::TooLong, 0);
}

#[test]
fn frames_are_said_to_travel_once_a_second_and_messages_are_not() {
    let Some([mut left, _middle, mut right]) = line() else {
        return;
    };
    let (here, there) = (left.socket(7), right.socket(7));
    for host in [&mut left, &mut right] {
        while host.reports.try_recv().is_ok() {}
    }
    let begun = Instant::now();
    for _ in 0..100 {
        here.send_to(&[1; 100], (RIGHT.overlay(), 7)).unwrap();
        receive(&there, &mut [0; 100]);
    }
    let took = begun.elapsed();
    left.workers.command(DataPlane::SessionMessage {
        peer: MIDDLE.node(),
        bytes: vec![7; 100],
    });
    left.probe(MIDDLE, Via::Direct(MIDDLE.underlay(LEFT)), None, 3, DIRECT);
    left.hear(|report| matches!(report, Report::PathAnswered(_)).then_some(()));

    let most = usize::try_from(took.as_secs()).unwrap() + 2;
    let said = |host: &mut Host, to: Who, wanted| {
        std::iter::from_fn(|| host.reports.try_recv().ok())
            .filter(|report| match report {
                Report::Traffic { peer, direction } => *peer == to.node() && *direction == wanted,
                _ => false,
            })
            .count()
    };
    let received = said(&mut right, LEFT, Direction::Received);
    assert!((1..=most).contains(&received), "{received} in {took:?}");
    assert_eq!(said(&mut left, MIDDLE, Direction::Sent), 0);
}

#[test]
fn few_small_frames_for_everybody_are_chatter_and_a_stream_of_them_is_traffic() {
    let Some([mut left, mut right]) = line() else {
        return;
    };
    let here = left.socket(7);
    here.set_broadcast(true).unwrap();
    let everybody = Ipv4Addr::new(10, 47, 255, 255);
    let chatter = |report: Report| match report {
        Report::Chatter { peer } => Some(peer),
        _ => None,
    };
    let traffic = |report: Report| match report {
        Report::Traffic { peer, .. } => Some(peer),
        _ => None,
    };

    here.send_to(&[1; 20], (everybody, 7)).unwrap();
    assert_eq!(left.hear(chatter), MIDDLE.node());
    assert_eq!(right.hear(chatter), LEFT.node());
    for _ in 0..100 {
        here.send_to(&[1; 20], (everybody, 7)).unwrap();
    }

    assert_eq!(left.hear(traffic), MIDDLE.node());
    assert_eq!(right.hear(traffic), LEFT.node());
}

/// Lets the middle host route between its cables, the right one of which takes 1300 bytes.
fn routed(left: &Host, middle: &Host, right: &Host) -> SocketAddr {
    net::sysctl(&middle.netns, "net.ipv4.ip_forward", "1").unwrap();
    net::set_mtu(&middle.netns, "right", 1300).unwrap();
    for (host, to, gateway) in [
        (left, "198.51.100.0/24", [192, 0, 2, 2]),
        (right, "192.0.2.0/24", [198, 51, 100, 2]),
    ] {
        net::route(&host.netns, to.parse().unwrap(), gateway.into()).unwrap();
    }
    RIGHT.underlay(MIDDLE)
}

#[test]
fn a_router_s_word_is_passed_on_about_a_way_in_use_and_no_other() {
    let Some([mut left, middle, right]) = line() else {
        return;
    };
    let to = routed(&left, &middle, &right);
    let told = |left: &mut Host| {
        left.hear(|report| match report {
            Report::TooBig { to, datagram } => Some(Some((to, datagram))),
            Report::PathAnswered(_) => Some(None),
            _ => None,
        })
    };

    // Nobody sends by that way yet, so a stranger may have said so.
    left.probe(RIGHT, Via::Direct(to), None, 1, 1400);
    left.probe(MIDDLE, Via::Direct(MIDDLE.underlay(LEFT)), None, 2, 1400);
    assert_eq!(told(&mut left), None);

    left.switch(2, RIGHT, Via::Direct(to));
    for id in 3..20 {
        left.probe(RIGHT, Via::Direct(to), None, id, 1400);
    }
    assert_eq!(told(&mut left), Some((to, 1272)));
    left.probe(RIGHT, Via::Direct(to), None, 20, 1272);
    assert_eq!(left.answer().id, 20);
}

#[test]
fn an_address_where_nobody_listens_disturbs_nobody_else() {
    let Some([left, _middle, right]) = line() else {
        return;
    };
    let mut nobody = MIDDLE.underlay(LEFT);
    nobody.set_port(9);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for id in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                left.probe(MIDDLE, Via::Direct(nobody), None, id, 100);
                std::thread::sleep(Duration::from_micros(100));
            }
        });

        stream((&left.netns, &right.netns), right.who.overlay(), 20_000_000);
        stop.store(true, Ordering::Relaxed);
    });

    let counters = left.workers.counters();
    assert_eq!(drops(&counters, DropReason::SendRefused), 0);
    assert_eq!(drops(&counters, DropReason::TooLong), 0);
}

#[test]
fn a_member_gets_so_many_answers_and_no_more() {
    let Some([left, middle, _right]) = line() else {
        return;
    };
    let mut lane = SendLane::new(&LEFT.keys(MIDDLE), 14, Backend::AwsLc);
    let socket = left.netns.run(|| StdUdp::bind("0.0.0.0:0").unwrap());
    let socket = socket.unwrap();
    let head = payload::encode(Kind::PathProbe, Segment::DEFAULT);
    let mut body = [0; PathProbe::LEAST - OVERHEAD - payload::LEN];
    let probe = PathProbe { id: 1, slot: None };
    probe.emit(&mut body);
    let begun = Instant::now();
    for _ in 0..1000 {
        let datagram = sealed(&mut lane, &[&head, &body]);
        socket.send_to(&datagram, MIDDLE.underlay(LEFT)).unwrap();
    }

    let counters = middle.until(|counters| {
        let (_, peer) = counters
            .peers
            .iter()
            .find(|(node, _)| *node == LEFT.node())
            .unwrap();
        peer.rx_datagrams == 1000
    });
    let refused = drops(&counters, DropReason::ProbeLimit);
    let earned = u64::try_from(begun.elapsed().as_millis()).unwrap() / 5 + 1;
    assert!(
        (800 - earned.min(800)..=800).contains(&refused),
        "{refused}"
    );
    let (_, peer) = counters
        .peers
        .iter()
        .find(|(node, _)| *node == LEFT.node())
        .unwrap();
    assert!(peer.tx_bytes <= peer.rx_bytes);
}
