//! Records what every core of a run puts out, so that two builds can be compared: whether they do the same, and where not.
//!
//! ```text
//!   Output, delivered frame ──▶ a line: when, which node, what ─┬─▶ digest of its kind, digest of all
//!                                                               ├─▶ without time and wording: events, frames
//!                                                               └─▶ the text, where it was asked for
//!   the end of the run ──▶ membership and registers of every node, decoded
//! ```
//!
//! **Strict**: the digest of each kind of output and of all, with times, lengths and hashes of bytes. A change of an encoding
//! changes them. **Lasting**: frames, events, membership, registers ([`LASTING`]), without times, random ids, wording, versions
//! and slots: what users see, which no change of structure or of encoding alters.
//!
//! Lines are written by hand, not by `Debug`, so that renamed and moved types leave them alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Write as _};
use std::time::Duration;

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

use crate::sim::{NodeIndex, Sim};

/// The columns that no change of structure or of encoding alters.
pub const LASTING: [&str; 4] = ["events", "frames", "membership", "registers"];

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Count and digest of each kind of output and of all, and of what lasts: `name=count:digest`, separated by blanks.
    pub columns: String,
    /// Everything, line by line; empty unless it was asked for.
    pub text: String,
}

/// How many lines there were, and what follows from them and their order (FNV-1a, 64 bits: nobody forges here).
#[derive(Clone, Copy)]
struct Tally {
    count: u64,
    hash: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            count: 0,
            hash: FNV_OFFSET,
        }
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
    })
}

impl Tally {
    fn add(&mut self, line: &str) {
        self.count += 1;
        self.hash = fnv(fnv(self.hash, line.as_bytes()), b"\n");
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:016x}", self.count, self.hash)
    }
}

/// Notes what happens.
#[derive(Default)]
pub(crate) struct Recorder {
    text: Option<String>,
    names: BTreeMap<NodeId, NodeIndex>,
    all: Tally,
    kinds: BTreeMap<&'static str, Tally>,
    /// Of each node in order; nodes are put together in the end, since who is first by a microsecond does not matter.
    events: BTreeMap<NodeIndex, Tally>,
    /// Of each flow, in order of arrival.
    frames: BTreeMap<[NodeIndex; 2], Tally>,
    /// By what the simulation calls a frame: which of which flow it is.
    offered: BTreeMap<u64, ([NodeIndex; 2], u64)>,
    flows: BTreeMap<[NodeIndex; 2], u64>,
}

impl Sim {
    /// An empty world that notes what happens; with `text` every line of it.
    pub fn recorded(seed: u64, text: bool) -> Self {
        let recorder = Recorder {
            text: text.then(String::new),
            ..Recorder::default()
        };
        let mut sim = Self::new(seed);
        sim.recorder = Some(recorder);
        sim
    }

    /// What was noted until here, and how everybody sees the mesh.
    ///
    /// # Panics
    ///
    /// If nothing is noted: the world was not made by [`Self::recorded`].
    pub fn record(&self) -> Record {
        let recorder = self.recorder.as_ref();
        let recorder = recorder.unwrap_or_else(|| panic!("seed {}: not recorded", self.seed));
        recorder.close(self)
    }

    /// Notes something, if anything is noted.
    pub(crate) fn note(&mut self, what: impl FnOnce(&mut Recorder, Duration)) {
        if let Some(recorder) = &mut self.recorder {
            what(recorder, self.elapsed);
        }
    }
}

impl Recorder {
    /// A router starts: from here on its id is written as its host.
    pub(crate) fn name(&mut self, id: NodeId, index: NodeIndex) {
        self.names.entry(id).or_insert(index);
    }

    /// A core puts something out.
    pub(crate) fn output(&mut self, at: Duration, index: NodeIndex, output: &Output) {
        if let Output::Event(event) = output {
            let line = self.names().event(event);
            self.events.entry(index).or_default().add(&line);
        }
        let (kind, line) = self.names().output(output);
        self.line(at, index, kind, &line);
    }

    /// A core does not start.
    pub(crate) fn refused(&mut self, at: Duration, index: NodeIndex, problem: &Problem) {
        self.line(at, index, "halt", &format!("at start {}", told(problem)));
    }

