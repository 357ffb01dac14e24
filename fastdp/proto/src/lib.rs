//! Turns a forwarding snapshot into kernel tables, and the difference of two into a patch. No I/O.
//!
//! ```text
//!   Snapshot ──desired──▶ Tables (wanted) ──┐
//!                                           ├─diff──▶ Patch ──▶ driver
//!   kernel dump ──ours──▶ Tables (had) ─────┘
//! ```

pub mod diff;
pub mod plan;
pub mod tables;

#[cfg(test)]
mod laws;
