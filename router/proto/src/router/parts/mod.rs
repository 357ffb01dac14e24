//! What a member does, part by part. Each has its state to itself and stands on the ground alone: what one part is to do
//! because of another, the member tells it (`member`).
//!
//! **Invariant.** No part names another.

pub(crate) mod addresses;
pub(crate) mod admission;
pub(crate) mod endpoints;
pub(crate) mod pings;
pub(crate) mod presence;
pub(crate) mod roster;
pub(crate) mod sessions;
pub(crate) mod tokens;
pub(crate) mod traces;
pub(crate) mod transit;
pub(crate) mod ways;
