//! Decides which frame of a bad link comes out, and when.
//!
//! ```text
//!   offer ─▶ lost? ─▶ twice? ─▶ queue full? ─▶ serialise at `rate` ─▶ `delay` ± `jitter` ─▶ overtaken? ─▶ poll
//! ```
//!
//! Pure: time comes in, chance comes from the seed, so the same frames at the same instants suffer the same.
//!
//! **Invariant.** Frames come out in the order of their due times; without `reorder` that is the order they went in,
//! whatever the jitter.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// How bad a link is, in one direction. The default is a perfect one.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Profile {
    /// Time that every frame takes.
    pub delay: Duration,
    /// Part of the frames that come out twice, 0 to 1.
    pub duplicate: f64,
    /// The delay varies evenly by this much to either side.
    pub jitter: Duration,
    /// Part of the frames that never come out, 0 to 1.
    pub loss: f64,
    /// The largest packet that passes, if smaller than the device's.
    pub mtu: Option<MtuLimit>,
    /// Bytes that may wait for the rate; more are lost. Unbounded if zero.
    pub queue: usize,
    /// Bits per second, counted over whole frames. Unlimited if `None`.
    pub rate: Option<u64>,
    /// Frames that others overtake.
    pub reorder: Option<Reorder>,
}

/// A limit on the length of packets, as a tunnel or an old line on the way has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MtuLimit {
    /// Bytes from the IP header on.
    pub bytes: usize,
    /// The sender is told (RFC 792 type 3 code 4, RFC 4443 §3.2); otherwise the packet is just gone.
    pub tell: bool,
}

/// Holds single frames back so that later ones overtake them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reorder {
    /// For how long.
    pub by: Duration,
    /// Part of the frames this happens to, 0 to 1.
    pub chance: f64,
}

/// What became of a frame that went in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It will come out twice.
    Doubled,
    /// It did not fit.
    Full,
    /// It was lost.
    Lost,
    /// It will come out.
    Queued,
}

/// One direction of a bad link.
#[derive(Debug)]
pub struct Queue<T> {
    profile: Profile,
    chance: Chance,
    free_at: Option<Instant>,
    latest: Option<Instant>,
    sequence: u64,
    waiting: BinaryHeap<Reverse<Waiting<T>>>,
}

impl<T: Clone> Queue<T> {
    /// Makes a queue whose misfortunes follow from `seed`.
    pub fn new(seed: u64, profile: Profile) -> Self {
        Self {
            profile,
            chance: Chance(seed),
            free_at: None,
            latest: None,
            sequence: 0,
            waiting: BinaryHeap::new(),
        }
    }

    /// Changes the link. Frames under way keep the time they have.
    pub fn set_profile(&mut self, profile: Profile) {
        self.profile = profile;
    }

    /// Takes a frame of `length` bytes in.
    pub fn offer(&mut self, frame: T, length: usize, now: Instant) -> Verdict {
        self.offer_held(frame, length, Duration::ZERO, now)
    }

    /// Takes a frame in that comes out so much later than it would, so that others overtake it.
    pub fn offer_held(&mut self, frame: T, length: usize, held: Duration, now: Instant) -> Verdict {
        if self.chance.hits(self.profile.loss) {
            return Verdict::Lost;
        }
        let Some(sent) = self.serialise(length, now) else {
            return Verdict::Full;
        };
        let doubled = self.chance.hits(self.profile.duplicate);
        if doubled {
            self.enqueue(frame.clone(), sent, held);
        }
        self.enqueue(frame, sent, held);
        if doubled {
            Verdict::Doubled
        } else {
            Verdict::Queued
        }
    }

    /// Returns the next frame that is due.
    pub fn poll(&mut self, now: Instant) -> Option<T> {
        if self.waiting.peek()?.0.due > now {
            return None;
        }
        self.waiting.pop().map(|Reverse(waiting)| waiting.frame)
    }

    /// Returns when the next frame is due.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.waiting
            .peek()
            .map(|Reverse(waiting)| (waiting.due, "frame under way"))
    }

    /// Puts the frame on the line and returns when its last bit is out, or nothing if too many wait before it.
    fn serialise(&mut self, length: usize, now: Instant) -> Option<Instant> {
        let Some(rate) = self.profile.rate.filter(|&rate| rate > 0) else {
            return Some(now);
        };
        let start = self.free_at.map_or(now, |free| free.max(now));
        let backlog = start.duration_since(now).as_secs_f64() * as_float(rate) / 8.0;
        if self.profile.queue > 0
            && backlog + as_float(length as u64) > as_float(self.profile.queue as u64)
        {
            return None;
        }
        let done = start + Duration::from_secs_f64(as_float(length as u64) * 8.0 / as_float(rate));
        self.free_at = Some(done);
        Some(done)
    }

    fn enqueue(&mut self, frame: T, sent: Instant, held: Duration) {
        let spread = self.profile.jitter.mul_f64(2.0 * self.chance.fraction());
        let due = sent + (self.profile.delay + spread).saturating_sub(self.profile.jitter);
        let due = match self.profile.reorder {
            Some(reorder) if self.chance.hits(reorder.chance) => due + reorder.by + held,
            _ if held > Duration::ZERO => due + held,
            _ => {
                let due = self.latest.map_or(due, |latest| due.max(latest));
                self.latest = Some(due);
                due
            }
        };
        self.waiting.push(Reverse(Waiting {
            due,
            sequence: self.sequence,
            frame,
        }));
        self.sequence += 1;
    }
}

#[derive(Debug)]
struct Waiting<T> {
    due: Instant,
    sequence: u64,
    frame: T,
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.sequence) == (other.due, other.sequence)
    }
}

impl<T> Eq for Waiting<T> {}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.sequence).cmp(&(other.due, other.sequence))
    }
}

