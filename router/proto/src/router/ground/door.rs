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
            (_, Err(_)) => {
                let by = open.node();
                self.mesh.note_unreadable(by, now);
            }
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
        let by = self.ground.other(conn).map(|other| other.node);
        let refusal = HandshakeError::Refused(Refusal::new(code));
        self.ground.give_up(conn, refusal.into(), now);
        if code == Code::Clone {
            let member = |&by: &NodeId| self.mesh.membership.member(by).is_some();
            if let Some(by) = by.filter(member) {
                self.refused_as_clone(by, now);
            }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::membership::Record;
    use crate::router::testing::{AS_MEMBER, Fixture};

    const TOKEN: TokenId = TokenId::new([7; 16]);

    /// Somebody proves who it is; gives the connection, and what follows.
    fn enter(
        fixture: &mut Fixture,
        node: NodeId,
        asked: Repr,
        dialled: bool,
    ) -> (ConnId, Option<Entrance>) {
        let (conn, now) = (fixture.open(dialled), fixture.now);
        let other = Box::new(fixture.other(node, asked));
        let event = ConnEvent::Authenticated(other);
        (conn, fixture.reach().enter(conn, event, now))
    }

    #[test]
    fn a_member_that_comes_is_a_link_and_one_that_is_dialled_has_the_first_word() {
        let mut fixture = Fixture::new();
        let node = fixture.admit("b");

        let (_, came) = enter(&mut fixture, node, AS_MEMBER, false);
        let (dialled, waits) = enter(&mut fixture, node, AS_MEMBER, true);
        fixture.ground.confirm(dialled, Vec::new());

        assert!(matches!(came, Some(Entrance::Link)));
        assert!(waits.is_none());
        assert!(fixture.reach().nothing_is_missing(dialled));
    }

    #[test]
    fn whoever_proves_nothing_within_three_seconds_is_refused() {
        let mut fixture = Fixture::new();
        let node = fixture.stranger();

        let (conn, entered) = enter(&mut fixture, node, AS_MEMBER, false);
        let early = fixture.wait(Duration::from_millis(2999));
        fixture.reach().wake_conns(early);
        let waits = fixture.ground.is_open(conn);
        let late = fixture.wait(Duration::from_millis(1));
        fixture.reach().wake_conns(late);

        assert!(entered.is_none());
        assert!(waits);
        assert!(!fixture.ground.is_open(conn));
    }

    #[test]
    fn a_token_is_for_whoever_admits() {
        let mut fixture = Fixture::new();
        let node = fixture.stranger();

        let (conn, entered) = enter(&mut fixture, node, Repr::Token(TOKEN), false);

        assert!(matches!(entered, Some(Entrance::Admit(TOKEN))));
        assert!(fixture.ground.is_open(conn));
    }

    #[test]
    fn a_joiners_dial_that_comes_through_when_it_is_in_ends_with_the_genesis() {
        let mut fixture = Fixture::new();
        let node = fixture.admit("b");
        let now = fixture.now;

        let (conn, entered) = enter(&mut fixture, node, Repr::Token(TOKEN), true);
        let open = fixture.ground.is_open(conn);
        let genesis = ConnEvent::Genesis(Vec::new());
        let then = fixture.reach().enter(conn, genesis, now);

        assert!(entered.is_none() && then.is_none());
        assert!(open);
        assert!(!fixture.ground.is_open(conn));
    }

    #[test]
    fn whoever_is_refused_as_no_member_halts_only_if_it_is_none() {
        let mut fixture = Fixture::new();
        let node = fixture.admit("b");
        let now = fixture.now;
        let refused = || {
            let refusal = Refusal::new(Code::NotAMember);
            ConnEvent::Failed(HandshakeError::Refused(refusal))
        };

        let conn = fixture.knock(node, AS_MEMBER);
        let _ = fixture.reach().enter(conn, refused(), now);
        let before = fixture.ground.is_halted();
        fixture.reach().append(Record::Leave).expect("a member may");
        let conn = fixture.knock(node, AS_MEMBER);
        let _ = fixture.reach().enter(conn, refused(), now);

        assert!(!before);
        assert!(fixture.ground.is_halted());
    }
}
