//! Remembers tokens: those made here, those whose secret other members shared, and the spent ones.
//!
//! ```text
//!                 redeemed (single use)
//!          ┌───────────────────────────▶ Burnt by a node ─┐
//!   Live ──┤ voided                                       │  after 7 days
//!          ├───────────────────────────▶ Voided ──────────┼──────────────▶ forgotten
//!          │ its time is over                             │
//!          └───────────────────────────▶ Expired ─────────┘
//! ```
//!
//! Spent ones are remembered so that who comes with one can be told which of the three it was. Life is counted by the
//! time the core is told, which is monotone, and saved as what is left of it and as the time of day at which it ends: the
//! earlier counts, so neither a restart nor a wall clock lengthens it.
//!
//! **Invariant.** A single-use token is redeemed by one node only; that node may do so again, since it may not have
//! heard that it was let in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use minicbor::{Decode, Encode};
use weft_types::{Code, NodeId, TokenId};

use crate::crypto::{Crypto, Secret32};
use crate::handshake::Refusal;
use crate::wire;

/// How long a spent token is remembered.
const REMEMBER: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The longest life: a token that outlives its mesh's hardware is a mistake, and clocks must be able to count it.
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// How many are remembered: a bound for what other members can make us keep.
const MAX_TOKENS: usize = 1024;

/// Where a token is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TokenState {
    /// A node joined with it: single use only.
    #[n(1)]
    Burnt {
        /// Which.
        #[n(0)]
        by: NodeId,
    },
    /// Its time is over.
    #[n(2)]
    Expired,
    /// It admits.
    #[n(3)]
    Live,
    /// Somebody revoked it.
    #[n(4)]
    Voided,
}

/// What a redeemed token was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redeem {
    /// Burnt by the same node before: nothing has changed.
    Again,
    /// Burnt just now: to be made durable before its bearer hears of it.
    Burnt,
    /// Reusable: nothing has changed.
    Reusable,
}

/// A token as it may be listed: without its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// Which.
    pub id: TokenId,
    /// Admits more than one node.
    pub reusable: bool,
    /// Where it is in its life.
    pub state: TokenState,
    /// How long it stays so: until it expires, or is forgotten.
    pub remaining: Duration,
}

/// Too many tokens at once. Nothing has changed; the oldest go by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_TOKENS} tokens are remembered, which is all there is room for")]
pub struct BookFull;

/// Saved bytes that are no token's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a saved token cannot be read")]
pub struct DamagedToken;

/// All tokens that this node knows the secret of.
#[derive(Clone, Debug, Default)]
pub struct TokenBook {
    pages: BTreeMap<TokenId, Page>,
    clock: Option<WallClock>,
}

/// What the wall clock showed at some moment: life goes on while a node is switched off.
#[derive(Clone, Copy, Debug)]
struct WallClock {
    at: Instant,
    /// Since 1970.
    shown: Duration,
}

impl WallClock {
    fn at(self, then: Instant) -> Duration {
        self.shown + then.saturating_duration_since(self.at)
    }
}

#[derive(Clone, Debug)]
struct Page {
    secret: Secret32,
    reusable: bool,
    state: TokenState,
    /// When a live one expires, and when a spent one is forgotten.
    until: Instant,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct SavedPage {
    #[n(0)]
    secret: Secret32,
    #[n(1)]
    reusable: bool,
    #[n(2)]
    state: TokenState,
    #[n(3)]
    remaining_ms: u64,
    /// When that ends by the wall clock, since 1970.
    #[n(4)]
    ends_ms: Option<u64>,
}

impl TokenBook {
    /// An empty book, at a moment at which the wall clock shows so much since 1970.
    pub fn new(shown: Duration, now: Instant) -> Self {
        Self {
            pages: BTreeMap::new(),
            clock: Some(WallClock { at: now, shown }),
        }
    }

    /// Makes a token: its name and its secret.
    pub fn issue(
        &mut self,
        reusable: bool,
        ttl: Duration,
        crypto: &mut dyn Crypto,
        now: Instant,
    ) -> Result<(TokenId, Secret32), BookFull> {
        let (id, secret) = (TokenId::new(crypto.array()), crypto.secret());
        self.insert(id, reusable, secret.clone(), ttl, now)?;
        Ok((id, secret))
    }

