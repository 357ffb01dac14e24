//! How a datagram came, and so by what way an answer goes.

use std::net::SocketAddr;

use weft_types::NodeId;

use crate::overlay::Via;

/// How a datagram came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Over control connections.
    Control,
    /// As the payload of a datagram of this member.
    Relayed(NodeId),
    /// From this address.
    Straight(SocketAddr),
}

impl Origin {
    /// The way back.
    pub(super) const fn back(self) -> Via {
        match self {
            Self::Control => Via::Control,
            Self::Relayed(member) => Via::Relay(member),
            Self::Straight(from) => Via::Direct(from),
        }
    }

    /// Where it came from, if it came straight.
    pub(super) const fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Control | Self::Relayed(_) => None,
            Self::Straight(from) => Some(from),
        }
    }
}
