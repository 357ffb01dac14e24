//! Datagrams and frames: what a peer seals, what a container sends, and what is made of both.

use std::time::Duration;

use weft_router_proto::crypto::seal::Backend;
use weft_router_proto::session::{Cipher, SessionKeys};
use weft_router_proto::sleeve::fragment::{self, OPEN, Piece, Rejoiner, WholeId};
use weft_router_proto::sleeve::header::{self, Header};
use weft_router_proto::sleeve::inner::{Layers, Remains, finish_checksum};
use weft_router_proto::sleeve::lane::{OVERHEAD, OpenError, ReceiveLanes, SendLane};
use weft_router_proto::sleeve::path_probe::{PathProbe, PathReply};
use weft_router_proto::sleeve::payload::{self, Kind};
use weft_router_proto::sleeve::relayed::{HEAD, HOPS, Relayed};
use weft_router_proto::sleeve::train::{self, Car, Join, Span, Train, TrainId, udp_segment};
use weft_router_proto::sleeve::vnet::{self, Gso, Vnet};
use weft_router_proto::sleeve::{MAX_SUPER_FRAME, SessionIndex, bundle, message};
use weft_router_proto::snapshot::{Endpoint, EndpointKind, Peer, Snapshot};
use weft_router_proto::switch::{Decision, ForwardingTable, Owner};
use weft_types::{MacAddr, Mtu, Nickname, NodeId, Segment};

use super::{pieces, world};

/// Datagrams on the data port: a stranger's if the first byte is even, else what a peer seals.
pub fn sleeve_datagram(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    let cipher = if mode & 2 == 0 {
        Cipher::Aes256Gcm
    } else {
        Cipher::ChaCha20Poly1305
    };
    let keys = SessionKeys {
        local: SessionIndex(1),
        remote: SessionIndex(1),
        cipher,
        send: [3; 32],
        receive: [3; 32],
    };
    let mut lanes = ReceiveLanes::new(&keys, Backend::Ring);
    if mode & 1 == 0 {
        for datagram in pieces(rest) {
            let Some(header) = Header::decode(datagram) else {
                continue;
            };
            let written = header.encode();
            assert_eq!(
                (written[0], &written[2..]),
                (datagram[0], &datagram[2..header::LEN])
            );
            assert!(lanes.open(header, &mut datagram.to_vec()).is_err());
        }
        return;
    }
    let mut lane = SendLane::new(&keys, u16::from(mode >> 4), Backend::AwsLc);
    for plain in pieces(rest) {
        let room = [0; OVERHEAD / 2];
        let mut datagram = [&room, plain, &room].concat();
        lane.seal(&mut datagram).expect("a lane lasts long");
        let header = Header::decode(&datagram).expect("it was written just now");
        let mut copy = datagram.clone();
        let opened = lanes.open(header, &mut datagram).expect("it was sealed");
        assert_eq!(opened, plain);
        assert!(lanes.open(header, &mut copy) == Err(OpenError::Replayed));
        body(plain);
    }
}

/// What a worker does with an opened datagram.
fn body(plain: &[u8]) {
    let Ok((kind, segment)) = payload::decode(plain) else {
        return;
    };
    assert_eq!(payload::encode(kind, segment), plain[..payload::LEN]);
    let body = &plain[payload::LEN..];
    match kind {
        Kind::Frames => frames(body),
        Kind::Car => {
            let _ = Car::decode(plain);
        }
        Kind::Message => {}
        Kind::Probe | Kind::ProbeReply => {
            let _ = message::probe_id(body);
        }
        Kind::Piece => {
            let _ = Piece::decode(plain);
        }
        Kind::PathProbe => {
            if let Ok(probe) = PathProbe::decode(body) {
                let mut written = vec![0xff; body.len()];
                probe.emit(&mut written);
                assert_eq!(PathProbe::decode(&written), Ok(probe));
            }
        }
        Kind::PathReply => {
            if let Ok(reply) = PathReply::decode(body) {
                assert_eq!(PathReply::decode(&reply.encode()), Ok(reply));
            }
        }
        Kind::Relayed => {
            if let Ok((relayed, header)) = Relayed::decode(body) {
                assert!(relayed.hops <= HOPS && body.len() >= HEAD + OVERHEAD);
                assert_eq!(relayed.encode()[4..], body[4..HEAD]);
                assert_eq!(Header::decode(&body[HEAD..]), Some(header));
            }
        }
    }
}

