use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use weft_types::{MacAddr, Mtu, Nickname, NodeId, Segment};

use super::*;
use crate::snapshot::{Endpoint, EndpointKind, Peer, Snapshot};

const OURS: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);
const HONEST: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 2]);
const OTHER: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 3]);
const AWAY: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 4]);
const NEIGHBOUR: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 5]);
const ATTACKER: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 6]);
const STRANGER: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 9]);
const HONEST_V4: [u8; 4] = [10, 32, 0, 2];
const OTHER_V4: [u8; 4] = [10, 32, 0, 3];
const FREE_V4: [u8; 4] = [10, 32, 9, 9];

/// The peers by position: who is honest in these tests, and who lies.
const HONEST_PEER: usize = 0;
const OTHER_PEER: usize = 1;

#[test]
fn a_frame_for_a_peer_goes_to_that_peer() {
    let decision = table().decide_captured(Segment::DEFAULT, &ethernet(OTHER, OURS, 0x9999, &[]));

    assert_eq!(decision, Decision::Deliver(OTHER_PEER));
}

#[test]
fn a_group_and_an_unknown_address_go_to_everybody() {
    for to in [
        MacAddr::BROADCAST,
        MacAddr::new([0x33, 0x33, 0, 0, 0, 1]),
        STRANGER,
    ] {
        let decision = table().decide_captured(Segment::DEFAULT, &ethernet(to, OURS, 0x9999, &[]));

        assert_eq!(decision, Decision::Flood);
    }
}

#[test]
fn what_a_peer_sent_is_not_sent_on() {
    let from = |source| {
        let frame = ethernet(MacAddr::BROADCAST, source, 0x9999, &[]);
        table().decide_captured(Segment::DEFAULT, &frame)
    };

    assert_eq!(from(HONEST), Decision::Drop(DropReason::Loop));
    assert_eq!(from(AWAY), Decision::Drop(DropReason::Loop));
    assert_eq!(from(STRANGER), Decision::Drop(DropReason::MacUnknown));
}

#[test]
fn what_needs_no_peer_or_has_none_is_dropped() {
    let to = |destination| {
        table().decide_captured(Segment::DEFAULT, &ethernet(destination, OURS, 0x9999, &[]))
    };

    assert_eq!(to(OURS), Decision::Drop(DropReason::Local));
    assert_eq!(to(AWAY), Decision::Drop(DropReason::OwnerAbsent));
}

#[test]
fn the_links_own_protocols_stay_on_the_link() {
    let spanning_tree = MacAddr::new([0x01, 0x80, 0xc2, 0, 0, 0]);
    let cisco = MacAddr::new([0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcd]);
    let probe_in_a_tag = [0, 7, 0x88, 0xb5];
    for frame in [
        ethernet(spanning_tree, OURS, 0x0026, &[0x42, 0x42, 3]),
        ethernet(cisco, OURS, 0x0026, &[0xaa, 0xaa, 3]),
        ethernet(OTHER, OURS, 0x88cc, &[]),
        ethernet(OTHER, OURS, 0x88b5, &[]),
        ethernet(OTHER, OURS, 0x8100, &probe_in_a_tag),
    ] {
        assert_eq!(
            table().decide_captured(Segment::DEFAULT, &frame),
            Decision::Drop(DropReason::LinkControl)
        );
        assert_eq!(
            table().check_received(Segment::DEFAULT, HONEST_PEER, &frame),
            Err(DropReason::LinkControl)
        );
    }
}

#[test]
fn another_segment_has_other_endpoints() {
    let other = Segment::new(7).expect("24 bits");
    let frame = ethernet(OTHER, OURS, 0x9999, &[]);

    assert_eq!(
        table().decide_captured(other, &frame),
        Decision::Drop(DropReason::MacUnknown)
    );
}