    /// Remembers a reusable token of another member. What is known of it already stands: a second receipt does not
    /// lengthen its life.
    pub fn receive(
        &mut self,
        id: TokenId,
        secret: Secret32,
        remaining: Duration,
        now: Instant,
    ) -> Result<(), BookFull> {
        if self.pages.contains_key(&id) {
            return Ok(());
        }
        self.insert(id, true, secret, remaining, now)
    }

    /// Forgets a token that came to nothing.
    pub fn remove(&mut self, id: TokenId) {
        self.pages.remove(&id);
    }

    /// Ends a token's life; whether it had one. To be made durable.
    pub fn void(&mut self, id: TokenId, now: Instant) -> bool {
        match self.pages.get_mut(&id) {
            Some(page) if page.state_at(now) == TokenState::Live => {
                page.spend(TokenState::Voided, now);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Whether [`Self::redeem`] would succeed. Changes nothing: for finding out what else may fail first.
    pub fn check(&self, id: TokenId, node: NodeId, now: Instant) -> Result<Redeem, Refusal> {
        let refuse = |code| Err(Refusal::new(code));
        let Some(page) = self.pages.get(&id) else {
            return refuse(Code::TokenNotAccepted);
        };
        match page.state_at(now) {
            TokenState::Burnt { by } if by == node => Ok(Redeem::Again),
            TokenState::Burnt { .. } => refuse(Code::TokenUsed),
            TokenState::Expired => refuse(Code::TokenExpired),
            TokenState::Live if page.reusable => Ok(Redeem::Reusable),
            TokenState::Live => Ok(Redeem::Burnt),
            TokenState::Voided => refuse(Code::TokenVoided),
        }
    }

    /// Lets a node in by a token, and burns it if it is for single use.
    pub fn redeem(&mut self, id: TokenId, node: NodeId, now: Instant) -> Result<Redeem, Refusal> {
        let redeem = self.check(id, node, now)?;
        if redeem == Redeem::Burnt
            && let Some(page) = self.pages.get_mut(&id)
        {
            page.spend(TokenState::Burnt { by: node }, now);
        }
        Ok(redeem)
    }

    /// What is handed to another introducer: a live reusable token's secret, and what is left of its life.
    pub fn share(&self, id: TokenId, now: Instant) -> Option<(Secret32, Duration)> {
        let page = self.pages.get(&id)?;
        let shared = page.reusable && page.state_at(now) == TokenState::Live;
        shared.then(|| {
            (
                page.secret.clone(),
                page.until.saturating_duration_since(now),
            )
        })
    }

    /// All secrets, spent ones included: they open the door to being told why not.
    pub fn secrets(&self) -> impl Iterator<Item = (TokenId, &Secret32)> {
        self.pages.iter().map(|(&id, page)| (id, &page.secret))
    }

    /// All tokens, by id, as they may be listed.
    pub fn list(&self, now: Instant) -> impl Iterator<Item = TokenInfo> {
        self.pages.iter().map(move |(&id, page)| TokenInfo {
            id,
            reusable: page.reusable,
            state: page.state_at(now),
            remaining: page.until.saturating_duration_since(now),
        })
    }

    /// When the next token expires or is forgotten.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let until = self.pages.values().map(|page| page.until).min()?;
        Some((until, "a token expires or is forgotten"))
    }

    /// Lets tokens expire and be forgotten. Returns those that changed, to be made durable: [`Self::encode`] has no
    /// bytes for one that was forgotten.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<TokenId> {
        let mut changed = Vec::new();
        self.pages.retain(|&id, page| {
            if page.until > now {
                return true;
            }
            changed.push(id);
            if page.state == TokenState::Live {
                let expired = page.until;
                page.spend(TokenState::Expired, expired);
            }
            page.until > now
        });
        changed
    }

    /// A token as it is saved: secret, for a file of mode 0600.
    pub fn encode(&self, id: TokenId, now: Instant) -> Option<Vec<u8>> {
        let page = self.pages.get(&id)?;
        let remaining = page.until.saturating_duration_since(now);
        Some(wire::encode(&SavedPage {
            secret: page.secret.clone(),
            reusable: page.reusable,
            state: page.state,
            remaining_ms: millis(remaining),
            ends_ms: self.clock.map(|clock| millis(clock.at(page.until))),
        }))
    }

    /// Those that admit, and so grow older.
    pub fn live(&self, now: Instant) -> impl Iterator<Item = TokenId> {
        let live = self
            .pages
            .iter()
            .filter(move |(_, page)| page.state_at(now) == TokenState::Live);
        live.map(|(&id, _)| id)
    }

    /// Reads a saved token.
    pub fn restore(&mut self, id: TokenId, bytes: &[u8], now: Instant) -> Result<(), DamagedToken> {
        let saved: SavedPage = wire::decode_whole(bytes).map_err(|_| DamagedToken)?;
        let mut left = Duration::from_millis(saved.remaining_ms).min(MAX_TTL);
        if let (Some(clock), Some(ends)) = (self.clock, saved.ends_ms) {
            left = left.min(Duration::from_millis(ends).saturating_sub(clock.at(now)));
        }
        let page = Page {
            secret: saved.secret,
            reusable: saved.reusable,
            state: saved.state,
            until: now + left,
        };
        self.pages.insert(id, page);
        Ok(())
    }

    fn insert(
        &mut self,
        id: TokenId,
        reusable: bool,
        secret: Secret32,
        ttl: Duration,
        now: Instant,
    ) -> Result<(), BookFull> {
        if self.pages.len() >= MAX_TOKENS {
            return Err(BookFull);
        }
        let page = Page {
            secret,
            reusable,
            state: TokenState::Live,
            until: now + ttl.min(MAX_TTL),
        };
        self.pages.insert(id, page);
        Ok(())
    }
}

impl Page {
    /// Its state, whether or not a timer has noticed.
    fn state_at(&self, now: Instant) -> TokenState {
        if self.state == TokenState::Live && self.until <= now {
            return TokenState::Expired;
        }
        self.state
    }

