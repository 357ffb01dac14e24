//! How things stand, for people: reads every part, changes none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use weft_types::{Code, NodeId, Problem, WireCounters};

use super::Router;
use super::ground::identity::{clone_around, refused_around};
use super::ground::link::Link;
use super::ground::mesh::Mesh;
use super::ground::{Ground, Settings};
use super::member::{Member, Parts};
use super::parts::ways;
use crate::dialer::{DialError, DialState, DialStatus};
use crate::genesis::Encryption;
use crate::membership;
use crate::overlay::{Report, Via};
use crate::status::{
    MeshStatus, NodeStatus, PathKind, PeerState, PeerStatus, RouterStatus, TargetStatus,
    TransitStatus,
};

impl Router {
    /// How things stand.
    pub fn status(&self, now: Instant) -> RouterStatus {
        let ground = &self.ground;
        let mut status = RouterStatus {
            node: NodeStatus {
                id: ground.node(),
                nickname: ground.settings.nickname.clone(),
                addresses: Vec::new(),
                uptime: now.saturating_duration_since(ground.started),
                advertised: ground.reachable_at(),
            },
            mesh: None,
            peers: Vec::new(),
            targets: targets(ground, now),
            containers: Vec::new(),
            tokens: Vec::new(),
            problems: ground.not_saved().cloned().into_iter().collect(),
            counters: WireCounters::default(),
            ciphers: BTreeSet::new(),
            transit: TransitStatus::default(),
            switches: BTreeMap::new(),
        };
        if let Some(member) = self.member() {
            View { ground, member }.add_to(&mut status, now);
        }
        status
    }
}

/// Rounds of dials that may fail before it is told: one may be bad luck.
const TELLING: u32 = 2;

/// A member, to be looked at.
struct View<'a> {
    ground: &'a Ground,
    member: &'a Member,
}

