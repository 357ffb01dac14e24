//! The contract of what is gossiped: state that converges however its pieces arrive.
//!
//! **Laws**, for which every implementor has a property test (those of weft-router-proto share one). With `⊔` for
//! [`Replica::merge`]: order does not matter, `r ⊔ x ⊔ y = r ⊔ y ⊔ x`; nor does repetition, `r ⊔ x ⊔ x = r ⊔ x`; nor does
//! folding, `r ⊔ x ⊔ y = r ⊔ (x absorb y)`. What merge returns is exactly what was news: merging it again returns nothing,
//! and merging it elsewhere carries as far as the whole. A piece that builds on one still to come may wait, in no snapshot.

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
