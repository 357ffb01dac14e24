//! News of membership and registers: what is owed to neighbours and what they lack, passed on to whom the routes say.
//!
//! What came from a neighbour goes on down the tree of whoever began its broadcast; what a neighbour lacks is found by
//! comparing digests. One who must prove that it is a member exchanges membership, and nothing else.
//!
//! **Failure policy.** A bad payload costs that payload: it is counted.

use std::time::Instant;

use weft_types::{Code, NodeId, Problem, Replica};

use super::Reach;
use super::link::Link;
use super::mesh::Mesh;
use super::offences::Offence;
use crate::control::ControlMessage;
use crate::gossip::exchange::{
    DeltaMessage, DigestMessage, Exchange, GossipMessage, MAX_MESSAGE, SummaryMessage, Topic,
};
use crate::gossip::registers::{Finding, RegisterDelta};
use crate::gossip::{Gossiped, Piece};
use crate::io::{ConnId, Event};
use crate::membership::MembershipDelta;

/// What of a message was news.
pub(crate) enum News {
    Membership(MembershipDelta),
    /// `None` where only findings are to be looked at.
    Registers(Option<RegisterDelta>),
}

impl Reach<'_> {
    /// Gives every link with room the next thing that it is owed.
    pub(crate) fn feed_links(&mut self) {
        let mut messages: Vec<(ConnId, GossipMessage)> = Vec::new();
        for link in self.mesh.links.values_mut() {
            let Some(conn) = self.ground.conns.get(&link.conn) else {
                continue;
            };
            let mut room = MAX_MESSAGE.saturating_sub(conn.unsent);
            while room > 0 {
                let next = link.membership.poll_message(&self.mesh.membership);
                let Some(message) =
                    next.or_else(|| link.registers.poll_message(&self.mesh.registers))
                else {
                    break;
                };
                room = room.saturating_sub(size_of_message(&message));
                messages.push((link.conn, message));
            }
        }
        for (&id, conn) in &mut self.ground.conns {
            if let Some(proof) = &mut conn.proof {
                while let Some(message) = proof.poll_message(&self.mesh.membership) {
                    messages.push((id, message));
                }
            }
        }
        for (conn, message) in messages {
            self.ground.tell(conn, &message.into());
        }
    }

    /// A neighbour says in short what it has.
    pub(crate) fn digest(
        &mut self,
        conn: ConnId,
        node: NodeId,
        digest: &DigestMessage,
        now: Instant,
    ) {
        let crypto = &mut *self.ground.crypto;
        let links = &mut self.mesh.links;
        let link = links.get_mut(&node).filter(|link| link.conn == conn);
        match (digest.topic, link) {
            (Topic::Membership, Some(link)) => {
                let membership = &self.mesh.membership;
                link.membership
                    .handle_digest(digest, membership, crypto, now);
            }
            (Topic::Registers, Some(link)) => {
                let registers = &self.mesh.registers;
                link.registers.handle_digest(digest, registers, crypto, now);
            }
            (Topic::Membership, None) => {
                let conn = self.ground.conns.get_mut(&conn);
                if let Some(proof) = conn.and_then(|conn| conn.proof.as_mut()) {
                    proof.handle_digest(digest, &self.mesh.membership, crypto, now);
                }
            }
            (Topic::Registers, None) => {}
        }
    }

    /// A neighbour says in full what it has. Whether it tells that nothing is missing of our own log.
    pub(crate) fn summary(&mut self, conn: ConnId, node: NodeId, summary: &SummaryMessage) -> bool {
        let (mesh, ground) = (&mut *self.mesh, &mut *self.ground);
        let told = summary.topic == Topic::Membership
            && mesh.own_log.is_waiting()
            && mesh.membership.has_all_of(mesh.ourself, &summary.summary);
        let link = mesh.links.get_mut(&node).filter(|link| link.conn == conn);
        let done = match (summary.topic, link) {
            (Topic::Membership, Some(link)) => {
                link.membership.handle_summary(summary, &mesh.membership)
            }
            (Topic::Registers, Some(link)) => {
                link.registers.handle_summary(summary, &mesh.registers)
            }
            (Topic::Membership, None) => {
                let conn = ground.conns.get_mut(&conn);
                match conn.and_then(|conn| conn.proof.as_mut()) {
                    Some(proof) => proof.handle_summary(summary, &mesh.membership),
                    None => Ok(()),
                }
            }
            (Topic::Registers, None) => Ok(()),
        };
        if done.is_err() {
            mesh.bad_payloads += 1;
        }
        told
    }

    /// A neighbour tells: gives what was news.
    pub(crate) fn delta(
        &mut self,
        from: NodeId,
        message: &DeltaMessage,
        now: Instant,
    ) -> Option<News> {
        let mesh = &mut *self.mesh;
        let rejected = |mesh: &Mesh| mesh.membership.rejected() + mesh.registers.rejected();
        let before = rejected(mesh);
        let news = match message.topic {
            Topic::Membership => MembershipDelta::decode(&message.delta)
                .map(|delta| mesh.membership.merge(delta, now).map(News::Membership)),
            Topic::Registers => RegisterDelta::decode(&message.delta)
                .map(|delta| Some(News::Registers(mesh.registers.merge(delta, now)))),
        };
        let forged = rejected(mesh) - before;
        mesh.offences.note(from, forged, Offence::Forged, now);
        if news.is_err() {
            mesh.note_unreadable(Some(from), now);
        }
        news.ok().flatten()
    }

    /// Passes news of the membership on; `from` has it already.
    pub(crate) fn spread_membership(
        &mut self,
        root: NodeId,
        from: Option<NodeId>,
        news: &MembershipDelta,
        now: Instant,
    ) {
        self.broadcast(root, from, news, |link| &mut link.membership, now);
    }

    /// Passes registers on; `from` has them already.
    pub(crate) fn spread_registers(
        &mut self,
        root: NodeId,
        from: Option<NodeId>,
        news: &RegisterDelta,
        now: Instant,
    ) {
        self.broadcast(root, from, news, |link| &mut link.registers, now);
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
        let from = from.filter(|_| root != self.mesh.ourself);
        let onward = self.mesh.topology.routes().pass_on(root, from);
        for (node, link) in &mut self.mesh.links {
            if onward.contains(node) {
                exchange(link).push(root, news.clone(), now);
            } else {
                exchange(link).note_news(now);
            }
        }
    }

    /// Says what a register shows about its owner.
    pub(crate) fn report(&mut self, finding: Finding) {
        let problem = match finding {
            Finding::Clone { owner } if owner == self.mesh.ourself => return,
            Finding::Clone { owner } => {
                let name = self.mesh.name_of(owner);
                Problem::new(
                    Code::Clone,
                    format!("two machines use the identity of {name}"),
                )
                .fix("On the copy run `weft reset --force`, then join it with a token of its own")
            }
            Finding::Equivocation { key } => {
                let name = self.mesh.name_of(key.owner);
                Problem::new(
                    Code::Equivocation,
                    format!("{name} signed two texts under one number"),
                )
                .fix("Its disk was restored from a copy, or it lies: look at it")
            }
            // Of ourself: what follows is for whoever knows of earlier runs.
            Finding::Superseded { .. } => return,
        };
        self.ground.event(Event::Problem(problem));
    }

    /// Exchanges membership, and nothing else, with one whose link is not made yet.
    pub(crate) fn begin_proof(&mut self, conn: ConnId, now: Instant) {
        let ourself = self.mesh.ourself;
        if let Some(open) = self.ground.conns.get_mut(&conn)
            && let Some(node) = open.node()
        {
            open.proof = Some(Exchange::new(Topic::Membership, ourself, node, now));
        }
    }

    /// Shows what we know to one who must prove that it belongs, so that it sends what we lack.
    pub(crate) fn offer_membership(&mut self, conn: ConnId) {
        let summary = SummaryMessage {
            topic: Topic::Membership,
            summary: Gossiped::summary(&self.mesh.membership),
            answer: false,
        };
        self.ground.tell(conn, &ControlMessage::Summary(summary));
    }
}

