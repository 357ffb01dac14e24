//! Two sets of packet workers in two network namespaces, joined by a veth pair: real frames, real datagrams.
//!
//! Needs root; says so and passes without.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, says why it was skipped, and looks for one kind of report"
)]

mod common;

use std::io::IoSlice;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdp};
use std::sync::Arc;
use std::time::Duration;

use common::{PATIENCE, cable, receive, sealed, stream};
use tokio::sync::mpsc;
use weft_kernel::netns::NetNs;
use weft_kernel::packet::{Direction, Options as PacketOptions, PacketSocket};
use weft_kernel::tap::{Tap, TapOptions};
use weft_kernel::udp::{UdpOptions, UdpSocket};
use weft_lab::packet::ethertype::{IPV4, IPV6, VLAN};
use weft_lab::packet::protocol::UDP;
use weft_lab::packet::{self, Arp, Operation, fragment};
use weft_lab::{namespace, net};
use weft_router::worker::{Backends, Counters, Report, Wiring, Workers};
use weft_router_proto::crypto::seal::Backend;
use weft_router_proto::io::DataPlane;
use weft_router_proto::overlay::{Path, Slot, Via};
use weft_router_proto::session::{Cipher, SessionKeys};
use weft_router_proto::sleeve::lane::SendLane;
use weft_router_proto::sleeve::payload::{self, Kind};
use weft_router_proto::sleeve::{SessionIndex, bundle};
use weft_router_proto::snapshot::{Endpoint, EndpointKind, Peer, Snapshot};
use weft_router_proto::switch::DropReason;
use weft_types::{MacAddr, Mtu, NodeId, Segment};

const PORT: u16 = 6783;

/// One of two hosts: 0 or 1.
#[derive(Clone, Copy)]
struct Who(u8);

/// What lies under the mesh.
#[derive(Clone, Copy)]
enum Underlay {
    V4,
    V6,
}

impl Underlay {
    fn address(self, who: Who) -> SocketAddr {
        match self {
            Self::V4 => SocketAddr::from(([192, 0, 2, who.0 + 1], PORT)),
            Self::V6 => {
                let host = u16::from(who.0) + 1;
                SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, host], PORT))
            }
        }
    }

    fn bind(self, port: u16) -> SocketAddr {
        match self {
            Self::V4 => SocketAddr::from(([0; 4], port)),
            Self::V6 => SocketAddr::from(([0_u16; 8], port)),
        }
    }
}

impl Who {
    fn node(self) -> NodeId {
        NodeId::new([self.0 + 1; 32])
    }

    fn mac(self) -> MacAddr {
        MacAddr::new([2, 0, 0, 0, 0, self.0 + 1])
    }

    fn underlay(self) -> SocketAddr {
        Underlay::V4.address(self)
    }

    fn overlay(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 32, 0, self.0 + 1)
    }

    fn other(self) -> Self {
        Self(1 - self.0)
    }

    fn keys(self, cipher: Cipher, generation: u8) -> SessionKeys {
        let index = |who: Self| SessionIndex(u32::from(generation) * 16 + u32::from(who.0) + 1);
        let direction = |from: Self| [generation * 16 + from.0 + 1; 32];
        SessionKeys {
            local: index(self),
            remote: index(self.other()),
            cipher,
            send: direction(self),
            receive: direction(self.other()),
        }
    }

    fn snapshot(self, underlay: Underlay, datagram: u16) -> Arc<Snapshot> {
        let endpoint = |who: Self| Endpoint {
            segment: Segment::DEFAULT,
            mac: who.mac(),
            addresses: vec![who.overlay().into()],
            owner: who.node(),
            kind: EndpointKind::Host,
            metadata: None,
        };
        Arc::new(Snapshot {
            generation: 1,
            node: self.node(),
            mtu: Mtu::new(1350).unwrap(),
            ranges: vec!["10.32.0.0/12".parse().unwrap()],
            host_addresses: vec![format!("{}/12", self.overlay()).parse().unwrap()],
            peers: vec![Peer {
                node: self.other().node(),
                nickname: "peer".parse().unwrap(),
                path: Some(Path {
                    via: Via::Direct(underlay.address(self.other())),
                    slot: Slot::default(),
                    datagram,
                }),
            }],
            endpoints: [0, 1].map(Self).map(endpoint).into_iter().collect(),
        })
    }
}