#[test]
fn what_the_peers_would_refuse_does_not_leave() {
    let theirs = v4(OTHER_V4, 6, 0, &[0; 20]);
    let outside = v4([192, 168, 0, 1], 6, 0, &[0; 20]);
    let ours = v4([10, 32, 0, 1], 6, 0, &[0; 20]);
    let hosts = v4([10, 32, 0, 100], 6, 0, &[0; 20]);
    let send = |packet: &[u8]| {
        let frame = ethernet(OTHER, OURS, 0x0800, packet);
        table().decide_captured(Segment::DEFAULT, &frame)
    };

    assert_eq!(send(&ours), Decision::Deliver(OTHER_PEER));
    assert_eq!(send(&hosts), Decision::Deliver(OTHER_PEER));
    assert_eq!(send(&theirs), Decision::Drop(DropReason::AddressForeign));
    assert_eq!(send(&outside), Decision::Drop(DropReason::AddressOutside));
}

#[test]
fn a_container_speaks_in_its_own_name_and_in_none_of_its_neighbours_or_its_host() {
    let own = [10, 32, 0, 6];
    let send = |kind, payload: &[u8]| {
        let frame = ethernet(MacAddr::BROADCAST, ATTACKER, kind, payload);
        table().decide_captured(Segment::DEFAULT, &frame)
    };
    let advertise = |address, mac| {
        let message = nd(136, address, &option(2, mac));
        send(0x86dd, &v6(v6_of(6), 58, &message))
    };
    let of = |mac: MacAddr| {
        let [.., last] = *mac.as_bytes();
        [
            0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, last,
        ]
    };

    let redirect = v4(own, 1, 0, &[5, 1, 0, 0, 10, 32, 0, 6]);
    let redirect = send(0x0800, &redirect);
    assert_eq!(redirect, Decision::Drop(DropReason::RouterMessage));
    for allowed in [
        send(0x0806, &arp(2, ATTACKER, own, OTHER_V4)),
        send(0x0806, &arp(1, ATTACKER, [0; 4], own)),
        send(0x0800, &v4(own, 6, 0, &[0; 20])),
        send(0x86dd, &v6(v6_of(6), 6, &[0; 20])),
        send(0x86dd, &v6(of(ATTACKER), 6, &[0; 20])),
        advertise(v6_of(6), ATTACKER),
    ] {
        assert_eq!(allowed, Decision::Flood);
    }
    // A neighbour, the host by its endpoint, and the host by an address that no endpoint has.
    for last in [5, 1, 100] {
        let theirs = [10, 32, 0, last];
        let tunnel = v4(own, 4, 0, &v4(theirs, 6, 0, &[0; 20]));
        for forged in [
            send(0x0806, &arp(2, ATTACKER, theirs, OTHER_V4)),
            send(0x0806, &arp(1, ATTACKER, [0; 4], theirs)),
            send(0x0800, &v4(theirs, 6, 0, &[0; 20])),
            send(0x0800, &tunnel),
        ] {
            assert_eq!(forged, Decision::Drop(DropReason::AddressForeign));
        }
    }
    for (last, mac) in [(5, NEIGHBOUR), (1, OURS)] {
        for forged in [
            send(0x86dd, &v6(v6_of(last), 6, &[0; 20])),
            send(0x86dd, &v6(of(mac), 6, &[0; 20])),
            send(0x86dd, &v6([0; 16], 58, &nd(135, v6_of(last), &[]))),
            advertise(v6_of(last), ATTACKER),
        ] {
            assert_eq!(forged, Decision::Drop(DropReason::AddressForeign));
        }
        for forged in [
            send(0x0806, &arp(2, mac, own, OTHER_V4)),
            advertise(v6_of(6), mac),
        ] {
            assert_eq!(forged, Decision::Drop(DropReason::MacForeign));
        }
    }
}

#[test]
fn every_honest_frame_passes_and_is_refused_from_anybody_else() {
    for (name, frame) in honest_frames() {
        let table = table();

        assert_eq!(
            table.check_received(Segment::DEFAULT, HONEST_PEER, &frame),
            Ok(()),
            "{name}"
        );
        assert_eq!(
            table.check_received(Segment::DEFAULT, OTHER_PEER, &frame),
            Err(DropReason::MacForeign),
            "{name}"
        );
    }
}

