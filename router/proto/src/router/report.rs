//! How things stand, for people.

use std::time::Instant;

use weft_types::{Code, NodeId, Problem};

use super::Router;
use super::mesh::Mesh;
use super::paths::kind;
use crate::dialer::{DialError, DialState};
use crate::endpoints::Disputed;
use crate::genesis::Encryption;
use crate::membership::Member;
use crate::overlay::{Overlay, Via};
use crate::status::{
    MeshStatus, NodeStatus, PathKind, PeerState, PeerStatus, RouterStatus, SwitchStatus,
    TargetStatus, TokenStatus,
};
use crate::token::TokenState;

impl Router {
    /// How things stand.
    pub fn status(&self, now: Instant) -> RouterStatus {
        RouterStatus {
            mesh: self.mesh.as_ref().map(mesh_status),
            node: NodeStatus {
                id: self.node(),
                nickname: self.settings.nickname.clone(),
                addresses: self
                    .mesh
                    .as_ref()
                    .map(Mesh::own_addresses)
                    .unwrap_or_default(),
                uptime: now.saturating_duration_since(self.started),
                advertised: self.reachable_at(),
            },
            peers: self
                .mesh
                .as_ref()
                .map(|mesh| self.peers(mesh, now))
                .unwrap_or_default(),
            targets: self.targets(now),
            tokens: self
                .mesh
                .as_ref()
                .map(|mesh| tokens(mesh, now))
                .unwrap_or_default(),
            problems: self.problems(now),
            auth_drops: self.mesh.as_ref().map_or(0, |mesh| mesh.forged_datagrams),
            bad_payloads: self.mesh.as_ref().map_or(0, |mesh| mesh.bad_payloads),
            rekeys: self
                .mesh
                .as_ref()
                .map_or(0, |mesh| mesh.sessions.counters().rekeys),
            transit: self
                .mesh
                .as_ref()
                .map(|mesh| mesh.transit.counted().clone())
                .unwrap_or_default(),
            switches: self.switches.clone(),
        }
    }

    fn peers(&self, mesh: &Mesh, now: Instant) -> Vec<PeerStatus> {
        let others = mesh
            .membership
            .members()
            .filter(|member| member.node != self.node());
        let mut peers: Vec<PeerStatus> =
            others.map(|member| self.peer(mesh, member, now)).collect();
        peers.sort_by(|a, b| (&a.nickname, a.id).cmp(&(&b.nickname, b.id)));
        peers
    }

    fn peer(&self, mesh: &Mesh, member: &Member, now: Instant) -> PeerStatus {
        let node = member.node;
        let link = mesh.links.get(&node);
        let present = mesh.topology.present_since(node).is_some();
        let (dialling, error) = self.dialer.member(node).unwrap_or_default();
        let state = match (link, present) {
            (Some(_), _) => PeerState::Connected,
            (None, true) => PeerState::Indirect,
            (None, false) if dialling => PeerState::Connecting,
            (None, false) => PeerState::Down,
        };
        let (since, lost) = match (link, mesh.down.get(&node)) {
            (Some(link), _) => (link.since, None),
            (None, Some((since, reason))) => (*since, Some(reason.clone())),
            (None, None) => (self.started, None),
        };
        let goes_straight = mesh
            .overlays
            .get(&node)
            .and_then(Overlay::report)
            .is_some_and(|way| way.works && matches!(way.path.via, Via::Direct(_)));
        let reason = match (link, lost, error) {
            // Heartbeats take a moment to trust datagrams again that frames travel by already.
            (Some(link), _, _) if link.is_by_tcp() && !goes_straight => {
                "no datagram comes through: heartbeats go by TCP".to_owned()
            }
            (Some(_), _, _) => String::new(),
            (None, Some(lost), None) => lost,
            (None, Some(lost), Some(error)) => format!("{lost}; {}", words(error)),
            (None, None, Some(error)) => words(error),
            (None, None, None) => "not reached since the start".to_owned(),
        };
        let overlay = mesh.overlays.get(&node);
        let way = overlay.and_then(Overlay::report);
        let shown = mesh.path_kind(node);
        // The way's reason is worth telling where it is not the best.
        let reason = match (&way, &shown) {
            (Some(way), Some((PathKind::Control | PathKind::Relay, _))) if reason.is_empty() => {
                mesh.explain(way.switch.reason)
            }
            _ => reason,
        };
        let straight = way.as_ref().and_then(|way| match way.path.via {
            Via::Direct(to) => Some(to),
            Via::Control | Via::Relay(_) => None,
        });
        let carries = way
            .as_ref()
            .is_some_and(|way| way.works && way.path.via != Via::Control);
        let (state, reason) = if state == PeerState::Indirect && carries {
            (PeerState::Connected, format!("no link: {reason}"))
        } else {
            (state, reason)
        };
        PeerStatus {
            id: node,
            nickname: mesh.nickname_of(member),
            addresses: member.addresses.clone(),
            state,
            path: shown.map(|(kind, _)| kind),
            via: shown.and_then(|(_, via)| via),
            mtu: way.as_ref().and_then(|way| way.mtu),
            endpoint: straight.or_else(|| link.map(|link| link.endpoint())),
            rtt: way
                .as_ref()
                .and_then(|way| way.rtt)
                .or_else(|| link.and_then(|link| link.machine.rtt())),
            loss: match (&way, link) {
                (Some(way), _) if way.rtt.is_some() => way.loss,
                (_, Some(link)) => link.machine.loss(),
                (_, None) => 0.0,
            },
            switches: mesh
                .switches_to(node)
                .map(|switch| SwitchStatus {
                    at: switch.at,
                    path: kind(switch.to).0,
                    via: kind(switch.to).1,
                    reason: mesh.explain(switch.reason),
                })
                .collect(),
            since: now.saturating_duration_since(since),
            reason,
            cipher: mesh.sessions.cipher(node),
        }
    }

