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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::Slot;
    use crate::overlay::Via;
    use crate::router::testing::Fixture;

    fn path() -> Path {
        Path {
            via: Via::Control,
            slot: Slot::default(),
            datagram: 1400,
        }
    }

    /// What the data plane was told, by its numbers.
    fn told(fixture: &mut Fixture) -> Vec<u64> {
        let outputs = fixture.outputs();
        let generation = |output: &Output| {
            let Output::Snapshot(snapshot) = output else {
                panic!("{output:?}");
            };
            snapshot.generation
        };
        outputs.iter().map(generation).collect()
    }

    fn last(fixture: &Fixture) -> Snapshot {
        Snapshot::clone(fixture.mesh.snapshot.as_ref().expect("a creator's"))
    }

    #[test]
    fn the_same_view_is_not_told_twice() {
        let mut fixture = Fixture::new();
        let (node, _) = fixture.link_to("b", &[]);
        fixture.outputs();
        let before = last(&fixture);

        fixture
            .reach()
            .forward_to(before.endpoints.clone(), |_| None);
        let first = told(&mut fixture);
        fixture
            .reach()
            .forward_to(before.endpoints.clone(), |_| None);

        assert_eq!(first, [before.generation + 1]);
        assert_eq!(told(&mut fixture), [0; 0]);
        assert!(fixture.mesh.forwards_to(node));
    }

    #[test]
    fn a_way_that_changes_is_told_and_one_that_stays_is_not() {
        let mut fixture = Fixture::new();
        let node = fixture.forward_to("b");
        let before = last(&fixture);

        fixture.reach().repath(|_| None);
        let same = told(&mut fixture);
        fixture.reach().repath(|_| Some(path()));

        assert_eq!(same, [0; 0]);
        assert_eq!(told(&mut fixture), [before.generation + 1]);
        let told = last(&fixture).peer(node).and_then(|peer| peer.path);
        assert_eq!(told, Some(path()));
    }
}