fn size_of_message(message: &GossipMessage) -> usize {
    match message {
        GossipMessage::Delta(delta) => delta.delta.len() + 64,
        GossipMessage::Digest(_) => 64,
        GossipMessage::Summary(summary) => summary.summary.len() + 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Record;
    use crate::router::testing::Fixture;
    use weft_types::TokenId;

    const BY: NodeId = NodeId::new([7; 32]);

    fn delta(topic: Topic, delta: Vec<u8>) -> DeltaMessage {
        DeltaMessage {
            topic,
            root: None,
            delta,
        }
    }

    #[test]
    fn a_payload_that_cannot_be_read_costs_that_payload() {
        let mut fixture = Fixture::new();
        let now = fixture.now;

        for topic in [Topic::Membership, Topic::Registers] {
            let broken = delta(topic, b"no delta".to_vec());
            assert!(fixture.reach().delta(BY, &broken, now).is_none());
        }

        assert_eq!(fixture.mesh.bad_payloads, 2);
    }

    #[test]
    fn a_summary_that_cannot_be_read_costs_that_summary() {
        let mut fixture = Fixture::new();
        let (node, conn) = fixture.link_to("b", &[]);

        for topic in [Topic::Membership, Topic::Registers] {
            let broken = SummaryMessage {
                topic,
                summary: b"no summary".to_vec(),
                answer: false,
            };
            assert!(!fixture.reach().summary(conn, node, &broken));
        }

        assert_eq!(fixture.mesh.bad_payloads, 2);
    }

    #[test]
    fn what_is_known_is_no_news() {
        let mut fixture = Fixture::new();
        let now = fixture.now;
        let record = Record::Void(TokenId::new([7; 16]));
        let signed = fixture.reach().append(record).expect("a member may");
        let known = MembershipDelta::new(vec![signed]).encode();

        let news = fixture
            .reach()
            .delta(BY, &delta(Topic::Membership, known), now);

        assert!(news.is_none());
        assert_eq!(fixture.mesh.bad_payloads, 0);
    }

    #[test]
    fn a_clone_of_another_is_told_of_and_one_of_ourselves_is_not() {
        let mut fixture = Fixture::new();
        let (owner, ourself) = (fixture.admit("b"), fixture.mesh.ourself);

        fixture.reach().report(Finding::Clone { owner: ourself });
        let own = fixture.events();
        fixture.reach().report(Finding::Clone { owner });

        assert_eq!(own, []);
        let events = fixture.events();
        assert!(
            matches!(events.as_slice(), [Event::Problem(problem)] if problem.code == Code::Clone),
            "{events:?}"
        );
    }
}
