//! The keys that sessions with the peer have, by what they are good for. The bytes themselves are with the workers.

use std::time::{Duration, Instant};

use weft_types::Boot;

use super::attempt::Retry;
use crate::keys::{Cipher, SessionIndex, SessionKeys};
use crate::session::around::{Output, Shared, Surroundings};
use crate::session::handshake::Agreed;

/// Every key is wiped this long after its handshake, used or not (WireGuard's REJECT_AFTER_TIME).
pub(super) const KEY_LIFE: Duration = Duration::from_secs(180);
/// What is used for no longer than this is not replaced: one broadcast would else keep the sessions of a whole mesh.
pub(super) const SETTLED_AFTER: Duration = Duration::from_secs(60);
/// A used session is replaced after this: a minute is left for trying.
const REKEY_AFTER: Duration = Duration::from_secs(120);
/// The responder waits this much longer, so that as a rule only one side begins.
const RESPONDER_LAG: Duration = Duration::from_secs(5);
/// How long replaced keys still receive: anything on the way has arrived or is lost.
pub(super) const OVERLAP: Duration = Duration::from_secs(10);
/// What was replaced, and an answer to the peer that our own handshake overtook; as many again to spare.
pub(super) const MAX_OLD: usize = 4;
/// Bytes at the start of a first message that tell it from every other: its ephemeral key.
pub(super) const EPHEMERAL_LEN: usize = 32;

/// Keys that we receive by, and send by if they are current.
pub(super) struct Live {
    pub(super) local: SessionIndex,
    pub(super) remote: SessionIndex,
    pub(super) cipher: Cipher,
    pub(super) boot: Boot,
    pub(super) since: Instant,
    /// Since its first minute.
    pub(super) used: bool,
    pub(super) side: Side,
}

/// Who began a session.
pub(super) enum Side {
    /// We began it; CONFIRM is repeated until it is answered.
    Initiator { confirm: Option<Retry> },
    /// We answered.
    Responder,
}

/// Keys that we answered with. The peer has them if our answer arrived.
pub(super) struct Pending {
    pub(super) live: Live,
    pub(super) ephemeral: [u8; EPHEMERAL_LEN],
    pub(super) answer: Vec<u8>,
}

/// Keys that were replaced.
pub(super) struct Old {
    pub(super) live: Live,
    pub(super) until: Instant,
}

impl Live {
    pub(super) fn new(agreed: &Agreed, side: Side, now: Instant) -> Self {
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

    pub(super) fn rekey_at(&self) -> Instant {
        match self.side {
            Side::Initiator { .. } => self.since + REKEY_AFTER,
            Side::Responder => self.since + REKEY_AFTER + RESPONDER_LAG,
        }
    }

    pub(super) fn dies_at(&self) -> Instant {
        self.since + KEY_LIFE
    }

    pub(super) fn retire(self, shared: &mut Shared, around: &mut Surroundings<'_>) {
        around.indices.release(self.local);
        shared
            .outputs
            .push_back(Output::Retire { index: self.local });
    }
}
