//! An introducer's half of an admission: from a good token to a welcome.
//!
//! ```text
//!   introducer                                       creator
//!   token good? ─ no ─▶ refused
//!      │ yes
//!      ├── address for the node? ───────────────────▶ binds one, durably
//!      ◀─────────────────────────────────────────────
//!   burns the token and signs the Admit, durably in one save
//!      └──▶ Welcome to the joiner, the Admit to all
//! ```
//!
//! **Invariant.** A token is spent and its Admit signed in one save: a crash leaves both or neither, and a retry by the
//! same node finds the Admit. Until the address is known nothing is spent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weft_types::{Code, NodeId, TokenId};

use crate::io::{ConnId, Ticket};
use crate::letter::{AddressRequest, Letter};
use crate::membership::{Admit, Record, Role, Standing};
use crate::router::ground::Reach;
use crate::router::ground::conn::Stage;
use crate::router::ground::facts::Wish;
use crate::router::ground::mesh::membership_changes;
use crate::router::ground::saves::Part;
use crate::store::Change;

/// How long the creator gets for an answer.
const ADDRESS: Duration = Duration::from_secs(3);
/// Between two letters that ask for it: letters get lost while the mesh learns who is where.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// How long a save may take before the joiner is told that it failed.
const SAVE: Duration = Duration::from_secs(30);
/// How long an admission that is put off may take: longer than a member's word is waited for.
const PUT_OFF: Duration = Duration::from_secs(5);

/// Admissions under way.
#[derive(Default)]
pub(crate) struct Admission {
    attempts: BTreeMap<ConnId, Attempt>,
    /// Whose admission is being saved.
    welcome: BTreeMap<Ticket, ConnId>,
}

struct Attempt {
    /// A letter to the creator that asks for an address.
    asked: Option<Asked>,
    until: Instant,
}

#[derive(Clone, Copy)]
struct Asked {
    request: u64,
    again_at: Instant,
}

impl Admission {
    /// One attempt of a node at a time: whoever comes again has given the last one up.
    pub(crate) fn supersede(&mut self, conn: ConnId, node: NodeId, reach: &mut Reach<'_>) {
        self.tidy(reach);
        let its = |id: &ConnId| {
            *id != conn
                && reach
                    .ground
                    .other(*id)
                    .is_some_and(|other| other.node == node)
        };
        let earlier: Vec<ConnId> = self.attempts.keys().copied().filter(its).collect();
        for earlier in earlier {
            reach.ground.close(earlier);
        }
    }

    /// Waits until our own log is known.
    pub(crate) fn put_off(&mut self, conn: ConnId, reach: &mut Reach<'_>, now: Instant) {
        self.wait(conn, None, now + PUT_OFF, reach);
    }

    /// A node came with a good token. Gives what it wishes, if an address is to be found for it.
    pub(crate) fn begin(
        &mut self,
        conn: ConnId,
        reach: &mut Reach<'_>,
        now: Instant,
    ) -> Option<Wish> {
        let other = reach.ground.other(conn)?;
        let (node, wanted) = (other.node, other.wanted.as_ref());
        let wanted = wanted.and_then(|text| text.parse().ok());
        if reach.mesh.membership.standing(node) == Standing::Member {
            // Its Admit may be on its way to the disk: saves are done in order, so an empty one waits for that.
            self.save(conn, Vec::new(), reach, now);
        } else if reach.mesh.is_full_for(node) {
            reach.ground.refuse(conn, Code::MeshFull);
        } else if !reach.mesh.may_introduce(reach.mesh.ourself) {
            reach.ground.refuse(conn, Code::NotAnIntroducer);
        } else {
            return Some(Wish { node, wanted });
        }
        None
    }

    /// Asks the creator for an address.
    pub(crate) fn ask(&mut self, conn: ConnId, reach: &mut Reach<'_>, now: Instant) {
        let asked = Asked {
            request: reach.mesh.next_request(),
            again_at: now + ASK_AGAIN,
        };
        self.wait(conn, Some(asked), now + ADDRESS, reach);
        if !send_request(conn, asked.request, reach) {
            reach.ground.refuse(conn, Code::CreatorUnreachable);
        }
    }

