//! Tells from what a peer has counted how much of what we sent did not come.
//!
//! The lanes of a slot number its datagrams without gaps, so the difference between the highest number that came and how
//! many came is what is missing: exact, whatever the rate, and no datagram carries anything for it. What was overtaken
//! by the question counts as missing until it comes; a way that holds datagrams back is as bad as one that drops them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::path::PathAnswer;
use crate::keys::SessionIndex;

/// Over what time losses are summed.
const SPAN: Duration = Duration::from_millis(1200);
/// Fewer than this say nothing.
const FEW: u64 = 5;
/// One in two hundred and fifty: well above what a healthy network loses, well below one in a hundred.
const SHARE: u64 = 250;
/// What is held back for longer does not just wait in a queue.
const HELD: Duration = Duration::from_millis(250);
/// What may be under way, or waiting in a batch, when a question is asked.
const SLACK: u64 = 128;

/// What one answer said.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    session: SessionIndex,
    sent: u64,
    highest: u64,
    missing: u64,
}

/// What came of what was sent by one slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Delivery {
    samples: VecDeque<Sample>,
    /// What was missing of the session when it was first asked about here.
    before: u64,
    /// Since when every answer has found too much being held back.
    held_since: Option<Instant>,
}

/// How a way treats what is sent by it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Verdict {
    /// Share of datagrams that did not come, 0 to 1.
    pub(super) loss: f64,
    /// More than chance, on a way that could be left.
    pub(super) is_bad: bool,
}

impl Delivery {
    /// Takes an answer in.
    pub(super) fn add(&mut self, answer: &PathAnswer, now: Instant) -> Verdict {
        if self
            .samples
            .back()
            .is_some_and(|last| last.session != answer.session || last.highest > answer.highest)
        {
            self.samples.clear();
        }
        let missing = answer.highest.saturating_sub(answer.received);
        if self.samples.is_empty() {
            self.before = missing;
            self.held_since = None;
        }
        self.samples.push_back(Sample {
            at: now,
            session: answer.session,
            sent: answer.sent,
            highest: answer.highest,
            missing,
        });
        while self.samples.len() > 2
            && self
                .samples
                .get(1)
                .is_some_and(|second| second.at + SPAN <= now)
        {
            self.samples.pop_front();
        }
        self.judge(answer, now)
    }

    fn judge(&mut self, answer: &PathAnswer, now: Instant) -> Verdict {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else {
            return Verdict {
                loss: 0.0,
                is_bad: false,
            };
        };
        let came = last.highest - first.highest;
        let lost = last.missing.saturating_sub(first.missing);
        let left = answer.sent.saturating_sub(first.sent);
        let vanished = left.saturating_sub(came + SLACK);
        let (lost, of) = if vanished > lost {
            (vanished, left)
        } else {
            (lost, came)
        };
        let dropped = lost >= FEW && lost * SHARE >= of;
        let held = last.missing.saturating_sub(self.before);
        let holds = held >= FEW * 3 && held * SHARE * 2 >= came.max(1);
        let since = self.held_since.unwrap_or(now);
        self.held_since = holds.then_some(since);
        let held_back = holds && since + HELD <= now;
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        let loss = if of == 0 {
            0.0
        } else {
            lost as f64 / of as f64
        };
        Verdict {
            loss: loss.min(1.0),
            is_bad: dropped || held_back,
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_types::NodeId;

    use super::*;
    use crate::virtual_time::origin;

    const TICK: Duration = Duration::from_millis(250);

    fn answer(sent: u64, highest: u64, received: u64) -> PathAnswer {
        PathAnswer {
            peer: NodeId::new([1; 32]),
            id: 0,
            rtt: Duration::from_millis(1),
            seen_at: None,
            session: SessionIndex(7),
            sent,
            highest,
            received,
        }
    }

    /// Asks four times a second about 2 500 datagrams each time, of which `came` says how many came.
    fn flow(came: impl Fn(u64) -> (u64, u64)) -> Option<u64> {
        let mut delivery = Delivery::default();
        let mut now = origin();
        (0..12).find(|&tick| {
            now += TICK;
            let (highest, received) = came(tick);
            delivery
                .add(&answer(tick * 2500, highest, received), now)
                .is_bad
        })
    }

    #[test]
    fn one_in_a_hundred_lost_is_seen_with_the_second_answer() {
        assert_eq!(flow(|tick| (tick * 2500, tick * 2475)), Some(1));
    }

    #[test]
    fn what_lets_questions_pass_and_nothing_else_is_seen() {
        assert_eq!(flow(|_| (0, 0)), Some(1));
    }

    #[test]
    fn one_in_a_hundred_held_back_is_seen() {
        // Twenty are always on their way longer than the question.
        assert_eq!(
            flow(|tick| (tick * 2500, (tick * 2500).saturating_sub(20))),
            Some(1)
        );
    }

    #[test]
    fn a_clean_way_is_clean() {
        assert_eq!(flow(|tick| (tick * 2500, tick * 2500)), None);
        assert_eq!(flow(|tick| (tick * 2500, tick * 2499)), None);
    }

    #[test]
    fn what_was_lost_before_is_not_held_against_a_way() {
        assert_eq!(
            flow(|tick| (100_000 + tick * 2500, 60_000 + tick * 2500)),
            None
        );
    }

    #[test]
    fn a_new_session_begins_anew() {
        let mut delivery = Delivery::default();
        delivery.add(&answer(1000, 1000, 1000), origin());
        let other = PathAnswer {
            session: SessionIndex(8),
            ..answer(3000, 10, 10)
        };

        assert!(!delivery.add(&other, origin() + TICK).is_bad);
    }
}
