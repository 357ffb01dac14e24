//! Keeps one topic equal at both ends of one link.
//!
//! ```text
//!   ours ── Digest ────────────────────────▶ theirs     equal: nothing else is said
//!        ◀───────────────────── Summary ────            they differ: what is there
//!        ── Delta… , Summary (answer) ──────▶           what is missing there, and what is here
//!        ◀───────────────────────── Delta… ─            what is missing here
//! ```
//!
//! News passes through the same queue as what is missing, named by the node that began the broadcast. Digests are
//! compared when the link comes up, [`SETTLE`] after news, and every [`PERIOD`] of silence; one that was heard postpones
//! our own, so that one end of a quiet link speaks.
//!
//! **Invariant.** After `handle_timeout(t)` the next deadline is later than `t`. Nothing is larger than [`MAX_MESSAGE`].
//! **Failure policy.** What does not decode is the caller's to count; nothing here changes.

use std::time::{Duration, Instant};

use minicbor::{Decode, Encode, decode};
use weft_types::NodeId;

use super::sender::Outbox;
use super::{Gossiped, Piece};
use crate::crypto::Crypto;
use crate::wire::{decode_whole, encode};

/// How often the ends of a quiet link compare: Weave's 30 s, which costs about 2 bytes a second.
pub const PERIOD: Duration = Duration::from_secs(30);
/// How long after news the ends compare: the tree has delivered by then, if views agreed.
pub const SETTLE: Duration = Duration::from_millis(500);
/// The most bytes of records in one message.
pub const MAX_DELTA: usize = 250 * 1024;
/// The most bytes of one message.
pub const MAX_MESSAGE: usize = 256 * 1024;

/// What is kept equal: each has an exchange of its own on every link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Topic {
    /// Who belongs to the mesh: logs.
    #[n(0)]
    Membership,
    /// What members say of themselves: registers of all channels.
    #[n(1)]
    Registers,
}

/// Names a state, so that the other end can compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DigestMessage {
    /// Of what.
    #[n(0)]
    pub topic: Topic,
    /// Equal where the states are.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub digest: [u8; 32],
}

/// Says what is there, so that the other end can send what is missing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SummaryMessage {
    /// Of what.
    #[n(0)]
    pub topic: Topic,
    /// In the topic's format.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub summary: Vec<u8>,
    /// Whether it answers a summary, and so is not answered by another.
    #[n(2)]
    pub answer: bool,
}

/// Carries news, or what was missing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DeltaMessage {
    /// Of what.
    #[n(0)]
    pub topic: Topic,
    /// Who began the broadcast that this is part of: it goes on along that node's tree. Absent where it answers a summary:
    /// then what is news begins a broadcast of the receiver's.
    #[n(1)]
    pub root: Option<NodeId>,
    /// In the topic's format.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub delta: Vec<u8>,
}

macro_rules! message {
    ($($name:ident),*) => {$(
        impl $name {
            /// Reads one, with nothing behind it.
            ///
            /// # Errors
            ///
            /// If it is none.
            pub fn decode(bytes: &[u8]) -> Result<Self, decode::Error> {
                decode_whole(bytes)
            }

            /// As it travels.
            pub fn encode(&self) -> Vec<u8> {
                encode(self)
            }
        }
    )*};
}

message!(DigestMessage, SummaryMessage, DeltaMessage);

/// What an exchange sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GossipMessage {
    /// News, or what was missing.
    Delta(DeltaMessage),
    /// The state's name.
    Digest(DigestMessage),
    /// What is there.
    Summary(SummaryMessage),
}

/// One topic on one link.
#[derive(Debug)]
pub struct Exchange<D> {
    topic: Topic,
    outbox: Outbox<D>,
    digest_owed: bool,
    /// Whether a summary is owed, and whether as an answer.
    summary_owed: Option<bool>,
    digest_at: Instant,
    /// How often in a row the states differed.
    mismatches: u32,
    /// What this end waits longer than the other, so that they seldom compare at once.
    courtesy: Duration,
}

