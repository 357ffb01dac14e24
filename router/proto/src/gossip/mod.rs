//! Keeps what every node says the same everywhere: signed registers, and what travels on a link to equalise them.
//!
//! ```text
//!   write ──▶ Registers ──delta──▶ Exchange of each link in the tree ──▶ Registers ──news──▶ on down the tree
//!                 ▲                                                          │
//!                 └──────── digest, summary, what is missing ◀───────────────┘    (link up, after news, every 30 s)
//! ```
//!
//! The tree ([`crate::routes`]) makes news fast, the digests make it certain: whatever the tree lost while views differed
//! is found by comparing.

pub mod channels;
pub mod exchange;
#[cfg(test)]
pub(crate) mod laws;
mod membership;
mod register;
pub mod registers;
pub mod sender;
#[cfg(test)]
mod tests;

use minicbor::decode;
use weft_types::{Delta, Replica};

/// A piece of gossiped state that can travel.
pub trait Piece: Delta {
    /// Takes a part off the front: at least one record, and no more of them than fit in `bytes`.
    #[must_use]
    fn split(&mut self, bytes: usize) -> Self;

    /// As it travels.
    fn encode(&self) -> Vec<u8>;

    /// Reads what [`Self::encode`] wrote, with nothing behind it.
    ///
    /// # Errors
    ///
    /// Whatever is no such thing.
    fn decode(bytes: &[u8]) -> Result<Self, decode::Error>;
}

/// State that two ends of a link can compare.
pub trait Gossiped: Replica<Delta: Piece> {
    /// Names the state: equal where the states are.
    fn digest(&self) -> [u8; 32];

    /// Says what is here, as it travels: enough for another to find what is missing.
    fn summary(&self) -> Vec<u8>;

    /// What the author of a summary lacks, as far as it is here.
    ///
    /// # Errors
    ///
    /// If that is no summary.
    fn missing(&self, summary: &[u8]) -> Result<Self::Delta, decode::Error>;
}
