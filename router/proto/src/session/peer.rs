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
//! [`MAX_OLD`].
//!
//! Both sides may begin at once. The smaller node's handshake wins: it ignores the other's first message while its own
//! is out, and the larger one gives its own up when it answers. So of two sessions that both sides complete, both
//! complete the same one last.

use std::time::{Duration, Instant};

use weft_types::{Boot, NodeId};

use super::handshake::{Agreed, HandshakeError, Initiation, Received};
use super::manager::{Output, Shared, Surroundings, Via};
use super::message::{self, Assembly, Message};
use super::{Cipher, SessionKeys};
use crate::sleeve::SessionIndex;

/// Every key is wiped this long after its handshake, used or not (WireGuard's REJECT_AFTER_TIME).
pub(super) const KEY_LIFE: Duration = Duration::from_secs(180);
/// A used session is replaced after this: a minute is left for trying.
const REKEY_AFTER: Duration = Duration::from_secs(120);
/// The responder waits this much longer, so that as a rule only one side begins.
const RESPONDER_LAG: Duration = Duration::from_secs(5);
/// How long replaced keys still receive: anything on the way has arrived or is lost.
const OVERLAP: Duration = Duration::from_secs(10);
/// What was replaced, and an answer to the peer that our own handshake overtook; as many again to spare.
const MAX_OLD: usize = 4;
/// A frame waits for its session 1 s at most; who still has frames says so again.
const WANT_LASTS: Duration = Duration::from_secs(5);
/// The first repetition: later than most round trips, earlier than a person's patience.
const FIRST_RETRY: Duration = Duration::from_millis(300);
/// Repetitions double up to this.
const MAX_RETRY: Duration = Duration::from_secs(5);
/// A rekey that gets no answer inside the session goes over the control plane from here on.
const FALLBACK_AFTER: Duration = Duration::from_secs(1);
/// How long the other side's handshake is given before we begin one of our own.
const PATIENCE: Duration = Duration::from_secs(1);
/// A first message is repeated for this long, then made anew. Much shorter than the answer to it lives at the peer.
const ATTEMPT_LIFE: Duration = Duration::from_secs(30);
/// Bytes at the start of a first message that tell it from every other: its ephemeral key.
const EPHEMERAL_LEN: usize = 32;

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
}

enum Attempt {
    /// Begins at this time, if it is still needed then.
    Deferred { at: Instant },
    /// The first message is out.
    Sent(Sent),
}

struct Sent {
    initiation: Initiation,
    bytes: Vec<u8>,
    since: Instant,
    retry: Retry,
}

#[derive(Clone, Copy)]
struct Retry {
    at: Instant,
    pause: Duration,
}

impl Retry {
    fn begin(now: Instant) -> Self {
        Self {
            at: now + FIRST_RETRY,
            pause: FIRST_RETRY,
        }
    }

    fn next(self, now: Instant) -> Self {
        let pause = (self.pause * 2).min(MAX_RETRY);
        Self {
            at: now + pause,
            pause,
        }
    }
}

/// Keys that we receive by, and send by if they are current.
struct Live {
    local: SessionIndex,
    remote: SessionIndex,
    cipher: Cipher,
    boot: Boot,
    since: Instant,
    used: bool,
    side: Side,
}

enum Side {
    /// We began it; CONFIRM is repeated until it is answered.
    Initiator { confirm: Option<Retry> },
    /// We answered.
    Responder,
}

struct Pending {
    live: Live,
    ephemeral: [u8; EPHEMERAL_LEN],
    answer: Vec<u8>,
}

struct Old {
    live: Live,
    until: Instant,
}

impl Live {
    fn new(agreed: &Agreed, side: Side, now: Instant) -> Self {
        let SessionKeys {
            local,
            remote,
            cipher,
            ..
        } = agreed.keys;
        Self {
            local,
            remote,
            cipher,
            boot: agreed.boot,
            since: now,
            used: false,
            side,
        }
    }

    fn rekey_at(&self) -> Instant {
        match self.side {
            Side::Initiator { .. } => self.since + REKEY_AFTER,
            Side::Responder => self.since + REKEY_AFTER + RESPONDER_LAG,
        }
    }

    fn dies_at(&self) -> Instant {
        self.since + KEY_LIFE
    }

    fn retire(self, shared: &mut Shared, around: &mut Surroundings<'_>) {
        around.indices.release(self.local);
        shared
            .outputs
            .push_back(Output::Retire { index: self.local });
    }
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
        }
    }

    pub(super) fn want(
        &mut self,
        shared: &mut Shared,
        around: &mut Surroundings<'_>,
        now: Instant,
    ) {
        self.wanted_until = Some(now + WANT_LASTS);
        if self.current.is_none() && self.attempt.is_none() {
            self.begin(shared, around, now);
        }
    }

    pub(super) fn note_used(&mut self, now: Instant) {
        if let Some(current) = &mut self.current
            && now > current.since
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

    fn retry(&mut self, shared: &mut Shared, around: &mut Surroundings<'_>, now: Instant) {
        let needed = self.is_needed(now);
        let Some(Attempt::Sent(sent)) = &mut self.attempt else {
            return;
        };
        if needed && now < sent.since + ATTEMPT_LIFE {
            sent.retry = sent.retry.next(now);
            let bytes = sent.bytes.clone();
            let fallback = sent.since + FALLBACK_AFTER;
            let via = if now < fallback {
                Via::Session
            } else {
                Via::Unicast
            };
            if via == Via::Session && self.current.is_some() {
                sent.retry.at = sent.retry.at.min(fallback);
            }
            self.send(bytes, via, shared);
            return;
        }
        shared.counters.failures += 1;
        self.abandon(around);
        if needed {
            self.begin(shared, around, now);
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
        match self.make_first(shared, around, now) {
            Some(sent) => {
                let bytes = sent.bytes.clone();
                self.attempt = Some(Attempt::Sent(sent));
                self.send(bytes, Via::Session, shared);
            }
            None => self.attempt = Some(Attempt::Deferred { at: now + PATIENCE }),
        }
    }

    fn make_first(
        &self,
        shared: &mut Shared,
        around: &mut Surroundings<'_>,
        now: Instant,
    ) -> Option<Sent> {
        let facts = around.directory.facts(self.peer)?;
        let registers = self.registers_to_send(around);
        let index = around.indices.allocate(around.crypto);
        shared.handshakes += 1;
        let begun = Initiation::begin(
            &shared.local,
            &facts.key,
            shared.handshakes,
            index,
            facts.cipher,
            registers,
            around.crypto,
        );
        let Ok((initiation, noise)) = begun else {
            around.indices.release(index);
            shared.counters.failures += 1;
            return None;
        };
        Some(Sent {
            initiation,
            bytes: Message::Initiate(&noise).encode(),
            since: now,
            retry: Retry::begin(now),
        })
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
