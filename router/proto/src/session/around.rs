//! What the sessions of every peer have around them: what they look up, what they share, what they want done.

use std::collections::VecDeque;

use weft_types::NodeId;

use super::handshake::Local;
use super::index::IndexAllocator;
use crate::crypto::Crypto;
use crate::crypto::noise::NoisePublic;
use crate::keys::{Cipher, SessionIndex, SessionKeys};

/// Something shall happen.
#[derive(Debug)]
pub enum Output {
    /// No session with the peer is left.
    Down {
        /// Which peer.
        peer: NodeId,
    },
    /// Send and receive by these.
    Install {
        /// Whose.
        peer: NodeId,
        /// Both directions.
        keys: SessionKeys,
    },
    /// Receive by these, and send by them once something arrived under them.
    InstallReceiving {
        /// Whose.
        peer: NodeId,
        /// Both directions.
        keys: SessionKeys,
    },
    /// Signed endpoint registers came along with a handshake: take them in before the first frame.
    Registers {
        /// From whom.
        peer: NodeId,
        /// As they were sent; not checked.
        registers: Vec<Vec<u8>>,
    },
    /// Wipe a session.
    Retire {
        /// Our index of it.
        index: SessionIndex,
    },
    /// Send inside the peer's session, the last one that was installed for sending.
    SessionMessage {
        /// To whom.
        to: NodeId,
        /// At most [`super::message::MAX_IN_SESSION`].
        bytes: Vec<u8>,
    },
    /// Send over the control plane.
    Unicast {
        /// To whom.
        to: NodeId,
        /// A session message, which carries its own seal.
        bytes: Vec<u8>,
    },
    /// There is a session with the peer where none was.
    Up {
        /// Which peer.
        peer: NodeId,
    },
}

/// Which way a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Out of a session with its sender.
    Session,
    /// Over the control plane; who sent it is a claim.
    Unicast,
}

/// What both nodes' signed records say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerFacts {
    /// The peer's X25519 key.
    pub key: NoisePublic,
    /// Which AEAD the two use: [`Cipher::between`].
    pub cipher: Cipher,
}

/// What sessions look up in the rest of the router.
pub trait Directory {
    /// A peer's facts; `None` where it is no member, or its record is not known yet.
    fn facts(&self, peer: NodeId) -> Option<PeerFacts>;

    /// Our own signed endpoint registers, to go along with a first handshake.
    fn registers(&self) -> Vec<Vec<u8>>;
}

/// What sessions share with the rest of the router.
pub struct Surroundings<'a> {
    /// Chance.
    pub crypto: &'a mut dyn Crypto,
    /// The indices in use, those of links too.
    pub indices: &'a mut IndexAllocator,
    /// Facts about others.
    pub directory: &'a dyn Directory,
}

/// For `weft status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Handshakes that were given up, or did not open.
    pub failures: u64,
    /// Sessions that took another's place.
    pub rekeys: u64,
    /// First messages that were heard before.
    pub replays: u64,
}

/// What the peers' machines share.
pub(super) struct Shared {
    pub(super) local: Local,
    /// Handshakes begun in this run.
    pub(super) handshakes: u64,
    /// Messages cut into parts in this run.
    pub(super) cut: u16,
    pub(super) counters: Counters,
    pub(super) outputs: VecDeque<Output>,
}

impl Shared {
    /// Nothing has happened yet.
    pub(super) fn new(local: Local) -> Self {
        Self {
            local,
            handshakes: 0,
            cut: 0,
            counters: Counters::default(),
            outputs: VecDeque::new(),
        }
    }
}