impl View<'_> {
    fn add_to(&self, status: &mut RouterStatus, now: Instant) {
        let Member { mesh, parts } = self.member;
        status.mesh = Some(mesh_status(mesh));
        status.node.addresses = mesh.own_addresses();
        status.peers = self.peers(now);
        status.containers = parts.endpoints.containers();
        status.tokens = parts.tokens.status(now);
        status.problems.extend(self.problems(now));
        status.counters = WireCounters {
            auth_drops: mesh.forged_datagrams,
            bad_payloads: mesh.bad_payloads,
            handshake_failures: parts.sessions.counters().failures,
            rekeys: parts.sessions.counters().rekeys,
            ..WireCounters::default()
        };
        status.ciphers = parts.sessions.used().clone();
        status.transit = parts.transit.counted().clone();
        status.switches = parts.ways.switches().clone();
    }

    fn peers(&self, now: Instant) -> Vec<PeerStatus> {
        let others = self.member.mesh.others();
        let mut peers: Vec<PeerStatus> = others.map(|member| self.peer(member, now)).collect();
        peers.sort_by(|a, b| (&a.nickname, a.id).cmp(&(&b.nickname, b.id)));
        peers
    }

    fn peer(&self, member: &membership::Member, now: Instant) -> PeerStatus {
        let Member { mesh, parts } = self.member;
        let node = member.node;
        let link = mesh.links.get(&node);
        let shown = parts.ways.path_kind(node);
        let way = parts.ways.report(node);
        let (state, reason) = self.standing(node, way.as_ref());
        let straight = way.as_ref().and_then(|way| match way.path.via {
            Via::Direct(to) => Some(to),
            Via::Control | Via::Relay(_) => None,
        });
        PeerStatus {
            id: node,
            nickname: mesh.nickname_of(member),
            addresses: member.addresses.clone(),
            state,
            path: shown.map(|(kind, _)| kind),
            via: shown.and_then(|(_, via)| via),
            mtu: way.as_ref().and_then(|way| way.mtu),
            endpoint: straight.or_else(|| link.map(Link::endpoint)),
            rtt: round_trip(way.as_ref(), link),
            loss: loss(way.as_ref(), link),
            switches: parts.ways.history(node, mesh),
            since: now.saturating_duration_since(self.since(node)),
            reason,
            cipher: parts.sessions.cipher(node),
        }
    }

    /// How a member stands to us, and why.
    fn standing(&self, node: NodeId, way: Option<&Report>) -> (PeerState, String) {
        let Member { mesh, parts } = self.member;
        let present = mesh.topology.present_since(node).is_some();
        let (dialling, error) = self.ground.dialer.member(node).unwrap_or_default();
        let state = match (mesh.links.get(&node), present) {
            (Some(_), _) => PeerState::Connected,
            (None, true) => PeerState::Indirect,
            (None, false) if dialling => PeerState::Connecting,
            (None, false) => PeerState::Down,
        };
        let mut reason = self.why_no_link(node, way, error);
        // The way's reason is worth telling where it is not the best.
        if let (Some(way), Some((PathKind::Control | PathKind::Relay, _))) =
            (way, parts.ways.path_kind(node))
            && reason.is_empty()
        {
            reason = ways::explain(way.switch.reason, mesh);
        }
        let carries = way.is_some_and(|way| way.works && way.path.via != Via::Control);
        if state == PeerState::Indirect && carries {
            return (PeerState::Connected, format!("no link: {reason}"));
        }
        (state, reason)
    }

    /// Why there is no link to a member, or none that passes datagrams; empty where all is well.
    fn why_no_link(&self, node: NodeId, way: Option<&Report>, error: Option<DialError>) -> String {
        let mesh = &self.member.mesh;
        let goes_straight =
            way.is_some_and(|way| way.works && matches!(way.path.via, Via::Direct(_)));
        let lost = mesh.down.get(&node).map(|(_, reason)| reason.clone());
        match (mesh.links.get(&node), lost, error) {
            // Heartbeats take a moment to trust datagrams again that frames travel by already.
            (Some(link), _, _) if link.is_by_tcp() && !goes_straight => {
                "no datagram comes through: heartbeats go by TCP".to_owned()
            }
            (Some(_), _, _) => String::new(),
            (None, Some(lost), None) => lost,
            (None, Some(lost), Some(error)) => format!("{lost}; {error}"),
            (None, None, Some(error)) => error.to_string(),
            (None, None, None) => "not reached since the start".to_owned(),
        }
    }

    /// Since when a member stands to us as it does.
    fn since(&self, node: NodeId) -> Instant {
        let mesh = &self.member.mesh;
        match (mesh.links.get(&node), mesh.down.get(&node)) {
            (Some(link), _) => link.since,
            (None, Some((since, _))) => *since,
            (None, None) => self.ground.started,
        }
    }

    fn problems(&self, now: Instant) -> Vec<Problem> {
        let Member { mesh, parts } = self.member;
        let name_of = |by| mesh.name_of(by);
        let clone = clone_around(self.ground, name_of, now).into_iter();
        let mut problems: Vec<Problem> = clone
            .chain(refused_around(self.ground, name_of, now))
            .collect();
        problems.extend(heartbeats_by_tcp(mesh, parts, &self.ground.settings));
        problems.extend(frames_by_tcp(mesh, parts, &self.ground.settings));
        problems.extend(self.unreachable());
        problems.extend(parts.endpoints.problems(mesh));
        problems.extend(mesh.forks());
        problems.extend(self.unreached_targets());
        problems.extend(mesh.misbehaviour(now));
        problems
    }

    /// What a person said to dial, and nobody is reached there. A member that is away is told of as one.
    fn unreached_targets(&self) -> impl Iterator<Item = Problem> {
        let mesh = &self.member.mesh;
        let silent = |status: &DialStatus| {
            let known = status.node.and_then(|node| mesh.membership.member(node));
            let waits = matches!(status.state, DialState::Waiting(_) | DialState::Connecting);
            waits && status.failures >= TELLING && known.is_none()
        };
        let targets = self.ground.dialer.targets().filter(silent);
        targets.filter_map(|status| {
            let problem = status.error?.problem(&status.target, None);
            let target = &status.target.0;
            let cure = format!(
                "{}. To dial it no more: sudo weft forget {target}",
                problem.fix
            );
            Some(problem.fix(cure))
        })
    }

    fn unreachable(&self) -> impl Iterator<Item = Problem> {
        let mesh = &self.member.mesh;
        let missing = |node: &NodeId| {
            mesh.topology.present_since(*node).is_none()
                && !mesh.links.contains_key(node)
                && !self.ground.dialer.is_untried(*node)
        };
        let others = mesh.others().map(|member| member.node);
        others.filter(missing).map(|node| {
            let name = mesh.name_of(node);
            Problem::new(Code::PeerDown, format!("{name} cannot be reached"))
                .fix("If it is gone for good, it should have left: `weft leave` there")
        })
    }
}

