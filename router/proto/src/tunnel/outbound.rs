//! Decides where the frames of the bridge go, and sends them: the half of a tunnel that reads the TAP.
//!
//! ```text
//!   read ─▶ frame ─▶ switch ─┬─ one peer  ─▶ sealed where it lies, leaves with its neighbours
//!    ▲        │              └─ everybody ─▶ copied, sealed for each
//!    └────────┘ until the TAP is dry: flush
//! ```

use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::Instant;

use weft_types::{NodeId, Segment};

use super::chatter::Chatter;
use super::counters::Cells;
use super::framing::Framing;
use super::ports::Turn;
use super::sender::Sender;
use super::sending::SessionChange;
use super::view::View;
use crate::budget::Budget;
use crate::sleeve::lane::Part;
use crate::sleeve::vnet::{self, Vnet};
use crate::sleeve::{MAX_SUPER_FRAME, SessionIndex};
use crate::switch::{Decision, DropReason};

/// How many frames a second are for everybody: address resolution and discovery of a full mesh, many times over.
const FLOODS_PER_SECOND: u64 = 20_000;

/// How many of them may come at once.
const FLOOD_BURST: u64 = 4_000;

/// The way from the bridge to the peers.
pub struct Outbound {
    cells: Arc<Cells>,
    sender: Sender,
    view: Arc<View>,
    vnet: [u8; vnet::LEN],
    floods: Budget,
    chatter: Chatter,
    /// The frame that goes to everybody.
    flood: Vec<u8>,
}

impl Outbound {
    pub(super) fn new(view: Arc<View>, cells: Arc<Cells>, now: Instant) -> Self {
        Self {
            sender: Sender::new(Part::Frames, &view, Arc::clone(&cells)),
            cells,
            view,
            vnet: [0; vnet::LEN],
            floods: Budget::new(FLOODS_PER_SECOND, FLOOD_BURST, now),
            chatter: Chatter::new(now),
            flood: Vec::with_capacity(MAX_SUPER_FRAME),
        }
    }

    /// Follows a snapshot.
    pub fn set_view(&mut self, view: Arc<View>, turn: &mut Turn<'_>) {
        self.sender.set_view(&view, turn);
        self.view = view;
    }

    /// Follows what happens to sessions.
    pub fn change(&mut self, change: SessionChange, turn: &mut Turn<'_>) {
        self.sender.change(change, turn);
    }

    /// Lets `read` put the next frame where it belongs, behind its virtio header. [`Self::frame`] comes next.
    pub fn read<T>(&mut self, read: impl FnOnce(&mut [IoSliceMut<'_>]) -> T) -> T {
        self.sender.read(&mut self.vnet, read)
    }

    /// Takes what was read: `read` bytes, virtio header included.
    pub fn frame(&mut self, read: usize, turn: &mut Turn<'_>) {
        let len = read.saturating_sub(vnet::LEN);
        if len > MAX_SUPER_FRAME {
            return self.cells.discard(DropReason::TooLong);
        }
        let Some(vnet) = Vnet::decode(&self.vnet) else {
            return self.cells.discard(DropReason::Malformed);
        };
        let framing = Framing {
            segment: Segment::DEFAULT,
            vnet,
        };
        let start = self.sender.start(len);
        match self.view.table.decide_captured(framing.segment, start) {
            Decision::Deliver(position) => self.sender.captured(position, len, framing, turn),
            Decision::Drop(reason) => self.cells.discard(reason),
            Decision::Flood => self.flood(len, framing, turn),
        }
    }

    /// Sends the frame that was read to every peer, sealed for each.
    fn flood(&mut self, len: usize, framing: Framing, turn: &mut Turn<'_>) {
        if !self.floods.spend(1, turn.now) {
            return self.cells.discard(DropReason::FloodLimit);
        }
        let mut frame = std::mem::take(&mut self.flood);
        self.sender.copy(len, &mut frame);
        self.sender.flush(turn);
        let load = self.chatter.judge(&frame, turn.now);
        for position in 0..self.view.snapshot.peers.len() {
            self.sender
                .copied(position, framing, &mut frame, load, turn);
        }
        self.flood = frame;
    }

    /// Lets what is sealed leave: there is no other frame.
    pub fn flush(&mut self, turn: &mut Turn<'_>) {
        self.sender.flush(turn);
    }

    /// Our index of the session that a peer is sent frames by.
    pub fn session(&self, peer: NodeId) -> Option<SessionIndex> {
        self.sender.session_with(peer)
    }

    /// How many datagrams it has sealed, for the caller to judge how busy it is.
    pub const fn sealed(&self) -> usize {
        self.sender.count()
    }

    /// When to call [`Self::handle_timeout`]: frames wait for a session.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sender.poll_timeout()
    }

    /// Drops what waits too long, and asks again for the rest.
    pub fn handle_timeout(&mut self, turn: &mut Turn<'_>) {
        self.sender.handle_timeout(turn);
    }
}
