//! The sessions with one peer.
//!
//! ```text
//!            want, or due              RESPOND
//!   (none) ─────────────▶ attempt ──────────────▶ current ──▶ old ──▶ (wiped)
//!      INITIATE                   CONFIRM           ▲  its successor is here
//!   ─────────────▶ pending ─────────────────────────┘
//! ```
//!
//! *attempt*: our first message is out, or waits. *pending*: we answered, and do not know yet whether the answer arrived.
//! *current*: what we send by. *old*: what the peer may still send by. At most one of each, but of old ones there are
//! [`keys::MAX_OLD`].
//!
//! Both sides may begin at once. The smaller node's handshake wins: it ignores the other's first message while its own
//! is out, and the larger one gives its own up when it answers. So of two sessions that both sides complete, both
//! complete the same one last.

mod attempt;
mod keys;

use std::time::{Duration, Instant};

use weft_types::{Boot, NodeId};

use super::around::{Output, Shared, Surroundings, Via};
use super::handshake::{HandshakeError, Received};
use super::message::{self, Assembly, Message};
use crate::keys::{Cipher, SessionIndex};
use attempt::{Attempt, PATIENCE, Retry, Sent};
use keys::{EPHEMERAL_LEN, KEY_LIFE, Live, MAX_OLD, OVERLAP, Old, Pending, SETTLED_AFTER, Side};

/// A frame waits for its session 1 s at most; who still has frames says so again.
const WANT_LASTS: Duration = Duration::from_secs(5);

/// One peer's machine.
pub(super) struct PeerSessions {
    peer: NodeId,
    attempt: Option<Attempt>,
    pending: Option<Pending>,
    current: Option<Live>,
    /// Oldest first.
    old: Vec<Old>,
    /// The last first message that was accepted, by boot counter and handshake counter.
    accepted: Option<(u64, u64)>,
    wanted_until: Option<Instant>,
    assembly: Assembly,
    /// A session was wiped by [`Self::close`]: the peer may go on sending in it.
    cut_off: bool,
}

impl PeerSessions {
    pub(super) fn new(peer: NodeId) -> Self {
        Self {
            peer,
            attempt: None,
            pending: None,
            current: None,
            old: Vec::new(),
            accepted: None,
            wanted_until: None,
            assembly: Assembly::default(),
            cut_off: false,
        }
    }

    pub(super) fn want(
        &mut self,
        shared: &mut Shared,
        around: &mut Surroundings<'_>,
        now: Instant,
    ) {
        let settled = |current: &Live| now >= current.since + PATIENCE;
        if self
            .current
            .as_ref()
            .is_some_and(|current| !settled(current))
        {
            return; // Asked before it heard of the session.
        }
        // Who asks has no session to send in, whatever is believed here: a second one heals that.
        self.wanted_until = Some(now + WANT_LASTS);
        if self.attempt.is_none() {
            self.begin(shared, around, now);
        }
    }

    pub(super) fn back(
        &mut self,
        shared: &mut Shared,
        around: &mut Surroundings<'_>,
        now: Instant,
    ) {
        if std::mem::take(&mut self.cut_off) && self.current.is_none() {
            self.want(shared, around, now);
        }
    }

    pub(super) fn note_used(&mut self, now: Instant) {
        if let Some(current) = &mut self.current
            && now >= current.since + SETTLED_AFTER
        {
            current.used = true;
        }
    }

    pub(super) fn cipher(&self) -> Option<Cipher> {
        self.current.as_ref().map(|current| current.cipher)
    }

    pub(super) fn handle_message(
        &mut self,
        message: Message<'_>,
        via: Via,
        shared: &mut Shared,
        around: &mut Surroundings<'_>,
        now: Instant,
    ) {
        match (message, via) {
            (Message::Initiate(noise), _) => self.handle_initiate(noise, via, shared, around, now),
            (Message::Respond { to, noise }, _) => {
                self.handle_respond(to, noise, shared, around, now);
            }
            (Message::Confirm(index), Via::Session) => {
                self.handle_confirm(index, shared, around, now);
            }
            (Message::Confirmed(index), Via::Session) => self.handle_confirmed(index, now),
            (
                Message::Part {
                    message,
                    part,
                    parts,
                    bytes,
                },
                Via::Session,
            ) => {
                let whole = self.assembly.take(message, part, parts, bytes);
                match whole.as_deref().map(message::decode) {
                    None => {}
                    // A part within parts would be a way to make us work.
                    Some(Err(_) | Ok(Message::Part { .. })) => shared.counters.failures += 1,
                    Some(Ok(message)) => self.handle_message(message, via, shared, around, now),
                }
            }
            // What these say is true only of the session they came out of.
            (Message::Confirm(_) | Message::Confirmed(_) | Message::Part { .. }, Via::Unicast) => {
                shared.counters.failures += 1
            }
        }
    }