/// A host in a namespace of its own.
struct Host {
    who: Who,
    netns: NetNs,
    workers: Workers,
    reports: mpsc::Receiver<Report>,
}

impl Host {
    /// Waits for a report that `wanted` picks; others are passed over.
    fn hear<T>(&mut self, wanted: impl Fn(Report) -> Option<T>) -> T {
        common::hear(&mut self.reports, wanted)
    }

    fn until(&self, reached: impl Fn(&Counters) -> bool) -> Counters {
        common::until(&self.workers, reached)
    }
}

/// Makes both hosts; `None`, and a word about it, where that cannot be.
fn hosts(datagram: u16) -> Option<[Host; 2]> {
    hosts_over(Underlay::V4, datagram)
}

fn hosts_over(underlay: Underlay, datagram: u16) -> Option<[Host; 2]> {
    let (left, right) = (namespace()?, namespace()?);
    cable((&left, "under0"), (&right, "under0"));
    let host = |who: Who, netns: NetNs| {
        let length = match underlay {
            Underlay::V4 => 24,
            Underlay::V6 => 64,
        };
        common::address(&netns, "under0", underlay.address(who).ip(), length);
        let (tap, udp) = netns
            .run(|| {
                let tap = Tap::open("weft", TapOptions::default()).unwrap();
                let udp = UdpSocket::bind(underlay.bind(PORT), UdpOptions::default());
                (tap, udp.unwrap())
            })
            .unwrap();
        common::wire(&netns, &tap, who.mac(), who.overlay());
        let (udp4, udp6) = match underlay {
            Underlay::V4 => (Some(udp), None),
            Underlay::V6 => (None, Some(udp)),
        };
        let (workers, reports) = Workers::start(Wiring {
            tap: Some(tap),
            udp4,
            udp6,
            snapshot: who.snapshot(underlay, datagram),
            backends: Backends {
                aes: Backend::Ring,
                chacha: Backend::Ring,
            },
        })
        .unwrap();
        Host {
            who,
            netns,
            workers,
            reports,
        }
    };
    Some([host(Who(0), left), host(Who(1), right)])
}

/// Makes a session as a handshake does: the others receive by it before the first host sends, and follow when they hear.
fn install(hosts: &[Host], cipher: Cipher, generation: u8) {
    for (at, host) in hosts.iter().enumerate().rev() {
        let peer = host.who.other().node();
        let keys = host.who.keys(cipher, generation);
        host.workers.command(match at {
            0 => DataPlane::Install { peer, keys },
            _ => DataPlane::InstallReceiving { peer, keys },
        });
    }
}

fn pair(host: &Host, port: u16) -> StdUdp {
    common::socket(&host.netns, host.who.overlay(), port)
}

#[test]
fn the_first_frame_asks_for_a_session_and_arrives_once_there_is_one() {
    let Some(mut hosts) = hosts(1472) else { return };
    let (left, right) = (pair(&hosts[0], 7), pair(&hosts[1], 7));
    left.send_to(b"first", (hosts[1].who.overlay(), 7)).unwrap();

    let wanted = hosts[0].hear(|report| match report {
        Report::SessionWanted { peer } => Some(peer),
        _ => None,
    });
    assert_eq!(wanted, hosts[1].who.node());
    install(&hosts, Cipher::Aes256Gcm, 0);

    let mut buffer = [0; 100];
    let (len, from) = receive(&right, &mut buffer);
    assert_eq!(&buffer[..len], b"first");
    right.send_to(b"second", from).unwrap();
    assert_eq!(receive(&left, &mut buffer).0, 6);
    let heard = hosts[1].hear(|report| match report {
        Report::Heard { peer, from } => Some((peer, from)),
        _ => None,
    });
    assert_eq!(heard, (hosts[0].who.node(), hosts[0].who.underlay()));
}

#[test]
fn a_stream_arrives_whole_with_either_cipher() {
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let Some(hosts) = hosts(1472) else { return };
        install(&hosts, cipher, 0);

        stream(
            (&hosts[0].netns, &hosts[1].netns),
            hosts[1].who.overlay(),
            50_000_000,
        );

        let counters = hosts[1].workers.counters();
        assert_eq!((counters.auth_drops, counters.replay_drops), (0, 0));
        assert!(counters.peers[0].1.rx_bytes > 50_000_000);
    }
}

