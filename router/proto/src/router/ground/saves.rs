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
