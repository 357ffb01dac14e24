//! Which way frames travel to each member: one overlay per present peer, fed with what the rest of the router knows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use weft_types::NodeId;

use crate::io::{DataPlane, Event};
use crate::letter::{Letter, WayReply};
use crate::overlay::{
    Known, LinkState, Overlay, OverlayInput, OverlayOutput, Path, Reason, Report, Switch, Turn,
    Unproved, Via,
};
use crate::router::ground::Reach;
use crate::router::ground::facts::OwnWay;
use crate::router::ground::mesh::Mesh;
use crate::routes::Detour;
use crate::status::{PathKind, SwitchKind, SwitchStatus, Switching};

/// How far a member may be from a relay: the hop limit of relayed datagrams less the hop to the relay.
const RELAY_HOPS: u32 = 4;
/// What stands around the largest IP packet of the mesh when it travels straight by IPv6: Ethernet, record, kind, header, tag,
/// UDP and IPv6.
const AROUND_FRAME: u16 = 14 + 4 + 4 + 32 + 48;

/// How each member is reached.
#[derive(Default)]
pub(crate) struct Ways {
    /// Of each present member.
    overlays: BTreeMap<NodeId, Overlay>,
    /// How the ways to members changed that are not present, oldest first.
    past: BTreeMap<NodeId, VecDeque<Switch>>,
    /// Where present members say that they can be reached, and have not proved it.
    unproved: BTreeMap<NodeId, Unproved>,
    /// How often frames have left one way for another, over all peers.
    switches: BTreeMap<Switching, u64>,
}

impl Ways {
    /// Tells every present peer's overlay what is known by now.
    pub(crate) fn feed(
        &mut self,
        has_session: impl Fn(NodeId) -> bool,
        reach: &Reach<'_>,
        now: Instant,
    ) {
        let mesh = &*reach.mesh;
        let own: BTreeSet<SocketAddr> = reach.ground.reachable_at().into_iter().collect();
        let present = mesh.present();
        self.keep(&present, mesh);
        let largest = mesh.genesis.genesis().mtu.get() + AROUND_FRAME;
        for node in present {
            let turn = if mesh.ourself < node {
                Turn::First
            } else {
                Turn::Second
            };
            let overlay = self.overlays.entry(node).or_insert_with(|| {
                let past = self.past.remove(&node).unwrap_or_default();
                Overlay::new(largest, turn, now).after(past)
            });
            overlay.handle_input(OverlayInput::Session(has_session(node)), now);
            let known = known_ways(node, &own, mesh);
            overlay.handle_input(OverlayInput::Known(known), now);
        }
        self.offer_relays(mesh, now);
        for overlay in self.overlays.values_mut() {
            if !overlay.wants_relays() {
                overlay.handle_input(OverlayInput::NoRelays, now);
            }
        }
    }

    /// Leaves the overlays of those who are not present; what is worth telling of them is kept.
    fn keep(&mut self, present: &BTreeSet<NodeId>, mesh: &Mesh) {
        let gone = |node: &NodeId, _: &mut Overlay| !present.contains(node);
        for (node, overlay) in self.overlays.extract_if(.., gone) {
            self.past.insert(node, overlay.history().copied().collect());
        }
        let member = |node: NodeId| mesh.membership.member(node).is_some();
        self.past.retain(|&node, _| member(node));
        // Who goes and comes is not trusted anew.
        self.unproved.retain(|&node, _| member(node));
    }

    /// Names relays to those that have no straight way.
    fn offer_relays(&mut self, mesh: &Mesh, now: Instant) {
        let passes = |detour: &Detour| {
            let link = mesh.links.get(&detour.by);
            link.is_some_and(|link| link.is_by_udp())
        };
        for (&node, overlay) in &mut self.overlays {
            if overlay.wants_relays() {
                let detours = mesh.topology.routes().detours(node, RELAY_HOPS);
                let relays: Vec<Detour> = detours.into_iter().filter(passes).collect();
                overlay.handle_input(OverlayInput::Relays(&relays), now);
            }
        }
    }

    /// Those whose frames pass without a link of ours.
    pub(crate) fn held(&self) -> BTreeSet<NodeId> {
        let held = self.overlays.iter().filter(|(_, it)| it.is_held());
        held.map(|(&node, _)| node).collect()
    }

    /// Whether somebody has ceased to answer to whom no control connection leads.
    pub(crate) fn has_lost_one(&self) -> bool {
        let mut overlays = self.overlays.values();
        overlays.any(|overlay| overlay.is_alone() && !overlay.is_held())
    }

