//! Says where every frame goes and who may send it: the one thing the control plane tells the data plane.
//!
//! A snapshot is immutable. The hub makes a new one when something that matters to forwarding changes; packet workers
//! swap it in between two bursts, and the kernel planner turns it into tables. Sessions are not part of it: they come
//! and go faster and belong to one worker each ([`crate::io::DataPlane`]).
//!
//! What did not change is shared with the snapshot before: see [`Endpoints`].
//!
//! **Invariant.** Peers are sorted by node; no two endpoints share a (segment, MAC), no two share an address within a
//! segment.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_types::{Mtu, Nickname, NodeId};

pub use crate::endpoints::{Endpoint, EndpointKind, Endpoints};
use crate::overlay::Path;

/// Where every frame goes, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Counts the snapshots of one run: a consumer that sees a lower one is late.
    pub generation: u64,
    /// Whose view this is.
    pub node: NodeId,
    /// The largest IP packet of the mesh.
    pub mtu: Mtu,
    /// The mesh's address ranges: a source within them must belong to the node that sends it.
    pub ranges: Vec<IpNet>,
    /// This host's own addresses on the mesh, as they stand on the bridge, with the range's prefix length.
    pub host_addresses: Vec<IpNet>,
    /// Every other member that is present, sorted by node.
    pub peers: Vec<Peer>,
    /// Every endpoint of the mesh, ours included.
    pub endpoints: Endpoints,
}

/// Another member, as the data plane sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub node: NodeId,
    /// What people call it.
    pub nickname: Nickname,
    /// By what way frames for it leave, ours and those that are relayed to it; `None` while none is known.
    pub path: Option<Path>,
}

impl Snapshot {
    /// Finds another member.
    pub fn peer(&self, node: NodeId) -> Option<&Peer> {
        self.peers
            .binary_search_by_key(&node, |peer| peer.node)
            .ok()
            .map(|i| &self.peers[i])
    }

    /// Whether the mesh hands this address out: then its owner is known, or it is nobody's.
    pub fn in_range(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(&address))
    }
}
