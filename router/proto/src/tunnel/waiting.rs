//! Keeps what is for a peer until there is a session with it, and asks for one.
//!
//! ```text
//!   nothing waits ──put──▶ asked, and again every 250 ms ──take──▶ nothing waits
//!                             │ what is older than 1 s, or too much, is dropped
//!                             └ nothing is left: nobody asks
//! ```
//!
//! **Invariant.** At most [`MOST`] parcels of at most [`MOST_BYTES`] together, none handed out after [`PATIENCE`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::chatter::Load;
use super::framing::Framing;
use crate::sleeve::payload::Kind;

/// How much waits for one session.
const MOST: usize = 64;

/// How many bytes wait for one session: a few super-frames.
const MOST_BYTES: usize = 512 << 10;

/// How long anything waits for a session.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often a session is asked for while something waits.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// How soon a question is repeated that did not get through: whoever is to answer is busy.
const ASK_ANEW: Duration = Duration::from_millis(100);

/// What waits.
pub(super) enum Parcel {
    Body {
        kind: Kind,
        body: Vec<u8>,
    },
    Frame {
        framing: Framing,
        frame: Vec<u8>,
        /// What is said of it when it leaves.
        load: Load,
    },
}

impl Parcel {
    fn len(&self) -> usize {
        match self {
            Self::Body { body: bytes, .. } | Self::Frame { frame: bytes, .. } => bytes.len(),
        }
    }
}

/// What waits for the session with one peer.
#[derive(Default)]
pub(super) struct WaitingRoom {
    parcels: VecDeque<(Instant, Parcel)>,
    bytes: usize,
    /// Not asked for before.
    ask_at: Option<Instant>,
}

impl WaitingRoom {
    /// Keeps a parcel; false if there is no room for it.
    pub(super) fn put(&mut self, parcel: Parcel, now: Instant) -> bool {
        let bytes = self.bytes + parcel.len();
        let fits = self.parcels.len() < MOST && bytes <= MOST_BYTES;
        if fits {
            self.bytes = bytes;
            self.parcels.push_back((now, parcel));
        }
        fits
    }

    /// Asks for a session where it is time to. `ask` says whether the question got through.
    pub(super) fn ask(&mut self, now: Instant, ask: impl FnOnce() -> bool) {
        if self.ask_at.is_none_or(|at| now >= at) {
            self.ask_at = Some(now + if ask() { ASK_AGAIN } else { ASK_ANEW });
        }
    }

    /// Drops what has waited too long; how many that were.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        let waited = |since| now.saturating_duration_since(since);
        let late = |(since, _): &mut (Instant, Parcel)| waited(*since) > PATIENCE;
        let mut expired = 0;
        while let Some((_, parcel)) = self.parcels.pop_front_if(late) {
            self.bytes -= parcel.len();
            expired += 1;
        }
        expired
    }

    /// Hands out all that is left, in order: there is a session. The next one is asked for at once.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Parcel> + use<> {
        let parcels = std::mem::take(self).parcels;
        parcels.into_iter().map(|(_, parcel)| parcel)
    }

    /// When to [`Self::expire`] and [`Self::ask`] again, while anything waits.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.ask_at.filter(|_| !self.parcels.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::testing::origin;

    const MS: Duration = Duration::from_millis(1);

    fn body(len: usize) -> Parcel {
        Parcel::Body {
            kind: Kind::Message,
            body: vec![0; len],
        }
    }

    #[test]
    fn so_many_and_so_much_wait_and_what_is_taken_makes_room() {
        let now = origin();
        let mut room = WaitingRoom::default();

        let many = (0..MOST + 7).filter(|_| room.put(body(1), now)).count();
        let taken = room.take().count();
        let large = (0..MOST)
            .filter(|_| room.put(body(MOST_BYTES / 5), now))
            .count();

        assert_eq!((many, taken, large), (MOST, MOST, 5));
    }

    #[test]
    fn what_waits_too_long_is_dropped_and_its_room_is_given_back() {
        let start = origin();
        let mut room = WaitingRoom::default();
        assert!(room.put(body(MOST_BYTES), start));
        assert!(!room.put(body(1), start));

        assert_eq!(room.expire(start + PATIENCE), 0);
        assert_eq!(room.expire(start + PATIENCE + MS), 1);
        assert!(room.put(body(MOST_BYTES), start));
        assert_eq!(room.take().count(), 1);
    }

    #[test]
    fn a_session_is_asked_for_now_and_then_while_something_waits() {
        let start = origin();
        let mut room = WaitingRoom::default();
        let mut asked = Vec::new();
        assert!(room.put(body(1), start));

        let mut now = start;
        loop {
            room.expire(now);
            if !room.parcels.is_empty() {
                room.ask(now, || {
                    asked.push(now - start);
                    true
                });
            }
            match room.poll_timeout() {
                Some(at) => now = at,
                None => break,
            }
        }

        assert_eq!(asked, [0, 250, 500, 750, 1000].map(|ms| ms * MS));
    }

    #[test]
    fn a_lost_question_is_repeated_soon_and_the_deadline_moves() {
        let start = origin();
        let mut room = WaitingRoom::default();
        assert!(room.put(body(1), start));

        room.ask(start, || false);
        assert_eq!(room.poll_timeout(), Some(start + ASK_ANEW));
        room.ask(start + ASK_ANEW - MS, || unreachable!("too early"));
        room.ask(start + ASK_ANEW, || true);

        assert_eq!(room.poll_timeout(), Some(start + ASK_ANEW + ASK_AGAIN));
        assert_eq!(room.take().count(), 1);
        assert_eq!(room.poll_timeout(), None);
    }
}
