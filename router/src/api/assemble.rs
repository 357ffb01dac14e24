//! Puts what the core knows and what the workers counted together into the words of the local API.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use weft_router_proto::io::{self, Hop, Pong};
use weft_router_proto::session::Cipher;
use weft_router_proto::status as core;
use weft_types::{Code, Nickname, NodeId, Problem};

use super::model::{
    ConnectionStatus, Event, EventKind, MeshStatus, NodeStatus, PathKind, PeerState, PeerStatus,
    PingAnswer, RelayStatus, RelayedStatus, Status, SwitchCount, SwitchKind, SwitchStatus,
    TargetStatus, TokenStatus, WireStatus,
};
use super::{PeerTraffic, Report};

impl Status {
    /// Says how things stand. Ages become times of day by the clock of the moment, so a jump of the clock moves them
    /// and nothing else; switches keep the time that they have.
    pub fn assemble(report: Report, version: &str, now: SystemTime) -> Self {
        let Report {
            core,
            traffic,
            times,
        } = report;
        let ciphers: BTreeSet<&str> = core
            .peers
            .iter()
            .filter_map(|peer| peer.cipher)
            .map(cipher)
            .collect();
        let connected = core
            .peers
            .iter()
            .filter(|peer| peer.state == core::PeerState::Connected)
            .count();
        let mut connections = Vec::new();
        let mut peers = Vec::new();
        for mut peer in core.peers {
            let switches = std::mem::take(&mut peer.switches);
            let times = times.get(&peer.id);
            let counted = traffic.peers.get(&peer.id).copied().unwrap_or_default();
            let peer = assemble_peer(peer, counted, now);
            let switch = |switch: core::SwitchStatus| {
                let at = times.and_then(|times| times.get(&switch.at).copied());
                assemble_switch(switch, at.unwrap_or(now))
            };
            connections.push(ConnectionStatus {
                node: peer.id,
                nickname: peer.nickname.clone(),
                state: peer.state,
                path: peer.path,
                via: peer.via,
                endpoint: peer.endpoint,
                since: peer.since.clone(),
                reason: peer.reason.clone(),
                switches: switches.into_iter().map(switch).collect(),
            });
            peers.push(peer);
        }

        Self {
            version: version.to_owned(),
            mesh: core.mesh.map(|mesh| MeshStatus {
                name: mesh.name,
                id: mesh.id,
                encrypted: mesh.encrypted,
                members: mesh.members,
                connected,
                mtu: mesh.mtu.get(),
            }),
            node: NodeStatus {
                id: core.node.id,
                nickname: core.node.nickname,
                addresses: core.node.addresses,
                uptime_seconds: core.node.uptime.as_secs(),
                advertised: core.node.advertised,
            },
            peers,
            wire: WireStatus {
                cipher: if ciphers.is_empty() {
                    "none".to_owned()
                } else {
                    ciphers.into_iter().collect::<Vec<_>>().join(",")
                },
                rekeys: core.rekeys,
                replay_drops: traffic.replay_drops,
                plaintext_frames: traffic.plaintext_frames,
                auth_drops: traffic.auth_drops,
                bad_payloads: core.bad_payloads,
            },
            problems: core.problems,
            targets: core.targets.into_iter().map(assemble_target).collect(),
            connections,
            drops: traffic
                .drops
                .into_iter()
                .map(|(reason, count)| (reason.to_owned(), count))
                .collect::<BTreeMap<_, _>>(),
            relayed: traffic
                .relayed
                .into_iter()
                .map(|((from, to), carried)| RelayedStatus {
                    from,
                    to,
                    datagrams: carried.datagrams,
                    bytes: carried.bytes,
                })
                .collect(),
            switches: core
                .switches
                .into_iter()
                .map(|(switching, count)| SwitchCount {
                    from: path_kind(switching.from),
                    to: path_kind(switching.to),
                    reason: switch_kind(switching.why),
                    count,
                })
                .collect(),
        }
    }

