//! Who stands at a member's door, and what they may say there.
//!
//! A member that is known becomes a link. One whose admission has not reached us brings it first; one that is admitted by
//! a token is for whoever admits; everybody else is refused under seal.

use std::time::Instant;

use weft_types::{Boot, Code, NodeId, Problem, TokenId};

use super::Reach;
use super::conn::{ConnEvent, Stage};
use crate::control::ControlMessage;
use crate::dialer::LetGo;
use crate::handshake::{HandshakeError, Other, Refusal};
use crate::io::ConnId;
use crate::membership::Standing;
use crate::wire::preface::Repr;

/// What follows from what a connection has brought.
pub(crate) enum Entrance {
    /// It wants to be admitted by a token.
    Admit(TokenId),
    /// Nothing is missing: it is to be a link.
    Link,
    /// A member says something.
    Said(Box<ControlMessage>),
}

impl Reach<'_> {
    /// A connection has brought something.
    pub(crate) fn enter(
        &mut self,
        conn: ConnId,
        event: ConnEvent,
        now: Instant,
    ) -> Option<Entrance> {
        match event {
            ConnEvent::Authenticated(other) => self.authenticated(conn, *other, now),
            ConnEvent::Failed(HandshakeError::Refused(refusal)) => {
                self.refused(conn, refusal.code(), now);
                None
            }
            ConnEvent::Failed(error) => {
                self.ground.give_up(conn, error.into(), now);
                None
            }
            // Where a token leads matters to joiners only, and we are in.
            ConnEvent::Genesis(_) => {
                self.ground.close(conn);
                None
            }
            ConnEvent::Message(bytes) => self.message(conn, bytes, now),
            ConnEvent::Send(_) => None,
        }
    }

    fn authenticated(&mut self, conn: ConnId, other: Other, now: Instant) -> Option<Entrance> {
        let (node, boot, asked) = (other.node, other.boot, other.asked);
        if let Some(conn) = self.ground.conns.get_mut(&conn) {
            conn.other = Some(other);
        }
        if node == self.mesh.ourself {
            self.met_ourself(conn, boot, now);
            return None;
        }
        match (asked, conn.dialled) {
            (Repr::Token(token), false) => Some(Entrance::Admit(token)),
            // A joiner dialled it that is in by now: the genesis that it brings next ends it.
            (Repr::Token(_), true) => None,
            (Repr::Member(_), _) => self.member_at_the_door(conn, node, now),
        }
    }

    /// The other end has our own key.
    fn met_ourself(&mut self, conn: ConnId, theirs: Boot, now: Instant) {
        if theirs.id == self.ground.boot.id {
            return self.ground.close_own(conn, now);
        }
        if let Some(remote) = self.ground.conns.get(&conn).map(|conn| conn.remote) {
            self.clone_seen(theirs, remote, None, now);
        }
        if conn.dialled {
            self.ground.give_up(conn, LetGo::AnotherSelf.into(), now);
        } else {
            self.ground.refuse(conn, Code::Clone);
        }
        self.ground.meet_ourself(theirs, now);
    }

    fn member_at_the_door(&mut self, conn: ConnId, node: NodeId, now: Instant) -> Option<Entrance> {
        match self.mesh.membership.standing(node) {
            Standing::Member if !conn.dialled => return Some(Entrance::Link),
            Standing::Gone(_) if conn.dialled => {
                self.ground.give_up(conn, LetGo::NotAMember.into(), now);
            }
            Standing::Gone(_) => self.ground.refuse(conn, Code::NotAMember),
            standing @ (Standing::Member | Standing::Unknown) => {
                self.ground.let_prove(conn, now);
                self.begin_proof(conn, now);
                if standing == Standing::Unknown {
                    self.offer_membership(conn);
                }
            }
        }
        None
    }

    fn message(&mut self, conn: ConnId, bytes: Vec<u8>, now: Instant) -> Option<Entrance> {
        let open = self.ground.conns.get(&conn).filter(|open| !open.closing)?;
        match (open.stage, ControlMessage::decode(&bytes)) {
            (_, Ok(ControlMessage::Refused(refused))) => {
                self.refused(conn, refused.code.code(), now)
            }
            (Stage::Linked, Ok(message)) => return Some(Entrance::Said(Box::new(message))),
            (Stage::Proving { .. }, Ok(message)) if message.is_membership() => {
                return Some(Entrance::Said(Box::new(message)));
            }
            (Stage::Proving { .. }, Ok(ControlMessage::LinkKeys(_))) if conn.dialled => {
                self.ground.confirm(conn, bytes);
                return self.nothing_is_missing(conn).then_some(Entrance::Link);
            }
            // A joiner has nothing to say before it is in.
            (Stage::Admitting | Stage::Dialling | Stage::Handshaking, Ok(_)) => {}
            (Stage::Joining { .. } | Stage::Proving { .. }, Ok(_)) => {
                self.ground.hold_early(conn, bytes)
            }
            // A bad payload costs that payload.
            (_, Err(_)) => self.mesh.bad_payloads += 1,
        }
        None
    }

    /// Whoever was proving is looked at again, because the membership has changed: gives those that are to be links.
    pub(crate) fn proved(&self) -> Vec<ConnId> {
        let mut proving = self
            .ground
            .open_conns(|conn| matches!(conn.stage, Stage::Proving { .. }));
        proving.retain(|&conn| self.nothing_is_missing(conn));
        proving
    }

    /// Whether who is at the door may be a link.
    pub(crate) fn nothing_is_missing(&self, conn: ConnId) -> bool {
        let Some(open) = self.ground.conns.get(&conn) else {
            return false;
        };
        let Stage::Proving { confirmed, .. } = open.stage else {
            return false;
        };
        let standing = open.node().map(|node| self.mesh.membership.standing(node));
        standing == Some(Standing::Member) && (confirmed || !conn.dialled)
    }

    /// The other side said no.
    fn refused(&mut self, conn: ConnId, code: Code, now: Instant) {
        if !self.ground.note_refusal(conn) {
            return;
        }
        let refusal = HandshakeError::Refused(Refusal::new(code));
        self.ground.give_up(conn, refusal.into(), now);
        if code == Code::Clone {
            let has_links = !self.mesh.links.is_empty();
            self.ground.refused_as_clone(has_links, now);
        } else if code == Code::NotAMember && self.mesh.is_gone(self.mesh.ourself) {
            self.ground.halt(Problem::new(
                Code::NotAMember,
                "this node was removed from its mesh",
            ));
        }
    }

    /// Ends what takes too long.
    pub(crate) fn wake_conns(&mut self, now: Instant) {
        for conn in self.ground.overdue(now) {
            let stage = self.ground.conns.get(&conn).map(|open| open.stage);
            if matches!(stage, Some(Stage::Proving { .. })) && !conn.dialled {
                self.ground.refuse(conn, Code::NotAMember);
            } else {
                let error = HandshakeError::TimedOut.into();
                self.ground.give_up(conn, error, now);
            }
        }
    }
}
