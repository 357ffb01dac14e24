//! What has to be durable before something else happens, and who waits for it.
//!
//! A part that asks for a save keeps what it will do then under the ticket, and is told how the save went.
//! **Invariant.** Saves are done in order, so an empty one waits for all before it.
//! **Failure policy.** A failed save is told to whoever waits, who undoes what should not come true after that, and is a
//! problem that status shows until a save succeeds: the driver owes what failed, and does it first.

use std::collections::BTreeMap;

use weft_types::{Code, Problem};

use crate::io::{Reply, RequestId, Target, Ticket};

/// What takes a change of the targets back.
pub(crate) enum Undo {
    /// They were named.
    Forget(Vec<Target>),
    /// They were forgotten.
    Remember(Vec<Target>),
}

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
    /// Tokens of which our log says nothing.
    Tokens,
}

/// What waits for a save.
pub(crate) enum Waiter {
    Nobody,
    Part(Part),
    Reply(RequestId, Reply),
    /// A command, and a part.
    ReplyAndPart(RequestId, Reply, Part),
    /// A command, after whose failure something is undone.
    Targets(RequestId, Undo),
}

/// Saves under way.
#[derive(Default)]
pub(crate) struct Saves {
    waiting: BTreeMap<Ticket, Waiter>,
    tickets: u64,
    /// Why the last one failed.
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

    /// A save failed: who waited for it? A part is told once more when it is done at last.
    pub(crate) fn failed(&mut self, ticket: Ticket) -> Waiter {
        let waiter = self.waiting.remove(&ticket).unwrap_or(Waiter::Nobody);
        if let Waiter::Part(part) | Waiter::ReplyAndPart(_, _, part) = &waiter {
            self.waiting.insert(ticket, Waiter::Part(*part));
        }
        waiter
    }

    /// Something is not durable: the problem that status shows, if it is news.
    pub(crate) fn note(&mut self, problem: &Problem) -> Option<&Problem> {
        let shown = shown(problem);
        if self.failing.as_ref() == Some(&shown) {
            return None;
        }
        Some(self.failing.insert(shown))
    }

    /// Why the last save failed, until one succeeds.
    pub(crate) const fn failing(&self) -> Option<&Problem> {
        self.failing.as_ref()
    }
}

/// What is wrong with the router, by what was wrong with a save.
fn shown(problem: &Problem) -> Problem {
    if problem.code == Code::NotSaved {
        return problem.clone();
    }
    let Problem { what, why, fix, .. } = problem;
    let why = if why.is_empty() {
        what.clone()
    } else {
        format!("{what}: {why}")
    };
    Problem::new(Code::NotSaved, "changes could not be saved")
        .why(why)
        .fix(fix.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Event;
    use crate::router::testing::{Fixture, ID};

    fn full() -> Problem {
        Problem::new(Code::DiskFull, "the disk is full")
    }

    #[test]
    fn a_failure_is_shown_until_a_save_succeeds() {
        let mut fixture = Fixture::new();
        let now = fixture.now;
        let ground = &mut fixture.ground;
        ground.save(Vec::new());

        ground.save_failed(Ticket(u64::MAX), &full(), now);
        ground.save_failed(Ticket(u64::MAX), &full(), now);
        let shown = ground.not_saved().cloned();
        ground.saved(Ticket(u64::MAX));

        let shown = shown.expect("status shows it");
        assert_eq!(shown.code, Code::NotSaved);
        assert!(shown.why.contains("the disk is full"), "{shown}");
        assert_eq!(ground.not_saved(), None);
        assert_eq!(fixture.events(), [Event::Problem(shown)], "told once");
    }

    #[test]
    fn whoever_waits_is_told_of_a_failure_and_a_part_when_it_is_done_at_last() {
        let mut fixture = Fixture::new();
        let now = fixture.now;
        let ground = &mut fixture.ground;
        ground.save_then_reply(Vec::new(), ID, Reply::Done);
        let ticket = ground.save_for(Part::Endpoints, Vec::new());

        let part = ground.save_failed(ticket, &full(), now);
        let before = Ticket(ticket.0 - 1);
        let nobody = ground.save_failed(before, &full(), now);
        let (late, done) = (ground.saved(ticket), ground.saved(before));

        assert_eq!((part, nobody), (Some(Part::Endpoints), None));
        assert_eq!((late, done), (Some(Part::Endpoints), None));
        assert_eq!(fixture.replies(), [Reply::Failed(full())]);
    }
}
