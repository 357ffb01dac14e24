//! Remembers the probes that wait for their answers: those of ways, and those of pings.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use weft_types::NodeId;

use crate::io::{MAX_PINGS, MAX_PROBES, PathAnswer};
use crate::overlay::{Slot, Via};
use crate::sleeve::SessionIndex;
use crate::sleeve::path_probe::PathReply;

/// How many wait at most: eleven a second for each of a hundred peers, each for the longest round trip there is.
const MAX_ASKED: usize = 4096;

/// A way shall be probed.
pub struct PathQuestion {
    /// Whose end answers.
    pub(super) peer: NodeId,
    /// The way.
    pub(super) via: Via,
    /// Whose lanes it uses and asks about.
    pub(super) slot: Option<Slot>,
    /// Comes back.
    pub(super) id: u64,
    /// Bytes of the sealed datagram.
    pub(super) datagram: u16,
}

/// A probe that has left.
pub(super) struct Asked {
    pub(super) peer: NodeId,
    pub(super) id: u64,
    pub(super) session: SessionIndex,
    /// How many datagrams of frames had left before it.
    pub(super) sent: u64,
    /// For how many more the socket was too full.
    pub(super) refused: u64,
    pub(super) at: Instant,
}

/// The probes that have left, oldest first. A new one makes the oldest forgotten where there are too many.
#[derive(Default)]
pub(super) struct PathProbes {
    asked: VecDeque<Asked>,
}

impl PathProbes {
    pub(super) fn note(&mut self, asked: Asked) {
        if self.asked.len() == MAX_ASKED {
            self.asked.pop_front();
        }
        self.asked.push_back(asked);
    }

    /// What an answer tells; nothing if nobody asked, or it was answered before. `since` says how long ago a probe left.
    pub(super) fn answered(
        &mut self,
        peer: NodeId,
        reply: PathReply,
        since: impl FnOnce(Instant) -> Duration,
    ) -> Option<PathAnswer> {
        // Of several the newest: a peer that was away is asked under the numbers of before.
        let found = |asked: &Asked| (asked.peer, asked.id) == (peer, reply.id);
        let asked = self.asked.remove(self.asked.iter().rposition(found)?)?;
        Some(PathAnswer {
            peer,
            id: reply.id,
            rtt: since(asked.at),
            seen_at: reply.seen_at,
            session: asked.session,
            sent: asked.sent,
            highest: reply.highest,
            received: reply
                .received
                .saturating_add(asked.refused)
                .min(reply.highest),
        })
    }
}

/// The probes of pings that have left, by their numbers, which grow. A new one makes the oldest forgotten where there are
/// more than all pings together may have out.
#[derive(Default)]
pub(super) struct Probes {
    asked: BTreeMap<u64, (NodeId, Instant)>,
}

impl Probes {
    pub(super) fn note(&mut self, peer: NodeId, id: u64, now: Instant) {
        if self.asked.len() == MAX_PINGS * MAX_PROBES {
            self.asked.pop_first();
        }
        self.asked.insert(id, (peer, now));
    }

    /// When the probe left that a peer answers; nothing if it was not asked, or has answered before.
    pub(super) fn answered(&mut self, peer: NodeId, id: u64) -> Option<Instant> {
        self.asked.get(&id).filter(|(whom, _)| *whom == peer)?;
        self.asked.remove(&id).map(|(_, sent)| sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::testing::origin;

    const PEER: NodeId = NodeId::new([1; 32]);

    fn asked(id: u64, at: Instant) -> Asked {
        Asked {
            peer: PEER,
            id,
            session: SessionIndex(3),
            sent: 4,
            refused: 1,
            at,
        }
    }

    const fn reply(id: u64) -> PathReply {
        PathReply {
            id,
            highest: 9,
            received: 6,
            seen_at: None,
        }
    }

    #[test]
    fn an_answer_is_to_the_newest_probe_of_its_number() {
        let (start, second) = (origin(), Duration::from_secs(1));
        let mut probes = PathProbes::default();
        probes.note(asked(1, start));
        probes.note(asked(1, start + 60 * second));

        let answer = probes.answered(PEER, reply(1), |at| start + 61 * second - at);

        assert_eq!(answer.unwrap().rtt, second);
    }

    #[test]
    fn a_probe_is_answered_once_and_by_whom_it_asked() {
        let start = origin();
        let now = start + Duration::from_millis(20);
        let mut probes = PathProbes::default();
        probes.note(asked(1, start));
        probes.note(asked(2, start));

        let since = |at| now - at;
        assert_eq!(probes.answered(NodeId::new([2; 32]), reply(2), since), None);
        let answer = probes.answered(PEER, reply(2), since).unwrap();
        assert_eq!((answer.rtt, answer.sent), (now - start, 4));
        assert_eq!((answer.highest, answer.received), (9, 7));
        assert_eq!(probes.answered(PEER, reply(2), since), None);
        assert_eq!(probes.answered(PEER, reply(3), since), None);
    }

    #[test]
    fn pings_push_out_no_probe_of_each_other() {
        let (mut probes, start) = (Probes::default(), origin());
        let last = (MAX_PINGS * MAX_PROBES) as u64;

        for id in 1..=last {
            probes.note(PEER, id, start);
        }

        assert_eq!(probes.answered(NodeId::new([2; 32]), 1), None);
        assert_eq!(probes.answered(PEER, 1), Some(start));
        assert_eq!(probes.answered(PEER, 1), None);
        // Beyond that it is the oldest that goes.
        for id in last + 1..=last + 2 {
            probes.note(PEER, id, start);
        }
        assert_eq!(probes.asked.len(), MAX_PINGS * MAX_PROBES);
        assert_eq!(probes.answered(PEER, 2), None);
        assert_eq!(probes.answered(PEER, 3), Some(start));
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let start = origin();
        let mut probes = PathProbes::default();
        for id in 0..=MAX_ASKED as u64 {
            probes.note(asked(id, start));
        }

        assert_eq!(probes.asked.len(), MAX_ASKED);
        assert_eq!(probes.answered(PEER, reply(0), |at| start - at), None);
        assert!(probes.answered(PEER, reply(1), |at| start - at).is_some());
    }
}
