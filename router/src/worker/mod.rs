//! Carries frames between the TAP and the peers, on threads of its own: the sleeve.
//!
//! ```text
//!               snapshot, command                    reports
//!    hub ───────────────────────────▶ Workers ─────────────────────▶ hub
//!                                    ╱       ╲
//!                      TAP (bridge) ◀─ main ──▶ UDP port (peers)
//!                                   └─ helper ┘
//! ```
//!
//! Frames never cross the hub. The hub says by an immutable snapshot where frames go and in whose name they may come,
//! and by commands which sessions there are; the workers say what they hear and what they lack. What is done with a packet
//! is the tunnel's ([`weft_router_proto::tunnel`]); here are threads, sockets, the TAP and what lies between them:
//! `run` is the loop, `reading` and `receiving` drive the tunnel's two halves, `outside` is what those see of the world,
//! `sources` from which address of this host it is spoken to.
//!
//! **Invariant.** No session, no frame: nothing leaves unsealed, nothing enters that its peer may not send.
//! **Failure policy.** Whatever cannot be done at once is dropped and counted. A packet allocates nothing, takes no lock
//! that another thread holds, and is not logged.

mod outside;
mod reading;
mod receiving;
mod report;
mod run;
mod selftest;
mod shared;
mod sources;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tokio::sync::mpsc;
use weft_kernel::tap::Tap;
use weft_kernel::udp::UdpSocket;
use weft_router_proto::io::DataPlane;
use weft_router_proto::overlay::Via;
use weft_router_proto::sleeve::vnet::Vnet;
use weft_router_proto::snapshot::Snapshot;
use weft_router_proto::switch::DropReason;
use weft_router_proto::tunnel::{Cells, Order, Orders, SessionChange, Tunnel, View};

pub use selftest::Backends;
pub use weft_router_proto::tunnel::{Counters, PeerTraffic, Relayed, Report};

use reading::Reading;
use receiving::Receiving;
use report::Reporter;
use run::{Baton, Main};
use shared::{Mailbox, Shared, Sockets};

/// What the workers work with.
pub struct Wiring {
    /// The sleeve's end of the bridge. Without one the router is a member of the control plane that takes no part in the
    /// traffic: its workers carry heartbeats, and pass on what is for others.
    pub tap: Option<Tap>,
    /// The IPv4 socket on the sleeve's port, if this host has IPv4.
    pub udp4: Option<UdpSocket>,
    /// The IPv6 socket on the sleeve's port, if this host has IPv6.
    pub udp6: Option<UdpSocket>,
    /// Forward by this to begin with.
    pub snapshot: Arc<Snapshot>,
    /// Which library seals.
    pub backends: Backends,
}

/// The running threads. They end when this is dropped.
pub struct Workers {
    shared: Arc<Shared>,
    orders: Arc<Mailbox<Order>>,
    changes: Arc<Mailbox<SessionChange>>,
    backends: Backends,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts the threads.
    pub fn start(wiring: Wiring) -> io::Result<(Self, mpsc::Receiver<Report>)> {
        let Wiring {
            tap,
            udp4,
            udp6,
            snapshot,
            backends,
        } = wiring;
        let cells = Arc::new(Cells::default());
        let (reporter, reports) = Reporter::new(Arc::clone(&cells));
        let view = Arc::new(View::new(snapshot));
        let Tunnel { outbound, inbound } = Tunnel::new(&view, &cells, Instant::now());
        let sockets = Sockets { v4: udp4, v6: udp6 };
        let shared = Arc::new(Shared::new(tap, sockets, view, cells, reporter)?);
        let orders = Arc::new(Mailbox::new());
        let changes = Arc::new(Mailbox::new());
        let reading = Reading::new(Arc::clone(&shared), Arc::clone(&changes), outbound);
        let receiving = Receiving::new(
            Arc::clone(&shared),
            Arc::clone(&orders),
            Arc::clone(&changes),
            inbound,
        );
        let baton = Arc::new(Baton::new(reading));
        let mut workers = Self {
            shared,
            orders,
            changes,
            backends,
            threads: Vec::new(),
        };
        let helper = workers.spawn("sleeve-help", {
            let (shared, baton) = (Arc::clone(&workers.shared), Arc::clone(&baton));
            move || run::help(&shared, &baton)
        })?;
        let main = Main::new(Arc::clone(&workers.shared), baton, receiving, helper);
        workers.spawn("sleeve", move || main.run())?;
        Ok((workers, reports))
    }

    fn spawn(
        &mut self,
        name: &str,
        life: impl FnOnce() + Send + 'static,
    ) -> io::Result<thread::Thread> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(life)?;
        let handle = thread.thread().clone();
        self.threads.push(thread);
        Ok(handle)
    }

    /// Forwards by this from the next burst on. One that is older than what is there is ignored.
    pub fn snapshot(&self, snapshot: Arc<Snapshot>) {
        self.shared.set_view(snapshot);
    }

    /// Does what the core says.
    pub fn command(&self, command: DataPlane) {
        if let DataPlane::PathProbe {
            via: Via::Direct(to),
            ..
        } = &command
            && self.shared.leads_inside(*to, Instant::now())
        {
            return; // A way that is not asked is not taken.
        }
        let orders = Orders::new(command, |keys| self.backends.of(keys.cipher));
        for order in orders.inbound {
            if let Order::Arrived(datagrams) = order {
                let dropped = self.shared.arrivals.post(datagrams);
                let cells = &self.shared.cells;
                cells.discard_many(DropReason::ControlFlood, dropped);
            } else {
                self.orders.post(order);
            }
        }
        if let Some(change) = orders.outbound {
            self.changes.post(change);
        }
        self.shared.bell.ring();
    }

    /// Sends a link's datagram, sealed already, from the sleeve's port.
    pub fn send_link_datagram(&self, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        let socket = self
            .shared
            .sockets
            .towards(to)
            .filter(|_| !self.shared.leads_inside(to, Instant::now()))
            .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        let sources = &self.shared.sources;
        sources.send((socket, None), to, &[IoSlice::new(bytes)], None)
    }

    /// Puts a frame of this router's own on the bridge.
    pub fn announce(&self, frame: &[u8]) -> io::Result<()> {
        let Some(tap) = &self.shared.tap else {
            return Ok(());
        };
        let head = Vnet::plain(None).encode();
        let parts = [IoSlice::new(&head), IoSlice::new(frame)];
        tap.write_vectored(&parts).map(drop)
    }

    /// What has been counted so far.
    pub fn counters(&self) -> Counters {
        self.shared.cells.read()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.bell.ring();
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // A thread that panicked has said so already, and the others are to be joined all the same.
            let _ = thread.join();
        }
    }
}
