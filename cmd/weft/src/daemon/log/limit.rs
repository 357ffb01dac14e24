//! Decides which lines of a log are said: what repeats is said once, and counted.
//!
//! ```text
//!   the same line                  1, then 1 a minute
//!   the same kind about one key    6, then 2 a minute       a key is a node, an address, a code
//!   the same kind                 24, then 6 a minute       a kind is a place in the program
//! ```
//!
//! The last line that was left out is said when there is room again, with how many went before it: the log's last word
//! about anything is true, a minute late at most for a line that repeats.
//! **Invariant.** Memory is bounded: where there are too many keys to tell apart, they share the room of their kind.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines that are told apart.
const LINES: usize = 512;
/// Keys that are told apart.
const KEYS: usize = 512;

const LINE: Rate = Rate::new(1, 60);
const KEY: Rate = Rate::new(6, 30);
const KIND: Rate = Rate::new(24, 10);

/// What an event says, as far as it decides whether it is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// Where in the program it is said.
    pub(super) kind: u64,
    /// Whom it is about, if anybody.
    pub(super) key: u64,
    /// All of it.
    pub(super) line: u64,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is left out.
    LeaveOut,
    /// It is said; this many like it were left out since the last one.
    Say(u64),
}

/// Counts what was said.
#[derive(Default)]
pub(super) struct Limiter {
    kinds: BTreeMap<u64, Bucket>,
    keys: BTreeMap<(u64, u64), Bucket>,
    lines: BTreeMap<u64, Line>,
}

struct Line {
    said: Said,
    bucket: Bucket,
    /// How many were left out since the last that was said, and the last of them.
    left_out: u64,
    last: String,
}

impl Limiter {
    /// Whether a line is said. Who leaves one out keeps it by [`Self::keep`].
    pub(super) fn consider(&mut self, said: Said, now: Instant) -> Verdict {
        self.forget(now);
        if !self.has_room(said, now) {
            return Verdict::LeaveOut;
        }
        self.take(said, now);
        let left_out = self.lines.get_mut(&said.line).map_or(0, |line| {
            line.last.clear();
            std::mem::take(&mut line.left_out)
        });
        Verdict::Say(left_out)
    }

    /// Keeps a line that was left out, in place of the one before.
    pub(super) fn keep(&mut self, said: Said, text: &str, now: Instant) {
        if self.lines.len() >= LINES && !self.lines.contains_key(&said.line) {
            return;
        }
        let line = self.lines.entry(said.line).or_insert_with(|| Line {
            said,
            bucket: Bucket::new(LINE, now),
            left_out: 0,
            last: String::new(),
        });
        line.left_out += 1;
        text.clone_into(&mut line.last);
    }

    /// The last of each line that was left out, for which there is room by now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<String> {
        let waiting = self.lines.values().filter(|line| line.left_out > 0);
        let waiting: Vec<Said> = waiting.map(|line| line.said).collect();
        let mut due = Vec::new();
        for said in waiting {
            if !self.has_room(said, now) {
                continue;
            }
            self.take(said, now);
            if let Some(line) = self.lines.get_mut(&said.line) {
                let others = std::mem::take(&mut line.left_out) - 1;
                due.push(with_count(&std::mem::take(&mut line.last), others));
            }
        }
        due
    }

    fn has_room(&self, said: Said, now: Instant) -> bool {
        let line = self.lines.get(&said.line).map(|line| &line.bucket);
        let key = self.keys.get(&(said.kind, said.key));
        let kind = self.kinds.get(&said.kind);
        [line, key, kind]
            .into_iter()
            .flatten()
            .all(|bucket| bucket.has_room(now))
    }

    fn take(&mut self, said: Said, now: Instant) {
        let kind = self.kinds.entry(said.kind);
        kind.or_insert_with(|| Bucket::new(KIND, now)).take(now);
        if let Some(key) = self.key(said, now) {
            key.take(now);
        }
        if self.lines.len() >= LINES && !self.lines.contains_key(&said.line) {
            return;
        }
        let line = self.lines.entry(said.line).or_insert_with(|| Line {
            said,
            bucket: Bucket::new(LINE, now),
            left_out: 0,
            last: String::new(),
        });
        line.bucket.take(now);
    }

    fn key(&mut self, said: Said, now: Instant) -> Option<&mut Bucket> {
        let at = (said.kind, said.key);
        if said.key == 0 || (self.keys.len() >= KEYS && !self.keys.contains_key(&at)) {
            return None;
        }
        let bucket = self.keys.entry(at);
        Some(bucket.or_insert_with(|| Bucket::new(KEY, now)))
    }

    /// Forgets what says no more than nothing would, when there is much of it.
    fn forget(&mut self, now: Instant) {
        if self.keys.len() >= KEYS {
            self.keys.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.lines.len() >= LINES {
            self.lines
                .retain(|_, line| line.left_out > 0 || !line.bucket.is_full(now));
        }
    }
}

