//! News of membership and registers: taken in, saved, acted upon, and passed on to whom the routes say.
//!
//! What came from a neighbour goes on down the tree of whoever began its broadcast; what a neighbour lacks is found by
//! comparing digests. One who must prove that it is a member exchanges membership, and nothing else.
//!
//! **Invariant.** After a start our own log is not added to before a member has told how far it goes, or nobody does.
//! **Failure policy.** A bad payload costs that payload: it is counted.

use std::time::{Duration, Instant};

use weft_types::{Code, NodeId, Replica};

use super::Router;
use super::conns::Stage;
use super::links::Link;
use crate::gossip::exchange::{
    DeltaMessage, DigestMessage, Exchange, GossipMessage, MAX_MESSAGE, SummaryMessage, Topic,
};
use crate::gossip::registers::{Finding, RegisterDelta};
use crate::gossip::{Gossiped, Piece};
use crate::io::{ConnId, Event, Output};
use crate::membership::{MembershipDelta, TokenSecret};
use crate::store::Change;
use crate::wire::control::ControlMessage;
use crate::wire::preface::Repr;

/// How long an admission that is put off may take: longer than a member's word is waited for.
const PUT_OFF: Duration = Duration::from_secs(5);

impl Router {
    /// Gives every link with room the next thing that it is owed.
    pub(super) fn feed_links(&mut self, now: Instant) {
        let Some(mesh) = &mut self.mesh else { return };
        let mut messages: Vec<(ConnId, GossipMessage)> = Vec::new();
        for link in mesh.links.values_mut() {
            let Some(conn) = self.conns.get(&link.conn) else {
                continue;
            };
            let mut room = MAX_MESSAGE.saturating_sub(conn.unsent);
            while room > 0 {
                let next = link.membership.poll_message(&mesh.membership);
                let Some(message) = next.or_else(|| link.registers.poll_message(&mesh.registers))
                else {
                    break;
                };
                room = room.saturating_sub(size_of_message(&message));
                messages.push((link.conn, message));
            }
        }
        for (&id, conn) in &mut self.conns {
            if let Some(proof) = &mut conn.proof {
                while let Some(message) = proof.poll_message(&mesh.membership) {
                    messages.push((id, message));
                }
            }
        }
        for (conn, message) in messages {
            self.tell(conn, &message.into(), now);
        }
    }

    pub(super) fn digest(
        &mut self,
        conn: ConnId,
        node: NodeId,
        digest: &DigestMessage,
        now: Instant,
    ) {
        let Some(mesh) = &mut self.mesh else { return };
        let link = mesh.links.get_mut(&node).filter(|link| link.conn == conn);
        match (digest.topic, link) {
            (Topic::Membership, Some(link)) => {
                link.membership
                    .handle_digest(digest, &mesh.membership, &mut *self.crypto, now);
            }
            (Topic::Registers, Some(link)) => {
                link.registers
                    .handle_digest(digest, &mesh.registers, &mut *self.crypto, now);
            }
            (Topic::Membership, None) => {
                if let Some(proof) = self
                    .conns
                    .get_mut(&conn)
                    .and_then(|conn| conn.proof.as_mut())
                {
                    proof.handle_digest(digest, &mesh.membership, &mut *self.crypto, now);
                }
            }
            (Topic::Registers, None) => {}
        }
    }

    pub(super) fn summary(
        &mut self,
        conn: ConnId,
        node: NodeId,
        summary: &SummaryMessage,
        now: Instant,
    ) {
        let ourself = self.node();
        let Some(mesh) = &mut self.mesh else { return };
        let link = mesh.links.get_mut(&node).filter(|link| link.conn == conn);
        let told = summary.topic == Topic::Membership
            && mesh.own_log.until.is_some()
            && mesh.membership.has_all_of(ourself, &summary.summary);
        let done = match (summary.topic, link) {
            (Topic::Membership, Some(link)) => {
                link.membership.handle_summary(summary, &mesh.membership)
            }
            (Topic::Registers, Some(link)) => {
                link.registers.handle_summary(summary, &mesh.registers)
            }
            (Topic::Membership, None) => {
                match self
                    .conns
                    .get_mut(&conn)
                    .and_then(|conn| conn.proof.as_mut())
                {
                    Some(proof) => proof.handle_summary(summary, &mesh.membership),
                    None => Ok(()),
                }
            }
            (Topic::Registers, None) => Ok(()),
        };
        if done.is_err() {
            mesh.bad_payloads += 1;
        }
        if told {
            self.own_log_known(now);
        }
    }