#[test]
fn a_stream_arrives_whole_over_ipv6() {
    let Some(hosts) = hosts_over(Underlay::V6, 1452) else {
        return;
    };
    install(&hosts, Cipher::Aes256Gcm, 0);

    stream(
        (&hosts[0].netns, &hosts[1].netns),
        hosts[1].who.overlay(),
        50_000_000,
    );

    let counters = hosts[1].workers.counters();
    assert_eq!((counters.auth_drops, counters.replay_drops), (0, 0));
}

#[test]
fn a_stream_fills_large_datagrams_where_they_pass_and_small_ones_again() {
    let Some(hosts) = hosts(8972) else { return };
    for host in &hosts {
        net::set_mtu(&host.netns, "under0", 9000).unwrap();
    }
    install(&hosts, Cipher::Aes256Gcm, 0);
    let mean = |bytes: usize| {
        let before = hosts[1].workers.counters().peers[0].1;
        stream(
            (&hosts[0].netns, &hosts[1].netns),
            hosts[1].who.overlay(),
            bytes,
        );
        let after = hosts[1].workers.counters().peers[0].1;
        (after.rx_bytes - before.rx_bytes) / (after.rx_datagrams - before.rx_datagrams)
    };

    let large = mean(50_000_000);
    assert!((5_000..=8972).contains(&large), "{large}");

    for host in &hosts {
        let snapshot = host.who.snapshot(Underlay::V4, 1472);
        host.workers.snapshot(Arc::new(Snapshot {
            generation: 2,
            ..Snapshot::clone(&snapshot)
        }));
    }
    let small = mean(20_000_000);
    assert!((1_000..=1472).contains(&small), "{small}");
}

#[test]
fn a_device_that_shrinks_loses_what_is_too_long_carries_the_rest_and_is_told_of() {
    for (underlay, datagram, fits) in [(Underlay::V4, 1472, 1252), (Underlay::V6, 1452, 1232)] {
        let Some(mut hosts) = hosts_over(underlay, datagram) else {
            return;
        };
        install(&hosts, Cipher::Aes256Gcm, 0);
        let (left, right) = (pair(&hosts[0], 7), pair(&hosts[1], 7));
        net::set_mtu(&hosts[0].netns, "under0", 1280).unwrap();
        let to = (hosts[1].who.overlay(), 7);
        left.send_to(&[1; 1300], to).unwrap();
        left.send_to(&[2; 100], to).unwrap();

        let mut buffer = [0; 2000];
        assert_eq!(receive(&right, &mut buffer).0, 100);
        hosts[0].until(|counters| {
            counters
                .drops
                .iter()
                .any(|&(reason, count)| reason == DropReason::TooLong && count > 0)
        });
        let said = hosts[0].hear(|report| match report {
            Report::TooBig { to, datagram } => Some((to, datagram)),
            _ => None,
        });
        assert_eq!(said, (underlay.address(hosts[1].who), fits));
    }
}

#[test]
fn a_stream_survives_a_change_of_keys() {
    let Some(hosts) = hosts(1472) else { return };
    install(&hosts, Cipher::Aes256Gcm, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for generation in 1..8 {
                std::thread::sleep(Duration::from_millis(20));
                // As a rekey goes: the responder receives by them, the initiator begins, the responder follows.
                hosts[1].workers.command(DataPlane::InstallReceiving {
                    peer: hosts[0].who.node(),
                    keys: hosts[1].who.keys(Cipher::Aes256Gcm, generation),
                });
                std::thread::sleep(Duration::from_millis(2));
                hosts[0].workers.command(DataPlane::Install {
                    peer: hosts[1].who.node(),
                    keys: hosts[0].who.keys(Cipher::Aes256Gcm, generation),
                });
            }
        });

        stream(
            (&hosts[0].netns, &hosts[1].netns),
            hosts[1].who.overlay(),
            100_000_000,
        );
    });

    let drops = |host: &Host| host.workers.counters().auth_drops;
    assert_eq!((drops(&hosts[0]), drops(&hosts[1])), (0, 0));
}

