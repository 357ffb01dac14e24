use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_types::NodeId;

use super::testing::{World, mac, origin, snapshot};
use super::{Cells, Order, Orders, Refusal, Report, Tunnel, View};
use crate::crypto::seal::Backend;
use crate::io::{DataPlane, Direction};
use crate::overlay::{Slot, Via};
use crate::session::{Cipher, SessionKeys};
use crate::sleeve::SessionIndex;
use crate::sleeve::header::{Header, Type};
use crate::sleeve::vnet::{self, Checksum, Gso, Vnet};
use crate::switch::DropReason;

const MS: Duration = Duration::from_millis(1);

/// A host: its tunnel, its world, and its clock, which stands still unless a test moves it.
struct Host {
    number: u8,
    tunnel: Tunnel,
    world: World,
    cells: Arc<Cells>,
    now: Instant,
}

fn node(number: u8) -> NodeId {
    NodeId::new([number; 32])
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 6783))
}

fn direct(number: u8) -> (u8, Via) {
    (number, Via::Direct(address(number)))
}

fn relay(number: u8, by: u8) -> (u8, Via) {
    (number, Via::Relay(node(by)))
}

/// An ordinary frame of `len` bytes from one host to another, as no protocol that is looked at.
fn frame(from: u8, to: u8, len: usize) -> Vec<u8> {
    let mut frame = mac(node(to)).as_bytes().to_vec();
    frame.extend_from_slice(mac(node(from)).as_bytes());
    frame.extend_from_slice(&[0x88, 0xb6]); // IEEE 802, for experiments
    frame.extend((0..=250).cycle().take(len - 14));
    frame
}

impl Host {
    fn new(number: u8, ways: &[(u8, Via)], datagram: u16) -> Self {
        let ways: Vec<_> = ways.iter().map(|&(peer, via)| (node(peer), via)).collect();
        let view = Arc::new(View::new(Arc::new(snapshot(node(number), &ways, datagram))));
        let (cells, now) = (Arc::new(Cells::default()), origin());
        Self {
            number,
            tunnel: Tunnel::new(&view, &cells, now),
            world: World::default(),
            cells,
            now,
        }
    }

    fn command(&mut self, command: DataPlane) {
        let orders = Orders::new(command, |_| Backend::Ring);
        let turn = &mut self.world.turn(self.now);
        for order in orders.inbound {
            self.tunnel.inbound.obey(order, turn);
        }
        if let Some(change) = orders.outbound {
            self.tunnel.outbound.change(change, turn);
        }
    }

    fn keys(&self, peer: u8, generation: u8) -> SessionKeys {
        let index = |from: u8, to: u8| SessionIndex(u32::from_be_bytes([0, generation, from, to]));
        let direction = |from: u8, to: u8| {
            let mut key = [generation; 32];
            (key[0], key[1]) = (from, to);
            key
        };
        SessionKeys {
            local: index(self.number, peer),
            remote: index(peer, self.number),
            cipher: Cipher::Aes256Gcm,
            send: direction(self.number, peer),
            receive: direction(peer, self.number),
        }
    }

    fn install(&mut self, peer: u8) {
        let keys = self.keys(peer, 1);
        let peer = node(peer);
        self.command(DataPlane::Install { peer, keys });
    }

    /// Reads a frame off the bridge.
    fn capture(&mut self, vnet: Vnet, frame: &[u8]) {
        let bytes = [&vnet.encode()[..], frame].concat();
        let read = self.tunnel.outbound.read(|room| {
            let mut rest = &bytes[..];
            for part in room {
                let (now, later) = rest.split_at(part.len().min(rest.len()));
                part[..now.len()].copy_from_slice(now);
                rest = later;
            }
            bytes.len()
        });
        let turn = &mut self.world.turn(self.now);
        self.tunnel.outbound.frame(read, turn);
    }

    fn flush(&mut self) {
        let turn = &mut self.world.turn(self.now);
        self.tunnel.outbound.flush(turn);
    }

    /// Reads a frame of `len` bytes for a peer, and then no other.
    fn send(&mut self, peer: u8, len: usize) {
        self.capture(Vnet::plain(None), &frame(self.number, peer, len));
        self.flush();
    }

