//! A member: the mesh, the parts, and what one of them is to do because of another.
//!
//! ```text
//!   Input ──▶ the part whose it is ──▶ its news ──▶ settle: links, sessions, ways until none wants anything
//!                                                      │
//!                                                      └▶ refresh: registers, who came and went, snapshot
//! ```
//!
//! This is the only file that calls parts, and so the only one that knows which there are. What moves over several of them
//! is one function here: an admission ([`Step::admit`], [`Step::sign`], [`Step::welcome`]), a change of the membership
//! ([`Step::members_changed`]), a change of the forwarding ([`Step::reforward`]).

use std::time::Instant;

use weft_types::{Boot, Code, NodeId, Problem, Replica, TokenId};

use super::ground::door::Entrance;
use super::ground::mesh::Dirty;
use super::ground::news::News;
use super::ground::own_log::{Waiting, too_early};
use super::ground::saves::Part;
use super::ground::{Ground, Reach, conn::ConnEvent, mesh::Mesh};
use super::parts::addresses::AddressBook;
use super::parts::admission::Admission;
use super::parts::endpoints::{Attached, Endpoints};
use super::parts::pings::Pings;
use super::parts::presence::Presence;
use super::parts::roster::Roster;
use super::parts::sessions::{DataSessions, SessionNews};
use super::parts::tokens::Tokens;
use super::parts::traces::Traces;
use super::parts::transit::Transit;
use super::parts::ways::Ways;
use crate::control::{ControlMessage, Observed};
use crate::gossip::channels::{self, Reader};
use crate::gossip::registers::{Finding, RegisterDelta, SignedRegister};
use crate::io::{
    Command, ConnId, ConnectError, DataPlane, Event, Input, Reply, RequestId, Target, Ticket,
};
use crate::letter::{Letter, WayReply};
use crate::membership::{MembershipDelta, Record, Standing, Welcome};
use crate::overlay::OverlayInput;
use crate::session::Via;
use crate::store::{Change, Table};
use crate::switch::DropReason;
use crate::topology::TopologyChange;
use crate::unicast::{Body, Unicast};
use crate::wire::envelope::Signed;

/// A member.
pub(crate) struct Member {
    pub(crate) mesh: Mesh,
    pub(crate) parts: Parts,
}

/// What a member does.
pub(crate) struct Parts {
    pub(crate) addresses: AddressBook,
    pub(crate) admission: Admission,
    /// Our own admission, until it is durable.
    pub(crate) arrival: Option<Arrival>,
    pub(crate) endpoints: Endpoints,
    pub(crate) pings: Pings,
    pub(crate) presence: Presence,
    pub(crate) roster: Roster,
    pub(crate) sessions: DataSessions,
    pub(crate) tokens: Tokens,
    pub(crate) traces: Traces,
    pub(crate) transit: Transit,
    pub(crate) ways: Ways,
}

/// Our own admission, until it is durable.
pub(crate) struct Arrival {
    pub(crate) ticket: Ticket,
    pub(crate) conn: ConnId,
    /// Where the token was made: dialled as a member like others from then on.
    pub(crate) issuer: Vec<Target>,
    /// What the members say of themselves: nobody is dialled before our admission is durable.
    pub(crate) records: RegisterDelta,
}

/// A member in action.
pub(crate) struct Step<'a> {
    reach: Reach<'a>,
    parts: &'a mut Parts,
}

