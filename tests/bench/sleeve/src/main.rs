//! Runs one host's end of a sleeve with a fixed key, so that it can be measured without a mesh around it.
//!
//! ```text
//!   weft-bench-sleeve SIDE TAP LOCAL:PORT PEER:PORT DATAGRAM aes|chacha OUR_MAC THEIR_MAC
//! ```
//!
//! SIDE is 0 or 1. The endpoints are 10.40.0.1 behind side 0 and 10.40.0.2 behind side 1, with the Ethernet addresses
//! given. The program makes the TAP device, says "ready", and ends when it reads a line; then it says what it counted.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use weft_kernel::tap::{Tap, TapOptions};
use weft_kernel::udp::{UdpOptions, UdpSocket};
use weft_router::worker::{Backends, Wiring, Workers};
use weft_router_proto::io::DataPlane;
use weft_router_proto::overlay::{Path, Slot, Via};
use weft_router_proto::session::{Cipher, SessionKeys};
use weft_router_proto::sleeve::SessionIndex;
use weft_router_proto::snapshot::{Endpoint, EndpointKind, Peer, Snapshot};
use weft_types::{MacAddr, Mtu, NodeId, Segment};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [side, tap, local, peer, datagram, cipher, ours, theirs] = &arguments[..] else {
        return Err("SIDE TAP LOCAL PEER DATAGRAM CIPHER OUR_MAC THEIR_MAC".into());
    };
    let side: u8 = side.parse()?;
    let (local, peer): (SocketAddr, SocketAddr) = (local.parse()?, peer.parse()?);
    let other = 1 - side;
    let node = |side: u8| NodeId::new([side + 1; 32]);
    let endpoint = |side: u8, mac: MacAddr| Endpoint {
        segment: Segment::DEFAULT,
        mac,
        addresses: vec![[10, 40, 0, side + 1].into()],
        owner: node(side),
        kind: EndpointKind::Host,
    };
    let mut endpoints = vec![
        endpoint(side, ours.parse()?),
        endpoint(other, theirs.parse()?),
    ];
    endpoints.sort_by_key(|endpoint| endpoint.mac);
    let snapshot = Snapshot {
        generation: 1,
        node: node(side),
        mtu: Mtu::new(1350).ok_or("MTU")?,
        ranges: vec!["10.40.0.0/16".parse()?],
        host_addresses: Vec::new(),
        peers: vec![Peer {
            node: node(other),
            nickname: "peer".parse()?,
            path: Some(Path {
                via: Via::Direct(peer),
                slot: Slot::default(),
                datagram: datagram.parse()?,
            }),
        }],
        endpoints,
    };
    let backends = Backends::fastest();
    eprintln!("{backends:?}");
    let (workers, _reports) = Workers::start(Wiring {
        tap: Tap::open(tap, TapOptions::default())?,
        udp4: Some(UdpSocket::bind(local, UdpOptions::default())?),
        udp6: None,
        snapshot: Arc::new(snapshot),
        backends,
    })?;
    workers.command(DataPlane::Install {
        peer: node(other),
        keys: SessionKeys {
            local: SessionIndex(u32::from(side)),
            remote: SessionIndex(u32::from(other)),
            cipher: match cipher.as_str() {
                "aes" => Cipher::Aes256Gcm,
                "chacha" => Cipher::ChaCha20Poly1305,
                _ => return Err("aes or chacha".into()),
            },
            send: [side + 1; 32],
            receive: [other + 1; 32],
        },
    });
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
    Ok(())
}
