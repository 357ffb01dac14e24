//! Sets of packet workers in network namespaces, in a line: those at its ends reach each other over those between, or over
//! the control plane, and in no other way.
//!
//! ```text
//!   left ───────────── middle ───────────── right ───────────── (farther)
//!   192.0.2.1   192.0.2.2 198.51.100.2   198.51.100.3
//! ```
//!
//! Needs root and `ip`; says so and passes without.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and looks for one kind of report"
)]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket as StdUdp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{cable, ip, namespace, stream};
use tokio::sync::mpsc;
use weft_kernel::netns::NetNs;
use weft_kernel::packet::{Direction as Heading, Options as PacketOptions, PacketSocket};
use weft_kernel::tap::{Tap, TapOptions};
use weft_kernel::udp::{UdpOptions, UdpSocket};
use weft_router::worker::{Backends, Counters, Report, Wiring, Workers};
use weft_router_proto::crypto::seal::{Backend, TAG};
use weft_router_proto::io::{DataPlane, Direction, PathAnswer};
use weft_router_proto::overlay::{Path, RELAY_CONTROL_LANE, RELAY_OVERHEAD, Slot, Via};
use weft_router_proto::session::{Cipher, SessionKeys};
use weft_router_proto::sleeve::lane::{OVERHEAD, SendLane};
use weft_router_proto::sleeve::path_probe::PathProbe;
use weft_router_proto::sleeve::payload::{self, Kind};
use weft_router_proto::sleeve::relayed::{self, Relayed};
use weft_router_proto::sleeve::{SessionIndex, bundle};
use weft_router_proto::snapshot::{Endpoint, EndpointKind, Peer, Snapshot};
use weft_router_proto::switch::DropReason;
use weft_types::{MacAddr, Mtu, NodeId, Segment};

const PORT: u16 = 6783;
const PATIENCE: Duration = Duration::from_secs(10);
const DIRECT: u16 = 1472;
const OVER: u16 = DIRECT - RELAY_OVERHEAD;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Who(u8);

const LEFT: Who = Who(0);
const MIDDLE: Who = Who(1);
const RIGHT: Who = Who(2);
const FARTHER: Who = Who(3);

impl Who {
    fn node(self) -> NodeId {
        NodeId::new([self.0 + 1; 32])
    }

    fn mac(self) -> MacAddr {
        MacAddr::new([2, 0, 0, 0, 0, self.0 + 1])
    }

    fn overlay(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 32, 0, self.0 + 1)
    }

    /// Its address on the cable to a neighbour.
    fn underlay(self, neighbour: Self) -> SocketAddr {
        let cables = [[192, 0, 2], [198, 51, 100], [203, 0, 113]];
        let [a, b, c] = cables[usize::from(self.min(neighbour).0)];
        SocketAddr::from(([a, b, c, self.0 + 1], PORT))
    }

    /// The neighbour on the way to another.
    fn next(self, towards: Self) -> Self {
        if towards > self {
            Self(self.0 + 1)
        } else {
            Self(self.0 - 1)
        }
    }

    fn keys(self, peer: Self) -> SessionKeys {
        let index = |owner: Self, peer: Self| SessionIndex(u32::from(owner.0 * 16 + peer.0) + 1);
        let direction = |from: Self, to: Self| [from.0 * 16 + to.0 + 1; 32];
        SessionKeys {
            local: index(self, peer),
            remote: index(peer, self),
            cipher: Cipher::Aes256Gcm,
            send: direction(self, peer),
            receive: direction(peer, self),
        }
    }

    /// The way to another by the cables there are.
    fn path(self, peer: Self) -> Path {
        let next = self.next(peer);
        let (via, datagram) = if next == peer {
            (Via::Direct(peer.underlay(self)), DIRECT)
        } else {
            (Via::Relay(next.node()), OVER)
        };
        Path {
            via,
            slot: Slot::default(),
            datagram,
        }
    }

    /// What it forwards by, in a line of so many.
    fn snapshot(self, count: u8, generation: u64, path: impl Fn(Self) -> Path) -> Arc<Snapshot> {
        let peers = (0..count).map(Self).filter(|&peer| peer != self);
        let peers = peers.map(|peer| Peer {
            node: peer.node(),
            nickname: "peer".parse().unwrap(),
            path: Some(path(peer)),
        });
        let endpoints = (0..count).map(Self).map(|who| Endpoint {
            segment: Segment::DEFAULT,
            mac: who.mac(),
            addresses: vec![who.overlay().into()],
            owner: who.node(),
            kind: EndpointKind::Host,
        });
        Arc::new(Snapshot {
            generation,
            node: self.node(),
            mtu: Mtu::new(1350).unwrap(),
            ranges: vec!["10.32.0.0/12".parse().unwrap()],
            host_addresses: vec![format!("{}/12", self.overlay()).parse().unwrap()],
            peers: peers.collect(),
            endpoints: endpoints.collect(),
        })
    }
}