    fn handle_initiate(
        &mut self,
        noise: &[u8],
        via: Via,
        shared: &mut Shared,
        around: &mut Surroundings<'_>,
        now: Instant,
    ) {
        if let Some(pending) = &self.pending
            && noise.starts_with(&pending.ephemeral)
        {
            // Our answer was lost, or is on its way.
            let answer = pending.answer.clone();
            self.send(answer, via, shared);
            return;
        }
        if matches!(self.attempt, Some(Attempt::Sent(_))) && shared.local.node < self.peer {
            return; // Ours wins, and the peer repeats its own if ours comes to nothing.
        }
        if let Err(why) = self.accept(noise, via, shared, around, now) {
            match why {
                Refused::Handshake | Refused::NotThePeer => shared.counters.failures += 1,
                Refused::Replay => shared.counters.replays += 1,
            }
        }
    }

    fn accept(
        &mut self,
        noise: &[u8],
        via: Via,
        shared: &mut Shared,
        around: &mut Surroundings<'_>,
        now: Instant,
    ) -> Result<(), Refused> {
        let facts = around
            .directory
            .facts(self.peer)
            .ok_or(Refused::NotThePeer)?;
        let (ephemeral, _) = noise
            .split_first_chunk::<EPHEMERAL_LEN>()
            .ok_or(Refused::Handshake)?;
        let received = Received::open(&shared.local, noise, around.crypto)?;
        let hello = received.hello();
        if *received.remote() != facts.key || hello.node != self.peer {
            return Err(Refused::NotThePeer);
        }
        let rank = (hello.boot.counter, hello.counter);
        if self.accepted.is_some_and(|last| rank <= last) {
            return Err(Refused::Replay);
        }
        self.void_before(hello.boot, shared, around);
        let registers = self.registers_to_send(around);
        let index = around.indices.allocate(around.crypto);
        let (agreed, answer) = received
            .answer(&shared.local, index, facts.cipher, registers, around.crypto)
            .inspect_err(|_| around.indices.release(index))?;
        self.accepted = Some(rank);
        if self.abandon(around) {
            self.attempt = Some(Attempt::Deferred { at: now + PATIENCE });
        }
        self.retire_pending(shared, around);
        self.pending = Some(Pending {
            live: Live::new(&agreed, Side::Responder, now),
            ephemeral: *ephemeral,
            answer: Message::Respond {
                to: agreed.keys.remote,
                noise: &answer,
            }
            .encode(),
        });
        self.announce_registers(agreed.registers, shared);
        shared.outputs.push_back(Output::InstallReceiving {
            peer: self.peer,
            keys: agreed.keys,
        });
        if let Some(pending) = &self.pending {
            self.send(pending.answer.clone(), via, shared);
        }
        Ok(())
    }

    fn handle_respond(
        &mut self,
        to: SessionIndex,
        noise: &[u8],
        shared: &mut Shared,
        around: &mut Surroundings<'_>,
        now: Instant,
    ) {
        let Some(Attempt::Sent(sent)) = &mut self.attempt else {
            return; // Answered already, or given up.
        };
        if sent.initiation.index() != to {
            return;
        }
        let Ok(agreed) = sent.initiation.finish(noise) else {
            shared.counters.failures += 1;
            return;
        };
        self.attempt = None;
        self.wanted_until = None;
        if let Some(pending) = self.pending.take() {
            // It is older than what was just agreed, but the peer may have our answer, and send by it until it has
            // answered the confirmation.
            let until = pending.live.dies_at();
            self.keep_old(pending.live, until, shared, around);
        }
        let side = Side::Initiator {
            confirm: Some(Retry::begin(now)),
        };
        let live = Live::new(&agreed, side, now);
        let confirm = Message::Confirm(live.remote).encode();
        self.announce_registers(agreed.registers, shared);
        shared.outputs.push_back(Output::Install {
            peer: self.peer,
            keys: agreed.keys,
        });
        // The peer sends by the old keys until it hears from us under the new ones: see `handle_confirmed`.
        self.replace_current(live, KEY_LIFE, shared, around, now);
        self.send(confirm, Via::Session, shared);
    }

    fn handle_confirm(
        &mut self,
        index: SessionIndex,
        shared: &mut Shared,
        around: &mut Surroundings<'_>,
        now: Instant,
    ) {
        if let Some(pending) = self.pending.take_if(|pending| pending.live.local == index) {
            self.abandon(around);
            self.attempt = None;
            self.wanted_until = None;
            self.replace_current(pending.live, OVERLAP, shared, around, now);
        }
        if let Some(current) = &self.current
            && current.local == index
        {
            let answer = Message::Confirmed(current.remote).encode();
            self.send(answer, Via::Session, shared);
        }
    }

