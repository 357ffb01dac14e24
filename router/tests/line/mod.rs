//! Hosts in a line, each with a set of packet workers: those at its ends reach each other over those between, or over the
//! control plane, and in no other way.
//!
//! ```text
//!   left ───────────── middle ───────────── right ───────────── (farther)
//!   192.0.2.1   192.0.2.2 198.51.100.2   198.51.100.3
//! ```

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket as StdUdp};
use std::sync::Arc;

use tokio::sync::mpsc;
use weft_kernel::netns::NetNs;
use weft_kernel::tap::{Tap, TapOptions};
use weft_kernel::udp::{UdpOptions, UdpSocket};
use weft_lab::namespace;
use weft_router::worker::{Backends, Counters, Report, Wiring, Workers};
use weft_router_proto::crypto::seal::Backend;
use weft_router_proto::io::DataPlane;
use weft_router_proto::overlay::{Path, RELAY_OVERHEAD, Slot, Via};
use weft_router_proto::session::{Cipher, SessionKeys};
use weft_router_proto::sleeve::SessionIndex;
use weft_router_proto::snapshot::{Endpoint, EndpointKind, Peer, Snapshot};
use weft_router_proto::switch::DropReason;
use weft_types::{MacAddr, Mtu, NodeId, Segment};

use crate::common::{self, cable};

pub(crate) const PORT: u16 = 6783;
pub(crate) const DIRECT: u16 = 1472;
pub(crate) const OVER: u16 = DIRECT - RELAY_OVERHEAD;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Who(pub(crate) u8);

pub(crate) const LEFT: Who = Who(0);
pub(crate) const MIDDLE: Who = Who(1);
pub(crate) const RIGHT: Who = Who(2);

impl Who {
    pub(crate) fn node(self) -> NodeId {
        NodeId::new([self.0 + 1; 32])
    }

    pub(crate) fn mac(self) -> MacAddr {
        MacAddr::new([2, 0, 0, 0, 0, self.0 + 1])
    }

    pub(crate) fn overlay(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 32, 0, self.0 + 1)
    }

    /// Its address on the cable to a neighbour.
    pub(crate) fn underlay(self, neighbour: Self) -> SocketAddr {
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

    pub(crate) fn keys(self, peer: Self) -> SessionKeys {
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
            metadata: None,
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

pub(crate) struct Host {
    pub(crate) who: Who,
    /// How many there are in the line.
    count: u8,
    pub(crate) netns: NetNs,
    pub(crate) workers: Workers,
    pub(crate) reports: mpsc::Receiver<Report>,
}

impl Host {
    fn start(who: Who, count: u8, netns: NetNs) -> Self {
        let (tap, udp) = netns
            .run(|| {
                let any = SocketAddr::from(([0; 4], PORT));
                let tap = Tap::open("weft", TapOptions::default()).unwrap();
                (tap, UdpSocket::bind(any, UdpOptions::default()).unwrap())
            })
            .unwrap();
        common::wire(&netns, &tap, who.mac(), who.overlay());
        let (workers, reports) = Workers::start(Wiring {
            tap: Some(tap),
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
    pub(crate) fn switch(&self, generation: u64, peer: Who, via: Via) {
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

    /// Waits for a report that `wanted` picks; others are passed over.
    pub(crate) fn hear<T>(&mut self, wanted: impl Fn(Report) -> Option<T>) -> T {
        common::hear(&mut self.reports, wanted)
    }

    pub(crate) fn until(&self, reached: impl Fn(&Counters) -> bool) -> Counters {
        common::until(&self.workers, reached)
    }

    pub(crate) fn dropped(&self, reason: DropReason, count: u64) {
        self.until(|counters| drops(counters, reason) == count);
    }

    pub(crate) fn socket(&self, port: u16) -> StdUdp {
        common::socket(&self.netns, self.who.overlay(), port)
    }
}

pub(crate) fn drops(counters: &Counters, reason: DropReason) -> u64 {
    let found = counters.drops.iter().find(|(name, _)| *name == reason);
    found.unwrap().1
}

/// Hosts in a line; each pair has a session.
pub(crate) fn line<const N: usize>() -> Option<[Host; N]> {
    let count = u8::try_from(N).unwrap();
    let spaces: Option<Vec<NetNs>> = (0..N).map(|_| namespace()).collect();
    let spaces = spaces?;
    for (at, pair) in (0..).zip(spaces.windows(2)) {
        let (left, right) = (Who(at), Who(at + 1));
        cable((&pair[0], "right"), (&pair[1], "left"));
        common::address(&pair[0], "right", left.underlay(right).ip(), 24);
        common::address(&pair[1], "left", right.underlay(left).ip(), 24);
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
