//! What a tunnel does to the world, and what the world answers: the one thing that a driver and a simulator differ in.
//!
//! Outputs are handed over by call and not polled: they lie where they were sealed or opened, and a queue would copy
//! every frame. Nothing that is done here comes back into the tunnel within the same call.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_types::NodeId;

use super::report::Report;
use crate::sleeve::SessionIndex;
use crate::switch::DropReason;

/// Why datagrams did not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The socket is full.
    Full,
    /// There is no socket of that family.
    NoSocket,
    /// Not by one call; one by one they may.
    NotTogether,
    /// The system does not want to: no route, or a firewall of this host.
    Refused,
    /// Larger than this host's device takes.
    TooLong,
}

impl Refusal {
    /// What it is counted as.
    pub const fn reason(self) -> DropReason {
        match self {
            Self::Full => DropReason::SocketFull,
            Self::NoSocket => DropReason::NoAddress,
            Self::NotTogether | Self::Refused => DropReason::SendRefused,
            Self::TooLong => DropReason::TooLong,
        }
    }
}

/// The bridge's device did not take a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapRefused;

/// The world.
pub trait Ports {
    /// Sends datagrams by one call: all as long as the first, but the last, which may be shorter.
    fn send(&mut self, to: SocketAddr, datagrams: &[IoSlice<'_>]) -> Result<(), Refusal>;

    /// Gives the bridge a frame that came from a peer, behind its virtio header.
    fn deliver(&mut self, from: NodeId, frame: &[IoSlice<'_>]) -> Result<(), TapRefused>;

    /// Tells the hub; false if it was lost.
    fn report(&mut self, report: Report) -> bool;

    /// Hands the hub a datagram for an admitted link. Anybody may have written it.
    fn link(&mut self, from: SocketAddr, datagram: &[u8]);

    /// Tells whoever has the sending half that a peer was heard under a session that it holds.
    fn promote(&mut self, peer: NodeId, index: SessionIndex);

    /// How long ago that was. Asked when an answer came: it may be younger than [`Turn::now`], which is from before the
    /// wait for datagrams.
    fn since(&self, sent: Instant) -> Duration;
}

/// What every verb of a tunnel takes along.
pub struct Turn<'a> {
    /// The world.
    pub ports: &'a mut dyn Ports,
    /// When the turn began.
    pub now: Instant,
}
