//! Chooses among the ways to a peer.
//!
//! ```text
//!   better  Direct              an address of the peer, which answers
//!     ▲     Relayed             a member, which answers and does not lose
//!     │     Linked              the control link's address, not asked: the link is young, or its heartbeats pass
//!     │     RelayedUnproved     a member that has not answered, not often enough, or not the last probe
//!     │     DirectInDoubt       an address that answered, but for the last probe, or not since the way in use is in
//!     │                         doubt; or one that fails each time it is used
//!     │     RelayedLossy        a member that answers, and has lost much
//!     │     Control             control connections
//!     │     LossyUnproved       a member that has lost much, and does not answer for sure
//!     ▼     DirectUnproved      an address that has not answered, or not often enough
//!   worse   Dead                whatever does not answer
//! ```
//!
//! **Invariant.** Of two ways of one class the one in use stays, unless the other is much faster, or by fewer members and no
//! slower: less is noise.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::known::LinkState;
use super::path::Via;
use super::switch::Reason;
use super::way::{Health, Way};
use crate::routes::Detour;

/// Between two ways that both work: less is noise.
const CLEARLY: Duration = Duration::from_millis(10);

/// How good a way is, the best first: see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Direct,
    Relayed,
    Linked,
    RelayedUnproved,
    DirectInDoubt,
    RelayedLossy,
    Control,
    LossyUnproved,
    DirectUnproved,
    Dead,
}

/// What is chosen by.
pub(super) struct Choice<'a> {
    pub(super) ways: &'a BTreeMap<Via, Way>,
    pub(super) current: Option<Via>,
    /// Since when the one in use is in doubt, if it is direct.
    pub(super) doubt: Option<Instant>,
    pub(super) link: LinkState,
    /// Whether the link, which is being tried, is to be waited for.
    pub(super) young: bool,
    /// Where the peer says that it can be reached, best first.
    pub(super) addresses: &'a [SocketAddr],
    /// Members that could relay, best first.
    pub(super) detours: &'a [Detour],
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Decision {
    /// There is no way.
    Nothing,
    /// The one in use stays.
    Stay,
    /// Another one is taken.
    Take(Via, Reason),
}

impl Choice<'_> {
    /// The best way, if it is better than the one in use.
    pub(super) fn decide(&self, now: Instant) -> Decision {
        let rank = |via: Via, way: &Way| {
            let rtt = way.trip.smoothed().unwrap_or(Duration::MAX);
            (self.class(via, way, now), rtt, self.order(via))
        };
        let best = self.ways.iter().min_by_key(|(via, way)| rank(**via, way));
        let Some((&best, way)) = best else {
            return Decision::Nothing;
        };
        let Some(current) = self.current else {
            return Decision::Take(best, Reason::First);
        };
        if best == current {
            return self.shorten(best, now);
        }
        let Some(used) = self.ways.get(&current) else {
            return Decision::Take(best, Reason::Gone(current));
        };
        let (mine, theirs) = (self.class(current, used, now), self.class(best, way, now));
        if mine == theirs {
            return self.among_equals((current, used), (best, way), now);
        }
        Decision::Take(best, why((current, used), best, theirs < mine, now))
    }

    fn class(&self, via: Via, way: &Way, now: Instant) -> Class {
        let linked = match self.link {
            LinkState::Trying(address) => via == Via::Direct(address) && self.young,
            LinkState::Passes(address) => via == Via::Direct(address),
            LinkState::Silent => false,
        };
        // Of the way in use a few lost probes are no proof; of another they are enough not to take it. What broke the one in
        // use may have broken those that are direct too: what they answered before says nothing.
        let used = self.current == Some(via);
        let works = if used {
            way.health == Health::Good
        } else {
            let shares_fate = matches!(via, Via::Direct(_));
            let since = self.doubt.filter(|_| shares_fate);
            way.is_sound() && !way.is_bad(now) && way.is_vouched_since(since)
        };
        match (via, way.health) {
            (Via::Direct(_), Health::Good) if works => Class::Direct,
            (Via::Relay(_), Health::Good) if works && !way.is_bad(now) => Class::Relayed,
            (Via::Direct(_), Health::Untried) if linked => Class::Linked,
            (Via::Relay(_), Health::Good | Health::Untried | Health::Proving(_))
                if !way.is_bad(now) =>
            {
                Class::RelayedUnproved
            }
            (Via::Direct(_), Health::Good) => Class::DirectInDoubt,
            (Via::Relay(_), Health::Good) => Class::RelayedLossy,
            (Via::Control, _) => Class::Control,
            (Via::Relay(_), Health::Untried | Health::Proving(_)) => Class::LossyUnproved,
            (Via::Direct(_), Health::Proving(_) | Health::Untried) => Class::DirectUnproved,
            (Via::Direct(_) | Via::Relay(_), Health::Dead) => Class::Dead,
        }
    }

    /// Where a way stands among those that are known, the control link's address before all.
    fn order(&self, via: Via) -> usize {
        let linked = match self.link {
            LinkState::Passes(address) | LinkState::Trying(address) => via == Via::Direct(address),
            LinkState::Silent => false,
        };
        let addresses = self.addresses.iter().map(|&address| Via::Direct(address));
        let detours = self.detours.iter().map(|detour| Via::Relay(detour.by));
        if linked {
            0
        } else {
            1 + addresses
                .chain(detours)
                .take_while(|&other| other != via)
                .count()
        }
    }

    /// Only what is clearly nearer is worth a switch.
    fn among_equals(&self, used: (Via, &Way), best: (Via, &Way), now: Instant) -> Decision {
        let (Some(mine), Some(theirs)) = (used.1.trip.smoothed(), best.1.trip.smoothed()) else {
            return Decision::Stay;
        };
        if used.1.health == Health::Good && mine >= theirs * 2 + CLEARLY {
            return Decision::Take(best.0, Reason::Slow(used.0));
        }
        self.shorten(used.0, now)
    }

    fn shorten(&self, current: Via, now: Instant) -> Decision {
        self.shorter(current, now)
            .map_or(Decision::Stay, |via| Decision::Take(via, Reason::Better))
    }

    /// A way by fewer members than the relayed one in use, as good and not slower.
    fn shorter(&self, current: Via, now: Instant) -> Option<Via> {
        let hops = |via: Via| {
            let mut detours = self.detours.iter();
            let detour = detours.find(|detour| Via::Relay(detour.by) == via);
            detour.map(|detour| detour.hops)
        };
        let used = self.ways.get(&current)?;
        let (class, most) = (self.class(current, used, now), hops(current)?);
        let limit = used.trip.smoothed()? + CLEARLY;
        let others = self.ways.iter().filter(|(via, way)| {
            let as_good = self.class(**via, way, now) == class;
            as_good && way.trip.smoothed().is_some_and(|trip| trip <= limit)
        });
        let nearest = others
            .filter_map(|(&via, _)| Some((hops(via)?, via)))
            .min()?;
        (nearest.0 < most).then_some(nearest.1)
    }
}

/// Why the way in use is left for one of another class.
fn why((current, used): (Via, &Way), best: Via, is_better: bool, now: Instant) -> Reason {
    if used.health == Health::Dead {
        Reason::Silent(current)
    } else if used.is_bad(now) && matches!((current, best), (Via::Relay(_), Via::Relay(_))) {
        Reason::Lossy(current, used.loss)
    } else if is_better {
        Reason::Better
    } else {
        Reason::Gone(current)
    }
}
