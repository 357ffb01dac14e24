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
//! dialled at once and then every third of a second for [`EAGER`], since most come back. Of each pair the smaller node
//! dials first; the other waits [`COURTESY`] longer, so that two seldom dial at once (when they do, the tie-break of
//! `connection` decides).
//!
//! **Invariant.** After `handle_timeout(t)` the next deadline is later than `t`, or there is none.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_types::NodeId;

use crate::crypto::Crypto;
use crate::handshake::HandshakeError;
use crate::io::{ConnId, ConnectError, Target};

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

/// Why the last attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialError {
    /// No connection came about.
    Connect(ConnectError),
    /// The connection ended within the handshake, or without a word.
    Handshake(Option<HandshakeError>),
    /// The name has no address.
    NoAddress,
}

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
    lost_at: Option<Instant>,
    error: Option<DialError>,
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
            {
                *at = (*at).min(now + courtesy);
                entry.failures = 0;
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
            let state = std::mem::replace(&mut entry.state, State::Linked);
            if let State::Dialling { tried, .. } = state {
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
            lost_at: None,
            error: None,
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
mod tests {
    use super::*;
    use crate::crypto::seeded::SeededCrypto;

    fn origin() -> Instant {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one instant that tests count from"
        )]
        static ORIGIN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        *ORIGIN
    }

    fn node(n: u8) -> NodeId {
        NodeId::new([n; 32])
    }

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 6783))
    }

    fn dials(dialer: &mut Dialer) -> Vec<(ConnId, SocketAddr)> {
        let dial = |output| match output {
            DialerOutput::Dial { conn, to } => Some((conn, to)),
            DialerOutput::Abandon(_)
            | DialerOutput::Resolve(_)
            | DialerOutput::RoundFailed { .. } => None,
        };
        std::iter::from_fn(|| dialer.poll_output())
            .filter_map(dial)
            .collect()
    }

    fn members(list: &[(u8, u8)]) -> BTreeMap<NodeId, Vec<SocketAddr>> {
        list.iter()
            .map(|&(n, a)| (node(n), vec![address(a)]))
            .collect()
    }

    const REFUSED: DialError = DialError::Connect(ConnectError::Refused);

    #[test]
    fn a_member_is_untried_until_its_first_round_has_failed_or_its_link_is_lost() {
        let mut crypto = SeededCrypto::new(1);
        let mut dialer = Dialer::new(node(1));
        dialer.set_members(&members(&[(2, 2), (3, 3)]), origin());
        assert!(dialer.is_untried(node(2)) && dialer.is_untried(node(3)));
        assert!(!dialer.is_untried(node(4)), "no member");

        dialer.handle_timeout(&mut crypto, origin());
        let dialled: Vec<ConnId> = std::iter::from_fn(|| dialer.poll_output())
            .filter_map(|output| match output {
                DialerOutput::Dial { conn, .. } => Some(conn),
                DialerOutput::Abandon(_)
                | DialerOutput::Resolve(_)
                | DialerOutput::RoundFailed { .. } => None,
            })
            .collect();
        assert!(dialer.is_untried(node(2)) && dialer.is_untried(node(3)));
        dialer.handle_failure(dialled[0], REFUSED, &mut crypto, origin());
        dialer.handle_linked(node(3), Some(dialled[1]));
        assert!(!dialer.is_untried(node(2)) && !dialer.is_untried(node(3)));
        dialer.handle_lost(node(3), origin());

        assert!(!dialer.is_untried(node(3)));
    }

    #[test]
    fn a_failing_target_is_tried_ever_more_seldom_and_never_more_than_15_s_apart() {
        let mut crypto = SeededCrypto::new(1);
        let mut dialer = Dialer::new(node(1));
        let target = Target("a".to_owned());
        dialer.add_target(target.clone(), origin());

        let mut last = origin();
        let mut gaps = Vec::new();
        for _ in 0..12 {
            let (due, _) = dialer.poll_timeout().expect("a deadline");
            gaps.push(due - last);
            last = due;
            dialer.handle_timeout(&mut crypto, due);
            assert_eq!(
                dialer.poll_output(),
                Some(DialerOutput::Resolve(target.clone()))
            );
            dialer.handle_resolved(&target, vec![address(1)], &mut crypto, due);
            let conn = dials(&mut dialer)[0].0;
            dialer.handle_failure(conn, REFUSED, &mut crypto, due);
            assert!(matches!(
                dialer.poll_output(),
                Some(DialerOutput::RoundFailed { error: REFUSED, .. })
            ));
            assert!(dialer.poll_timeout().is_some_and(|(next, _)| next > due));
        }

        assert!(gaps[1] < FIRST && gaps[11] > CAP / 2);
        assert!(gaps.iter().all(|&gap| gap <= CAP));
    }

    #[test]
    fn the_smaller_node_of_a_pair_dials_first() {
        let mut crypto = SeededCrypto::new(1);
        let mut dialer = Dialer::new(node(5));
        dialer.set_members(&members(&[(3, 3), (5, 5), (7, 7)]), origin());

        dialer.handle_timeout(&mut crypto, origin());
        assert_eq!(
            dials(&mut dialer)
                .iter()
                .map(|dial| dial.1)
                .collect::<Vec<_>>(),
            [address(7)]
        );

        dialer.handle_timeout(&mut crypto, origin() + COURTESY + Duration::from_millis(1));
        assert_eq!(
            dials(&mut dialer)
                .iter()
                .map(|dial| dial.1)
                .collect::<Vec<_>>(),
            [address(3)]
        );
    }

    #[test]
    fn a_lost_member_is_dialled_at_once_and_often() {
        let mut crypto = SeededCrypto::new(1);
        let mut dialer = Dialer::new(node(1));
        dialer.set_members(&members(&[(2, 2)]), origin());
        dialer.handle_linked(node(2), None);
        assert_eq!(dialer.poll_timeout(), None);

        dialer.handle_lost(node(2), origin());

        let mut attempts = 0;
        while let Some((due, _)) = dialer
            .poll_timeout()
            .filter(|(due, _)| *due < origin() + EAGER)
        {
            dialer.handle_timeout(&mut crypto, due);
            let conn = dials(&mut dialer)[0].0;
            dialer.handle_failure(conn, REFUSED, &mut crypto, due);
            attempts += 1;
        }
        assert!((20..=35).contains(&attempts), "{attempts} attempts in 10 s");
    }

    #[test]
    fn addresses_of_one_member_are_tried_side_by_side_and_the_slower_are_given_up() {
        let mut crypto = SeededCrypto::new(1);
        let mut dialer = Dialer::new(node(1));
        let both = BTreeMap::from([(node(2), vec![address(2), address(3)])]);
        dialer.set_members(&both, origin());
        dialer.handle_timeout(&mut crypto, origin());
        dialer.handle_timeout(&mut crypto, origin() + STAGGER);
        let tried = dials(&mut dialer);
        assert_eq!(tried.len(), 2);

        dialer.handle_linked(node(2), Some(tried[1].0));

        assert_eq!(
            dialer.poll_output(),
            Some(DialerOutput::Abandon(tried[0].0))
        );
        assert_eq!(dialer.poll_timeout(), None);
    }

    #[test]
    fn a_target_that_is_ourselves_is_left_alone() {
        let mut crypto = SeededCrypto::new(1);
        let mut dialer = Dialer::new(node(1));
        let target = Target("a".to_owned());
        dialer.add_target(target.clone(), origin());
        dialer.handle_timeout(&mut crypto, origin());
        dialer.handle_resolved(&target, vec![address(1)], &mut crypto, origin());
        let conn = dials(&mut dialer)[0].0;

        dialer.handle_ourself(conn, &mut crypto, origin());

        assert_eq!(dialer.poll_timeout(), None);
        assert_eq!(
            dialer.targets().next().map(|status| status.state),
            Some(DialState::Ourself)
        );
    }

    #[test]
    fn a_new_address_is_tried_at_once() {
        let mut crypto = SeededCrypto::new(1);
        let mut dialer = Dialer::new(node(1));
        dialer.set_members(&members(&[(2, 2)]), origin());
        for _ in 0..8 {
            let (due, _) = dialer.poll_timeout().expect("a deadline");
            dialer.handle_timeout(&mut crypto, due);
            let conn = dials(&mut dialer)[0].0;
            dialer.handle_failure(conn, REFUSED, &mut crypto, due);
        }

        dialer.set_members(&members(&[(2, 9)]), origin());

        assert_eq!(dialer.poll_timeout().map(|(due, _)| due), Some(origin()));
    }
}
