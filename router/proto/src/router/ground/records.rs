//! Adds records to our own log of the membership, and tells them once they are durable.
//!
//! **Invariant.** Nobody is told of a record before it is durable.

use weft_types::{Code, Problem};

use super::Reach;
use super::mesh::membership_changes;
use super::saves::Part;
use crate::io::{Reply, RequestId, Ticket};
use crate::membership::{AppendError, MembershipDelta, Record};
use crate::store::Change;
use crate::wire::envelope::Signed;

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
    ) -> Result<Ticket, Problem> {
        let record = self.append(record).map_err(cannot_sign)?;
        changes.extend(membership_changes(std::slice::from_ref(&record)));
        let ticket = self.ground.save_for(Part::OwnLog, changes);
        let delta = MembershipDelta::new(vec![record]);
        let telling = &mut self.mesh.own_log.telling;
        telling.insert(ticket, (delta, Some((id, reply))));
        Ok(ticket)
    }
}

fn cannot_sign(error: AppendError) -> Problem {
    Problem::new(
        Code::NotAuthorised,
        format!("the membership log takes no record: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use weft_types::TokenId;

    use super::*;
    use crate::crypto::seeded::SeededCrypto;
    use crate::identity::NodeKeys;
    use crate::io::Output;
    use crate::router::testing::{Fixture, ID};

    const VOID: Record = Record::Void(TokenId::new([7; 16]));

    #[test]
    fn a_command_is_answered_when_its_record_is_durable_and_not_before() {
        let mut fixture = Fixture::new();

        let told = fixture
            .reach()
            .append_and_tell(VOID, Vec::new(), ID, Reply::Done);

        told.expect("a member may");
        let outputs = fixture.outputs();
        let [Output::Save { ticket, changes }] = outputs.as_slice() else {
            panic!("{outputs:?}");
        };
        assert_eq!(changes.len(), 1);
        assert_eq!(fixture.ground.saved(*ticket), Some(Part::OwnLog));
        let (delta, reply) = fixture.mesh.own_log.told(*ticket).expect("it waited");
        assert_eq!((delta.records().len(), reply), (1, Some((ID, Reply::Done))));
    }

    #[test]
    fn whoever_was_admitted_by_nobody_signs_nothing_and_saves_nothing() {
        let mut fixture = Fixture::new();
        fixture.ground.settings.keys = NodeKeys::generate(&mut SeededCrypto::new(9));
        fixture.outputs();

        let told = fixture
            .reach()
            .append_and_tell(VOID, Vec::new(), ID, Reply::Done);

        assert_eq!(told.expect_err("it is none").code, Code::NotAuthorised);
        assert!(fixture.outputs().is_empty());
    }
}