    /// The creator answered: gives the connection that waits for it.
    pub(crate) fn told(&mut self, request: u64, reach: &Reach<'_>) -> Option<ConnId> {
        self.tidy(reach);
        let waits = |attempt: &Attempt| attempt.asked.is_some_and(|asked| asked.request == request);
        let mut attempts = self.attempts.iter();
        attempts
            .find(|(_, attempt)| waits(attempt))
            .map(|(&id, _)| id)
    }

    /// Signs the Admit of who holds `token`, and saves it with the `changes` that spend that.
    pub(crate) fn sign(
        &mut self,
        conn: ConnId,
        (token, addresses): (TokenId, Vec<IpNet>),
        mut changes: Vec<Change>,
        reach: &mut Reach<'_>,
        now: Instant,
    ) {
        let Some(joiner) = reach.ground.other(conn).cloned() else {
            return;
        };
        let admit = Admit {
            node: joiner.node,
            noise_key: joiner.cert.key,
            nickname: reach.mesh.free_name(&joiner.nickname, joiner.node),
            addresses,
            role: Role::Introducer,
            token: Some(token),
        };
        let Ok(record) = reach.append(Record::Admit(admit)) else {
            return reach.ground.refuse(conn, Code::NotAuthorised);
        };
        changes.extend(membership_changes(std::slice::from_ref(&record)));
        let ticket = self.save(conn, changes, reach, now);
        reach.mesh.own_log.untold.insert(ticket, record);
    }

    fn save(
        &mut self,
        conn: ConnId,
        changes: Vec<Change>,
        reach: &mut Reach<'_>,
        now: Instant,
    ) -> Ticket {
        self.wait(conn, None, now + SAVE, reach);
        let ticket = reach.ground.save_for(Part::Admission, changes);
        self.welcome.insert(ticket, conn);
        ticket
    }

    fn wait(&mut self, conn: ConnId, asked: Option<Asked>, until: Instant, reach: &mut Reach<'_>) {
        reach.ground.set_stage(conn, Stage::Admitting);
        self.attempts.insert(conn, Attempt { asked, until });
    }

    /// An admission is durable, or cannot be: gives the connection that waits for it.
    pub(crate) fn handle_saved(&mut self, ticket: Ticket) -> Option<ConnId> {
        self.welcome.remove(&ticket)
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let due = |attempt: &Attempt| match attempt.asked {
            Some(asked) if asked.again_at < attempt.until => {
                (asked.again_at, "an address is asked for again")
            }
            Some(_) | None => (attempt.until, "an admission takes too long"),
        };
        self.attempts.values().map(due).min()
    }

    /// Asks again, and refuses those for whom nothing came.
    pub(crate) fn handle_timeout(&mut self, reach: &mut Reach<'_>, now: Instant) {
        self.tidy(reach);
        for (&conn, attempt) in &mut self.attempts {
            if attempt.until <= now {
                reach.ground.refuse(conn, Code::CreatorUnreachable);
            } else if let Some(asked) = attempt.asked.as_mut().filter(|it| it.again_at <= now) {
                // Without a way now there may be one before the time is up.
                asked.again_at = now + ASK_AGAIN;
                send_request(conn, asked.request, reach);
            }
        }
        self.tidy(reach);
    }

    /// Forgets attempts whose connections are over.
    pub(crate) fn tidy(&mut self, reach: &Reach<'_>) {
        let conns = &reach.ground.conns;
        let waits = |id: &ConnId| {
            let conn = conns.get(id);
            conn.is_some_and(|conn| !conn.closing && conn.stage == Stage::Admitting)
        };
        self.attempts.retain(|id, _| waits(id));
    }
}

