//! A link made in userspace: a thread that carries frames between two devices and mistreats them on the way.
//!
//! Test kernels have no netem, and a firewall cannot reorder; this can do both, per direction and while traffic flows.
//! Frames keep what is unfinished about them, so checksums are right on the far side.
//!
//! **Failure policy.** A frame the far device refuses is counted in [`Counters::refused`] and gone, as on any wire.

mod firewall;
mod harm;
mod notice;
mod queue;
mod rule;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use weft_kernel::netns::NetNs;
use weft_kernel::packet::{FRAME_MAX, Offload, Options, PacketSocket};

use crate::LabError;
use harm::{Rule, alter};

pub(crate) use firewall::rules as firewall;
pub use harm::Harm;
pub(crate) use queue::Chance;
pub use queue::{MtuLimit, Profile, Queue, Reorder, Verdict};
pub use rule::{Match, Predicate};

/// Frames taken from one side before the other one gets its turn.
const BATCH: usize = 64;

/// How long the thread may take to see that it shall stop.
const STOP: Duration = Duration::from_millis(20);

/// Makes the chance of rules another than that of the queue beside them.
const RULES: u64 = 0x72_75_6c_65;

/// Which way a frame goes through a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From the host into the underlay.
    Out,
    /// From the underlay to the host.
    In,
}

/// What became of the frames that went one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Came out with another byte than they went in with, by a rule.
    pub altered: u64,
    /// Lost by a rule, or the link was cut.
    pub blocked: u64,
    /// Came out twice.
    pub doubled: u64,
    /// Did not fit into the queue.
    pub full: u64,
    /// Held back by a rule.
    pub held: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Came out at the far side.
    pub passed: u64,
    /// Not taken by the far device.
    pub refused: u64,
    /// Longer than the limit of the link.
    pub too_big: u64,
}

/// The thread between two devices. It stops when dropped.
#[derive(Debug)]
pub struct Shaper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    lanes: [Mutex<Lane>; 2],
    stop: AtomicBool,
}

#[derive(Debug)]
struct Lane {
    /// For the rules; the queue has its own, so that a rule changes nothing of what else happens by chance.
    chance: Chance,
    counters: Counters,
    profile: Profile,
    queue: Queue<Frame>,
    rules: BTreeMap<u32, Rule>,
    next_rule: u32,
}

#[derive(Debug, Clone)]
struct Frame {
    bytes: Vec<u8>,
    offload: Offload,
}