    fn receive(&mut self, from: SocketAddr, bytes: &[u8]) {
        let turn = &mut self.world.turn(self.now);
        self.tunnel.inbound.room(turn)[..bytes.len()].copy_from_slice(bytes);
        let inbound = &mut self.tunnel.inbound;
        inbound.received(from, bytes.len(), bytes.len(), turn);
        for (peer, index) in std::mem::take(&mut self.world.promoted) {
            let change = super::SessionChange::Promote { peer, index };
            let turn = &mut self.world.turn(self.now);
            self.tunnel.outbound.change(change, turn);
        }
    }

    fn sent(&mut self) -> Vec<(SocketAddr, Vec<Vec<u8>>)> {
        std::mem::take(&mut self.world.sent)
    }

    fn reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.world.reports)
    }

    /// The frames that the bridge got, without their virtio headers, and from whom.
    fn delivered(&mut self) -> Vec<(NodeId, Vec<u8>)> {
        let delivered = std::mem::take(&mut self.world.delivered);
        let bare = |(from, frame): (NodeId, Vec<u8>)| (from, frame[vnet::LEN..].to_vec());
        delivered.into_iter().map(bare).collect()
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.cells.read().drops[reason.index()].1
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        let turn = &mut self.world.turn(self.now);
        self.tunnel.outbound.handle_timeout(turn);
        self.tunnel.inbound.handle_timeout(turn);
    }
}

/// Carries what hosts have sent to whom it is for, until nothing is under way.
fn carry(hosts: &mut [&mut Host]) {
    loop {
        let mut idle = true;
        for from in 0..hosts.len() {
            let source = address(hosts[from].number);
            for (to, datagrams) in hosts[from].sent() {
                idle = false;
                if let Some(host) = hosts.iter_mut().find(|host| address(host.number) == to) {
                    for datagram in datagrams {
                        host.receive(source, &datagram);
                    }
                }
            }
        }
        if idle {
            return;
        }
    }
}

/// Two hosts with a session.
fn pair(datagram: u16) -> [Host; 2] {
    let mut left = Host::new(1, &[direct(2)], datagram);
    let mut right = Host::new(2, &[direct(1)], datagram);
    left.install(2);
    right.install(1);
    [left, right]
}

#[test]
fn frames_of_every_size_arrive_unchanged() {
    let [mut left, mut right] = pair(1472);

    for len in [14, 60, 1300, 1432, 1433, 3000, 9000] {
        left.send(2, len);
        carry(&mut [&mut left, &mut right]);

        assert!(right.delivered() == [(node(1), frame(1, 2, len))], "{len}");
    }
}

#[test]
fn frames_of_one_size_leave_together_and_so_does_one_shorter() {
    let [mut left, _] = pair(1472);

    for len in [1000, 1000, 900, 900, 1000] {
        left.capture(Vnet::plain(None), &frame(1, 2, len));
    }
    left.flush();

    let calls: Vec<usize> = left.sent().iter().map(|(_, all)| all.len()).collect();
    assert_eq!(calls, [3, 1, 1]);
}

#[test]
fn frames_for_two_peers_leave_each_with_its_own_kind_and_arrive_whole() {
    let mut left = Host::new(1, &[direct(2), direct(3)], 1472);
    let (mut right, mut third) = (
        Host::new(2, &[direct(1), direct(3)], 1472),
        Host::new(3, &[direct(1), direct(2)], 1472),
    );
    left.install(2);
    left.install(3);
    right.install(1);
    third.install(1);

    for number in 0..200 {
        let peer = if number % 3 == 0 { 3 } else { 2 };
        left.capture(Vnet::plain(None), &frame(1, peer, 100));
    }
    left.flush();
    carry(&mut [&mut left, &mut right, &mut third]);

    assert!(right.delivered() == vec![(node(1), frame(1, 2, 100)); 133]);
    assert!(third.delivered() == vec![(node(1), frame(1, 3, 100)); 67]);
}

#[test]
fn a_frame_waits_for_its_session_and_is_asked_for_until_it_is_there() {
    let [_, mut right] = pair(1472);
    let mut left = Host::new(1, &[direct(2)], 1472);

    left.send(2, 100);
    let asked = left.reports();
    left.wait(100 * MS);
    let quiet = left.reports();
    left.wait(150 * MS);
    let again = left.reports();
    left.install(2);
    carry(&mut [&mut left, &mut right]);

    let direction = Direction::Sent;
    let peer = node(2);
    let said = left.reports();
    assert!(said.contains(&Report::Traffic { peer, direction }));
    let wanted = [Report::SessionWanted { peer }];
    assert_eq!((&asked[..], &again[..]), (&wanted[..], &wanted[..]));
    assert_eq!(quiet, []);
    assert_eq!(right.delivered().len(), 1);
    assert_eq!(left.tunnel.outbound.poll_timeout(), None);
}

