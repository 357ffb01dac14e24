//! Tells chatter from traffic: what hosts say to everybody on their own account, whether or not anybody talks.
//!
//! Address resolution, neighbour discovery and group membership go to every peer, small and now and then. Probing the ways to all
//! of them for each would keep an idle mesh busy; the heartbeats of the control link tell soon enough whether such a frame
//! gets there. What is larger, or comes faster, is a stream that somebody listens to, and counts as any other frame.

use std::time::Instant;

use crate::budget::Budget;
use crate::sleeve::bundle;

/// The longest frame of chatter: address resolution takes 42 bytes, neighbour discovery and reports of groups take 110.
const SMALL: usize = 128;
/// How many frames a second are chatter; a stream is known by the second one within a quarter of a second.
const PER_SECOND: u64 = 4;
/// How many at once: hosts that start speak up several times.
const AT_ONCE: u64 = 8;

/// What the frames that travel ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// No more than heartbeats do already.
    Chatter,
    /// A way that is looked after.
    Traffic,
}

/// Counts the chatter of one origin.
pub(super) struct Chatter {
    budget: Budget,
}

impl Chatter {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            budget: Budget::new(PER_SECOND, AT_ONCE, now),
        }
    }

    /// Judges a frame.
    pub(super) fn judge(&mut self, frame: &[u8], now: Instant) -> Load {
        if is_small_talk(frame) && self.budget.spend(1, now) {
            Load::Chatter
        } else {
            Load::Traffic
        }
    }

    /// Judges the frames of a body.
    pub(super) fn judge_body(&mut self, body: &[u8], now: Instant) -> Load {
        let small = body.len() <= bundle::RECORD + SMALL
            && bundle::records(body)
                .all(|record| record.is_ok_and(|record| is_small_talk(&body[record.frame])));
        if small && self.budget.spend(1, now) {
            Load::Chatter
        } else {
            Load::Traffic
        }
    }
}

/// Whether a frame is for a group, and small.
fn is_small_talk(frame: &[u8]) -> bool {
    frame.len() <= SMALL && frame.first().is_some_and(|first| first & 1 == 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tunnel::testing::origin;

    const MS: Duration = Duration::from_millis(1);

    /// A frame for everybody, or for one host.
    fn frame(first: u8, len: usize) -> Vec<u8> {
        [vec![first; 6], vec![2; len - 6]].concat()
    }

    #[test]
    fn what_is_for_one_host_or_large_is_traffic() {
        let now = origin();
        let mut chatter = Chatter::new(now);

        assert_eq!(chatter.judge(&frame(0xff, 60), now), Load::Chatter);
        assert_eq!(chatter.judge(&frame(0x33, SMALL), now), Load::Chatter);
        assert_eq!(chatter.judge(&frame(0x33, SMALL + 1), now), Load::Traffic);
        assert_eq!(chatter.judge(&frame(0x02, 60), now), Load::Traffic);
        assert_eq!(chatter.judge(&[], now), Load::Traffic);
    }

    #[test]
    fn a_body_is_chatter_where_all_its_frames_are() {
        let now = origin();
        let mut chatter = Chatter::new(now);
        let body = |frames: &[Vec<u8>]| -> Vec<u8> {
            let record = |frame: &Vec<u8>| {
                let head = bundle::encode(frame.len(), None).unwrap();
                [&head[..], frame].concat()
            };
            frames.iter().flat_map(record).collect()
        };

        let alone = body(&[frame(0xff, 42)]);
        let mixed = body(&[frame(0xff, 42), frame(0x02, 42)]);

        assert_eq!(chatter.judge_body(&alone, now), Load::Chatter);
        assert_eq!(chatter.judge_body(&mixed, now), Load::Traffic);
        assert_eq!(chatter.judge_body(&[1], now), Load::Traffic);
    }

    #[test]
    fn a_stream_of_small_frames_is_traffic_before_long() {
        for (every, stream) in [
            (1000 * MS, false),
            (250 * MS, false),
            (100 * MS, true),
            (20 * MS, true),
        ] {
            let start = origin();
            let mut chatter = Chatter::new(start);

            let first = (0..100).find(|&number| {
                chatter.judge(&frame(0xff, 60), start + every * number) == Load::Traffic
            });

            assert_eq!(first.is_some(), stream, "every {every:?}");
            assert!(
                first.is_none_or(|number| every * number <= 1500 * MS),
                "{first:?}"
            );
        }
    }
}