#[test]
fn every_honest_frame_passes_in_tags_too() {
    for (name, frame) in honest_frames() {
        for tags in 1..=MAX_TAGS {
            assert_eq!(
                table().check_received(Segment::DEFAULT, HONEST_PEER, &tagged(&frame, tags)),
                Ok(()),
                "{name} in {tags} tags"
            );
        }
        assert_eq!(
            table().check_received(Segment::DEFAULT, HONEST_PEER, &tagged(&frame, MAX_TAGS + 1)),
            Err(DropReason::Nested),
            "{name}"
        );
    }
}

#[test]
fn every_frame_in_anothers_name_is_refused_in_tags_too() {
    for (name, frame, reason) in forged_frames() {
        for tags in 0..=MAX_TAGS {
            assert_eq!(
                table().check_received(Segment::DEFAULT, HONEST_PEER, &tagged(&frame, tags)),
                Err(reason),
                "{name} in {tags} tags"
            );
        }
    }
}

#[test]
fn no_header_may_be_cut() {
    for (name, frame) in honest_frames() {
        let table = table();
        // From the first byte of payload on a cut is not seen; before it, it is.
        let headers = headers_of(name);
        for cut in 0..headers {
            assert!(
                table
                    .check_received(Segment::DEFAULT, HONEST_PEER, &frame[..cut])
                    .is_err(),
                "{name} cut at {cut}"
            );
        }
    }
}

#[test]
fn a_tunnel_in_a_tunnel_has_an_end() {
    let mut packet = v4(HONEST_V4, 6, 0, &[0; 20]);
    for depth in 1..=MAX_TUNNELS + 1 {
        packet = v4(HONEST_V4, 4, 0, &packet);
        let expected = if depth <= MAX_TUNNELS {
            Ok(())
        } else {
            Err(DropReason::Nested)
        };

        assert_eq!(received(&from_honest(0x0800, &packet)), expected);
    }
}

#[test]
fn extension_headers_have_an_end() {
    let mut payload = vec![59, 0, 0, 0, 0, 0, 0, 0];
    for _ in 0..MAX_EXTENSIONS {
        let mut outer = vec![60, 0, 0, 0, 0, 0, 0, 0];
        outer.extend(&payload);
        payload = outer;
    }

    assert_eq!(
        received(&from_honest(0x86dd, &v6(v6_of(2), 60, &payload))),
        Err(DropReason::Nested)
    );
}

#[test]
fn a_member_that_left_owns_what_it_had() {
    let frame = ethernet(OURS, HONEST, 0x0800, &v4([10, 32, 0, 4], 6, 0, &[0; 20]));

    assert_eq!(received(&frame), Err(DropReason::AddressForeign));
}

proptest! {
    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let table = table();
        let _ = table.decide_captured(Segment::DEFAULT, &bytes);
        let _ = table.check_received(Segment::DEFAULT, HONEST_PEER, &bytes);
    }

    #[test]
    fn random_bytes_behind_an_honest_header_do_not_panic(
        kind in prop_oneof![Just(0x0800_u16), Just(0x86dd), Just(0x0806), Just(0x8100)],
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        version in prop_oneof![Just(0x45_u8), Just(0x60)],
        protocol in prop_oneof![Just(4_u8), Just(41), Just(58), Just(44), Just(0), Just(17), any::<u8>()],
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = version;
        }
        if let Some(field) = bytes.get_mut(if version == 0x45 { 9 } else { 6 }) {
            *field = protocol;
        }
        let _ = received(&ethernet(OURS, HONEST, kind, &bytes));
    }

    #[test]
    fn a_changed_byte_never_lets_anothers_address_in(
        at in 0_usize..200,
        value: u8,
    ) {
        for (_, mut frame) in honest_frames() {
            let at = at % frame.len();
            frame[at] = value;
            if received(&frame).is_ok() {
                prop_assert_eq!(&frame[6..12], HONEST.as_bytes());
                if frame[12..14] == [0x08, 0x00] {
                    let source = [frame[26], frame[27], frame[28], frame[29]];
                    prop_assert!(source == HONEST_V4 || source == [0; 4]);
                }
            }
        }
    }
}

