//! What opens the door: tokens for those who are to be admitted, door keys for members.
//!
//! A reusable token stands in our log of the membership; its secret goes to members on their links once the record is
//! durable, and to nobody else. Of a single-use token only its issuer knows.
//!
//! A door key is signed by an admin and passed on as it is; nobody else's is taken. This node dials with the newest; where
//! that does not open the door, which is closed without a byte, it takes the one before it the next time.
//!
//! **Invariant.** The keyring holds every door key that is known and the secret of every token that is, spent ones too, so
//! that their holders can be told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_types::{Code, MeshId, NodeId, Problem, TokenId};

use crate::control::ControlMessage;
use crate::crypto::{Crypto, Secret32, SigningKey};
use crate::handshake::{Keyring, Refusal};
use crate::io::{Reply, RequestId, Ticket};
use crate::membership::{
    DoorKey, Membership, Record, Role, SignedDoorKey, TokenGrant, TokenSecret,
};
use crate::router::ground::Reach;
use crate::router::ground::offences::Offence;
use crate::router::ground::saves::Part;
use crate::status::TokenStatus;
use crate::store::{Change, Saved, Table};
use crate::token::{Issuer, Token, TokenBook, TokenInfo, TokenState};
use crate::wire::preface::DoorKeyId;

/// How many door keys of one signer are kept, the newest: a mesh removes members seldom.
const MAX_DOOR_KEYS: usize = 8;
/// How many are kept in all.
const MAX_ALL_DOOR_KEYS: usize = 64;
/// How many addresses are remembered at which the newest door key does not open.
const MAX_SHUT: usize = 64;
/// The number of the door key that a mesh begins with.
const FIRST_GENERATION: u64 = 1;
/// How much of its life a token may get back by a restart of a node whose clock cannot be trusted.
const KEEP: Duration = Duration::from_secs(60);

/// Tokens and door keys.
#[derive(Default)]
pub(crate) struct Tokens {
    book: TokenBook,
    /// By generation: the last is dialled with, all are opened to.
    doors: BTreeMap<(u64, DoorKeyId), SignedDoorKey>,
    /// Where the newest keys do not open: how many of them.
    shut: BTreeMap<SocketAddr, usize>,
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
            let door = SignedDoorKey::decode(value).map_err(|_| "a door key")?;
            tokens.insert_door_key(door);
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

    /// What this node dials an address with.
    pub(crate) fn door_key_for(&self, to: SocketAddr) -> Option<(DoorKeyId, &Secret32)> {
        let shut = self.shut.get(&to).copied().unwrap_or_default();
        let newest_first = self.doors.values().rev();
        let door = newest_first.cycle().nth(shut)?.door();
        Some((door.id, &door.key))
    }

    /// The door that we asked for at an address was closed without a byte: the next dial tries an older key.
    pub(crate) fn door_was_shut(&mut self, to: SocketAddr) {
        if self.shut.len() >= MAX_SHUT && !self.shut.contains_key(&to) {
            self.shut.pop_first();
        }
        let shut = self.shut.entry(to).or_default();
        *shut = (*shut + 1) % self.doors.len().max(1);
    }

    /// Every door key, for a new member.
    pub(crate) fn door_keys(&self) -> impl Iterator<Item = SignedDoorKey> {
        self.doors.values().cloned()
    }

    /// Door keys that were made after the mesh, for a member that may have been away then.
    pub(crate) fn later_door_keys(&self) -> impl Iterator<Item = SignedDoorKey> {
        let later = |door: &&SignedDoorKey| door.door().generation > FIRST_GENERATION;
        self.doors.values().filter(later).cloned()
    }

    /// The first door key of a mesh; gives what is to be saved.
    pub(crate) fn create_door_key(
        &mut self,
        key: &SigningKey,
        mesh: &MeshId,
        crypto: &mut dyn Crypto,
    ) -> Vec<Change> {
        self.keep_door_key(SignedDoorKey::generate(FIRST_GENERATION, key, mesh, crypto))
    }

    /// Takes a door key in that somebody tells, if whoever signed it may make one; gives what is to be saved, if it is news.
    pub(crate) fn receive_door_key(
        &mut self,
        door: SignedDoorKey,
        membership: &Membership,
        mesh: &MeshId,
    ) -> Option<Vec<Change>> {
        let DoorKey { id, signer, .. } = *door.door();
        let known = self.doors.values().any(|door| door.door().id == id);
        if known || !is_allowed(&door, membership, mesh) {
            return None;
        }
        let of_signer = self.of_signer(signer).count();
        if of_signer < MAX_DOOR_KEYS && self.doors.len() >= MAX_ALL_DOOR_KEYS {
            return None;
        }
        let generation = door.door().generation;
        let oldest = self.of_signer(signer).next();
        let is_older = oldest.is_some_and(|oldest| generation < oldest.0);
        (of_signer < MAX_DOOR_KEYS || !is_older).then(|| self.keep_door_key(door))
    }

    /// A signer's keys, the oldest first.
    fn of_signer(&self, signer: NodeId) -> impl Iterator<Item = (u64, DoorKeyId)> {
        let doors = self.doors.iter();
        let its = doors.filter(move |(_, door)| door.door().signer == signer);
        its.map(|(&key, _)| key)
    }

