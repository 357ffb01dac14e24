//! Reads frames from the TAP, decides where they go, and hands them to the sender.
//!
//! Belongs to the main thread, and to the helper while a sender is in bulk: whoever holds it reads the TAP.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_router_proto::budget::Budget;
use weft_router_proto::sleeve::MAX_SUPER_FRAME;
use weft_router_proto::sleeve::lane::Part;
use weft_router_proto::sleeve::slots::BATCH;
use weft_router_proto::sleeve::vnet::{self, Vnet};
use weft_router_proto::switch::{Decision, DropReason};
use weft_types::Segment;

use super::chatter::Chatter;
use super::sender::{Sender, SessionChange};
use super::shared::{Mailbox, Shared, View};

/// How many frames a second are for everybody: address resolution and discovery of a full mesh, many times over.
const FLOODS_PER_SECOND: u64 = 20_000;

/// How many of them may come at once.
const FLOOD_BURST: u64 = 4_000;

/// How long a TAP that fails is left alone: it fails again at once.
const TAP_REST: Duration = Duration::from_secs(1);

/// What reading the TAP came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There was no frame; what was sealed has left.
    Dry,
    /// There was a frame.
    Frame,
}

/// The way from the TAP to the peers.
pub(super) struct Outbound {
    shared: Arc<Shared>,
    changes: Arc<Mailbox<SessionChange>>,
    pub(super) sender: Sender,
    view: Arc<View>,
    seen: u64,
    /// Where the next frame is read to.
    first: usize,
    vnet: [u8; vnet::LEN],
    floods: Budget,
    chatter: Chatter,
    /// The frame that goes to everybody.
    flood: Vec<u8>,
    resting: Option<Instant>,
}

impl Outbound {
    pub(super) fn new(
        shared: Arc<Shared>,
        changes: Arc<Mailbox<SessionChange>>,
        view: Arc<View>,
        now: Instant,
    ) -> Self {
        let mut sender = Sender::new(Arc::clone(&shared), Part::Frames, now);
        sender.set_view(&view);
        Self {
            shared,
            changes,
            sender,
            view,
            seen: 0,
            first: 0,
            vnet: [0; vnet::LEN],
            floods: Budget::new(FLOODS_PER_SECOND, FLOOD_BURST, now),
            chatter: Chatter::new(now),
            flood: Vec::with_capacity(MAX_SUPER_FRAME),
            resting: None,
        }
    }

    /// Follows commands and snapshots.
    pub(super) fn catch_up(&mut self, now: Instant) {
        if let Some(view) = self.shared.news(&mut self.seen) {
            self.sender.set_view(&view);
            self.view = view;
            self.first = 0;
        }
        for change in self.changes.collect() {
            self.sender.change(change, now);
            self.first = 0;
        }
    }

    /// Whether the TAP is left alone for a while because it fails.
    pub(super) fn is_resting(&self) -> bool {
        self.resting.is_some()
    }

    /// Drops what waits too long, and tries a TAP that failed again.
    pub(super) fn housekeep(&mut self, now: Instant) {
        self.resting.take_if(|until| now >= *until);
        self.sender.housekeep(now);
        self.first = 0;
    }

    /// Takes one frame off the TAP.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        if self.resting.is_some() {
            return Step::Dry;
        }
        let tap = &self.shared.tap;
        let read = self
            .sender
            .slots
            .read(self.first, &mut self.vnet, |room| tap.read_vectored(room));
        let len = match read {
            Ok(read) => read.saturating_sub(vnet::LEN),
            Err(error) => {
                self.dry(&error, now);
                return Step::Dry;
            }
        };
        self.frame(len, now);
        if self.sender.held() == 0 {
            self.first = 0;
        }
        Step::Frame
    }

    fn dry(&mut self, error: &io::Error, now: Instant) {
        self.sender.flush();
        self.first = 0;
        if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
            self.resting = Some(now + TAP_REST);
        }
    }

    /// Decides on the frame of `len` bytes in slot `first`.
    fn frame(&mut self, len: usize, now: Instant) {
        let cells = &self.shared.cells;
        if len > MAX_SUPER_FRAME {
            return cells.discard(DropReason::TooLong);
        }
        let Some(vnet) = Vnet::decode(&self.vnet) else {
            return cells.discard(DropReason::Malformed);
        };
        let start = self.sender.slots.start(self.first, len);
        match self.view.table.decide_captured(Segment::DEFAULT, start) {
            Decision::Deliver(position) => {
                let kept =
                    self.sender
                        .captured(position, self.first, len, Segment::DEFAULT, vnet, now);
                if kept {
                    self.first += 1;
                }
                if self.first == BATCH {
                    self.sender.flush();
                }
            }
            Decision::Drop(reason) => cells.discard(reason),
            Decision::Flood => self.flood(len, vnet, now),
        }
    }

    /// Sends the frame in slot `first` to every peer, sealed for each.
    fn flood(&mut self, len: usize, vnet: Vnet, now: Instant) {
        if !self.floods.spend(1, now) {
            return self.shared.cells.discard(DropReason::FloodLimit);
        }
        let mut frame = std::mem::take(&mut self.flood);
        frame.clear();
        frame.extend_from_slice(self.sender.slots.gather(self.first, len));
        self.sender.flush();
        let load = self.chatter.judge(&frame, now);
        for position in 0..self.view.snapshot.peers.len() {
            self.sender
                .copied(position, Segment::DEFAULT, vnet, &mut frame, load, now);
        }
        self.flood = frame;
    }
}
