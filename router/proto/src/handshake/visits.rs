//! Remembers who knocked: a first message is answered once.
//!
//! Whoever watches the underlay can send a member's first message again, and its seal is good: it names no time. Without a
//! memory each copy would be answered, at the price of a key exchange, and tell that a router is here.
//!
//! **Invariant.** Of each door at most [`PER_DOOR`] are remembered, the latest, none longer than [`REMEMBER`].

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::crypto::sha256;
use crate::wire::preface::{self, Repr};

/// How long a first message is remembered.
const REMEMBER: Duration = Duration::from_secs(10 * 60);
/// How many of one door: a member dials once in a few seconds at the most.
const PER_DOOR: usize = 1024;

type Mark = [u8; 16];

/// First messages that were answered, by the door they asked for.
#[derive(Default)]
pub(super) struct Visits {
    doors: BTreeMap<[u8; preface::LEN], VecDeque<(Instant, Mark)>>,
}

impl Visits {
    /// Remembers a first message; whether it is one.
    pub(super) fn is_first(&mut self, asked: &Repr, message: &[u8], now: Instant) -> bool {
        let mut mark = Mark::default();
        mark.copy_from_slice(&sha256(message)[..16]);
        self.forget(now);
        let door = self.doors.entry(asked.emit()).or_default();
        if door.iter().any(|(_, known)| *known == mark) {
            return false;
        }
        if door.len() >= PER_DOOR {
            door.pop_front();
        }
        door.push_back((now, mark));
        true
    }

    fn forget(&mut self, now: Instant) {
        self.doors.retain(|_, door| {
            while door.front().is_some_and(|(at, _)| *at + REMEMBER <= now) {
                door.pop_front();
            }
            !door.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use weft_types::TokenId;

    use super::*;
    use crate::virtual_time::origin;

    const ASKED: Repr = Repr::Token(TokenId::new([1; 16]));

    #[test]
    fn a_message_is_first_once_in_ten_minutes_at_each_door() {
        let (mut visits, now) = (Visits::default(), origin());
        let other = Repr::Token(TokenId::new([2; 16]));

        assert!(visits.is_first(&ASKED, b"one", now));
        assert!(!visits.is_first(&ASKED, b"one", now));
        assert!(visits.is_first(&ASKED, b"two", now));
        assert!(visits.is_first(&other, b"one", now));
        assert!(visits.is_first(&ASKED, b"one", now + REMEMBER));
    }

    #[test]
    fn however_many_come_few_are_remembered_and_of_others_doors_none_fewer() {
        let (mut visits, now) = (Visits::default(), origin());
        let other = Repr::Token(TokenId::new([2; 16]));
        visits.is_first(&other, b"one", now);

        for number in 0..10_000_u32 {
            assert!(visits.is_first(&ASKED, &number.to_be_bytes(), now));
        }

        assert_eq!(visits.doors[&ASKED.emit()].len(), PER_DOOR);
        assert!(!visits.is_first(&other, b"one", now));
    }
}
