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
//! and by commands which sessions there are; the workers say what they hear and what they lack. Inside, `run` is the
//! loop, `outbound` and `inbound` the two directions, `sender` what seals and sends, `relay` what is passed on for others.
//!
//! **Invariant.** No session, no frame: nothing leaves unsealed, nothing enters that its peer may not send.
//! **Failure policy.** Whatever cannot be done at once is dropped and counted. A packet allocates nothing, takes no lock
//! that another thread holds, and is not logged.

mod chatter;
mod counters;
mod inbound;
mod outbound;
mod probes;
mod relay;
mod report;
mod run;
mod selftest;
mod sender;
mod shared;

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
use weft_router_proto::session::SessionKeys;
use weft_router_proto::sleeve::lane::{Part, ReceiveLanes, SendLanes};
use weft_router_proto::snapshot::Snapshot;
use weft_router_proto::switch::DropReason;
use weft_types::NodeId;

pub use counters::{Counters, PeerTraffic, Relayed};
pub use report::Report;
pub use selftest::Backends;

use counters::Cells;
use inbound::{Inbound, Order};
use outbound::Outbound;
use probes::PathQuestion;
use report::Reporter;
use run::Baton;
use sender::{SendSession, SessionChange};
use shared::{Mailbox, Shared, Sockets, View};

/// What the workers work with.
pub struct Wiring {
    /// The sleeve's end of the bridge.
    pub tap: Tap,
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
        let cells = Arc::new(Cells::new());
        let (reporter, reports) = Reporter::new(Arc::clone(&cells));
        let view = Arc::new(View::new(Arc::clone(&snapshot)));
        let sockets = Sockets { v4: udp4, v6: udp6 };
        let shared = Arc::new(Shared::new(tap, sockets, snapshot, cells, reporter)?);
        let orders = Arc::new(Mailbox::new());
        let changes = Arc::new(Mailbox::new());
        let outbound = Outbound::new(
            Arc::clone(&shared),
            Arc::clone(&changes),
            Arc::clone(&view),
            Instant::now(),
        );
        let inbound = Inbound::new(
            Arc::clone(&shared),
            Arc::clone(&orders),
            Arc::clone(&changes),
            view,
            Instant::now(),
        );
        let baton = Arc::new(Baton::new(outbound));
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
        workers.spawn("sleeve", {
            let shared = Arc::clone(&workers.shared);
            move || run::main(&shared, &baton, inbound, &helper)
        })?;
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
        match command {
            DataPlane::AdmitLink(index) => self.orders.post(Order::AdmitLink(index)),
            DataPlane::Install { peer, keys } => self.install(peer, &keys, false),
            DataPlane::InstallReceiving { peer, keys } => self.install(peer, &keys, true),
            DataPlane::Datagrams { datagrams, .. } => {
                let dropped = self.shared.arrivals.post(datagrams);
                let cells = &self.shared.cells;
                cells.discard_many(DropReason::ControlFlood, dropped);
            }
            DataPlane::PathProbe {
                peer,
                via,
                slot,
                id,
                datagram,
            } => self.orders.post(Order::PathProbe(PathQuestion {
                peer,
                via,
                slot,
                id,
                datagram,
            })),
            DataPlane::Probe { peer, id, size } => {
                self.orders.post(Order::Probe { peer, id, size });
            }
            DataPlane::Retire { index } => {
                self.changes.post(SessionChange::Retire { index });
                self.orders.post(Order::Retire(index));
            }
            DataPlane::RetireLink(index) => self.orders.post(Order::RetireLink(index)),
            DataPlane::SessionMessage { peer, bytes } => {
                self.orders.post(Order::Message { peer, bytes });
            }
        }
        self.shared.bell.ring();
    }

    /// Makes a session's keys here, so that no packet waits for that.
    fn install(&self, peer: NodeId, keys: &SessionKeys, held: bool) {
        let backend = self.backends.of(keys.cipher);
        let refused = Arc::default();
        let change = |part| {
            let session = SendSession {
                local: keys.local,
                lanes: SendLanes::new(keys, part, backend),
                refused: Arc::clone(&refused),
            };
            if held {
                SessionChange::Hold { peer, session }
            } else {
                SessionChange::Install { peer, session }
            }
        };
        // Receiving first: an answer to what waits may be quick.
        self.orders.post(Order::Install {
            peer,
            index: keys.local,
            lanes: ReceiveLanes::new(keys, backend),
            held,
        });
        self.orders.post(Order::Session(change(Part::Control)));
        self.changes.post(change(Part::Frames));
    }

    /// Sends a link's datagram, sealed already, from the sleeve's port.
    pub fn send_link_datagram(&self, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        let socket = self
            .shared
            .sockets
            .towards(to)
            .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        socket.send_segments(to, &[IoSlice::new(bytes)], None)
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