    fn handle_confirmed(&mut self, index: SessionIndex, now: Instant) {
        if let Some(current) = &mut self.current
            && current.local == index
            && let Side::Initiator { confirm } = &mut current.side
            && confirm.take().is_some()
        {
            for old in &mut self.old {
                old.until = old.until.min(now + OVERLAP);
            }
        }
    }

    /// Wipes everything.
    pub(super) fn close(&mut self, shared: &mut Shared, around: &mut Surroundings<'_>) {
        self.abandon(around);
        self.attempt = None;
        self.wanted_until = None;
        self.assembly = Assembly::default();
        self.cut_off |= self.current.is_some() || self.pending.is_some();
        self.retire_pending(shared, around);
        self.retire_old_if(|_| true, shared, around);
        self.retire_current(shared, around);
    }

    /// Wipes what an earlier run of the peer agreed to.
    pub(super) fn void_before(
        &mut self,
        boot: Boot,
        shared: &mut Shared,
        around: &mut Surroundings<'_>,
    ) {
        let is_void = |live: &Live| live.boot.counter < boot.counter;
        if self
            .pending
            .as_ref()
            .is_some_and(|pending| is_void(&pending.live))
        {
            self.retire_pending(shared, around);
        }
        self.retire_old_if(|old| is_void(&old.live), shared, around);
        if self.current.as_ref().is_some_and(is_void) {
            self.retire_current(shared, around);
        }
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        let attempt = self.attempt.as_ref().map(|attempt| match attempt {
            Attempt::Deferred { at } => (*at, "session: begin"),
            Attempt::Sent(sent) => (sent.retry.at, "session: repeat the first message"),
        });
        let pending = self
            .pending
            .as_ref()
            .map(|pending| (pending.live.dies_at(), "session: wipe"));
        let old = self
            .old
            .iter()
            .map(|old| (old.until, "session: wipe replaced keys"))
            .min();
        let current = self.current.as_ref();
        let confirm = current.and_then(|current| match current.side {
            Side::Initiator {
                confirm: Some(retry),
            } => Some((retry.at, "session: confirm")),
            Side::Initiator { confirm: None } | Side::Responder => None,
        });
        let rekey = current
            .filter(|current| current.used && self.attempt.is_none())
            .map(|current| (current.rekey_at(), "session: rekey"));
        let dies = current.map(|current| (current.dies_at(), "session: wipe"));
        [attempt, pending, old, confirm, rekey, dies]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn handle_timeout(
        &mut self,
        shared: &mut Shared,
        around: &mut Surroundings<'_>,
        now: Instant,
    ) {
        self.retire_old_if(|old| old.until <= now, shared, around);
        if self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.live.dies_at() <= now)
        {
            self.retire_pending(shared, around);
        }
        if self
            .current
            .as_ref()
            .is_some_and(|current| current.dies_at() <= now)
        {
            self.retire_current(shared, around);
        }
        self.confirm_again(shared, now);
        match &self.attempt {
            None if self.rekey_is_due(now) => self.begin(shared, around, now),
            None => {}
            Some(Attempt::Deferred { at }) if *at <= now => {
                self.attempt = None;
                if self.is_needed(now) {
                    self.begin(shared, around, now);
                }
            }
            Some(Attempt::Sent(sent)) if sent.retry.at <= now => self.retry(shared, around, now),
            Some(Attempt::Deferred { .. } | Attempt::Sent(_)) => {}
        }
    }

    /// Sends a first message, at once or as soon as it makes sense. Sets `attempt` in any case.
    fn begin(&mut self, shared: &mut Shared, around: &mut Surroundings<'_>, now: Instant) {
        let answered = self
            .pending
            .as_ref()
            .map(|pending| pending.live.since + PATIENCE);
        if let Some(at) = answered.filter(|&at| now < at) {
            self.attempt = Some(Attempt::Deferred { at });
            return;
        }
        let registers = self.registers_to_send(around);
        match Sent::make(self.peer, registers, shared, around, now) {
            Some(sent) => {
                let bytes = sent.bytes.clone();
                self.attempt = Some(Attempt::Sent(sent));
                self.send(bytes, Via::Session, shared);
            }
            None => self.attempt = Some(Attempt::Deferred { at: now + PATIENCE }),
        }
    }

