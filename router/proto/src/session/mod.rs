//! End-to-end sessions between two nodes: made over the control plane, rekeyed inside themselves.
//!
//! [`Sessions`] holds every peer's state machine; [`handshake`] is the two messages that make keys, [`message`] their
//! envelope. What the packet workers do with the keys is not here: sessions say *install*, *retire*, and hear whether
//! they are used.
//!
//! The format is docs/wire.md §Sessions.

mod around;
pub mod handshake;
mod index;
mod manager;
pub mod message;
mod peer;

pub use around::{Counters, Directory, Output, PeerFacts, Surroundings, Via};
pub use index::IndexAllocator;
pub use manager::Sessions;

pub use crate::keys::{Cipher, SessionKeys};