fn honest_frames() -> Vec<(&'static str, Vec<u8>)> {
    let link_local = "fe80::ff:fe00:2".parse::<std::net::Ipv6Addr>().expect("v6");
    let opaque = "fe80::1234".parse::<std::net::Ipv6Addr>().expect("v6");
    let mine = v6_of(2);
    let inner4 = v4([192, 168, 0, 1], 6, 0, &[0; 20]);
    let inner_mine = v4(HONEST_V4, 6, 0, &[0; 20]);
    let mut fragmented = vec![17, 0, 0, 1, 0, 0, 0, 1];
    fragmented.extend([0x30, 0x39, 0, 53, 0, 8, 0, 0]);
    vec![
        ("another ethertype", from_honest(0x9999, &[1, 2, 3])),
        (
            "arp request",
            from_honest(0x0806, &arp(1, HONEST, HONEST_V4, OTHER_V4)),
        ),
        (
            "arp reply",
            from_honest(0x0806, &arp(2, HONEST, HONEST_V4, OTHER_V4)),
        ),
        (
            "arp probe",
            from_honest(0x0806, &arp(1, HONEST, [0; 4], HONEST_V4)),
        ),
        ("tcp", from_honest(0x0800, &v4(HONEST_V4, 6, 0, &[0; 20]))),
        (
            "echo request",
            from_honest(0x0800, &v4(HONEST_V4, 1, 0, &[8, 0, 0, 0, 0, 1, 0, 1])),
        ),
        (
            "udp",
            from_honest(
                0x0800,
                &v4(HONEST_V4, 17, 0, &[0x30, 0x39, 0, 53, 0, 8, 0, 0]),
            ),
        ),
        (
            "later fragment",
            from_honest(0x0800, &v4(HONEST_V4, 17, 185, &[0; 8])),
        ),
        (
            "dhcp request",
            from_honest(0x0800, &v4([0; 4], 17, 0, &[0, 68, 0, 67, 0, 8, 0, 0])),
        ),
        (
            "igmp without address",
            from_honest(0x0800, &v4([0; 4], 2, 0, &[0x22, 0, 0, 0])),
        ),
        (
            "somebody else's tunnel",
            from_honest(0x0800, &v4(HONEST_V4, 4, 0, &inner4)),
        ),
        (
            "own tunnel",
            from_honest(0x0800, &v4(HONEST_V4, 4, 0, &inner_mine)),
        ),
        ("4 in 6", from_honest(0x86dd, &v6(mine, 4, &inner_mine))),
        (
            "6 in 4",
            from_honest(0x0800, &v4(HONEST_V4, 41, 0, &v6(mine, 59, &[]))),
        ),
        ("tcp6", from_honest(0x86dd, &v6(mine, 6, &[0; 20]))),
        (
            "link-local made of the MAC",
            from_honest(0x86dd, &v6(link_local.octets(), 17, &[1; 8])),
        ),
        (
            "link-local",
            from_honest(0x86dd, &v6(opaque.octets(), 17, &[1; 8])),
        ),
        ("fragment6", from_honest(0x86dd, &v6(mine, 44, &fragmented))),
        (
            "duplicate detection",
            from_honest(0x86dd, &v6([0; 16], 58, &nd(135, mine, &[]))),
        ),
        (
            "listener report",
            from_honest(0x86dd, &v6([0; 16], 58, &[143, 0, 0, 0, 0, 0, 0, 0])),
        ),
        (
            "solicitation",
            from_honest(
                0x86dd,
                &v6(mine, 58, &nd(135, v6_of(3), &option(1, HONEST))),
            ),
        ),
        (
            "advertisement",
            from_honest(0x86dd, &v6(mine, 58, &nd(136, mine, &option(2, HONEST)))),
        ),
        (
            "link-local advertisement",
            from_honest(
                0x86dd,
                &v6(
                    opaque.octets(),
                    58,
                    &nd(136, opaque.octets(), &option(2, HONEST)),
                ),
            ),
        ),
        (
            "router solicitation",
            from_honest(
                0x86dd,
                &v6(
                    opaque.octets(),
                    58,
                    &[&[133, 0, 0, 0, 0, 0, 0, 0][..], &option(1, HONEST)].concat(),
                ),
            ),
        ),
    ]
}

