//! Passes on what one member has for another: opened and sealed again where it was received, never read.
//!
//! ```text
//!   received:  │ head, final node │ datagram │ tag │ head, final node │ datagram │ tag │ …
//!   passed on: │ sealed for the next hop           │ sealed for the next hop           │ …     one sendmsg
//! ```
//!
//! Only what came straight, under the live session of a member that is present, comes here. The next hop is the final
//! node, or the member by which this node's own frames for the final node leave.
//! **Invariant.** Nothing goes back to the member that it came from. No key of what is carried is held here: it belongs
//! to a session of two others, whose keys were never given to this node.
//! **Failure policy.** What cannot be passed on at once is dropped and counted.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use weft_types::NodeId;

use super::batch::{MAX_PAYLOAD, MAX_SEGMENTS};
use super::counters::{Cells, RelayCell, add};
use super::ports::Turn;
use super::sender::{Drops, Hop, Sender};
use super::view::View;
use crate::budget::Budget;
use crate::overlay::Via;
use crate::sleeve::relayed::{Addressee, Relayed};
use crate::switch::DropReason;

/// How many datagrams of one member are passed on in a second: about what one processor opens and seals, so a busy
/// member gets all there is while nobody else wants it, and a mad one cannot have more than that.
const DATAGRAMS_PER_SECOND: u64 = 500_000;

/// How many bytes: 5 Gbit/s, for the same reason.
const BYTES_PER_SECOND: u64 = 625_000_000;

/// The share of a second's worth that may come at once.
const AT_ONCE: u64 = 10;

/// What is to be passed on.
pub(super) struct Carried {
    /// Whom it came from.
    pub(super) from: NodeId,
    /// What it says.
    pub(super) relayed: Relayed,
    /// Where it lies, from its header to its tag.
    pub(super) place: Range<usize>,
}

/// Passes datagrams on, neighbours together.
pub(super) struct Relay {
    cells: Arc<Cells>,
    allowances: Vec<Allowance>,
    counted: BTreeMap<(NodeId, NodeId), Arc<RelayCell>>,
    run: Option<Run>,
}

/// What is passed on for one member.
struct Allowance {
    from: NodeId,
    datagrams: Budget,
    bytes: Budget,
}

impl Allowance {
    fn new(from: NodeId, now: Instant) -> Self {
        let budget = |rate: u64| Budget::new(rate, rate / AT_ONCE, now);
        Self {
            from,
            datagrams: budget(DATAGRAMS_PER_SECOND),
            bytes: budget(BYTES_PER_SECOND),
        }
    }

    fn spend(&mut self, bytes: usize, now: Instant) -> bool {
        self.datagrams.spend(1, now) && self.bytes.spend(bytes as u64, now)
    }
}

/// Where datagrams go.
#[derive(Clone, Copy)]
struct Onward {
    from: NodeId,
    last: NodeId,
    hop: Hop,
    allowance: usize,
}

/// Datagrams that lie side by side and leave together, all of one size but the last.
struct Run {
    onward: Onward,
    size: usize,
    place: Range<usize>,
}

impl Run {
    fn takes(&self, onward: Onward, place: &Range<usize>) -> bool {
        onward.hop == self.onward.hop
            && (onward.from, onward.last) == (self.onward.from, self.onward.last)
            && leave_together(&self.place, self.size, place)
    }
}

/// Whether one call sends what lies in `first`, `size` bytes each, and what lies in `next`. What was received by one call
/// may be more than one sends: over IPv6 a call receives 20 bytes more than IPv4's headers leave.
const fn leave_together(first: &Range<usize>, size: usize, next: &Range<usize>) -> bool {
    let length = first.end - first.start;
    next.start == first.end
        && next.end - next.start <= size
        && length.is_multiple_of(size)
        && length / size < MAX_SEGMENTS
        && next.end - first.start <= MAX_PAYLOAD
}

impl Relay {
    pub(super) fn new(cells: Arc<Cells>) -> Self {
        Self {
            cells,
            allowances: Vec::new(),
            counted: BTreeMap::new(),
            run: None,
        }
    }