fn heartbeats_by_tcp(
    mesh: &Mesh,
    parts: &Parts,
    settings: &Settings,
) -> impl Iterator<Item = Problem> {
    let links = mesh.links.iter().filter(|(_, link)| link.is_by_tcp());
    links.map(|(&node, _)| {
        let name = mesh.name_of(node);
        let frames = match parts.ways.path_kind(node) {
            Some((PathKind::Relay, Some(via))) => format!("go over {}", mesh.name_of(via)),
            Some((PathKind::Sleeve, _)) => "pass".to_owned(),
            Some((PathKind::Control | PathKind::Relay, _)) | None => {
                "travel over TCP too, slowly".to_owned()
            }
        };
        Problem::new(
            Code::HeartbeatsByTcp,
            format!("no datagram comes through from {name}"),
        )
        .why(format!(
            "its heartbeats travel over TCP, and frames {frames}"
        ))
        .fix(format!(
            "Let UDP port {} through, in both directions, on the hosts and between them",
            settings.port
        ))
    })
}

/// Of members without a link: those with one are told of by their heartbeats.
fn frames_by_tcp(mesh: &Mesh, parts: &Parts, settings: &Settings) -> impl Iterator<Item = Problem> {
    let talks = |node: &NodeId| parts.sessions.is_up(*node) && !mesh.links.contains_key(node);
    parts.ways.by_control().filter(talks).map(|node| {
        let name = mesh.name_of(node);
        Problem::new(
            Code::HeartbeatsByTcp,
            format!("frames for {name} travel over TCP, from member to member, slowly"),
        )
        .why("no datagram reaches it, straight or through another member")
        .fix(format!(
            "Let UDP port {} through, in both directions, to {name} from this host or from a member between",
            settings.port
        ))
    })
}

fn round_trip(way: Option<&Report>, link: Option<&Link>) -> Option<Duration> {
    way.and_then(|way| way.rtt)
        .or_else(|| link.and_then(|link| link.machine.rtt()))
}

fn loss(way: Option<&Report>, link: Option<&Link>) -> f64 {
    way.and_then(|way| way.loss.filter(|_| way.rtt.is_some()))
        .or_else(|| link.map(|link| link.machine.loss()))
        .unwrap_or_default()
}

fn targets(ground: &Ground, now: Instant) -> Vec<TargetStatus> {
    let target = |status: DialStatus| {
        let (state, retry_in) = match status.state {
            DialState::Connecting => ("connecting", None),
            DialState::Linked => ("connected", None),
            DialState::Ourself => ("ourself", None),
            DialState::Waiting(at) => ("waiting", Some(at.saturating_duration_since(now))),
        };
        TargetStatus {
            target: status.target.0,
            state,
            node: status.node,
            retry_in,
            last_error: status
                .error
                .map(|error| error.to_string())
                .unwrap_or_default(),
        }
    };
    ground.dialer.targets().map(target).collect()
}

fn mesh_status(mesh: &Mesh) -> MeshStatus {
    let genesis = mesh.genesis.genesis();
    MeshStatus {
        name: genesis.name.clone(),
        id: mesh.id,
        encrypted: genesis.encryption == Encryption::On,
        members: mesh.membership.members().len(),
        mtu: genesis.mtu,
        ranges: genesis.ranges().to_vec(),
    }
}