struct Host {
    who: Who,
    /// How many there are in the line.
    count: u8,
    netns: NetNs,
    workers: Workers,
    reports: mpsc::Receiver<Report>,
}

impl Host {
    fn start(who: Who, count: u8, netns: NetNs) -> Self {
        ip(&netns, "link set lo up");
        let (tap, udp) = netns
            .run(|| {
                let any = SocketAddr::from(([0; 4], PORT));
                let tap = Tap::open("weft", TapOptions::default()).unwrap();
                (tap, UdpSocket::bind(any, UdpOptions::default()).unwrap())
            })
            .unwrap();
        ip(&netns, &format!("link set weft address {}", who.mac()));
        ip(&netns, "link set weft mtu 1350");
        // What the kernel would say on its own account is counted too.
        ip(&netns, "link set weft addrgenmode none");
        ip(&netns, &format!("addr add {}/12 dev weft", who.overlay()));
        ip(&netns, "link set weft up");
        let (workers, reports) = Workers::start(Wiring {
            tap,
            udp4: Some(udp),
            udp6: None,
            snapshot: who.snapshot(count, 1, |peer| who.path(peer)),
            backends: Backends {
                aes: Backend::Ring,
                chacha: Backend::Ring,
            },
        })
        .unwrap();
        Self {
            who,
            count,
            netns,
            workers,
            reports,
        }
    }

    fn install(&self, peer: Who) {
        self.workers.command(DataPlane::Install {
            peer: peer.node(),
            keys: self.who.keys(peer),
        });
    }

    /// Takes another way to one peer, by another slot.
    fn switch(&self, generation: u64, peer: Who, via: Via) {
        let path = Path {
            via,
            slot: Slot::new(u8::try_from(generation % 6).unwrap()).unwrap(),
            datagram: OVER,
        };
        let paths = |other| {
            if other == peer {
                path
            } else {
                self.who.path(other)
            }
        };
        self.workers
            .snapshot(self.who.snapshot(self.count, generation, paths));
    }

    fn probe(&self, peer: Who, via: Via, slot: Option<Slot>, id: u64, datagram: u16) {
        self.workers.command(DataPlane::PathProbe {
            peer: peer.node(),
            via,
            slot,
            id,
            datagram,
        });
    }