impl Member {
    /// Begins to act.
    pub(crate) const fn step<'a>(&'a mut self, ground: &'a mut Ground) -> Step<'a> {
        let mesh = &mut self.mesh;
        Step {
            reach: Reach { ground, mesh },
            parts: &mut self.parts,
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let parts = &self.parts;
        [
            self.mesh.links_timeout(),
            self.mesh.own_log.poll_timeout(),
            parts.admission.poll_timeout(),
            parts.pings.poll_timeout(),
            parts.presence.poll_timeout(),
            parts.sessions.poll_timeout(),
            parts.tokens.poll_timeout(),
            parts.traces.poll_timeout(),
            parts.ways.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

impl Step<'_> {
    /// Takes in what happened.
    pub(crate) fn handle_input(&mut self, input: Input, now: Instant) {
        let Self { reach, parts } = self;
        match input {
            Input::Accepted { conn, from } => {
                let mut ourself = reach.ground.ourself(reach.mesh.id);
                ourself.genesis = Some(reach.mesh.genesis.encode());
                reach.ground.accept(conn, from, ourself, now);
            }
            Input::ByControl { peer, datagrams } => self.by_control(peer, &datagrams),
            Input::Chatter { peer } => {
                parts.sessions.note_used(peer, now);
                parts.ways.handle_input(peer, OverlayInput::Chatter, now);
            }
            Input::Closed { conn } => self.closed(conn, now),
            Input::Command { id, command } => self.command(id, command, now),
            Input::ConnectFailed { conn, why } => self.connect_failed(conn, why, now),
            Input::Connected { conn } => self.connected(conn, now),
            // Only joiners ask for that.
            Input::GenesisChecked { .. } => {}
            Input::Heard { peer, from } => {
                parts.sessions.note_used(peer, now);
                parts.ways.handle_heard(peer, from, reach.mesh, now);
            }
            Input::LinkDatagram { from, bytes } => reach.mesh.link_datagram(from, bytes, now),
            Input::LocalAddresses(addresses) => {
                reach.mesh.dirty.record |= reach.ground.set_local_addresses(addresses);
            }
            Input::PathAnswered(answer) => {
                let ways = &mut parts.ways;
                ways.handle_input(answer.peer, OverlayInput::Answer(&answer), now);
            }
            Input::ProbeAnswered { peer, id, rtt } => {
                parts.pings.handle_answer(peer, id, rtt);
                self.answer_pings();
            }
            Input::Received { conn, bytes } => {
                reach
                    .ground
                    .received(conn, &bytes, parts.tokens.keyring(), now);
            }
            Input::Resolved { target, addresses } => reach.ground.resolved(&target, addresses, now),
            Input::SaveFailed { ticket, problem } => self.save_failed(ticket, problem, now),
            Input::Saved { ticket } => self.saved(ticket, now),
            Input::Sent { conn, bytes } => reach.ground.sent(conn, bytes),
            Input::SessionMessage { peer, bytes } => {
                let sessions = &mut parts.sessions;
                sessions.handle_message(peer, &bytes, Via::Session, reach, now);
            }
            Input::SessionWanted { peer } => parts.sessions.want(peer, reach, now),
            Input::TooBig { to, datagram } => parts.ways.handle_too_big(to, datagram, now),
            Input::Traffic { peer, direction: _ } => {
                parts.sessions.note_used(peer, now);
                parts.ways.handle_input(peer, OverlayInput::Traffic, now);
            }
        }
    }

    /// Wakes what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let Self { reach, parts } = self;
        reach.wake_conns(now);
        parts.admission.handle_timeout(reach, now);
        reach.wake_links(now);
        parts.tokens.handle_timeout(reach, now);
        if reach.mesh.own_log.is_due(now) {
            self.own_log_known(now);
        }
        let Self { reach, parts } = self;
        let ways = &parts.ways;
        parts
            .pings
            .handle_timeout(|node| ways.own_way(node), reach, now);
        parts.traces.handle_timeout(reach, now);
        parts.sessions.handle_timeout(reach, now);
        parts.ways.handle_timeout(now);
        reach.mesh.dirty.forwarding |= parts.ways.has_lost_one();
    }

    /// Lets everything say what it wants until nothing wants anything.
    pub(crate) fn settle(&mut self, now: Instant) {
        loop {
            let mut busy = self.pump_dialer();
            busy |= self.reach.pump_links(now);
            busy |= self.pump_sessions(now);
            busy |= self.pump_ways(now);
            if !busy {
                break;
            }
        }
        self.refresh(now);
        // What is known of the ways may have changed with that.
        while self.pump_ways(now) | self.pump_sessions(now) {}
        self.answer_pings();
        let ways = &self.parts.ways;
        self.reach.repath(|node| ways.path(node));
        self.reach.feed_links();
        self.parts.admission.tidy(&self.reach);
    }

    fn pump_dialer(&mut self) -> bool {
        let mut busy = false;
        while let Some(output) = self.reach.ground.dialer.poll_output() {
            busy = true;
            // A member goes on dialling; status tells what came of it.
            let _ = self.reach.ground.dialer_wants(output);
        }
        busy
    }

    fn pump_sessions(&mut self, now: Instant) -> bool {
        let mut busy = false;
        while let Some(news) = self.parts.sessions.pump(&mut self.reach) {
            busy = true;
            match news {
                SessionNews::Changed(peer) => {
                    let session = OverlayInput::Session(self.parts.sessions.is_up(peer));
                    self.parts.ways.handle_input(peer, session, now);
                }
                SessionNews::Registers(peer, registers) => {
                    self.registers_came_along(peer, &registers, now)
                }
                SessionNews::Done => {}
            }
        }
        busy
    }

    fn pump_ways(&mut self, now: Instant) -> bool {
        let Self { reach, parts } = self;
        let Some(relays) = parts.ways.pump(reach, now) else {
            return false;
        };
        for relay in relays {
            parts.sessions.expect(relay, reach, now);
        }
        true
    }

    fn answer_pings(&mut self) {
        let Self { reach, parts } = self;
        let ways = &parts.ways;
        parts.pings.answer(|node| ways.own_way(node), reach);
    }
}

/// Connections and what comes on them.
impl Step<'_> {
    fn connected(&mut self, conn: ConnId, now: Instant) {
        let Self { reach, parts } = self;
        let dialled = reach.ground.conns.get(&conn);
        let door = dialled.and_then(|dialled| parts.tokens.door_key_for(dialled.remote));
        let Some((id, key)) = door else {
            return reach.ground.close(conn);
        };
        let mut ourself = reach.ground.ourself(reach.mesh.id);
        ourself.genesis = Some(reach.mesh.genesis.encode());
        let asked = crate::wire::preface::Repr::Member(id);
        reach.ground.connected(conn, ourself, asked, key, now);
    }

    fn connect_failed(&mut self, conn: ConnId, why: ConnectError, now: Instant) {
        let ground = &mut *self.reach.ground;
        if ground.conns.remove(&conn).is_some() {
            ground.led_nowhere(conn, crate::dialer::DialError::Connect(why), now);
        }
    }

    fn closed(&mut self, conn: ConnId, now: Instant) {
        if let Some(to) = self.reach.ground.shut(conn) {
            self.parts.tokens.door_was_shut(to);
        }
        self.reach.second_closed(conn);
        let over = self.reach.ground.closed(conn, now);
        if let Some(node) = over.and_then(|over| over.node()) {
            self.reach.link_closed(node, conn, now);
        }
    }

    /// A connection has brought something.
    pub(crate) fn conn_event(&mut self, conn: ConnId, event: ConnEvent, now: Instant) {
        match self.reach.enter(conn, event, now) {
            Some(Entrance::Admit(token)) => self.admit(conn, token, now),
            Some(Entrance::Link) => self.link_up(conn, now),
            Some(Entrance::Said(message)) => self.link_message(conn, *message, now),
            None => {}
        }
    }

    /// A member is at the other end: it becomes a link, unless a better one is there.
    pub(crate) fn link_up(&mut self, conn: ConnId, now: Instant) {
        let Some((node, boot)) = self.reach.link_up(conn, now) else {
            return;
        };
        let Self { reach, parts } = self;
        parts.sessions.peer_restarted(node, boot, reach);
        if reach.mesh.own_log.is_waiting() {
            // Its answer tells how far our own log goes, after all that is missing here.
            reach.offer_membership(conn);
        }
        for token in parts.tokens.shared(now) {
            reach.ground.tell(conn, &ControlMessage::TokenSecret(token));
        }
        for door in parts.tokens.later_door_keys() {
            reach.ground.tell(conn, &ControlMessage::DoorKey(door));
        }
        reach.ground.replay_early(conn);
    }

    /// A control message on a link, or of one who proves that it should be.
    fn link_message(&mut self, conn: ConnId, message: ControlMessage, now: Instant) {
        let Self { reach, parts } = self;
        let Some(node) = reach.ground.other(conn).map(|other| other.node) else {
            return;
        };
        let mut link = reach.mesh.link_over(node, conn);
        if let Some(link) = &mut link {
            link.machine.handle_message(now);
        }
        match (message, link) {
            (ControlMessage::Delta(delta), _) => {
                let root = delta.root.unwrap_or(reach.mesh.ourself);
                let news = reach.delta(node, &delta, now);
                self.news(root, Some(node), news, now);
            }
            (ControlMessage::Digest(digest), _) => reach.digest(conn, node, &digest, now),
            (ControlMessage::Summary(summary), _) => {
                if reach.summary(conn, node, &summary) {
                    self.own_log_known(now);
                }
            }
            (ControlMessage::DoorKey(door), _) => {
                parts.tokens.handle_door_key(door, node, reach, now)
            }
            (ControlMessage::TokenSecret(secret), _) => {
                parts.tokens.handle_secret(secret, reach, now)
            }
            (ControlMessage::Heartbeat(heartbeat), Some(link)) => {
                link.machine.handle_heartbeat(&heartbeat, now)
            }
            (ControlMessage::LinkKeys(keys), Some(link)) => link.machine.handle_keys(&keys, now),
            (ControlMessage::Heartbeat(_) | ControlMessage::LinkKeys(_), None) => {}
            (ControlMessage::Observed(Observed { address }), _) => {
                reach.note_observed(node, address)
            }
            (ControlMessage::Unicast(unicast), _) => self.unicast(node, unicast, now),
            // A refusal is handled before; a welcome is for joiners.
            (
                ControlMessage::Refused(_)
                | ControlMessage::Unknown(_)
                | ControlMessage::Welcome(_),
                _,
            ) => {}
        }
    }

    /// What members tell each other over any number of others.
    fn unicast(&mut self, via: NodeId, unicast: Unicast, now: Instant) {
        let Self { reach, parts } = self;
        if unicast.to != reach.mesh.ourself {
            return self.pass_on(via, unicast, now);
        }
        let from = unicast.from;
        match Body::decode(&unicast.body) {
            Some(Body::Datagram(bytes)) => reach.ground.data_plane(DataPlane::Datagrams {
                from,
                datagrams: vec![bytes.to_vec()],
            }),
            Some(Body::Session(bytes)) => {
                let sessions = &mut parts.sessions;
                sessions.handle_message(from, bytes, Via::Unicast, reach, now);
            }
            Some(Body::Sealed(sealed)) => {
                if let Some(letter) = reach.open_sealed(from, sealed) {
                    self.letter(from, letter, now);
                }
            }
            None => {}
        }
    }

    fn pass_on(&mut self, via: NodeId, unicast: Unicast, now: Instant) {
        let Self { reach, parts } = self;
        let carries = matches!(Body::decode(&unicast.body), Some(Body::Datagram(_)));
        match unicast.forwarded() {
            Some(onward) if carries => parts.transit.pass_on(onward, via, reach, now),
            Some(onward) => {
                reach.route(onward, Some(via));
            }
            None if carries => parts.transit.discard(DropReason::RelayHops),
            None => {}
        }
    }

    fn letter(&mut self, from: NodeId, letter: Letter, now: Instant) {
        let Self { reach, parts } = self;
        match letter {
            Letter::AddressRequest(asked) => {
                let taken = reach.mesh.addresses_in_use();
                parts.addresses.handle_request(from, &asked, &taken, reach);
            }
            Letter::AddressReply(told) => {
                if reach.mesh.genesis.genesis().creator == from
                    && let Some(conn) = parts.admission.told(told.request, reach)
                {
                    self.sign(conn, told.result.map(|addresses| (addresses, None)), now);
                }
            }
            Letter::CloneSeen(seen) => reach.clone_seen(seen.boot, seen.from, Some(from), now),
            Letter::Punch(addresses) => parts.ways.handle_punch(from, &addresses, reach, now),
            Letter::WayReply(told) => parts.traces.handle_reply(from, &told, reach, now),
            Letter::WayRequest(asked) => {
                parts
                    .ways
                    .handle_input(asked.to, OverlayInput::Traffic, now);
                let reply = WayReply {
                    request: asked.request,
                    ..parts.ways.own_way(asked.to).way
                };
                reach.send_sealed(from, &Letter::WayReply(reply));
            }
        }
    }

    /// Datagrams for which there is no way by UDP: over control connections, as far as those keep up.
    fn by_control(&mut self, peer: NodeId, datagrams: &[Vec<u8>]) {
        let Self { reach, parts } = self;
        for datagram in datagrams {
            let body = Body::Datagram(datagram).encode();
            let unicast = Unicast::new(reach.mesh.ourself, peer, body);
            parts.transit.send(unicast, reach);
        }
    }
}

/// What people ask for, and what waits for the disk.
impl Step<'_> {
    fn command(&mut self, id: RequestId, command: Command, now: Instant) {
        let signs = match &command {
            Command::Leave | Command::TokenRevoke { .. } => true,
            Command::TokenCreate { reusable, .. } => *reusable,
            Command::Attach { .. }
            | Command::Connect { .. }
            | Command::Detach { .. }
            | Command::Forget { .. }
            | Command::Ping { .. }
            | Command::Retry
            | Command::Trace { .. } => false,
        };
        let done = if signs && self.reach.mesh.own_log.is_waiting() {
            let log = &mut self.reach.mesh.own_log;
            log.put_off(Waiting::Command(id, command))
                .map_err(|_| too_early())
        } else {
            self.act(id, command, now)
        };
        if let Err(problem) = done {
            self.reach.ground.reply(id, Reply::Failed(problem));
        }
    }

