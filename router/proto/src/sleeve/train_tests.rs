//! Trains from one end to the other, through the slots they are sealed in and the seals themselves.

use proptest::prelude::*;

use super::super::header::Header;
use super::super::inner::tests::frame;
use super::super::lane::tests::pair;
use super::super::lane::{OVERHEAD, ReceiveLanes, SendLane};
use super::super::slots::Slots;
use super::super::{header, vnet};
use super::*;
use crate::crypto::seal::Backend;

const LANE: u16 = 0;

/// What kind of super-frame a family and transport make.
fn gso(family: Family, transport: Transport) -> Gso {
    match (family, transport) {
        (Family::V4, Transport::Tcp) => Gso::Tcp4,
        (Family::V6, Transport::Tcp) => Gso::Tcp6,
        (Family::V4 | Family::V6, Transport::Udp) => Gso::Udp,
    }
}

fn super_frame(
    family: Family,
    transport: Transport,
    vlan: bool,
    gso_size: u16,
    payload: &[u8],
) -> (Vnet, Vec<u8>) {
    let bytes = frame(family, transport, vlan, payload);
    let layers = Layers::parse(&bytes).unwrap();
    let vnet = Vnet {
        checksum: Some(Checksum {
            start: u16::from(layers.l4),
            offset: layers.transport.checksum_offset(),
        }),
        gso: gso(family, transport),
        ecn: transport == Transport::Tcp,
        headers: u16::from(layers.headers),
        gso_size,
    };
    (vnet, bytes)
}

/// Reads a frame as the kernel would scatter it.
fn scatter(slots: &mut Slots, first: usize, frame: &[u8]) {
    let mut head = [0; vnet::LEN];
    let rest = slots.read(first, &mut head, |room| {
        let mut rest = frame;
        for part in room.iter_mut().skip(1) {
            let (now, later) = rest.split_at(part.len().min(rest.len()));
            part[..now.len()].copy_from_slice(now);
            rest = later;
        }
        rest.len()
    });
    assert_eq!(rest, 0);
}

/// Cuts and seals; `None` if it cannot travel as a train.
fn send(
    slots: &mut Slots,
    lane: &mut SendLane,
    (vnet, frame): &(Vnet, Vec<u8>),
    datagram: usize,
) -> Option<Vec<Vec<u8>>> {
    let first = 3;
    scatter(slots, first, frame);
    let start = slots.start(first, frame.len()).to_vec();
    let train = Train::plan(Segment::DEFAULT, *vnet, &start, frame.len(), datagram).ok()?;
    if !slots.fits(&train) {
        assert_eq!(slots.gather(first, frame.len()), frame);
        slots.lay_out(first, frame.len(), &train).unwrap();
    }
    let datagrams: Vec<Vec<u8>> = (0..train.cars())
        .map(|index| {
            let sealed = slots.seal_car(first, &train, index, &start, lane).unwrap();
            slots.bytes(sealed).to_vec()
        })
        .collect();
    assert!(datagrams.iter().all(|bytes| bytes.len() <= datagram));
    let (_, equal) = datagrams.split_last().unwrap();
    assert!(equal.windows(2).all(|pair| pair[0].len() == pair[1].len()));
    Some(datagrams)
}

/// Opens and joins, in the order given.
fn receive(lanes: &mut ReceiveLanes, datagrams: Vec<Vec<u8>>) -> Vec<(Vnet, Vec<u8>)> {
    let mut join = Join::default();
    let mut buffers = datagrams;
    let mut delivered = Vec::new();
    for number in 0..buffers.len() {
        let head = Header::decode(&buffers[number]).unwrap();
        let plain = lanes.open(head, &mut buffers[number]).unwrap();
        let (car, len) = (Car::decode(plain).unwrap(), plain.len());
        let id = TrainId {
            session: head.index,
            lane: head.lane,
            base: head.counter.wrapping_sub(u64::from(car.index)),
        };
        if join.is_open() && !join.continues(id, car) {
            delivered.push(deliver(&mut join, &mut buffers));
        }
        join.push(
            id,
            car,
            Span {
                buffer: number,
                start: header::LEN + HEADER,
                len: len - HEADER,
            },
        );
        if join.is_complete() {
            delivered.push(deliver(&mut join, &mut buffers));
        }
    }
    if join.is_open() {
        delivered.push(deliver(&mut join, &mut buffers));
    }
    delivered
}