/// Where the payload of the honest frame begins: nothing before may be missing.
fn headers_of(name: &str) -> usize {
    match name {
        "another ethertype" => 14,
        "arp request" | "arp reply" | "arp probe" => 14 + 28,
        "tcp" | "later fragment" => 14 + 20,
        "echo request" => 14 + 21,
        "udp" | "dhcp request" => 14 + 24,
        "igmp without address" => 14 + 20,
        "somebody else's tunnel" | "own tunnel" => 14 + 40,
        "4 in 6" | "6 in 4" => 14 + 60,
        "tcp6" => 14 + 40,
        "link-local made of the MAC" | "link-local" => 14 + 44,
        "fragment6" => 14 + 52,
        "listener report" => 14 + 44,
        "duplicate detection" => 14 + 64,
        "router solicitation" => 14 + 48,
        "solicitation" | "advertisement" | "link-local advertisement" => 14 + 64,
        other => panic!("no header length for {other}"),
    }
}

fn forged_frames() -> Vec<(&'static str, Vec<u8>, DropReason)> {
    use DropReason::*;
    let theirs = v6_of(3);
    let mine = v6_of(2);
    let inner_theirs = v4(OTHER_V4, 6, 0, &[0; 20]);
    let mapped = {
        let mut bytes = [0; 16];
        bytes[10..12].fill(0xff);
        bytes[12..].copy_from_slice(&OTHER_V4);
        bytes
    };
    let of_other_mac = "fe80::ff:fe00:3"
        .parse::<std::net::Ipv6Addr>()
        .expect("v6")
        .octets();
    let v4_from = |source| from_honest(0x0800, &v4(source, 6, 0, &[0; 20]));
    let v6_from = |source| from_honest(0x86dd, &v6(source, 6, &[0; 20]));
    let nd_with = |message: Vec<u8>| from_honest(0x86dd, &v6(mine, 58, &message));
    let mut stuffed = vec![60, 0, 0, 0, 0, 0, 0, 0, 58, 0, 0, 0, 0, 0, 0, 0];
    stuffed.extend(nd(136, theirs, &[]));
    let mut fragmented_nd = vec![58, 0, 0, 1, 0, 0, 0, 1];
    fragmented_nd.extend(nd(136, mine, &[]));
    vec![
        ("their MAC", ethernet(OURS, OTHER, 0x9999, &[]), MacForeign),
        ("our MAC", ethernet(OTHER, OURS, 0x9999, &[]), MacForeign),
        (
            "a MAC of a member that is away",
            ethernet(OURS, AWAY, 0x9999, &[]),
            MacForeign,
        ),
        (
            "nobody's MAC",
            ethernet(OURS, STRANGER, 0x9999, &[]),
            MacUnknown,
        ),
        (
            "their ARP",
            from_honest(0x0806, &arp(2, HONEST, OTHER_V4, HONEST_V4)),
            AddressForeign,
        ),
        (
            "our ARP",
            from_honest(0x0806, &arp(2, HONEST, [10, 32, 0, 1], HONEST_V4)),
            AddressForeign,
        ),
        (
            "their hardware",
            from_honest(0x0806, &arp(2, OTHER, HONEST_V4, HONEST_V4)),
            MacForeign,
        ),
        (
            "a probe for theirs",
            from_honest(0x0806, &arp(1, HONEST, [0; 4], OTHER_V4)),
            AddressForeign,
        ),
        (
            "link-local ARP",
            from_honest(0x0806, &arp(1, HONEST, [169, 254, 1, 1], OTHER_V4)),
            AddressIllegal,
        ),
        (
            "ARP of another kind",
            from_honest(0x0806, &[0; 28]),
            Malformed,
        ),
        ("theirs", v4_from(OTHER_V4), AddressForeign),
        ("nobody's", v4_from(FREE_V4), AddressUnknown),
        ("outside", v4_from([192, 168, 0, 1]), AddressOutside),
        ("loopback", v4_from([127, 0, 0, 1]), AddressIllegal),
        ("link-local", v4_from([169, 254, 0, 1]), AddressIllegal),
        ("group", v4_from([224, 0, 0, 1]), AddressIllegal),
        ("broadcast", v4_from([255; 4]), AddressIllegal),
        ("unspecified", v4_from([0; 4]), AddressIllegal),
        (
            "a fragment of theirs",
            from_honest(0x0800, &v4(OTHER_V4, 17, 185, &[0; 8])),
            AddressForeign,
        ),
        (
            "unspecified fragment",
            from_honest(0x0800, &v4([0; 4], 17, 0x2000, &[0, 68, 0, 67])),
            AddressIllegal,
        ),
        (
            "their tunnel",
            from_honest(0x0800, &v4(HONEST_V4, 4, 0, &inner_theirs)),
            AddressForeign,
        ),
        (
            "their 4 in 6",
            from_honest(0x86dd, &v6(mine, 4, &inner_theirs)),
            AddressForeign,
        ),
        (
            "their 6 in 4",
            from_honest(0x0800, &v4(HONEST_V4, 41, 0, &v6(theirs, 59, &[]))),
            AddressForeign,
        ),
        (
            "their mapped in 6 in 4",
            from_honest(0x0800, &v4(HONEST_V4, 41, 0, &v6(mapped, 59, &[]))),
            AddressForeign,
        ),
        (
            "a fragment over a tunnelled source",
            from_honest(0x0800, &v4(HONEST_V4, 4, 1, &[0; 8])),
            Malformed,
        ),
        (
            "a tunnel with nothing in it",
            from_honest(0x0800, &v4(HONEST_V4, 4, 0, &[])),
            Truncated,
        ),
        ("mapped", v6_from(mapped), AddressIllegal),
        ("theirs6", v6_from(theirs), AddressForeign),
        ("nobody's6", v6_from(v6_of(99)), AddressUnknown),
        ("outside6", v6_from([0x20; 16]), AddressOutside),
        ("group6", v6_from([0xff; 16]), AddressIllegal),
        (
            "loopback6",
            v6_from(std::net::Ipv6Addr::LOCALHOST.octets()),
            AddressIllegal,
        ),
        ("unspecified6", v6_from([0; 16]), AddressIllegal),
        (
            "link-local made of their MAC",
            v6_from(of_other_mac),
            AddressForeign,
        ),
        (
            "their advertisement",
            nd_with(nd(136, theirs, &option(2, HONEST))),
            AddressForeign,
        ),
        (
            "advertisement of their MAC",
            nd_with(nd(136, mine, &option(2, OTHER))),
            MacForeign,
        ),
        (
            "solicitation of their MAC",
            nd_with(nd(135, theirs, &option(1, OTHER))),
            MacForeign,
        ),
        (
            "second option of their MAC",
            nd_with(nd(
                135,
                theirs,
                &[option(1, HONEST), option(1, OTHER)].concat(),
            )),
            MacForeign,
        ),
        ("empty option", nd_with(nd(135, theirs, &[1, 0])), Malformed),
        (
            "cut option",
            nd_with(nd(135, theirs, &[1, 1, 2])),
            Truncated,
        ),
        (
            "duplicate detection of theirs",
            from_honest(0x86dd, &v6([0; 16], 58, &nd(135, theirs, &[]))),
            AddressForeign,
        ),
        (
            "behind extension headers",
            from_honest(0x86dd, &v6(mine, 0, &stuffed)),
            AddressForeign,
        ),
        (
            "fragmented discovery",
            from_honest(0x86dd, &v6(mine, 44, &fragmented_nd)),
            Malformed,
        ),
        (
            "router advertisement",
            nd_with(vec![134, 0, 0, 0, 64, 0, 0, 0]),
            RouterMessage,
        ),
        (
            "redirect",
            nd_with(vec![137, 0, 0, 0, 0, 0, 0, 0]),
            RouterMessage,
        ),
        (
            "redirect of IPv4",
            from_honest(0x0800, &v4(HONEST_V4, 1, 0, &[5, 1, 0, 0, 10, 32, 0, 2])),
            RouterMessage,
        ),
        (
            "router advertisement of IPv4",
            from_honest(0x0800, &v4(HONEST_V4, 1, 0, &[9, 0, 0, 0, 1, 2, 0, 60])),
            RouterMessage,
        ),
        (
            "dhcp reply",
            from_honest(0x0800, &v4(HONEST_V4, 17, 0, &[0, 67, 0, 68, 0, 8, 0, 0])),
            DhcpReply,
        ),
        (
            "dhcp6 reply",
            from_honest(0x86dd, &v6(mine, 17, &[2, 35, 2, 34, 0, 8, 0, 0])),
            DhcpReply,
        ),
        ("version 5", from_honest(0x0800, &[0x55; 20]), Malformed),
        (
            "short header length",
            from_honest(0x0800, &[0x44; 20]),
            Malformed,
        ),
    ]
}

