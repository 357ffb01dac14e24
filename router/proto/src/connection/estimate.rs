//! Estimates how long a round trip takes and how much is lost, out of heartbeats that may be reordered.

use std::time::Duration;

/// Smoothed round trip: RFC 6298 §2, whose weights fit two samples a second as well as any.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoundTrip {
    smoothed: Option<Duration>,
    variation: Duration,
}

impl RoundTrip {
    pub(crate) fn add(&mut self, sample: Duration) {
        match &mut self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.variation = sample / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
                *smoothed = (*smoothed * 7 + sample) / 8;
            }
        }
    }

    pub(crate) const fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// How long an answer may take before it is late: RFC 6298 §2.3, without its granularity.
    pub(crate) fn patience(&self) -> Duration {
        self.smoothed
            .map_or(Duration::ZERO, |smoothed| smoothed + self.variation * 4)
    }
}

/// Which of the last 64 heartbeats came.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrivals {
    /// Bit 0 is the newest.
    came: u64,
    newest: Option<u64>,
    /// How many of the 64 have been sent at all.
    known: u32,
}

impl Arrivals {
    /// Takes note of a heartbeat; says whether it is the newest so far.
    pub(super) fn add(&mut self, sequence: u64) -> bool {
        let Some(newest) = self.newest else {
            *self = Self {
                came: 1,
                newest: Some(sequence),
                known: 1,
            };
            return true;
        };
        if let Some(ahead) = sequence.checked_sub(newest).filter(|&ahead| ahead > 0) {
            let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
            self.came = self.came.checked_shl(ahead).unwrap_or(0) | 1;
            self.known = self.known.saturating_add(ahead).min(64);
            self.newest = Some(sequence);
            return true;
        }
        let behind = newest - sequence;
        if behind < self.known.into() {
            self.came |= 1 << behind;
        }
        false
    }

    /// The share that did not come, 0 to 1.
    pub(super) fn loss(&self) -> f64 {
        if self.known == 0 {
            return 0.0;
        }
        let lost = self.known - self.came.count_ones().min(self.known);
        f64::from(lost) / f64::from(self.known)
    }

    /// How many did not come.
    pub(super) fn lost(&self) -> u32 {
        self.known - self.came.count_ones().min(self.known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_round_trip_is_found_and_a_leap_is_followed() {
        let mut trip = RoundTrip::default();
        for _ in 0..50 {
            trip.add(Duration::from_millis(20));
        }
        assert_eq!(trip.smoothed(), Some(Duration::from_millis(20)));
        assert!(trip.patience() < Duration::from_millis(21));

        trip.add(Duration::from_millis(100));

        assert_eq!(trip.smoothed(), Some(Duration::from_millis(30)));
        assert!(trip.patience() > Duration::from_millis(100));
    }

    #[test]
    fn what_is_late_is_not_lost() {
        let mut arrivals = Arrivals::default();
        for pair in [[1, 0], [3, 2], [5, 4], [7, 6]] {
            assert!(arrivals.add(pair[0]), "the newest so far");
            assert!(!arrivals.add(pair[1]), "overtaken");
        }
        // Number 0 lies before the first that came: it is not known to have been sent on this link.
        assert_eq!(arrivals.lost(), 0);
    }

    #[test]
    fn every_second_lost_is_a_half() {
        let mut arrivals = Arrivals::default();
        (0..200).step_by(2).for_each(|sequence| {
            arrivals.add(sequence);
        });

        assert!((arrivals.loss() - 0.5).abs() < 0.01);
    }

    #[test]
    fn a_long_gap_is_all_loss_and_heals() {
        let mut arrivals = Arrivals::default();
        arrivals.add(0);
        arrivals.add(1000);
        assert_eq!(arrivals.lost(), 63);

        (1001..1064).for_each(|sequence| {
            arrivals.add(sequence);
        });

        assert_eq!(arrivals.lost(), 0);
    }
}