fn frames(body: &[u8]) {
    let mut end = 0;
    for record in bundle::records(body) {
        let Ok(record) = record else {
            return;
        };
        let frame = &body[record.frame.clone()];
        assert_eq!(record.frame.start, end + bundle::RECORD);
        let head = bundle::encode(frame.len(), record.checksum).expect("it was read just now");
        if record.checksum.is_some() {
            assert_eq!(head, body[end..record.frame.start]);
        }
        end = record.frame.end;
        if let Some(sum) = record.checksum {
            let (start, offset) = (usize::from(sum.start), usize::from(sum.offset));
            assert!(finish_checksum(&mut frame.to_vec(), start, offset));
        }
        let _ = Layers::parse(frame);
    }
}

/// Pieces of long bodies, each behind a byte that says lane and counter, and how long it took.
pub fn sleeve_fragment(data: &[u8]) {
    let mut rejoiner = Rejoiner::default();
    let mut now = world::origin();
    for (number, bytes) in pieces(data).enumerate() {
        let Some((control, plain)) = bytes.split_first() else {
            continue;
        };
        let Ok(piece) = Piece::decode(plain) else {
            continue;
        };
        assert_eq!(piece.encode()[1..], plain[1..fragment::HEADER]);
        assert_eq!(
            Piece::decode(&[&piece.encode(), &plain[fragment::HEADER..]].concat()),
            Ok(piece)
        );
        let id = WholeId {
            lane: u16::from(control & 1),
            base: u64::from(control >> 1 & 7),
        };
        if control & 0x80 != 0 {
            now += Duration::from_millis(300);
        }
        let joined = rejoiner.handle_piece(id, piece, &plain[fragment::HEADER..], now);
        if let Ok(Some(whole)) = joined {
            assert_eq!(whole.len(), usize::from(piece.total));
            assert!(whole[piece.start()..].starts_with(&plain[fragment::HEADER..]));
            if number % OPEN != 0 {
                rejoiner.recycle(whole);
            }
        }
    }
}

/// Cars of trains, each behind a byte that says which train; gathered as the workers do it.
pub fn sleeve_train(data: &[u8]) {
    let mut join = Join::default();
    let mut buffers: Vec<Vec<u8>> = Vec::new();
    for bytes in pieces(data) {
        let Some((control, plain)) = bytes.split_first() else {
            continue;
        };
        let Ok(car) = Car::decode(plain) else {
            continue;
        };
        assert_eq!(car.encode()[1..], plain[1..train::HEADER]);
        let id = TrainId {
            session: SessionIndex(u32::from(control & 1)),
            lane: u16::from(control >> 1 & 1),
            base: u64::from(control >> 2),
        };
        if !join.continues(id, car) {
            close(&mut join, &mut buffers);
        }
        buffers.push(plain.to_vec());
        join.push(
            id,
            car,
            Span {
                buffer: buffers.len() - 1,
                start: train::HEADER,
                len: plain.len() - train::HEADER,
            },
        );
        if join.is_complete() {
            close(&mut join, &mut buffers);
        }
    }
    close(&mut join, &mut buffers);
}

/// Closes the open train; gives what the kernel would get.
fn close(join: &mut Join, buffers: &mut [Vec<u8>]) -> Option<(Vnet, Vec<u8>)> {
    if !join.is_open() {
        return None;
    }
    let first = *join.spans().first().expect("an open train has a car");
    let head = &mut buffers[first.buffer][first.start..first.start + first.len];
    let before = Layers::parse(head);
    let vnet = join.finish(head).ok()?;
    assert_eq!(Layers::parse(head), before, "shortening moves no header");
    let spans = join.spans().iter();
    let frame: Vec<u8> = spans
        .flat_map(|span| &buffers[span.buffer][span.start..span.start + span.len])
        .copied()
        .collect();
    assert!(frame.len() <= MAX_SUPER_FRAME);
    let sum = vnet.checksum.expect("a train has a checksum to finish");
    assert!(sum.start + sum.offset + 2 <= vnet.headers);
    assert!(usize::from(vnet.headers) < frame.len());
    assert_eq!(vnet.gso == Gso::None, vnet.gso_size == 0);
    Some((vnet, frame))
}