    fn act(&mut self, id: RequestId, command: Command, now: Instant) -> Result<(), Problem> {
        let Self { reach, parts } = self;
        match command {
            Command::Attach {
                mac,
                addresses,
                port,
            } => {
                let attached = Attached {
                    mac,
                    addresses,
                    port,
                    metadata: None,
                };
                parts.endpoints.attach(id, attached, reach)
            }
            Command::Connect { targets } => {
                reach.ground.connect(id, targets, now);
                Ok(())
            }
            Command::Detach { mac } => {
                parts.endpoints.detach(id, mac, reach);
                Ok(())
            }
            Command::Forget { targets } => reach.ground.forget(id, &targets),
            Command::Leave => reach
                .append_and_tell(Record::Leave, Vec::new(), id, Reply::Done)
                .map(|_| ()),
            Command::Ping { node } => {
                parts.pings.begin(id, node, reach, now)?;
                // A way that is asked about is probed, as one that frames take.
                parts.ways.handle_input(node, OverlayInput::Traffic, now);
                parts.sessions.expect(node, reach, now);
                Ok(())
            }
            Command::Retry => {
                reach.ground.retry(id, now);
                Ok(())
            }
            Command::Trace { node } => {
                if !parts.ways.knows(node) {
                    return Err(reach.mesh.not_reachable(node));
                }
                parts.ways.handle_input(node, OverlayInput::Traffic, now);
                let way = parts.ways.own_way(node).way;
                parts.traces.begin(id, node, way, reach, now)
            }
            Command::TokenCreate { reusable, ttl } => {
                parts.tokens.create(id, (reusable, ttl), reach, now)
            }
            Command::TokenRevoke { token } => parts.tokens.revoke(id, token, reach, now),
        }
    }