    /// Tells the overlay of one peer what happened.
    pub(crate) fn handle_input(&mut self, peer: NodeId, input: OverlayInput<'_>, now: Instant) {
        if let Some(unproved) = self.unproved.get_mut(&peer) {
            match &input {
                OverlayInput::Answer(answer) => unproved.handle_answer(answer.id),
                OverlayInput::Heard(from) => unproved.prove(*from),
                OverlayInput::Chatter
                | OverlayInput::Known(_)
                | OverlayInput::NoRelays
                | OverlayInput::Punch(_)
                | OverlayInput::Relays(_)
                | OverlayInput::Session(_)
                | OverlayInput::TooBig { .. }
                | OverlayInput::Traffic => {}
            }
        }
        if let Some(overlay) = self.overlays.get_mut(&peer) {
            overlay.handle_input(input, now);
        }
    }

    /// A datagram was too large for the way to an address.
    pub(crate) fn handle_too_big(&mut self, to: SocketAddr, datagram: u16, now: Instant) {
        for overlay in self.overlays.values_mut() {
            overlay.handle_input(OverlayInput::TooBig { to, datagram }, now);
        }
    }

    /// A peer asks us to try its addresses.
    pub(crate) fn handle_punch(
        &mut self,
        by: NodeId,
        addresses: &[SocketAddr],
        reach: &Reach<'_>,
        now: Instant,
    ) {
        let own = reach.ground.reachable_at();
        let others = addresses.iter().copied();
        let may_be = |it: &SocketAddr| !own.contains(it) && reach.mesh.may_be_sent_to(*it);
        let others: Vec<SocketAddr> = others.filter(may_be).collect();
        self.handle_input(by, OverlayInput::Punch(&others), now);
    }

    /// An authentic datagram of a peer came straight from an address.
    pub(crate) fn handle_heard(
        &mut self,
        peer: NodeId,
        from: SocketAddr,
        mesh: &Mesh,
        now: Instant,
    ) {
        if !mesh.is_inside(from.ip()) {
            self.handle_input(peer, OverlayInput::Heard(from), now);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let overlays = self.overlays.values();
        overlays.filter_map(Overlay::poll_timeout).min()
    }

    /// Wakes the overlays that are due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for overlay in self.overlays.values_mut() {
            if overlay.poll_timeout().is_some_and(|(at, _)| at <= now) {
                overlay.handle_timeout(now);
            }
        }
    }

    /// Does what the overlays want done. Gives the relays that a session is wanted with; `None` if nothing was wanted.
    pub(crate) fn pump(&mut self, reach: &mut Reach<'_>, now: Instant) -> Option<Vec<NodeId>> {
        if self.overlays.values().any(Overlay::lacks_relays) {
            self.offer_relays(reach.mesh, now);
        }
        let mut wanted = Vec::new();
        for (&node, overlay) in &mut self.overlays {
            while let Some(output) = overlay.poll_output() {
                wanted.push((node, output));
            }
        }
        let busy = !wanted.is_empty();
        let mut relays = Vec::new();
        for (node, output) in wanted {
            relays.extend(self.carry_out(node, output, reach, now));
        }
        busy.then_some(relays)
    }

    /// Does one thing; gives the relay that it goes over.
    fn carry_out(
        &mut self,
        peer: NodeId,
        output: OverlayOutput,
        reach: &mut Reach<'_>,
        now: Instant,
    ) -> Option<NodeId> {
        let over = |via: Via| kind(via).1;
        match output {
            OverlayOutput::Probe {
                via: Via::Direct(to),
                id,
                ..
            } if !self.may_probe(peer, to, id, reach.mesh, now) => None,
            OverlayOutput::Probe {
                via,
                slot,
                id,
                datagram,
            } => {
                reach.ground.data_plane(DataPlane::PathProbe {
                    peer,
                    via,
                    slot,
                    id,
                    datagram,
                });
                over(via)
            }
            OverlayOutput::Punch => {
                punch(peer, reach);
                None
            }
            OverlayOutput::Switched(switch) => {
                self.switched(peer, &switch, reach);
                over(switch.to)
            }
        }
    }

    /// Whether a probe may go to an address. What a link's heartbeats pass by is proved.
    fn may_probe(
        &mut self,
        peer: NodeId,
        to: SocketAddr,
        id: u64,
        mesh: &Mesh,
        now: Instant,
    ) -> bool {
        let unproved = self.unproved.entry(peer);
        let unproved = unproved.or_insert_with(|| Unproved::new(now));
        let link = mesh.links.get(&peer).filter(|link| link.is_by_udp());
        if let Some(link) = link {
            unproved.prove(link.endpoint());
        }
        unproved.may_send(to, id, now)
    }

    fn switched(&mut self, node: NodeId, switch: &Switch, reach: &mut Reach<'_>) {
        // A peer's first way is no change.
        let Some(from) = switch.from.map(|from| kind(from).0) else {
            return;
        };
        let (to, via) = kind(switch.to);
        let why = in_a_word(switch.reason);
        let switching = Switching { from, to, why };
        *self.switches.entry(switching).or_default() += 1;
        let reason = explain(switch.reason, reach.mesh);
        reach.ground.event(Event::PathChanged {
            node,
            at: switch.at,
            from: Some(from),
            to,
            via,
            reason,
        });
    }

    /// By what way frames for a peer leave.
    pub(crate) fn path(&self, node: NodeId) -> Option<Path> {
        self.overlays.get(&node).and_then(Overlay::path)
    }

    /// By what a peer's frames travel, for people.
    pub(crate) fn path_kind(&self, node: NodeId) -> Option<(PathKind, Option<NodeId>)> {
        Some(kind(self.path(node)?.via))
    }

    /// What is known of the way in use.
    pub(crate) fn report(&self, node: NodeId) -> Option<Report> {
        self.overlays.get(&node).and_then(Overlay::report)
    }

    /// Whether a member is present, so that there may be a way.
    pub(crate) fn knows(&self, node: NodeId) -> bool {
        self.overlays.contains_key(&node)
    }

    /// Those for whom frames leave by control connections.
    pub(crate) fn by_control(&self) -> impl Iterator<Item = NodeId> {
        let by_control = |overlay: &Overlay| {
            let path = overlay.path();
            path.is_some_and(|path| path.via == Via::Control)
        };
        let overlays = self.overlays.iter();
        overlays
            .filter(move |(_, overlay)| by_control(overlay))
            .map(|(&node, _)| node)
    }

    /// By which way frames for `node` leave this host.
    pub(crate) fn own_way(&self, node: NodeId) -> OwnWay {
        let report = self.report(node);
        let shown = self.path_kind(node);
        OwnWay {
            is_proved: report.as_ref().is_some_and(|report| report.works),
            way: WayReply {
                request: 0,
                path: shown.map(|(kind, _)| kind),
                via: shown.and_then(|(_, via)| via),
                rtt: report.as_ref().and_then(|report| report.rtt),
                loss: report.as_ref().and_then(|it| it.loss).unwrap_or_default(),
                mtu: report.and_then(|report| report.mtu),
            },
        }
    }

    /// How the way to a member has changed of late, oldest first; where it is not present, until it went.
    pub(crate) fn history(&self, node: NodeId, mesh: &Mesh) -> Vec<SwitchStatus> {
        let present = self.overlays.get(&node).into_iter();
        let gone = self.past.get(&node).into_iter();
        let switches = present.flat_map(Overlay::history).chain(gone.flatten());
        let status = |switch: &Switch| SwitchStatus {
            at: switch.at,
            path: kind(switch.to).0,
            via: kind(switch.to).1,
            reason: explain(switch.reason, mesh),
        };
        switches.map(status).collect()
    }

    /// How often frames have left one way for another, over all peers.
    pub(crate) const fn switches(&self) -> &BTreeMap<Switching, u64> {
        &self.switches
    }
}

