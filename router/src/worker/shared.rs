//! What the threads of the packet workers, and whoever commands them, have in common.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use weft_kernel::event::EventFd;
use weft_kernel::tap::Tap;
use weft_kernel::udp::UdpSocket;
use weft_router_proto::snapshot::Snapshot;
use weft_router_proto::switch::ForwardingTable;

use super::counters::Cells;
use super::report::Reporter;

/// One UDP socket per family, both on the sleeve's port.
pub(super) struct Sockets {
    pub(super) v4: Option<UdpSocket>,
    pub(super) v6: Option<UdpSocket>,
}

impl Sockets {
    /// The socket that reaches an address.
    pub(super) fn towards(&self, to: SocketAddr) -> Option<&UdpSocket> {
        match to {
            SocketAddr::V4(_) => self.v4.as_ref(),
            SocketAddr::V6(_) => self.v6.as_ref(),
        }
    }
}

/// A snapshot, compiled.
pub(super) struct View {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) table: ForwardingTable,
}

impl View {
    pub(super) fn new(snapshot: Arc<Snapshot>) -> Self {
        let table = ForwardingTable::compile(&snapshot);
        Self { snapshot, table }
    }
}

/// Messages from any thread to one, looked for between two bursts.
pub(super) struct Mailbox<T> {
    full: AtomicBool,
    letters: Mutex<Vec<T>>,
}

impl<T> Mailbox<T> {
    pub(super) const fn new() -> Self {
        Self {
            full: AtomicBool::new(false),
            letters: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn post(&self, letter: T) {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        letters.push(letter);
        self.full.store(true, Ordering::Release);
    }

    /// Costs one load while nothing is there.
    pub(super) fn collect(&self) -> Vec<T> {
        if !self.full.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        self.full.store(false, Ordering::Release);
        std::mem::take(&mut letters)
    }
}

/// What all threads see.
pub(super) struct Shared {
    pub(super) tap: Tap,
    pub(super) sockets: Sockets,
    pub(super) cells: Arc<Cells>,
    pub(super) reporter: Reporter,
    /// Wakes the main thread: a command, a snapshot, the end, or the helper that is done.
    pub(super) bell: EventFd,
    pub(super) stop: AtomicBool,
    view: ArcSwap<View>,
    /// Counts views, so that looking for one costs one load.
    views: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        tap: Tap,
        sockets: Sockets,
        snapshot: Arc<Snapshot>,
        cells: Arc<Cells>,
        reporter: Reporter,
    ) -> std::io::Result<Self> {
        Ok(Self {
            tap,
            sockets,
            cells,
            reporter,
            bell: EventFd::new()?,
            stop: AtomicBool::new(false),
            view: ArcSwap::from_pointee(View::new(snapshot)),
            views: AtomicU64::new(1),
        })
    }

    /// Forwards by this from the next burst on. An older one than what is there is late, and ignored.
    pub(super) fn set_view(&self, snapshot: Arc<Snapshot>) {
        if snapshot.generation < self.view.load().snapshot.generation {
            return;
        }
        self.view.store(Arc::new(View::new(snapshot)));
        self.views.fetch_add(1, Ordering::Release);
        self.bell.ring();
    }

    /// The view, if it is not the one that `seen` counts.
    pub(super) fn news(&self, seen: &mut u64) -> Option<Arc<View>> {
        let views = self.views.load(Ordering::Acquire);
        if views == *seen {
            return None;
        }
        *seen = views;
        Some(self.view.load_full())
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}