    pub(super) fn delta(&mut self, node: NodeId, message: &DeltaMessage, now: Instant) {
        let root = message.root.unwrap_or_else(|| self.node());
        let Some(mesh) = &mut self.mesh else { return };
        match message.topic {
            Topic::Membership => match MembershipDelta::decode(&message.delta) {
                Ok(delta) => {
                    if let Some(news) = mesh.membership.merge(delta, now) {
                        self.membership_news(root, Some(node), news, now);
                    }
                }
                Err(_) => mesh.bad_payloads += 1,
            },
            Topic::Registers => match RegisterDelta::decode(&message.delta) {
                Ok(delta) => {
                    let news = mesh.registers.merge(delta, now);
                    self.register_news(root, Some(node), news, now);
                }
                Err(_) => mesh.bad_payloads += 1,
            },
        }
    }

    fn membership_news(
        &mut self,
        root: NodeId,
        from: Option<NodeId>,
        news: MembershipDelta,
        now: Instant,
    ) {
        self.save(
            super::mesh::membership_changes(news.records()),
            super::After::Nothing,
        );
        self.broadcast(root, from, &news, |link| &mut link.membership, now);
        self.members_changed(now);
    }

    /// Whatever follows from who is a member is made anew.
    pub(super) fn members_changed(&mut self, now: Instant) {
        let ourself = self.node();
        let Some(mesh) = &mut self.mesh else { return };
        let admitted = mesh.members_changed(ourself, now);
        let gone: Vec<NodeId> = mesh
            .links
            .keys()
            .copied()
            .filter(|&node| mesh.is_gone(node))
            .collect();
        self.register_news(ourself, None, admitted, now);
        for node in gone {
            self.link_down(node, "it left the mesh", now);
        }
        self.recheck_proving(now);
    }

    pub(super) fn register_news(
        &mut self,
        root: NodeId,
        from: Option<NodeId>,
        news: Option<RegisterDelta>,
        now: Instant,
    ) {
        let Some(mesh) = &mut self.mesh else { return };
        let mut findings = Vec::new();
        while let Some(finding) = mesh.registers.poll_finding() {
            findings.push(finding);
        }
        for finding in findings {
            self.found(finding, now);
        }
        let Some(news) = news else { return };
        let ourself = self.node();
        let changes: Vec<Change> = super::mesh::peer_changes(&news, ourself).collect();
        if !changes.is_empty() {
            self.save(changes, super::After::Nothing);
        }
        if let Some(mesh) = &mut self.mesh {
            mesh.dirty.snapshot = true;
            let owners = news.iter().map(|register| register.register().owner);
            mesh.unread.extend(owners);
        }
        self.broadcast(root, from, &news, |link| &mut link.registers, now);
    }

    pub(super) fn found(&mut self, finding: Finding, now: Instant) {
        match finding {
            Finding::Clone { owner } if owner == self.node() => {}
            Finding::Clone { owner } => {
                let name = self
                    .mesh
                    .as_ref()
                    .map(|mesh| mesh.name_of(owner))
                    .unwrap_or_default();
                let problem = weft_types::Problem::new(
                    Code::Clone,
                    format!("two machines use the identity of {name}"),
                )
                .fix("On the copy run `weft reset --force`, then join it with a token of its own");
                self.outputs
                    .push_back(Output::Event(Event::Problem(problem)));
            }
            Finding::Equivocation { key } => {
                let name = self
                    .mesh
                    .as_ref()
                    .map(|mesh| mesh.name_of(key.owner))
                    .unwrap_or_default();
                let problem = weft_types::Problem::new(
                    Code::Equivocation,
                    format!("{name} signed two texts under one number"),
                )
                .fix("Its disk was restored from a copy, or it lies: look at it");
                self.outputs
                    .push_back(Output::Event(Event::Problem(problem)));
            }
            Finding::Superseded { by } => self.meet_ourself(by, now),
        }
    }

