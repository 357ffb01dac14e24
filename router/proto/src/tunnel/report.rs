//! What the hub has to know of the packets that come and go.

use std::net::SocketAddr;
use std::time::Duration;

use weft_types::NodeId;

use crate::io::{Direction, Input, PathAnswer};

/// Something that the hub has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Sealed datagrams shall travel over control connections.
    ByControl {
        /// For whom.
        peer: NodeId,
        /// In order, each whole.
        datagrams: Vec<Vec<u8>>,
    },
    /// Frames travel that are small, few, and for everybody.
    Chatter {
        /// To or from whom.
        peer: NodeId,
    },
    /// An authentic datagram came straight: the first of a session, the first from another address, or one in a second.
    Heard {
        /// Whose session.
        peer: NodeId,
        /// Where it came from.
        from: SocketAddr,
    },
    /// A datagram for an admitted link, sealed as it came.
    LinkDatagram {
        /// Where it came from.
        from: SocketAddr,
        /// As it came.
        bytes: Vec<u8>,
    },
    /// A probe of one way came back.
    PathAnswered(PathAnswer),
    /// A probe came back.
    ProbeAnswered {
        /// From whom.
        peer: NodeId,
        /// Which.
        id: u64,
        /// From sending to receiving, where packets are handled.
        rtt: Duration,
    },
    /// A message came out of a session.
    SessionMessage {
        /// Whose session.
        peer: NodeId,
        /// Opened.
        bytes: Vec<u8>,
    },
    /// A frame or probe waits for a session. Said again while that lasts.
    SessionWanted {
        /// With whom.
        peer: NodeId,
    },
    /// A datagram was too large, as this host or a router on the way says.
    TooBig {
        /// Where it was sent to.
        to: SocketAddr,
        /// The largest UDP payload that is said to pass.
        datagram: u16,
    },
    /// Frames travel.
    Traffic {
        /// To or from whom.
        peer: NodeId,
        /// Which way.
        direction: Direction,
    },
}

impl From<Report> for Input {
    fn from(report: Report) -> Self {
        match report {
            Report::ByControl { peer, datagrams } => Self::ByControl { peer, datagrams },
            Report::Chatter { peer } => Self::Chatter { peer },
            Report::Heard { peer, from } => Self::Heard { peer, from },
            Report::LinkDatagram { from, bytes } => Self::LinkDatagram { from, bytes },
            Report::PathAnswered(answer) => Self::PathAnswered(answer),
            Report::ProbeAnswered { peer, id, rtt } => Self::ProbeAnswered { peer, id, rtt },
            Report::SessionMessage { peer, bytes } => Self::SessionMessage { peer, bytes },
            Report::SessionWanted { peer } => Self::SessionWanted { peer },
            Report::TooBig { to, datagram } => Self::TooBig { to, datagram },
            Report::Traffic { peer, direction } => Self::Traffic { peer, direction },
        }
    }
}
