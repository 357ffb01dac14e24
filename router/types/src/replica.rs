//! The contract of what is gossiped: state that converges however its pieces arrive.
//!
//! **Laws**, checked for every implementor by one generic property test. With `⊔` for [`Replica::merge`]:
//! *commutative* `a ⊔ b = b ⊔ a`, *associative* `(a ⊔ b) ⊔ c = a ⊔ (b ⊔ c)`, *idempotent* `a ⊔ a = a`; what merge
//! returns is exactly what was news, so merging it again returns nothing; and for deltas
//! `r ⊔ x ⊔ y = r ⊔ (x absorb y)`.

use std::time::Instant;

/// State that is merged, never commanded.
pub trait Replica {
    /// A piece of the state.
    type Delta: Delta;

    /// Takes what is new in `delta` and returns just that, for passing on; `None` when nothing was.
    fn merge(&mut self, delta: Self::Delta, now: Instant) -> Option<Self::Delta>;

    /// Everything, as one piece.
    fn snapshot(&self) -> Self::Delta;
}

/// A piece of a [`Replica`]'s state, as it waits for a slow link.
pub trait Delta: Sized {
    /// Folds a later piece into this one, so that what a link is owed is bounded by state and not by rate.
    fn absorb(&mut self, later: Self);

    /// Whether it says nothing.
    fn is_empty(&self) -> bool;
}