fn known_ways(node: NodeId, own: &BTreeSet<SocketAddr>, mesh: &Mesh) -> Known {
    let link = mesh.links.get(&node);
    let state = match link {
        // A link by the mesh itself is no way to build it.
        Some(link) if mesh.is_inside(link.endpoint().ip()) => LinkState::Silent,
        Some(link) if link.is_by_udp() => LinkState::Passes(link.endpoint()),
        Some(link) if !link.udp_silent => LinkState::Trying(link.endpoint()),
        Some(_) | None => LinkState::Silent,
    };
    let record = mesh.topology.record(node);
    let addresses = record.into_iter().flat_map(|record| {
        let all = record.addresses.iter().chain(&record.observed);
        all.copied()
            .filter(|address| !own.contains(address) && mesh.may_be_sent_to(*address))
    });
    Known {
        link: state,
        addresses: addresses.collect(),
        control: link.is_some() || mesh.topology.routes().next_hop(node).is_some(),
    }
}

/// Asks a peer to try our addresses: what is seen from outside first, that is what a NAT must open for.
fn punch(node: NodeId, reach: &mut Reach<'_>) {
    let own = reach.ground.reachable_at();
    let seen = reach.mesh.observed_addresses(&own);
    let addresses = seen.into_iter().chain(own).collect();
    reach.send_sealed(node, &Letter::Punch(addresses));
}