    /// Finds a member by nickname, identity, mesh address, or an unambiguous beginning of the first two. An exact match
    /// wins over a beginning.
    ///
    /// # Errors
    ///
    /// [`Code::NotJoined`], [`Code::UnknownNode`], [`Code::AmbiguousNode`].
    pub fn find_peer(&self, name: &str) -> Result<&PeerStatus, Problem> {
        if self.mesh.is_none() {
            return Err(not_joined());
        }
        let exact = |peer: &&PeerStatus| {
            peer.nickname.as_str() == name
                || peer.id.to_string() == name
                || peer
                    .addresses
                    .iter()
                    .any(|net| net.addr().to_string() == name)
        };
        let beginning = |peer: &&PeerStatus| {
            peer.nickname.as_str().starts_with(name) || peer.id.to_string().starts_with(name)
        };
        let mut found: Vec<&PeerStatus> = self.peers.iter().filter(exact).collect();
        if found.is_empty() {
            found = self.peers.iter().filter(beginning).collect();
        }
        match found.as_slice() {
            [peer] => Ok(peer),
            [] => {
                let own = &self.node;
                let why = if own.nickname.as_str() == name || own.id.to_string() == name {
                    "it is this node itself".to_owned()
                } else {
                    format!("the mesh has {} other members", self.peers.len())
                };
                Err(Problem::new(
                    Code::UnknownNode,
                    format!("no other member is called {name:?}"),
                )
                .why(why)
                .fix("See who there is: weft peers"))
            }
            several => {
                let names: Vec<String> = several
                    .iter()
                    .map(|peer| format!("{} {}", peer.nickname, peer.id.short()))
                    .collect();
                Err(Problem::new(
                    Code::AmbiguousNode,
                    format!("{name:?} may be several members"),
                )
                .why(names.join(", "))
                .fix("Write more of the identity"))
            }
        }
    }
}

impl Status {
    /// What a node is called, whoever it is.
    pub(super) fn name_of(&self, node: NodeId) -> String {
        let peer = self.peers.iter().find(|peer| peer.id == node);
        let own = (node == self.node.id).then_some(&self.node.nickname);
        let known = peer.map(|peer| &peer.nickname).or(own);
        known.map_or_else(|| node.short(), ToString::to_string)
    }
}

impl PingAnswer {
    /// Puts a probe that came back from a peer into the words of the API. `hops` is the way as it was followed, if it was.
    pub fn of(
        status: &Status,
        node: NodeId,
        nickname: Nickname,
        pong: &Pong,
        hops: &[Hop],
    ) -> Self {
        let peer = status.peers.iter().find(|peer| peer.id == node);
        let linked = peer.is_some_and(|peer| peer.state == PeerState::Connected);
        let followed = hops.first().map(|hop| hop.to) == pong.via;
        let arrived = hops
            .last()
            .is_some_and(|hop| hop.to == node && hop.path.is_some());
        let (hops, relays) = match pong.path {
            core::PathKind::Sleeve => (Some(1), Vec::new()),
            core::PathKind::Control => (linked.then_some(1), Vec::new()),
            core::PathKind::Relay if followed => {
                let relays = hops.iter().map(|hop| hop.to).filter(|&to| to != node);
                (arrived.then_some(hops.len()), relays.collect())
            }
            core::PathKind::Relay => (None, pong.via.into_iter().collect()),
        };
        let relay = |node| RelayStatus {
            node,
            nickname: status.name_of(node),
        };
        Self {
            node,
            nickname,
            addresses: peer.map(|peer| peer.addresses.clone()).unwrap_or_default(),
            path: Some(path_kind(pong.path)),
            via: pong.via,
            hops,
            relays: relays.into_iter().map(relay).collect(),
            rtt_ms: milliseconds(pong.rtt),
            lost: pong.lost,
            loss: pong.loss,
            mtu: pong.mtu,
            bytes: pong.size,
        }
    }
}

fn assemble_peer(peer: core::PeerStatus, counted: PeerTraffic, now: SystemTime) -> PeerStatus {
    PeerStatus {
        id: peer.id,
        nickname: peer.nickname,
        addresses: peer.addresses,
        state: match peer.state {
            core::PeerState::Connected => PeerState::Connected,
            core::PeerState::Connecting => PeerState::Connecting,
            core::PeerState::Down => PeerState::Down,
            core::PeerState::Indirect => PeerState::Indirect,
        },
        path: peer.path.map(path_kind),
        via: peer.via,
        endpoint: peer.endpoint,
        rtt_ms: peer.rtt.map(milliseconds),
        loss: peer.loss,
        mtu: peer.mtu,
        tx_bytes: counted.tx_bytes,
        rx_bytes: counted.rx_bytes,
        rx_forged: counted.rx_forged,
        since: timestamp(now.checked_sub(peer.since).unwrap_or(now)),
        reason: peer.reason,
    }
}

