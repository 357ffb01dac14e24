//! Writes what a core puts out and knows as lines, nodes as their hosts.
//!
//! By hand, not by `Debug`, so that renamed and moved types leave them alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use weft_router_proto::endpoints;
use weft_router_proto::gossip::registers::{ENDPOINTS, Register, Registers, TOPOLOGY};
use weft_router_proto::io::{ConnId, DataPlane, Event, Hop, Output, Reply};
use weft_router_proto::membership::{Gone, Membership, Role};
use weft_router_proto::overlay::Via;
use weft_router_proto::session::SessionKeys;
use weft_router_proto::snapshot::{Endpoint, EndpointKind, Snapshot};
use weft_router_proto::status::PathKind;
use weft_router_proto::store::Change;
use weft_router_proto::topology::{LINKS, Links, NodeRecord};
use weft_types::{NodeId, Problem, TokenId};

use crate::node::NodeIndex;

pub(crate) const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

pub(crate) fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
    })
}

/// Writes nodes as their hosts: `n3`.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a>(pub(crate) &'a BTreeMap<NodeId, NodeIndex>);

impl Names<'_> {
    fn node(self, id: NodeId) -> String {
        let known = self.0.get(&id);
        known.map_or_else(|| id.to_string(), |index| format!("n{}", index.0))
    }

    fn maybe(self, id: Option<NodeId>) -> String {
        id.map_or_else(|| "nobody".to_owned(), |id| self.node(id))
    }

    fn way(self, via: Via) -> String {
        match via {
            Via::Control => "control".to_owned(),
            Via::Direct(to) => format!("direct {to}"),
            Via::Relay(node) => format!("relay {}", self.node(node)),
        }
    }

    /// The kind of an output, and what it says.
    pub(crate) fn output(self, output: &Output) -> (&'static str, String) {
        match output {
            Output::Authenticated { conn } => ("authenticated", conn_text(*conn)),
            Output::CheckGenesis { conn, .. } => ("genesis", conn_text(*conn)),
            Output::Close { conn } => ("close", conn_text(*conn)),
            Output::Connect { conn, to } => ("connect", format!("{} {to}", conn_text(*conn))),
            Output::DataPlane(command) => ("plane", self.plane(command)),
            Output::Event(event) => {
                let text = format!("{} {}", self.event(event), event_detail(event));
                ("event", text)
            }
            Output::Halt(problem) => ("halt", told(problem)),
            Output::Reply { id, reply } => ("reply", format!("{} {}", id.0, self.reply(reply))),
            Output::Resolve { target } => ("resolve", target.0.clone()),
            Output::Save { ticket, changes } => {
                let changes: Vec<String> = changes.iter().map(change).collect();
                ("save", format!("{} {}", ticket.0, changes.join(", ")))
            }
            Output::Send { conn, bytes } => {
                ("send", format!("{} {}", conn_text(*conn), weight(bytes)))
            }
            Output::SendDatagram { to, bytes } => ("datagram", format!("{to} {}", weight(bytes))),
            Output::Snapshot(snapshot) => ("snapshot", self.snapshot(snapshot)),
        }
    }

    fn plane(self, command: &DataPlane) -> String {
        match command {
            DataPlane::AdmitLink(link) => format!("admit link {}", link.0),
            DataPlane::Datagrams { from, datagrams } => {
                let all: Vec<String> = datagrams.iter().map(|bytes| weight(bytes)).collect();
                format!("datagrams {} {}", self.node(*from), all.join(", "))
            }
            DataPlane::Install { peer, keys } => self.keys("install", *peer, keys),
            DataPlane::InstallReceiving { peer, keys } => self.keys("receive", *peer, keys),
            DataPlane::PathProbe {
                peer,
                via,
                slot,
                id,
                datagram,
            } => format!(
                "path probe {id} {} by {} slot {} of {datagram}",
                self.node(*peer),
                self.way(*via),
                slot.map_or_else(|| "none".to_owned(), |slot| slot.number().to_string())
            ),
            DataPlane::Probe { peer, id, size } => {
                format!("probe {id} {} of {size}", self.node(*peer))
            }
            DataPlane::Retire { index } => format!("retire {}", index.0),
            DataPlane::RetireLink(link) => format!("retire link {}", link.0),
            DataPlane::SessionMessage { peer, bytes } => {
                format!("message {} {}", self.node(*peer), weight(bytes))
            }
        }
    }

    fn keys(self, what: &str, peer: NodeId, keys: &SessionKeys) -> String {
        let (local, remote) = (keys.local.0, keys.remote.0);
        let both = fnv(fnv(FNV_OFFSET, &keys.send), &keys.receive);
        format!("{what} {} {local} {remote} {both:016x}", self.node(peer))
    }

    /// An event without its wording, and without what chance alone decides.
    pub(crate) fn event(self, event: &Event) -> String {
        match event {
            Event::Joined { addresses, mtu, .. } => {
                format!("joined {} mtu {}", list(addresses), mtu.get())
            }
            Event::JoinAttemptFailed(problem) => format!("join failed {}", problem.code),
            Event::LinkUp { node, nickname, .. } => {
                format!("link up {} {nickname}", self.node(*node))
            }
            Event::LinkDown { node, .. } => format!("link down {}", self.node(*node)),
            Event::MemberJoined { node, nickname } => {
                format!("member joined {} {nickname}", self.node(*node))
            }
            Event::MemberLeft { node } => format!("member left {}", self.node(*node)),
            Event::PathChanged {
                node,
                from,
                to,
                via,
                ..
            } => format!(
                "path {} {} to {} via {}",
                self.node(*node),
                from.map_or("none", path),
                path(*to),
                self.maybe(*via)
            ),
            Event::Problem(problem) => format!("problem {}", problem.code),
            Event::SessionUp { node } => format!("session up {}", self.node(*node)),
            Event::SessionDown { node } => format!("session down {}", self.node(*node)),
        }
    }

    fn reply(self, reply: &Reply) -> String {
        match reply {
            Reply::Done => "done".to_owned(),
            Reply::Failed(problem) => format!("failed {}", told(problem)),
            Reply::Pong(pong) => format!(
                "pong after {} ns of {} lost {} by {} via {} loss {:.6} mtu {}",
                pong.rtt.as_nanos(),
                pong.size,
                pong.lost,
                path(pong.path),
                self.maybe(pong.via),
                pong.loss,
                pong.mtu.unwrap_or_default()
            ),
            Reply::Token(text) => format!("token {}", weight(text.reveal().as_bytes())),
            Reply::Trace(hops) => {
                let hops: Vec<String> = hops.iter().map(|hop| self.hop(hop)).collect();
                format!("trace {}", hops.join(", "))
            }
        }
    }

    fn hop(self, hop: &Hop) -> String {
        format!(
            "{} to {} by {} after {} ns loss {:.6} mtu {}",
            self.node(hop.from),
            self.node(hop.to),
            hop.path.map_or("none", path),
            hop.rtt.unwrap_or_default().as_nanos(),
            hop.loss,
            hop.mtu.unwrap_or_default()
        )
    }

    fn snapshot(self, snapshot: &Snapshot) -> String {
        let peers = snapshot.peers.iter().map(|peer| {
            let way = peer.path.map(|path| self.way(path.via));
            let way = way.unwrap_or_else(|| "none".to_owned());
            format!("{} {way}", self.node(peer.node))
        });
        let peers: Vec<String> = peers.collect();
        let endpoints: BTreeSet<String> = snapshot
            .endpoints
            .iter()
            .map(|endpoint| self.endpoint(endpoint))
            .collect();
        let endpoints: Vec<String> = endpoints.into_iter().collect();
        let peers = peers.join(", ");
        format!(
            "{} peers: {peers}; endpoints: {}",
            list(&snapshot.host_addresses),
            endpoints.join(", ")
        )
    }

    fn endpoint(self, endpoint: &Endpoint) -> String {
        let kind = match &endpoint.kind {
            EndpointKind::Attached { port } => format!("attached {port}"),
            EndpointKind::Host => "host".to_owned(),
        };
        format!(
            "{} {} {} {} {kind}",
            self.node(endpoint.owner),
            endpoint.segment,
            endpoint.mac,
            list(&endpoint.addresses)
        )
    }

    /// Who belongs, who does no more, and what admits. Tokens have no names here: theirs are drawn by chance.
    pub(crate) fn membership(self, known: &Membership) -> BTreeSet<String> {
        let token = |id: TokenId| match known.token(id) {
            Some(token) => format!("{} of {}", use_of(token.reusable), self.node(token.issuer)),
            None => "single-use".to_owned(),
        };
        let members = known.members().map(|member| {
            format!(
                "member {} {} {} {} by {} with {}",
                self.node(member.node),
                member.nickname,
                role(member.role),
                list(&member.addresses),
                self.node(member.admitted_by),
                member.token.map_or_else(|| "no token".to_owned(), token)
            )
        });
        let left = known.left().map(|(node, gone)| {
            let how = match gone {
                Gone::Left => "left",
                Gone::Revoked => "revoked",
            };
            format!("{how} {}", self.node(node))
        });
        let mut tokens: BTreeMap<String, usize> = BTreeMap::new();
        for (id, token_view) in known.tokens() {
            let voided = if token_view.voided { " voided" } else { "" };
            let secs = token_view.ttl.as_secs();
            let text = format!("token {} for {secs} s{voided}", token(id));
            *tokens.entry(text).or_default() += 1;
        }
        let tokens = tokens.into_iter();
        let tokens = tokens.map(|(text, count)| format!("{text} times {count}"));
        members.chain(left).chain(tokens).collect()
    }

    /// What everybody has announced: neither in which registers nor how often it was written.
    pub(crate) fn registers(self, known: &Registers) -> BTreeSet<String> {
        let topology = known.channel(TOPOLOGY);
        let topology = topology.map(|signed| self.topology(signed.register()));
        let announced = known.channel(ENDPOINTS);
        let announced = announced.flat_map(|signed| self.announced(signed.register()));
        topology.chain(announced).collect()
    }

    fn topology(self, register: &Register) -> String {
        let owner = self.node(register.owner);
        if register.slot == LINKS {
            let links = Links::decode(&register.body).map(|links| {
                let nodes: BTreeSet<String> = links.nodes().iter().map(|&n| self.node(n)).collect();
                let nodes: Vec<String> = nodes.into_iter().collect();
                nodes.join(" ")
            });
            return format!("{owner} links {}", links.unwrap_or_else(|_| unreadable()));
        }
        let record = NodeRecord::decode(&register.body).map(|record| {
            format!(
                "{} {} observed {} features {} release {} mtu {}",
                record.nickname,
                list(&record.addresses),
                list(&record.observed),
                record.features.join(" "),
                record.release,
                record.mtu.map_or(0, |mtu| mtu.get())
            )
        });
        format!("{owner} record {}", record.unwrap_or_else(|_| unreadable()))
    }

    fn announced(self, register: &Register) -> Vec<String> {
        let Register {
            owner, slot, body, ..
        } = register;
        let Ok(endpoints) = endpoints::decode(*owner, *slot, body) else {
            return vec![format!("{} endpoints {}", self.node(*owner), unreadable())];
        };
        let endpoints = endpoints.iter();
        endpoints
            .map(|endpoint| format!("endpoint {}", self.endpoint(endpoint)))
            .collect()
    }
}

