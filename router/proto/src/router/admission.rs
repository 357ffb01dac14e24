//! How nodes get in: what an introducer does with a token, and a joiner with its welcome.
//!
//! ```text
//!   introducer                                       creator
//!   token good? ─ no ─▶ refused
//!      │ yes
//!      ├── address for the node? ───────────────────▶ binds one, durably
//!      ◀─────────────────────────────────────────────
//!   burns the token and signs the Admit, durably in one save
//!      └──▶ Welcome to the joiner, the Admit to all
//! ```
//!
//! **Invariant.** A token is spent and its Admit signed in one save: a crash leaves both or neither, and a retry by the
//! same node finds the Admit. Until the address is known nothing is spent.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weft_types::{Code, NodeId, Outlook, Problem, Replica, TokenId};

use super::conns::{Asked, Conn, Stage};
use super::mesh::{Mesh, membership_changes};
use super::{After, Router};
use crate::dialer::DialError;
use crate::genesis::SignedGenesis;
use crate::gossip::registers::RegisterDelta;
use crate::handshake::HandshakeError;
use crate::io::{ConnId, ConnectError, Output, Target};
use crate::letter::{AddressRequest, Letter};
use crate::membership::{Admit, MembershipDelta, Record, Role, Standing, TokenSecret, Welcome};
use crate::token::Token;
use crate::wire::control::ControlMessage;

/// How long the creator gets for an answer.
const ADDRESS: Duration = Duration::from_secs(3);
/// Between two letters that ask for it.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// How long a save may take before the joiner is told that it failed.
const SAVE: Duration = Duration::from_secs(30);

/// What a joiner holds until it is in.
pub(super) struct Joining {
    pub(super) token: Token,
    pub(super) wanted: Option<IpNet>,
    pub(super) genesis: Option<SignedGenesis>,
    /// Where a single-use token was made, and nobody named: it is good there only, so it is dialled until we are in.
    pub(super) issuer: Vec<Target>,
    /// What the members say of themselves, once we are welcome: nobody is dialled before that is durable.
    records: RegisterDelta,
    /// The one connection that may spend the token. Several may lead to one introducer, by different addresses: two that
    /// were welcomed would each take the other for its duplicate.
    chosen: Option<ConnId>,
    /// Connections that could take its place.
    willing: VecDeque<ConnId>,
}

impl Joining {
    pub(super) fn new(token: Token, wanted: Option<IpNet>, named: &[Target]) -> Self {
        let addresses = token.issuer.iter().flat_map(|issuer| &issuer.addresses);
        let issuer = addresses
            .map(|address| Target(address.to_string()))
            .filter(|target| !named.contains(target))
            .collect();
        Self {
            token,
            wanted,
            genesis: None,
            issuer,
            records: RegisterDelta::default(),
            chosen: None,
            willing: VecDeque::new(),
        }
    }

    /// Whether it matters to a person that a target failed: one that was named, while no other connection is spending the
    /// token.
    pub(super) fn is_worth_telling(&self, target: &Target) -> bool {
        self.chosen.is_none() && !self.issuer.contains(target)
    }