    /// Waits for a report that `wanted` picks; others are passed over.
    fn hear<T>(&mut self, wanted: impl Fn(Report) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.reports.try_recv() {
                Ok(report) => {
                    if let Some(found) = wanted(report) {
                        return found;
                    }
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
            assert!(Instant::now() < until, "nothing was reported");
        }
    }

    fn answer(&mut self) -> PathAnswer {
        self.hear(|report| match report {
            Report::PathAnswered(answer) => Some(answer),
            _ => None,
        })
    }

    fn until(&self, reached: impl Fn(&Counters) -> bool) -> Counters {
        let until = Instant::now() + PATIENCE;
        loop {
            let counters = self.workers.counters();
            if reached(&counters) {
                return counters;
            }
            assert!(Instant::now() < until, "{counters:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn dropped(&self, reason: DropReason, count: u64) {
        self.until(|counters| drops(counters, reason) == count);
    }

    fn socket(&self, port: u16) -> StdUdp {
        let socket = self
            .netns
            .run(|| StdUdp::bind((self.who.overlay(), port)).unwrap())
            .unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

fn drops(counters: &Counters, reason: DropReason) -> u64 {
    let found = counters.drops.iter().find(|(name, _)| *name == reason);
    found.unwrap().1
}

/// Hosts in a line; each pair has a session.
fn line<const N: usize>() -> Option<[Host; N]> {
    let count = u8::try_from(N).unwrap();
    let spaces: Option<Vec<NetNs>> = (0..N).map(|_| namespace()).collect();
    let spaces = spaces?;
    for (at, pair) in (0..).zip(spaces.windows(2)) {
        let (left, right) = (Who(at), Who(at + 1));
        cable((&pair[0], "right"), (&pair[1], "left"));
        let address = |netns: &NetNs, device: &str, address: SocketAddr| {
            ip(netns, &format!("addr add {}/24 dev {device}", address.ip()));
            ip(netns, &format!("link set {device} up"));
        };
        address(&pair[0], "right", left.underlay(right));
        address(&pair[1], "left", right.underlay(left));
    }
    let hosts: Vec<Host> = (0..)
        .zip(spaces)
        .map(|(at, netns)| Host::start(Who(at), count, netns))
        .collect();
    for host in &hosts {
        for peer in (0..count).map(Who).filter(|&peer| peer != host.who) {
            host.install(peer);
        }
    }
    hosts.try_into().ok()
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

        let got = there.recv(&mut buffer).unwrap();
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
            let (got, from) = there.recv_from(&mut buffer).unwrap();
            assert_eq!(buffer[..got], bytes);
            there.send_to(&bytes, from).unwrap();
            let got = here.recv(&mut buffer).unwrap();
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
        let (got, _) = there.recv_from(&mut buffer).unwrap();
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
        there.recv(&mut [0; 100]).unwrap();
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
    left.dropped(DropReason::TooLong, 1);
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
        there.recv(&mut [0; 100]).unwrap();
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

/// Lets the middle host route between its cables, the right one of which takes 1300 bytes.
fn routed(left: &Host, middle: &Host, right: &Host) -> SocketAddr {
    middle
        .netns
        .run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap())
        .unwrap();
    ip(&middle.netns, "link set right mtu 1300");
    ip(&left.netns, "route add 198.51.100.0/24 via 192.0.2.2");
    ip(&right.netns, "route add 192.0.2.0/24 via 198.51.100.2");
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

    fn sealed(lane: &mut SendLane, plain: &[&[u8]]) -> Vec<u8> {
        let mut datagram = vec![0; OVERHEAD - TAG];
        datagram.extend(plain.concat());
        datagram.extend([0; TAG]);
        lane.seal(&mut datagram).unwrap();
        datagram
    }

    /// A frame for the right member, sealed for it.
    fn frame(&mut self) -> Vec<u8> {
        let mut frame = RIGHT.mac().as_bytes().to_vec();
        frame.extend(LEFT.mac().as_bytes());
        frame.extend([0x12, 0x34]);
        frame.extend([0xa7; 46]);
        let head = payload::encode(Kind::Frames, Segment::DEFAULT);
        let record = bundle::encode(frame.len(), None).unwrap();
        Self::sealed(&mut self.inner, &[&head, &record, &frame])
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

#[test]
fn a_member_gets_so_many_answers_and_no_more() {
    let Some([left, middle, _right]) = line() else {
        return;
    };
    let mut lane = SendLane::new(&LEFT.keys(MIDDLE), 14, Backend::AwsLc);
    let hand = ByHand::new(&left);
    let head = payload::encode(Kind::PathProbe, Segment::DEFAULT);
    let mut body = [0; PathProbe::LEAST - OVERHEAD - payload::LEN];
    let probe = PathProbe { id: 1, slot: None };
    probe.emit(&mut body);
    let begun = Instant::now();
    for _ in 0..1000 {
        hand.send(&ByHand::sealed(&mut lane, &[&head, &body]));
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
