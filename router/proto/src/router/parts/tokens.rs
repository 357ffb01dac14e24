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
use crate::io::{Reply, RequestId};
use crate::membership::{DoorKey, Membership, Record, TokenGrant, TokenSecret};
use crate::router::ground::Reach;
use crate::status::TokenStatus;
use crate::store::{Change, Saved, Table};
use crate::token::{Issuer, Token, TokenBook, TokenInfo, TokenState};
use crate::wire::preface::DoorKeyId;

/// How many door keys are kept: a member that makes up more of them is not followed.
const MAX_DOOR_KEYS: usize = 16;

/// Tokens and door keys.
#[derive(Default)]
pub(crate) struct Tokens {
    book: TokenBook,
    /// By generation: the last is dialled with, all are opened to.
    doors: BTreeMap<(u64, DoorKeyId), Secret32>,
    keyring: Keyring,
    /// Reusable tokens whose secrets the others do not have yet.
    unshared: BTreeSet<TokenId>,
}

impl Tokens {
    /// Takes what was saved.
    ///
    /// # Errors
    ///
    /// Tells what cannot be read.
    pub(crate) fn load(saved: &Saved, now: Instant) -> Result<Self, &'static str> {
        let mut tokens = Self::default();
        for (_, value) in saved.table(Table::DoorKeys) {
            tokens.add_door_key(DoorKey::decode(value).map_err(|_| "a door key")?);
        }
        for (id, value) in saved.table(Table::Tokens) {
            let id = <[u8; 16]>::try_from(id).map_err(|_| "a token")?;
            let restored = tokens.book.restore(TokenId::new(id), value, now);
            restored.map_err(|_| "a token")?;
        }
        Ok(tokens)
    }

    /// What opens the door.
    pub(crate) const fn keyring(&self) -> &Keyring {
        &self.keyring
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
        self.book.secrets().filter_map(share).collect()
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
        self.refresh_keyring();
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
            reach.ground.save_then_reply(changes, id, reply);
            return Ok(());
        }
        let grant = TokenGrant {
            id: token,
            reusable,
            ttl,
        };
        reach.append_and_tell(Record::Token(grant), changes, id, reply)?;
        self.unshared.insert(token);
        Ok(())
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
        if logged {
            return reach.append_and_tell(Record::Void(token), changes, id, Reply::Done);
        }
        reach.ground.save_then_reply(changes, id, Reply::Done);
        Ok(())
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.book.poll_timeout()
    }

    /// Forgets tokens whose time is over.
    pub(crate) fn handle_timeout(&mut self, reach: &mut Reach<'_>, now: Instant) {
        let ended = self.book.handle_timeout(now);
        let changes: Vec<Change> = ended
            .into_iter()
            .map(|id| self.change(id, now).unwrap_or_else(|| removal(id)))
            .collect();
        if !changes.is_empty() {
            self.refresh_keyring();
            reach.ground.save(changes);
        }
    }

    /// For people.
    pub(crate) fn status(&self, now: Instant) -> Vec<TokenStatus> {
        self.book.list(now).map(status).collect()
    }

    fn refresh_keyring(&mut self) {
        self.keyring.clear_tokens();
        for (id, secret) in self.book.secrets() {
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

    #[test]
    fn the_secret_of_a_reusable_token_is_shared_once() {
        let mut fixture = Fixture::new();
        let now = fixture.now;
        let mut tokens = Tokens::default();

        let made = tokens.create(ID, (true, TTL), &mut fixture.reach(), now);
        made.expect("a creator may");

        assert_eq!(fixture.replies(), [], "the reply waits for the disk");
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
        let over = fixture.wait(TTL);

        tokens.handle_timeout(&mut fixture.reach(), over);

        let states: Vec<_> = tokens.status(over).iter().map(|it| it.state).collect();
        assert_eq!(states, ["expired"]);
    }
}
