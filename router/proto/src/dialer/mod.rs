//! Decides whom to dial, and when.
//!
//! ```text
//!             due                    addresses                one linked
//!   Waiting ───────▶ Resolving ─────────────────▶ Dialling ───────────────▶ Linked
//!      ▲             (targets only)                  │ all failed              │ lost
//!      └────────────────── back-off ◀────────────────┴─────────────────────────┘
//! ```
//!
//! There is an entry for every target that a person named and for every member. Addresses of one entry are tried
//! [`STAGGER`] apart. Failures back off from [`FIRST`] to [`CAP`] with jitter; a member that was linked and is lost is
//! dialled at once and then every third of a second for [`EAGER`], since most come back. A member that tells a new address is
//! dialled at once too, `MAX_HURRIES` times: its back-off is the member's, not the address's. Of each pair the smaller node
//! dials first; the other waits [`COURTESY`] longer, so that two seldom dial at once (when they do, the tie-break of
//! `connection` decides).
//!
//! **Invariant.** After `handle_timeout(t)` the next deadline is later than `t`, or there is none.

mod error;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_types::NodeId;

pub use error::{DialError, LetGo};

use crate::budget::Budget;
use crate::crypto::Crypto;
use crate::io::{ConnId, Target};

/// The first pause after a failure.
pub const FIRST: Duration = Duration::from_millis(250);
/// The longest pause: a node that returns is found within it, whatever was lost.
pub const CAP: Duration = Duration::from_secs(15);
/// Between two addresses of one entry: RFC 8305 §5 has 250 ms.
pub const STAGGER: Duration = Duration::from_millis(200);
/// What the larger node of a pair waits longer.
pub const COURTESY: Duration = Duration::from_secs(1);
/// How long a lost member is dialled without back-off.
pub const EAGER: Duration = Duration::from_secs(10);
/// The least pause within [`EAGER`]; as much again is drawn as jitter, to one half.
const EAGER_PAUSE: Duration = Duration::from_millis(300);
/// How many addresses of one entry are tried in a round.
const MAX_ADDRESSES: usize = 16;
/// How many of them at once: who tells many does not make others dial many.
const MAX_AT_ONCE: usize = 4;
/// How many dials a member has made to where it merely says that it is, at once and a second: of an honest one that is away,
/// every address for as long as it is dialled without back-off.
const UNPROVED_AT_ONCE: u64 = 96;
const UNPROVED: u64 = 1;
/// How many addresses of a member are known to have led to it, the last ones.
const MAX_PROVED: usize = 4;
/// How often the word of a member that its addresses are others hurries a dial, before a link proves one of them.
const MAX_HURRIES: u32 = 4;

/// What the dialer wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum DialerOutput {
    /// Close this connection: another one of the entry was faster.
    Abandon(ConnId),
    /// Connect.
    Dial {
        /// By this number.
        conn: ConnId,
        /// Where to.
        to: SocketAddr,
    },
    /// Look a name up.
    Resolve(Target),
    /// Every address of a target failed in this round; it goes on after a pause.
    RoundFailed {
        /// Which.
        target: Target,
        /// The last address tried, if there was one.
        address: Option<SocketAddr>,
        /// Why that one failed.
        error: DialError,
    },
}

/// For `weft status targets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialStatus {
    /// As it was written.
    pub target: Target,
    /// What it is doing.
    pub state: DialState,
    /// Who answered there.
    pub node: Option<NodeId>,
    /// Why it last failed.
    pub error: Option<DialError>,
    /// How many rounds have failed since somebody was reached there.
    pub failures: u32,
}

/// What an entry is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialState {
    /// Trying.
    Connecting,
    /// Linked to who is there.
    Linked,
    /// It is this node.
    Ourself,
    /// Until then.
    Waiting(Instant),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Member(NodeId),
    Target(Target),
}

struct Entry {
    state: State,
    /// Of a member: where it says it is. Of a target: what its name meant last.
    addresses: Vec<SocketAddr>,
    node: Option<NodeId>,
    failures: u32,
    /// How often new addresses have hurried it since it was linked last.
    hurries: u32,
    lost_at: Option<Instant>,
    error: Option<DialError>,
    /// Where dials led to it.
    proved: VecDeque<SocketAddr>,
    /// For dials to where none has led yet: bystanders may be there.
    unproved: Budget,
}