    /// A frame is handed to a data plane.
    pub(crate) fn offered(&mut self, flow: [NodeIndex; 2], number: u64) {
        let nth = self.flows.entry(flow).or_default();
        *nth += 1;
        self.offered.insert(number, (flow, *nth));
    }

    /// A frame comes out at the other end.
    pub(crate) fn delivered(&mut self, at: Duration, index: NodeIndex, number: u64) {
        let Some(&(flow, nth)) = self.offered.get(&number) else {
            return;
        };
        let line = format!("n{} of n{} number {nth}", index.0, flow[0].0);
        self.frames.entry(flow).or_default().add(&line);
        self.line(
            at,
            index,
            "frame",
            &format!("of n{} number {nth}", flow[0].0),
        );
    }

    fn line(&mut self, at: Duration, index: NodeIndex, kind: &'static str, what: &str) {
        let (secs, nanos) = (at.as_secs(), at.subsec_nanos());
        let line = format!("{secs}.{nanos:09} n{} {kind} {what}", index.0);
        self.all.add(&line);
        self.kinds.entry(kind).or_default().add(&line);
        if let Some(text) = &mut self.text {
            text.push_str(&line);
            text.push('\n');
        }
    }

    const fn names(&self) -> Names<'_> {
        Names(&self.names)
    }

    fn close(&self, sim: &Sim) -> Record {
        let (mut membership, mut registers) = (BTreeSet::new(), BTreeSet::new());
        for index in sim.indices() {
            let Some(core) = &sim.node(index).core else {
                continue;
            };
            let by = format!("n{} knows", index.0);
            let members = core
                .membership()
                .map(|known| self.names().membership(known));
            let said = core.registers().map(|known| self.names().registers(known));
            membership.extend(
                members
                    .into_iter()
                    .flatten()
                    .map(|what| format!("{by} {what}")),
            );
            registers.extend(
                said.into_iter()
                    .flatten()
                    .map(|what| format!("{by} {what}")),
            );
        }
        let events = self.events.iter();
        let events = events.map(|(node, tally)| (format!("n{}", node.0), *tally));
        let frames = self.frames.iter();
        let frames = frames.map(|([from, to], tally)| (format!("n{} n{}", from.0, to.0), *tally));
        let mut columns = format!("all={}", self.all);
        for (kind, tally) in &self.kinds {
            let _ = write!(columns, " {kind}={tally}");
        }
        let lasting = [
            together(events),
            together(frames),
            tally(membership.iter().cloned()),
            tally(registers.iter().cloned()),
        ];
        for (name, tally) in LASTING.into_iter().zip(lasting) {
            let _ = write!(columns, " {name}={tally}");
        }
        let mut text = self.text.clone().unwrap_or_default();
        if self.text.is_some() {
            for line in membership.iter().chain(&registers) {
                text.push_str(line);
                text.push('\n');
            }
        }
        Record { columns, text }
    }
}

/// Puts the tallies of parts together: all that they count, and what follows from each.
fn together(parts: impl Iterator<Item = (String, Tally)>) -> Tally {
    let (mut all, mut count) = (Tally::default(), 0);
    for (name, part) in parts {
        all.add(&format!("{name} {part}"));
        count += part.count;
    }
    Tally { count, ..all }
}

fn tally(lines: impl Iterator<Item = String>) -> Tally {
    let mut tally = Tally::default();
    lines.for_each(|line| tally.add(&line));
    tally
}

