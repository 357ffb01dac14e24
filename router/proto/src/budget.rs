//! Lets so much through in a second, and so much at once.

use std::time::{Duration, Instant};

const SECOND: u128 = 1_000_000_000;

/// A token bucket.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    left: u64,
    since: Instant,
    per_second: u64,
    at_once: u64,
}

impl Budget {
    /// Begins full.
    pub const fn new(per_second: u64, at_once: u64, now: Instant) -> Self {
        Self {
            left: at_once,
            since: now,
            per_second,
            at_once,
        }
    }

    /// Takes `amount`, or nothing and says false.
    pub fn spend(&mut self, amount: u64, now: Instant) -> bool {
        let waited = now.saturating_duration_since(self.since).as_nanos();
        let earned = waited * u128::from(self.per_second) / SECOND;
        if earned >= u128::from(self.at_once - self.left) {
            (self.left, self.since) = (self.at_once, now);
        } else if earned > 0 {
            // Only the time that was paid for: what is left of it counts the next time.
            let paid = earned * SECOND / u128::from(self.per_second);
            self.since += Duration::from_nanos(u64::try_from(paid).unwrap_or(u64::MAX));
            self.left += u64::try_from(earned).unwrap_or(u64::MAX);
        }
        let allowed = self.left >= amount;
        if allowed {
            self.left -= amount;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtual_time::origin;

    #[test]
    fn it_holds_to_its_rate_however_often_it_is_asked() {
        for step in [1, 7, 75, 900] {
            let start = origin();
            let mut budget = Budget::new(20_000, 4_000, start);

            let passed = (0..1_000_000_u64)
                .step_by(step)
                .filter(|&micros| budget.spend(1, start + Duration::from_micros(micros)))
                .count();

            let asked = 1_000_000_usize.div_ceil(step);
            let expected = asked.min(24_000);
            assert!(passed.abs_diff(expected) <= 1, "{step}: {passed}");
        }
    }

    #[test]
    fn what_is_too_much_takes_nothing() {
        let start = origin();
        let mut budget = Budget::new(10, 100, start);

        assert!(!budget.spend(101, start));
        assert!(budget.spend(100, start));
        assert!(!budget.spend(1, start));
        assert!(budget.spend(20, start + Duration::from_secs(2)));
    }
}
