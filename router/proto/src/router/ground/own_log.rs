//! What of our own log of the membership is known, and what waits for it.
//!
//! A disk that was restored from a copy lacks the end of our log, and a record added then would fork it: so after a start
//! nothing is added until a member has told how far it goes, or nobody is there to.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weft_types::{Code, Problem};

use crate::io::{Command, ConnId, Reply, RequestId, Ticket};
use crate::membership::MembershipDelta;
use crate::wire::envelope::Signed;

/// How long a node that was started waits to hear from others how far its own log goes.
const WORD: Duration = Duration::from_secs(2);
/// How much waits for that.
const MAX_WAITING: usize = 64;

/// Whether this node knows how far its own log goes, and what waits for it.
#[derive(Default)]
pub(crate) struct OwnLog {
    /// Until when a member's word is waited for.
    until: Option<Instant>,
    waiting: Vec<Waiting>,
    /// Records that are being saved, and the commands that they answer.
    pub(super) telling: BTreeMap<Ticket, (MembershipDelta, Option<(RequestId, Reply)>)>,
    /// Records that are being saved for somebody else and nobody was told of.
    pub(crate) untold: BTreeMap<Ticket, Signed>,
}

/// What would add a record.
pub(crate) enum Waiting {
    Admission(ConnId),
    Command(RequestId, Command),
}

impl OwnLog {
    /// Waits, if there is anybody to tell.
    pub(crate) fn ask(&mut self, others: bool, now: Instant) {
        self.until = others.then(|| now + WORD);
    }

    /// Whether a member's word is still waited for.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.until.is_some()
    }

    /// Puts something off; gives it back if too much waits already.
    pub(crate) fn put_off(&mut self, waiting: Waiting) -> Result<(), Waiting> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(waiting);
        }
        self.waiting.push(waiting);
        Ok(())
    }

    /// The log may be added to: a member has told how far it goes, or nobody does. Gives what has waited.
    pub(crate) fn known(&mut self) -> Vec<Waiting> {
        self.until = None;
        std::mem::take(&mut self.waiting)
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.until.map(|at| (at, "nobody tells of our log"))
    }

    /// What a durable save is to be followed by: this is told, then that answered, unless it was.
    pub(crate) fn told(
        &mut self,
        ticket: Ticket,
    ) -> Option<(MembershipDelta, Option<(RequestId, Reply)>)> {
        self.telling.remove(&ticket)
    }

    /// A save failed: who is to be told. The record is in the log, and told when it is durable at last.
    pub(crate) fn not_told(&mut self, ticket: Ticket) -> Option<(RequestId, Reply)> {
        self.telling.get_mut(&ticket)?.1.take()
    }
}

/// A command came when more of them wait than are kept.
pub(crate) fn too_early() -> Problem {
    Problem::new(
        Code::Internal,
        "this node does not know yet what it has signed before",
    )
    .why("it was started a moment ago, and too many commands wait already")
    .fix("Try again in a few seconds")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::testing::origin;

    fn waiting(id: u64) -> Waiting {
        Waiting::Command(RequestId(id), Command::Leave)
    }

    #[test]
    fn a_members_word_is_waited_for_two_seconds_and_not_by_who_is_alone() {
        let (mut log, now) = (OwnLog::default(), origin());

        log.ask(false, now);
        let alone = log.is_waiting();
        log.ask(true, now);

        assert!(!alone);
        assert!(log.is_waiting());
        assert!(!log.is_due(now + WORD - Duration::from_millis(1)));
        assert!(log.is_due(now + WORD));
    }

    #[test]
    fn what_was_put_off_comes_in_order_and_once() {
        let (mut log, now) = (OwnLog::default(), origin());
        log.ask(true, now);
        for id in 0..3 {
            assert!(log.put_off(waiting(id)).is_ok());
        }

        let known = log.known();
        let ids = known.iter().map(|waiting| match waiting {
            Waiting::Command(RequestId(id), _) => Some(*id),
            Waiting::Admission(_) => None,
        });

        assert_eq!(ids.collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
        assert!(!log.is_waiting());
        assert!(log.known().is_empty());
    }

    #[test]
    fn one_thing_more_than_may_wait_is_given_back() {
        let mut log = OwnLog::default();

        for id in 0..64 {
            assert!(log.put_off(waiting(id)).is_ok());
        }

        assert!(matches!(
            log.put_off(waiting(64)),
            Err(Waiting::Command(RequestId(64), _))
        ));
    }
}
