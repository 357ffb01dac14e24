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
//! **Invariant.** One thread at a time holds [`Outbound`], and with it the counters of its lane.

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use weft_kernel::event::{PollFd, PollFlags, wait};
use weft_kernel::udp::UdpSocket;

use super::inbound::{Inbound, Received};
use super::outbound::{Outbound, Step};
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

/// How long the rest of a train is waited for: its next send follows within microseconds.
const TRAIN_PATIENCE: Duration = Duration::from_millis(1);

/// How often what waits for sessions is looked through.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// How long a thread that fails to wait pauses, so that it does not spin.
const PAUSE: Duration = Duration::from_millis(10);

/// The right to read the TAP, handed to and fro.
pub(super) struct Baton {
    outbound: Mutex<Outbound>,
    helper_has_it: AtomicBool,
}

impl Baton {
    pub(super) fn new(outbound: Outbound) -> Self {
        Self {
            outbound: Mutex::new(outbound),
            helper_has_it: AtomicBool::new(false),
        }
    }

    fn take(&self) -> MutexGuard<'_, Outbound> {
        self.outbound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts down the yields before sleep.
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

/// The helper's life.
pub(super) fn help(shared: &Shared, baton: &Baton) {
    let mut awake = Wakefulness { left: 0 };
    loop {
        while !baton.helper_has_it.load(Ordering::Acquire) {
            if shared.stopping() {
                return;
            }
            thread::park();
        }
        let mut outbound = baton.take();
        awake.refresh();
        while !shared.stopping() {
            let now = Instant::now();
            outbound.catch_up(now);
            let mut worked = false;
            for _ in 0..BURST {
                if outbound.step(now) == Step::Dry {
                    break;
                }
                worked = true;
            }
            if worked {
                awake.refresh();
            } else if !awake.stay() {
                let mut fds = [PollFd::new(shared.tap.as_fd(), PollFlags::POLLIN)];
                let ready = wait(&mut fds, Some(HELPER_PATIENCE));
                if outbound.is_resting() || !matches!(ready, Ok(1..)) {
                    break;
                }
            }
        }
        drop(outbound);
        baton.helper_has_it.store(false, Ordering::Release);
        shared.bell.ring();
    }
}

/// The main thread's life.
pub(super) fn main(
    shared: &Shared,
    baton: &Arc<Baton>,
    mut inbound: Inbound,
    helper: &thread::Thread,
) {
    let mut awake = Wakefulness { left: 0 };
    let mut heavy = 0;
    let mut mid_train_since = None;
    let mut housekept = Instant::now();
    let mut heeded = housekept;
    while !shared.stopping() {
        let now = Instant::now();
        inbound.catch_up(now);
        inbound.take_arrived(now);
        if now.saturating_duration_since(heeded) >= HOUSEKEEPING {
            // What is said of datagrams takes room from those that come.
            heeded = now;
            for socket in [&shared.sockets.v4, &shared.sockets.v6]
                .into_iter()
                .flatten()
            {
                shared.heed(socket, None);
            }
        }
        let mut datagrams = 0;
        let mut worked = false;
        for socket in [&shared.sockets.v4, &shared.sockets.v6]
            .into_iter()
            .flatten()
        {
            for _ in 0..BURST {
                match inbound.receive(socket, now) {
                    Received::Nothing => break,
                    Received::Datagrams(count) => {
                        worked = true;
                        datagrams += count;
                    }
                }
            }
        }
        if datagrams > 0 || !inbound.is_mid_train() {
            mid_train_since = None;
        }
        if inbound.is_mid_train() {
            let since = *mid_train_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= TRAIN_PATIENCE {
                inbound.finish_train();
            }
        }
        let mut waiting = inbound.control.is_waiting();
        let mut resting = false;
        let mine = !baton.helper_has_it.load(Ordering::Acquire);
        if mine {
            let mut outbound = baton.take();
            outbound.catch_up(now);
            let sealed = outbound.sender.sealed;
            let mut dry = false;
            for _ in 0..BURST {
                if outbound.step(now) == Step::Dry {
                    dry = true;
                    break;
                }
                worked = true;
            }
            datagrams += outbound.sender.sealed - sealed;
            waiting |= outbound.sender.is_waiting();
            resting = outbound.is_resting();
            heavy = if dry { 0 } else { heavy + 1 };
            if heavy == HEAVY {
                heavy = 0;
                outbound.sender.flush();
                outbound.housekeep(now);
                drop(outbound);
                baton.helper_has_it.store(true, Ordering::Release);
                helper.unpark();
                continue;
            }
        }
        if worked {
            // After a lone frame others need this processor at once.
            if datagrams >= BULK {
                awake.refresh();
            }
            continue;
        }
        if (waiting || resting) && now.saturating_duration_since(housekept) >= HOUSEKEEPING {
            housekept = now;
            inbound.control.housekeep(now);
            if mine {
                baton.take().housekeep(now);
            }
        }
        if !inbound.is_mid_train() && awake.stay() {
            continue;
        }
        let timeout = if inbound.is_mid_train() {
            Some(TRAIN_PATIENCE)
        } else if waiting || resting {
            Some(HOUSEKEEPING)
        } else {
            None
        };
        sleep(shared, mine && !resting, timeout);
    }
}

/// Sleeps until a socket, the bell, or the TAP if it is to be read has something.
fn sleep(shared: &Shared, tap: bool, timeout: Option<Duration>) {
    let sockets = [&shared.sockets.v4, &shared.sockets.v6];
    let sockets: ArrayVec<&UdpSocket, 2> = sockets.into_iter().flatten().collect();
    let mut fds = ArrayVec::<PollFd<'_>, 4>::new();
    for socket in &sockets {
        fds.push(PollFd::new(socket.as_fd(), PollFlags::POLLIN));
    }
    fds.push(PollFd::new(shared.bell.as_fd(), PollFlags::POLLIN));
    if tap {
        fds.push(PollFd::new(shared.tap.as_fd(), PollFlags::POLLIN));
    }
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