    fn saved(&mut self, ticket: Ticket, now: Instant) {
        let Self { reach, parts } = self;
        match reach.ground.saved(ticket) {
            Some(Part::Addresses) => parts.addresses.handle_saved(ticket, Ok(()), reach),
            Some(Part::Admission) => self.admitted(ticket, now),
            Some(Part::Arrival) => self.arrived(ticket, now),
            Some(Part::Clones) => {
                if let Some(boot) = reach.ground.stepped(ticket) {
                    self.step_to(boot, now);
                }
            }
            Some(Part::Endpoints) => parts.endpoints.handle_saved(ticket, Ok(()), reach),
            Some(Part::OwnLog) => {
                parts.tokens.handle_saved(ticket, now);
                if let Some((delta, reply)) = reach.mesh.own_log.told(ticket) {
                    self.announce(&delta, now);
                    if let Some((id, reply)) = reply {
                        self.reach.ground.reply(id, reply);
                    }
                }
            }
            Some(Part::Tokens) => parts.tokens.handle_saved(ticket, now),
            None => {}
        }
    }

    fn save_failed(&mut self, ticket: Ticket, problem: Problem, now: Instant) {
        let Self { reach, parts } = self;
        match reach.ground.save_failed(ticket, &problem, now) {
            Some(Part::Addresses) => {
                parts
                    .addresses
                    .handle_saved(ticket, Err(problem.code), reach);
            }
            Some(Part::Admission) => {
                if let Some(conn) = parts.admission.handle_saved(ticket) {
                    reach.ground.refuse(conn, problem.code);
                }
            }
            Some(Part::Endpoints) => parts.endpoints.handle_saved(ticket, Err(problem), reach),
            Some(Part::OwnLog) => {
                parts.tokens.handle_not_saved(ticket, reach);
                if let Some((id, _)) = reach.mesh.own_log.not_told(ticket) {
                    reach.ground.reply(id, Reply::Failed(problem));
                }
            }
            Some(Part::Tokens) => parts.tokens.handle_not_saved(ticket, reach),
            // Without a boot counter or a membership on disk there is nothing to run on.
            Some(Part::Arrival | Part::Clones) => reach.ground.halt(problem),
            None => {}
        }
    }
}

