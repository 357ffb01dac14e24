//! What frames are forwarded by: made anew when something bears on it, told when it is different.

use std::sync::Arc;

use weft_types::NodeId;

use super::Reach;
use super::mesh::Mesh;
use crate::io::Output;
use crate::overlay::Path;
use crate::snapshot::{Endpoints, Peer, Snapshot};

impl Reach<'_> {
    /// Forwards to those who are present, by the ways of today, to these endpoints.
    pub(crate) fn forward_to(
        &mut self,
        endpoints: Endpoints,
        path_of: impl Fn(NodeId) -> Option<Path>,
    ) {
        let snapshot = self.mesh.view(endpoints, path_of);
        let same = self.mesh.snapshot.as_ref().is_some_and(|old| {
            Snapshot {
                generation: old.generation,
                ..snapshot.clone()
            } == **old
        });
        if !same {
            self.tell_snapshot(snapshot);
        }
    }

    /// Tells the data plane which ways have changed, if nothing else has.
    pub(crate) fn repath(&mut self, path_of: impl Fn(NodeId) -> Option<Path>) {
        let Some(old) = &self.mesh.snapshot else {
            return;
        };
        let same = |peer: &Peer| peer.path == path_of(peer.node);
        if old.peers.iter().all(same) {
            return;
        }
        let mut snapshot = Snapshot::clone(old);
        snapshot.generation += 1;
        for peer in &mut snapshot.peers {
            peer.path = path_of(peer.node);
        }
        self.tell_snapshot(snapshot);
    }

    fn tell_snapshot(&mut self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        self.mesh.snapshot = Some(Arc::clone(&snapshot));
        self.ground.push(Output::Snapshot(snapshot));
    }
}

impl Mesh {
    fn view(&self, endpoints: Endpoints, path_of: impl Fn(NodeId) -> Option<Path>) -> Snapshot {
        let genesis = self.genesis.genesis();
        let last = self.snapshot.as_ref();
        Snapshot {
            generation: last.map_or(0, |snapshot| snapshot.generation) + 1,
            node: self.ourself,
            mtu: genesis.mtu,
            ranges: genesis.ranges().to_vec(),
            host_addresses: self.own_addresses(),
            peers: self.peers(path_of),
            endpoints,
        }
    }

    /// Who is present, sorted.
    fn peers(&self, path_of: impl Fn(NodeId) -> Option<Path>) -> Vec<Peer> {
        let peer = |node: NodeId| {
            let member = self.membership.member(node)?;
            Some(Peer {
                node,
                nickname: self.nickname_of(member),
                path: path_of(node),
            })
        };
        let mut peers: Vec<Peer> = self.topology.present().filter_map(peer).collect();
        peers.sort_by_key(|peer| peer.node);
        peers
    }
}
