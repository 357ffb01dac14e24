//! Carries what the packet workers learn to the hub.
//!
//! **Failure policy.** The queue is bounded; what finds it full is dropped and counted. Everything that matters is said
//! again: a session is wanted again soon, an address is heard again within a second.

use std::sync::Arc;

use tokio::sync::mpsc;
use weft_router_proto::tunnel::{Cells, Report};

/// How many reports wait for the hub at most.
const QUEUE: usize = 1024;

/// How many may wait where more datagrams shall travel over control connections: each is a call's worth, so 2 MiB.
const BULK: usize = 32;

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

    /// False if it was lost: the hub is behind.
    pub(super) fn report(&self, report: Report) -> bool {
        if let Report::ByControl { .. } = report {
            // Large, and counted as what it is by whoever sends it.
            return self.queue.capacity() > QUEUE - BULK && self.queue.try_send(report).is_ok();
        }
        let sent = self.queue.try_send(report).is_ok();
        if !sent {
            self.cells.lose_report();
        }
        sent
    }

    /// The same for what anybody may have written: it gets half of the queue, so that it cannot crowd out the rest.
    pub(super) fn unproven(&self, report: impl FnOnce() -> Report) {
        if self.queue.capacity() > QUEUE / 2 {
            self.report(report());
        } else {
            self.cells.lose_report();
        }
    }
}