/// How nodes get in: others, and ourselves.
impl Step<'_> {
    /// A node came with a token.
    fn admit(&mut self, conn: ConnId, token: TokenId, now: Instant) {
        let Self { reach, parts } = self;
        let Some(node) = reach.ground.other(conn).map(|other| other.node) else {
            return;
        };
        // A node that is in already comes again because its welcome was lost: the token is asked only whether it is its.
        let verdict = match reach.mesh.membership.standing(node) {
            Standing::Gone(_) => Err(Code::NotAMember),
            Standing::Member | Standing::Unknown => parts
                .tokens
                .check(token, node, now)
                .map_err(|refusal| refusal.code()),
        };
        if let Err(code) = verdict {
            return reach.ground.refuse(conn, code);
        }
        reach.ground.tell_authenticated(conn);
        parts.admission.supersede(conn, node, reach);
        if reach.mesh.own_log.is_waiting() {
            match reach.mesh.own_log.put_off(Waiting::Admission(conn)) {
                Ok(()) => parts.admission.put_off(conn, reach, now),
                Err(_) => reach.ground.refuse(conn, Code::CreatorUnreachable),
            }
            return;
        }
        let Some(wish) = parts.admission.begin(conn, reach, now) else {
            return;
        };
        if !parts.addresses.is_here() {
            return parts.admission.ask(conn, reach, now);
        }
        let taken = reach.mesh.addresses_in_use();
        let assigned = parts.addresses.assign(wish.node, wish.wanted, &taken);
        self.sign(conn, assigned, now);
    }

    /// An address was found, or not: spends the token and signs the Admit, in one save.
    fn sign(
        &mut self,
        conn: ConnId,
        assigned: Result<(Vec<ipnet::IpNet>, Option<Change>), Code>,
        now: Instant,
    ) {
        let Self { reach, parts } = self;
        let Some(other) = reach.ground.other(conn) else {
            return;
        };
        let (node, crate::wire::preface::Repr::Token(token)) = (other.node, other.asked) else {
            return;
        };
        let signed = assigned.and_then(|(addresses, change)| {
            // Others may have come in while the creator was asked.
            if reach.mesh.is_full_for(node) {
                return Err(Code::MeshFull);
            }
            let spent = parts.tokens.redeem(token, node, now);
            let spent = spent.map_err(|refusal| refusal.code())?;
            let changes = change.into_iter().chain(spent).collect();
            let grant = (token, addresses);
            parts.admission.sign(conn, grant, changes, reach, now);
            Ok(())
        });
        if let Err(code) = signed {
            reach.ground.refuse(conn, code);
        }
    }

    /// An admission is durable: tell everybody, and the joiner, if it is there still.
    fn admitted(&mut self, ticket: Ticket, now: Instant) {
        if let Some(untold) = self.reach.mesh.own_log.untold.remove(&ticket) {
            self.announce(&MembershipDelta::new(vec![untold]), now);
        }
        if let Some(conn) = self.parts.admission.handle_saved(ticket) {
            self.welcome(conn, now);
        }
    }

    /// Tells a joiner everything it needs, then treats it as the member that it is.
    fn welcome(&mut self, conn: ConnId, now: Instant) {
        let Self { reach, parts } = self;
        if !reach.ground.is_open(conn) {
            return;
        }
        let message = ControlMessage::Welcome(Box::new(Welcome {
            logs: reach.mesh.membership.snapshot(),
            door_keys: parts.tokens.door_keys().collect(),
            tokens: parts.tokens.shared(now),
            records: reach.mesh.node_records().collect(),
        }));
        reach.ground.tell(conn, &message);
        self.link_up(conn, now);
    }

    /// Our own admission is durable, or our boot: we are in.
    fn arrived(&mut self, ticket: Ticket, now: Instant) {
        let arrival = self.parts.arrival.take_if(|it| it.ticket == ticket);
        let Some(arrival) = arrival else { return };
        let ground = &mut *self.reach.ground;
        let conn = arrival.conn;
        let introducer = ground.other(conn).map(|other| other.node);
        // The issuer may be the one that we came in by, under another name: what its target has dialled is a link by now,
        // and stays when the target goes.
        if let Some(node) = introducer.filter(|_| ground.is_open(conn)) {
            ground.dialer.handle_linked(node, Some(conn));
        }
        for target in &arrival.issuer {
            ground.dialer.remove_target(target);
        }
        self.reach.mesh.registers.merge(arrival.records, now);
        ground.end_rivals(conn, introducer, now);
        self.begin(now);
        if self.reach.ground.is_open(conn) {
            self.link_up(conn, now);
            self.reach.ground.replay_early(conn);
        } else if let Some(node) = introducer {
            // It has ended meanwhile, and its rivals with it.
            self.reach.ground.dialer.handle_lost(node, now);
        }
    }

    /// What a member does first, after a start or a join.
    pub(crate) fn begin(&mut self, now: Instant) {
        let Reach { ground, mesh } = &mut self.reach;
        // Whoever has a name keeps it: the one that comes to it, by a join or a start, takes another.
        ground.settings.nickname = mesh.free_name(&ground.settings.nickname, mesh.ourself);
        self.new_run(now);
        self.say_all();
        let genesis = self.reach.mesh.genesis.genesis();
        let event = Event::Joined {
            mesh: genesis.name.clone(),
            addresses: self.reach.mesh.own_addresses(),
            mtu: genesis.mtu,
        };
        self.reach.ground.event(event);
    }

    /// A new run begins: everything that we say is said anew, under its number.
    fn new_run(&mut self, now: Instant) {
        let boot = self.reach.ground.boot;
        self.reach.mesh.registers.set_boot(boot);
        self.reach.mesh.mail.set_boot(boot);
        self.say_all();
        self.refresh(now);
    }

    fn say_all(&mut self) {
        self.reach.mesh.dirty = Dirty::EVERYTHING;
        self.parts.endpoints.say_all();
    }

    /// A later boot is durable. To everybody else it is a restart: what they agreed on with the last run is void, so it is
    /// void here too, and every connection is made anew.
    fn step_to(&mut self, boot: Boot, now: Instant) {
        let Self { reach, parts } = self;
        let linked: Vec<NodeId> = reach.mesh.links.keys().copied().collect();
        for node in linked {
            reach.link_down(node, "this node steps past an earlier run of itself", now);
        }
        for conn in reach.ground.open_conns(|_| true) {
            let error = crate::dialer::LetGo::SteppedPast.into();
            reach.ground.give_up(conn, error, now);
        }
        parts.sessions.set_boot(boot, reach);
        reach.ground.boot = boot;
        self.new_run(now);
        self.ask_for_own_log(now);
    }

    /// After a start, or where a copy of our disk is in use: others may know more of our own log than we do.
    pub(crate) fn ask_for_own_log(&mut self, now: Instant) {
        let others = self.reach.mesh.others().next().is_some();
        self.reach.mesh.own_log.ask(others, now);
    }

    /// Our own log may be added to.
    fn own_log_known(&mut self, now: Instant) {
        for waiting in self.reach.mesh.own_log.known() {
            match waiting {
                Waiting::Command(id, command) => self.command(id, command, now),
                Waiting::Admission(conn) => self.admit_at_last(conn, now),
            }
        }
    }

    fn admit_at_last(&mut self, conn: ConnId, now: Instant) {
        let open = self.reach.ground.is_open(conn);
        let other = self.reach.ground.other(conn).filter(|_| open);
        if let Some(crate::wire::preface::Repr::Token(token)) = other.map(|other| other.asked) {
            self.admit(conn, token, now);
        }
    }
}