#[test]
fn a_late_datagram_under_a_held_session_does_not_take_sending_back() {
    let Some(mut hosts) = hosts(1472) else { return };
    // Host 1 begins generation 1 and host 0 holds it; generation 2 is made before anything came under it.
    install(&hosts[1..], Cipher::Aes256Gcm, 1);
    hosts[0].workers.command(DataPlane::InstallReceiving {
        peer: hosts[1].who.node(),
        keys: hosts[0].who.keys(Cipher::Aes256Gcm, 1),
    });
    install(&hosts[..1], Cipher::Aes256Gcm, 2);
    hosts[1].workers.command(DataPlane::InstallReceiving {
        peer: hosts[0].who.node(),
        keys: hosts[1].who.keys(Cipher::Aes256Gcm, 2),
    });
    let (left, right) = (pair(&hosts[0], 7), pair(&hosts[1], 7));
    let mut buffer = [0; 100];
    right.send_to(b"late", (hosts[0].who.overlay(), 7)).unwrap();
    assert_eq!(receive(&left, &mut buffer).0, 4);
    // What the kernel says on its own account may have asked before there was a session.
    while hosts[0].reports.try_recv().is_ok() {}

    hosts[0].workers.command(DataPlane::Retire {
        index: hosts[0].who.keys(Cipher::Aes256Gcm, 1).local,
    });
    left.send_to(b"newer", (hosts[1].who.overlay(), 7)).unwrap();

    assert_eq!(receive(&right, &mut buffer).0, 5);
    let wanted = std::iter::from_fn(|| hosts[0].reports.try_recv().ok())
        .any(|report| matches!(report, Report::SessionWanted { .. }));
    assert!(!wanted, "a session was there all the time");
}

#[test]
fn frames_and_probes_larger_than_a_datagram_are_split_and_rejoined() {
    let Some(mut hosts) = hosts(548) else { return };
    install(&hosts, Cipher::Aes256Gcm, 0);
    let (left, right) = (pair(&hosts[0], 7), pair(&hosts[1], 7));
    let payload: Vec<u8> = (0..=250).cycle().take(1322).collect();
    let mut buffer = [0; 2000];
    left.send_to(&payload, (hosts[1].who.overlay(), 7)).unwrap();

    assert_eq!(receive(&right, &mut buffer).0, payload.len());
    assert_eq!(buffer[..payload.len()], payload);
    stream(
        (&hosts[0].netns, &hosts[1].netns),
        hosts[1].who.overlay(),
        10_000_000,
    );

    hosts[0].workers.command(DataPlane::Probe {
        peer: hosts[1].who.node(),
        id: 42,
        size: 1364,
    });
    let answered = hosts[0].hear(|report| match report {
        Report::ProbeAnswered { peer, id, .. } => Some((peer, id)),
        _ => None,
    });
    assert_eq!(answered, (hosts[1].who.node(), 42));
}

#[test]
fn a_message_reaches_the_other_control_plane() {
    let Some(mut hosts) = hosts(1472) else { return };
    install(&hosts, Cipher::ChaCha20Poly1305, 0);
    hosts[0].workers.command(DataPlane::SessionMessage {
        peer: hosts[1].who.node(),
        bytes: vec![7; 1200],
    });

    let message = hosts[1].hear(|report| match report {
        Report::SessionMessage { peer, bytes } => Some((peer, bytes)),
        _ => None,
    });
    assert_eq!(message, (hosts[0].who.node(), vec![7; 1200]));
}

/// A member whose every datagram the test makes by hand: host 0 without workers.
struct ByHand {
    lane: SendLane,
    socket: StdUdp,
    to: SocketAddr,
}

impl ByHand {
    fn new(host: &Host) -> Self {
        Self {
            lane: SendLane::new(&Who(0).keys(Cipher::Aes256Gcm, 9), 5, Backend::AwsLc),
            socket: host
                .netns
                .run(|| StdUdp::bind("127.0.0.1:0").unwrap())
                .unwrap(),
            to: SocketAddr::from(([127, 0, 0, 1], PORT)),
        }
    }

    fn sealed(&mut self, source: MacAddr) -> Vec<u8> {
        self.frame(&ethernet(source, 0x1234, &[0xaa; 46]))
    }

    fn frame(&mut self, frame: &[u8]) -> Vec<u8> {
        let head = payload::encode(Kind::Frames, Segment::DEFAULT);
        let record = bundle::encode(frame.len(), None).unwrap();
        sealed(&mut self.lane, &[&head, &record, frame])
    }

    fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.to).unwrap();
    }
}

fn receiving(host: &Host) -> ByHand {
    host.workers.command(DataPlane::InstallReceiving {
        peer: Who(0).node(),
        keys: Who(1).keys(Cipher::Aes256Gcm, 9),
    });
    ByHand::new(host)
}

