//! Chance out of a seed.
//!
//! Whatever chance decides has dice of its own, by purpose and by whom it is about, and new ones every moment: one throw more
//! somewhere alters nothing elsewhere, and later nothing at all. So two builds whose routers do the same go the same way,
//! though one of them sends a datagram that the other does not.

use std::collections::BTreeMap;
use std::time::Duration;

/// How long dice are thrown in a row. Shorter than the time between two datagrams of most kinds; longer than most of what
/// another order of events at one instant makes of their times.
const MOMENT: Duration = Duration::from_millis(10);

/// A small generator (SplitMix64): the same seed throws the same dice.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Begins a sequence.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Begins the sequence that these numbers name.
    pub fn of(names: &[u64]) -> Self {
        let mixed = names
            .iter()
            .fold(0, |mixed, &name| Self(mixed ^ name).next());
        Self(mixed)
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// True once in a while: `share` of all throws, 0 to 1.
    pub fn chance(&mut self, share: f64) -> bool {
        // 53 bits fit a double exactly.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
        let throw = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        throw < share
    }

    /// A duration up to and including `most`.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX - 1);
        Duration::from_nanos(self.below(nanos + 1))
    }
}

/// What chance decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// What a test does.
    Script,
    /// What a router draws in one of its lives, and what its clock is ahead.
    Life,
    /// How long a disk takes.
    Save,
    /// What becomes of a TCP segment from one host to another.
    Segment,
    /// What becomes of a datagram of one kind from one host to another.
    Datagram,
    /// What a host does to what it shall pass on.
    Malice,
    /// By which port a NAT lets something out.
    Port,
}

impl Purpose {
    /// Dice that are thrown in a row, whatever happens.
    pub(crate) fn dice(self, seed: u64, whose: [u64; 3]) -> Dice {
        let [a, b, c] = whose;
        Dice::of(&[seed, self as u64, a, b, c])
    }
}

/// All dice of a simulation that are thrown as it goes.
pub(crate) struct Chance {
    seed: u64,
    moment: u64,
    /// How often within this moment.
    thrown: BTreeMap<(Purpose, [u64; 3]), u64>,
}

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self {
            seed,
            moment: 0,
            thrown: BTreeMap::new(),
        }
    }

    /// Dice for the next thing of this purpose at this time.
    pub(crate) fn dice(&mut self, purpose: Purpose, whose: [u64; 3], now: Duration) -> Dice {
        let moment = u64::try_from(now.as_nanos() / MOMENT.as_nanos()).unwrap_or(u64::MAX);
        if moment != self.moment {
            self.moment = moment;
            self.thrown.clear();
        }
        let nth = self.thrown.entry((purpose, whose)).or_default();
        *nth += 1;
        let [a, b, c] = whose;
        Dice::of(&[self.seed, purpose as u64, a, b, c, moment, *nth])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_millis(15);

    fn throws(chance: &mut Chance, purpose: Purpose, whose: u64, now: Duration) -> [u64; 2] {
        let mut next = || chance.dice(purpose, [whose, 0, 0], now).next();
        [next(), next()]
    }

    #[test]
    fn who_throws_more_alters_no_other_and_nothing_later() {
        let (mut one, mut other) = (Chance::new(7), Chance::new(7));
        throws(&mut other, Purpose::Save, 1, Duration::ZERO);

        for (purpose, whose, now) in [
            (Purpose::Save, 2, Duration::ZERO),
            (Purpose::Malice, 1, Duration::ZERO),
            (Purpose::Save, 1, LATER),
        ] {
            let both = [&mut one, &mut other].map(|chance| throws(chance, purpose, whose, now));
            assert_eq!(both[0], both[1], "{purpose:?} of {whose} at {now:?}");
        }
    }

    #[test]
    fn seeds_purposes_hosts_and_moments_have_different_dice_and_throw_anew() {
        let mut all: Vec<u64> = Vec::new();
        for (seed, purpose, whose, now) in [
            (7, Purpose::Save, 1, Duration::ZERO),
            (8, Purpose::Save, 1, Duration::ZERO),
            (7, Purpose::Malice, 1, Duration::ZERO),
            (7, Purpose::Save, 2, Duration::ZERO),
            (7, Purpose::Save, 1, LATER),
        ] {
            all.extend(throws(&mut Chance::new(seed), purpose, whose, now));
        }

        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
