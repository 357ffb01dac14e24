//! What has to be durable before something else happens, and who waits for it.
//!
//! A part that asks for a save keeps what it will do then under the ticket, and is told how the save went.
//! **Invariant.** Saves are done in order, so an empty one waits for all before it.
//! **Failure policy.** A failed save is told to whoever waits; where nobody does, it is a problem that status shows until
//! a later save succeeds.

use std::collections::BTreeMap;

use weft_types::Problem;

use super::Ground;
use crate::io::{Event, Output, Reply, RequestId, Ticket};
use crate::store::Change;

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

enum Waiter {
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

impl Ground {
    /// Makes changes durable; nobody waits.
    pub(crate) fn save(&mut self, changes: Vec<Change>) {
        self.begin_save(changes, Waiter::Nobody);
    }

    /// The same where there is anything to save.
    pub(crate) fn save_if_any(&mut self, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.save(changes);
        }
    }

    /// Makes changes durable, then answers a command.
    pub(crate) fn save_then_reply(&mut self, changes: Vec<Change>, id: RequestId, reply: Reply) {
        self.begin_save(changes, Waiter::Reply(id, reply));
    }

    /// Makes changes durable, then tells a part: it finds by the ticket what it wanted to do.
    pub(crate) fn save_for(&mut self, part: Part, changes: Vec<Change>) -> Ticket {
        self.begin_save(changes, Waiter::Part(part))
    }

    fn begin_save(&mut self, changes: Vec<Change>, waiter: Waiter) -> Ticket {
        self.saves.tickets += 1;
        let ticket = Ticket(self.saves.tickets);
        self.saves.waiting.insert(ticket, waiter);
        self.push(Output::Save { ticket, changes });
        ticket
    }

    /// A save is durable. Gives the part that waits.
    pub(crate) fn saved(&mut self, ticket: Ticket) -> Option<Part> {
        self.saves.failing = None;
        match self.saves.waiting.remove(&ticket)? {
            Waiter::Nobody => None,
            Waiter::Part(part) => Some(part),
            Waiter::Reply(id, reply) => {
                self.reply(id, reply);
                None
            }
        }
    }

    /// A save failed. Gives the part that waits.
    pub(crate) fn save_failed(&mut self, ticket: Ticket, problem: &Problem) -> Option<Part> {
        match self.saves.waiting.remove(&ticket) {
            None | Some(Waiter::Nobody) => self.note_not_saved(problem),
            Some(Waiter::Part(part)) => return Some(part),
            Some(Waiter::Reply(id, _)) => self.reply(id, Reply::Failed(problem.clone())),
        }
        None
    }

    /// Shows that something is not durable, once for each cause.
    pub(crate) fn note_not_saved(&mut self, problem: &Problem) {
        if self.saves.failing.as_ref() != Some(problem) {
            self.event(Event::Problem(problem.clone()));
        }
        self.saves.failing = Some(problem.clone());
    }

    /// Why the last save failed that nobody waited for, until one succeeds.
    pub(crate) const fn not_saved(&self) -> Option<&Problem> {
        self.saves.failing.as_ref()
    }
}
