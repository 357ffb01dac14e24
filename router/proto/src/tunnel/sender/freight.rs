//! What a sender is given to send, and by whom.

use std::net::SocketAddr;

use weft_types::NodeId;

use super::super::framing::Framing;
use super::super::route::RouteId;
use crate::overlay::Via;
use crate::sleeve::payload::Kind;

/// Where a frame lies that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Place {
    /// In one piece, beside the slots.
    Loaded,
    /// Where it was read: from this slot on.
    Slot(usize),
}

/// A frame that is to be sent.
#[derive(Clone, Copy)]
pub(in super::super) struct Frame {
    pub(in super::super) place: Place,
    pub(in super::super) len: usize,
    pub(in super::super) framing: Framing,
}

impl Frame {
    /// The slot that its datagrams begin in.
    pub(super) const fn first(self) -> usize {
        match self.place {
            Place::Loaded => 0,
            Place::Slot(slot) => slot,
        }
    }
}

/// What is sent by itself, never split.
pub(in super::super) struct Lone {
    pub(in super::super) peer: NodeId,
    pub(in super::super) via: Via,
    pub(in super::super) lane: u16,
    pub(in super::super) kind: Kind,
    /// How long the body is.
    pub(in super::super) len: usize,
}

/// A member that datagrams are handed to, straight, by a session with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Hop {
    pub(super) id: RouteId,
    pub(super) to: SocketAddr,
}
