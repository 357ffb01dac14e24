//! Tells the hub what the packet workers learn.
//!
//! **Failure policy.** The queue is bounded; what finds it full is dropped and counted. Everything that matters is said
//! again: a session is wanted again by the next frame, an address is heard again within a second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use weft_router_proto::io::{Direction, Input, PathAnswer};
use weft_types::NodeId;

use super::counters::{Cells, add};

/// How many reports wait for the hub at most.
const QUEUE: usize = 1024;

/// How many may wait where more datagrams shall travel over control connections: each is a call's worth, so 2 MiB.
const BULK: usize = 32;

/// How often what goes on is said again.
pub(super) const SAY_AGAIN: Duration = Duration::from_secs(1);

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

/// The workers' end of the queue.
#[derive(Clone)]
pub(super) struct Reporter {
    queue: mpsc::Sender<Report>,
    cells: Arc<Cells>,
}

impl Reporter {
    pub(super) fn new(cells: Arc<Cells>) -> (Self, mpsc::Receiver<Report>) {
        let (queue, reports) = mpsc::channel(QUEUE);
        (Self { queue, cells }, reports)
    }

    /// False if it was lost.
    pub(super) fn send(&self, report: Report) -> bool {
        let sent = self.queue.try_send(report).is_ok();
        if !sent {
            add(&self.cells.reports_lost, 1);
        }
        sent
    }

    /// The same for what is large: false if the hub is behind.
    pub(super) fn send_bulk(&self, report: Report) -> bool {
        self.queue.capacity() > QUEUE - BULK && self.queue.try_send(report).is_ok()
    }

    /// The same for what anybody may have written: it gets half of the queue, so that it cannot crowd out the rest.
    pub(super) fn send_unproven(&self, report: impl FnOnce() -> Report) {
        if self.queue.capacity() > QUEUE / 2 {
            self.send(report());
        } else {
            add(&self.cells.reports_lost, 1);
        }
    }
}