/// Asks the creator for an address, for the first time or again; whether there is a way to it.
fn send_request(conn: ConnId, request: u64, reach: &mut Reach<'_>) -> bool {
    let Some(other) = reach.ground.other(conn) else {
        return false;
    };
    let asked = AddressRequest {
        request,
        node: other.node,
        nickname: other.nickname.clone(),
        wanted: other.wanted.as_ref().and_then(|text| text.parse().ok()),
    };
    let creator = reach.mesh.genesis.genesis().creator;
    reach.send_sealed(creator, &Letter::AddressRequest(asked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Output;
    use crate::router::testing::Fixture;
    use crate::store::Table;
    use crate::wire::preface::Repr;

    const TOKEN: TokenId = TokenId::new([7; 16]);

    fn knock(fixture: &mut Fixture) -> ConnId {
        let node = fixture.stranger();
        fixture.knock(node, Repr::Token(TOKEN))
    }

    fn spent() -> Change {
        Change::Put {
            table: Table::Tokens,
            key: vec![7],
            value: vec![7],
        }
    }

    #[test]
    fn a_token_is_spent_and_its_admit_signed_in_one_save() {
        let mut fixture = Fixture::new();
        let (conn, now) = (knock(&mut fixture), fixture.now);
        let node = fixture.ground.other(conn).expect("it has proved it").node;
        let mut admission = Admission::default();
        fixture.outputs();

        let grant = (TOKEN, Vec::new());
        admission.sign(conn, grant, vec![spent()], &mut fixture.reach(), now);

        let outputs = fixture.outputs();
        let [Output::Save { ticket, changes }] = outputs.as_slice() else {
            panic!("{outputs:?}");
        };
        assert_eq!(changes.len(), 2);
        assert_eq!(changes[0], spent());
        assert_eq!(
            fixture.mesh.own_log.untold.len(),
            1,
            "told once it is durable"
        );
        let member = fixture.mesh.membership.member(node);
        assert_eq!(member.and_then(|member| member.token), Some(TOKEN));
        assert_eq!(admission.handle_saved(*ticket), Some(conn));
    }

    #[test]
    fn a_member_that_comes_again_waits_for_the_disk_and_spends_nothing() {
        let mut fixture = Fixture::new();
        let node = fixture.admit("b");
        let conn = fixture.knock(node, Repr::Token(TOKEN));
        let (mut admission, now) = (Admission::default(), fixture.now);

        let wish = admission.begin(conn, &mut fixture.reach(), now);

        assert_eq!(wish, None);
        let outputs = fixture.outputs();
        let [Output::Save { ticket, changes }] = outputs.as_slice() else {
            panic!("{outputs:?}");
        };
        assert_eq!(changes.len(), 0);
        assert_eq!(admission.handle_saved(*ticket), Some(conn));
    }

    #[test]
    fn whoever_finds_no_place_is_refused() {
        let mut fixture = Fixture::new();
        let (conn, now) = (knock(&mut fixture), fixture.now);
        let mut admission = Admission::default();
        while !fixture.mesh.is_full_for(NodeId::new([9; 32])) {
            let before = admission.begin(conn, &mut fixture.reach(), now);
            assert!(before.is_some(), "there is room");
            fixture.admit("b");
        }

        let wish = admission.begin(conn, &mut fixture.reach(), now);

        assert_eq!(wish, None);
        assert!(!fixture.ground.is_open(conn));
    }

    #[test]
    fn an_admission_that_is_put_off_too_long_is_refused_and_forgotten() {
        let mut fixture = Fixture::new();
        let (conn, now) = (knock(&mut fixture), fixture.now);
        let mut admission = Admission::default();

        admission.put_off(conn, &mut fixture.reach(), now);
        let due = admission.poll_timeout().map(|(at, _)| at);
        let early = fixture.wait(PUT_OFF - Duration::from_millis(1));
        admission.handle_timeout(&mut fixture.reach(), early);
        let waits = fixture.ground.is_open(conn);
        admission.handle_timeout(&mut fixture.reach(), now + PUT_OFF);

        assert_eq!(due, Some(now + PUT_OFF));
        assert!(waits);
        assert!(!fixture.ground.is_open(conn));
        assert_eq!(admission.poll_timeout(), None);
    }

    #[test]
    fn whoever_comes_again_has_given_its_last_attempt_up() {
        let mut fixture = Fixture::new();
        let (first, now) = (knock(&mut fixture), fixture.now);
        let (others, mut admission) = (knock(&mut fixture), Admission::default());
        let node = fixture.ground.other(first).expect("it has proved it").node;
        let again = fixture.knock(node, Repr::Token(TOKEN));
        for conn in [first, others] {
            admission.put_off(conn, &mut fixture.reach(), now);
        }

        admission.supersede(again, node, &mut fixture.reach());

        let open = [first, others, again].map(|conn| fixture.ground.is_open(conn));
        assert_eq!(open, [false, true, true]);
    }
}
