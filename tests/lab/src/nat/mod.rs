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
mod table;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weft_kernel::packet::{FRAME_MAX, Options, PacketSocket};

use crate::{Host, LabError};
use gateway::{Gateway, Side};
use neighbours::Neighbours;
pub use table::Kind;

/// Frames taken from one side before the other one gets its turn.
const BATCH: usize = 64;

/// How long the thread may take to see that it shall stop, or that a question is due.
const STOP_MS: u16 = 20;

/// How a translator behaves. The default is a port-restricted one, as at home, with the usual times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatProfile {
    /// How long an echo may be answered.
    pub echo_idle: Duration,
    /// Hosts inside reach each other by their outer addresses.
    pub hairpin: bool,
    /// Who is mapped to what, and who may answer.
    pub kind: Kind,
    /// The port outside is the one inside while it is free; otherwise it cannot be guessed.
    pub preserves_ports: bool,
    /// The private network: its first 254 addresses are used.
    pub subnet: Ipv4Addr,
    /// How long a stream may be silent outwards.
    pub tcp_idle: Duration,
    /// How long datagrams may be silent outwards.
    pub udp_idle: Duration,
}

impl NatProfile {
    /// Makes a profile of one kind.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            ..Self::default()
        }
    }
}

impl Default for NatProfile {
    fn default() -> Self {
        Self {
            // RFC 5508 §3.2.
            echo_idle: Duration::from_secs(60),
            hairpin: false,
            kind: Kind::PortRestricted,
            preserves_ports: false,
            subnet: Ipv4Addr::new(192, 168, 1, 0),
            // RFC 5382 §5.
            tcp_idle: Duration::from_secs(7440),
            // RFC 4787 §4.3: the least that is allowed.
            udp_idle: Duration::from_secs(120),
        }
    }
}

/// What became of the packets that a translator saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NatCounters {
    /// Came from somebody who may not answer.
    pub filtered: u64,
    /// Of a protocol that is not translated, or a fragment.
    pub foreign: u64,
    /// Went through.
    pub translated: u64,
    /// To an address that nobody outside has.
    pub unroutable: u64,
}

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