fn received(frame: &[u8]) -> Result<(), DropReason> {
    table().check_received(Segment::DEFAULT, HONEST_PEER, frame)
}

fn table() -> ForwardingTable {
    let node = |n| NodeId::new([n; 32]);
    let peer = |n| Peer {
        node: node(n),
        nickname: Nickname::new("peer").expect("a nickname"),
        path: None,
    };
    let endpoint = |mac, n: u8, kind| Endpoint {
        segment: Segment::DEFAULT,
        mac,
        addresses: vec![IpAddr::from([10, 32, 0, n]), IpAddr::from(v6_of(n))],
        owner: node(n),
        kind,
        metadata: None,
    };
    let attached = || EndpointKind::Attached {
        port: String::new(),
    };
    ForwardingTable::compile(&Snapshot {
        generation: 1,
        node: node(1),
        mtu: Mtu::MESH,
        ranges: vec![
            "10.32.0.0/12".parse::<IpNet>().expect("a range"),
            "fd00::/64".parse::<IpNet>().expect("a range"),
        ],
        host_addresses: vec!["10.32.0.100/12".parse::<IpNet>().expect("an address")],
        peers: vec![peer(2), peer(3)],
        endpoints: [
            endpoint(OURS, 1, EndpointKind::Host),
            endpoint(HONEST, 2, attached()),
            endpoint(OTHER, 3, attached()),
            endpoint(AWAY, 4, attached()),
            // Two containers of this host.
            Endpoint {
                owner: node(1),
                ..endpoint(NEIGHBOUR, 5, attached())
            },
            Endpoint {
                owner: node(1),
                ..endpoint(ATTACKER, 6, attached())
            },
        ]
        .into_iter()
        .collect(),
    })
}

