//! What the data plane is told: the snapshot, and sessions.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_types::{Boot, NodeId};

use super::mesh::Mesh;
use super::{After, Router};
use crate::endpoints::Announcement;
use crate::gossip::registers::{ENDPOINTS, RegisterDelta, TOPOLOGY};
use crate::io::{DataPlane, Event, Output};
use crate::overlay::Overlay;
use crate::session::{
    self, Cipher, Directory, Output as SessionOutput, PeerFacts, Sessions, Surroundings,
};
use crate::snapshot::{Peer, Snapshot};
use crate::store::{Change, Table};
use crate::topology::{self, Links, NodeRecord, TopologyChange};
use crate::unicast::{Body, Unicast};
use crate::wire::envelope::Signed;

/// How long changes of our links are gathered before they are announced.
const GATHER: Duration = Duration::from_millis(10);
/// The feature that says that hardware has AES.
const AES: &str = "aes";

/// What sessions look up.
struct Facts<'a> {
    membership: &'a crate::membership::Membership,
    topology: &'a topology::Topology,
    registers: &'a crate::gossip::registers::Registers,
    ourself: NodeId,
    aes: bool,
}

impl Directory for Facts<'_> {
    fn facts(&self, peer: NodeId) -> Option<PeerFacts> {
        let member = self.membership.member(peer)?;
        let record = self.topology.record(peer)?;
        let theirs = record.has(AES);
        Some(PeerFacts {
            key: member.noise_key,
            cipher: Cipher::between(self.aes, theirs),
        })
    }

    fn registers(&self) -> Vec<Vec<u8>> {
        let own = self.registers.owned(self.ourself, ENDPOINTS);
        let mut own: Vec<_> = own.collect();
        // The last ones are those that the other side may not have heard of.
        own.sort_by_key(|register| std::cmp::Reverse(register.register().version.sequence));
        let own = own.into_iter().take(session::handshake::MAX_REGISTERS);
        own.map(|register| register.signed().encode()).collect()
    }
}

