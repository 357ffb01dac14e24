//! Adds records to our own log of the membership, and tells them once they are durable.
//!
//! A disk that was restored from a copy lacks the end of our log, and a record added then would fork it: so after a start
//! nothing is added until a member has told how far it goes, or nobody is there to.
//!
//! **Invariant.** Nobody is told of a record before it is durable.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weft_types::{Code, Problem};

use super::Reach;
use super::mesh::membership_changes;
use super::saves::Part;
use crate::io::{Command, ConnId, Reply, RequestId, Ticket};
use crate::membership::{AppendError, MembershipDelta, Record};
use crate::store::Change;
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
    telling: BTreeMap<Ticket, (MembershipDelta, RequestId, Reply)>,
    /// Records that are being saved for somebody else and nobody was told of.
    pub(crate) untold: Vec<Signed>,
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

    /// What a durable save is to be followed by: this is told, then that answered.
    pub(crate) fn told(&mut self, ticket: Ticket) -> Option<(MembershipDelta, RequestId, Reply)> {
        self.telling.remove(&ticket)
    }
}

impl Reach<'_> {
    /// Adds a record to our log. It is not durable yet.
    ///
    /// # Errors
    ///
    /// If we may not sign it, or our log is damaged.
    pub(crate) fn append(&mut self, record: Record) -> Result<Signed, AppendError> {
        self.mesh
            .membership
            .append(record, &self.ground.settings.keys)
    }

    /// Adds a record to our log, makes it durable with other changes, tells everybody, then answers a command.
    ///
    /// # Errors
    ///
    /// [`Code::NotAuthorised`]; nothing is saved then.
    pub(crate) fn append_and_tell(
        &mut self,
        record: Record,
        mut changes: Vec<Change>,
        id: RequestId,
        reply: Reply,
    ) -> Result<(), Problem> {
        let record = self.append(record).map_err(cannot_sign)?;
        changes.extend(membership_changes(std::slice::from_ref(&record)));
        let ticket = self.ground.save_for(Part::OwnLog, changes);
        let delta = MembershipDelta::new(vec![record]);
        let telling = &mut self.mesh.own_log.telling;
        telling.insert(ticket, (delta, id, reply));
        Ok(())
    }
}

fn cannot_sign(error: AppendError) -> Problem {
    Problem::new(
        Code::NotAuthorised,
        format!("the membership log takes no record: {error}"),
    )
}