#[test]
fn every_replayed_or_forged_datagram_is_counted_once_and_answered_by_nothing() {
    let Some(mut hosts) = hosts(1472) else { return };
    let mut peer = receiving(&hosts[1]);
    let genuine: Vec<Vec<u8>> = (0..100).map(|_| peer.sealed(Who(0).mac())).collect();
    for datagram in &genuine {
        peer.send(datagram);
    }
    hosts[1].hear(|report| matches!(report, Report::Heard { .. }).then_some(()));
    let mut injected = 0;
    for datagram in &genuine {
        for _ in 0..3 {
            peer.send(datagram);
            injected += 1;
        }
        let mut forged = datagram.clone();
        for at in [0, 3, 5, 9, 40, forged.len() - 1] {
            forged[at] ^= 0x55;
            peer.send(&forged);
            peer.send(&forged[..at]);
            injected += 2;
        }
    }

    let counters = hosts[1].until(|c| c.auth_drops + c.replay_drops >= injected);

    assert_eq!(counters.auth_drops + counters.replay_drops, injected);
    assert_eq!(counters.replay_drops, 300);
    assert_eq!(counters.peers[0].1.rx_datagrams, 100);
    peer.socket.set_nonblocking(true).unwrap();
    assert!(
        peer.socket.recv(&mut [0; 100]).is_err(),
        "nothing comes back"
    );
}

/// Puts an Ethernet header before a payload that is for host 1.
fn ethernet(source: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    packet::ethernet(Who(1).mac(), source, ethertype, payload)
}

/// Puts one more tag into a frame.
fn tagged(frame: &[u8], ethertype: u16) -> Vec<u8> {
    packet::tagged(frame, ethertype, 7)
}

/// An IPv4 packet to host 1; `place` is the field of flags and offset.
fn ipv4(source: Ipv4Addr, protocol: u8, place: u16, payload: &[u8]) -> Vec<u8> {
    packet::ipv4([source, Who(1).overlay()], protocol, place, payload)
}

/// An IPv6 packet between link-local addresses that nobody owns.
fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let ends = [7, 8].map(|host| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, host));
    packet::ipv6(ends, next, payload)
}

/// What host 0 may not send: it speaks in the name of host 1, each time in another way.
fn forgeries(marker: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    const PROVIDER: u16 = 0x88a8; // IEEE 802.1ad
    let (own, foreign) = (Who(0).mac(), Who(1).mac());
    let (mine, theirs) = (Who(0).overlay(), Who(1).overlay());
    let udp = packet::udp([7, 7], marker);
    let forged = ipv4(theirs, UDP, 0, &udp);
    let in_hop_by_hop = [&[4, 0, 1, 4, 0, 0, 0, 0], &forged[..]].concat();
    let in_fragment = [&[4, 0, 0, 1, 0, 0, 0, 9], &forged[..]].concat();
    let arp = |hardware: MacAddr, protocol: Ipv4Addr| {
        let arp = Arp {
            operation: Operation::Reply,
            sender: (hardware, protocol),
            target: (foreign, theirs),
        };
        let mut frame = arp.frame(Who(1).mac());
        // The one that Ethernet names may be another than the one that ARP does.
        frame[6..12].copy_from_slice(own.as_bytes());
        [&frame[..], marker].concat()
    };
    let mac = ethernet(foreign, IPV4, &ipv4(mine, UDP, 0, &udp));
    let address = ethernet(own, IPV4, &forged);
    let inner = ethernet(own, IPV4, &ipv4(mine, 4, 0, &forged));
    let later = ipv4(theirs, UDP, 100, &udp);
    vec![
        ("MAC in a tag", tagged(&mac, VLAN)),
        ("MAC in two tags", tagged(&tagged(&mac, VLAN), PROVIDER)),
        ("MAC, cut behind Ethernet", mac[..14].to_vec()),
        ("MAC", mac),
        ("address in a tag", tagged(&address, VLAN)),
        (
            "address in two tags",
            tagged(&tagged(&address, VLAN), PROVIDER),
        ),
        ("address, cut behind it", address[..30].to_vec()),
        ("address, cut behind IPv4", address[..34].to_vec()),
        ("address", address),
        (
            "address in a first fragment",
            ethernet(own, IPV4, &ipv4(theirs, UDP, fragment::MORE, &udp)),
        ),
        ("address in a later fragment", ethernet(own, IPV4, &later)),
        ("address, 4 in 6", ethernet(own, IPV6, &ipv6(4, &forged))),
        (
            "address, 4 in 6 behind options",
            ethernet(own, IPV6, &ipv6(0, &in_hop_by_hop)),
        ),
        (
            "address, 4 in 6 in a fragment",
            ethernet(own, IPV6, &ipv6(44, &in_fragment)),
        ),
        ("address, 4 in 4 in a tag", tagged(&inner, VLAN)),
        ("address, 4 in 4", inner),
        ("MAC in ARP", arp(foreign, mine)),
        ("address in ARP", arp(own, theirs)),
    ]
}

