//! Bounds what is sent where a peer merely says that it can be reached.
//!
//! An address that has answered, or that something authentic came from, is proved. Any other one may be a bystander's: so
//! many probes go to all of a peer's together, however many addresses it tells and however often it changes them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use crate::budget::Budget;

/// Every address of an honest host is tried for some seconds: the most that a peer can have sent to others at once.
const AT_ONCE: u64 = 192;
/// And so many a second from then on.
const PER_SECOND: u64 = 2;
/// How many addresses of a peer are known as proved, the last ones.
const MAX_PROVED: usize = 32;
/// How many probes to others may be answered still.
const MAX_OUT: usize = 64;

/// What is sent where one peer says that it can be reached.
pub struct Unproved {
    proved: VecDeque<SocketAddr>,
    out: VecDeque<(u64, SocketAddr)>,
    budget: Budget,
}

impl Unproved {
    /// Nothing is proved yet.
    pub const fn new(now: Instant) -> Self {
        Self {
            proved: VecDeque::new(),
            out: VecDeque::new(),
            budget: Budget::new(PER_SECOND, AT_ONCE, now),
        }
    }

    /// Whether a probe may go there.
    pub fn may_send(&mut self, to: SocketAddr, id: u64, now: Instant) -> bool {
        if self.proved.contains(&to) {
            return true;
        }
        if !self.budget.spend(1, now) {
            return false;
        }
        if self.out.len() == MAX_OUT {
            self.out.pop_front();
        }
        self.out.push_back((id, to));
        true
    }

    /// A probe was answered.
    pub fn handle_answer(&mut self, id: u64) {
        if let Some(&(_, to)) = self.out.iter().find(|(out, _)| *out == id) {
            self.prove(to);
        }
    }

    /// Something authentic came from there.
    pub fn prove(&mut self, address: SocketAddr) {
        if self.proved.contains(&address) {
            return;
        }
        if self.proved.len() == MAX_PROVED {
            self.proved.pop_front();
        }
        self.proved.push_back(address);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::virtual_time::origin;

    fn address(n: u64) -> SocketAddr {
        let [.., a, b] = n.to_be_bytes();
        SocketAddr::from(([198, 51, a, b], 6783))
    }

    #[test]
    fn what_a_peer_has_sent_to_bystanders_is_bounded_whatever_it_tells() {
        let mut unproved = Unproved::new(origin());

        let minute = (0..60_000).filter(|&millis| {
            let now = origin() + Duration::from_millis(millis);
            unproved.may_send(address(millis), millis, now)
        });

        assert_eq!(minute.count() as u64, AT_ONCE + 59 * PER_SECOND + 1);
    }

    #[test]
    fn an_address_that_answers_is_probed_as_often_as_one_likes() {
        let mut unproved = Unproved::new(origin());
        assert!(unproved.may_send(address(1), 7, origin()));

        unproved.handle_answer(7);

        assert!((0..1000).all(|id| unproved.may_send(address(1), id, origin())));
        assert!(unproved.may_send(address(2), 8, origin()));
    }
}
