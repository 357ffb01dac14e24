//! The userspace transport's bytes: datagram header, lanes, replay windows, trains.

/// The receiver's handle for a session: random, meaningless to others, unique among the receiver's live sessions and links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionIndex(pub u32);
