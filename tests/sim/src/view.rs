//! Compares what everybody sees: the question most tests ask of a mesh, and the answer they print when it is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weft_router_proto::overlay::Via;
use weft_router_proto::snapshot::{Endpoint, EndpointKind};
use weft_router_proto::status::PeerState;
use weft_types::{MacAddr, NodeId};

use crate::node::NodeIndex;
use crate::world::Sim;

/// Containers by their Ethernet addresses: on whose host they are, and their own addresses.
pub type Containers = BTreeMap<MacAddr, (NodeId, Vec<IpAddr>)>;

impl Sim {
    /// Whether everybody of `nodes` runs, is linked to all others, and knows them and nobody else to be there, each with
    /// its host.
    pub fn converged(&self, nodes: &[NodeIndex]) -> bool {
        let snapshots: Option<Vec<_>> = nodes
            .iter()
            .map(|&n| self.node(n).snapshot.as_ref())
            .collect();
        let Some(snapshots) = snapshots else {
            return false;
        };
        let all: BTreeSet<NodeId> = snapshots.iter().map(|snapshot| snapshot.node).collect();
        let agreed = snapshots.iter().all(|snapshot| {
            let others = snapshot.peers.iter().map(|peer| peer.node);
            let present: BTreeSet<NodeId> = others.chain([snapshot.node]).collect();
            let hosts: BTreeSet<NodeId> = snapshot
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.kind == EndpointKind::Host)
                .map(|endpoint| endpoint.owner)
                .collect();
            present == all && hosts == all
        });
        agreed
            && all.len() == nodes.len()
            && nodes.iter().all(|&n| self.connected(n) + 1 == nodes.len())
    }

    /// How many links a node holds.
    pub fn connected(&self, index: NodeIndex) -> usize {
        let Some(core) = &self.node(index).core else {
            return 0;
        };
        let peers = core.status(self.now(index)).peers;
        peers
            .iter()
            .filter(|peer| peer.state == PeerState::Connected)
            .count()
    }

    /// The way by which a node's frames leave for another.
    pub fn via(&self, from: NodeIndex, to: NodeIndex) -> Option<Via> {
        self.node(from).path_to(self.id(to)).map(|path| path.via)
    }

    /// Whether frames of two go straight to each other.
    pub fn is_direct(&self, [a, b]: [NodeIndex; 2]) -> bool {
        [(a, b), (b, a)]
            .into_iter()
            .all(|(from, to)| matches!(self.via(from, to), Some(Via::Direct(_))))
    }

    /// Every container that a node knows of, its own included.
    pub fn containers(&self, index: NodeIndex) -> Containers {
        let known = self.node(index).snapshot.iter();
        known
            .flat_map(|snapshot| &snapshot.endpoints)
            .filter(|endpoint| matches!(endpoint.kind, EndpointKind::Attached { .. }))
            .map(
                |Endpoint {
                     mac,
                     owner,
                     addresses,
                     ..
                 }| (*mac, (*owner, addresses.clone())),
            )
            .collect()
    }

    /// What a failure prints: the seed, and how everybody sees everybody.
    pub fn story(&self, nodes: &[NodeIndex]) -> String {
        let mut text = format!("WEFT_SIM_SEED={} after {:?}\n", self.seed, self.elapsed());
        for &n in nodes {
            let node = self.node(n);
            let Some(core) = &node.core else {
                text += &format!("  n{} is down, halted {:?}\n", n.0, node.halted);
                continue;
            };
            let status = core.status(self.now(n));
            let peers: Vec<_> = status
                .peers
                .iter()
                .map(|peer| format!("{} {:?} ({})", peer.nickname, peer.state, peer.reason))
                .collect();
            let endpoints = node
                .snapshot
                .iter()
                .flat_map(|snapshot| &snapshot.endpoints);
            text += &format!(
                "  n{} {} members, {} endpoints: {}\n",
                n.0,
                status.mesh.map_or(0, |mesh| mesh.members),
                endpoints.count(),
                peers.join(", ")
            );
            // Of one that is not in: what it met, and what it tries.
            if node.snapshot.is_none() {
                let dials: Vec<_> = status
                    .targets
                    .iter()
                    .map(|dial| format!("{} {} {}", dial.target, dial.state, dial.last_error))
                    .collect();
                let last = node.events.last();
                text += &format!(
                    "    halted {:?}, last told {last:?}, dials: {}\n",
                    node.halted,
                    dials.join("; ")
                );
            }
        }
        text
    }
}
