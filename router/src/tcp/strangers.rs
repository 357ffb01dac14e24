//! Bounds what accepted connections may cost before they have proved anything.
//!
//! At most [`PER_SOURCE`] from one address and [`TOTAL`] in all, fewer where this process may open few descriptors: members,
//! dials and the local API keep three quarters of them. One more is always let in, and an older one goes: the
//! oldest of its own source if that has too many, else the oldest of whichever source has most. So a flood pushes out
//! itself: whoever comes from elsewhere finds room, and keeps it as long as it is not the greediest.
//!
//! **Invariant.** The number of strangers never exceeds that total, nor that of one source [`PER_SOURCE`].

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// Enough for every member of a large mesh to come back at once, each with a few kilobytes.
pub(super) const TOTAL: usize = 256;
/// A node needs one; several behind one NAT may come back together.
pub(super) const PER_SOURCE: usize = 8;

/// The part of all descriptors that is theirs: one in four.
const SHARE: u64 = 4;

/// What one adversary can have many of at no cost counts as one: an IPv6 host owns its /64 (RFC 4291 §2.5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    V4([u8; 4]),
    V6([u16; 4]),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// Every accepted connection that has proved nothing yet, by number; a larger number is a later one.
#[derive(Debug)]
pub(super) struct Strangers {
    most: usize,
    by_source: BTreeMap<Source, VecDeque<u64>>,
    sources: BTreeMap<u64, Source>,
}

impl Strangers {
    /// None yet, of a process that may open so many descriptors.
    pub(super) fn new(descriptors: u64) -> Self {
        let share = usize::try_from(descriptors / SHARE).unwrap_or(TOTAL);
        Self {
            most: share.clamp(PER_SOURCE, TOTAL),
            by_source: BTreeMap::new(),
            sources: BTreeMap::new(),
        }
    }

    /// Lets a connection in and returns the one that has to go for it.
    pub(super) fn admit(&mut self, number: u64, from: IpAddr) -> Option<u64> {
        let source = Source::from(from);
        let own = self.by_source.entry(source).or_default();
        own.push_back(number);
        let crowded = own.len() > PER_SOURCE;
        self.sources.insert(number, source);

        let from = if crowded {
            source
        } else if self.sources.len() > self.most {
            self.greediest()?
        } else {
            return None;
        };
        let victim = *self.by_source.get(&from)?.front()?;
        self.forget(victim);
        Some(victim)
    }

    /// It is over, or a stranger no more.
    pub(super) fn forget(&mut self, number: u64) {
        let Some(source) = self.sources.remove(&number) else {
            return;
        };
        if let Some(own) = self.by_source.get_mut(&source) {
            own.retain(|&other| other != number);
            if own.is_empty() {
                self.by_source.remove(&source);
            }
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    /// The source with most connections; among equals the one whose oldest is oldest.
    fn greediest(&self) -> Option<Source> {
        self.by_source
            .iter()
            .max_by_key(|(_, own)| (own.len(), std::cmp::Reverse(own.front().copied())))
            .map(|(&source, _)| source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    #[test]
    fn a_crowded_source_pushes_out_its_own_oldest() {
        let mut strangers = Strangers::new(u64::MAX);
        for number in 0..8 {
            assert_eq!(strangers.admit(number, host(1)), None);
        }

        assert_eq!(strangers.admit(8, host(2)), None);
        assert_eq!(strangers.admit(9, host(1)), Some(0));
        assert_eq!(strangers.admit(10, host(1)), Some(1));
        assert_eq!(strangers.len(), 9);
    }

    #[test]
    fn a_full_house_pushes_out_the_greediest() {
        let mut strangers = Strangers::new(u64::MAX);
        let mut number = 0;
        for n in 0..32 {
            for _ in 0..PER_SOURCE {
                assert_eq!(strangers.admit(number, host(n)), None);
                number += 1;
            }
        }
        assert_eq!(strangers.len(), TOTAL);

        assert_eq!(strangers.admit(1000, host(99)), Some(0));
        assert_eq!(strangers.admit(1001, host(98)), Some(8));
        assert_eq!(strangers.len(), TOTAL);
    }

    #[test]
    fn where_there_are_few_descriptors_there_are_fewer_strangers() {
        let mut strangers = Strangers::new(256);
        for number in 0..200u64 {
            strangers.admit(number, host(u8::try_from(number).unwrap()));
        }

        assert_eq!(strangers.len(), 64);
    }

    #[test]
    fn a_flood_from_eight_addresses_never_touches_a_ninth() {
        let mut strangers = Strangers::new(u64::MAX);
        assert_eq!(strangers.admit(0, host(200)), None);

        for number in 1..=100_000u64 {
            let from = host(u8::try_from(number % 8).unwrap());
            assert_ne!(strangers.admit(number, from), Some(0));
        }

        assert_eq!(strangers.len(), 8 * PER_SOURCE + 1);
    }

    #[test]
    fn the_addresses_of_one_prefix_are_one_source() {
        let mut strangers = Strangers::new(u64::MAX);
        for number in 0..8u16 {
            let from = IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, number]);
            assert_eq!(strangers.admit(number.into(), from), None);
        }

        let same = IpAddr::from([0x2001, 0xdb8, 0, 1, 9, 9, 9, 9]);
        let other = IpAddr::from([0x2001, 0xdb8, 0, 2, 9, 9, 9, 9]);
        assert_eq!(strangers.admit(8, other), None);
        assert_eq!(strangers.admit(9, same), Some(0));
        let mapped = IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0xc000, 0x0201]);
        assert_eq!(Source::from(mapped), Source::from(host(1)));
    }

    #[test]
    fn whoever_proved_itself_gives_its_room_back() {
        let mut strangers = Strangers::new(u64::MAX);
        for number in 0..8 {
            strangers.admit(number, host(1));
        }

        strangers.forget(0);
        strangers.forget(0);

        assert_eq!(strangers.admit(8, host(1)), None);
        assert_eq!(strangers.len(), 8);
    }
}
