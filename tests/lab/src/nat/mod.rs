//! A translator of addresses in userspace: a thread between a private network and what lies outside.
//!
//! ```text
//!   inside 192.168.1.0/24                                outside
//!   host ── switch ── lan ═ packet socket ┐  ┌ packet socket ═ wan ── the other network's switch
//!                                         gateway: table, ARP on both sides
//! ```
//!
//! The firewall of the kernel has only two of the four kinds. TCP, UDP and ICMP echoes over IPv4 are translated, with the
//! errors about them; fragments and everything else are counted as [`NatCounters::foreign`] and gone.

mod gateway;
mod neighbours;
mod packet;
mod profile;
mod table;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weft_kernel::packet::{FRAME_MAX, Options, PacketSocket};

use crate::{Host, LabError};
use gateway::{Gateway, Side};
use neighbours::Neighbours;
pub use profile::{Kind, NatCounters, NatProfile};

/// Frames taken from one side before the other one gets its turn.
const BATCH: usize = 64;

/// How long the thread may take to see that it shall stop, or that a question is due.
const STOP_MS: u16 = 20;

/// The thread between two devices of a namespace. It stops when dropped.
#[derive(Debug)]
pub(crate) struct Nat {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// One side of a translator: its device, its address there, and the way on, if there is one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wall<'a> {
    pub(crate) device: &'a str,
    pub(crate) address: Ipv4Addr,
    pub(crate) gateway: Option<Ipv4Addr>,
}

#[derive(Debug)]
struct Shared {
    gateway: Mutex<Gateway>,
    stop: AtomicBool,
}

impl Nat {
    /// Starts translating between two devices of a host whose kernel has no addresses there.
    pub(crate) fn start(
        host: &Host,
        inside: Wall<'_>,
        outside: Wall<'_>,
        profile: NatProfile,
    ) -> Result<Self, LabError> {
        let open = |device: &str| {
            let socket = PacketSocket::open(device, &Options::forward())?;
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>(socket)
        };
        let sockets = host
            .run(|| Ok([open(inside.device)?, open(outside.device)?]))?
            .map_err(LabError::io("watch the two sides of a gateway"))?;
        let side = |wall: Wall<'_>| {
            let mac = host
                .mac(wall.device)?
                .unwrap_or(weft_types::MacAddr::BROADCAST);
            Ok::<_, LabError>(Neighbours::new(mac, wall.address, wall.gateway))
        };
        let seed = u64::from(u32::from(outside.address));
        let shared = Arc::new(Shared {
            gateway: Mutex::new(Gateway::new(side(inside)?, side(outside)?, seed, profile)),
            stop: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("nat".to_owned())
            .spawn(move || theirs.carry(&sockets))
            .map_err(LabError::io("start a gateway"))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    pub(crate) fn counters(&self) -> NatCounters {
        self.shared.gateway().counters()
    }

    pub(crate) fn mappings(&self) -> usize {
        self.shared.gateway().mappings(Instant::now())
    }

    pub(crate) fn forget(&self) {
        self.shared.gateway().forget();
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn gateway(&self) -> MutexGuard<'_, Gateway> {
        // A panic between two statements of a gateway leaves a packet lost at worst.
        self.gateway.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry(&self, sockets: &[PacketSocket; 2]) {
        let mut buffer = vec![0; FRAME_MAX];
        while !self.stop.load(Ordering::Relaxed) {
            let busy = self.turn(Side::Inside, sockets, &mut buffer)
                | self.turn(Side::Outside, sockets, &mut buffer);
            if !busy {
                let [inside, outside] = sockets;
                let mut fds =
                    [inside, outside].map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
                // An interrupted wait is a short one.
                let _ = poll(&mut fds, PollTimeout::from(STOP_MS));
                let due = self.gateway().handle_timeout(Instant::now());
                send(sockets, due);
            }
        }
    }

    fn turn(&self, side: Side, sockets: &[PacketSocket; 2], buffer: &mut [u8]) -> bool {
        let mut gateway = self.gateway();
        let mut taken = 0;
        while taken < BATCH {
            let Ok(received) = socket(sockets, side).recv(buffer) else {
                break;
            };
            taken += 1;
            let frame = received.frame;
            send(
                sockets,
                gateway.take(side, frame, &received.offload, Instant::now()),
            );
        }
        taken == BATCH
    }
}

fn socket([inside, outside]: &[PacketSocket; 2], side: Side) -> &PacketSocket {
    match side {
        Side::Inside => inside,
        Side::Outside => outside,
    }
}

fn send(sockets: &[PacketSocket; 2], frames: Vec<(Side, Vec<u8>)>) {
    for (side, frame) in frames {
        // What the device does not take is lost, as on any wire.
        let _ = socket(sockets, side).send(&frame);
    }
}
