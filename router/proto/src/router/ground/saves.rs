//! What has to be durable before something else happens, and who waits for it.
//!
//! A part that asks for a save keeps what it will do then under the ticket, and is told how the save went.
//! **Invariant.** Saves are done in order, so an empty one waits for all before it.
//! **Failure policy.** A failed save is told to whoever waits; where nobody does, it is a problem that status shows until
//! a later save succeeds.

use std::collections::BTreeMap;

use weft_types::Problem;

use crate::io::{Reply, RequestId, Ticket};

/// Who goes on after a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// An introducer's half of an admission.
    Admission,
    /// The creator's book of addresses.
    Addresses,
    /// Our own admission, or our boot.
    Arrival,
    /// Stepping past an earlier run of ours.
    Clones,
    /// Containers of this host.
    Endpoints,
    /// Records of our own log.
    OwnLog,
}

/// What waits for a save.
pub(crate) enum Waiter {
    Nobody,
    Part(Part),
    Reply(RequestId, Reply),
}

/// Saves under way.
#[derive(Default)]
pub(crate) struct Saves {
    waiting: BTreeMap<Ticket, Waiter>,
    tickets: u64,
    /// Why the last one failed that nobody waited for.
    failing: Option<Problem>,
}

impl Saves {
    /// Numbers a save that somebody waits for.
    pub(crate) fn begin(&mut self, waiter: Waiter) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.waiting.insert(ticket, waiter);
        ticket
    }

    /// A save is durable: who waited for it?
    pub(crate) fn done(&mut self, ticket: Ticket) -> Option<Waiter> {
        self.failing = None;
        self.waiting.remove(&ticket)
    }

    /// A save failed: who waited for it?
    pub(crate) fn failed(&mut self, ticket: Ticket) -> Waiter {
        self.waiting.remove(&ticket).unwrap_or(Waiter::Nobody)
    }

    /// Something is not durable that nobody waits for; whether that is news.
    pub(crate) fn note(&mut self, problem: &Problem) -> bool {
        let known = self.failing.as_ref() == Some(problem);
        self.failing = Some(problem.clone());
        !known
    }

    /// Why the last save failed that nobody waited for, until one succeeds.
    pub(crate) const fn failing(&self) -> Option<&Problem> {
        self.failing.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use weft_types::Code;

    use super::*;
    use crate::io::Event;
    use crate::router::testing::{Fixture, ID};

    fn full() -> Problem {
        Problem::new(Code::NotSaved, "the disk is full")
    }

    #[test]
    fn what_nobody_waits_for_is_shown_until_a_save_succeeds() {
        let mut fixture = Fixture::new();
        let ground = &mut fixture.ground;
        ground.save(Vec::new());

        ground.save_failed(Ticket(u64::MAX), &full());
        ground.save_failed(Ticket(u64::MAX), &full());
        let shown = ground.not_saved().cloned();
        ground.saved(Ticket(u64::MAX));

        assert_eq!(shown, Some(full()));
        assert_eq!(ground.not_saved(), None);
        assert_eq!(fixture.events(), [Event::Problem(full())], "told once");
    }

    #[test]
    fn whoever_waits_is_told_of_a_failure_and_nobody_else() {
        let mut fixture = Fixture::new();
        let ground = &mut fixture.ground;
        ground.save_then_reply(Vec::new(), ID, Reply::Done);
        let ticket = ground.save_for(Part::Endpoints, Vec::new());

        let part = ground.save_failed(ticket, &full());
        let before = Ticket(ticket.0 - 1);
        let nobody = ground.save_failed(before, &full());

        assert_eq!((part, nobody), (Some(Part::Endpoints), None));
        assert_eq!(ground.not_saved(), None);
        assert_eq!(fixture.replies(), [Reply::Failed(full())]);
    }
}
