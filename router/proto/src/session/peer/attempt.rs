//! Our own handshake with the peer: out, or put off.

use std::time::{Duration, Instant};

use super::PeerSessions;
use crate::session::handshake::Initiation;
use crate::session::manager::{Shared, Surroundings, Via};
use crate::session::message::Message;

/// The first repetition: later than most round trips, earlier than a person's patience.
const FIRST_RETRY: Duration = Duration::from_millis(300);
/// Repetitions double up to this.
const MAX_RETRY: Duration = Duration::from_secs(5);
/// A rekey that gets no answer inside the session goes over the control plane from here on.
const FALLBACK_AFTER: Duration = Duration::from_secs(1);
/// How long the other side's handshake is given before we begin one of our own.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// A first message is repeated for this long, then made anew. Much shorter than the answer to it lives at the peer.
const ATTEMPT_LIFE: Duration = Duration::from_secs(30);

pub(super) enum Attempt {
    /// Begins at this time, if it is still needed then.
    Deferred { at: Instant },
    /// The first message is out.
    Sent(Sent),
}

pub(super) struct Sent {
    pub(super) initiation: Initiation,
    pub(super) bytes: Vec<u8>,
    pub(super) since: Instant,
    pub(super) retry: Retry,
}

#[derive(Clone, Copy)]
pub(super) struct Retry {
    pub(super) at: Instant,
    pub(super) pause: Duration,
}

impl Retry {
    pub(super) fn begin(now: Instant) -> Self {
        Self {
            at: now + FIRST_RETRY,
            pause: FIRST_RETRY,
        }
    }

    pub(super) fn next(self, now: Instant) -> Self {
        let pause = (self.pause * 2).min(MAX_RETRY);
        Self {
            at: now + pause,
            pause,
        }
    }
}

impl PeerSessions {
    pub(super) fn retry(
        &mut self,
        shared: &mut Shared,
        around: &mut Surroundings<'_>,
        now: Instant,
    ) {
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

    /// Sends a first message, at once or as soon as it makes sense. Sets `attempt` in any case.
    pub(super) fn begin(
        &mut self,
        shared: &mut Shared,
        around: &mut Surroundings<'_>,
        now: Instant,
    ) {
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
    pub(super) fn abandon(&mut self, around: &mut Surroundings<'_>) -> bool {
        let Some(Attempt::Sent(sent)) = self
            .attempt
            .take_if(|attempt| matches!(attempt, Attempt::Sent(_)))
        else {
            return false;
        };
        around.indices.release(sent.initiation.index());
        true
    }
}
