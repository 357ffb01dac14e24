//! Finds the largest datagram that passes a way whole, by probes alone.
//!
//! ```text
//!            all steps at once             bisection               now and then
//!   Unknown ───────────────────▶ Climbing ───────────▶ Refining ───────────▶ Settled ──▶ Climbing
//!      ▲                                                                       │
//!      └────────── full-size probes are lost while small ones pass ────────────┘
//! ```
//!
//! RFC 8899 (datagram packetization layer path MTU discovery), with two differences: its sizes are tried all at once, as
//! frames wait and a ladder of probes weighs less than one burst of them; and the search is gone through again far sooner
//! than after its ten minutes, since a larger path that returns is worth a probe. Errors by ICMP are hints: they make the
//! next probe come at once, and change nothing by themselves (RFC 8899 §4.6).
//!
//! **Invariant.** [`Search::confirmed`] is a size that an answer has proved since the last black hole, or the floor.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::path::Via;
use crate::sleeve::relayed::RELAY_OVERHEAD;

/// Links that are met in practice, by MTU: RFC 791's least, what RFC 8200 demands, tunnels, PPPoE, Ethernet, jumbo frames.
const LADDER: [u16; 14] = [
    576, 1006, 1124, 1280, 1340, 1380, 1400, 1420, 1440, 1460, 1480, 1492, 1500, 9000,
];
/// What every mesh tries: more than Ethernet's is for meshes whose frames are longer than that.
const USUAL: u16 = 1500;
/// IPv4 and UDP headers: RFC 791 §3.1 without options, RFC 768.
const HEADERS_V4: u16 = 28;
/// IPv6 and UDP headers: RFC 8200 §3.
const HEADERS_V6: u16 = 48;
/// What every IPv4 host takes: RFC 791 §3.1.
const FLOOR_V4: u16 = 576;
/// What every IPv6 link carries: RFC 8200 §5.
const FLOOR_V6: u16 = 1280;
/// Over control connections nothing is cut, so nothing is searched for.
const CONTROL: u16 = 1400;
/// How often one size is tried before it counts as too large.
const ATTEMPTS: u8 = 3;
/// A search ends when it knows the size this closely: less than one in a hundred of a datagram.
const CLOSE: u16 = 12;
/// How soon a settled search looks for more, and how seldom it does in the end.
const RAISE: Duration = Duration::from_secs(10);
const MAX_RAISE: Duration = Duration::from_secs(160);

/// The search on one way.
#[derive(Clone, Debug)]
pub(super) struct Search {
    headers: u16,
    floor: u16,
    ceiling: u16,
    confirmed: u16,
    /// The least size that did not pass, if any is known.
    failed: Option<u16>,
    trials: Vec<Trial>,
    state: State,
    raise: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Climbing,
    Refining,
    Settled { raise_at: Instant },
    Unknown,
}

/// One size that is being tried.
#[derive(Clone, Copy, Debug)]
struct Trial {
    size: u16,
    attempts: u8,
    /// When it is sent next; far away while an answer is out.
    due: Option<Instant>,
}

impl Search {
    /// Begins where every network must carry a datagram. `largest` is what the mesh could use: a whole frame with all that
    /// stands around it.
    pub(super) fn new(via: Via, largest: u16) -> Self {
        let (headers, floor, ceiling) = match via {
            Via::Control => (0, CONTROL, CONTROL),
            Via::Direct(SocketAddr::V4(_)) => (HEADERS_V4, FLOOR_V4, largest.max(USUAL)),
            Via::Direct(SocketAddr::V6(_)) => (HEADERS_V6, FLOOR_V6, largest.max(USUAL)),
            // Whatever lies under a relay: the least of both.
            Via::Relay(_) => (HEADERS_V4 + RELAY_OVERHEAD, FLOOR_V4, largest.max(USUAL)),
        };
        let floor = floor - headers;
        Self {
            headers,
            floor,
            ceiling: ceiling - headers,
            confirmed: floor,
            failed: None,
            trials: Vec::new(),
            state: State::Unknown,
            raise: RAISE,
        }
    }

    /// The largest datagram that is known to pass.
    pub(super) const fn confirmed(&self) -> u16 {
        self.confirmed
    }

    /// The largest IP packet that is known to pass; `None` where nothing is cut.
    pub(super) const fn mtu(&self) -> Option<u16> {
        if self.headers == 0 {
            None
        } else {
            Some(self.confirmed + self.headers)
        }
    }

    /// Whether nothing is known and nothing is being found out.
    pub(super) fn is_unknown(&self) -> bool {
        self.state == State::Unknown
    }

    /// Begins: the way answers.
    pub(super) fn begin(&mut self, now: Instant) {
        if self.floor == self.ceiling {
            self.settle(now);
            return;
        }
        self.failed = None;
        self.state = State::Climbing;
        self.trials = self
            .steps()
            .filter(|&size| size > self.confirmed)
            .map(|size| Trial {
                size,
                attempts: 0,
                due: Some(now),
            })
            .collect();
    }

    /// Full-size datagrams vanish where small ones pass.
    pub(super) fn black_hole(&mut self, now: Instant) {
        self.confirmed = self.floor;
        self.raise = RAISE;
        self.begin(now);
    }

    /// Somebody says that no more than `size` passes. Nothing is believed: if that is less than what is known, `true`
    /// asks for a proof of the known size.
    pub(super) const fn is_doubted_by(&self, size: u16) -> bool {
        size < self.confirmed
    }

