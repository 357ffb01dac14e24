//! A joiner: from a token to a welcome.
//!
//! ```text
//!   dials ─▶ genesis fits this machine? ─▶ one connection goes on, and spends the token ─▶ Welcome ─▶ Member
//!                     │ no                       ▲ it ended: another may try
//!                     ▼                          │
//!                   halts                     willing
//! ```
//!
//! **Invariant.** One connection at a time may spend the token: of two that were welcomed each would take the other for its
//! duplicate.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weft_types::{Code, Problem};

use super::ground::Ground;
use super::ground::conn::{ConnEvent, Stage};
use crate::control::ControlMessage;
use crate::dialer::{DialError, LetGo};
use crate::genesis::SignedGenesis;
use crate::handshake::{HandshakeError, Other, Ourself, Refusal};
use crate::io::{ConnId, ConnectError, Event, Output, Target};
use crate::membership::Welcome;
use crate::token::Token;
use crate::wire::preface::Repr;

/// How long a joiner waits for its welcome: the introducer may have to ask the creator.
const WELCOME: Duration = Duration::from_secs(8);

/// A joiner, until it is in.
pub(crate) struct Joiner {
    pub(crate) token: Token,
    wanted: Option<IpNet>,
    genesis: Option<SignedGenesis>,
    /// Where a single-use token was made, and nobody named: it is good there only, so it is dialled until we are in.
    pub(crate) issuer: Vec<Target>,
    /// The one connection that may spend the token.
    chosen: Option<ConnId>,
    /// Connections that could take its place.
    willing: VecDeque<ConnId>,
}

/// What a joiner was given: nothing is built on it before it is durable.
pub(crate) struct Admitted {
    pub(crate) conn: ConnId,
    pub(crate) genesis: SignedGenesis,
    pub(crate) welcome: Welcome,
}