    fn spend(&mut self, state: TokenState, now: Instant) {
        self.state = state;
        self.until = now + REMEMBER;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::seeded::SeededCrypto;
    use crate::virtual_time::origin;

    const TTL: Duration = Duration::from_secs(900);
    const ANNA: NodeId = NodeId::new([1; 32]);
    const BERT: NodeId = NodeId::new([2; 32]);

    fn issued(reusable: bool, now: Instant) -> (TokenBook, TokenId) {
        let mut book = TokenBook::default();
        let (id, _) = book
            .issue(reusable, TTL, &mut SeededCrypto::new(1), now)
            .expect("has room");
        (book, id)
    }

    fn refused(code: Code) -> Result<Redeem, Refusal> {
        Err(Refusal::new(code))
    }

    #[test]
    fn a_single_use_token_admits_one_node_and_that_one_again() {
        let now = origin();
        let (mut book, id) = issued(false, now);

        assert_eq!(book.check(id, BERT, now), Ok(Redeem::Burnt));
        assert_eq!(book.redeem(id, ANNA, now), Ok(Redeem::Burnt));
        assert_eq!(book.redeem(id, BERT, now), refused(Code::TokenUsed));
        assert_eq!(book.redeem(id, ANNA, now + TTL * 2), Ok(Redeem::Again));
    }

    #[test]
    fn a_reusable_token_admits_until_its_time_is_over() {
        let now = origin();
        let (mut book, id) = issued(true, now);

        assert_eq!(book.redeem(id, ANNA, now), Ok(Redeem::Reusable));
        assert_eq!(
            book.redeem(id, BERT, now + TTL - Duration::from_nanos(1)),
            Ok(Redeem::Reusable)
        );
        assert_eq!(
            book.redeem(id, BERT, now + TTL),
            refused(Code::TokenExpired)
        );
    }

    #[test]
    fn used_expired_voided_and_unknown_are_told_apart() {
        let now = origin();
        let (mut book, id) = issued(false, now);

        assert!(book.void(id, now));
        assert!(!book.void(id, now));

        assert_eq!(book.redeem(id, ANNA, now), refused(Code::TokenVoided));
        assert_eq!(
            book.redeem(TokenId::new([9; 16]), ANNA, now),
            refused(Code::TokenNotAccepted)
        );
    }

    #[test]
    fn a_used_token_cannot_be_voided_and_stays_used() {
        let now = origin();
        let (mut book, id) = issued(false, now);
        book.redeem(id, ANNA, now).expect("admits");

        assert!(!book.void(id, now));

        assert_eq!(book.redeem(id, BERT, now), refused(Code::TokenUsed));
    }

    #[test]
    fn every_wakeup_moves_the_deadline_forward_until_all_is_forgotten() {
        let now = origin();
        let (mut book, id) = issued(false, now);

        let mut wakeups = Vec::new();
        while let Some((deadline, _)) = book.poll_timeout() {
            assert_eq!(book.handle_timeout(deadline), [id]);
            assert!(book.poll_timeout().is_none_or(|(next, _)| next > deadline));
            wakeups.push(deadline - now);
        }

        assert_eq!(wakeups, [TTL, TTL + REMEMBER]);
        assert_eq!(book.encode(id, now), None);
    }

    #[test]
    fn a_late_wakeup_forgets_what_expired_long_ago() {
        let now = origin();
        let (mut book, id) = issued(true, now);

        assert_eq!(book.handle_timeout(now + TTL + REMEMBER), [id]);

        assert_eq!(book.poll_timeout(), None);
    }

    #[test]
    fn a_restart_neither_lengthens_a_life_nor_unburns() {
        let now = origin();
        let (mut book, single) = issued(false, now);
        let (reusable, _) = book
            .issue(true, TTL, &mut SeededCrypto::new(2), now)
            .expect("has room");
        book.redeem(single, ANNA, now).expect("admits");
        let later = now + TTL / 3;

        let mut restarted = TokenBook::default();
        for id in [single, reusable] {
            let bytes = book.encode(id, later).expect("is known");
            assert_eq!(restarted.restore(id, &bytes, now), Ok(()));
            assert!(
                (0..bytes.len())
                    .all(|len| restarted.clone().restore(id, &bytes[..len], now).is_err())
            );
        }

        assert_eq!(
            restarted.redeem(single, BERT, now),
            refused(Code::TokenUsed)
        );
        assert_eq!(
            restarted.share(reusable, now).map(|(_, left)| left),
            Some(TTL - TTL / 3)
        );
        assert_eq!(restarted.secrets().count(), 2);
    }

    #[test]
    fn of_what_is_left_and_the_time_of_day_the_earlier_counts() {
        let (now, noon) = (origin(), Duration::from_secs(1_000_000));
        let mut book = TokenBook::new(noon, now);
        let issued = book.issue(true, TTL, &mut SeededCrypto::new(1), now);
        let (id, _) = issued.expect("has room");
        let bytes = book.encode(id, now + TTL / 3).expect("is known");
        let left = |shown: Duration| {
            let mut restarted = TokenBook::new(shown, now);
            restarted.restore(id, &bytes, now).expect("whole");
            restarted.share(id, now).map(|(_, left)| left)
        };

        assert_eq!(left(noon + TTL / 3), Some(TTL - TTL / 3));
        assert_eq!(
            left(noon + TTL / 2),
            Some(TTL - TTL / 2),
            "it was switched off"
        );
        assert_eq!(left(noon + TTL), None);
        assert_eq!(
            left(Duration::ZERO),
            Some(TTL - TTL / 3),
            "the clock is wrong"
        );
    }

    #[test]
    fn what_is_received_twice_lives_once_and_single_use_is_not_shared() {
        let now = origin();
        let (issuer, single) = issued(false, now);
        let mut book = TokenBook::default();
        let id = TokenId::new([5; 16]);

        book.receive(id, Secret32::new([6; 32]), TTL, now)
            .expect("has room");
        book.receive(id, Secret32::new([7; 32]), TTL * 9, now)
            .expect("is known");

        assert_eq!(book.share(id, now), Some((Secret32::new([6; 32]), TTL)));
        assert_eq!(issuer.share(single, now), None);
    }

    #[test]
    fn an_endless_life_is_cut_and_a_full_book_says_so() {
        let now = origin();
        let mut book = TokenBook::default();
        let mut crypto = SeededCrypto::new(1);

        for _ in 0..MAX_TOKENS {
            book.issue(true, Duration::MAX, &mut crypto, now)
                .expect("has room");
        }

        assert_eq!(book.issue(true, TTL, &mut crypto, now), Err(BookFull));
        assert!(book.list(now).all(|info| info.remaining == MAX_TTL));
    }
}