    /// Keeps a door key, and leaves its signer's oldest where that makes one too many.
    fn keep_door_key(&mut self, door: SignedDoorKey) -> Vec<Change> {
        let signer = door.door().signer;
        let mut changes = vec![Change::Put {
            table: Table::DoorKeys,
            key: door.door().id.as_bytes().to_vec(),
            value: door.encode(),
        }];
        self.insert_door_key(door);
        let excess = self.of_signer(signer).count().saturating_sub(MAX_DOOR_KEYS);
        for key in self.of_signer(signer).take(excess).collect::<Vec<_>>() {
            self.doors.remove(&key);
            self.keyring.remove_door(key.1);
            changes.push(Change::Delete {
                table: Table::DoorKeys,
                key: key.1.as_bytes().to_vec(),
            });
        }
        self.shut.clear();
        changes
    }

    fn insert_door_key(&mut self, door: SignedDoorKey) {
        let DoorKey {
            id,
            ref key,
            generation,
            ..
        } = *door.door();
        self.keyring.add_door(id, key.clone());
        self.doors.insert((generation, id), door);
    }

    /// Another member tells a door key: news is passed on as it is.
    pub(crate) fn handle_door_key(
        &mut self,
        door: SignedDoorKey,
        from: NodeId,
        reach: &mut Reach<'_>,
        now: Instant,
    ) {
        let (membership, mesh) = (&reach.mesh.membership, reach.mesh.id);
        if !is_allowed(&door, membership, &mesh) {
            let offences = &mut reach.mesh.offences;
            return offences.note(from, 1, Offence::DoorKey, now);
        }
        let Some(changes) = self.receive_door_key(door.clone(), membership, &mesh) else {
            return;
        };
        reach.ground.save(changes);
        let others = reach.mesh.links.iter().filter(|(node, _)| **node != from);
        for conn in others.map(|(_, link)| link.conn).collect::<Vec<_>>() {
            let message = ControlMessage::DoorKey(door.clone());
            reach.ground.tell(conn, &message);
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

/// Whether whoever made a door key may, and did.
fn is_allowed(door: &SignedDoorKey, membership: &Membership, mesh: &MeshId) -> bool {
    let signer = membership.member(door.door().signer);
    signer.is_some_and(|signer| signer.role >= Role::Admin) && door.verify(mesh).is_ok()
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

    fn door_key(fixture: &mut Fixture, generation: u64) -> SignedDoorKey {
        let key = fixture.ground.settings.keys.signing();
        SignedDoorKey::generate(
            generation,
            key,
            &fixture.mesh.id,
            &mut *fixture.ground.crypto,
        )
    }

    #[test]
    fn a_door_key_of_who_may_not_make_one_is_not_taken() {
        let mut fixture = Fixture::new();
        let (introducer, stranger) = (fixture.admit("b"), fixture.stranger());
        let now = fixture.now;
        let mut tokens = Tokens::default();
        let made = door_key(&mut fixture, 2);
        let as_if = |signer| {
            let door = DoorKey {
                signer,
                ..made.door().clone()
            };
            let key = fixture.ground.settings.keys.signing();
            SignedDoorKey::sign(door, key, &fixture.mesh.id)
        };
        let forged = [as_if(introducer), as_if(stranger)];

        for door in forged {
            tokens.handle_door_key(door, introducer, &mut fixture.reach(), now);
        }
        let before = tokens.doors.len();
        tokens.handle_door_key(made, introducer, &mut fixture.reach(), now);

        assert_eq!(before, 0);
        assert_eq!(tokens.doors.len(), 1);
        let told = fixture.mesh.offences.recent(now).collect::<Vec<_>>();
        assert_eq!(told, [(introducer, 2, Offence::DoorKey)]);
    }

    #[test]
    fn the_newest_door_keys_of_a_signer_are_kept_and_dialled_with() {
        let mut fixture = Fixture::new();
        let (by, now) = (fixture.admit("b"), fixture.now);
        let mut tokens = Tokens::default();

        for generation in (1..=20).rev() {
            let door = door_key(&mut fixture, generation);
            tokens.handle_door_key(door, by, &mut fixture.reach(), now);
        }
        for generation in 21..=40 {
            let door = door_key(&mut fixture, generation);
            tokens.handle_door_key(door, by, &mut fixture.reach(), now);
        }

        let kept = tokens.doors.keys().map(|&(generation, _)| generation);
        assert_eq!(kept.collect::<Vec<_>>(), (33..=40).collect::<Vec<_>>());
    }

    #[test]
    fn a_door_that_stays_shut_is_asked_for_by_an_older_key_and_in_the_end_by_the_newest_again() {
        let mut fixture = Fixture::new();
        let (by, now) = (fixture.admit("b"), fixture.now);
        let mut tokens = Tokens::default();
        let ids = [1, 2, 3].map(|generation| {
            let door = door_key(&mut fixture, generation);
            let id = door.door().id;
            tokens.handle_door_key(door, by, &mut fixture.reach(), now);
            id
        });
        let [there, elsewhere] = [1, 2].map(|n| SocketAddr::from(([192, 0, 2, n], 6783)));

        let mut asked = Vec::new();
        for _ in 0..4 {
            asked.extend(tokens.door_key_for(there).map(|(id, _)| id));
            tokens.door_was_shut(there);
        }

        assert_eq!(asked, [ids[2], ids[1], ids[0], ids[2]]);
        let newest = tokens.door_key_for(elsewhere).map(|(id, _)| id);
        assert_eq!(newest, Some(ids[2]));
    }
}
