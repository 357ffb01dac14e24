//! Names the ways a datagram may take to a peer.

use std::fmt;
use std::net::SocketAddr;

use weft_types::NodeId;

/// Seals what a member shall pass on, where frames are sealed.
pub const RELAY_FRAMES_LANE: u16 = 12;

/// Seals what a member shall pass on, where messages and probes are sealed and others' datagrams are passed on.
pub const RELAY_CONTROL_LANE: u16 = 13;

/// Seals probes of ways that carry no frames.
pub const TRIAL_LANE: u16 = 14;

/// Seals answers to probes: what a way answers with says nothing about the ways of this end.
pub const ANSWER_LANE: u16 = 15;

/// What a datagram weighs more when it travels as the payload of another: header, tag, kind and segment, hop limit and
/// final node of [`crate::sleeve::relayed`].
pub const RELAY_OVERHEAD: u16 = 56;

/// By what way a datagram of a session leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// Straight to an address of the peer.
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

/// Tells a way in use from those used before it: each has lanes of its own, so what was sent and what came are counted
/// way by way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(u8);

impl Slot {
    /// How many there are: so many switches later a slot is used again.
    pub const COUNT: u8 = 6;

    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self((self.0 + 1) % Self::COUNT)
    }

    /// Makes a slot of its number.
    pub const fn new(number: u8) -> Option<Self> {
        if number < Self::COUNT {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Its number, below [`Self::COUNT`].
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Seals frames.
    pub const fn frames_lane(self) -> u16 {
        self.0 as u16 * 2
    }

    /// Seals messages and probes.
    pub const fn control_lane(self) -> u16 {
        self.0 as u16 * 2 + 1
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
