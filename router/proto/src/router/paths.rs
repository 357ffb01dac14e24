//! Which way frames travel to each member: one overlay per present peer, fed with what the rest of the router knows.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use weft_types::NodeId;

use super::Router;
use super::mesh::Mesh;
use crate::connection::Carrier;
use crate::io::{DataPlane, Event, Output, PathAnswer};
use crate::letter::Letter;
use crate::overlay::{
    Known, LinkState, Overlay, OverlayInput, OverlayOutput, Reason, Switch, Turn, Via,
};
use crate::routes::Detour;
use crate::snapshot::Snapshot;
use crate::status::{PathKind, SwitchKind, Switching};
use crate::unicast::{Body, Unicast};

/// How far a member may be from a relay: the hop limit of relayed datagrams less the hop to the relay.
const RELAY_HOPS: u32 = 4;
/// What stands around the largest IP packet of the mesh when it travels straight by IPv6: Ethernet, record, kind, header, tag,
/// UDP and IPv6.
const AROUND_FRAME: u16 = 14 + 4 + 4 + 32 + 48;
/// How many addresses that others saw are told on: a host behind a NAT that gives each peer another port has no use for any.
const MAX_OBSERVED: usize = 4;

impl Mesh {
    /// Tells every present peer's overlay what is known by now.
    pub(super) fn feed_overlays(&mut self, own: &BTreeSet<SocketAddr>, now: Instant) {
        let present: BTreeSet<NodeId> = self.topology.present().collect();
        let gone = |node: &NodeId, _: &mut Overlay| !present.contains(node);
        for (node, overlay) in self.overlays.extract_if(.., gone) {
            self.past.insert(node, overlay.history().copied().collect());
        }
        self.past
            .retain(|&node, _| self.membership.member(node).is_some());
        let largest = self.genesis.genesis().mtu.get() + AROUND_FRAME;
        for node in present {
            let known = self.known_ways(node, own);
            let session = self.sessions.cipher(node).is_some();
            let turn = if self.ourself < node {
                Turn::First
            } else {
                Turn::Second
            };
            let overlay = self.overlays.entry(node).or_insert_with(|| {
                let past = self.past.remove(&node).unwrap_or_default();
                Overlay::new(largest, turn, now).after(past)
            });
            overlay.handle_input(OverlayInput::Session(session), now);
            overlay.handle_input(OverlayInput::Known(known), now);
        }
        self.offer_relays(now);
        for overlay in self.overlays.values_mut() {
            if !overlay.wants_relays() {
                overlay.handle_input(OverlayInput::NoRelays, now);
            }
        }
    }

    fn known_ways(&self, node: NodeId, own: &BTreeSet<SocketAddr>) -> Known {
        let link = self.links.get(&node);
        let state = match link {
            Some(link) if link.machine.carrier() == Some(Carrier::ByUdp) => {
                LinkState::Passes(link.endpoint())
            }
            Some(link) if !link.udp_silent => LinkState::Trying(link.endpoint()),
            Some(_) | None => LinkState::Silent,
        };
        let record = self.topology.record(node);
        let addresses = record.into_iter().flat_map(|record| {
            let all = record.addresses.iter().chain(&record.observed);
            all.copied().filter(|address| !own.contains(address))
        });
        Known {
            link: state,
            addresses: addresses.collect(),
            control: link.is_some() || self.topology.routes().next_hop(node).is_some(),
        }
    }

    /// Names relays to those that have no straight way.
    fn offer_relays(&mut self, now: Instant) {
        let passes = |detour: &Detour| {
            self.links
                .get(&detour.by)
                .is_some_and(|link| link.machine.carrier() == Some(Carrier::ByUdp))
        };
        for (&node, overlay) in &mut self.overlays {
            if overlay.wants_relays() {
                let detours = self.topology.routes().detours(node, RELAY_HOPS);
                let relays: Vec<Detour> = detours.into_iter().filter(passes).collect();
                overlay.handle_input(OverlayInput::Relays(&relays), now);
            }
        }
    }

    /// Where others see our datagrams come from, as far as it is news beside our own addresses.
    pub(super) fn observed_addresses(&self, own: &BTreeSet<SocketAddr>) -> Vec<SocketAddr> {
        let mut seen = BTreeSet::new();
        let all = self.observed.values().copied();
        all.filter(|address| !own.contains(address) && seen.insert(*address))
            .take(MAX_OBSERVED)
            .collect()
    }