    /// Seals what lies in `buffer` for its next hop. It leaves with its neighbours, at [`Self::finish`] at the latest.
    pub(super) fn pass_on(
        &mut self,
        Carried {
            from,
            relayed,
            place,
        }: Carried,
        buffer: &mut [u8],
        (control, view): (&mut Sender, &View),
        turn: &mut Turn<'_>,
    ) -> Result<(), DropReason> {
        let hops = relayed.hops.checked_sub(1).ok_or(DropReason::RelayHops)?;
        let known = self.run.as_ref().map(|run| run.onward);
        let onward = match known {
            Some(onward) if onward.from == from && relayed.last.is(onward.last) => onward,
            Some(_) | None => self.onward(from, relayed.last, (control, view), turn)?,
        };
        if !self.allowances[onward.allowance].spend(place.len(), turn.now) {
            return Err(DropReason::RelayLimit);
        }
        control.wrap(
            onward.hop,
            Relayed { hops, ..relayed },
            &mut buffer[place.clone()],
        )?;
        match &mut self.run {
            Some(run) if run.takes(onward, &place) => run.place.end = place.end,
            Some(_) | None => {
                self.finish(buffer, control, turn);
                self.run = Some(Run {
                    onward,
                    size: place.len(),
                    place,
                });
            }
        }
        Ok(())
    }

    /// Lets what lies sealed in `buffer` leave.
    pub(super) fn finish(&mut self, buffer: &[u8], control: &mut Sender, turn: &mut Turn<'_>) {
        let Some(Run {
            onward,
            size,
            place,
        }) = self.run.take()
        else {
            return;
        };
        let bytes = &buffer[place];
        let left = control
            .launch((onward.hop, Drops::Counted), bytes, size, turn)
            .left;
        let (from, to) = (onward.from, onward.last);
        let counted = self.counted.entry((from, to));
        let cell = counted.or_insert_with(|| self.cells.relay(from, to));
        add(&cell.datagrams, left);
        add(&cell.bytes, bytes.len().min(left * size));
    }

    fn onward(
        &mut self,
        from: NodeId,
        last: Addressee,
        (control, view): (&mut Sender, &View),
        turn: &mut Turn<'_>,
    ) -> Result<Onward, DropReason> {
        let peers = &view.snapshot.peers;
        let at = peers.partition_point(|peer| Addressee::from(peer.node) < last);
        let found = peers.get(at).filter(|peer| last.is(peer.node));
        let peer = found.ok_or(DropReason::RelayUnknown)?;
        let next = match peer.path.map(|path| path.via) {
            Some(Via::Direct(_)) => peer.node,
            Some(Via::Relay(next)) => next,
            Some(Via::Control) | None => return Err(DropReason::NoRelay),
        };
        if peer.node == from || next == from {
            return Err(DropReason::RelayReturn);
        }
        Ok(Onward {
            from,
            last: peer.node,
            hop: control.hop(next, turn)?,
            allowance: self.allowance(from, turn.now),
        })
    }

    fn allowance(&mut self, from: NodeId, now: Instant) -> usize {
        let found = self.allowances.iter().position(|one| one.from == from);
        found.unwrap_or_else(|| {
            self.allowances.push(Allowance::new(from, now));
            self.allowances.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tunnel::testing::origin;

    /// How many datagrams of one size pass within a second where there is no end of them.
    fn passed(size: usize) -> u64 {
        let start = origin();
        let mut allowance = Allowance::new(NodeId::new([1; 32]), start);
        let mut passed = 0;
        for micros in 0..1_000_000 {
            let now = start + Duration::from_micros(micros);
            while allowance.spend(size, now) {
                passed += 1;
            }
        }
        passed
    }

    #[test]
    fn no_more_leave_together_than_one_call_sends() {
        let many = |size: usize, count: usize| (0..size * count, size * count..size * (count + 1));
        let together = |size, count| {
            let (first, next) = many(size, count);
            leave_together(&first, size, &next)
        };

        assert!(together(1000, 63) && !together(1000, 64));
        assert!(together(1489, 42) && !together(1489, 43));
        assert!(!leave_together(&(0..2000), 1000, &(2001..3001)), "a gap");
        assert!(!leave_together(&(0..2000), 1000, &(2000..3001)), "longer");
        assert!(!leave_together(&(0..1500), 1000, &(1500..2500)), "the last");
    }

    #[test]
    fn a_member_is_held_to_so_many_datagrams_and_to_so_many_bytes() {
        let burst = |rate: u64| rate + rate / AT_ONCE;

        assert!(passed(80).abs_diff(burst(DATAGRAMS_PER_SECOND)) <= 2);
        let bytes = passed(8972) * 8972;
        assert!(
            bytes.abs_diff(burst(BYTES_PER_SECOND)) <= 2 * 8972,
            "{bytes}"
        );
    }
}