/// So many at once, and one more after each interval.
#[derive(Clone, Copy)]
struct Rate {
    burst: u32,
    interval: Duration,
}

impl Rate {
    const fn new(burst: u32, seconds: u64) -> Self {
        Self {
            burst,
            interval: Duration::from_secs(seconds),
        }
    }
}

/// Room for lines, as the time at which it would all be free again.
struct Bucket {
    rate: Rate,
    free_at: Instant,
}

impl Bucket {
    const fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, free_at: now }
    }

    fn has_room(&self, now: Instant) -> bool {
        let used = self.free_at.saturating_duration_since(now);
        used + self.rate.interval <= self.rate.interval * self.rate.burst
    }

    fn take(&mut self, now: Instant) {
        self.free_at = self.free_at.max(now) + self.rate.interval;
    }

    fn is_full(&self, now: Instant) -> bool {
        self.free_at <= now
    }
}

/// A thread that panicked as it logged has left nothing half done here.
pub(super) fn lock(limiter: &Mutex<Limiter>) -> MutexGuard<'_, Limiter> {
    limiter.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A line, and how many like it were left out.
pub(super) fn with_count(line: &str, left_out: u64) -> String {
    let text = line.trim_end_matches('\n');
    match (left_out, text.strip_suffix('}')) {
        (0, _) => line.to_owned(),
        (_, Some(open)) if text.starts_with('{') => {
            format!("{open},\"left_out\":{left_out}}}\n")
        }
        _ => format!("{text} ({left_out} like it left out)\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(kind: u64, key: u64, line: u64) -> Said {
        Said { kind, key, line }
    }

    /// Offers a line every millisecond for a while: how many are said.
    fn flood(minutes: u64, mut line: impl FnMut(u64) -> Said) -> u64 {
        let (mut limiter, begun) = (Limiter::default(), Instant::now());
        let mut count = 0;
        for ms in 0..minutes * 60_000 {
            let now = begun + Duration::from_millis(ms);
            let offered = line(ms);
            match limiter.consider(offered, now) {
                Verdict::LeaveOut => limiter.keep(offered, "x\n", now),
                Verdict::Say(_) => count += 1,
            }
        }
        assert!(limiter.lines.len() <= LINES && limiter.keys.len() <= KEYS);
        count
    }

    #[test]
    fn the_same_line_is_said_once_a_minute() {
        assert_eq!(flood(3, |_| said(1, 1, 1)), 3);
    }

    #[test]
    fn one_key_says_few_and_many_keys_not_many() {
        assert_eq!(flood(3, |ms| said(1, 1, ms)), 6 + 5);
        assert_eq!(flood(3, |ms| said(1, ms, ms)), 24 + 17);
    }

    #[test]
    fn one_kind_takes_no_room_of_another() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        for line in 0..100 {
            limiter.consider(said(1, line, line), now);
        }

        assert_eq!(limiter.consider(said(2, 1, 1000), now), Verdict::Say(0));
    }

    #[test]
    fn the_last_that_was_left_out_is_said_when_there_is_room_with_its_count() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        limiter.consider(said(1, 1, 1), now);
        for text in ["a\n", "b\n", "c\n"] {
            assert_eq!(limiter.consider(said(1, 1, 1), now), Verdict::LeaveOut);
            limiter.keep(said(1, 1, 1), text, now);
        }

        let early = limiter.due(now + Duration::from_secs(59));
        let due = limiter.due(now + Duration::from_secs(60));
        let again = limiter.due(now + Duration::from_secs(600));

        assert!(early.is_empty() && again.is_empty());
        assert_eq!(due, ["c (2 like it left out)\n"]);
    }

    #[test]
    fn how_many_were_left_out_is_said_in_the_format_of_the_line() {
        assert_eq!(with_count("a\n", 0), "a\n");
        assert_eq!(with_count("a\n", 3), "a (3 like it left out)\n");
        assert_eq!(
            with_count("{\"fields\":{\"message\":\"a\"}}\n", 3),
            "{\"fields\":{\"message\":\"a\"},\"left_out\":3}\n"
        );
    }
}