#[test]
fn a_frame_that_waits_in_vain_is_dropped_and_nobody_is_asked_any_more() {
    let mut left = Host::new(1, &[direct(2)], 1472);

    left.send(2, 100);
    let mut asked = 0;
    while let Some(at) = left.tunnel.outbound.poll_timeout() {
        left.wait(at - left.now);
        asked += left.reports().len();
    }

    assert_eq!(left.dropped(DropReason::NoSession), 1);
    assert!((2..=5).contains(&asked), "{asked}");
    left.install(2);
    assert_eq!(left.sent(), []);
}

#[test]
fn a_renewed_session_says_no_sooner_that_frames_come() {
    let [mut left, mut right] = pair(1472);
    let said = |left: &mut Host, right: &mut Host| {
        left.send(2, 100);
        carry(&mut [left, right]);
        let (peer, direction) = (node(1), Direction::Received);
        let traffic = Report::Traffic { peer, direction };
        right.reports().contains(&traffic)
    };

    let first = said(&mut left, &mut right);
    for (host, peer) in [(&mut left, 2), (&mut right, 1)] {
        let keys = host.keys(peer, 2);
        let peer = node(peer);
        host.command(DataPlane::Install { peer, keys });
    }
    let renewed = said(&mut left, &mut right);
    right.wait(1000 * MS);
    let later = said(&mut left, &mut right);

    assert_eq!([first, renewed, later], [true, false, true]);
    assert_eq!(right.delivered().len(), 3);
}

#[test]
fn a_held_session_is_sent_by_once_the_peer_was_heard_under_it() {
    let mut left = Host::new(1, &[direct(2)], 1472);
    let mut right = Host::new(2, &[direct(1)], 1472);
    let keys = left.keys(2, 1);
    left.command(DataPlane::InstallReceiving {
        peer: node(2),
        keys,
    });
    right.install(1);

    left.send(2, 100);
    assert_eq!(left.sent(), []);
    right.send(1, 100);
    carry(&mut [&mut right, &mut left]);

    assert_eq!(left.delivered().len(), 1);
    assert_eq!(right.delivered().len(), 1);
}

#[test]
fn a_ping_comes_back_and_is_believed_once() {
    let [mut left, mut right] = pair(1472);
    let (peer, id, size) = (node(2), 7, 1364);

    left.command(DataPlane::Probe { peer, id, size });
    let question = left.sent();
    left.now += 20 * MS;
    right.receive(question[0].0, &question[0].1[0]);
    let answer = right.sent();
    left.receive(answer[0].0, &answer[0].1[0]);
    left.receive(answer[0].0, &answer[0].1[0]);

    let answered = Report::ProbeAnswered {
        peer,
        id,
        rtt: 20 * MS,
    };
    let reports = left.reports();
    let count = reports.iter().filter(|&report| *report == answered);
    assert_eq!(count.count(), 1, "{reports:?}");
    assert_eq!(left.cells.read().replay_drops, 1);
    assert_eq!(question[0].1[0].len(), answer[0].1[0].len());
}

#[test]
fn a_probe_of_a_way_tells_what_arrived_by_it() {
    let [mut left, mut right] = pair(1472);
    for _ in 0..5 {
        left.send(2, 100);
    }
    let mut frames = left.sent();
    frames.truncate(3);
    for (_, datagrams) in frames {
        right.receive(address(1), &datagrams[0]);
    }

    left.command(DataPlane::PathProbe {
        peer: node(2),
        via: Via::Direct(address(2)),
        slot: Some(Slot::default()),
        id: 9,
        datagram: 1400,
    });
    carry(&mut [&mut left, &mut right]);

    let reports = left.reports();
    let answer = reports.iter().find_map(|report| match report {
        Report::PathAnswered(answer) => Some(*answer),
        _ => None,
    });
    let answer = answer.unwrap();
    assert_eq!((answer.sent, answer.highest, answer.received), (5, 3, 3));
    assert_eq!(answer.seen_at, Some(address(1)));
}

