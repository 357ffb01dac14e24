//! Keeps the kernel's tables equal to what the mesh asks for.
//!
//! ```text
//!   Host::open ──▶ bridge and TAP stand ──▶ follow: dump ─▶ plan ─▶ diff ─▶ apply ─┐
//!                                         ▲    snapshot, notice, failure, audit ◀──┘
//! ```
//!
//! The kernel is a cache: everything of ours in it can be computed from the snapshot, so a driver that lost track, or a
//! process that was killed, begins with a dump and ends in the right state.

pub mod attach;
pub mod check;
pub mod follow;
pub mod host;
pub mod names;
pub mod outward;
pub mod target;
pub mod underlay;

mod apply;
mod around;
mod bridge;
mod fault;
mod heard;
mod known;
mod notices;
mod observe;