    /// Passes news on down the tree of whoever began its broadcast; `from` has it already.
    fn broadcast<D: Piece + Clone>(
        &mut self,
        root: NodeId,
        from: Option<NodeId>,
        news: &D,
        exchange: impl Fn(&mut Link) -> &mut Exchange<D>,
        now: Instant,
    ) {
        let ourself = self.node();
        let Some(mesh) = &mut self.mesh else { return };
        let from = from.filter(|_| root != ourself);
        let onward = mesh.topology.routes().pass_on(root, from);
        for (node, link) in &mut mesh.links {
            if onward.contains(node) {
                exchange(link).push(root, news.clone(), now);
            } else {
                exchange(link).note_news(now);
            }
        }
    }

    pub(super) fn announce_membership(&mut self, delta: MembershipDelta, now: Instant) {
        let ourself = self.node();
        self.broadcast(ourself, None, &delta, |link| &mut link.membership, now);
        self.members_changed(now);
        let Some(mesh) = &mut self.mesh else { return };
        let unshared = std::mem::take(&mut mesh.unshared);
        let tokens: Vec<TokenSecret> = mesh
            .shared_tokens(now)
            .into_iter()
            .filter(|token| unshared.contains(&token.id))
            .collect();
        let conns: Vec<ConnId> = mesh.links.values().map(|link| link.conn).collect();
        for conn in conns {
            for token in &tokens {
                self.tell(conn, &ControlMessage::TokenSecret(token.clone()), now);
            }
        }
    }

    pub(super) fn announce_fresh_records(&mut self, now: Instant) {
        let fresh = self
            .mesh
            .as_mut()
            .map(|mesh| std::mem::take(&mut mesh.fresh_records))
            .unwrap_or_default();
        if !fresh.is_empty() {
            self.announce_membership(MembershipDelta::new(fresh), now);
        }
    }

    /// Exchanges membership, and nothing else, with one whose link is not made yet.
    pub(super) fn begin_proof(&mut self, conn: ConnId, now: Instant) {
        let ourself = self.node();
        if let Some(open) = self.conns.get_mut(&conn)
            && let Some(other) = &open.other
        {
            open.proof = Some(Exchange::new(Topic::Membership, ourself, other.node, now));
        }
    }

    /// Shows what we know to one who must prove that it belongs, so that it sends what we lack.
    pub(super) fn offer_membership(&mut self, conn: ConnId, now: Instant) {
        let Some(mesh) = &self.mesh else { return };
        let summary = SummaryMessage {
            topic: Topic::Membership,
            summary: Gossiped::summary(&mesh.membership),
            answer: false,
        };
        self.tell(conn, &ControlMessage::Summary(summary), now);
    }

    /// Our own log may be added to: a member has told how far it goes, or nobody does.
    pub(super) fn own_log_known(&mut self, now: Instant) {
        let Some(mesh) = &mut self.mesh else { return };
        mesh.own_log.until = None;
        let commands = std::mem::take(&mut mesh.own_log.commands);
        let admissions = std::mem::take(&mut mesh.own_log.admissions);
        for (id, command) in commands {
            self.command(id, command, now);
        }
        for conn in admissions {
            let waiting = self.conns.get(&conn).filter(|conn| !conn.closing);
            let asked = waiting
                .and_then(|conn| conn.other.as_ref())
                .map(|other| other.asked);
            if let Some(Repr::Token(token)) = asked {
                self.admit(conn, token, now);
            }
        }
    }

    /// Puts an admission off until our own log is known; whether it had to be.
    pub(super) fn waits_for_own_log(&mut self, conn: ConnId, now: Instant) -> bool {
        let Some(mesh) = &mut self.mesh else {
            return false;
        };
        if mesh.own_log.until.is_none() {
            return false;
        }
        if mesh.own_log.has_room() {
            mesh.own_log.admissions.push(conn);
            if let Some(open) = self.conns.get_mut(&conn) {
                open.stage = Stage::Admitting {
                    request: None,
                    until: now + PUT_OFF,
                };
            }
        } else {
            self.refuse(conn, Code::CreatorUnreachable, now);
        }
        true
    }
}

fn size_of_message(message: &GossipMessage) -> usize {
    match message {
        GossipMessage::Delta(delta) => delta.delta.len() + 64,
        GossipMessage::Digest(_) => 64,
        GossipMessage::Summary(summary) => summary.summary.len() + 64,
    }
}
