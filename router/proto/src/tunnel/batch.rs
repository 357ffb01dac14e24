//! Gathers sealed frames that leave by one call: all for one peer, all of one size but the last.
//!
//! ```text
//!   slots   │ sealed │ sealed │ sealed │ the next frame is read here │ …
//!             ◀──── one peer's ─────▶   ▲ Batch::next_slot
//! ```
//!
//! **Invariant.** The next frame is read behind everything that is held, and to the first slot where nothing is: leaving
//! is what frees slots, and nothing else does.

use super::route::RouteId;
use crate::sleeve::slots::{BATCH, Sealed};

/// The most datagrams in one call: the limit of every kernel that has the feature (`UDP_MAX_SEGMENTS`).
pub const MAX_SEGMENTS: usize = 64;

/// The most bytes in one call: an IPv4 packet less its headers, RFC 768 and RFC 791 §3.1.
pub const MAX_PAYLOAD: usize = 65_507;

/// Sealed frames that have not left yet.
#[derive(Default)]
pub(super) struct Batch {
    route: RouteId,
    /// Keeps its memory; at most [`MAX_SEGMENTS`].
    sealed: Vec<Sealed>,
    bytes: usize,
    /// A shorter one ends it.
    closed: bool,
    next_slot: usize,
}

impl Batch {
    /// Where the next frame is read to.
    pub(super) const fn next_slot(&self) -> usize {
        self.next_slot
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.sealed.is_empty()
    }

    /// Whether there is no slot left to read to.
    pub(super) const fn is_full(&self) -> bool {
        self.next_slot == BATCH
    }

    /// Whether a datagram may leave by the same call as those that are held.
    pub(super) fn takes(&self, route: RouteId, sealed: Sealed) -> bool {
        let equal = self.sealed.first().map_or(0, |first| first.len());
        self.route == route
            && !self.closed
            && self.sealed.len() < MAX_SEGMENTS
            && sealed.len() <= equal
            && self.bytes + sealed.len() <= MAX_PAYLOAD
    }

    /// Holds a datagram that was sealed in `slot`; what it does not leave with has left.
    pub(super) fn push(&mut self, route: RouteId, slot: usize, sealed: Sealed) {
        self.route = route;
        let first = self.sealed.first();
        self.closed = first.is_some_and(|first| sealed.len() < first.len());
        self.bytes += sealed.len();
        self.sealed.push(sealed);
        self.next_slot = slot + 1;
    }

    /// Empties it: whose the datagrams are, and they. [`Self::recycle`] takes the memory back.
    pub(super) fn take(&mut self) -> (RouteId, Vec<Sealed>) {
        let Self { route, sealed, .. } = std::mem::take(self);
        (route, sealed)
    }

    pub(super) fn recycle(&mut self, mut sealed: Vec<Sealed>) {
        sealed.clear();
        self.sealed = sealed;
    }
}

/// How many of `count` datagrams leave by one call: as few calls as possible, equally filled.
pub(super) fn group_size(count: usize, size: usize) -> usize {
    let most = (MAX_PAYLOAD / size.max(1)).clamp(1, MAX_SEGMENTS);
    count.div_ceil(count.div_ceil(most).max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sleeve::slots::Sealed;

    const ONE: RouteId = RouteId(1);

    fn sealed(len: usize) -> Sealed {
        Sealed::of_len(len)
    }

    fn batch(lens: &[usize]) -> Batch {
        let mut batch = Batch::default();
        for (slot, &len) in lens.iter().enumerate() {
            batch.push(ONE, slot, sealed(len));
        }
        batch
    }

    #[test]
    fn only_equals_and_one_shorter_leave_together() {
        assert!(batch(&[100, 100]).takes(ONE, sealed(100)));
        assert!(batch(&[100, 100]).takes(ONE, sealed(99)));
        assert!(!batch(&[100, 100]).takes(ONE, sealed(101)));
        assert!(!batch(&[100, 99]).takes(ONE, sealed(99)));
        assert!(!batch(&[100]).takes(RouteId(2), sealed(100)));
        assert!(!batch(&[]).takes(RouteId::default(), sealed(100)));
    }

    #[test]
    fn a_call_has_its_limits() {
        assert!(batch(&[100; MAX_SEGMENTS - 1]).takes(ONE, sealed(100)));
        assert!(!batch(&[100; MAX_SEGMENTS]).takes(ONE, sealed(100)));
        assert!(batch(&[9000; 6]).takes(ONE, sealed(9000)));
        assert!(!batch(&[9000; 7]).takes(ONE, sealed(9000)));
    }

    #[test]
    fn the_next_frame_lies_behind_what_is_held_and_first_where_nothing_is() {
        let mut batch = batch(&[100, 100]);
        assert_eq!(batch.next_slot(), 2);

        // Another peer's, in the slot where it was read: what was before it has left.
        let (_, left) = batch.take();
        batch.recycle(left);
        batch.push(RouteId(2), 2, sealed(50));
        assert_eq!((batch.next_slot(), batch.is_empty()), (3, false));

        let (route, left) = batch.take();
        assert_eq!((route, left.len(), batch.next_slot()), (RouteId(2), 1, 0));
        batch.recycle(left);
        assert!(batch.is_empty() && !batch.is_full());
    }

    #[test]
    fn many_leave_by_as_few_calls_as_possible_equally_filled() {
        assert_eq!(group_size(46, 1450), 23);
        assert_eq!(group_size(45, 1450), 45);
        assert_eq!(group_size(65, 100), 33);
        assert_eq!(group_size(3, 70_000), 1);
        assert_eq!(group_size(0, 0), 1);
    }
}