enum State {
    Dialling {
        left: VecDeque<SocketAddr>,
        tried: BTreeMap<ConnId, SocketAddr>,
        next_at: Option<Instant>,
    },
    Linked,
    Ourself,
    Resolving,
    Waiting(Instant),
}

/// Decides whom to dial, and when. See the module.
pub struct Dialer {
    ourself: NodeId,
    entries: BTreeMap<Key, Entry>,
    linked: BTreeSet<NodeId>,
    own_addresses: BTreeSet<SocketAddr>,
    outputs: VecDeque<DialerOutput>,
    conns: u64,
}

impl Dialer {
    /// Knows nobody yet.
    pub const fn new(ourself: NodeId) -> Self {
        Self {
            ourself,
            entries: BTreeMap::new(),
            linked: BTreeSet::new(),
            own_addresses: BTreeSet::new(),
            outputs: VecDeque::new(),
            conns: 0,
        }
    }

    /// Dials a target from here on, at once.
    pub fn add_target(&mut self, target: Target, now: Instant) {
        self.entries
            .entry(Key::Target(target))
            .or_insert_with(|| Entry::new(now));
    }

    /// Dials a target no more. Says whether it was known.
    pub fn remove_target(&mut self, target: &Target) -> bool {
        let Some(entry) = self.entries.remove(&Key::Target(target.clone())) else {
            return false;
        };
        self.abandon(entry);
        true
    }

    /// Tells who is a member and where each says it can be reached. Who is not named is dialled no more; a member with a
    /// new address is dialled at once.
    pub fn set_members(&mut self, members: &BTreeMap<NodeId, Vec<SocketAddr>>, now: Instant) {
        let gone = |key: &Key| matches!(key, Key::Member(node) if !members.contains_key(node));
        let gone: Vec<Key> = self
            .entries
            .keys()
            .filter(|key| gone(key))
            .cloned()
            .collect();
        for key in gone {
            if let Some(entry) = self.entries.remove(&key) {
                self.abandon(entry);
            }
        }
        for (&node, addresses) in members.iter().filter(|&(&node, _)| node != self.ourself) {
            let courtesy = if self.ourself < node {
                Duration::ZERO
            } else {
                COURTESY
            };
            let linked = self.linked.contains(&node);
            let entry = self
                .entries
                .entry(Key::Member(node))
                .or_insert_with(|| Entry::new(now + courtesy));
            entry.node = Some(node);
            if linked && !matches!(entry.state, State::Linked) {
                entry.state = State::Linked;
            }
            let news = addresses
                .iter()
                .any(|address| !entry.addresses.contains(address));
            entry.addresses.clone_from(addresses);
            if let State::Waiting(at) = &mut entry.state
                && news
                && entry.hurries < MAX_HURRIES
            {
                *at = (*at).min(now + courtesy);
                entry.hurries += 1;
            }
        }
    }