/// A super-frame as the kernel gives it, behind its virtio header and two bytes of datagram size: what travels as a train
/// arrives as it was.
pub fn train_plan(data: &[u8]) {
    let Some((&[d0, d1], rest)) = data.split_first_chunk() else {
        return;
    };
    let Some((head, frame)) = rest.split_first_chunk::<{ vnet::LEN }>() else {
        return;
    };
    let Some(vnet) = Vnet::decode(head) else {
        return;
    };
    assert_eq!(Vnet::decode(&vnet.encode()), Some(vnet));
    let datagram = usize::from(u16::from_be_bytes([d0, d1]));
    let mut out = Vec::new();
    for number in 0..4 {
        if udp_segment(frame, vnet.gso_size, number, &mut out).is_some() {
            assert!(out.len() <= frame.len());
        }
    }
    let Ok(train) = Train::plan(Segment::DEFAULT, vnet, frame, frame.len(), datagram) else {
        return;
    };
    let (headers, payload) = frame.split_at(train.headers());
    let (mut join, mut buffers, mut at) = (Join::default(), Vec::new(), 0);
    for index in 0..train.cars() {
        let part = &payload[at..at + train.payload_of(index)];
        at += part.len();
        let plain = [&train.car(index).encode(), headers, part].concat();
        assert!(plain.len() + OVERHEAD <= datagram);
        assert_eq!(Car::decode(&plain), Ok(train.car(index)));
        let id = TrainId {
            session: SessionIndex(1),
            lane: 0,
            base: 0,
        };
        let rest = Span {
            buffer: usize::from(index),
            start: train::HEADER,
            len: plain.len() - train::HEADER,
        };
        buffers.push(plain);
        join.push(id, train.car(index), rest);
    }
    assert!(join.is_complete() && at == payload.len());
    let (_, joined) = close(&mut join, &mut buffers).expect("a whole train");
    assert_eq!(joined, frame);
}

/// The headers of a frame, and making its payload shorter: the first eight bytes say how.
pub fn layers(data: &[u8]) {
    let Some((&[s0, s1, p0, p1, n0, n1, tail, cut], frame)) = data.split_first_chunk() else {
        return;
    };
    let remains = Remains {
        skipped: u16::from_be_bytes([s0, s1]),
        payload: u16::from_be_bytes([p0, p1]),
        tail: tail & 1 == 1,
        segments_skipped: u16::from_be_bytes([n0, n1]),
    };
    let start = usize::from(remains.skipped);
    if start <= frame.len() {
        let written = finish_checksum(&mut frame.to_vec(), start, usize::from(tail));
        assert_eq!(written, start + usize::from(tail) + 2 <= frame.len());
    }
    let Some(layers) = Layers::parse(frame) else {
        return;
    };
    let headers = usize::from(layers.headers);
    assert!(layers.l3 < layers.l4 && layers.l4 < layers.headers && headers <= frame.len());
    assert_eq!(
        Layers::parse(&frame[..headers]),
        Some(layers),
        "the headers tell of themselves"
    );
    let mut shorter = frame.to_vec();
    if layers.shorten(&mut shorter, remains) {
        assert_eq!(Layers::parse(&shorter), Some(layers));
        assert_eq!(shorter[headers..], frame[headers..]);
    }
    let mut end = frame[..headers - usize::from(cut).min(headers)].to_vec();
    let _ = layers.shorten(&mut end, remains);
}

/// A frame as a bridge gives it and as a peer sends it: what one honest node sends, another accepts.
pub fn switch(data: &[u8]) {
    let Some((mode, frame)) = data.split_first() else {
        return;
    };
    let segment = Segment::new(u32::from(mode >> 7)).expect("24 bits");
    let (ours, theirs) = (table(0), table(1));
    match ours.decide_captured(segment, frame) {
        Decision::Drop(_) => {}
        Decision::Deliver(to) => {
            assert_eq!(to, 0);
            assert_eq!(theirs.check_received(segment, 0, frame), Ok(()));
        }
        Decision::Flood => assert_eq!(theirs.check_received(segment, 0, frame), Ok(())),
    }
    let from = usize::from(mode & 1);
    if ours.check_received(segment, from, frame).is_ok() {
        let source = frame[6..].first_chunk().expect("an Ethernet header");
        let owner = ours.mac_owner(segment, MacAddr::new(*source));
        assert_eq!(owner, Some(Owner::Peer(from)), "spoke in another's name");
    }
}

/// The table of one of two members, who both know the same two hosts and one that is away.
fn table(ourself: u8) -> ForwardingTable {
    let node = |number: u8| NodeId::new([number + 1; 32]);
    let endpoint = |number: u8| Endpoint {
        segment: Segment::DEFAULT,
        mac: MacAddr::new([2, 0, 0, 0, 0, number + 1]),
        addresses: vec![
            [10, 32, 0, number + 1].into(),
            [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(number) + 1].into(),
        ],
        owner: node(number),
        kind: EndpointKind::Host,
        metadata: None,
    };
    ForwardingTable::compile(&Snapshot {
        generation: 1,
        node: node(ourself),
        mtu: Mtu::MIN_MESH,
        ranges: ["10.32.0.0/12", "fd00::/64"]
            .map(|range| range.parse().expect("a network"))
            .to_vec(),
        host_addresses: Vec::new(),
        peers: vec![Peer {
            node: node(1 - ourself),
            nickname: Nickname::new("peer").expect("letters are a nickname"),
            path: None,
        }],
        endpoints: [0, 1, 2].into_iter().map(endpoint).collect(),
    })
}