/// Writes nodes as their hosts: `n3`.
#[derive(Clone, Copy)]
struct Names<'a>(&'a BTreeMap<NodeId, NodeIndex>);

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
    fn output(self, output: &Output) -> (&'static str, String) {
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
    fn event(self, event: &Event) -> String {
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
    fn membership(self, known: &Membership) -> BTreeSet<String> {
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
    fn registers(self, known: &Registers) -> BTreeSet<String> {
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
fn told(problem: &Problem) -> String {
    let Problem {
        code,
        what,
        why,
        fix,
    } = problem;
    format!("{code} {what} / {why} / {fix}").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_router_proto::io::Command;
    use weft_types::MacAddr;

    const SECOND: Duration = Duration::from_secs(1);

    /// Three nodes, a container on one of them, and so many frames from one to another.
    fn run(seed: u64, last_byte: u8, frames: usize) -> Record {
        let mut sim = Sim::recorded(seed, true);
        let nodes = sim.grow(&[None, None]);
        let attach = Command::Attach {
            mac: MacAddr::new([2, 0, 0, 0, 0, last_byte]),
            addresses: vec!["10.40.0.1/12".parse().expect("a network")],
            port: "p".to_owned(),
        };
        sim.command(nodes[1], attach);
        for _ in 0..frames {
            sim.frame(nodes[0], nodes[1]);
        }
        sim.run(3 * SECOND);
        sim.record()
    }

    fn column<'a>(record: &'a Record, name: &str) -> &'a str {
        let of = |column: &'a str| column.strip_prefix(name)?.strip_prefix('=');
        let columns = record.columns.split(' ');
        columns.filter_map(of).next().expect("a column")
    }

    /// The names of the columns that differ.
    fn different(one: &Record, other: &Record) -> BTreeSet<String> {
        let columns = |record: &Record| -> BTreeSet<String> {
            record.columns.split(' ').map(str::to_owned).collect()
        };
        let differing = &columns(one) ^ &columns(other);
        let name = |column: &String| column.split('=').next().map(str::to_owned);
        differing.iter().filter_map(name).collect()
    }

    #[test]
    fn a_run_is_a_function_of_its_seed_to_the_last_byte() {
        let [first, again, other] = [7, 7, 8].map(|seed| run(seed, 1, 5));

        assert_eq!(first, again);
        assert!(different(&first, &other).contains("all"));
    }

    #[test]
    fn the_text_has_every_output_and_says_how_it_ended() {
        let record = run(7, 1, 5);

        let all = column(&record, "all").split(':').next();
        let timed = record.text.lines().filter(|line| !line.starts_with('n'));
        assert_eq!(all, Some(timed.count().to_string().as_str()));
        for part in [
            " n1 frame of n0 number 5\n",
            " n2 event member joined n1 n1 \n",
            "\nn2 knows member n1 n1 ",
            "\nn2 knows n1 links n0 n2\n",
            "\nn2 knows n1 record n1 [192.0.0.2:6783] ",
            "\nn2 knows endpoint n1 0 02:00:00:00:00:01 [10.40.0.1] attached \n",
        ] {
            assert!(record.text.contains(part), "no {part:?}: {}", record.text);
        }
    }

    #[test]
    fn another_container_shows_in_the_registers_and_in_nothing_else_that_lasts() {
        let differing = different(&run(7, 1, 5), &run(7, 2, 5));

        let lasting = LASTING.into_iter().filter(|&name| differing.contains(name));
        assert_eq!(lasting.collect::<Vec<_>>(), ["registers"]);
        assert!(differing.contains("snapshot") && differing.contains("save"));
    }

    #[test]
    fn a_frame_more_shows_in_the_frames_and_in_nothing_else_that_lasts() {
        let differing = different(&run(7, 1, 5), &run(7, 1, 6));

        let lasting = LASTING.into_iter().filter(|&name| differing.contains(name));
        assert_eq!(lasting.collect::<Vec<_>>(), ["frames"]);
    }

    #[test]
    fn an_event_s_wording_and_its_order_among_nodes_do_not_last_but_its_subject_does() {
        let id = |n| NodeId::new([n; 32]);
        let down = |node, reason: &str| {
            Output::Event(Event::LinkDown {
                node: id(node),
                reason: reason.to_owned(),
            })
        };
        let columns = |happened: &[(usize, Output)]| {
            let mut sim = Sim::recorded(1, false);
            for (index, output) in happened {
                sim.note(|recorder, at| recorder.output(at, NodeIndex(*index), output));
            }
            sim.record()
        };
        let first = columns(&[(0, down(1, "silent")), (1, down(2, "silent"))]);
        let reworded = columns(&[(1, down(2, "no answer")), (0, down(1, "silent"))]);
        let another = columns(&[(0, down(3, "silent")), (1, down(2, "silent"))]);

        assert_eq!(
            different(&first, &reworded),
            BTreeSet::from(["all".to_owned(), "event".to_owned()])
        );
        assert!(different(&first, &another).contains("events"));
    }

    #[test]
    fn to_record_a_run_does_not_change_it() {
        let end = |mut sim: Sim| {
            let nodes = sim.grow(&[None]);
            sim.run(SECOND);
            (sim.story(&nodes), sim.node(nodes[1]).sent)
        };

        assert_eq!(end(Sim::new(7)), end(Sim::recorded(7, true)));
    }
}