#[test]
fn frames_that_the_socket_had_no_room_for_are_no_loss_of_the_way() {
    let [mut left, mut right] = pair(1472);
    left.world.refusal = Some(Refusal::Full);
    left.send(2, 100);
    left.world.refusal = None;
    left.send(2, 100);
    carry(&mut [&mut left, &mut right]);

    left.command(DataPlane::PathProbe {
        peer: node(2),
        via: Via::Direct(address(2)),
        slot: Some(Slot::default()),
        id: 9,
        datagram: 0,
    });
    carry(&mut [&mut left, &mut right]);

    assert_eq!(left.dropped(DropReason::SocketFull), 1);
    let reports = left.reports();
    let lossless = reports.iter().any(|report| {
        matches!(report, Report::PathAnswered(answer) if (answer.highest, answer.received) == (2, 2))
    });
    assert!(lossless, "{reports:?}");
}

#[test]
fn a_probe_that_is_too_large_for_the_device_is_no_drop() {
    let [mut left, _] = pair(1472);
    left.world.refusal = Some(Refusal::TooLong);

    left.command(DataPlane::PathProbe {
        peer: node(2),
        via: Via::Direct(address(2)),
        slot: None,
        id: 9,
        datagram: 8972,
    });
    let dropped = left.dropped(DropReason::TooLong);
    left.send(2, 100);

    assert_eq!(dropped, 0);
    assert_eq!(left.dropped(DropReason::TooLong), 1, "frames are missed");
}

#[test]
fn where_many_are_refused_together_they_leave_one_by_one() {
    let [mut left, mut right] = pair(1472);
    left.world.refusal = Some(Refusal::NotTogether);

    for _ in 0..5 {
        left.capture(Vnet::plain(None), &frame(1, 2, 500));
    }
    left.flush();
    assert_eq!(left.world.sent.len(), 5);
    carry(&mut [&mut left, &mut right]);

    assert_eq!(right.delivered().len(), 5);
}

#[test]
fn a_relay_passes_on_what_is_for_another_and_never_back() {
    let mut left = Host::new(1, &[relay(3, 2), direct(2)], 1400);
    let mut middle = Host::new(2, &[direct(1), direct(3)], 1456);
    let mut right = Host::new(3, &[relay(1, 2), direct(2)], 1400);
    left.install(2);
    left.install(3);
    middle.install(1);
    middle.install(3);
    right.install(1);
    right.install(2);

    left.send(3, 1000);
    carry(&mut [&mut left, &mut middle, &mut right]);

    assert!(right.delivered() == [(node(1), frame(1, 3, 1000))]);
    assert!(middle.delivered().is_empty());
    let relayed = middle.cells.read().relayed;
    assert_eq!((relayed[0].from, relayed[0].to), (node(1), node(3)));
    assert_eq!(relayed[0].datagrams, 1);

    // A relay that would have to send it back, or to ask the next relay for ever.
    let mut lost = Host::new(2, &[direct(1), relay(3, 1)], 1456);
    lost.install(1);
    lost.install(3);
    left.send(3, 1000);
    let (_, datagrams) = left.sent().remove(0);
    lost.receive(address(1), &datagrams[0]);
    assert_eq!(
        (lost.sent().len(), lost.dropped(DropReason::RelayReturn)),
        (0, 1)
    );
}

#[test]
fn what_nothing_else_reaches_goes_by_control_connections_and_comes_by_them() {
    let mut left = Host::new(1, &[(2, Via::Control)], 1400);
    let mut right = Host::new(2, &[(1, Via::Control)], 1400);
    left.install(2);
    right.install(1);

    left.send(2, 1000);
    let reports = left.reports();
    let datagrams = reports.into_iter().find_map(|report| match report {
        Report::ByControl { datagrams, .. } => Some(datagrams),
        _ => None,
    });
    let turn = &mut right.world.turn(right.now);
    let order = Order::Arrived(datagrams.unwrap());
    right.tunnel.inbound.obey(order, turn);

    assert!(right.delivered() == [(node(1), frame(1, 2, 1000))]);
}

#[test]
fn a_frame_in_anothers_name_does_not_enter() {
    let [mut left, mut right] = pair(1472);
    // Its own table is another: it believes to be host 3.
    let mut forger = Host::new(3, &[direct(2)], 1472);
    let keys = left.keys(2, 1);
    forger.command(DataPlane::Install {
        peer: node(2),
        keys,
    });

    forger.send(2, 100);
    carry(&mut [&mut forger, &mut right]);
    left.send(2, 100);
    let (_, datagrams) = left.sent().remove(0);
    right.receive(address(1), &datagrams[0]);

    assert!(right.delivered().is_empty());
    let counters = right.cells.read();
    assert_eq!(right.dropped(DropReason::MacUnknown), 1);
    assert_eq!(counters.replay_drops, 1, "the counter is the forger's");
}