impl Router {
    /// Calls the sessions with what they share with the rest.
    pub(super) fn with_sessions(&mut self, act: impl FnOnce(&mut Sessions, &mut Surroundings<'_>)) {
        let ourself = self.node();
        let Some(mesh) = &mut self.mesh else { return };
        let directory = Facts {
            membership: &mesh.membership,
            topology: &mesh.topology,
            registers: &mesh.registers,
            ourself,
            aes: self.settings.features.iter().any(|feature| feature == AES),
        };
        let mut around = Surroundings {
            crypto: &mut *self.crypto,
            indices: &mut self.indices,
            directory: &directory,
        };
        act(&mut mesh.sessions, &mut around);
    }

    pub(super) fn session_wanted(&mut self, peer: NodeId, now: Instant) {
        self.with_sessions(|sessions, around| sessions.want(peer, around, now));
    }

    pub(super) fn session_message(&mut self, peer: NodeId, bytes: &[u8], now: Instant) {
        self.with_sessions(|sessions, around| {
            sessions.handle_message(peer, bytes, session::Via::Session, around, now)
        });
    }

    pub(super) fn pump_sessions(&mut self, now: Instant) -> bool {
        let ourself = self.node();
        let Some(mesh) = &mut self.mesh else {
            return false;
        };
        let mut wanted = Vec::new();
        while let Some(output) = mesh.sessions.poll_output() {
            wanted.push(output);
        }
        let busy = !wanted.is_empty();
        for output in wanted {
            let output = match output {
                SessionOutput::Down { peer } => {
                    self.session_state(peer, now);
                    Output::Event(Event::SessionDown { node: peer })
                }
                SessionOutput::Install { peer, keys } => {
                    Output::DataPlane(DataPlane::Install { peer, keys })
                }
                SessionOutput::InstallReceiving { peer, keys } => {
                    Output::DataPlane(DataPlane::InstallReceiving { peer, keys })
                }
                SessionOutput::Registers { peer, registers } => {
                    self.registers_came_along(peer, &registers, now);
                    continue;
                }
                SessionOutput::Retire { index } => Output::DataPlane(DataPlane::Retire { index }),
                SessionOutput::SessionMessage { to, bytes } => {
                    Output::DataPlane(DataPlane::SessionMessage { peer: to, bytes })
                }
                SessionOutput::Unicast { to, bytes } => {
                    let body = Body::Session(&bytes).encode();
                    self.route(Unicast::new(ourself, to, body), None, now);
                    continue;
                }
                SessionOutput::Up { peer } => {
                    self.session_state(peer, now);
                    Output::Event(Event::SessionUp { node: peer })
                }
            };
            self.outputs.push_back(output);
        }
        busy
    }

    fn session_state(&mut self, peer: NodeId, now: Instant) {
        let Some(mesh) = &mut self.mesh else { return };
        let session = mesh.sessions.cipher(peer).is_some();
        if let Some(overlay) = mesh.overlays.get_mut(&peer) {
            overlay.set_session(session, now);
        }
    }

    /// A peer's endpoints came with its handshake, ahead of its first frame.
    fn registers_came_along(&mut self, peer: NodeId, registers: &[Vec<u8>], now: Instant) {
        let ourself = self.node();
        let Some(mesh) = &mut self.mesh else { return };
        let signed = registers
            .iter()
            .filter_map(|bytes| Signed::decode(bytes).ok());
        let delta: RegisterDelta = signed
            .filter_map(|signed| crate::gossip::registers::SignedRegister::new(signed).ok())
            .filter(|register| {
                register.register().owner == peer && register.register().channel == ENDPOINTS
            })
            .map(Arc::new)
            .collect();
        let news = weft_types::Replica::merge(&mut mesh.registers, delta, now);
        self.register_news(ourself, Some(peer), news, now);
    }

    pub(super) fn set_local_addresses(&mut self, addresses: Vec<IpAddr>) {
        if self.local_addresses != addresses {
            self.local_addresses = addresses;
            if let Some(mesh) = &mut self.mesh {
                mesh.dirty.record = true;
            }
        }
    }

    /// A new run begins: everything that we say is said anew, under its number.
    pub(super) fn announce_boot(&mut self, now: Instant) {
        let boot = self.boot;
        if let Some(mesh) = &mut self.mesh {
            mesh.registers.set_boot(boot);
            mesh.mail.set_boot(boot);
            mesh.dirty.everything();
        }
        self.refresh(now);
    }

    /// Makes anew what has changed: our registers, the topology, the snapshot.
    pub(super) fn refresh(&mut self, now: Instant) {
        let ourself = self.node();
        let Some(mesh) = &mut self.mesh else { return };
        let dirty = std::mem::take(&mut mesh.dirty);
        let mut written = Vec::new();
        if dirty.record {
            let record = self.node_record();
            written.extend(record.map(|record| (TOPOLOGY, topology::RECORD, record.encode())));
        }
        let Some(mesh) = &mut self.mesh else { return };
        let links_due = match dirty.links_at {
            // The first word of a run is not put off.
            _ if mesh
                .registers
                .get(TOPOLOGY, ourself, topology::LINKS)
                .is_none_or(|said| said.version.boot != self.boot) =>
            {
                dirty.links || dirty.links_at.is_some()
            }
            Some(at) => at <= now,
            None => false,
        };
        if !links_due {
            mesh.dirty.links_at = dirty.links_at.or_else(|| dirty.links.then(|| now + GATHER));
        }
        if links_due {
            let links = Links::new(&mesh.links.keys().copied().collect());
            written.push((TOPOLOGY, topology::LINKS, links.encode()));
        }
        // A bucket that was never filled in this run is not announced as empty: a run's first word voids the last one's.
        let boot = self.boot;
        let announced = |slot| {
            mesh.registers
                .get(ENDPOINTS, ourself, slot)
                .is_some_and(|register| register.version.boot == boot)
        };
        let buckets = dirty.buckets.iter().copied();
        let buckets = buckets.filter(|&slot| announced(slot) || !mesh.local.is_empty(slot));
        written.extend(buckets.map(|slot| (ENDPOINTS, slot, mesh.local.body(slot))));
        let mut news = RegisterDelta::default();
        for (channel, slot, body) in written {
            if let Some(delta) =
                mesh.registers
                    .write(channel, slot, body, self.settings.keys.signing())
            {
                weft_types::Delta::absorb(&mut news, delta);
            }
        }
        let changed = dirty.snapshot || !weft_types::Delta::is_empty(&news);
        if !weft_types::Delta::is_empty(&news) {
            self.register_news(ourself, None, Some(news), now);
        }
        if changed {
            self.reforward(now);
        }
    }

    /// Looks at the mesh anew and tells the data plane, the dialer and the sessions what is different.
    fn reforward(&mut self, now: Instant) {
        let ourself = self.node();
        let own: BTreeSet<SocketAddr> = self.reachable_at().into_iter().collect();
        let Some(mesh) = &mut self.mesh else { return };
        mesh.dirty.snapshot = false;
        let up: BTreeSet<NodeId> = mesh.links.keys().copied().collect();
        let changes = mesh.topology.update(&mesh.registers, &up, now);
        mesh.feed_overlays(&own, now);
        let restarted: Vec<(NodeId, Boot)> = changes
            .iter()
            .filter_map(|change| match change {
                TopologyChange::Restarted(node) => Some((*node, mesh.topology.boot(*node)?)),
                TopologyChange::Appeared(_)
                | TopologyChange::Changed(_)
                | TopologyChange::Vanished(_) => None,
            })
            .collect();
        let before: BTreeSet<NodeId> = mesh
            .snapshot
            .iter()
            .flat_map(|snapshot| &snapshot.peers)
            .map(|peer| peer.node)
            .collect();
        let snapshot = mesh.make_snapshot(ourself);
        let present: BTreeSet<NodeId> = snapshot.peers.iter().map(|peer| peer.node).collect();
        let members = mesh.dialable();
        let greet: Vec<NodeId> = mesh
            .membership
            .members()
            .map(|member| member.node)
            .filter(|node| !mesh.greeted.contains(node))
            .collect();
        for node in greet {
            mesh.greeted.insert(node);
            if node != ourself
                && let Some(member) = mesh.membership.member(node)
            {
                let nickname = member.nickname.clone();
                self.outputs
                    .push_back(Output::Event(Event::MemberJoined { node, nickname }));
            }
        }
        let left: Vec<NodeId> = mesh
            .greeted
            .iter()
            .copied()
            .filter(|&node| mesh.is_gone(node))
            .collect();
        let mut removed = Vec::new();
        for node in left {
            mesh.greeted.remove(&node);
            mesh.mail.forget(node);
            mesh.transit.forget(node);
            mesh.down.remove(&node);
            removed.push(node);
            self.outputs
                .push_back(Output::Event(Event::MemberLeft { node }));
        }
        let same = mesh.snapshot.as_ref().is_some_and(|old| {
            Snapshot {
                generation: old.generation,
                ..snapshot.clone()
            } == **old
        });
        if !same {
            let snapshot = Arc::new(snapshot);
            mesh.snapshot = Some(Arc::clone(&snapshot));
            self.outputs.push_back(Output::Snapshot(snapshot));
        }
        self.dialer.set_members(&members, now);
        for (node, boot) in restarted {
            self.with_sessions(|sessions, around| sessions.peer_restarted(node, boot, around));
        }
        for &gone in before.difference(&present) {
            self.with_sessions(|sessions, around| sessions.peer_gone(gone, around));
        }
        for &back in present.difference(&before) {
            self.with_sessions(|sessions, around| sessions.peer_back(back, around, now));
        }
        for &node in &removed {
            self.with_sessions(|sessions, around| sessions.peer_removed(node, around));
        }
        if !removed.is_empty() {
            let forget = |node: NodeId| Change::Delete {
                table: Table::Peers,
                key: node.as_bytes().to_vec(),
            };
            self.save(removed.into_iter().map(forget).collect(), After::Nothing);
        }
    }

    /// What this node says of itself to all.
    fn node_record(&self) -> Option<NodeRecord> {
        let mesh = self.mesh.as_ref()?;
        Some(NodeRecord {
            nickname: self.settings.nickname.clone(),
            cert: self.settings.keys.certify(&mesh.id),
            addresses: self.reachable_at(),
            features: self.settings.features.clone(),
            release: self.settings.release.clone(),
            mtu: None,
            observed: mesh.observed_addresses(&self.reachable_at().into_iter().collect()),
        })
    }
}

impl Mesh {
    /// Reads what those who can be reached have announced, as far as it is not read yet.
    fn read_endpoints(&mut self, reachable: BTreeSet<NodeId>) {
        let said = std::mem::take(&mut self.unread);
        let news = |node: &&NodeId| said.contains(node) || !self.viewed.contains(node);
        for &owner in reachable.iter().filter(news) {
            let registers = self.registers.owned(owner, ENDPOINTS);
            let announced = registers.map(|signed| Announcement {
                slot: signed.register().slot,
                hash: signed.hash(),
                body: &signed.register().body,
            });
            self.endpoints.set_owner(owner, announced);
        }
        let gone = self.viewed.difference(&reachable);
        gone.for_each(|&owner| self.endpoints.remove_owner(owner));
        self.endpoints.set_local(&self.local);
        self.endpoints.set_assigned(self.assigned());
        self.viewed = reachable;
    }

    fn make_snapshot(&mut self, ourself: NodeId) -> Snapshot {
        let peer = |node: NodeId| {
            let member = self.membership.member(node)?;
            Some(Peer {
                node,
                nickname: self.nickname_of(member),
                path: self.overlays.get(&node).and_then(Overlay::path),
            })
        };
        let mut peers: Vec<Peer> = self.topology.present().filter_map(peer).collect();
        peers.sort_by_key(|peer| peer.node);
        let reachable: BTreeSet<NodeId> = peers.iter().map(|peer| peer.node).collect();
        self.read_endpoints(reachable);
        let genesis = self.genesis.genesis();
        Snapshot {
            generation: self
                .snapshot
                .as_ref()
                .map_or(0, |snapshot| snapshot.generation)
                + 1,
            node: ourself,
            mtu: genesis.mtu,
            ranges: genesis.ranges().to_vec(),
            host_addresses: self.own_addresses(),
            peers,
            endpoints: self.endpoints.settle(),
        }
    }
}