    /// Why a target could not be joined by, in words.
    pub(super) fn explain(
        &self,
        target: &Target,
        address: Option<SocketAddr>,
        error: DialError,
    ) -> Problem {
        let at = address.map_or_else(|| target.0.clone(), |address| address.to_string());
        let problem = |code: Code, what: String| {
            Problem::new(code, what).why(format!("{at}: {}", code.title()))
        };
        match error {
            DialError::NoAddress => {
                problem(Code::NameUnknown, format!("\"{}\" has no address", target.0)).fix("Check the name, or give an IP address")
            }
            DialError::Connect(ConnectError::Refused) => problem(Code::ConnectionRefused, format!("{at} refuses the connection"))
                .fix("Run `weft status` there; if its router uses another port, name it: HOST:PORT"),
            DialError::Connect(ConnectError::TimedOut) => problem(Code::Filtered, format!("{at} does not answer"))
                .fix("Check that the host is up and that its firewall, and those between, let TCP and UDP port 6783 through"),
            DialError::Connect(ConnectError::Unreachable) => {
                problem(Code::NoRoute, format!("there is no route to {at}")).fix("Check the address and this host's routes")
            }
            DialError::Handshake(Some(HandshakeError::Refused(refusal))) => refusal_problem(refusal.code(), &at),
            DialError::Handshake(Some(HandshakeError::TimedOut)) => {
                problem(Code::Filtered, format!("{at} took the connection and then said nothing"))
                    .fix("Check that a weft router is what listens there, and that nothing between holds its answers back")
            }
            DialError::Handshake(
                None
                | Some(
                    HandshakeError::Frame(_)
                    | HandshakeError::Inauthentic
                    | HandshakeError::Malformed
                    | HandshakeError::UnknownDoor,
                ),
            ) => problem(Code::TokenNotAccepted, format!("{at} does not accept this token"))
                .fix("A single-use token is good only at the host that made it; make a new one there: `weft token create`"),
        }
    }

    /// The problem of a refusal that no further attempt can change.
    pub(super) fn final_refusal(&self, code: Code) -> Option<Problem> {
        let last = code.outlook() == Outlook::Never;
        last.then(|| refusal_problem(code, "the other side"))
    }
}

/// A refusal in words.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "few of all codes are refusals; the page of any code says what to do"
)]
fn refusal_problem(code: Code, by: &str) -> Problem {
    let fix = match code {
        Code::TokenUsed | Code::TokenExpired | Code::TokenVoided | Code::TokenNotAccepted => {
            "Make a new token on a member: `weft token create`"
        }
        Code::NotAMember => "Run `weft reset --force` here, then join with a new token",
        Code::Clone => "On the copy run `weft reset --force`, then join it with a token of its own",
        Code::VersionMismatch => "Install the same release of weft on both hosts",
        Code::CreatorUnreachable => {
            "Start the host that created the mesh, then try again; the token is still good"
        }
        Code::AddressInUse | Code::AddressOutsideRange => {
            "Choose another --address, or leave it out"
        }
        Code::RangeExhausted | Code::MeshFull => {
            "Remove nodes that are not needed: `weft leave` on them"
        }
        _ => "See the page of this code",
    };
    Problem::new(code, code.title())
        .why(format!("refused by {by}"))
        .fix(fix)
}

