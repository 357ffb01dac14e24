//! TCP connections: from the first byte until they are a member's link, or over.
//!
//! ```text
//!   Handshaking ─▶ Joining (we hold a token) ─────────────────▶ Linked ─▶ closed
//!        │  └────▶ Admitting (they hold one) ──────────────────▶ │
//!        └───────▶ Proving (we do not know them yet) ──────────▶ │
//! ```
//!
//! *Proving* is for a member whose admission has not reached us: it holds the door key, so it may bring the records that
//! prove it. All it can send until then is membership.

use std::net::SocketAddr;
use std::time::Instant;

use weft_types::NodeId;

use crate::gossip::exchange::Exchange;
use crate::handshake::{ControlChannel, HandshakeError, Other};
use crate::membership::MembershipDelta;

/// Messages of a link that came before we were ready for it, in bytes.
const MAX_EARLY: usize = 2 << 20;

/// One TCP connection.
pub(crate) struct Conn {
    pub(super) channel: Option<ControlChannel>,
    /// Where it leads, or where it came from.
    pub(crate) remote: SocketAddr,
    pub(crate) other: Option<Other>,
    pub(crate) stage: Stage,
    /// Bytes given to the driver that have not left yet.
    pub(crate) unsent: usize,
    /// What a link sent before we were ready for it.
    pub(super) early: Vec<Vec<u8>>,
    /// What is exchanged with a node that must prove to be a member.
    pub(crate) proof: Option<Exchange<MembershipDelta>>,
    /// It is closed from our side: nothing that comes on it counts any more.
    pub(crate) closing: bool,
    pub(super) refused: bool,
    /// The driver was told that a stranger is none.
    pub(super) told: bool,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The TCP connection is being made.
    Dialling,
    Handshaking,
    /// A joiner waits for its admission.
    Admitting,
    /// We wait for our welcome, or for it to be durable.
    Joining {
        until: Instant,
    },
    /// A member's, in use.
    Linked,
    /// A member at the door: one of us may have to bring the records that prove it, and a dialler waits for the first
    /// word of a link, which tells that the listener took it (`confirmed`).
    Proving {
        until: Instant,
        confirmed: bool,
    },
}

/// What a connection has brought.
pub(crate) enum ConnEvent {
    Authenticated(Box<Other>),
    Failed(HandshakeError),
    Genesis(Vec<u8>),
    Message(Vec<u8>),
    /// What its channel wants sent after what it told.
    Send(Vec<u8>),
}

impl Conn {
    pub(crate) fn new(remote: SocketAddr, stage: Stage) -> Self {
        Self {
            channel: None,
            remote,
            other: None,
            stage,
            unsent: 0,
            early: Vec::new(),
            proof: None,
            closing: false,
            refused: false,
            told: false,
        }
    }

    /// Who is at the other end, once that is proved.
    pub(crate) fn node(&self) -> Option<NodeId> {
        self.other.as_ref().map(|other| other.node)
    }

    /// When its stage takes too long.
    pub(super) const fn overdue_at(&self) -> Option<(Instant, &'static str)> {
        match self.stage {
            Stage::Joining { until } => Some((until, "a welcome takes too long")),
            Stage::Proving { until, .. } => Some((until, "a proof of membership takes too long")),
            Stage::Admitting | Stage::Dialling | Stage::Handshaking | Stage::Linked => None,
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if self.closing {
            return None;
        }
        let channel = self.channel.as_ref().and_then(ControlChannel::poll_timeout);
        [self.overdue_at(), channel].into_iter().flatten().min()
    }

    /// Holds back what came too early, as far as there is room.
    pub(super) fn hold(&mut self, bytes: Vec<u8>) {
        let held: usize = self.early.iter().map(Vec::len).sum();
        if held + bytes.len() <= MAX_EARLY {
            self.early.push(bytes);
        }
    }
}
