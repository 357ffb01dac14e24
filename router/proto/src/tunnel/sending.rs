//! Holds the sessions that a peer is sent to by: the one in use, and those that wait to be heard under.
//!
//! ```text
//!   Install ─▶ in use ◀── promote: the peer was heard under it ── held ◀─ Hold
//!                │ Retire, or a lane is used up                    │ Retire; Install: what is held is older;
//!                ▼                                                 ▼ a third: the oldest
//!              wiped                                             wiped
//! ```
//!
//! **Invariant.** A late datagram under an old session takes sending back to it never.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrayvec::ArrayVec;
use weft_types::NodeId;

use crate::overlay::Slot;
use crate::sleeve::SessionIndex;
use crate::sleeve::lane::{SendLane, SendLanes};

/// How many sessions may be waiting to be heard under: one rekey from either side.
const MAX_HELD: usize = 2;

/// One half's end of a session.
pub struct SendSession {
    /// Our index of the session.
    pub(super) local: SessionIndex,
    /// Seal.
    pub(super) lanes: SendLanes,
    /// Frames' datagrams for which the socket was too full, by slot: their counters are spent, and no way has lost them.
    /// Both halves have the same.
    pub(super) refused: Arc<[AtomicU64; Slot::COUNT as usize]>,
}

/// What happens to the sessions that are sent by.
pub enum SessionChange {
    /// Send by this.
    Install {
        /// To whom.
        peer: NodeId,
        /// This.
        session: SendSession,
    },
    /// Send by this once the peer was heard under it.
    Hold {
        /// To whom.
        peer: NodeId,
        /// This.
        session: SendSession,
    },
    /// The peer was heard under a held session.
    Promote {
        /// Whose.
        peer: NodeId,
        /// Our index of it.
        index: SessionIndex,
    },
    /// Wipe it.
    Retire {
        /// Our index of it.
        index: SessionIndex,
    },
}

/// The sessions that one peer is sent to by.
#[derive(Default)]
pub(super) struct Sending {
    in_use: Option<SendSession>,
    held: ArrayVec<SendSession, MAX_HELD>,
}

impl Sending {
    pub(super) fn install(&mut self, session: SendSession) {
        self.held.clear();
        self.in_use = Some(session);
    }

    pub(super) fn hold(&mut self, session: SendSession) {
        if self.held.is_full() {
            self.held.remove(0);
        }
        self.held.push(session);
    }

    /// Sends by a held session from here on; false if it is not held any longer.
    pub(super) fn promote(&mut self, index: SessionIndex) -> bool {
        let found = self.held.iter().position(|held| held.local == index);
        let promoted = found.map(|at| self.held.remove(at));
        let found = promoted.is_some();
        self.in_use = promoted.or_else(|| self.in_use.take());
        found
    }

    pub(super) fn retire(&mut self, index: SessionIndex) {
        self.in_use.take_if(|session| session.local == index);
        self.held.retain(|session| session.local != index);
    }

    /// Ends the session in use: it is used up.
    pub(super) fn end(&mut self) {
        self.in_use = None;
    }

    pub(super) const fn in_use(&self) -> Option<&SendSession> {
        self.in_use.as_ref()
    }

    /// What seals on a lane of the session in use.
    pub(super) fn lane(&mut self, lane: u16) -> Option<&mut SendLane> {
        self.in_use.as_mut()?.lanes.lane(lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::seal::Backend;
    use crate::session::{Cipher, SessionKeys};
    use crate::sleeve::lane::Part;

    fn session(index: u32) -> SendSession {
        let keys = SessionKeys {
            local: SessionIndex(index),
            remote: SessionIndex(index),
            cipher: Cipher::Aes256Gcm,
            send: [1; 32],
            receive: [2; 32],
        };
        SendSession {
            local: keys.local,
            lanes: SendLanes::new(&keys, Part::Frames, Backend::Ring),
            refused: Arc::default(),
        }
    }

    fn in_use(sending: &Sending) -> Option<u32> {
        sending.in_use().map(|session| session.local.0)
    }

    #[test]
    fn a_held_session_takes_over_when_the_peer_is_heard_under_it() {
        let mut sending = Sending::default();
        sending.install(session(1));
        sending.hold(session(2));
        assert_eq!(in_use(&sending), Some(1));

        assert!(sending.promote(SessionIndex(2)));
        assert_eq!(in_use(&sending), Some(2));
        assert!(!sending.promote(SessionIndex(2)));
        assert_eq!(in_use(&sending), Some(2));
    }

    #[test]
    fn a_late_datagram_under_a_held_session_does_not_take_sending_back() {
        let mut sending = Sending::default();
        sending.hold(session(1));
        sending.install(session(2));

        assert!(!sending.promote(SessionIndex(1)));
        assert_eq!(in_use(&sending), Some(2));
    }

    #[test]
    fn a_third_that_waits_makes_the_oldest_forgotten() {
        let mut sending = Sending::default();
        for index in 1..=3 {
            sending.hold(session(index));
        }

        assert!(!sending.promote(SessionIndex(1)));
        assert!(sending.promote(SessionIndex(2)) && sending.promote(SessionIndex(3)));
    }

    #[test]
    fn what_is_retired_is_neither_sent_by_nor_promoted() {
        let mut sending = Sending::default();
        sending.install(session(1));
        sending.hold(session(2));

        sending.retire(SessionIndex(2));
        assert!(!sending.promote(SessionIndex(2)));
        assert_eq!(in_use(&sending), Some(1));
        sending.retire(SessionIndex(1));
        assert_eq!(in_use(&sending), None);
    }
}