#[test]
fn traffic_is_said_at_both_ends_and_where_the_peer_is_heard() {
    let [mut left, mut right] = pair(1472);

    left.send(2, 100);
    left.send(2, 100);
    carry(&mut [&mut left, &mut right]);

    let traffic = |peer, direction| Report::Traffic { peer, direction };
    assert_eq!(left.reports(), [traffic(node(2), Direction::Sent)]);
    let heard = Report::Heard {
        peer: node(1),
        from: address(1),
    };
    let received = traffic(node(1), Direction::Received);
    assert_eq!(right.reports(), [received, heard]);
}

#[test]
fn a_datagram_of_an_admitted_link_is_the_hub_s_and_no_other() {
    let [_, mut right] = pair(1472);
    let link = |index| {
        let head = Header {
            kind: Type::Link,
            lane: 0,
            index: SessionIndex(index),
            counter: 1,
        };
        [&head.encode()[..], &[0; 24]].concat()
    };

    right.command(DataPlane::AdmitLink(SessionIndex(7)));
    right.receive(address(1), &link(7));
    right.receive(address(1), &link(8));
    right.command(DataPlane::RetireLink(SessionIndex(7)));
    right.receive(address(1), &link(7));

    assert_eq!(right.world.links, [link(7)]);
    assert_eq!(right.cells.read().auth_drops, 2);
}

/// A TCP segment of `payload` bytes over IPv4, larger than the wire carries.
fn super_frame(from: u8, to: u8, payload: usize) -> (Vnet, Vec<u8>) {
    let mut bytes = frame(from, to, 14);
    bytes[12..].copy_from_slice(&[0x08, 0x00]);
    let total = u16::try_from(20 + 20 + payload).unwrap().to_be_bytes();
    bytes.extend_from_slice(&[0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0]);
    bytes.extend_from_slice(&[10, 32, 0, from, 10, 32, 0, to]);
    bytes.extend_from_slice(&[
        0, 7, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0,
    ]);
    bytes.extend((0..=250).cycle().take(payload));
    let vnet = Vnet {
        checksum: Some(Checksum {
            start: 34,
            offset: 16,
        }),
        gso: Gso::Tcp4,
        ecn: false,
        headers: 54,
        gso_size: 1310,
    };
    (vnet, bytes)
}

#[test]
fn a_train_arrives_as_the_super_frame_that_it_was() {
    let [mut left, mut right] = pair(1472);
    let (vnet, bytes) = super_frame(1, 2, 40_000);

    // The second one lies as the first has taught.
    for _ in 0..2 {
        left.capture(vnet, &bytes);
        let calls = left.sent();
        assert_eq!(calls.len(), 1);
        for datagram in &calls[0].1 {
            right.receive(address(1), datagram);
        }
        right.wait(2 * MS);
    }

    let payload: Vec<u8> = right
        .delivered()
        .iter()
        .flat_map(|(_, frame)| frame[54..].to_vec())
        .collect();
    assert!(payload == [&bytes[54..], &bytes[54..]].concat());
}

#[test]
fn the_rest_of_a_train_is_waited_for_a_moment_and_what_came_is_delivered() {
    let [mut left, mut right] = pair(1472);
    let (vnet, bytes) = super_frame(1, 2, 10_000);

    left.capture(vnet, &bytes);
    let calls = left.sent();
    right.receive(address(1), &calls[0].1[0]);
    let (at, why) = right.tunnel.inbound.poll_timeout().unwrap();
    assert_eq!((right.delivered().len(), why), (0, "train"));
    right.wait(at - right.now);

    let delivered = right.delivered();
    assert_eq!(delivered.len(), 1);
    assert!(bytes[54..].starts_with(&delivered[0].1[54..]));
    assert_eq!(right.tunnel.inbound.poll_timeout(), None);
}

#[test]
fn nothing_forged_moves_a_deadline_or_is_answered() {
    let [mut left, mut right] = pair(1472);
    left.send(2, 100);
    let (_, mut datagrams) = left.sent().remove(0);
    let last = datagrams[0].len() - 1;
    datagrams[0][last] ^= 1;

    for datagram in [&datagrams[0][..], &datagrams[0][..7], &[]] {
        right.receive(address(1), datagram);
    }

    assert_eq!(right.cells.read().auth_drops, 3);
    assert_eq!((right.sent(), right.reports()), (Vec::new(), Vec::new()));
    assert_eq!(right.tunnel.inbound.poll_timeout(), None);
}