fn assemble_switch(switch: core::SwitchStatus, at: SystemTime) -> SwitchStatus {
    SwitchStatus {
        time: timestamp(at),
        path: path_kind(switch.path),
        via: switch.via,
        reason: switch.reason,
    }
}

const fn switch_kind(why: core::SwitchKind) -> SwitchKind {
    match why {
        core::SwitchKind::Better => SwitchKind::Better,
        core::SwitchKind::First => SwitchKind::First,
        core::SwitchKind::Gone => SwitchKind::Gone,
        core::SwitchKind::Lossy => SwitchKind::Lossy,
        core::SwitchKind::Silent => SwitchKind::Silent,
        core::SwitchKind::Slow => SwitchKind::Slow,
    }
}

/// The core's word for a way in the words of the API.
pub(super) const fn path_kind(path: core::PathKind) -> PathKind {
    match path {
        core::PathKind::Control => PathKind::Control,
        core::PathKind::Relay => PathKind::Relay,
        core::PathKind::Sleeve => PathKind::Sleeve,
    }
}

fn assemble_target(target: core::TargetStatus) -> TargetStatus {
    TargetStatus {
        target: target.target,
        state: target.state.to_owned(),
        node: target.node,
        retry_in_ms: target
            .retry_in
            .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        last_error: target.last_error,
    }
}

/// What is told about a token.
pub(super) fn assemble_token(token: core::TokenStatus) -> TokenStatus {
    TokenStatus {
        id: token.id,
        reusable: token.reusable,
        state: token.state.to_owned(),
        expires_in_seconds: token.expires_in.map(|left| left.as_secs()),
        used_by: token.used_by,
    }
}

impl Event {
    /// Puts what the core tells into the words of the API.
    pub fn of(event: io::Event, now: SystemTime) -> Self {
        let kind = match event {
            io::Event::Joined {
                mesh,
                addresses,
                mtu,
            } => EventKind::Joined {
                mesh,
                addresses,
                mtu: mtu.get(),
            },
            io::Event::JoinAttemptFailed(problem) => EventKind::JoinAttemptFailed { problem },
            io::Event::LinkUp {
                node,
                nickname,
                endpoint,
            } => EventKind::LinkUp {
                node,
                nickname,
                endpoint,
            },
            io::Event::LinkDown { node, reason } => EventKind::LinkDown { node, reason },
            io::Event::MemberJoined { node, nickname } => {
                EventKind::MemberJoined { node, nickname }
            }
            io::Event::MemberLeft { node } => EventKind::MemberLeft { node },
            io::Event::PathChanged {
                node,
                at: _,
                from,
                to,
                via,
                reason,
            } => EventKind::PathChanged {
                node,
                from: from.map(path_kind),
                path: path_kind(to),
                via,
                reason,
            },
            io::Event::Problem(problem) => EventKind::Problem { problem },
            io::Event::SessionUp { node } => EventKind::SessionUp { node },
            io::Event::SessionDown { node } => EventKind::SessionDown { node },
        };
        Self::new(kind, now)
    }

    /// Something that the driver itself has to tell.
    pub fn new(kind: EventKind, now: SystemTime) -> Self {
        Self {
            time: timestamp(now),
            kind,
        }
    }
}

/// The answer where a mesh is needed.
pub(super) fn not_joined() -> Problem {
    Problem::new(Code::NotJoined, "this node is in no mesh yet")
        .fix("Join one: sudo weft join HOST --token TOKEN")
}

/// A duration as people compare them.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

fn cipher(cipher: Cipher) -> &'static str {
    match cipher {
        Cipher::Aes256Gcm => "aes-256-gcm",
        Cipher::ChaCha20Poly1305 => "chacha20-poly1305",
    }
}

impl From<core::PathKind> for PathKind {
    fn from(path: core::PathKind) -> Self {
        path_kind(path)
    }
}
