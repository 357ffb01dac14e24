//! Remembers which counters were seen, so that no datagram counts twice (RFC 6479).
//!
//! ```text
//!   … │ too old │ block │ block │ block │ top block │ not seen yet …
//!               └─────────── WIDTH at least ────────┘
//! ```
//!
//! A ring of blocks of 64 bits: moving ahead clears whole blocks instead of shifting bits. One block is always partly
//! ahead of the newest counter, so one block's worth of memory is not width.

const BLOCKS: usize = 256;

/// A datagram overtaken by this many others of its lane is still taken.
pub const WIDTH: u64 = (BLOCKS as u64 - 1) * 64;

/// The counters of one lane.
pub struct Window {
    /// One more than the newest counter.
    next: u64,
    bits: [u64; BLOCKS],
}

impl Default for Window {
    fn default() -> Self {
        Self {
            next: 0,
            bits: [0; BLOCKS],
        }
    }
}

impl Window {
    /// Takes note of an authentic counter; false if it was seen before or is too old to tell.
    pub fn accept(&mut self, counter: u64) -> bool {
        let block = counter / 64;
        if counter >= self.next {
            let started = self
                .next
                .div_ceil(64)
                .max(block.saturating_sub(BLOCKS as u64 - 1));
            for fresh in started..=block {
                self.bits[Self::slot(fresh)] = 0;
            }
            self.next = counter.saturating_add(1);
        } else if self.next - counter > WIDTH {
            return false;
        }
        let word = &mut self.bits[Self::slot(block)];
        let bit = 1 << (counter % 64);
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    /// One more than the newest counter; zero before the first.
    pub const fn next(&self) -> u64 {
        self.next
    }

    const fn slot(block: u64) -> usize {
        // The lowest byte is the remainder by 256.
        block.to_le_bytes()[0] as usize
    }
}

const _: () = assert!(BLOCKS == 256);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reordering_by_4096_loses_nothing_and_repeats_nothing() {
        let mut window = Window::default();
        for start in (0..65_536_u64).step_by(4096) {
            let order = (start..start + 4096).rev();

            assert!(order.clone().all(|counter| window.accept(counter)));
            assert!(!order.clone().any(|counter| window.accept(counter)));
        }
    }

    #[test]
    fn a_counter_overtaken_by_the_whole_width_is_taken_and_an_older_one_is_not() {
        for top in 20_000..20_100 {
            let mut window = Window::default();
            assert!(window.accept(top));

            assert!(window.accept(top + 1 - WIDTH));
            assert!(!window.accept(top - WIDTH));
        }
    }

    #[test]
    fn a_leap_forgets_what_lies_behind() {
        let mut window = Window::default();
        assert!(window.accept(3));
        assert!(window.accept(1 << 59));

        assert!(!window.accept(3));
        assert!(!window.accept(1 << 59));
        assert!(window.accept((1 << 59) - 1));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set(counters in prop::collection::vec(0..40_000_u64, 1..2000)) {
            let mut window = Window::default();
            let mut seen = BTreeSet::new();
            let mut next = 0_u64;
            for counter in counters {
                let expected = counter + WIDTH >= next && seen.insert(counter);
                next = next.max(counter + 1);

                prop_assert_eq!(window.accept(counter), expected);
            }
        }
    }
}