    /// By what a peer's frames travel, for people.
    pub(super) fn path_kind(&self, node: NodeId) -> Option<(PathKind, Option<NodeId>)> {
        let path = self.overlays.get(&node)?.path()?;
        Some(kind(path.via))
    }

    /// How the way to a member has changed of late, oldest first; where it is not present, until it went.
    pub(super) fn switches_to(&self, node: NodeId) -> impl Iterator<Item = &Switch> {
        let present = self.overlays.get(&node).into_iter();
        let gone = self.past.get(&node).into_iter();
        present.flat_map(Overlay::history).chain(gone.flatten())
    }

    /// A reason in words.
    pub(super) fn explain(&self, reason: Reason) -> String {
        let name = |via: Via| match via {
            Via::Control => "the control connection".to_owned(),
            Via::Direct(to) => to.to_string(),
            Via::Relay(node) => format!("the relay {}", self.name_of(node)),
        };
        match reason {
            Reason::Better => "it answers, and is better".to_owned(),
            Reason::First => String::new(),
            Reason::Gone(via) => format!("{} is known no more", name(via)),
            Reason::Lossy(via, share) => {
                format!(
                    "{} lost or held back {:.1} % of the frames",
                    name(via),
                    share * 100.0
                )
            }
            Reason::Silent(via) => format!("{} does not answer", name(via)),
            Reason::Slow(via) => format!("{} takes longer", name(via)),
        }
    }
}

const fn in_a_word(reason: Reason) -> SwitchKind {
    match reason {
        Reason::Better => SwitchKind::Better,
        Reason::First => SwitchKind::First,
        Reason::Gone(_) => SwitchKind::Gone,
        Reason::Lossy(..) => SwitchKind::Lossy,
        Reason::Silent(_) => SwitchKind::Silent,
        Reason::Slow(_) => SwitchKind::Slow,
    }
}

pub(super) const fn kind(via: Via) -> (PathKind, Option<NodeId>) {
    match via {
        Via::Control => (PathKind::Control, None),
        Via::Direct(_) => (PathKind::Sleeve, None),
        Via::Relay(node) => (PathKind::Relay, Some(node)),
    }
}

impl Router {
    /// A datagram of a session came straight from an address.
    pub(super) fn heard(&mut self, peer: NodeId, from: SocketAddr, now: Instant) {
        let Some(mesh) = &mut self.mesh else { return };
        mesh.sessions.note_used(peer, now);
        if let Some(overlay) = mesh.overlays.get_mut(&peer) {
            overlay.handle_input(OverlayInput::Heard(from), now);
        }
    }

    /// Frames travel to or from a peer.
    pub(super) fn traffic(&mut self, peer: NodeId, now: Instant) {
        let Some(mesh) = &mut self.mesh else { return };
        mesh.sessions.note_used(peer, now);
        if let Some(overlay) = mesh.overlays.get_mut(&peer) {
            overlay.handle_input(OverlayInput::Traffic, now);
        }
    }

    /// The same of few and small ones that are for everybody.
    pub(super) fn chatter(&mut self, peer: NodeId, now: Instant) {
        let Some(mesh) = &mut self.mesh else { return };
        mesh.sessions.note_used(peer, now);
        if let Some(overlay) = mesh.overlays.get_mut(&peer) {
            overlay.handle_input(OverlayInput::Chatter, now);
        }
    }

    pub(super) fn path_answered(&mut self, answer: &PathAnswer, now: Instant) {
        let Some(mesh) = &mut self.mesh else { return };
        if let Some(overlay) = mesh.overlays.get_mut(&answer.peer) {
            overlay.handle_input(OverlayInput::Answer(answer), now);
        }
    }

    pub(super) fn too_big(&mut self, to: SocketAddr, datagram: u16, now: Instant) {
        let Some(mesh) = &mut self.mesh else { return };
        for overlay in mesh.overlays.values_mut() {
            overlay.handle_input(OverlayInput::TooBig { to, datagram }, now);
        }
    }

    /// Datagrams for which there is no way by UDP: over control connections, as far as those keep up.
    pub(super) fn by_control(&mut self, peer: NodeId, datagrams: Vec<Vec<u8>>, now: Instant) {
        let ourself = self.node();
        for datagram in datagrams {
            let body = Body::Datagram(&datagram).encode();
            self.send_datagram(Unicast::new(ourself, peer, body), now);
        }
    }

    /// A datagram of a session came over control connections.
    pub(super) fn datagram_came(&mut self, from: NodeId, bytes: &[u8]) {
        self.outputs
            .push_back(Output::DataPlane(DataPlane::Datagrams {
                from,
                datagrams: vec![bytes.to_vec()],
            }));
    }