impl Router {
    /// A node came with a token.
    pub(super) fn admit(&mut self, conn: ConnId, token: TokenId, now: Instant) {
        let Some(node) = self
            .conns
            .get(&conn)
            .and_then(|conn| conn.other.as_ref())
            .map(|other| other.node)
        else {
            return;
        };
        let Some(mesh) = &mut self.mesh else {
            return self.close(conn);
        };
        let standing = mesh.membership.standing(node);
        // A node that is in already comes again because its welcome was lost: the token is asked only whether it is its.
        let verdict = match standing {
            Standing::Gone(_) => Err(Code::NotAMember),
            Standing::Member | Standing::Unknown => mesh
                .tokens
                .check(token, node, now)
                .map_err(|refusal| refusal.code()),
        };
        if let Err(code) = verdict {
            return self.refuse(conn, code, now);
        }
        self.tell_authenticated(conn);
        // One attempt of a node at a time: whoever comes again has given the last one up.
        let attempt = |open: &Conn| {
            matches!(open.stage, Stage::Admitting { .. })
                && open.other.as_ref().is_some_and(|other| other.node == node)
        };
        let earlier: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(id, open)| **id != conn && attempt(open))
            .map(|(&id, _)| id)
            .collect();
        for earlier in earlier {
            self.close(earlier);
        }
        if self.waits_for_own_log(conn, now) {
            return;
        }
        let Some(mesh) = &mut self.mesh else { return };
        let standing = mesh.membership.standing(node);
        if standing == Standing::Member {
            // Its Admit may be on its way to the disk: saves are done in order, so an empty one waits for that.
            if let Some(conn) = self.conns.get_mut(&conn) {
                conn.stage = Stage::Admitting {
                    request: None,
                    until: now + SAVE,
                };
            }
            return self.save(Vec::new(), After::Admitted(conn));
        }
        let ourself = self.node();
        let Some(mesh) = &mut self.mesh else { return };
        if mesh.is_full_for(node) {
            return self.refuse(conn, Code::MeshFull, now);
        }
        if !mesh.may_introduce(ourself) {
            return self.refuse(conn, Code::NotAnIntroducer, now);
        }
        self.ask_for_address(conn, node, now);
    }

    fn ask_for_address(&mut self, conn: ConnId, node: NodeId, now: Instant) {
        let Some(other) = self.conns.get(&conn).and_then(|conn| conn.other.as_ref()) else {
            return;
        };
        let wanted = other.wanted.as_ref().and_then(|text| text.parse().ok());
        let Some(mesh) = &mut self.mesh else { return };
        if mesh.addresses.is_some() {
            return match mesh.assign(node, wanted) {
                Ok((addresses, change)) => {
                    self.sign_admission(conn, addresses, change.into_iter().collect(), now)
                }
                Err(code) => self.refuse(conn, code, now),
            };
        }
        mesh.requests += 1;
        let request = mesh.requests;
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.stage = Stage::Admitting {
                request: Some(Asked {
                    request,
                    again_at: now,
                }),
                until: now + ADDRESS,
            };
        }
        if !self.ask_creator(conn, request, now) {
            self.refuse(conn, Code::CreatorUnreachable, now);
        }
    }

    /// Asks the creator for an address, for the first time or again; whether there is a way to it.
    pub(super) fn ask_creator(&mut self, conn: ConnId, request: u64, now: Instant) -> bool {
        let Some(open) = self.conns.get_mut(&conn) else {
            return false;
        };
        if let Stage::Admitting {
            request: Some(asked),
            ..
        } = &mut open.stage
        {
            asked.again_at = now + ASK_AGAIN;
        }
        let (Some(other), Some(mesh)) = (&open.other, &self.mesh) else {
            return false;
        };
        let creator = mesh.genesis.genesis().creator;
        let asked = AddressRequest {
            request,
            node: other.node,
            nickname: other.nickname.clone(),
            wanted: other.wanted.as_ref().and_then(|text| text.parse().ok()),
        };
        self.send_sealed(creator, &Letter::AddressRequest(asked), now)
    }

    /// We are the creator, and an introducer asks.
    pub(super) fn address_requested(&mut self, from: NodeId, asked: &AddressRequest, now: Instant) {
        let Some(mesh) = &mut self.mesh else { return };
        if mesh.addresses.is_none() || !mesh.may_introduce(from) {
            return self.tell_address(from, asked.request, Err(Code::NotAuthorised), now);
        }
        if mesh.is_full_for(asked.node) {
            return self.tell_address(from, asked.request, Err(Code::MeshFull), now);
        }
        match mesh.assign(asked.node, asked.wanted) {
            Err(code) => self.tell_address(from, asked.request, Err(code), now),
            Ok((addresses, change)) => {
                let after = After::AddressBound {
                    to: from,
                    request: asked.request,
                    addresses,
                };
                self.save(change.into_iter().collect(), after);
            }
        }
    }

    /// The creator answered.
    pub(super) fn address_told(
        &mut self,
        request: u64,
        result: Result<Vec<IpNet>, Code>,
        now: Instant,
    ) {
        let waits = |stage: &Stage| matches!(stage, Stage::Admitting { request: Some(asked), .. } if asked.request == request);
        let Some(conn) = self
            .conns
            .iter()
            .find(|(_, conn)| waits(&conn.stage))
            .map(|(&id, _)| id)
        else {
            return;
        };
        match result {
            Ok(addresses) => self.sign_admission(conn, addresses, Vec::new(), now),
            Err(code) => self.refuse(conn, code, now),
        }
    }

    /// Spends the token and signs the Admit, in one save.
    fn sign_admission(
        &mut self,
        conn: ConnId,
        addresses: Vec<IpNet>,
        mut changes: Vec<crate::store::Change>,
        now: Instant,
    ) {
        let Some(joiner) = self.conns.get(&conn).and_then(|conn| conn.other.clone()) else {
            return;
        };
        let crate::wire::preface::Repr::Token(token) = joiner.asked else {
            return;
        };
        let Some(mesh) = &mut self.mesh else { return };
        // Others may have come in while the creator was asked.
        if mesh.is_full_for(joiner.node) {
            return self.refuse(conn, Code::MeshFull, now);
        }
        let spent = match mesh.tokens.redeem(token, joiner.node, now) {
            Ok(_) => mesh.token_change(token, now),
            Err(refusal) => return self.refuse(conn, refusal.code(), now),
        };
        let admit = Admit {
            node: joiner.node,
            noise_key: joiner.cert.key,
            nickname: joiner.nickname,
            addresses,
            role: Role::Introducer,
            token: Some(token),
        };
        let Ok(record) = mesh
            .membership
            .append(Record::Admit(admit), &self.settings.keys)
        else {
            return self.refuse(conn, Code::NotAuthorised, now);
        };
        changes.extend(spent);
        changes.extend(membership_changes(std::slice::from_ref(&record)));
        mesh.fresh_records.push(record);
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.stage = Stage::Admitting {
                request: None,
                until: now + SAVE,
            };
        }
        self.save(changes, After::Admitted(conn));
    }

    /// The admission is durable: tell the joiner everything it needs, then treat it as the member that it is.
    pub(super) fn welcome(&mut self, conn: ConnId, now: Instant) {
        self.announce_fresh_records(now);
        let Some(mesh) = &mut self.mesh else { return };
        let message = ControlMessage::Welcome(Box::new(Welcome {
            logs: mesh.membership.snapshot(),
            door_keys: mesh.door_keys().collect(),
            tokens: mesh.shared_tokens(now),
            records: mesh.node_records().collect(),
        }));
        if self.conns.get(&conn).is_some_and(|conn| !conn.closing) {
            self.tell(conn, &message, now);
            self.link_up(conn, now);
        }
    }

    /// The mesh that our token leads to.
    pub(super) fn genesis_received(&mut self, conn: ConnId, bytes: &[u8], now: Instant) {
        let Some(joining) = &mut self.joining else {
            return self.close(conn);
        };
        match SignedGenesis::decode(bytes) {
            Ok(genesis) if genesis.mesh_id() == joining.token.mesh => {
                let shown = std::sync::Arc::new(genesis.genesis().clone());
                joining.genesis = Some(genesis);
                self.outputs.push_back(Output::CheckGenesis {
                    conn,
                    genesis: shown,
                });
            }
            Ok(_) | Err(_) => self.give_up(
                conn,
                DialError::Handshake(Some(HandshakeError::Malformed)),
                now,
            ),
        }
    }

    /// This machine was compared with the mesh: only now may the token be spent.
    pub(super) fn genesis_checked(
        &mut self,
        conn: ConnId,
        verdict: Result<(), Problem>,
        now: Instant,
    ) {
        match verdict {
            Err(problem) => self.halt(problem),
            Ok(()) => {
                if let Some(joining) = &mut self.joining {
                    joining.willing.push_back(conn);
                }
                self.choose(now);
            }
        }
    }

    /// Lets one connection go on to spend the token, if none does already.
    fn choose(&mut self, now: Instant) {
        while let Some(joining) = self
            .joining
            .as_mut()
            .filter(|joining| joining.chosen.is_none())
        {
            let Some(conn) = joining.willing.pop_front() else {
                return;
            };
            if let Some(channel) = self
                .conns
                .get_mut(&conn)
                .and_then(|conn| conn.channel.as_mut())
            {
                joining.chosen = Some(conn);
                channel.approve();
                self.pump_conn(conn, now);
            }
        }
    }

    /// A connection is over: another one may try the token.
    pub(super) fn unchoose(&mut self, conn: ConnId, now: Instant) {
        let Some(joining) = &mut self.joining else {
            return;
        };
        joining.willing.retain(|&willing| willing != conn);
        if joining.chosen == Some(conn) && self.mesh.is_none() {
            joining.chosen = None;
            self.choose(now);
        }
    }

    /// Our welcome came: make it durable before anything is built on it.
    pub(super) fn welcomed(&mut self, conn: ConnId, welcome: Welcome, now: Instant) {
        if self.mesh.is_some() {
            return;
        }
        let Some(genesis) = self
            .joining
            .as_ref()
            .and_then(|joining| joining.genesis.clone())
        else {
            return;
        };
        let mut mesh = Mesh::new(&self.settings, self.boot, genesis);
        let records = welcome.logs.records().to_vec();
        mesh.membership
            .merge(MembershipDelta::new(records.clone()), now);
        if mesh.membership.member(self.node()).is_none() {
            return self.give_up(
                conn,
                DialError::Handshake(Some(HandshakeError::Malformed)),
                now,
            );
        }
        let mut changes = vec![super::start::genesis_change(&mesh.genesis)];
        changes.extend(membership_changes(&records));
        changes.extend(
            welcome
                .door_keys
                .into_iter()
                .map(|door| mesh.add_door_key(door)),
        );
        for TokenSecret {
            id,
            secret,
            remaining,
        } in welcome.tokens
        {
            changes.extend(mesh.receive_token(id, secret, remaining, now));
        }
        mesh.members_changed(self.node(), now);
        let records = mesh.sift_records(welcome.records);
        changes.extend(super::mesh::peer_changes(&records, self.node()));
        if let Some(joining) = &mut self.joining {
            joining.records = records;
        }
        self.mesh = Some(mesh);
        self.save(changes, After::Joined(conn));
    }

    /// We are in, durably.
    pub(super) fn joined(&mut self, conn: ConnId, now: Instant) {
        // The issuer is a member like others from here on: its record says where to dial it.
        if let Some(joining) = self.joining.take() {
            for target in &joining.issuer {
                self.dialer.remove_target(target);
            }
            if let Some(mesh) = &mut self.mesh {
                mesh.registers.merge(joining.records, now);
            }
        }
        // Other ways to the same introducer are duplicates, those to others are dialled again as a member.
        let chosen = self
            .conns
            .get(&conn)
            .and_then(|conn| conn.other.as_ref())
            .map(|other| other.node);
        let rivals = self
            .conns
            .iter()
            .filter(|(id, rival)| **id != conn && matches!(rival.stage, Stage::Joining { .. }));
        let rivals: Vec<(ConnId, Option<NodeId>)> = rivals
            .map(|(&id, rival)| (id, rival.other.as_ref().map(|other| other.node)))
            .collect();
        for (id, node) in rivals {
            if let Some(node) = node.filter(|_| node == chosen) {
                self.dialer.handle_linked(node, Some(id));
                self.close(id);
            } else {
                self.give_up(id, DialError::Handshake(None), now);
            }
        }
        self.begin_as_member(now);
        if self.conns.get(&conn).is_some_and(|conn| !conn.closing) {
            self.link_up(conn, now);
            self.replay_early(conn, now);
        } else if let Some(node) = chosen {
            // It has ended meanwhile, and its rivals with it.
            self.dialer.handle_lost(node, now);
        }
    }
}