    /// Dials whoever waits, at once. For a node that was started: nobody else is about to dial it.
    pub fn hurry(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            if let State::Waiting(at) = &mut entry.state {
                *at = now.min(*at);
            }
        }
    }

    /// A name was looked up.
    pub fn handle_resolved(
        &mut self,
        target: &Target,
        addresses: Vec<SocketAddr>,
        crypto: &mut dyn Crypto,
        now: Instant,
    ) {
        let key = Key::Target(target.clone());
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        if !matches!(entry.state, State::Resolving) {
            return;
        }
        entry.addresses = addresses;
        self.begin(&key, crypto, now);
    }

    /// A dial came to nothing: no connection, or one that ended before a link came of it.
    pub fn handle_failure(
        &mut self,
        conn: ConnId,
        error: DialError,
        crypto: &mut dyn Crypto,
        now: Instant,
    ) {
        let Some(key) = self.key_of(conn) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.error = Some(error);
        if let State::Dialling { tried, next_at, .. } = &mut entry.state {
            let address = tried.remove(&conn);
            *next_at = Some(now);
            self.go_on(&key, address, crypto, now);
        }
    }

    /// A dial led to ourselves: that address is not tried again.
    pub fn handle_ourself(&mut self, conn: ConnId, crypto: &mut dyn Crypto, now: Instant) {
        let Some(key) = self.key_of(conn) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        let State::Dialling { tried, .. } = &mut entry.state else {
            return;
        };
        if let Some(address) = tried.remove(&conn) {
            self.own_addresses.insert(address);
            match key {
                Key::Member(_) => self.go_on(&key, Some(address), crypto, now),
                Key::Target(_) => {
                    let state = std::mem::replace(&mut entry.state, State::Ourself);
                    self.abandon_state(state);
                }
            }
        }
    }

    /// A link to `node` is up; `conn` is its connection, if this end dialled it.
    pub fn handle_linked(&mut self, node: NodeId, conn: Option<ConnId>) {
        self.linked.insert(node);
        let dialled = conn.and_then(|conn| self.key_of(conn));
        for (key, entry) in &mut self.entries {
            let same = *key == Key::Member(node)
                || entry.node == Some(node)
                || Some(key) == dialled.as_ref();
            if !same {
                continue;
            }
            if matches!(key, Key::Target(_)) {
                entry.node = Some(node);
            }
            (entry.failures, entry.error, entry.lost_at) = (0, None, None);
            entry.hurries = 0;
            let state = std::mem::replace(&mut entry.state, State::Linked);
            if let State::Dialling { tried, .. } = state {
                let led = conn.and_then(|conn| tried.get(&conn));
                if let Some(&led) = led.filter(|led| !entry.proved.contains(led)) {
                    entry.proved.truncate(MAX_PROVED - 1);
                    entry.proved.push_front(led);
                }
                let others = tried.into_keys().filter(|&other| Some(other) != conn);
                self.outputs.extend(others.map(DialerOutput::Abandon));
            }
        }
    }

    /// The link to `node` is down.
    pub fn handle_lost(&mut self, node: NodeId, now: Instant) {
        self.linked.remove(&node);
        let courtesy = if self.ourself < node {
            Duration::ZERO
        } else {
            EAGER_PAUSE
        };
        for entry in self
            .entries
            .values_mut()
            .filter(|entry| entry.node == Some(node))
        {
            if matches!(entry.state, State::Linked) {
                entry.state = State::Waiting(now + courtesy);
                (entry.failures, entry.lost_at) = (0, Some(now));
            }
        }
    }

    /// Gives out what shall happen, in order.
    pub fn poll_output(&mut self) -> Option<DialerOutput> {
        self.outputs.pop_front()
    }

    /// Says when the next dial is due.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let due = |entry: &Entry| match entry.state {
            State::Dialling { next_at, .. } => next_at,
            State::Waiting(at) => Some(at),
            State::Linked | State::Ourself | State::Resolving => None,
        };
        self.entries
            .values()
            .filter_map(due)
            .min()
            .map(|at| (at, "a dial is due"))
    }

    /// Dials what is due.
    pub fn handle_timeout(&mut self, crypto: &mut dyn Crypto, now: Instant) {
        let keys: Vec<Key> = self.entries.keys().cloned().collect();
        for key in keys {
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            match &entry.state {
                State::Waiting(at) if *at <= now => match &key {
                    Key::Member(_) => self.begin(&key, crypto, now),
                    Key::Target(target) => {
                        entry.state = State::Resolving;
                        self.outputs
                            .push_back(DialerOutput::Resolve(target.clone()));
                    }
                },
                State::Dialling {
                    next_at: Some(at), ..
                } if *at <= now => self.go_on(&key, None, crypto, now),
                State::Dialling { .. }
                | State::Linked
                | State::Ourself
                | State::Resolving
                | State::Waiting(_) => {}
            }
        }
    }

    /// How the targets do.
    pub fn targets(&self) -> impl Iterator<Item = DialStatus> {
        self.entries.iter().filter_map(|(key, entry)| match key {
            Key::Member(_) => None,
            Key::Target(target) => {
                let state = match entry.state {
                    State::Dialling { .. } | State::Resolving => DialState::Connecting,
                    State::Linked => DialState::Linked,
                    State::Ourself => DialState::Ourself,
                    State::Waiting(at) => DialState::Waiting(at),
                };
                Some(DialStatus {
                    target: target.clone(),
                    state,
                    node: entry.node,
                    error: entry.error,
                    failures: entry.failures,
                })
            }
        })
    }

    /// Whether a member is being dialled, or about to be for the first time, and why it last failed.
    pub fn member(&self, node: NodeId) -> Option<(bool, Option<DialError>)> {
        let entry = self.entries.get(&Key::Member(node))?;
        let trying = matches!(entry.state, State::Dialling { .. }) || entry.is_untried();
        Some((trying, entry.error))
    }

    /// Whether nothing is known of a member yet: it was never linked, and the first dial has not failed.
    pub fn is_untried(&self, node: NodeId) -> bool {
        let entry = self.entries.get(&Key::Member(node));
        entry.is_some_and(Entry::is_untried)
    }

    fn key_of(&self, conn: ConnId) -> Option<Key> {
        let has = |entry: &Entry| matches!(&entry.state, State::Dialling { tried, .. } if tried.contains_key(&conn));
        self.entries
            .iter()
            .find(|(_, entry)| has(entry))
            .map(|(key, _)| key.clone())
    }

    /// Begins a round over all addresses of an entry.
    fn begin(&mut self, key: &Key, crypto: &mut dyn Crypto, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let fresh = entry
            .addresses
            .iter()
            .filter(|address| !self.own_addresses.contains(address));
        let left: VecDeque<SocketAddr> = fresh.take(MAX_ADDRESSES).copied().collect();
        if left.is_empty() {
            entry.error = Some(DialError::NoAddress);
        }
        entry.state = State::Dialling {
            left,
            tried: BTreeMap::new(),
            next_at: Some(now),
        };
        self.go_on(key, None, crypto, now);
    }

    /// Dials the next address of a round, or ends the round. `failed` is the address that failed just now.
    fn go_on(
        &mut self,
        key: &Key,
        failed: Option<SocketAddr>,
        crypto: &mut dyn Crypto,
        now: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let State::Dialling {
            left,
            tried,
            next_at,
        } = &mut entry.state
        else {
            return;
        };
        if matches!(key, Key::Member(_)) && tried.len() >= MAX_AT_ONCE {
            // The next one when one of these has come to nothing.
            return *next_at = None;
        }
        let proved = &entry.proved;
        let unproved = &mut entry.unproved;
        let mut may_dial = |to: &SocketAddr| {
            matches!(key, Key::Target(_)) || proved.contains(to) || unproved.spend(1, now)
        };
        while left.front().is_some_and(|to| !may_dial(to)) {
            left.pop_front();
        }
        if let Some(to) = left.pop_front() {
            self.conns += 1;
            let conn = ConnId {
                dialled: true,
                number: self.conns,
            };
            tried.insert(conn, to);
            *next_at = (!left.is_empty()).then_some(now + STAGGER);
            self.outputs.push_back(DialerOutput::Dial { conn, to });
            return;
        }
        *next_at = None;
        if !tried.is_empty() {
            return;
        }
        let pause = entry.pause(crypto, now);
        entry.state = State::Waiting(now + pause);
        if let (Key::Target(target), Some(error)) = (key, entry.error) {
            let target = target.clone();
            self.outputs.push_back(DialerOutput::RoundFailed {
                target,
                address: failed,
                error,
            });
        }
    }

    fn abandon(&mut self, entry: Entry) {
        self.abandon_state(entry.state);
    }

    fn abandon_state(&mut self, state: State) {
        if let State::Dialling { tried, .. } = state {
            self.outputs
                .extend(tried.into_keys().map(DialerOutput::Abandon));
        }
    }
}

