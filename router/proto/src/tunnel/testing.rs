//! A world for tests: it notes what a tunnel does to it.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use weft_types::{MacAddr, Mtu, NodeId, Segment};

use super::{Ports, Refusal, Report, TapRefused, Turn};
use crate::overlay::{Path, Slot, Via};
use crate::sleeve::SessionIndex;
use crate::snapshot::{Endpoint, EndpointKind, Peer, Snapshot};

#[expect(clippy::disallowed_methods, reason = "where virtual time begins")]
pub(crate) fn origin() -> Instant {
    Instant::now()
}

/// What was done to the world, in order of each kind.
#[derive(Default)]
pub(crate) struct World {
    /// Each call: where to, and its datagrams.
    pub(crate) sent: Vec<(SocketAddr, Vec<Vec<u8>>)>,
    pub(crate) delivered: Vec<(NodeId, Vec<u8>)>,
    pub(crate) reports: Vec<Report>,
    pub(crate) links: Vec<Vec<u8>>,
    pub(crate) promoted: Vec<(NodeId, SessionIndex)>,
    /// Reports are lost.
    pub(crate) deaf: bool,
    /// Sends are refused so.
    pub(crate) refusal: Option<Refusal>,
    now: Option<Instant>,
}

impl World {
    pub(crate) fn turn(&mut self, now: Instant) -> Turn<'_> {
        self.now = Some(now);
        Turn { ports: self, now }
    }
}

impl Ports for World {
    fn send(&mut self, to: SocketAddr, datagrams: &[IoSlice<'_>]) -> Result<(), Refusal> {
        match self.refusal {
            Some(Refusal::NotTogether) if datagrams.len() == 1 => {}
            Some(refusal) => return Err(refusal),
            None => {}
        }
        let datagrams = datagrams.iter().map(|one| one.to_vec()).collect();
        self.sent.push((to, datagrams));
        Ok(())
    }

    fn deliver(&mut self, from: NodeId, frame: &[IoSlice<'_>]) -> Result<(), TapRefused> {
        let frame = frame.iter().flat_map(|part| part.to_vec()).collect();
        self.delivered.push((from, frame));
        Ok(())
    }

    fn report(&mut self, report: Report) -> bool {
        if !self.deaf {
            self.reports.push(report);
        }
        !self.deaf
    }

    fn link(&mut self, _: SocketAddr, datagram: &[u8]) {
        self.links.push(datagram.to_vec());
    }

    fn promote(&mut self, peer: NodeId, index: SessionIndex) {
        self.promoted.push((peer, index));
    }

    fn since(&self, sent: Instant) -> Duration {
        self.now.map_or(Duration::ZERO, |now| now - sent)
    }
}

/// The host's Ethernet address on the mesh.
pub(crate) fn mac(node: NodeId) -> MacAddr {
    let [a, b, c, d, e, ..] = *node.as_bytes();
    MacAddr::new([2, a, b, c, d, e])
}

/// What a node forwards by that has these ways to its peers.
pub(crate) fn snapshot(node: NodeId, ways: &[(NodeId, Via)], datagram: u16) -> Snapshot {
    let mut ways = ways.to_vec();
    ways.sort_by_key(|(node, _)| *node);
    let peers = ways.iter().map(|&(node, via)| Peer {
        node,
        nickname: "peer".parse().unwrap(),
        path: Some(Path {
            via,
            slot: Slot::default(),
            datagram,
        }),
    });
    let endpoint = |owner: NodeId| Endpoint {
        segment: Segment::DEFAULT,
        mac: mac(owner),
        addresses: vec![Ipv4Addr::new(10, 32, 0, owner.as_bytes()[0]).into()],
        owner,
        kind: EndpointKind::Host,
        metadata: None,
    };
    let all = ways.iter().map(|&(node, _)| node).chain([node]);
    Snapshot {
        generation: 1,
        node,
        mtu: Mtu::MESH,
        ranges: vec!["10.32.0.0/12".parse().unwrap()],
        host_addresses: Vec::new(),
        peers: peers.collect(),
        endpoints: all.map(endpoint).collect(),
    }
}
