//! Names the ways a datagram may take to a peer, and what a probe of one tells.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use weft_types::NodeId;

use crate::keys::SessionIndex;
use crate::lanes::Slot;

/// By what way a datagram of a session leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// Directly to an address of the peer.
    Direct(SocketAddr),
    /// As a payload for another member, which passes it on.
    Relay(NodeId),
    /// Over control connections, member by member.
    Control,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => write!(f, "control"),
            Self::Direct(to) => write!(f, "direct {to}"),
            Self::Relay(node) => write!(f, "relay {}", node.short()),
        }
    }
}

/// The way that a peer's frames take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Which.
    pub via: Via,
    /// By which lanes.
    pub slot: Slot,
    /// The largest sealed datagram (without IP and UDP headers, and without what a relay adds) known to pass whole.
    pub datagram: u16,
}

/// What came back on a probe of one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathAnswer {
    /// From whom.
    pub peer: NodeId,
    /// Which probe.
    pub id: u64,
    /// How long it took, measured where packets are handled.
    pub rtt: Duration,
    /// Where the peer saw the probe come from, if it came directly.
    pub seen_at: Option<SocketAddr>,
    /// Under which session; counts begin anew with each.
    pub session: SessionIndex,
    /// How many datagrams of frames had left by the probe's slot when the probe left, over all sessions.
    pub sent: u64,
    /// One more than the highest counter that the peer had opened on the slot's lane of frames; zero before the first.
    pub highest: u64,
    /// How many datagrams the peer had opened on it, and those for which this host's own socket was too full: no way has
    /// lost them.
    pub received: u64,
}
