//! Reads frames from the TAP and gives them to the tunnel's half that sends them.
//!
//! Belongs to the main thread, and to the helper while a sender is in bulk: whoever holds it reads the TAP.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_router_proto::tunnel::{Outbound, SessionChange, Turn};

use super::outside::Outside;
use super::shared::{Mailbox, Shared};

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
pub(super) struct Reading {
    shared: Arc<Shared>,
    changes: Arc<Mailbox<SessionChange>>,
    tunnel: Outbound,
    seen: u64,
    resting: Option<Instant>,
}

impl Reading {
    pub(super) const fn new(
        shared: Arc<Shared>,
        changes: Arc<Mailbox<SessionChange>>,
        tunnel: Outbound,
    ) -> Self {
        Self {
            shared,
            changes,
            tunnel,
            seen: 0,
            resting: None,
        }
    }

    /// Lets the tunnel do something to the world.
    fn drive<T>(&mut self, now: Instant, act: impl FnOnce(&mut Outbound, &mut Turn<'_>) -> T) -> T {
        let mut outside = Outside::new(&self.shared, &self.changes);
        let ports = &mut outside;
        act(&mut self.tunnel, &mut Turn { ports, now })
    }

    /// Follows commands and snapshots.
    pub(super) fn catch_up(&mut self, now: Instant) {
        if let Some(view) = self.shared.news(&mut self.seen) {
            self.drive(now, |tunnel, turn| tunnel.set_view(view, turn));
        }
        for change in self.changes.collect() {
            self.drive(now, |tunnel, turn| tunnel.change(change, turn));
        }
    }

    /// Until when the TAP is left alone because it fails.
    pub(super) const fn resting(&self) -> Option<Instant> {
        self.resting
    }

    /// How many datagrams it has sealed.
    pub(super) const fn sealed(&self) -> usize {
        self.tunnel.sealed()
    }

    /// When to call [`Self::handle_timeout`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.tunnel.poll_timeout();
        waiting.into_iter().chain(self.resting).min()
    }

    /// Looks after what waits, and tries a TAP that failed again.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.resting.take_if(|until| now >= *until);
        self.drive(now, Outbound::handle_timeout);
    }

    /// Lets what is sealed leave.
    pub(super) fn flush(&mut self, now: Instant) {
        self.drive(now, Outbound::flush);
    }

    /// Takes one frame off the TAP.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        if self.resting.is_some() {
            return Step::Dry;
        }
        let Some(tap) = &self.shared.tap else {
            return Step::Dry;
        };
        match self.tunnel.read(|room| tap.read_vectored(room)) {
            Ok(read) => {
                self.drive(now, |tunnel, turn| tunnel.frame(read, turn));
                Step::Frame
            }
            Err(error) => {
                self.dry(&error, now);
                Step::Dry
            }
        }
    }

    fn dry(&mut self, error: &io::Error, now: Instant) {
        self.flush(now);
        if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
            self.resting = Some(now + TAP_REST);
        }
    }
}
