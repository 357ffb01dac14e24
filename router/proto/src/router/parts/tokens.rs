//! What opens the door: tokens for those who are to be admitted, door keys for members.
//!
//! A reusable token stands in our log of the membership; its secret goes to members on their links once the record is
//! durable, and to nobody else. Of a single-use token only its issuer knows.
//!
//! **Invariant.** The keyring holds every door key that is known and the secret of every token that is, spent ones too, so
//! that their holders can be told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use weft_types::{Code, NodeId, Problem, TokenId};

use crate::crypto::Secret32;
use crate::handshake::{Keyring, Refusal};
use crate::io::{Reply, RequestId, Ticket};
use crate::membership::{DoorKey, Membership, Record, TokenGrant, TokenSecret};
use crate::router::ground::Reach;
use crate::router::ground::saves::Part;
use crate::status::TokenStatus;
use crate::store::{Change, Saved, Table};
use crate::token::{Issuer, Token, TokenBook, TokenInfo, TokenState};
use crate::wire::preface::DoorKeyId;

/// How many door keys are kept: a member that makes up more of them is not followed.
const MAX_DOOR_KEYS: usize = 16;
/// How much of its life a token may get back by a restart of a node whose clock cannot be trusted.
const KEEP: Duration = Duration::from_secs(60);

/// Tokens and door keys.
#[derive(Default)]
pub(crate) struct Tokens {
    book: TokenBook,
    /// By generation: the last is dialled with, all are opened to.
    doors: BTreeMap<(u64, DoorKeyId), Secret32>,
    keyring: Keyring,
    /// Reusable tokens whose secrets the others do not have yet.
    unshared: BTreeSet<TokenId>,
    /// What was asked for and is not durable yet.
    unsaved: BTreeMap<Ticket, Unsaved>,
    /// When what is left of their lives is saved, if there is any.
    keep_at: Option<Instant>,
}

/// A token whose beginning or end is not durable yet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unsaved {
    /// It opens nothing yet, and is not listed.
    Made(TokenId),
    /// It opens nothing more; that it is void is not said yet.
    Voided(TokenId),
}