impl Joiner {
    pub(crate) fn new(token: Token, wanted: Option<IpNet>, named: &[Target]) -> Self {
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
            chosen: None,
            willing: VecDeque::new(),
        }
    }

    /// What a joiner says of itself in handshakes.
    pub(crate) fn ourself(&self, ground: &Ground) -> Ourself {
        Ourself {
            wanted: self.wanted.map(|wanted| wanted.to_string()),
            ..ground.ourself(self.token.mesh)
        }
    }

    /// A dial succeeded.
    pub(crate) fn connected(&self, conn: ConnId, ground: &mut Ground, now: Instant) {
        let (asked, secret) = (Repr::Token(self.token.id), &self.token.secret);
        ground.connected(conn, self.ourself(ground), asked, secret, now);
    }

    /// A connection is over, whoever ended it.
    pub(crate) fn closed(&mut self, conn: ConnId, ground: &mut Ground, now: Instant) {
        self.unchoose(conn, ground);
        ground.closed(conn, now);
    }

    /// A dial failed.
    pub(crate) fn connect_failed(
        &mut self,
        conn: ConnId,
        why: ConnectError,
        ground: &mut Ground,
        now: Instant,
    ) {
        if ground.conns.remove(&conn).is_some() {
            self.unchoose(conn, ground);
            ground.led_nowhere(conn, DialError::Connect(why), now);
        }
    }

    /// Another address may be tried, and another connection may spend the token.
    pub(crate) fn give_up(
        &mut self,
        conn: ConnId,
        error: DialError,
        ground: &mut Ground,
        now: Instant,
    ) {
        ground.close(conn);
        self.unchoose(conn, ground);
        ground.led_nowhere(conn, error, now);
    }

    /// A connection has brought something. Gives what we were welcomed with.
    pub(crate) fn conn_event(
        &mut self,
        conn: ConnId,
        event: ConnEvent,
        ground: &mut Ground,
        now: Instant,
    ) -> Option<Admitted> {
        match event {
            ConnEvent::Authenticated(other) => self.authenticated(conn, *other, ground, now),
            ConnEvent::Failed(HandshakeError::Refused(refusal)) => {
                self.refused(conn, refusal.code(), ground, now)
            }
            ConnEvent::Failed(error) => {
                self.give_up(conn, DialError::Handshake(error), ground, now)
            }
            ConnEvent::Genesis(genesis) => self.genesis_received(conn, &genesis, ground, now),
            ConnEvent::Message(bytes) => return self.message(conn, bytes, ground, now),
            ConnEvent::Send(_) => {}
        }
        None
    }

    fn authenticated(&mut self, conn: ConnId, other: Other, ground: &mut Ground, now: Instant) {
        let (node, boot, asked) = (other.node, other.boot, other.asked);
        if let Some(conn) = ground.conns.get_mut(&conn) {
            conn.other = Some(other);
        }
        if node == ground.node() {
            return self.met_ourself(conn, boot, ground, now);
        }
        match (asked, conn.dialled) {
            (Repr::Token(_), true) => {
                let until = now + WELCOME;
                ground.set_stage(conn, Stage::Joining { until });
            }
            // Whoever is no member has nobody to let in.
            (Repr::Token(_), false) | (Repr::Member(_), _) => ground.close(conn),
        }
    }

    /// The other end has our own key.
    fn met_ourself(
        &mut self,
        conn: ConnId,
        theirs: weft_types::Boot,
        ground: &mut Ground,
        now: Instant,
    ) {
        if theirs.id == ground.boot.id {
            return ground.close_own(conn, now);
        }
        if let Some(remote) = ground.conns.get(&conn).map(|conn| conn.remote) {
            ground.note_clone(theirs, remote, None, now);
        }
        if conn.dialled {
            self.give_up(conn, LetGo::AnotherSelf.into(), ground, now);
        } else {
            ground.refuse(conn, Code::Clone);
        }
        ground.meet_ourself(theirs, now);
    }

    /// The mesh that our token leads to.
    fn genesis_received(&mut self, conn: ConnId, bytes: &[u8], ground: &mut Ground, now: Instant) {
        match SignedGenesis::decode(bytes) {
            Ok(genesis) if genesis.mesh_id() == self.token.mesh => {
                let shown = std::sync::Arc::new(genesis.genesis().clone());
                self.genesis = Some(genesis);
                ground.push(Output::CheckGenesis {
                    conn,
                    genesis: shown,
                });
            }
            Ok(_) | Err(_) => {
                self.give_up(conn, DialError::OtherMesh, ground, now);
            }
        }
    }

    /// This machine was compared with the mesh: only now may the token be spent.
    pub(crate) fn genesis_checked(
        &mut self,
        conn: ConnId,
        verdict: Result<(), Problem>,
        ground: &mut Ground,
    ) {
        match verdict {
            Err(problem) => ground.halt(problem),
            Ok(()) => {
                self.willing.push_back(conn);
                self.choose(ground);
            }
        }
    }

    /// Lets one connection go on to spend the token, if none does already.
    fn choose(&mut self, ground: &mut Ground) {
        while self.chosen.is_none() {
            let Some(conn) = self.willing.pop_front() else {
                return;
            };
            self.chosen = ground.approve(conn).then_some(conn);
        }
    }

    /// A connection is over: another one may try the token.
    fn unchoose(&mut self, conn: ConnId, ground: &mut Ground) {
        self.willing.retain(|&willing| willing != conn);
        if self.chosen == Some(conn) {
            self.chosen = None;
            self.choose(ground);
        }
    }

    fn message(
        &mut self,
        conn: ConnId,
        bytes: Vec<u8>,
        ground: &mut Ground,
        now: Instant,
    ) -> Option<Admitted> {
        let open = ground.conns.get(&conn).filter(|open| !open.closing)?;
        match (open.stage, ControlMessage::decode(&bytes)) {
            (_, Ok(ControlMessage::Refused(refused))) => {
                self.refused(conn, refused.code.code(), ground, now)
            }
            (Stage::Joining { .. }, Ok(ControlMessage::Welcome(welcome))) => {
                return Some(Admitted {
                    conn,
                    genesis: self.genesis.clone()?,
                    welcome: *welcome,
                });
            }
            (Stage::Joining { .. }, Ok(_)) => ground.hold_early(conn, bytes),
            // A bad payload costs that payload, and nobody else has anything to say yet.
            (_, Ok(_) | Err(_)) => {}
        }
        None
    }

    /// The other side said no.
    pub(crate) fn refused(&mut self, conn: ConnId, code: Code, ground: &mut Ground, now: Instant) {
        if ground.note_refusal(conn) {
            let refusal = Refusal::new(code);
            self.give_up(conn, HandshakeError::Refused(refusal).into(), ground, now);
            if refusal.is_final() {
                ground.halt(refusal.problem("the other side"));
            }
        }
    }

    /// A step to a later run of ours: every connection is made anew.
    pub(crate) fn close_all(&mut self, ground: &mut Ground, now: Instant) {
        for conn in ground.open_conns(|_| true) {
            self.give_up(conn, LetGo::SteppedPast.into(), ground, now);
        }
    }

    /// Ends what takes too long.
    pub(crate) fn handle_timeout(&mut self, ground: &mut Ground, now: Instant) {
        for conn in ground.overdue(now) {
            let error = DialError::Handshake(HandshakeError::TimedOut);
            self.give_up(conn, error, ground, now);
        }
    }

    /// Does what the dialer wants done; whether it wanted anything.
    pub(crate) fn pump_dialer(&self, ground: &mut Ground) -> bool {
        let mut busy = false;
        while let Some(output) = ground.dialer.poll_output() {
            busy = true;
            if let Some((target, address, error)) = ground.dialer_wants(output)
                && self.is_worth_telling(&target)
            {
                let problem = error.problem(&target, address);
                ground.event(Event::JoinAttemptFailed(problem));
            }
        }
        busy
    }

    /// Whether it matters to a person that a target failed: one that was named, while no other connection is spending the
    /// token.
    fn is_worth_telling(&self, target: &Target) -> bool {
        self.chosen.is_none() && !self.issuer.contains(target)
    }
}

#[cfg(test)]
mod tests {
    use weft_types::TokenId;