    fn retry(&mut self, shared: &mut Shared, around: &mut Surroundings<'_>, now: Instant) {
        let needed = self.is_needed(now);
        let Some(Attempt::Sent(sent)) = &mut self.attempt else {
            return;
        };
        if needed && sent.lives(now) {
            let via = sent.again(self.current.is_some(), now);
            let bytes = sent.bytes.clone();
            self.send(bytes, via, shared);
            return;
        }
        shared.counters.failures += 1;
        self.abandon(around);
        if needed {
            self.begin(shared, around, now);
        }
    }

    /// Gives our handshake up. Says whether one was out.
    fn abandon(&mut self, around: &mut Surroundings<'_>) -> bool {
        let Some(Attempt::Sent(sent)) = self
            .attempt
            .take_if(|attempt| matches!(attempt, Attempt::Sent(_)))
        else {
            return false;
        };
        around.indices.release(sent.initiation.index());
        true
    }

    fn confirm_again(&mut self, shared: &mut Shared, now: Instant) {
        if let Some(current) = &mut self.current
            && let Side::Initiator {
                confirm: Some(retry),
            } = &mut current.side
            && retry.at <= now
        {
            *retry = retry.next(now);
            let confirm = Message::Confirm(current.remote).encode();
            self.send(confirm, Via::Session, shared);
        }
    }

    fn is_needed(&self, now: Instant) -> bool {
        self.wanted_until.is_some_and(|until| now < until) || self.rekey_is_due(now)
    }

    fn rekey_is_due(&self, now: Instant) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.used && current.rekey_at() <= now)
    }

    fn replace_current(
        &mut self,
        live: Live,
        overlap: Duration,
        shared: &mut Shared,
        around: &mut Surroundings<'_>,
        now: Instant,
    ) {
        match self.current.replace(live) {
            None => shared.outputs.push_back(Output::Up { peer: self.peer }),
            Some(before) => {
                shared.counters.rekeys += 1;
                let until = before.dies_at().min(now + overlap);
                self.keep_old(before, until, shared, around);
            }
        }
    }

    /// Sends inside the session where there is one and the message fits, else over the control plane.
    fn send(&self, bytes: Vec<u8>, via: Via, shared: &mut Shared) {
        let to = self.peer;
        if via == Via::Session && self.current.is_some() {
            shared.cut = shared.cut.wrapping_add(1);
            if let Some(parts) = message::parts(shared.cut, &bytes) {
                let outputs = parts
                    .into_iter()
                    .map(|bytes| Output::SessionMessage { to, bytes });
                shared.outputs.extend(outputs);
                return;
            }
        }
        shared.outputs.push_back(Output::Unicast { to, bytes });
    }

    /// While there is a session, news of endpoints travels by gossip; before, frames would outrun it.
    fn registers_to_send(&self, around: &Surroundings<'_>) -> Vec<Vec<u8>> {
        match self.current {
            Some(_) => Vec::new(),
            None => around.directory.registers(),
        }
    }

    fn announce_registers(&self, registers: Vec<Vec<u8>>, shared: &mut Shared) {
        if !registers.is_empty() {
            shared.outputs.push_back(Output::Registers {
                peer: self.peer,
                registers,
            });
        }
    }

    fn retire_pending(&mut self, shared: &mut Shared, around: &mut Surroundings<'_>) {
        if let Some(pending) = self.pending.take() {
            pending.live.retire(shared, around);
        }
    }

    fn keep_old(
        &mut self,
        live: Live,
        until: Instant,
        shared: &mut Shared,
        around: &mut Surroundings<'_>,
    ) {
        if self.old.len() == MAX_OLD {
            self.old.remove(0).live.retire(shared, around);
        }
        self.old.push(Old { live, until });
    }

    fn retire_old_if(
        &mut self,
        mut is_over: impl FnMut(&Old) -> bool,
        shared: &mut Shared,
        around: &mut Surroundings<'_>,
    ) {
        for old in self.old.extract_if(.., |old| is_over(old)) {
            old.live.retire(shared, around);
        }
    }

    fn retire_current(&mut self, shared: &mut Shared, around: &mut Surroundings<'_>) {
        if let Some(current) = self.current.take() {
            current.retire(shared, around);
            shared.outputs.push_back(Output::Down { peer: self.peer });
        }
    }
}

/// Why a first message was not accepted.
enum Refused {
    /// It does not open, or makes no sense.
    Handshake,
    /// Another node's, or no member's.
    NotThePeer,
    /// Not later than the last that was accepted.
    Replay,
}

impl From<HandshakeError> for Refused {
    fn from(why: HandshakeError) -> Self {
        match why {
            HandshakeError::Cipher
            | HandshakeError::Noise(_)
            | HandshakeError::Payload
            | HandshakeError::Version(_) => Self::Handshake,
        }
    }
}