    fn targets(&self, now: Instant) -> Vec<TargetStatus> {
        let target = |status: crate::dialer::DialStatus| {
            let (state, retry_in) = match status.state {
                DialState::Connecting => ("connecting", None),
                DialState::Linked => ("connected", None),
                DialState::Ourself => ("ourself", None),
                DialState::Waiting(at) => ("waiting", Some(at.saturating_duration_since(now))),
            };
            let last_error = status.error.map(words).unwrap_or_default();
            TargetStatus {
                target: status.target.0,
                state,
                node: status.node,
                retry_in,
                last_error,
            }
        };
        self.dialer.targets().map(target).collect()
    }

    fn problems(&self, now: Instant) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.not_saved.iter().cloned().collect();
        problems.extend(self.clone_around(now));
        let Some(mesh) = &self.mesh else {
            return problems;
        };
        for (node, link) in &mesh.links {
            if link.is_by_tcp() {
                let name = mesh.name_of(*node);
                let frames = match mesh.path_kind(*node) {
                    Some((PathKind::Relay, Some(via))) => {
                        format!("go over {}", mesh.name_of(via))
                    }
                    Some((PathKind::Sleeve, _)) => "pass".to_owned(),
                    Some((PathKind::Control | PathKind::Relay, _)) | None => {
                        "travel over TCP too, slowly".to_owned()
                    }
                };
                problems.push(
                    Problem::new(Code::HeartbeatsByTcp, format!("no datagram comes through from {name}"))
                        .why(format!("its heartbeats travel over TCP, and frames {frames}"))
                        .fix(format!("Let UDP port {} through, in both directions, on the hosts and between them", self.settings.port)),
                );
            }
        }
        for (node, overlay) in &mesh.overlays {
            let by_control = overlay.path().is_some_and(|path| path.via == Via::Control);
            let talks = mesh.sessions.cipher(*node).is_some();
            if by_control && talks && !mesh.links.contains_key(node) {
                let name = mesh.name_of(*node);
                problems.push(
                    Problem::new(
                        Code::HeartbeatsByTcp,
                        format!("frames for {name} travel over TCP, from member to member, slowly"),
                    )
                    .why("no datagram reaches it, straight or through another member")
                    .fix(format!(
                        "Let UDP port {} through, in both directions, to {name} from this host or from a member between",
                        self.settings.port
                    )),
                );
            }
        }
        for member in mesh
            .membership
            .members()
            .filter(|member| member.node != self.node())
        {
            if mesh.topology.present_since(member.node).is_none()
                && !mesh.links.contains_key(&member.node)
                && !self.dialer.is_untried(member.node)
            {
                let name = mesh.name_of(member.node);
                problems.push(
                    Problem::new(Code::PeerDown, format!("{name} cannot be reached"))
                        .fix("If it is gone for good, it should have left: `weft leave` there"),
                );
            }
        }
        for dispute in mesh.endpoints.disputes() {
            let (kept, refused) = (mesh.name_of(dispute.kept), mesh.name_of(dispute.refused));
            let what = match dispute.what {
                Disputed::Address(address) => address.to_string(),
                Disputed::Mac(mac) => mac.to_string(),
            };
            problems.push(
                Problem::new(
                    Code::AddressInUse,
                    format!("{what} is claimed by {kept} and by {refused}"),
                )
                .why(format!("{kept} keeps it"))
                .fix(format!(
                    "Detach the container on {refused} and attach it with another address"
                )),
            );
        }
        problems.extend(mesh.forks());
        problems
    }
}

