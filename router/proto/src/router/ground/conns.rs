//! What is done with TCP connections.
//!
//! What a channel tells is kept until [`Ground::poll_event`] gives it to whoever lives: nothing is acted upon while
//! something else is being said.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_types::{Code, NodeId};

use super::Ground;
use super::conn::{Conn, ConnEvent, Stage};
use crate::control::{ControlMessage, Refused};
use crate::crypto::Secret32;
use crate::dialer::{DialError, DialerOutput, LetGo};
use crate::handshake::{ChannelOutput, ControlChannel, Keyring, Other, Ourself, Refusal};
use crate::io::{ConnId, Output, Target};
use crate::wire::preface::Repr;

/// How long an unknown member may take to bring its admission.
const PROOF: Duration = Duration::from_secs(3);

impl Ground {
    /// A stranger connected.
    pub(crate) fn accept(
        &mut self,
        conn: ConnId,
        from: SocketAddr,
        ourself: Ourself,
        now: Instant,
    ) {
        let mut accepted = Conn::new(from, Stage::Handshaking);
        accepted.channel = Some(ControlChannel::accept(ourself, now));
        self.conns.insert(conn, accepted);
    }

    /// Opens a connection.
    fn dial(&mut self, conn: ConnId, to: SocketAddr) {
        self.conns.insert(conn, Conn::new(to, Stage::Dialling));
        self.push(Output::Connect { conn, to });
    }

    /// A connection is open: begin to talk.
    pub(crate) fn connected(
        &mut self,
        conn: ConnId,
        ourself: Ourself,
        asked: Repr,
        secret: &Secret32,
        now: Instant,
    ) {
        let Some(dialled) = self.conns.get_mut(&conn) else {
            return self.push(Output::Close { conn });
        };
        dialled.stage = Stage::Handshaking;
        let crypto = &mut *self.crypto;
        dialled.channel = Some(ControlChannel::dial(ourself, asked, secret, crypto, now));
        self.pump(conn);
    }

    /// Bytes came.
    pub(crate) fn received(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        keyring: &mut Keyring,
        now: Instant,
    ) {
        if let Some(Conn {
            channel: Some(channel),
            closing: false,
            remote,
            ..
        }) = self.conns.get_mut(&conn)
        {
            let answered = channel.has_answered();
            channel.handle_bytes(bytes, keyring, &mut *self.crypto);
            let answers = channel.has_answered() && !answered;
            if answers && !self.answers.allow(remote.ip(), now) {
                return self.close(conn);
            }
            self.pump(conn);
        }
    }