    use super::*;
    use crate::crypto::Secret32;
    use crate::router::testing::{AS_MEMBER, Fixture};

    const TOKEN: TokenId = TokenId::new([7; 16]);

    fn joiner(fixture: &Fixture) -> Joiner {
        let token = Token {
            mesh: fixture.mesh.id,
            id: TOKEN,
            secret: Secret32::new([8; 32]),
            issuer: None,
        };
        Joiner::new(token, None, &[])
    }

    /// A dial that has come through.
    fn dialled(joiner: &Joiner, fixture: &mut Fixture) -> ConnId {
        let (conn, now) = (fixture.open(true), fixture.now);
        joiner.connected(conn, &mut fixture.ground, now);
        conn
    }

    #[test]
    fn one_connection_may_spend_the_token_and_the_next_when_that_has_ended() {
        let mut fixture = Fixture::new();
        let mut joiner = joiner(&fixture);
        let [first, second] = [(); 2].map(|()| dialled(&joiner, &mut fixture));
        let now = fixture.now;

        for conn in [first, second] {
            joiner.genesis_checked(conn, Ok(()), &mut fixture.ground);
        }
        let before = joiner.chosen;
        joiner.closed(first, &mut fixture.ground, now);

        assert_eq!(before, Some(first));
        assert_eq!(joiner.chosen, Some(second));
    }

    #[test]
    fn a_token_leads_into_its_own_mesh_and_into_no_other() {
        let (mut fixture, now) = (Fixture::new(), crate::router::testing::origin());
        let genesis = fixture.mesh.genesis.encode();
        let mut here = joiner(&fixture);
        let mut elsewhere = joiner(&fixture);
        elsewhere.token.mesh = weft_types::MeshId::new([9; 32]);
        let open = [&here, &elsewhere].map(|joiner| dialled(joiner, &mut fixture));
        fixture.outputs();

        for (joiner, conn) in [&mut here, &mut elsewhere].into_iter().zip(open) {
            let came = ConnEvent::Genesis(genesis.clone());
            let admitted = joiner.conn_event(conn, came, &mut fixture.ground, now);
            assert!(admitted.is_none());
        }

        let outputs = fixture.outputs();
        assert!(
            matches!(
                outputs.as_slice(),
                [Output::CheckGenesis { conn, .. }, Output::Close { conn: closed }]
                    if [*conn, *closed] == open
            ),
            "{outputs:?}"
        );
    }

    #[test]
    fn a_welcome_that_takes_too_long_is_waited_for_no_more() {
        let mut fixture = Fixture::new();
        let mut joiner = joiner(&fixture);
        let conn = dialled(&joiner, &mut fixture);
        let node = fixture.stranger();
        let other = fixture.other(node, Repr::Token(TOKEN));
        let (event, now) = (ConnEvent::Authenticated(Box::new(other)), fixture.now);

        joiner.conn_event(conn, event, &mut fixture.ground, now);
        let early = fixture.wait(WELCOME - Duration::from_millis(1));
        joiner.handle_timeout(&mut fixture.ground, early);
        let waits = fixture.ground.is_open(conn);
        joiner.handle_timeout(&mut fixture.ground, now + WELCOME);

        assert!(waits);
        assert!(!fixture.ground.is_open(conn));
    }

    #[test]
    fn whoever_is_no_member_lets_nobody_in() {
        let mut fixture = Fixture::new();
        let mut joiner = joiner(&fixture);
        let node = fixture.stranger();
        let now = fixture.now;

        for asked in [AS_MEMBER, Repr::Token(TOKEN)] {
            let conn = fixture.open(false);
            let event = ConnEvent::Authenticated(Box::new(fixture.other(node, asked)));
            joiner.conn_event(conn, event, &mut fixture.ground, now);
            assert!(!fixture.ground.is_open(conn));
        }
    }

    #[test]
    fn a_failed_dial_is_told_of_hosts_that_were_named_while_nobody_spends_the_token() {
        let mut fixture = Fixture::new();
        let mut joiner = joiner(&fixture);
        let [named, issuers] = ["192.0.2.1", "192.0.2.2"].map(|host| Target(host.to_owned()));
        joiner.issuer = vec![issuers.clone()];
        let conn = dialled(&joiner, &mut fixture);

        let before = [&named, &issuers].map(|target| joiner.is_worth_telling(target));
        joiner.genesis_checked(conn, Ok(()), &mut fixture.ground);

        assert_eq!(before, [true, false]);
        assert!(!joiner.is_worth_telling(&named));
    }

    #[test]
    fn a_refusal_that_everybody_would_repeat_ends_the_join_and_another_does_not() {
        for (code, ends) in [(Code::CreatorUnreachable, false), (Code::MeshFull, true)] {
            let mut fixture = Fixture::new();
            let mut joiner = joiner(&fixture);
            let conn = dialled(&joiner, &mut fixture);
            let now = fixture.now;

            joiner.refused(conn, code, &mut fixture.ground, now);

            assert_eq!(fixture.ground.is_halted(), ends, "{code}");
            assert!(!fixture.ground.is_open(conn));
        }
    }
}