/// A reason in words.
pub(crate) fn explain(reason: Reason, mesh: &Mesh) -> String {
    let name = |via: Via| match via {
        Via::Control => "the control connection".to_owned(),
        Via::Direct(to) => to.to_string(),
        Via::Relay(node) => format!("the relay {}", mesh.name_of(node)),
    };
    match reason {
        Reason::Better => "it is better than what was used".to_owned(),
        Reason::First => String::new(),
        Reason::Gone(via) => format!("{} is known no more", name(via)),
        Reason::Lossy(via, share) => {
            let percent = share * 100.0;
            format!(
                "{} lost or held back {percent:.1} % of the frames",
                name(via)
            )
        }
        Reason::Silent(via) => format!("{} does not answer", name(via)),
        Reason::Slow(via) => format!("{} takes longer", name(via)),
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

const fn kind(via: Via) -> (PathKind, Option<NodeId>) {
    match via {
        Via::Control => (PathKind::Control, None),
        Via::Direct(_) => (PathKind::Sleeve, None),
        Via::Relay(node) => (PathKind::Relay, Some(node)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Output;
    use crate::router::testing::Fixture;

    const FIRST: Via = Via::Control;

    fn switch(from: Option<Via>, to: Via, at: Instant) -> Switch {
        Switch {
            at,
            from,
            to,
            reason: Reason::Better,
        }
    }

    #[test]
    fn frames_have_a_way_to_who_is_present_and_none_to_who_has_left() {
        let mut fixture = Fixture::new();
        let (node, conn) = fixture.link_to("b", &[]);
        let (mut ways, now) = (Ways::default(), fixture.now);

        ways.feed(|_| true, &fixture.reach(), now);
        let way = ways.path_kind(node);
        fixture.reach().link_closed(node, conn, now);
        fixture.look();
        ways.feed(|_| true, &fixture.reach(), now);

        assert_eq!(way, Some((PathKind::Sleeve, None)));
        assert_eq!(ways.path_kind(node), None);
        assert!(!ways.knows(node));
        let history = ways.history(node, &fixture.mesh);
        assert_eq!(history.len(), 1, "what was is told all the same");
    }

    #[test]
    fn a_way_by_datagrams_is_probed_when_there_is_a_session() {
        let mut fixture = Fixture::new();
        let (node, _) = fixture.link_to("b", &[]);
        let now = fixture.now;
        let probes = |session: bool, fixture: &mut Fixture| {
            let mut ways = Ways::default();
            ways.feed(|_| session, &fixture.reach(), now);
            ways.handle_input(node, OverlayInput::Traffic, now);
            ways.handle_timeout(now);
            ways.pump(&mut fixture.reach(), now);
            let probe = |it: &Output| matches!(it, Output::DataPlane(DataPlane::PathProbe { peer, .. }) if *peer == node);
            fixture.outputs().iter().any(probe)
        };

        assert!(!probes(false, &mut fixture));
        assert!(probes(true, &mut fixture));
    }

    #[test]
    fn no_address_of_the_mesh_is_a_way_to_build_it() {
        let mut fixture = Fixture::new();
        let (node, _) = fixture.link_to("b", &[]);
        let (mut ways, now) = (Ways::default(), fixture.now);
        ways.feed(|_| true, &fixture.reach(), now);
        let inside = |ways: &Ways| {
            let range = fixture.mesh.genesis.genesis().ranges()[0];
            let all = ways.overlays[&node].candidates();
            all.filter(|via| matches!(via, Via::Direct(to) if range.contains(&to.ip())))
                .count()
        };
        let range = fixture.mesh.genesis.genesis().range;
        let own = SocketAddr::from((range.hosts().nth(8).unwrap(), 6783));
        let outside = SocketAddr::from(([192, 0, 2, 77], 6783));

        for heard in [own, outside] {
            ways.handle_heard(node, heard, &fixture.mesh, now);
        }
        let mut candidates = ways.overlays[&node].candidates();

        assert!(candidates.any(|via| via == Via::Direct(outside)));
        assert_eq!(inside(&ways), 0);
    }

    #[test]
    fn a_first_way_is_no_change_and_a_second_one_is_told() {
        let mut fixture = Fixture::new();
        let (node, now) = (fixture.admit("b"), fixture.now);
        let mut ways = Ways::default();
        let direct = Via::Direct(SocketAddr::from(([192, 0, 2, 9], 6783)));

        ways.switched(node, &switch(None, FIRST, now), &mut fixture.reach());
        let first = fixture.events();
        ways.switched(
            node,
            &switch(Some(FIRST), direct, now),
            &mut fixture.reach(),
        );

        assert_eq!(first, []);
        assert!(matches!(
            fixture.events().as_slice(),
            [Event::PathChanged {
                from: Some(PathKind::Control),
                to: PathKind::Sleeve,
                ..
            }]
        ));
        assert_eq!(ways.switches().values().sum::<u64>(), 1);
    }
}