impl Tokens {
    /// Takes what was saved.
    ///
    /// # Errors
    ///
    /// Tells what cannot be read.
    pub(crate) fn load(
        saved: &Saved,
        (shown, at): (Duration, Instant),
        now: Instant,
    ) -> Result<Self, &'static str> {
        let mut tokens = Self {
            book: TokenBook::new(shown, at),
            ..Self::default()
        };
        for (_, value) in saved.table(Table::DoorKeys) {
            tokens.add_door_key(DoorKey::decode(value).map_err(|_| "a door key")?);
        }
        for (id, value) in saved.table(Table::Tokens) {
            let id = <[u8; 16]>::try_from(id).map_err(|_| "a token")?;
            let restored = tokens.book.restore(TokenId::new(id), value, now);
            restored.map_err(|_| "a token")?;
        }
        tokens.keep_at(now);
        Ok(tokens)
    }

    /// What opens the door.
    pub(crate) const fn keyring(&mut self) -> &mut Keyring {
        &mut self.keyring
    }

    /// What this node dials with.
    pub(crate) fn newest_door_key(&self) -> Option<(DoorKeyId, &Secret32)> {
        let last = self.doors.last_key_value();
        last.map(|((_, id), key)| (*id, key))
    }

    /// Every door key, for a new member.
    pub(crate) fn door_keys(&self) -> impl Iterator<Item = DoorKey> {
        self.doors.iter().map(|(&(generation, id), key)| DoorKey {
            id,
            key: key.clone(),
            generation,
        })
    }

    /// Takes a door key in; gives what is to be saved.
    pub(crate) fn add_door_key(&mut self, door: DoorKey) -> Change {
        let change = Change::Put {
            table: Table::DoorKeys,
            key: door.id.as_bytes().to_vec(),
            value: crate::wire::encode(&door),
        };
        self.keyring.add_door(door.id, door.key.clone());
        self.doors.insert((door.generation, door.id), door.key);
        change
    }

    /// Another member tells a door key: one that is known, or one too many, is left out.
    pub(crate) fn handle_door_key(&mut self, door: DoorKey, reach: &mut Reach<'_>) {
        let known = self.doors.contains_key(&(door.generation, door.id));
        if !known && self.doors.len() < MAX_DOOR_KEYS {
            let change = self.add_door_key(door);
            reach.ground.save(vec![change]);
        }
    }

    /// Another introducer made a reusable token.
    pub(crate) fn handle_secret(&mut self, told: TokenSecret, reach: &mut Reach<'_>, now: Instant) {
        if let Some(change) = self.receive(told, &reach.mesh.membership, now) {
            reach.ground.save(vec![change]);
        }
    }

    /// Takes a token in that another introducer made; gives what is to be saved.
    pub(crate) fn receive(
        &mut self,
        told: TokenSecret,
        membership: &Membership,
        now: Instant,
    ) -> Option<Change> {
        let TokenSecret {
            id,
            secret,
            remaining,
        } = told;
        let known = self.book.secrets().any(|(known, _)| known == id);
        if known || self.book.receive(id, secret, remaining, now).is_err() {
            return None;
        }
        if membership.token(id).is_some_and(|token| token.voided) {
            self.book.void(id, now);
        }
        self.refresh_keyring();
        self.keep_at(now);
        self.change(id, now)
    }

    /// What the membership says of tokens: which are void, and which are spent. A disk that was restored from a copy may
    /// have forgotten that; our own log has not.
    pub(crate) fn handle_membership(&mut self, membership: &Membership, now: Instant) {
        let voided = membership.tokens().filter(|(_, token)| token.voided);
        for id in voided.map(|(id, _)| id).collect::<Vec<_>>() {
            self.book.void(id, now);
        }
        for member in membership.members() {
            if let Some(token) = member.token {
                let _ = self.book.redeem(token, member.node, now);
            }
        }
        self.refresh_keyring();
    }

    /// Whether a token admits a node.
    pub(crate) fn check(&self, id: TokenId, node: NodeId, now: Instant) -> Result<(), Refusal> {
        self.book.check(id, node, now).map(|_| ())
    }

    /// Spends a token; gives what is to be saved.
    pub(crate) fn redeem(
        &mut self,
        id: TokenId,
        node: NodeId,
        now: Instant,
    ) -> Result<Option<Change>, Refusal> {
        self.book.redeem(id, node, now)?;
        Ok(self.change(id, now))
    }

    /// Reusable tokens that others may admit by.
    pub(crate) fn shared(&self, now: Instant) -> Vec<TokenSecret> {
        let share = |(id, _)| {
            let (secret, remaining) = self.book.share(id, now)?;
            Some(TokenSecret {
                id,
                secret,
                remaining,
            })
        };
        let made = self.book.secrets().filter(|(id, _)| self.is_made(*id));
        made.filter_map(share).collect()
    }

    /// Those of them that nobody was told of. They count as told from here on.
    pub(crate) fn take_unshared(&mut self, now: Instant) -> Vec<TokenSecret> {
        let unshared = std::mem::take(&mut self.unshared);
        let mut tokens = self.shared(now);
        tokens.retain(|token| unshared.contains(&token.id));
        tokens
    }

    /// Makes a token.
    ///
    /// # Errors
    ///
    /// [`Code::NotAuthorised`] if this node may not, or has too many.
    pub(crate) fn create(
        &mut self,
        id: RequestId,
        (reusable, ttl): (bool, Duration),
        reach: &mut Reach<'_>,
        now: Instant,
    ) -> Result<(), Problem> {
        let node = reach.mesh.ourself;
        if !reach.mesh.may_introduce(node) {
            return Err(Problem::new(
                Code::NotAuthorised,
                "this node may not admit others",
            ));
        }
        let issued = self
            .book
            .issue(reusable, ttl, &mut *reach.ground.crypto, now);
        let (token, secret) = issued.map_err(|error| {
            Problem::new(Code::NotAuthorised, error.to_string()).fix("`weft token revoke` some")
        })?;
        let addresses = reach.ground.reachable_at();
        let text = Token {
            mesh: reach.mesh.id,
            id: token,
            secret,
            issuer: (!reusable).then_some(Issuer { node, addresses }),
        };
        let reply = Reply::Token(text.reveal());
        let changes: Vec<Change> = self.change(token, now).into_iter().collect();
        if !reusable {
            let ticket = reach
                .ground
                .save_then_reply_for(Part::Tokens, changes, (id, reply));
            self.unsaved.insert(ticket, Unsaved::Made(token));
            return Ok(());
        }
        let grant = TokenGrant {
            id: token,
            reusable,
            ttl,
        };
        match reach.append_and_tell(Record::Token(grant), changes, id, reply) {
            Ok(ticket) => {
                self.unsaved.insert(ticket, Unsaved::Made(token));
                Ok(())
            }
            Err(problem) => {
                self.book.remove(token);
                Err(problem)
            }
        }
    }

    /// Something that was asked for is durable.
    pub(crate) fn handle_saved(&mut self, ticket: Ticket, now: Instant) {
        if let Some(Unsaved::Made(token)) = self.unsaved.remove(&ticket) {
            if self.book.share(token, now).is_some() {
                self.unshared.insert(token);
            }
            self.refresh_keyring();
            self.keep_at(now);
        }
    }

    /// It is not: a token that was made goes; one that was voided stays shut, and is not said to be void.
    pub(crate) fn handle_not_saved(&mut self, ticket: Ticket, reach: &mut Reach<'_>) {
        if let Some(&Unsaved::Made(token)) = self.unsaved.get(&ticket) {
            self.unsaved.remove(&ticket);
            self.book.remove(token);
            // The driver owes what it could not do: this takes it back.
            reach.ground.save(vec![removal(token)]);
        }
    }

    fn is_made(&self, token: TokenId) -> bool {
        let unmade = Unsaved::Made(token);
        !self.unsaved.values().any(|unsaved| *unsaved == unmade)
    }

    /// Voids a token.
    ///
    /// # Errors
    ///
    /// [`Code::TokenNotAccepted`] if none is known by that id, [`Code::NotAuthorised`] if our log takes no record.
    pub(crate) fn revoke(
        &mut self,
        id: RequestId,
        token: TokenId,
        reach: &mut Reach<'_>,
        now: Instant,
    ) -> Result<(), Problem> {
        let logged = reach.mesh.membership.token(token).is_some();
        let known = self.book.list(now).any(|info| info.id == token);
        if !logged && !known {
            return Err(
                Problem::new(Code::TokenNotAccepted, "no such token is known here")
                    .why("a single-use token is known only to the host that made it")
                    .fix("`weft token list` on that host shows it"),
            );
        }
        self.book.void(token, now);
        let changes: Vec<Change> = self.change(token, now).into_iter().collect();
        let done = (id, Reply::Done);
        let ticket = if logged {
            reach.append_and_tell(Record::Void(token), changes, done.0, done.1)?
        } else {
            reach
                .ground
                .save_then_reply_for(Part::Tokens, changes, done)
        };
        self.unsaved.insert(ticket, Unsaved::Voided(token));
        Ok(())
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let keep = self.keep_at.map(|at| (at, "the age of tokens is saved"));
        self.book.poll_timeout().into_iter().chain(keep).min()
    }

    /// Forgets tokens whose time is over, and keeps how old the others are.
    pub(crate) fn handle_timeout(&mut self, reach: &mut Reach<'_>, now: Instant) {
        let ended = self.book.handle_timeout(now);
        let mut changes: Vec<Change> = ended
            .into_iter()
            .map(|id| self.change(id, now).unwrap_or_else(|| removal(id)))
            .collect();
        if !changes.is_empty() {
            self.refresh_keyring();
        }
        if self.keep_at.take_if(|at| *at <= now).is_some() {
            let made = self.book.live(now).filter(|id| self.is_made(*id));
            changes.extend(made.filter_map(|id| self.change(id, now)));
            self.keep_at(now);
        }
        reach.ground.save_if_any(changes);
    }

    /// Sees to it that what is left of lives is saved, while there are any.
    fn keep_at(&mut self, now: Instant) {
        if self.keep_at.is_none() && self.book.live(now).next().is_some() {
            self.keep_at = Some(now + KEEP);
        }
    }

    /// For people.
    pub(crate) fn status(&self, now: Instant) -> Vec<TokenStatus> {
        let listed = self.book.list(now).filter(|info| self.is_made(info.id));
        listed.map(|info| self.said(info)).collect()
    }

    /// A token as far as it is durable.
    fn said(&self, info: TokenInfo) -> TokenStatus {
        let ending = Unsaved::Voided(info.id);
        let mut said = status(info);
        if self.unsaved.values().any(|unsaved| *unsaved == ending) {
            said.state = "voiding";
        }
        said
    }

    fn refresh_keyring(&mut self) {
        self.keyring.clear_tokens();
        let made = self.book.secrets().filter(|(id, _)| self.is_made(*id));
        for (id, secret) in made.collect::<Vec<_>>() {
            self.keyring.add_token(id, secret.clone());
        }
    }

    /// What a saved token looks like, unless it was forgotten.
    fn change(&self, id: TokenId, now: Instant) -> Option<Change> {
        let value = self.book.encode(id, now)?;
        Some(Change::Put {
            table: Table::Tokens,
            key: id.as_bytes().to_vec(),
            value,
        })
    }
}

