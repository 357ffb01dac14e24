//! What stays as a router was told it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_types::Nickname;

use crate::identity::NodeKeys;

/// What stays as it was told.
pub(crate) struct Settings {
    pub(crate) keys: NodeKeys,
    /// What people call it; as a member with a number behind it where another member is called so.
    pub(crate) nickname: Nickname,
    pub(crate) port: u16,
    pub(crate) advertise: Vec<SocketAddr>,
    pub(crate) features: Vec<String>,
    pub(crate) release: String,
    /// What the wall clock showed, since 1970, and when.
    pub(crate) wall_clock: (Duration, Instant),
}
