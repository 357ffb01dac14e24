//! A container that speaks in another's name is heard by nobody: its own host stops it.
//!
//! What a host that lies itself can do is tested beside the packet workers, in `router/tests/worker.rs`.

#![expect(clippy::print_stdout, reason = "a test says what it measured")]

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use weft_lab::packet::ethertype::{self, IPV4};
use weft_lab::packet::protocol::UDP;
use weft_lab::packet::{self, ethernet, fragment};
use weft_lab::{Capture, requires_root, requires_weft, wait_until};
use weft_suites::mesh::{Mesh, PATIENCE};
use weft_suites::wire::{Dice, ipv4, packet_socket, udp4};
use weft_types::MacAddr;

fn tagged(frame: &[u8]) -> Vec<u8> {
    packet::tagged(frame, ethertype::VLAN, 7)
}

/// An IPv6 packet between link-local addresses, with an IPv4 packet inside.
fn four_in_six(inner: &[u8]) -> Vec<u8> {
    const FOUR: u8 = 4;
    let ends = [7, 8].map(|host| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, host));
    packet::ipv6(ends, FOUR, inner)
}

#[test]
fn a_container_that_forges_its_sender_is_heard_by_nobody() {
    requires_root!();
    let program = requires_weft!();
    let mesh = Mesh::up("forgery", &program, 3);
    let marker = Dice::new(21).marker();
    let (own, foreign, to) = (mesh.mac(0), mesh.mac(2), mesh.mac(1));
    let at = |who: usize| SocketAddr::new(mesh.address(who), 9);
    let outside: IpAddr = [203, 0, 113, 1].into();
    let honest = ethernet(to, own, IPV4, &udp4(at(0), at(1), &marker));
    let address = ethernet(to, own, IPV4, &udp4(at(2), at(1), &marker));
    let forged = udp4(at(2), at(1), &marker);
    let piece = |offset| {
        let packet = ipv4(at(2).ip(), at(1).ip(), UDP, offset, &marker);
        ethernet(to, own, IPV4, &packet)
    };
    let forgeries = [
        ethernet(to, foreign, IPV4, &udp4(at(0), at(1), &marker)),
        ethernet(to, foreign, IPV4, &forged),
        tagged(&ethernet(to, foreign, IPV4, &forged)),
        tagged(&address),
        tagged(&tagged(&address)),
        // The header says more than there is.
        address[..14 + 20 + 8 + 16].to_vec(),
        ethernet(to, own, IPV4, &ipv4(outside, at(1).ip(), UDP, 0, &marker)),
        piece(fragment::MORE),
        piece(4),
        ethernet(to, own, ethertype::IPV6, &four_in_six(&forged)),
        ethernet(MacAddr::BROADCAST, foreign, IPV4, &forged),
        ethernet(MacAddr::BROADCAST, own, IPV4, &forged),
        address,
    ];
    // A refusal would quote the marker.
    let namespace = mesh.node(1).container.netns();
    let _listener = namespace.run(|| UdpSocket::bind(at(1)).unwrap()).unwrap();
    let captures = [1, 2].map(|who| {
        let namespace = mesh.node(who).container.netns();
        Capture::start(namespace, "weft0").unwrap()
    });
    let socket = packet_socket(mesh.node(0).container.netns(), "weft0");
    let before = mesh.node(0).status().unwrap()["drops"].clone();

    const ROUNDS: usize = 10;
    for _ in 0..ROUNDS {
        for frame in &forgeries {
            socket.send(frame).unwrap();
        }
    }
    // The honest ones come behind all the others.
    for _ in 0..ROUNDS {
        socket.send(&honest).unwrap();
    }
    assert!(wait_until(PATIENCE, || mesh.pings(0, 1)).is_some());
    let [at_1, at_2] = captures.map(|capture| capture.stop().unwrap());

    // Those with a foreign Ethernet address end at the container's port; the rest at the router.
    let after = mesh.node(0).status().unwrap()["drops"].clone();
    let count = |drops: &serde_json::Value, reason: &str| drops[reason].as_u64().unwrap_or(0);
    let dropped = |reason| count(&after, reason) - count(&before, reason);
    println!("{before} before, {after} after");
    assert!(dropped("address_foreign") >= 7 * ROUNDS as u64);
    assert!(dropped("address_outside") >= ROUNDS as u64);
    assert_eq!((at_1.lost(), at_2.lost()), (0, 0));
    for frame in at_1.frames() {
        let heard = frame.bytes.windows(16).any(|bytes| bytes == &marker[..16]);
        assert!(!heard || frame.bytes == honest, "c1 heard {frame:02x?}");
    }
    assert_eq!(at_1.search(&marker), ROUNDS);
    assert_eq!(at_1.search(&marker[..16]), ROUNDS);
    assert_eq!(at_2.search(&marker[..16]), 0);
    // Nobody was taken in: the one whose name was used is reached as before.
    assert!(wait_until(PATIENCE, || mesh.pings(1, 2)).is_some());
    for who in [1, 2] {
        assert_eq!(mesh.node(who).refused(), (0, 0));
    }
}
