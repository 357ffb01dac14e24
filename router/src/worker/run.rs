//! Runs the packet workers: one thread both ways, and a helper while a sender is in bulk.
//!
//! ```text
//!   main     receive ×16 ─▶ TAP ×16 ─▶ (bulk: yield ×5) ─▶ poll(sockets, TAP, bell)
//!                             │ not dry after bursts                 ▲ rung: taken back
//!                             ▼ handed over                          │
//!   helper   parked ─▶ TAP until it is dry for 2 ms ─────────────────┘
//! ```
//!
//! What a frame written to the TAP causes, an acknowledgement say, is in the TAP when the write returns, so the thread
//! that is awake answers and nobody has to be woken: a wake-up costs more than everything else about a small packet.
//! A sender in bulk is worth a second processor; then the helper reads the TAP, and the main thread only receives.
//! **Invariant.** One thread at a time holds [`Reading`], and with it the counters of its lane.

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use weft_kernel::event::{PollFd, PollFlags, wait};
use weft_kernel::udp::UdpSocket;

use super::reading::{Reading, Step};
use super::receiving::Receiving;
use super::shared::Shared;

/// How much is done in one direction before the other has its turn.
const BURST: usize = 16;

/// So many datagrams in a round are bulk: worth staying awake after.
const BULK: usize = 16;

/// How often others run first before a thread that was busy sleeps: it stays runnable, so nobody has to wake it.
const YIELDS: u32 = 5;

/// So many bursts in a row that did not empty the TAP call for the helper.
const HEAVY: u32 = 4;

/// How long the helper waits for another frame.
const HELPER_PATIENCE: Duration = Duration::from_millis(2);

/// How often what is said of datagrams is listened to, while there is no rest: it takes room from those that come.
const HEED: Duration = Duration::from_millis(100);

/// How long a thread that fails to wait pauses, so that it does not spin.
const PAUSE: Duration = Duration::from_millis(10);

/// The right to read the TAP, handed to and fro.
pub(super) struct Baton {
    reading: Mutex<Reading>,
    helper_has_it: AtomicBool,
}

impl Baton {
    pub(super) const fn new(reading: Reading) -> Self {
        Self {
            reading: Mutex::new(reading),
            helper_has_it: AtomicBool::new(false),
        }
    }

    fn take(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_with_helper(&self) -> bool {
        self.helper_has_it.load(Ordering::Acquire)
    }

    fn hand_over(&self, to_helper: bool) {
        self.helper_has_it.store(to_helper, Ordering::Release);
    }
}

/// Counts down the yields before sleep.
#[derive(Default)]
struct Wakefulness {
    left: u32,
}

impl Wakefulness {
    const fn refresh(&mut self) {
        self.left = YIELDS;
    }

    /// Lets others run; false when it is time to sleep.
    fn stay(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        thread::yield_now();
        true
    }
}

/// Takes frames off the TAP until it is dry, a burst at most: how many there were.
fn burst(reading: &mut Reading, now: Instant) -> usize {
    (0..BURST)
        .take_while(|_| reading.step(now) == Step::Frame)
        .count()
}

/// The helper's life.
pub(super) fn help(shared: &Shared, baton: &Baton) {
    loop {
        while !baton.is_with_helper() {
            if shared.stopping() {
                return;
            }
            thread::park();
        }
        read_until_dry(shared, &mut baton.take());
        baton.hand_over(false);
        shared.bell.ring();
    }
}

fn read_until_dry(shared: &Shared, reading: &mut Reading) {
    let mut awake = Wakefulness { left: YIELDS };
    while !shared.stopping() {
        let now = Instant::now();
        reading.catch_up(now);
        if burst(reading, now) > 0 {
            awake.refresh();
        } else if !awake.stay() {
            let tap = shared.tap.iter();
            let mut fds: ArrayVec<_, 1> = tap
                .map(|tap| PollFd::new(tap.as_fd(), PollFlags::POLLIN))
                .collect();
            let ready = wait(&mut fds, Some(HELPER_PATIENCE));
            if reading.resting().is_some() || !matches!(ready, Ok(1..)) {
                return;
            }
        }
    }
}

/// The main thread.
pub(super) struct Main {
    shared: Arc<Shared>,
    baton: Arc<Baton>,
    receiving: Receiving,
    helper: thread::Thread,
    awake: Wakefulness,
    /// Bursts in a row that did not empty the TAP.
    heavy: u32,
    heeded: Instant,
}

/// What a turn has done so far.
#[derive(Default)]
struct Done {
    worked: bool,
    /// Received or sealed.
    datagrams: usize,
}

/// What may be slept for.
struct Rest {
    tap: bool,
    until: Option<Instant>,
}

impl Main {
    pub(super) fn new(
        shared: Arc<Shared>,
        baton: Arc<Baton>,
        receiving: Receiving,
        helper: thread::Thread,
    ) -> Self {
        Self {
            shared,
            baton,
            receiving,
            helper,
            awake: Wakefulness::default(),
            heavy: 0,
            heeded: Instant::now(),
        }
    }