fn deliver(join: &mut Join, buffers: &mut [Vec<u8>]) -> (Vnet, Vec<u8>) {
    let first = join.spans()[0];
    let head = &mut buffers[first.buffer][first.start..first.start + first.len];
    let vnet = join.finish(head).unwrap();
    let bytes = join
        .spans()
        .iter()
        .flat_map(|span| &buffers[span.buffer][span.start..span.start + span.len])
        .copied()
        .collect();
    (vnet, bytes)
}

fn families() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn transports() -> impl Strategy<Value = Transport> {
    prop_oneof![Just(Transport::Tcp), Just(Transport::Udp)]
}

/// Every byte is told by its place, so that a run of them shows where it came from.
fn numbered(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// Whether a delivered segment is valid and holds the bytes it says it holds.
fn honest(original: &[u8], (vnet, bytes): &(Vnet, Vec<u8>)) -> Result<(), TestCaseError> {
    let (was, is) = (
        Layers::parse(original).unwrap(),
        Layers::parse(bytes).unwrap(),
    );
    let headers = usize::from(is.headers);
    let mut same = bytes.clone();
    prop_assert!(is.set_payload(&mut same, bytes.len() - headers));
    prop_assert_eq!(
        &same[..headers],
        &bytes[..headers],
        "lengths and sums are those of what is there"
    );
    let payload = &bytes[headers..];
    let start = match is.transport {
        Transport::Tcp => {
            let seq = |bytes: &[u8], layers: Layers| {
                let at = usize::from(layers.l4) + 4;
                u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
            };
            let skipped = seq(bytes, is).wrapping_sub(seq(original, was)) as usize;
            let flags = bytes[usize::from(is.l4) + 13];
            let ends = headers + skipped + payload.len() == original.len();
            prop_assert_eq!(flags & 0x09 != 0, ends, "FIN and PSH stand at the end");
            prop_assert_eq!(
                flags & 0x80 != 0,
                skipped == 0,
                "CWR stands at the beginning"
            );
            skipped
        }
        Transport::Udp => original[headers..]
            .windows(payload.len())
            .position(|run| run == payload)
            .expect("a run of the original"),
    };
    prop_assert_eq!(payload, &original[headers + start..][..payload.len()]);
    prop_assert_eq!(
        vnet.gso == Gso::None,
        payload.len() <= usize::from(vnet.gso_size) || vnet.gso_size == 0
    );
    Ok(())
}

#[test]
fn a_full_super_frame_fills_49_datagrams_and_is_laid_out_right_the_second_time() {
    let (ours, theirs) = pair();
    let mut lane = SendLane::new(&ours, LANE, Backend::Ring);
    let mut lanes = ReceiveLanes::new(&theirs, Backend::Ring);
    let mut slots = Slots::new(1472);
    let wanted = super_frame(
        Family::V4,
        Transport::Tcp,
        false,
        1298,
        &numbered(65_535 - 52),
    );

    for _ in 0..2 {
        let datagrams = send(&mut slots, &mut lane, &wanted, 1472).unwrap();

        assert_eq!(datagrams.len(), 49);
        assert!(receive(&mut lanes, datagrams).iter().eq([&wanted]));
    }
}

#[test]
fn udp_datagrams_too_large_for_a_car_become_frames() {
    let wanted = super_frame(Family::V4, Transport::Udp, false, 1400, &numbered(3000));
    let plan = Train::plan(Segment::DEFAULT, wanted.0, &wanted.1, wanted.1.len(), 1400);
    assert_eq!(plan.err(), Some(NoTrain::Segment));

    let mut out = Vec::new();
    let lengths: Vec<usize> = (0..)
        .map_while(|number| {
            let vnet = udp_segment(&wanted.1, 1400, number, &mut out)?;
            honest(&wanted.1, &(vnet, out.clone())).unwrap();
            Some(out.len() - 42)
        })
        .collect();

    assert_eq!(lengths, [1400, 1400, 200]);
}

#[test]
fn what_the_kernel_says_must_agree_with_the_headers() {
    let (vnet, bytes) = super_frame(Family::V4, Transport::Tcp, false, 1000, &numbered(3000));
    let plan = |vnet| Train::plan(Segment::DEFAULT, vnet, &bytes, bytes.len(), 1472).is_ok();

    assert!(plan(vnet));
    assert!(!plan(Vnet {
        gso: Gso::Tcp6,
        ..vnet
    }));
    assert!(!plan(Vnet {
        checksum: None,
        ..vnet
    }));
    assert!(!plan(Vnet {
        gso_size: 0,
        ..vnet
    }));
}

#[test]
fn every_prefix_of_a_car_is_refused() {
    let (vnet, bytes) = super_frame(Family::V4, Transport::Tcp, false, 1000, &numbered(3000));
    let train = Train::plan(Segment::DEFAULT, vnet, &bytes, bytes.len(), 1472).unwrap();
    let mut plain = train.car(1).encode().to_vec();
    plain.extend_from_slice(&bytes[..train.headers() + train.chunk()]);
    assert_eq!(Car::decode(&plain), Ok(train.car(1)));

    assert!((0..plain.len()).all(|len| Car::decode(&plain[..len]).is_err()));
}

proptest! {
    #[test]
    fn cutting_and_joining_is_the_identity(
        family in families(),
        transport in transports(),
        vlan in any::<bool>(),
        gso_size in 100..1500_u16,
        len in 1..65_400_usize,
        datagram in 548..9000_usize,
    ) {
        let (ours, theirs) = pair();
        let mut lane = SendLane::new(&ours, LANE, Backend::Ring);
        let mut lanes = ReceiveLanes::new(&theirs, Backend::Ring);
        let mut slots = Slots::new(datagram.max(1472));
        let (vnet, bytes) = super_frame(family, transport, vlan, gso_size, &numbered(len));
        let single = len <= usize::from(gso_size);
        let Some(datagrams) = send(&mut slots, &mut lane, &(vnet, bytes.clone()), datagram) else {
            prop_assert!(transport == Transport::Udp);
            return Ok(());
        };

        let delivered = receive(&mut lanes, datagrams);

        let expected = if single {
            Vnet { gso: Gso::None, gso_size: 0, ecn: false, ..vnet }
        } else {
            vnet
        };
        prop_assert_eq!(delivered, vec![(expected, bytes)]);
    }

    #[test]
    fn any_loss_and_any_order_yield_honest_segments_only(
        family in families(),
        transport in transports(),
        gso_size in 200..1400_u16,
        len in 1..30_000_usize,
        datagram in 548..2000_usize,
        lost in prop::collection::vec(any::<bool>(), 64),
        swaps in prop::collection::vec((0..64_usize, 0..64_usize), 0..3),
    ) {
        let (ours, theirs) = pair();
        let mut lane = SendLane::new(&ours, LANE, Backend::Ring);
        let mut lanes = ReceiveLanes::new(&theirs, Backend::Ring);
        let mut slots = Slots::new(datagram.max(1472));
        let wanted = super_frame(family, transport, false, gso_size, &numbered(len));
        let Some(mut datagrams) = send(&mut slots, &mut lane, &wanted, datagram) else {
            return Ok(());
        };
        let total: usize = datagrams.len();
        let overhead = OVERHEAD + HEADER + usize::from(Layers::parse(&wanted.1).unwrap().headers);
        for (a, b) in swaps {
            datagrams.swap(a % total, b % total);
        }
        let mut lost = lost.into_iter().cycle();
        datagrams.retain(|_| !lost.next().unwrap_or(false));
        let arrived: usize = datagrams.iter().map(|bytes| bytes.len() - overhead).sum();

        let delivered = receive(&mut lanes, datagrams);

        let mut bytes = 0;
        for segment in &delivered {
            honest(&wanted.1, segment)?;
            bytes += segment.1.len() - (overhead - OVERHEAD - HEADER);
        }
        prop_assert_eq!(bytes, arrived, "what arrives is delivered");
    }

    #[test]
    fn random_cars_do_not_panic(
        plains in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
    ) {
        let mut join = Join::default();
        let mut buffers = plains;
        for number in 0..buffers.len() {
            let plain = &mut buffers[number];
            if plain.len() > 100 {
                plain[4] %= 4;
                plain[5] = 4;
                plain[6] = 1;
                plain[7] = 54;
                let chunk = u16::try_from(plain.len() - HEADER - 54).unwrap();
                plain[10..12].copy_from_slice(&chunk.to_be_bytes());
                plain[24..27].copy_from_slice(&[8, 0, 0x45]);
                plain[35] = 6;
                plain[58] = 0x50;
            }
            let Ok(car) = Car::decode(plain) else { continue };
            let len = plain.len() - HEADER;
            let id = TrainId { session: SessionIndex(1), lane: 0, base: 0 };
            join.push(id, car, Span { buffer: number, start: HEADER, len });
            if number % 3 == 0 {
                let first = join.spans()[0];
                let head = &mut buffers[first.buffer][first.start..first.start + first.len];
                let _ = join.finish(head);
            }
        }
    }
}