impl<D: Piece> Exchange<D> {
    /// Begins with the link. The smaller node speaks first.
    pub fn new(topic: Topic, ourself: NodeId, peer: NodeId, now: Instant) -> Self {
        let courtesy = if ourself < peer {
            Duration::ZERO
        } else {
            SETTLE / 2
        };
        Self {
            topic,
            outbox: Outbox::default(),
            digest_owed: courtesy.is_zero(),
            summary_owed: None,
            digest_at: now + SETTLE + courtesy,
            mismatches: 0,
            courtesy,
        }
    }

    /// Owes the link news of a broadcast that began at `root`.
    pub fn push(&mut self, root: NodeId, news: D, now: Instant) {
        self.outbox.push(Some(root), news);
        self.note_news(now);
    }

    /// Compares soon: something changed here, whether or not the tree takes it over this link.
    pub fn note_news(&mut self, now: Instant) {
        self.digest_at = self.digest_at.min(now + SETTLE + self.courtesy);
    }

    /// Compares.
    pub fn handle_digest(
        &mut self,
        theirs: &DigestMessage,
        replica: &impl Gossiped<Delta = D>,
        crypto: &mut dyn Crypto,
        now: Instant,
    ) {
        self.digest_owed = false;
        if theirs.digest == replica.digest() {
            self.mismatches = 0;
            self.digest_at = now + self.period(crypto);
        } else {
            // Ends that cannot agree, since one keeps what the other does not, must not talk about it all day.
            let pause = SETTLE * (1 << self.mismatches.min(6));
            self.mismatches = self.mismatches.saturating_add(1);
            self.digest_at = now + pause.min(PERIOD) + self.courtesy;
            self.summary_owed.get_or_insert(false);
        }
    }

    /// Finds what is missing at the other end.
    ///
    /// # Errors
    ///
    /// If that is no summary.
    pub fn handle_summary(
        &mut self,
        theirs: &SummaryMessage,
        replica: &impl Gossiped<Delta = D>,
    ) -> Result<(), decode::Error> {
        let missing = replica.missing(&theirs.summary)?;
        self.outbox.push(None, missing);
        if !theirs.answer {
            self.summary_owed = Some(true);
        }
        Ok(())
    }

    /// Gives out the next message. The caller asks only while the link has less than [`MAX_MESSAGE`] unsent, which is
    /// what lets later news be folded into what waits.
    pub fn poll_message(&mut self, replica: &impl Gossiped<Delta = D>) -> Option<GossipMessage> {
        let topic = self.topic;
        if let Some((root, part)) = self.outbox.poll(MAX_DELTA) {
            let delta = part.encode();
            return Some(GossipMessage::Delta(DeltaMessage { topic, root, delta }));
        }
        if let Some(answer) = self.summary_owed.take() {
            let summary = replica.summary();
            return Some(GossipMessage::Summary(SummaryMessage {
                topic,
                summary,
                answer,
            }));
        }
        if std::mem::take(&mut self.digest_owed) {
            let digest = replica.digest();
            return Some(GossipMessage::Digest(DigestMessage { topic, digest }));
        }
        None
    }

    /// Whether the link is owed anything.
    pub fn is_idle(&self) -> bool {
        self.outbox.is_empty() && self.summary_owed.is_none() && !self.digest_owed
    }

    /// Says when the ends compare again.
    pub const fn poll_timeout(&self) -> (Instant, &'static str) {
        (self.digest_at, "a digest is due")
    }

    /// Compares, if it is time.
    pub fn handle_timeout(&mut self, crypto: &mut dyn Crypto, now: Instant) {
        if now >= self.digest_at {
            self.digest_owed = true;
            self.digest_at = now + self.period(crypto);
        }
    }

    /// [`PERIOD`] and up to a sixth of it.
    fn period(&self, crypto: &mut dyn Crypto) -> Duration {
        PERIOD + self.courtesy + Duration::from_millis(crypto.below(5000))
    }
}
