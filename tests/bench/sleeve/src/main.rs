//! Runs one host's end of a sleeve with a fixed key, so that it can be measured without a mesh around it.
//!
//! ```text
//!   weft-bench-sleeve SIDE TAP LOCAL:PORT PEER:PORT DATAGRAM aes|chacha OUR_MAC THEIR_MAC [THIRD:PORT]
//! ```
//!
//! SIDE is 0 or 1. The endpoints are 10.40.0.1 behind side 0 and 10.40.0.2 behind side 1, with the Ethernet addresses
//! given. With THIRD frames go by the relay there. The relay is SIDE 2: PEER is side 0, THIRD is side 1, and the
//! Ethernet addresses are theirs. The program makes the TAP device, says "ready", and ends when it reads a line; then it
//! says what it counted.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use weft_kernel::tap::{Tap, TapOptions};
use weft_kernel::udp::{UdpOptions, UdpSocket};
use weft_router::worker::{Backends, Wiring, Workers};
use weft_router_proto::io::DataPlane;
use weft_router_proto::overlay::{Path, RELAY_OVERHEAD, Slot, Via};
use weft_router_proto::session::{Cipher, SessionKeys};
use weft_router_proto::sleeve::SessionIndex;
use weft_router_proto::snapshot::{Endpoint, EndpointKind, Peer, Snapshot};
use weft_types::{MacAddr, Mtu, Nickname, NodeId, Segment};

const USAGE: &str = "SIDE TAP LOCAL PEER DATAGRAM aes|chacha OUR_MAC THEIR_MAC [THIRD]";

fn node(side: u8) -> NodeId {
    NodeId::new([side + 1; 32])
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (required, third) = arguments.split_at_checked(8).ok_or(USAGE)?;
    let [side, tap, local, peer, datagram, cipher, ours, theirs] = required else {
        return Err(USAGE.into());
    };
    let side: u8 = side.parse()?;
    let (local, peer): (SocketAddr, SocketAddr) = (local.parse()?, peer.parse()?);
    let third: Option<SocketAddr> = third.first().map(|third| third.parse()).transpose()?;
    let datagram: u16 = datagram.parse()?;
    let cipher = match cipher.as_str() {
        "aes" => Cipher::Aes256Gcm,
        "chacha" => Cipher::ChaCha20Poly1305,
        _ => return Err(USAGE.into()),
    };
    // By what way each of the others is reached.
    let ways = match (side, third) {
        (0 | 1, None) => vec![(1 - side, Via::Direct(peer), datagram)],
        (0 | 1, Some(relay)) => vec![
            (1 - side, Via::Relay(node(2)), datagram - RELAY_OVERHEAD),
            (2, Via::Direct(relay), datagram),
        ],
        (2, Some(third)) => vec![
            (0, Via::Direct(peer), datagram),
            (1, Via::Direct(third), datagram),
        ],
        _ => return Err(USAGE.into()),
    };
    let endpoint = |side: u8, mac: MacAddr| Endpoint {
        segment: Segment::DEFAULT,
        mac,
        addresses: vec![[10, 40, 0, side + 1].into()],
        owner: node(side),
        kind: EndpointKind::Host,
        metadata: None,
    };
    let first = if side == 1 { 1 } else { 0 };
    let endpoints = vec![
        endpoint(first, ours.parse()?),
        endpoint(1 - first, theirs.parse()?),
    ];
    let nickname = "peer".parse::<Nickname>()?;
    let peers = ways.iter().map(|&(side, via, datagram)| Peer {
        node: node(side),
        nickname: nickname.clone(),
        path: Some(Path {
            via,
            slot: Slot::default(),
            datagram,
        }),
    });
    let snapshot = Snapshot {
        generation: 1,
        node: node(side),
        mtu: Mtu::new(1350).ok_or("MTU")?,
        ranges: vec!["10.40.0.0/16".parse()?],
        host_addresses: Vec::new(),
        peers: peers.collect(),
        endpoints: endpoints.into_iter().collect(),
    };
    let backends = Backends::fastest();
    eprintln!("{backends:?}");
    let (workers, _reports) = Workers::start(Wiring {
        tap: Some(Tap::open(tap, TapOptions::default())?),
        udp4: Some(UdpSocket::bind(local, UdpOptions::default())?),
        udp6: None,
        snapshot: Arc::new(snapshot),
        backends,
    })?;
    for &(other, _, _) in &ways {
        let index = |owner: u8, other: u8| SessionIndex(u32::from(owner) * 16 + u32::from(other));
        workers.command(DataPlane::Install {
            peer: node(other),
            keys: SessionKeys {
                local: index(side, other),
                remote: index(other, side),
                cipher,
                send: [side * 16 + other + 1; 32],
                receive: [other * 16 + side + 1; 32],
            },
        });
    }
    println!("ready");
    std::io::stdin().read_line(&mut String::new())?;
    let counters = workers.counters();
    eprintln!(
        "auth {} replay {} lost reports {}",
        counters.auth_drops, counters.replay_drops, counters.reports_lost
    );
    for (reason, count) in counters.drops.iter().filter(|(_, count)| *count > 0) {
        eprintln!("dropped {reason}: {count}");
    }
    for (node, traffic) in &counters.peers {
        eprintln!("{} {traffic:?}", node.short());
    }
    for relayed in &counters.relayed {
        eprintln!("{relayed:?}");
    }
    Ok(())
}