fn removal(id: TokenId) -> Change {
    Change::Delete {
        table: Table::Tokens,
        key: id.as_bytes().to_vec(),
    }
}

fn status(info: TokenInfo) -> TokenStatus {
    let (state, used_by) = match info.state {
        TokenState::Burnt { by } => ("used", Some(by)),
        TokenState::Expired => ("expired", None),
        TokenState::Live => ("live", None),
        TokenState::Voided => ("voided", None),
    };
    let live = info.state == TokenState::Live;
    TokenStatus {
        id: info.id,
        reusable: info.reusable,
        state,
        expires_in: live.then_some(info.remaining),
        used_by,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Output;
    use crate::router::testing::{Fixture, ID};

    const TTL: Duration = Duration::from_secs(60);

    /// The save that was asked for last, after which nobody was answered.
    fn saving(outputs: &[Output]) -> Ticket {
        match outputs.last() {
            Some(Output::Save { ticket, .. }) => *ticket,
            other => panic!("{other:?}"),
        }
    }

    fn states(tokens: &Tokens, now: Instant) -> Vec<&'static str> {
        tokens.status(now).iter().map(|it| it.state).collect()
    }

    #[test]
    fn a_token_that_could_not_be_saved_is_none() {
        for reusable in [true, false] {
            let mut fixture = Fixture::new();
            let now = fixture.now;
            let mut tokens = Tokens::default();
            let made = tokens.create(ID, (reusable, TTL), &mut fixture.reach(), now);
            made.expect("a creator may");
            let ticket = saving(&fixture.outputs());
            let early = states(&tokens, now);

            tokens.handle_not_saved(ticket, &mut fixture.reach());
            tokens.handle_saved(ticket, now);

            assert!(early.is_empty() && states(&tokens, now).is_empty());
            let outputs = fixture.outputs();
            let [Output::Save { changes, .. }] = outputs.as_slice() else {
                panic!("what is owed is taken back: {outputs:?}");
            };
            assert!(matches!(changes.as_slice(), [Change::Delete { .. }]));
        }
    }

    #[test]
    fn a_token_is_void_when_that_is_durable_and_admits_nobody_before() {
        for reusable in [true, false] {
            let mut fixture = Fixture::new();
            let now = fixture.now;
            let mut tokens = Tokens::default();
            let made = tokens.create(ID, (reusable, TTL), &mut fixture.reach(), now);
            made.expect("a creator may");
            tokens.handle_saved(saving(&fixture.outputs()), now);
            let token = tokens.status(now)[0].id;

            let voided = tokens.revoke(ID, token, &mut fixture.reach(), now);
            voided.expect("it is known");
            let ticket = saving(&fixture.outputs());
            tokens.handle_not_saved(ticket, &mut fixture.reach());
            let failed = states(&tokens, now);
            let admits = tokens.check(token, NodeId::new([7; 32]), now);
            tokens.handle_saved(ticket, now);

            assert_eq!(failed, ["voiding"]);
            assert_eq!(admits, Err(Refusal::new(Code::TokenVoided)));
            assert_eq!(states(&tokens, now), ["voided"]);
        }
    }

    #[test]
    fn the_secret_of_a_reusable_token_is_shared_once() {
        let mut fixture = Fixture::new();
        let now = fixture.now;
        let mut tokens = Tokens::default();

        let made = tokens.create(ID, (true, TTL), &mut fixture.reach(), now);
        made.expect("a creator may");

        let ticket = saving(&fixture.outputs());
        assert_eq!(tokens.take_unshared(now).len(), 0, "it waits for the disk");
        tokens.handle_saved(ticket, now);
        assert_eq!(tokens.take_unshared(now).len(), 1);
        assert_eq!(tokens.take_unshared(now).len(), 0);
        assert_eq!(tokens.shared(now).len(), 1);
    }

    #[test]
    fn a_single_use_token_is_no_members_but_its_issuers() {
        let mut fixture = Fixture::new();
        let now = fixture.now;
        let mut tokens = Tokens::default();

        let made = tokens.create(ID, (false, TTL), &mut fixture.reach(), now);
        made.expect("a creator may");

        assert_eq!(tokens.shared(now).len(), 0);
        let saves = |output: &Output| matches!(output, Output::Save { .. });
        assert!(fixture.outputs().iter().any(saves));
    }

    #[test]
    fn a_token_that_nobody_knows_cannot_be_voided() {
        let mut fixture = Fixture::new();
        let now = fixture.now;
        let token = TokenId::new([7; 16]);

        let voided = Tokens::default().revoke(ID, token, &mut fixture.reach(), now);

        let problem = voided.expect_err("there is none");
        assert_eq!(problem.code, Code::TokenNotAccepted);
    }

    #[test]
    fn a_token_ends_when_its_time_is_over() {
        let mut fixture = Fixture::new();
        let mut tokens = Tokens::default();
        let now = fixture.now;
        let made = tokens.create(ID, (false, TTL), &mut fixture.reach(), now);
        made.expect("a creator may");
        tokens.handle_saved(saving(&fixture.outputs()), now);
        let over = fixture.wait(TTL);

        tokens.handle_timeout(&mut fixture.reach(), over);

        assert_eq!(states(&tokens, over), ["expired"]);
    }

    #[test]
    fn a_restart_gives_a_token_back_a_minute_of_its_life_at_most() {
        const LIFE: Duration = Duration::from_secs(600);
        let mut fixture = Fixture::new();
        let (mut now, mut saved) = (fixture.now, Saved::default());
        let mut tokens = Tokens::default();
        let made = tokens.create(ID, (false, LIFE), &mut fixture.reach(), now);
        made.expect("a creator may");
        let mut outputs = fixture.outputs();
        tokens.handle_saved(saving(&outputs), now);
        while now < fixture.now + LIFE - KEEP {
            for output in outputs {
                if let Output::Save { changes, .. } = output {
                    changes.into_iter().for_each(|change| saved.apply(change));
                }
            }
            (now, _) = tokens.poll_timeout().expect("it grows older");
            tokens.handle_timeout(&mut fixture.reach(), now);
            outputs = fixture.outputs();
        }

        // The clock says nothing after a restart.
        let restarted = Tokens::load(&saved, (Duration::ZERO, now), now).expect("whole");

        let left = restarted.status(now)[0].expires_in.expect("live");
        assert!(left <= fixture.now + LIFE - now + KEEP, "{left:?}");
    }
}
