//! Finds how seldom a mapping of a NAT, or a firewall's memory, must be used to stay, while no frames travel.
//!
//! ```text
//!            an answer after so long a silence                none
//!   interval ─────────────────────────────────▶ an eighth more ─────▶ back to what was proved, no more for a while
//! ```
//!
//! A probe leaves when nothing has passed either way for the interval. Both ends do so, and whichever is first makes the
//! other wait: each in turn is the one that finds out whether its datagrams still get in, and together they use the
//! mapping no more often than one of them would. They never ask at once: two that cross each other open by that what had
//! been forgotten, and would both take it for remembered. What has grown too far loses the mapping once; it is made again by
//! punching, as if frames had met a way that is dead.
//! **Invariant.** The interval is between [`MIN`] and [`MAX`], and the second end waits [`APART`] longer.
//! **Failure policy.** A NAT that changes is followed: down when what was proved does not hold, up when the memory of
//! what failed has lapsed.

use std::time::{Duration, Instant};

/// How long a peer's mapping is kept after the last frame: over a lunch, and not over a night.
const LASTS: Duration = Duration::from_secs(2 * 3600);
/// The interval at first: what is known to forget in 20 s is rare.
const START: Duration = Duration::from_secs(15);
const MIN: Duration = Duration::from_secs(5);
/// RFC 4787 REQ-5 asks NATs for two minutes, and a session that is not used for as long is not renewed.
const MAX: Duration = Duration::from_secs(110);
/// How long a silence that was too long is not tried again, at first and at most: each time costs the mapping.
const REFUSED: Duration = Duration::from_secs(20 * 60);
const MAX_REFUSED: Duration = Duration::from_secs(160 * 60);

/// How much longer than the first the second end waits: longer than the first takes to see that nothing answers.
const APART: Duration = Duration::from_secs(4);

/// Which of its two ends keeps a mapping where both have found out the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It asks first.
    First,
    /// It waits for the other.
    Second,
}

/// How one peer's mapping is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep {
    turn: Turn,
    interval: Duration,
    /// The longest silence that the mapping has outlived.
    proven: Option<Duration>,
    /// What it has not, and until when that is believed.
    refused: Option<(Duration, Instant)>,
    believed: Duration,
    until: Option<Instant>,
}

impl Keep {
    pub(super) const fn new(turn: Turn) -> Self {
        Self {
            turn,
            interval: START,
            proven: None,
            refused: None,
            believed: REFUSED,
            until: None,
        }
    }

    /// Frames travel.
    pub(super) fn handle_traffic(&mut self, now: Instant) {
        self.until = Some(now + LASTS);
    }

    /// After how long a silence the mapping is to be used; `None` where nobody needs it any more.
    pub(super) fn interval(&self, now: Instant) -> Option<Duration> {
        let wait = match self.turn {
            Turn::First => self.interval,
            Turn::Second => self.interval + APART,
        };
        self.until.is_some_and(|until| now < until).then_some(wait)
    }

    /// The mapping has outlived the interval.
    pub(super) fn handle_answer(&mut self, now: Instant) {
        self.proven = Some(self.interval);
        self.refused.take_if(|(_, until)| *until <= now);
        let longer = (self.interval * 9 / 8).min(MAX);
        if self.refused.is_none_or(|(refused, _)| longer < refused) {
            self.interval = longer;
        }
    }

    /// The mapping has not.
    pub(super) fn handle_loss(&mut self, now: Instant) {
        let refused = self.interval;
        match self.proven {
            Some(proven) if proven < refused => self.interval = proven,
            Some(_) | None => {
                // It is another NAT than before, or another first guess was due.
                self.interval = (refused * 2 / 3).max(MIN);
                self.proven = None;
                self.believed = REFUSED;
            }
        }
        self.refused = Some((refused, now + self.believed));
        self.believed = (self.believed * 2).min(MAX_REFUSED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtual_time::origin;

    /// Keeps a mapping that lives for `life`, for this long; returns how often it was used, and how often lost.
    fn live(keep: &mut Keep, now: &mut Instant, life: Duration, time: Duration) -> (u32, u32) {
        let end = *now + time;
        let (mut used, mut lost) = (0, 0);
        while *now < end {
            keep.handle_traffic(*now);
            let interval = keep.interval(*now).unwrap();
            *now += interval;
            used += 1;
            if interval <= life {
                keep.handle_answer(*now);
            } else {
                lost += 1;
                keep.handle_loss(*now);
            }
        }
        (used, lost)
    }

    #[test]
    fn the_interval_comes_close_to_every_nat_s_memory() {
        for seconds in 6..=600 {
            let life = Duration::from_secs(seconds);
            let (mut keep, mut now) = (Keep::new(Turn::First), origin());

            let (_, lost) = live(&mut keep, &mut now, life, REFUSED);

            let found = keep.interval(now).unwrap();
            assert!(found <= life && found <= MAX, "{found:?} of {life:?}");
            assert!(
                found >= (life * 8 / 9).min(MAX) * 7 / 8,
                "{found:?} of {life:?}"
            );
            assert!(lost <= 4, "{lost} times for {life:?}");
        }
    }

    #[test]
    fn a_nat_that_is_known_is_tried_seldom() {
        let (mut keep, mut now) = (Keep::new(Turn::First), origin());
        let life = Duration::from_secs(30);

        let (used, lost) = live(&mut keep, &mut now, life, Duration::from_secs(24 * 3600));

        assert!(lost <= 13, "lost {lost} times in a day");
        assert!(used <= 24 * 3600 / 26, "used {used} times in a day");
    }

    #[test]
    fn a_nat_that_changes_is_followed_both_ways() {
        let (mut keep, mut now) = (Keep::new(Turn::First), origin());
        for seconds in [60, 20, 100, 30] {
            let life = Duration::from_secs(seconds);

            live(&mut keep, &mut now, life, MAX_REFUSED + REFUSED);

            let found = keep.interval(now).unwrap();
            assert!(found <= life, "{found:?} of {life:?}");
            assert!(found >= life * 3 / 4, "{found:?} of {life:?}");
        }
    }

    #[test]
    fn nothing_is_kept_without_talk_or_long_after_it() {
        let (mut keep, now) = (Keep::new(Turn::First), origin());
        assert_eq!(keep.interval(now), None);

        keep.handle_traffic(now);

        assert_eq!(keep.interval(now + LASTS / 2), Some(START));
        assert_eq!(keep.interval(now + LASTS), None);
    }
}