#[test]
fn no_frame_in_anothers_name_enters_and_each_is_counted_against_its_sender() {
    let Some(hosts) = hosts(1472) else { return };
    let mut peer = receiving(&hosts[1]);
    let marker = [0xa7; 32];
    let socket = hosts[1]
        .netns
        .run(|| PacketSocket::open("weft", &PacketOptions::capture()).unwrap())
        .unwrap();
    let forged = |c: &Counters| c.peers.first().map_or(0, |(_, peer)| peer.rx_forged);

    for (number, (name, frame)) in (1..).zip(forgeries(&marker)) {
        let datagram = peer.frame(&frame);
        peer.send(&datagram);
        eprintln!("{name}"); // Shown only where it is the one that was not counted.
        let counters = hosts[1].until(|c| forged(c) >= number);
        assert_eq!(forged(&counters), number, "{name}");
    }

    // What is its own comes through, behind all the others.
    let own = ipv4(Who(0).overlay(), UDP, 0, &marker);
    let datagram = peer.frame(&ethernet(Who(0).mac(), IPV4, &own));
    peer.send(&datagram);
    let mut buffer = vec![0; 1 << 16];
    let entered = loop {
        assert!(socket.wait(PATIENCE).unwrap(), "the honest frame is lost");
        let received = socket.recv(&mut buffer).unwrap();
        if received.direction == Direction::Incoming
            && received.frame.windows(32).any(|bytes| bytes == marker)
        {
            break received.frame.to_vec();
        }
    };
    assert_eq!(entered[26..30], Who(0).overlay().octets());
}

#[test]
fn links_are_admitted_by_index() {
    let Some(mut hosts) = hosts(1472) else { return };
    let datagram = |index: u8| [2, 0, 0, 0, 0, 0, 0, index, 1, 2, 3];
    let padded = |index| [&datagram(index)[..], &[0; 40]].concat();
    hosts[1]
        .workers
        .command(DataPlane::AdmitLink(SessionIndex(7)));
    let to = hosts[1].who.underlay();
    hosts[0].workers.send_link_datagram(to, &padded(8)).unwrap();
    hosts[1].until(|counters| counters.auth_drops == 1);
    hosts[0].workers.send_link_datagram(to, &padded(7)).unwrap();

    let (from, bytes) = hosts[1].hear(|report| match report {
        Report::LinkDatagram { from, bytes } => Some((from, bytes)),
        _ => None,
    });
    assert_eq!((from, bytes), (hosts[0].who.underlay(), padded(7)));
}

#[test]
fn a_tap_that_is_down_neither_spins_nor_stops_the_workers() {
    let Some(hosts) = hosts(1472) else { return };
    install(&hosts, Cipher::Aes256Gcm, 0);
    net::down(&hosts[1].netns, "weft").unwrap();
    let left = pair(&hosts[0], 7);
    left.send_to(b"lost", (hosts[1].who.overlay(), 7)).unwrap();
    let refused = |c: &Counters| {
        c.drops
            .iter()
            .any(|&(reason, count)| reason == DropReason::TapRefused && count > 0)
    };
    hosts[1].until(refused);

    net::up(&hosts[1].netns, "weft").unwrap();

    stream(
        (&hosts[0].netns, &hosts[1].netns),
        hosts[1].who.overlay(),
        1_000_000,
    );
}

#[test]
fn an_empty_datagram_is_counted() {
    let Some(hosts) = hosts(1472) else { return };
    let socket = hosts[0]
        .netns
        .run(|| UdpSocket::bind("0.0.0.0:0".parse().unwrap(), UdpOptions::default()).unwrap())
        .unwrap();
    socket
        .send_segments(hosts[1].who.underlay(), &[IoSlice::new(&[])], None)
        .unwrap();

    hosts[1].until(|counters| counters.auth_drops == 1);
}