/// A stream of chance: SplitMix64 (Steele, Lea, Flood 2014), good enough for a lab and the same everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Evenly from 0 up to 1.
    fn fraction(&mut self) -> f64 {
        as_float(self.next() >> 11) / as_float(1 << 53)
    }

    /// Draws only where the outcome is open, so that switching one misfortune on leaves the others as they were.
    pub(crate) fn hits(&mut self, part: f64) -> bool {
        part > 0.0 && self.fraction() < part
    }
}

fn as_float(value: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "rates and lengths of a lab are far below 2^53"
    )]
    let value = value as f64;
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn drained(queue: &mut Queue<usize>) -> Vec<(Instant, usize)> {
        let mut out = Vec::new();
        while let Some((due, _)) = queue.poll_timeout() {
            out.extend(queue.poll(due).map(|frame| (due, frame)));
        }
        out
    }

    fn sent(seed: u64, profile: Profile, frames: usize, start: Instant) -> (Queue<usize>, usize) {
        let mut queue = Queue::new(seed, profile);
        let taken = (0..frames)
            .filter(|&frame| {
                matches!(
                    queue.offer(frame, 1000, start),
                    Verdict::Queued | Verdict::Doubled
                )
            })
            .count();
        (queue, taken)
    }

    #[test]
    fn a_perfect_link_changes_nothing() {
        let start = Instant::now();
        let (mut queue, taken) = sent(1, Profile::default(), 100, start);

        let out = drained(&mut queue);

        assert_eq!(taken, 100);
        assert_eq!(
            out,
            (0..100).map(|frame| (start, frame)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn nothing_comes_out_before_its_time() {
        let start = Instant::now();
        let (mut queue, _) = sent(
            1,
            Profile {
                delay: 10 * MS,
                ..Profile::default()
            },
            1,
            start,
        );

        assert_eq!(queue.poll(start + 9 * MS), None);
        assert_eq!(queue.poll(start + 10 * MS), Some(0));
        assert_eq!(queue.poll_timeout(), None);
    }

    #[test]
    fn jitter_moves_frames_in_time_but_not_in_order() {
        let start = Instant::now();
        let profile = Profile {
            delay: 10 * MS,
            jitter: 5 * MS,
            ..Profile::default()
        };
        let mut queue = Queue::new(7, profile);
        for frame in 0..1000usize {
            queue.offer(frame, 100, start + MS * u32::try_from(frame).unwrap());
        }

        let out = drained(&mut queue);

        assert!(out.is_sorted_by_key(|&(_, frame)| frame));
        let late: Vec<Duration> = out
            .iter()
            .map(|&(due, frame)| due - (start + MS * u32::try_from(frame).unwrap()))
            .collect();
        assert!(late.iter().all(|late| (5 * MS..=15 * MS).contains(late)));
        assert!(late.iter().any(|&late| late < 7 * MS) && late.iter().any(|&late| late > 13 * MS));
    }

    #[test]
    fn about_the_given_part_is_lost_and_the_seed_says_which() {
        let start = Instant::now();
        let profile = Profile {
            loss: 0.1,
            ..Profile::default()
        };
        let (mut first, taken) = sent(3, profile, 10_000, start);
        let (mut again, _) = sent(3, profile, 10_000, start);
        let (mut other, _) = sent(4, profile, 10_000, start);

        let first = drained(&mut first);

        assert!((8_800..9_200).contains(&taken), "{taken}");
        assert_eq!(first, drained(&mut again));
        assert_ne!(first, drained(&mut other));
    }

    #[test]
    fn doubled_frames_come_out_twice() {
        let start = Instant::now();
        let (mut queue, taken) = sent(
            3,
            Profile {
                duplicate: 1.0,
                ..Profile::default()
            },
            10,
            start,
        );

        let out = drained(&mut queue);

        assert_eq!(taken, 10);
        assert_eq!(
            out.iter().map(|&(_, frame)| frame).collect::<Vec<_>>(),
            (0..20).map(|n| n / 2).collect::<Vec<_>>()
        );
    }

    #[test]
    fn held_frames_are_overtaken_and_none_is_lost() {
        let start = Instant::now();
        let reorder = Some(Reorder {
            by: 5 * MS,
            chance: 0.1,
        });
        let (mut queue, _) = sent(
            3,
            Profile {
                reorder,
                ..Profile::default()
            },
            1000,
            start,
        );

        let mut out: Vec<usize> = drained(&mut queue)
            .into_iter()
            .map(|(_, frame)| frame)
            .collect();

        assert!(!out.is_sorted());
        out.sort_unstable();
        assert_eq!(out, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_frame_that_is_held_is_overtaken_and_delays_no_other() {
        let start = Instant::now();
        let (mut queue, _) = sent(1, Profile::default(), 1, start);

        queue.offer_held(1, 1000, 5 * MS, start);
        queue.offer(2, 1000, start);

        assert_eq!(
            drained(&mut queue),
            [(start, 0), (start, 2), (start + 5 * MS, 1)]
        );
    }

    #[test]
    fn a_rate_spaces_frames_and_a_full_queue_loses_the_rest() {
        let start = Instant::now();
        // 8 Mbit/s: a frame of 1000 bytes takes a millisecond. Ten of them may wait.
        let profile = Profile {
            rate: Some(8_000_000),
            queue: 10_000,
            ..Profile::default()
        };
        let (mut queue, taken) = sent(1, profile, 100, start);

        let out = drained(&mut queue);

        assert_eq!(taken, 10);
        assert_eq!(out.first(), Some(&(start + MS, 0)));
        assert_eq!(out.last(), Some(&(start + 10 * MS, 9)));
        assert_eq!(queue.offer(100, 1000, start + 10 * MS), Verdict::Queued);
    }
}
