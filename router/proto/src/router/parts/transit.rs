//! Passes on, over control connections, the datagrams that members have for others where no way by UDP leads on.
//!
//! What is carried is sealed between its two ends, as on every other way. Each neighbour has a budget of its own, so that
//! one that floods takes the connections of the others away from nobody, and the next connection owes so much at most.
//! **Invariant.** Nothing goes back to the neighbour that it came from.
//! **Failure policy.** What cannot go on at once is dropped and counted, as on any full link.

use std::collections::BTreeMap;
use std::time::Instant;

use weft_types::NodeId;

use crate::budget::Budget;
use crate::router::ground::Reach;
use crate::status::TransitStatus;
use crate::switch::DropReason;
use crate::unicast::Unicast;

/// How many datagrams of one neighbour are passed on in a second: a small part of what the one task can do that has the
/// whole mesh to look after.
const DATAGRAMS_PER_SECOND: u64 = 20_000;
/// How many bytes: 200 Mbit/s, for the same reason.
const BYTES_PER_SECOND: u64 = 25_000_000;
/// The share of a second's worth that may come at once.
const AT_ONCE: u64 = 10;
/// How many bytes of frames a control connection may owe: what comes on top is lost, as on any full link.
const MAX_OWED: usize = 256 << 10;

/// What was passed on, and for whom how much may be.
#[derive(Debug, Default)]
pub(crate) struct Transit {
    allowances: BTreeMap<NodeId, Allowance>,
    counted: TransitStatus,
}

/// What is passed on for one neighbour.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    datagrams: Budget,
    bytes: Budget,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        let budget = |rate: u64| Budget::new(rate, rate / AT_ONCE, now);
        Self {
            datagrams: budget(DATAGRAMS_PER_SECOND),
            bytes: budget(BYTES_PER_SECOND),
        }
    }

    fn spend(&mut self, bytes: usize, now: Instant) -> bool {
        self.datagrams.spend(1, now) && self.bytes.spend(bytes as u64, now)
    }
}

impl Transit {
    pub(crate) const fn counted(&self) -> &TransitStatus {
        &self.counted
    }

    /// Forgets what a node that is no member any more may have.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.allowances.remove(&node);
    }

    fn may_pass(&mut self, from: NodeId, bytes: usize, now: Instant) -> bool {
        let allowance = self.allowances.entry(from);
        let allowance = allowance.or_insert_with(|| Allowance::new(now));
        allowance.spend(bytes, now)
    }

    /// A datagram goes no further.
    pub(crate) fn discard(&mut self, reason: DropReason) {
        *self.counted.drops.entry(reason).or_default() += 1;
    }

    fn count(&mut self, from: NodeId, to: NodeId, bytes: usize) {
        let (datagrams, total) = self.counted.carried.entry((from, to)).or_default();
        *datagrams += 1;
        *total += bytes as u64;
    }
}

impl Transit {
    /// Sends a datagram of ours on, unless the next connection owes too much already.
    pub(crate) fn send(&mut self, unicast: Unicast, reach: &mut Reach<'_>) {
        match room_towards(unicast.to, None, reach) {
            Err(reason) => self.discard(reason),
            Ok(()) if !reach.route(unicast, None) => self.discard(DropReason::NoAddress),
            Ok(()) => {}
        }
    }

    /// Passes on a datagram that `via` has for another.
    pub(crate) fn pass_on(
        &mut self,
        unicast: Unicast,
        via: NodeId,
        reach: &mut Reach<'_>,
        now: Instant,
    ) {
        let (to, bytes) = (unicast.to, unicast.body.len());
        if !self.may_pass(via, bytes, now) {
            return self.discard(DropReason::RelayLimit);
        }
        if let Err(reason) = room_towards(to, Some(via), reach) {
            return self.discard(reason);
        }
        if reach.route(unicast, Some(via)) {
            self.count(via, to, bytes);
        }
    }
}

/// Whether the connection by which a datagram would go on has room, and why not.
fn room_towards(to: NodeId, from: Option<NodeId>, reach: &Reach<'_>) -> Result<(), DropReason> {
    let hop = reach.hop_towards(to, from);
    let conn = hop.and_then(|conn| reach.ground.conns.get(&conn));
    match conn.ok_or(DropReason::NoRelay)?.unsent {
        0..=MAX_OWED => Ok(()),
        _ => Err(DropReason::ControlFull),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::router::testing::origin;

    #[test]
    fn a_neighbour_that_floods_takes_nothing_from_another() {
        let (greedy, modest) = (NodeId::new([1; 32]), NodeId::new([2; 32]));
        let (mut transit, start) = (Transit::default(), origin());
        let mut passed = (0_u64, 0_u64);

        for micros in (0..1_000_000).step_by(10) {
            let now = start + Duration::from_micros(micros);
            passed.0 += u64::from(transit.may_pass(greedy, 1400, now));
            if micros % 1000 == 0 {
                passed.1 += u64::from(transit.may_pass(modest, 1400, now));
            }
        }

        let bytes = passed.0 * 1400;
        assert!(
            bytes.abs_diff(BYTES_PER_SECOND * 11 / 10) <= 2 * 1400,
            "{bytes}"
        );
        assert_eq!(passed.1, 1000);
    }

    #[test]
    fn small_datagrams_are_bounded_by_their_number() {
        let (mut transit, start) = (Transit::default(), origin());
        let from = NodeId::new([1; 32]);

        let passed = (0..1_000_000)
            .step_by(10)
            .filter(|&micros| transit.may_pass(from, 80, start + Duration::from_micros(micros)))
            .count() as u64;

        assert!(
            passed.abs_diff(DATAGRAMS_PER_SECOND * 11 / 10) <= 2,
            "{passed}"
        );
    }
}