impl Entry {
    const fn new(at: Instant) -> Self {
        Self {
            state: State::Waiting(at),
            addresses: Vec::new(),
            node: None,
            failures: 0,
            hurries: 0,
            lost_at: None,
            error: None,
            proved: VecDeque::new(),
            unproved: Budget::new(UNPROVED, UNPROVED_AT_ONCE, at),
        }
    }

    /// Whether no link has been lost and no round of dialling has failed.
    fn is_untried(&self) -> bool {
        let open = match self.state {
            State::Dialling { .. } => true,
            State::Resolving | State::Waiting(_) => self.error.is_none(),
            State::Linked | State::Ourself => false,
        };
        open && self.failures == 0 && self.lost_at.is_none()
    }

    /// How long to wait after a failed round.
    fn pause(&mut self, crypto: &mut dyn Crypto, now: Instant) -> Duration {
        let jitter = |most: Duration, crypto: &mut dyn Crypto| {
            Duration::from_micros(crypto.below(u64::try_from(most.as_micros()).unwrap_or(u64::MAX)))
        };
        if self.lost_at.is_some_and(|lost| now < lost + EAGER) {
            return EAGER_PAUSE + jitter(EAGER_PAUSE / 2, crypto);
        }
        let whole = FIRST.saturating_mul(1 << self.failures.min(8)).min(CAP);
        self.failures = self.failures.saturating_add(1);
        whole / 2 + jitter(whole / 2, crypto)
    }
}

#[cfg(test)]
mod tests;
