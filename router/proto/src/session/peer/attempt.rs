//! Our own handshake with the peer: out, or put off.

use std::time::{Duration, Instant};

use weft_types::NodeId;

use crate::session::around::{Shared, Surroundings, Via};
use crate::session::handshake::Initiation;
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

impl Sent {
    /// Makes a first message to a peer; `None` if nothing is known of it, or its key is none.
    pub(super) fn make(
        peer: NodeId,
        registers: Vec<Vec<u8>>,
        shared: &mut Shared,
        around: &mut Surroundings<'_>,
        now: Instant,
    ) -> Option<Self> {
        let facts = around.directory.facts(peer)?;
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
        Some(Self {
            initiation,
            bytes: Message::Initiate(&noise).encode(),
            since: now,
            retry: Retry::begin(now),
        })
    }

    /// Whether it is still worth repeating.
    pub(super) fn lives(&self, now: Instant) -> bool {
        now < self.since + ATTEMPT_LIFE
    }

    /// Takes its turn of being repeated: by which way. Within a session for a second only, where there is one.
    pub(super) fn again(&mut self, within: bool, now: Instant) -> Via {
        self.retry = self.retry.next(now);
        let fallback = self.since + FALLBACK_AFTER;
        if now >= fallback {
            return Via::Unicast;
        }
        if within {
            self.retry.at = self.retry.at.min(fallback);
        }
        Via::Session
    }
}