    /// Bytes of ours have left.
    pub(crate) fn sent(&mut self, conn: ConnId, bytes: usize) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.unsent = conn.unsent.saturating_sub(bytes);
        }
    }

    /// Lets a joiner's handshake go on to spend its token; whether there is one.
    pub(crate) fn approve(&mut self, conn: ConnId) -> bool {
        let open = self.conns.get_mut(&conn);
        let Some(channel) = open.and_then(|open| open.channel.as_mut()) else {
            return false;
        };
        channel.approve();
        self.pump(conn);
        true
    }

    /// Ends a connection from our side.
    pub(crate) fn close(&mut self, conn: ConnId) {
        if let Some(open) = self.conns.get_mut(&conn) {
            open.closing = true;
            open.early = Vec::new();
            open.proof = None;
            if open.stage == Stage::Admitting {
                // An answer that comes now is nobody's.
                open.stage = Stage::Handshaking;
            }
        }
        self.push(Output::Close { conn });
    }

    /// Ends a connection that led nowhere.
    pub(crate) fn give_up(&mut self, conn: ConnId, error: DialError, now: Instant) {
        self.close(conn);
        self.led_nowhere(conn, error, now);
    }

    /// No link comes of a connection: the dialer may try another address.
    pub(crate) fn led_nowhere(&mut self, conn: ConnId, error: DialError, now: Instant) {
        if conn.dialled {
            self.dialer
                .handle_failure(conn, error, &mut *self.crypto, now);
        }
    }

    /// A connection is over, whoever ended it. Gives it back if it was a link's.
    pub(crate) fn closed(&mut self, conn: ConnId, now: Instant) -> Option<Conn> {
        let over = self.conns.remove(&conn)?;
        let linked = over.stage == Stage::Linked;
        if !over.closing && !linked {
            let error = match over.other {
                Some(_) => DialError::Cut,
                None => DialError::ClosedSilently,
            };
            self.led_nowhere(conn, error, now);
        }
        Some(over).filter(|_| linked)
    }

    /// Where a connection leads whose other end has ended it without a word about who it is.
    pub(crate) fn shut(&self, conn: ConnId) -> Option<SocketAddr> {
        let over = self.conns.get(&conn).filter(|over| !over.closing)?;
        let silent = over.stage == Stage::Handshaking && over.other.is_none();
        (conn.dialled && silent).then_some(over.remote)
    }

    /// A connection led to ourselves.
    pub(crate) fn close_own(&mut self, conn: ConnId, now: Instant) {
        self.close(conn);
        if conn.dialled {
            self.dialer.handle_ourself(conn, &mut *self.crypto, now);
        }
    }

    /// Does one thing that the dialer wants. Gives what it has tried in vain.
    pub(crate) fn dialer_wants(
        &mut self,
        output: DialerOutput,
    ) -> Option<(Target, Option<SocketAddr>, DialError)> {
        match output {
            DialerOutput::Abandon(conn) => self.close(conn),
            DialerOutput::Dial { conn, to } => self.dial(conn, to),
            DialerOutput::Resolve(target) => self.push(Output::Resolve { target }),
            DialerOutput::RoundFailed {
                target,
                address,
                error,
            } => return Some((target, address, error)),
        }
        None
    }

    /// Tells the driver, once, that an accepted connection is no stranger's.
    pub(crate) fn tell_authenticated(&mut self, conn: ConnId) {
        if let Some(open) = self.conns.get_mut(&conn)
            && !conn.dialled
            && !std::mem::replace(&mut open.told, true)
        {
            self.push(Output::Authenticated { conn });
        }
    }

    /// Says no under seal, then closes.
    pub(crate) fn refuse(&mut self, conn: ConnId, code: Code) {
        let code = Refusal::new(code);
        self.tell(conn, &ControlMessage::Refused(Refused { code }));
        self.last_words(conn);
        self.close(conn);
    }

    /// Sends what waits for its turn on a connection that ends: a refusal is behind it. What has come there does not count any more.
    fn last_words(&mut self, conn: ConnId) {
        for (id, event) in std::mem::take(&mut self.events) {
            if id != conn {
                self.events.push_back((id, event));
            } else if let ConnEvent::Send(bytes) = event {
                self.send(id, bytes);
            }
        }
    }

    /// Seals a message and sends it.
    pub(crate) fn tell(&mut self, conn: ConnId, message: &ControlMessage) {
        if let Some(Conn {
            channel: Some(channel),
            ..
        }) = self.conns.get_mut(&conn)
        {
            channel.send(&message.encode());
        }
        self.pump(conn);
    }

    /// The other side said no; whether that is news.
    pub(crate) fn note_refusal(&mut self, conn: ConnId) -> bool {
        self.conns
            .get_mut(&conn)
            .is_none_or(|open| !std::mem::replace(&mut open.refused, true))
    }

    /// Moves a connection to a stage.
    pub(crate) fn set_stage(&mut self, conn: ConnId, stage: Stage) {
        if let Some(open) = self.conns.get_mut(&conn) {
            open.stage = stage;
        }
    }

    /// A member is at the door, and something is missing before it is a link.
    pub(crate) fn let_prove(&mut self, conn: ConnId, now: Instant) {
        let until = now + PROOF;
        let confirmed = false;
        self.set_stage(conn, Stage::Proving { until, confirmed });
    }

    /// Whether a connection is there and not being closed.
    pub(crate) fn is_open(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|open| !open.closing)
    }

    /// Who is at the other end, if that is proved.
    pub(crate) fn other(&self, conn: ConnId) -> Option<&Other> {
        self.conns.get(&conn)?.other.as_ref()
    }

    /// Connections that are in use and for which `chosen` holds.
    pub(crate) fn open_conns(&self, chosen: impl Fn(&Conn) -> bool) -> Vec<ConnId> {
        let open = self.conns.iter();
        open.filter(|(_, conn)| !conn.closing && chosen(conn))
            .map(|(&id, _)| id)
            .collect()
    }

    /// The other end is ready before we are: what it says is for the link to come.
    pub(crate) fn hold_early(&mut self, conn: ConnId, bytes: Vec<u8>) {
        if let Some(open) = self.conns.get_mut(&conn) {
            open.hold(bytes);
        }
    }

    /// The listener has taken our connection as a link: this is its first word.
    pub(crate) fn confirm(&mut self, conn: ConnId, bytes: Vec<u8>) {
        if let Some(open) = self.conns.get_mut(&conn)
            && let Stage::Proving { confirmed, .. } = &mut open.stage
        {
            *confirmed = true;
            open.early.push(bytes);
        }
    }

    /// We are in by one of several connections that could have spent our token. Others to the same introducer are
    /// duplicates, those to other members are dialled again as a member.
    pub(crate) fn end_rivals(&mut self, ours: ConnId, introducer: Option<NodeId>, now: Instant) {
        let mut rivals = self.open_conns(|conn| matches!(conn.stage, Stage::Joining { .. }));
        rivals.retain(|&rival| rival != ours);
        for rival in rivals {
            match self.conns.get(&rival).and_then(Conn::node) {
                Some(node) if Some(node) == introducer => {
                    self.dialer.handle_linked(node, Some(rival));
                    self.close(rival);
                }
                Some(_) | None => self.give_up(rival, LetGo::Joined.into(), now),
            }
        }
    }

    /// What came too early is to be looked at again, in order, before what comes next.
    pub(crate) fn replay_early(&mut self, conn: ConnId) {
        if let Some(open) = self.conns.get_mut(&conn) {
            let early = std::mem::take(&mut open.early);
            for bytes in early.into_iter().rev() {
                self.events.push_front((conn, ConnEvent::Message(bytes)));
            }
        }
    }

    /// The next thing that a connection has brought.
    pub(crate) fn poll_event(&mut self) -> Option<(ConnId, ConnEvent)> {
        loop {
            match self.events.pop_front()? {
                (conn, ConnEvent::Send(bytes)) => self.send(conn, bytes),
                event => return Some(event),
            }
        }
    }

    /// Connections whose stage takes too long.
    pub(crate) fn overdue(&self, now: Instant) -> Vec<ConnId> {
        self.open_conns(|conn| conn.overdue_at().is_some_and(|(at, _)| at <= now))
    }

    /// Wakes the handshakes that are due.
    pub(crate) fn wake_channels(&mut self, now: Instant) {
        let due = |conn: &Conn| conn.poll_timeout().is_some_and(|(at, _)| at <= now);
        for id in self.open_conns(due) {
            let conn = self.conns.get_mut(&id);
            if let Some(channel) = conn.and_then(|conn| conn.channel.as_mut()) {
                channel.handle_timeout(now);
            }
            self.pump(id);
        }
    }

    /// Sends what a channel wants sent, and keeps what it tells; what it wants sent after that waits its turn.
    fn pump(&mut self, id: ConnId) {
        let mut waits = self.events.iter().any(|(conn, _)| *conn == id);
        while let Some(output) = self.poll_channel(id) {
            let event = match output {
                ChannelOutput::Send(bytes) if !waits => {
                    self.send(id, bytes);
                    continue;
                }
                ChannelOutput::Send(bytes) => ConnEvent::Send(bytes),
                ChannelOutput::Authenticated(other) => ConnEvent::Authenticated(other),
                ChannelOutput::GenesisReceived(genesis) => ConnEvent::Genesis(genesis),
                ChannelOutput::Message(message) => ConnEvent::Message(message),
                ChannelOutput::Failed(error) => ConnEvent::Failed(error),
            };
            waits = true;
            self.events.push_back((id, event));
        }
    }

    fn poll_channel(&mut self, id: ConnId) -> Option<ChannelOutput> {
        self.conns.get_mut(&id)?.channel.as_mut()?.poll_output()
    }

    fn send(&mut self, id: ConnId, bytes: Vec<u8>) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.unsent += bytes.len();
            self.push(Output::Send { conn: id, bytes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::testing::Fixture;

    const CONN: ConnId = ConnId {
        dialled: false,
        number: 3,
    };

    /// A connection on which something has come and, behind it, something is to be sent.
    fn busy(fixture: &mut Fixture, conn: ConnId) {
        let ground = &mut fixture.ground;
        let from = SocketAddr::from(([192, 0, 2, 9], 6783));
        ground.conns.insert(conn, Conn::new(from, Stage::Linked));
        ground
            .events
            .push_back((conn, ConnEvent::Message(Vec::new())));
        ground
            .events
            .push_back((conn, ConnEvent::Send(b"no".to_vec())));
    }

    #[test]
    fn a_refusal_leaves_before_its_connection_is_closed_and_what_came_is_forgotten() {
        let mut fixture = Fixture::new();
        busy(&mut fixture, CONN);

        fixture.ground.refuse(CONN, Code::Clone);

        let outputs = fixture.outputs();
        assert!(
            matches!(&outputs[..], [Output::Send { bytes, .. }, Output::Close { conn: CONN }] if bytes == b"no"),
            "{outputs:?}"
        );
        assert!(fixture.ground.poll_event().is_none());
    }

    #[test]
    fn a_connection_that_is_refused_disturbs_no_other() {
        let mut fixture = Fixture::new();
        let other = ConnId { number: 4, ..CONN };
        busy(&mut fixture, other);
        busy(&mut fixture, CONN);

        fixture.ground.refuse(CONN, Code::Clone);

        let next = fixture.ground.poll_event();
        assert!(matches!(next, Some((conn, ConnEvent::Message(_))) if conn == other));
    }

    #[test]
    fn what_came_too_early_comes_in_order_before_what_came_since() {
        let mut fixture = Fixture::new();
        let conn = fixture.open(false);
        let ground = &mut fixture.ground;
        ground.hold_early(conn, vec![1]);
        ground.hold_early(conn, vec![2]);
        let since = ConnEvent::Message(vec![3]);
        ground.events.push_back((conn, since));

        ground.replay_early(conn);

        let mut came = Vec::new();
        while let Some((_, ConnEvent::Message(bytes))) = ground.poll_event() {
            came.extend(bytes);
        }
        assert_eq!(came, [1, 2, 3]);
    }

    #[test]
    fn two_mebibytes_are_held_at_the_door_and_no_byte_more() {
        let mut fixture = Fixture::new();
        let conn = fixture.open(false);
        let ground = &mut fixture.ground;

        ground.hold_early(conn, vec![0; (2 << 20) - 1]);
        ground.hold_early(conn, vec![0; 2]);
        ground.hold_early(conn, vec![0; 1]);

        let early = ground.conns[&conn].early.iter();
        assert_eq!(early.map(Vec::len).sum::<usize>(), 2 << 20);
    }
}