fn unreadable() -> String {
    "unreadable".to_owned()
}

const fn use_of(reusable: bool) -> &'static str {
    if reusable { "reusable" } else { "single-use" }
}

/// What an event says beside: words, and what depends on numbers of connections.
fn event_detail(event: &Event) -> String {
    match event {
        Event::Joined { mesh, .. } => mesh.to_string(),
        Event::JoinAttemptFailed(problem) | Event::Problem(problem) => told(problem),
        Event::LinkUp { endpoint, .. } => endpoint.to_string(),
        Event::LinkDown { reason, .. } | Event::PathChanged { reason, .. } => reason.clone(),
        Event::MemberJoined { .. }
        | Event::MemberLeft { .. }
        | Event::SessionDown { .. }
        | Event::SessionUp { .. } => String::new(),
    }
}

fn change(change: &Change) -> String {
    match change {
        Change::Delete { table, key } => format!("delete {} {}", table.name(), weight(key)),
        Change::Put { table, key, value } => {
            format!("put {} {} {}", table.name(), weight(key), weight(value))
        }
    }
}

fn conn_text(conn: ConnId) -> String {
    let side = if conn.dialled { "dialled" } else { "accepted" };
    format!("{side} {}", conn.number)
}

const fn path(kind: PathKind) -> &'static str {
    match kind {
        PathKind::Control => "control",
        PathKind::Relay => "relay",
        PathKind::Sleeve => "sleeve",
    }
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Introducer => "introducer",
        Role::Member => "member",
    }
}

/// Bytes: how many, and which.
fn weight(bytes: &[u8]) -> String {
    format!("{}:{:016x}", bytes.len(), fnv(FNV_OFFSET, bytes))
}

fn list<T: Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    format!("[{}]", items.join(" "))
}

/// A problem, on one line.
pub(crate) fn told(problem: &Problem) -> String {
    let Problem {
        code,
        what,
        why,
        fix,
    } = problem;
    format!("{code} {what} / {why} / {fix}").replace('\n', " ")
}