fn v6_of(n: u8) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    bytes[15] = n;
    bytes
}

fn ethernet(to: MacAddr, from: MacAddr, kind: u16, payload: &[u8]) -> Vec<u8> {
    [
        to.as_bytes(),
        from.as_bytes(),
        &kind.to_be_bytes()[..],
        payload,
    ]
    .concat()
}

fn from_honest(kind: u16, payload: &[u8]) -> Vec<u8> {
    ethernet(OURS, HONEST, kind, payload)
}

fn tagged(frame: &[u8], tags: usize) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    let kinds = [[0x88, 0xa8, 0, 1], [0x81, 0x00, 0, 2], [0x91, 0x00, 0, 3]];
    let stack: Vec<u8> = kinds.into_iter().cycle().take(tags).flatten().collect();
    [addresses, &stack, rest].concat()
}

fn arp(operation: u8, hardware: MacAddr, protocol: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    [
        &[0, 1, 0x08, 0, 6, 4, 0, operation][..],
        hardware.as_bytes(),
        &protocol,
        &[0; 6],
        &target,
    ]
    .concat()
}

fn v4(source: [u8; 4], protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(
        &u16::try_from(20 + payload.len())
            .expect("short")
            .to_be_bytes(),
    );
    header[6..8].copy_from_slice(&fragment.to_be_bytes());
    header[9] = protocol;
    header[12..16].copy_from_slice(&source);
    header[16..].copy_from_slice(&OTHER_V4);
    [&header[..], payload].concat()
}

fn v6(source: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; 40];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&u16::try_from(payload.len()).expect("short").to_be_bytes());
    header[6] = next;
    header[8..24].copy_from_slice(&source);
    header[24..].copy_from_slice(&v6_of(1));
    [&header[..], payload].concat()
}

fn nd(kind: u8, target: [u8; 16], options: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target, options].concat()
}

fn option(kind: u8, mac: MacAddr) -> Vec<u8> {
    [&[kind, 1][..], mac.as_bytes()].concat()
}