impl Shaper {
    /// Starts carrying frames between two devices of a namespace: `near` is the host's side, `far` the underlay's.
    pub fn start(namespace: &NetNs, near: &str, far: &str, seed: u64) -> Result<Self, LabError> {
        let open = |device: &str| {
            let socket = PacketSocket::open(device, &Options::forward())?;
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>(socket)
        };
        let sockets = namespace
            .run(|| Ok([open(near)?, open(far)?]))?
            .map_err(LabError::io(format!("watch {near} and {far}")))?;
        let lane = |seed| {
            Mutex::new(Lane {
                chance: Chance(seed ^ RULES),
                counters: Counters::default(),
                profile: Profile::default(),
                queue: Queue::new(seed, Profile::default()),
                rules: BTreeMap::new(),
                next_rule: 0,
            })
        };
        let shared = Arc::new(Shared {
            lanes: [lane(seed), lane(!seed)],
            stop: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("shaper".to_owned())
            .spawn(move || theirs.carry(&sockets))
            .map_err(LabError::io("start a shaper"))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Changes one direction of the link.
    pub fn set_profile(&self, way: Way, profile: Profile) {
        let mut lane = self.shared.lane(way);
        lane.profile = profile;
        lane.queue.set_profile(profile);
    }

    /// Loses every frame of a set from here on, and returns a number by which to stop that.
    pub fn block(&self, way: Way, frames: Match) -> u32 {
        self.harm(way, frames, Harm::LOSE)
    }

    /// Harms the frames of a set from here on, and returns a number by which to stop that. Of several rules for one
    /// frame all apply, in the order they were made.
    pub fn harm(&self, way: Way, frames: Match, harm: Harm) -> u32 {
        let mut lane = self.shared.lane(way);
        let number = lane.next_rule;
        lane.next_rule += 1;
        lane.rules.insert(number, Rule { frames, harm });
        number
    }

    /// Takes one rule back.
    pub fn unblock(&self, way: Way, number: u32) {
        self.shared.lane(way).rules.remove(&number);
    }

    /// Takes all rules back.
    pub fn unblock_all(&self) {
        for way in [Way::Out, Way::In] {
            self.shared.lane(way).rules.clear();
        }
    }

    /// Returns what became of the frames so far.
    pub fn counters(&self, way: Way) -> Counters {
        self.shared.lane(way).counters
    }
}

impl Drop for Shaper {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lane(&self, way: Way) -> MutexGuard<'_, Lane> {
        let lane = match way {
            Way::Out => &self.lanes[0],
            Way::In => &self.lanes[1],
        };
        // A panic between two statements of a lane leaves counters at worst.
        lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry(&self, [near, far]: &[PacketSocket; 2]) {
        let mut buffer = vec![0; FRAME_MAX];
        while !self.stop.load(Ordering::Relaxed) {
            let busy = self.turn(Way::Out, near, far, &mut buffer)
                | self.turn(Way::In, far, near, &mut buffer);
            if !busy {
                self.wait(near, far);
            }
        }
    }

    /// Takes in what has come from one side and lets out what is due on the other.
    fn turn(&self, way: Way, from: &PacketSocket, to: &PacketSocket, buffer: &mut [u8]) -> bool {
        let mut lane = self.lane(way);
        let mut taken = 0;
        while taken < BATCH {
            let Ok(received) = from.recv(buffer) else {
                break;
            };
            taken += 1;
            if let Some(answer) = lane.take(received.frame, received.offload, Instant::now()) {
                let _ = from.send(&answer);
            }
        }
        while let Some(frame) = lane.queue.poll(Instant::now()) {
            match to.send_unfinished(&frame.bytes, &frame.offload) {
                Ok(()) => lane.counters.passed += 1,
                Err(_) => lane.counters.refused += 1,
            }
        }
        taken == BATCH
    }

    fn wait(&self, near: &PacketSocket, far: &PacketSocket) {
        use std::os::fd::AsFd as _;

        let now = Instant::now();
        let due = [Way::Out, Way::In]
            .into_iter()
            .filter_map(|way| self.lane(way).queue.poll_timeout())
            .map(|(due, _)| due.saturating_duration_since(now))
            .min();
        let timeout = due.map_or(STOP, |due| due.min(STOP));
        let mut fds = [near, far].map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        // An interrupted wait is a short one.
        let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(timeout)), None);
    }
}

impl Lane {
    /// Lets a frame in, and returns what to tell its sender.
    fn take(&mut self, frame: &[u8], offload: Offload, now: Instant) -> Option<Vec<u8>> {
        let mut bytes = frame.to_vec();
        let mut held = Duration::ZERO;
        for rule in self.rules.values() {
            if !rule.frames.contains(frame) {
                continue;
            }
            match rule.harm {
                Harm::Alter { share } => {
                    if self.chance.hits(share) && alter(&mut bytes, &offload, &mut self.chance) {
                        self.counters.altered += 1;
                    }
                }
                Harm::Delay { by, share } => {
                    if self.chance.hits(share) {
                        self.counters.held += 1;
                        held += by;
                    }
                }
                Harm::Lose { share } => {
                    if self.chance.hits(share) {
                        self.counters.blocked += 1;
                        return None;
                    }
                }
                Harm::Narrow(limit) => {
                    if Match::LongerThan(limit.bytes).contains(frame) {
                        self.counters.too_big += 1;
                        return refusal(frame, limit);
                    }
                }
            }
        }
        let narrow = self.profile.mtu;
        if let Some(limit) = narrow.filter(|limit| Match::LongerThan(limit.bytes).contains(frame)) {
            self.counters.too_big += 1;
            return refusal(frame, limit);
        }
        match self
            .queue
            .offer_held(Frame { bytes, offload }, frame.len(), held, now)
        {
            Verdict::Doubled => self.counters.doubled += 1,
            Verdict::Full => self.counters.full += 1,
            Verdict::Lost => self.counters.lost += 1,
            Verdict::Queued => {}
        }
        None
    }
}

/// Returns what to tell the sender of a packet that is too long, if anything.
fn refusal(frame: &[u8], limit: MtuLimit) -> Option<Vec<u8>> {
    limit
        .tell
        .then(|| notice::too_big(frame, limit.bytes))
        .flatten()
}