    /// Its life.
    pub(super) fn run(mut self) {
        while !self.shared.stopping() {
            self.turn(Instant::now());
        }
    }

    fn turn(&mut self, now: Instant) {
        self.receiving.catch_up(now);
        self.receiving.take_arrived(now);
        self.heed(now);
        let mut done = self.receive(now);
        let Some(rest) = self.read(&mut done, now) else {
            return;
        };
        if done.worked {
            // After a lone frame others need this processor at once.
            if done.datagrams >= BULK {
                self.awake.refresh();
            }
        } else if self.receiving.is_mid_train() || !self.awake.stay() {
            sleep(&self.shared, &rest, now);
        }
    }

    fn heed(&mut self, now: Instant) {
        if now.saturating_duration_since(self.heeded) >= HEED {
            self.heeded = now;
            for socket in self.shared.sockets.iter() {
                self.shared.heed(socket, None);
            }
            self.shared.sources.forget(now);
        }
    }

    /// Receives a burst of each socket.
    fn receive(&mut self, now: Instant) -> Done {
        let mut done = Done::default();
        for socket in self.shared.sockets.iter() {
            for _ in 0..BURST {
                let Some(count) = self.receiving.receive(socket, now) else {
                    break;
                };
                done.worked = true;
                done.datagrams += count;
            }
        }
        if !done.worked {
            self.receiving.handle_timeout(now);
        }
        done
    }

    /// Reads a burst of the TAP, unless the helper does: what may be slept for; nothing if the helper does from here on.
    fn read(&mut self, done: &mut Done, now: Instant) -> Option<Rest> {
        let receiving = self.receiving.poll_timeout();
        if self.baton.is_with_helper() {
            let (tap, until) = (false, receiving);
            return Some(Rest { tap, until });
        }
        let mut reading = self.baton.take();
        reading.catch_up(now);
        let sealed = reading.sealed();
        let frames = burst(&mut reading, now);
        done.worked |= frames > 0;
        done.datagrams += reading.sealed() - sealed;
        self.heavy = if frames == BURST { self.heavy + 1 } else { 0 };
        if reading.poll_timeout().is_some_and(|at| now >= at) {
            reading.handle_timeout(now);
        }
        if self.heavy == HEAVY {
            self.heavy = 0;
            reading.flush(now);
            drop(reading);
            self.baton.hand_over(true);
            self.helper.unpark();
            return None;
        }
        Some(Rest {
            tap: reading.resting().is_none(),
            until: receiving.into_iter().chain(reading.poll_timeout()).min(),
        })
    }
}

/// Sleeps until a socket, the bell, or the TAP if it is to be read has something.
fn sleep(shared: &Shared, rest: &Rest, now: Instant) {
    let sockets: ArrayVec<&UdpSocket, 2> = shared.sockets.iter().collect();
    let mut fds = ArrayVec::<PollFd<'_>, 4>::new();
    for socket in &sockets {
        fds.push(PollFd::new(socket.as_fd(), PollFlags::POLLIN));
    }
    fds.push(PollFd::new(shared.bell.as_fd(), PollFlags::POLLIN));
    if let Some(tap) = shared.tap.as_ref().filter(|_| rest.tap) {
        fds.push(PollFd::new(tap.as_fd(), PollFlags::POLLIN));
    }
    let timeout = rest.until.map(|at| at.saturating_duration_since(now));
    if wait(&mut fds, timeout).is_err() {
        thread::sleep(PAUSE);
    }
    for (socket, fd) in sockets.iter().zip(&fds) {
        // Until it is read, no sleep lasts.
        if fd
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLERR))
        {
            shared.heed(socket, None);
        }
    }
    shared.bell.hear();
}
