//! What the threads of the packet workers, and whoever commands them, have in common.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use weft_kernel::event::EventFd;
use weft_kernel::tap::Tap;
use weft_kernel::udp::{Complaint, UdpSocket};
use weft_router_proto::snapshot::Snapshot;
use weft_router_proto::tunnel::{Cells, Hints, Report, TooBig, View};

use super::report::Reporter;
use super::sources::Sources;

/// How many datagrams that came over control connections are kept until they are looked at, and how many bytes of them: as
/// much as the hub keeps of what shall leave by them.
const MAX_ARRIVED: usize = 2048;
const MAX_ARRIVED_BYTES: usize = 2 << 20;

/// How many complaints are read at once: more come when these are read.
const MAX_COMPLAINTS: usize = 64;

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

    pub(super) fn iter(&self) -> impl Iterator<Item = &UdpSocket> {
        [&self.v4, &self.v6].into_iter().flatten()
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

/// Datagrams that came over control connections, from the hub to the thread that opens them. What comes faster than that
/// thread works is dropped, as by a full socket: the newest.
#[derive(Default)]
pub(super) struct Arrivals {
    waiting: AtomicBool,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    datagrams: Vec<Vec<u8>>,
    bytes: usize,
}

impl Arrivals {
    /// Keeps what there is room for, and says how many datagrams there was none for.
    pub(super) fn post(&self, datagrams: Vec<Vec<u8>>) -> usize {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dropped = 0;
        for datagram in datagrams {
            let bytes = kept.bytes + datagram.len();
            if kept.datagrams.len() == MAX_ARRIVED || bytes > MAX_ARRIVED_BYTES {
                dropped += 1;
                continue;
            }
            kept.bytes = bytes;
            kept.datagrams.push(datagram);
        }
        self.waiting.store(true, Ordering::Release);
        dropped
    }

    /// Costs one load while nothing is there.
    pub(super) fn collect(&self) -> Vec<Vec<u8>> {
        if !self.waiting.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.store(false, Ordering::Release);
        std::mem::take(&mut *kept).datagrams
    }
}

/// What all threads see.
pub(super) struct Shared {
    pub(super) tap: Option<Tap>,
    pub(super) sockets: Sockets,
    /// From which addresses of this host peers are answered.
    pub(super) sources: Sources,
    pub(super) cells: Arc<Cells>,
    pub(super) reporter: Reporter,
    /// Wakes the main thread: a command, a snapshot, the end, or the helper that is done.
    pub(super) bell: EventFd,
    pub(super) stop: AtomicBool,
    pub(super) arrivals: Arrivals,
    view: ArcSwap<View>,
    /// Counts views, so that looking for one costs one load.
    views: AtomicU64,
    /// Locked when something was too large, never for what is sent.
    hints: Mutex<Hints>,
}

impl Shared {
    pub(super) fn new(
        tap: Option<Tap>,
        sockets: Sockets,
        view: Arc<View>,
        cells: Arc<Cells>,
        reporter: Reporter,
    ) -> std::io::Result<Self> {
        Ok(Self {
            tap,
            sockets,
            sources: Sources::default(),
            cells,
            reporter,
            bell: EventFd::new()?,
            stop: AtomicBool::new(false),
            arrivals: Arrivals::default(),
            view: ArcSwap::new(view),
            views: AtomicU64::new(1),
            hints: Mutex::default(),
        })
    }

    /// Takes what was said about datagrams that did not get through; `refused` is where one was sent to just now that
    /// was too large for this host's device.
    pub(super) fn heed(&self, socket: &UdpSocket, refused: Option<SocketAddr>) {
        for _ in 0..MAX_COMPLAINTS {
            let Ok(complaint) = socket.complaint() else {
                return;
            };
            if let Complaint::TooBig { to, mtu, local } = complaint {
                let refused = refused.filter(|_| local);
                self.too_big(TooBig { to, mtu, refused });
            }
        }
    }

    fn too_big(&self, said: TooBig) {
        let Some((to, datagram)) = said.believed(&self.view.load()) else {
            return;
        };
        let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        if hints.are_news(to, datagram, Instant::now()) {
            self.reporter.unproven(|| Report::TooBig { to, datagram });
        }
    }

    /// Forwards by this from the next burst on. An older one than what is there is late, and ignored.
    pub(super) fn set_view(&self, snapshot: Arc<Snapshot>) {
        let before = self.view.load();
        if snapshot.generation < before.snapshot().generation {
            return;
        }
        self.view.store(Arc::new(before.follow(snapshot)));
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

    /// Whether what is sent to an address leaves by the mesh itself, which it would have to build.
    pub(super) fn leads_inside(&self, to: SocketAddr, now: Instant) -> bool {
        self.sources.usual(to, now).is_some_and(|from| {
            let view = self.view.load();
            let snapshot = view.snapshot();
            let own = |host: &ipnet::IpNet| host.addr() == from;
            snapshot.in_range(from) || snapshot.host_addresses.iter().any(own)
        })
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use weft_router_proto::snapshot::Endpoints;
    use weft_types::{Mtu, NodeId};

    use super::*;

    #[test]
    fn what_would_leave_from_an_address_of_the_mesh_leads_back_into_it() {
        let leads_inside = |range: &str| {
            let snapshot = Snapshot {
                generation: 1,
                node: NodeId::new([1; 32]),
                mtu: Mtu::MESH,
                ranges: vec![range.parse().unwrap()],
                host_addresses: Vec::new(),
                peers: Vec::new(),
                endpoints: Endpoints::default(),
            };
            let cells = Arc::new(Cells::default());
            let (reporter, _) = Reporter::new(Arc::clone(&cells));
            let sockets = Sockets { v4: None, v6: None };
            let view = Arc::new(View::new(Arc::new(snapshot)));
            let shared = Shared::new(None, sockets, view, cells, reporter).unwrap();
            shared.leads_inside("127.0.0.9:6783".parse().unwrap(), Instant::now())
        };

        assert!(
            leads_inside("127.0.0.0/29"),
            "the loopback speaks from its first"
        );
        assert!(!leads_inside("10.32.0.0/12"));
    }

    #[test]
    fn so_many_datagrams_are_kept_and_the_rest_is_told() {
        let arrivals = Arrivals::default();

        let small = arrivals.post(vec![vec![0]; MAX_ARRIVED + 7]);
        let kept = arrivals.collect();

        assert_eq!((small, kept.len()), (7, MAX_ARRIVED));
        // What was taken makes room.
        assert_eq!(arrivals.post(vec![vec![0]; 10]), 0);
        assert_eq!(arrivals.collect().len(), 10);
        assert!(arrivals.collect().is_empty());
    }

    #[test]
    fn so_many_bytes_are_kept_and_the_oldest_stay() {
        let arrivals = Arrivals::default();
        let fit = MAX_ARRIVED_BYTES / 9000;
        let posts = u8::try_from(fit + 5).unwrap_or(u8::MAX);

        let dropped: usize = (0..posts)
            .map(|number| arrivals.post(vec![vec![number; 9000]]))
            .sum();
        let kept = arrivals.collect();

        assert_eq!((dropped, kept.len()), (usize::from(posts) - fit, fit));
        assert!(kept.iter().zip(0..).all(|(one, number)| one[0] == number));
    }
}