/// News, and what follows from them.
impl Step<'_> {
    fn news(&mut self, root: NodeId, from: Option<NodeId>, news: Option<News>, now: Instant) {
        match news {
            Some(News::Membership(news)) => {
                let changes = super::ground::mesh::membership_changes(news.records());
                self.reach.ground.save(changes);
                self.reach.spread_membership(root, from, &news, now);
                self.members_changed(now);
            }
            Some(News::Registers(news)) => self.register_news(root, from, news, now),
            None => {}
        }
    }

    /// Records of ours are durable: everybody is told.
    fn announce(&mut self, delta: &MembershipDelta, now: Instant) {
        let ourself = self.reach.mesh.ourself;
        self.reach.spread_membership(ourself, None, delta, now);
        self.members_changed(now);
        let unshared = self.parts.tokens.take_unshared(now);
        let links = self.reach.mesh.links.values();
        for conn in links.map(|link| link.conn).collect::<Vec<_>>() {
            for token in &unshared {
                let secret = ControlMessage::TokenSecret(token.clone());
                self.reach.ground.tell(conn, &secret);
            }
        }
    }

    /// Whatever follows from who is a member is made anew.
    fn members_changed(&mut self, now: Instant) {
        let Self { reach, parts } = self;
        let admitted = parts.handle_membership(reach.mesh, now);
        let links = reach.mesh.links.keys().copied();
        let gone: Vec<NodeId> = links.filter(|&node| reach.mesh.is_gone(node)).collect();
        let ourself = reach.mesh.ourself;
        self.register_news(ourself, None, admitted, now);
        for node in gone {
            self.reach.link_down(node, "it left the mesh", now);
        }
        for conn in self.reach.proved() {
            self.link_up(conn, now);
        }
    }

    /// What owners say has changed: it is passed on, and looked at where it matters.
    fn register_news(
        &mut self,
        root: NodeId,
        from: Option<NodeId>,
        news: Option<RegisterDelta>,
        now: Instant,
    ) {
        let Self { reach, parts } = self;
        while let Some(finding) = reach.mesh.registers.poll_finding() {
            match finding {
                Finding::Superseded { by } => reach.ground.meet_ourself(by, now),
                finding @ (Finding::Clone { .. } | Finding::Equivocation { .. }) => {
                    reach.report(finding)
                }
            }
        }
        let Some(news) = news else { return };
        let changes = reach.mesh.peer_changes(&news);
        reach.ground.save_if_any(changes);
        for register in news.iter().map(|it| it.register()) {
            let Some(row) = channels::row(register.channel) else {
                continue;
            };
            reach.mesh.dirty.forwarding |= row.forwards;
            match row.reader {
                Reader::Endpoints => parts.endpoints.handle_news(register.owner),
                // It reads all registers anew when something bears on forwarding.
                Reader::Topology | Reader::Nobody => {}
            }
        }
        reach.spread_registers(root, from, &news, now);
    }

    /// A peer's endpoints came with its handshake, ahead of its first frame.
    fn registers_came_along(&mut self, peer: NodeId, registers: &[Vec<u8>], now: Instant) {
        let signed = registers.iter().filter_map(|it| Signed::decode(it).ok());
        let registers = signed.filter_map(|signed| SignedRegister::new(signed).ok());
        let its = |it: &SignedRegister| {
            let register = it.register();
            register.owner == peer && channels::comes_along(register.channel)
        };
        let delta: RegisterDelta = registers.filter(its).map(std::sync::Arc::new).collect();
        let news = self.reach.mesh.registers.merge(delta, now);
        self.register_news(self.reach.mesh.ourself, Some(peer), news, now);
    }

    /// Makes anew what has changed: our registers, the topology, the snapshot.
    fn refresh(&mut self, now: Instant) {
        let Self { reach, parts } = self;
        let dirty = std::mem::take(&mut reach.mesh.dirty);
        let said = parts.presence.write(dirty, reach, now);
        let said = said.into_iter().chain(parts.endpoints.write(reach));
        let mut news = RegisterDelta::default();
        for delta in said {
            weft_types::Delta::absorb(&mut news, delta);
        }
        reach.mesh.dirty.forwarding |= dirty.forwarding;
        if !weft_types::Delta::is_empty(&news) {
            let ourself = reach.mesh.ourself;
            self.register_news(ourself, None, Some(news), now);
        }
        if std::mem::take(&mut self.reach.mesh.dirty.forwarding) {
            self.reforward(now);
        }
    }

    /// Looks at the mesh anew and tells the data plane, the dialer and the sessions what is different.
    fn reforward(&mut self, now: Instant) {
        // A pair that talks straight does not part with whoever brought it together.
        let held = self.parts.ways.held();
        self.reach.mesh.topology.hold(held);
        let (changes, admitted) = self.reach.mesh.look(now);
        if !weft_types::Delta::is_empty(&admitted) {
            let ourself = self.reach.mesh.ourself;
            self.register_news(ourself, None, Some(admitted), now);
            // What they bear on is made here.
            self.reach.mesh.dirty.forwarding = false;
        }
        let Self { reach, parts } = self;
        let sessions = &parts.sessions;
        parts.ways.feed(|node| sessions.is_up(node), reach, now);
        let before = reach.mesh.forwarded();
        let endpoints = parts.endpoints.unite(reach.mesh);
        let members = reach.mesh.dialable();
        let removed = parts.roster.handle_membership(reach);
        for &node in &removed {
            parts.transit.forget(node);
        }
        reach.forward_to(endpoints, |node| parts.ways.path(node));
        reach.ground.dialer.set_members(&members, now);
        for change in changes {
            if let TopologyChange::Restarted(node) = change
                && let Some(boot) = reach.mesh.topology.boot(node)
            {
                parts.sessions.peer_restarted(node, boot, reach);
            }
        }
        let present = reach.mesh.forwarded();
        for &gone in before.difference(&present) {
            parts.sessions.peer_gone(gone, reach);
        }
        for &back in present.difference(&before) {
            parts.sessions.peer_back(back, reach, now);
        }
        for &node in &removed {
            parts.sessions.peer_removed(node, reach);
        }
        let forget = |node: NodeId| Change::Delete {
            table: Table::Peers,
            key: node.as_bytes().to_vec(),
        };
        reach
            .ground
            .save_if_any(removed.into_iter().map(forget).collect());
    }
}

impl Parts {
    /// What the parts make of who is a member. Gives registers that waited for their owner's admission.
    pub(crate) fn handle_membership(
        &mut self,
        mesh: &mut Mesh,
        now: Instant,
    ) -> Option<RegisterDelta> {
        let members = mesh.membership.members().map(|member| member.node);
        let admitted = mesh.registers.set_members(members);
        self.addresses.handle_membership(&mesh.membership);
        self.endpoints.handle_membership(mesh);
        self.tokens.handle_membership(&mesh.membership, now);
        let membership = &mesh.membership;
        mesh.offences
            .retain(|node| membership.member(node).is_some());
        mesh.dirty.forwarding = true;
        admitted
    }
}
