//! Keeps the kernel's tables equal to what the mesh asks for.
//!
//! ```text
//!   Host::open ──▶ bridge and TAP stand ──▶ Host::follow: dump ─▶ plan ─▶ diff ─▶ apply ─┐
//!                                               ▲    snapshot, notice, failure, audit ◀──┘
//! ```
//!
//! The kernel is a cache: everything of ours in it can be computed from the snapshot, so a driver that lost track, or a
//! process that was killed, begins with a dump and ends in the right state.

pub mod attach;
pub mod check;
pub mod host;
pub mod names;
pub mod target;
pub mod underlay;

mod apply;
mod fault;
mod follow;
mod observe;