    /// A neighbour says where our datagrams come from.
    pub(super) fn observed(&mut self, by: NodeId, address: SocketAddr) {
        let Some(mesh) = &mut self.mesh else { return };
        let ip = address.ip();
        if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
            return;
        }
        if mesh.observed.insert(by, address) != Some(address) {
            mesh.dirty.record = true;
        }
    }

    /// A peer asks us to try its addresses.
    pub(super) fn punched(&mut self, by: NodeId, addresses: &[SocketAddr], now: Instant) {
        let own: BTreeSet<SocketAddr> = self.reachable_at().into_iter().collect();
        let Some(mesh) = &mut self.mesh else { return };
        let others: Vec<SocketAddr> = addresses
            .iter()
            .copied()
            .filter(|address| !own.contains(address))
            .collect();
        if let Some(overlay) = mesh.overlays.get_mut(&by) {
            overlay.handle_input(OverlayInput::Punch(&others), now);
        }
    }

    pub(super) fn wake_overlays(&mut self, now: Instant) {
        let Some(mesh) = &mut self.mesh else { return };
        for overlay in mesh.overlays.values_mut() {
            if overlay.poll_timeout().is_some_and(|(at, _)| at <= now) {
                overlay.handle_timeout(now);
            }
        }
    }

    /// Does what the overlays want done; whether they wanted anything.
    pub(super) fn pump_overlays(&mut self, now: Instant) -> bool {
        let Some(mesh) = &mut self.mesh else {
            return false;
        };
        if mesh.overlays.values().any(Overlay::lacks_relays) {
            mesh.offer_relays(now);
        }
        let mut wanted = Vec::new();
        for (&node, overlay) in &mut mesh.overlays {
            while let Some(output) = overlay.poll_output() {
                wanted.push((node, output));
            }
        }
        let busy = !wanted.is_empty();
        for (node, output) in wanted {
            match output {
                OverlayOutput::Probe {
                    via,
                    slot,
                    id,
                    datagram,
                } => {
                    if let Via::Relay(relay) = via {
                        self.session_wanted(relay, now);
                    }
                    self.outputs
                        .push_back(Output::DataPlane(DataPlane::PathProbe {
                            peer: node,
                            via,
                            slot,
                            id,
                            datagram,
                        }));
                }
                OverlayOutput::Punch => self.punch(node, now),
                OverlayOutput::Switched(switch) => self.switched(node, &switch, now),
            }
        }
        busy
    }

    fn punch(&mut self, node: NodeId, now: Instant) {
        let own = self.reachable_at();
        let Some(mesh) = &self.mesh else { return };
        let seen = mesh.observed_addresses(&own.iter().copied().collect());
        // What is seen from outside first: that is what a NAT must open for.
        let addresses = seen.into_iter().chain(own).collect();
        self.send_sealed(node, &Letter::Punch(addresses), now);
    }

    fn switched(&mut self, node: NodeId, switch: &Switch, now: Instant) {
        if let Via::Relay(relay) = switch.to {
            self.session_wanted(relay, now);
        }
        let Some(mesh) = &self.mesh else { return };
        // A peer's first way is no change.
        let Some(from) = switch.from.map(|from| kind(from).0) else {
            return;
        };
        let (to, via) = kind(switch.to);
        let why = in_a_word(switch.reason);
        *self
            .switches
            .entry(Switching { from, to, why })
            .or_default() += 1;
        self.outputs.push_back(Output::Event(Event::PathChanged {
            node,
            at: switch.at,
            from: Some(from),
            to,
            via,
            reason: mesh.explain(switch.reason),
        }));
    }

    /// Tells the data plane which ways have changed, if nothing else has.
    pub(super) fn repath(&mut self) {
        let Some(mesh) = &mut self.mesh else { return };
        let Some(old) = &mesh.snapshot else { return };
        let path_of = |node: NodeId| mesh.overlays.get(&node).and_then(Overlay::path);
        if old.peers.iter().all(|peer| peer.path == path_of(peer.node)) {
            return;
        }
        let mut snapshot = Snapshot::clone(old);
        snapshot.generation += 1;
        for peer in &mut snapshot.peers {
            peer.path = path_of(peer.node);
        }
        let snapshot = Arc::new(snapshot);
        mesh.snapshot = Some(Arc::clone(&snapshot));
        self.outputs.push_back(Output::Snapshot(snapshot));
    }
}