    /// The next size to try, if one is due.
    pub(super) fn poll(&mut self, patience: Duration, now: Instant) -> Option<u16> {
        if let State::Settled { raise_at } = self.state
            && raise_at <= now
        {
            self.raise = (self.raise * 2).min(MAX_RAISE);
            if self.confirmed < self.ceiling {
                self.begin(now);
            } else {
                self.settle(now);
            }
        }
        let trial = self
            .trials
            .iter_mut()
            .find(|trial| trial.due.is_some_and(|due| due <= now))?;
        trial.attempts += 1;
        trial.due = (trial.attempts <= ATTEMPTS).then(|| now + patience);
        if trial.attempts > ATTEMPTS {
            let size = trial.size;
            self.trials.retain(|trial| trial.size != size);
            self.failed = Some(self.failed.map_or(size, |failed| failed.min(size)));
            self.go_on(now);
            return self.poll(patience, now);
        }
        Some(trial.size)
    }

    /// When [`Self::poll`] has something.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let raise = match self.state {
            State::Settled { raise_at } => Some(raise_at),
            State::Climbing | State::Refining | State::Unknown => None,
        };
        let due = self.trials.iter().filter_map(|trial| trial.due);
        due.chain(raise).min()
    }

    /// A datagram of this size came through; whether that is news.
    pub(super) fn handle_answer(&mut self, size: u16, now: Instant) -> bool {
        let news = size > self.confirmed;
        if news {
            self.confirmed = size;
        }
        self.trials.retain(|trial| trial.size > size);
        self.failed = self.failed.filter(|&failed| failed > self.confirmed);
        if self.state != State::Unknown && news {
            self.go_on(now);
        }
        news
    }

    /// Chooses what to try next when nothing is being tried.
    fn go_on(&mut self, now: Instant) {
        if !self.trials.is_empty() {
            return;
        }
        let Some(failed) = self
            .failed
            .filter(|&failed| failed.saturating_sub(self.confirmed) > CLOSE)
        else {
            return self.settle(now);
        };
        self.state = State::Refining;
        self.trials.push(Trial {
            size: self.confirmed + (failed - self.confirmed) / 2,
            attempts: 0,
            due: Some(now),
        });
    }

    fn settle(&mut self, now: Instant) {
        self.trials.clear();
        self.state = State::Settled {
            raise_at: now + self.raise,
        };
    }

    fn steps(&self) -> impl Iterator<Item = u16> + use<> {
        let (headers, floor, ceiling) = (self.headers, self.floor, self.ceiling);
        LADDER
            .into_iter()
            .filter_map(move |mtu| mtu.checked_sub(headers))
            .filter(move |&size| size > floor && size < ceiling)
            .chain([ceiling])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtual_time::origin;

    const PATIENCE: Duration = Duration::from_millis(100);

    fn direct() -> (Search, Instant) {
        let start = origin();
        let mut search = Search::new(Via::Direct("192.0.2.1:6783".parse().unwrap()), 1450);
        search.begin(start);
        (search, start)
    }

    /// Lets a path of this MTU answer until the search has settled; returns when that was, and how many probes it took.
    fn run(search: &mut Search, mtu: u16, start: Instant) -> (Instant, usize) {
        let (mut now, mut probes) = (start, 0);
        while !matches!(search.state, State::Settled { .. }) {
            while let Some(size) = search.poll(PATIENCE, now) {
                probes += 1;
                if size + HEADERS_V4 <= mtu {
                    search.handle_answer(size, now);
                }
            }
            if !matches!(search.state, State::Settled { .. })
                && let Some(next) = search.poll_timeout()
            {
                now = next;
            }
        }
        (now, probes)
    }

    #[test]
    fn an_ethernet_is_found_at_once() {
        let (mut search, start) = direct();

        let (end, probes) = run(&mut search, 1500, start);

        assert_eq!(search.confirmed(), 1472);
        assert_eq!(end, start);
        assert!(probes <= 13);
    }

    #[test]
    fn every_path_is_found_closely_and_soon() {
        for mtu in 576..=1500 {
            let (mut search, start) = direct();

            let (end, probes) = run(&mut search, mtu, start);

            let found = search.confirmed() + HEADERS_V4;
            assert!(found <= mtu && found + CLOSE >= mtu, "{found} of {mtu}");
            assert!(end - start <= Duration::from_millis(2500), "{mtu}");
            assert!(probes <= 64, "{probes} for {mtu}");
        }
    }

    #[test]
    fn a_black_hole_is_left_for_the_floor_and_searched_anew() {
        let (mut search, start) = direct();
        let (now, _) = run(&mut search, 1500, start);

        search.black_hole(now);
        assert_eq!(search.confirmed(), 548);
        run(&mut search, 1280, now);

        assert!((1240..=1252).contains(&search.confirmed()));
    }

    #[test]
    fn a_path_that_grows_is_used_again() {
        let (mut search, start) = direct();
        let (settled, _) = run(&mut search, 1280, start);
        let raise = search.poll_timeout().unwrap();
        assert!(raise - settled <= RAISE);

        while let Some(size) = search.poll(PATIENCE, raise) {
            search.handle_answer(size, raise);
        }

        assert_eq!(search.confirmed(), 1472);
    }

    #[test]
    fn control_connections_are_not_searched() {
        let mut search = Search::new(Via::Control, 1450);

        search.begin(origin());

        assert_eq!(search.poll(PATIENCE, origin()), None);
        assert_eq!(search.confirmed(), CONTROL);
    }
}