fn mesh_status(mesh: &Mesh) -> MeshStatus {
    let genesis = mesh.genesis.genesis();
    MeshStatus {
        name: genesis.name.clone(),
        id: mesh.id,
        encrypted: genesis.encryption == Encryption::On,
        members: mesh.membership.members().len(),
        mtu: genesis.mtu,
    }
}

fn tokens(mesh: &Mesh, now: Instant) -> Vec<TokenStatus> {
    let status = |info: crate::token::TokenInfo| {
        let (state, used_by) = match info.state {
            TokenState::Burnt { by } => ("used", Some(by)),
            TokenState::Expired => ("expired", None),
            TokenState::Live => ("live", None),
            TokenState::Voided => ("voided", None),
        };
        let live = info.state == TokenState::Live;
        TokenStatus {
            id: info.id,
            reusable: info.reusable,
            state,
            expires_in: live.then_some(info.remaining),
            used_by,
        }
    };
    mesh.tokens.list(now).map(status).collect()
}

impl Mesh {
    /// What people call a node, with the first characters of its id.
    pub(super) fn name_of(&self, node: NodeId) -> String {
        match self.membership.member(node) {
            Some(member) => format!("{} ({})", self.nickname_of(member), node.short()),
            None => node.short(),
        }
    }

    /// What a member calls itself today; what it was admitted as, until it is heard.
    pub(super) fn nickname_of(&self, member: &Member) -> weft_types::Nickname {
        let today = self
            .topology
            .record(member.node)
            .map(|record| record.nickname.clone());
        today.unwrap_or_else(|| member.nickname.clone())
    }

    /// Why a full-size probe did not come back.
    pub(super) fn explain_lost_ping(&self, node: NodeId, size: u16) -> Problem {
        let name = self.name_of(node);
        match self.links.get(&node) {
            Some(link) if link.passes_no_datagrams() => {
                Problem::new(Code::UdpBlocked, format!("no datagram passes between this host and {name}"))
                    .why("TCP works, UDP does not")
                    .fix("Let the UDP port of weft (6783 unless changed) through, in both directions, on both hosts and between them")
            }
            Some(_) => Problem::new(Code::FullSizeLost, format!("frames of {size} bytes do not reach {name}"))
                .why("small datagrams pass, full-size ones get lost")
                .fix("Let fragments, or ICMP \"fragmentation needed\", through; or create the mesh with a smaller --mtu"),
            None => Problem::new(Code::PeerUnreachable, format!("{name} does not answer"))
                .fix("`weft status` says since when and why"),
        }
    }
}

fn words(error: DialError) -> String {
    use crate::io::ConnectError;
    match error {
        DialError::Connect(ConnectError::Refused) => "it refuses the connection".to_owned(),
        DialError::Connect(ConnectError::TimedOut) => "it does not answer".to_owned(),
        DialError::Connect(ConnectError::Unreachable) => "there is no route to it".to_owned(),
        DialError::Handshake(Some(error)) => error.to_string(),
        DialError::Handshake(None) => "it closed the connection without a word".to_owned(),
        DialError::NoAddress => "no address is known".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::seeded::SeededCrypto;
    use crate::genesis::Genesis;
    use crate::identity::NodeKeys;
    use crate::router::{Intent, RouterConfig};
    use crate::store::Saved;
    use crate::unicast::{Body, Unicast};

    #[expect(clippy::disallowed_methods, reason = "the origin of a virtual clock")]
    fn origin() -> Instant {
        Instant::now()
    }

    /// A router that has just begun a mesh.
    fn creator() -> Router {
        let mut crypto = SeededCrypto::new(1);
        let config = RouterConfig {
            keys: NodeKeys::generate(&mut crypto),
            nickname: weft_types::Nickname::new("a").expect("a short name"),
            port: 6783,
            advertise: Vec::new(),
            targets: Vec::new(),
            intent: Intent::Create {
                name: None,
                range: Genesis::DEFAULT_RANGE,
                mtu: weft_types::Mtu::MESH,
                address: None,
            },
            features: Vec::new(),
            release: "test".to_owned(),
        };
        Router::new(config, &Saved::default(), Box::new(crypto), origin()).expect("a mesh")
    }

    #[test]
    fn a_letter_that_cannot_be_read_is_counted() {
        let mut router = creator();
        let (node, now) = (router.node(), origin());
        let letter = Unicast::new(node, node, Body::Sealed(b"no seal").encode());

        router.unicast(node, letter, now);

        assert_eq!(router.status(now).bad_payloads, 1);
    }
}
