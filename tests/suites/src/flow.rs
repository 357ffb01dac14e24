//! Steady talk between containers while their mesh is mistreated: how long it falls silent, and what is lost of it.
//!
//! A [`Flow`] is numbered datagrams at a fixed rate, a [`Conversation`] one TCP connection over which a word goes and
//! comes back. Both run in threads of their own and end with their values.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use weft_lab::wait_until;

use crate::mesh::{Mesh, PATIENCE};
use crate::wire::room;

/// A sleeping thread of a busy machine wakes late; what is due by then goes out in one burst.
const TICK: Duration = Duration::from_millis(1);

/// How long a thread may take to see that it shall stop.
const LOOK: Duration = Duration::from_millis(20);

/// What a flow sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Datagrams a second.
    pub per_second: u32,
    /// Bytes of each, at least 4 for its number.
    pub size: usize,
}

impl Pace {
    /// Fine enough to measure a gap of tens of milliseconds, and light.
    pub const STEADY: Self = Self {
        per_second: 500,
        size: 300,
    };
}

/// Numbered datagrams from one container to another, until dropped.
#[derive(Debug)]
pub struct Flow {
    over: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    tally: Arc<Mutex<Tally>>,
    threads: Vec<JoinHandle<()>>,
}

/// A moment of a flow.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// When.
    pub at: Instant,
    number: u32,
}

#[derive(Debug, Default)]
struct Tally {
    arrivals: Vec<(Instant, u32)>,
    seen: Vec<bool>,
    /// The numbers that came again.
    doubled: Vec<u32>,
}

impl Flow {
    /// Starts to talk.
    pub fn start(mesh: &Mesh, from: usize, to: usize, pace: Pace) -> Self {
        let bind = |at: usize| {
            let namespace = mesh.node(at).container.netns();
            let bound = namespace.run(|| UdpSocket::bind(mesh.socket(at)));
            bound.unwrap().unwrap()
        };
        let (output, input) = (bind(from), bind(to));
        Self::between(output, input, pace)
    }

    /// Starts to talk from one socket to another.
    pub fn between(output: UdpSocket, input: UdpSocket, pace: Pace) -> Self {
        output.connect(input.local_addr().unwrap()).unwrap();
        // The receiver must not be what loses.
        room(&input, 32 << 20);
        let over = Arc::<AtomicBool>::default();
        let sent = Arc::<AtomicU32>::default();
        let tally = Arc::<Mutex<Tally>>::default();
        let speaking = {
            let (over, sent) = (Arc::clone(&over), Arc::clone(&sent));
            thread::spawn(move || speak(&output, pace, &sent, &over))
        };
        let listening = {
            let (over, tally) = (Arc::clone(&over), Arc::clone(&tally));
            thread::spawn(move || listen(&input, pace, &tally, &over))
        };
        Self {
            over,
            sent,
            tally,
            threads: vec![speaking, listening],
        }
    }

    /// Notes where the flow is.
    pub fn mark(&self) -> Mark {
        Mark {
            at: Instant::now(),
            number: self.sent.load(Ordering::Relaxed),
        }
    }

    /// Waits until a datagram has arrived that was sent after a moment; says how long after it that was.
    pub fn heard_after(&self, mark: Mark, patience: Duration) -> Option<Duration> {
        wait_until(patience, || {
            let tally = self.tally();
            let last = tally.arrivals.last();
            last.is_some_and(|&(_, number)| number > mark.number)
        })?;
        Some(mark.at.elapsed())
    }

    /// Waits until so many more datagrams have arrived than at this moment.
    #[track_caller]
    pub fn more(&self, count: usize) {
        let target = self.tally().arrivals.len() + count;
        let reached = || self.tally().arrivals.len() >= target;
        assert!(
            wait_until(PATIENCE, reached).is_some(),
            "a flow fell silent"
        );
    }

    /// Returns the longest silence between two moments.
    pub fn gap(&self, from: Mark, to: Mark) -> Duration {
        let tally = self.tally();
        let first = tally.arrivals.partition_point(|&(at, _)| at < from.at);
        let within = tally.arrivals[first..].iter().map(|&(at, _)| at);
        let mut last = from.at;
        let mut longest = Duration::ZERO;
        for at in within.take_while(|&at| at < to.at).chain([to.at]) {
            longest = longest.max(at.saturating_duration_since(last));
            last = at;
        }
        longest
    }

    /// Counts what was sent between two moments and has not arrived. What is under way counts as lost: wait first.
    pub fn lost(&self, from: Mark, to: Mark) -> usize {
        let tally = self.tally();
        (from.number..to.number)
            .filter(|&number| tally.seen.get(number as usize) != Some(&true))
            .count()
    }

    /// Counts what was sent between two moments.
    pub fn sent(&self, from: Mark, to: Mark) -> usize {
        (to.number - from.number) as usize
    }

    /// Counts what arrived more than once since the beginning.
    pub fn doubled(&self) -> usize {
        self.tally().doubled.len()
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn speak(output: &UdpSocket, pace: Pace, sent: &AtomicU32, over: &AtomicBool) {
    let start = Instant::now();
    let mut datagram = vec![0x5a; pace.size.max(4)];
    let mut number: u32 = 0;
    while !over.load(Ordering::Relaxed) {
        let due = start.elapsed().as_secs_f64() * f64::from(pace.per_second);
        while f64::from(number) < due {
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            // Without a way it is lost here; that is what is measured.
            let _ = output.send(&datagram);
            number += 1;
            sent.store(number, Ordering::Relaxed);
        }
        thread::sleep(TICK);
    }
}

fn listen(input: &UdpSocket, pace: Pace, tally: &Mutex<Tally>, over: &AtomicBool) {
    let mut buffer = vec![0; pace.size.max(4) + 1];
    input.set_read_timeout(Some(LOOK)).unwrap();
    while !over.load(Ordering::Relaxed) {
        let Ok(length) = input.recv(&mut buffer) else {
            continue;
        };
        let now = Instant::now();
        let Some(number) = buffer[..length].first_chunk::<4>() else {
            continue;
        };
        let number = u32::from_be_bytes(*number);
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        let at = number as usize;
        if tally.seen.len() <= at {
            tally.seen.resize(at + 1, false);
        }
        if std::mem::replace(&mut tally.seen[at], true) {
            tally.doubled.push(number);
        } else {
            tally.arrivals.push((now, number));
        }
    }
}

/// One TCP connection between two containers, kept open whatever happens beneath it.
#[derive(Debug)]
pub struct Conversation {
    near: TcpStream,
    far: TcpStream,
    words: u32,
}

impl Conversation {
    /// Opens it.
    pub fn open(mesh: &Mesh, from: usize, to: usize) -> Self {
        let inside = |at: usize| mesh.node(at).container.netns();
        let listener = inside(to).run(|| TcpListener::bind(mesh.socket(to)));
        let listener = listener.unwrap().unwrap();
        let place = listener.local_addr().unwrap();
        let near = inside(from).run(|| TcpStream::connect_timeout(&place, PATIENCE));
        let near = near.unwrap().unwrap();
        let (far, _) = listener.accept().unwrap();
        for stream in [&near, &far] {
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        Self {
            near,
            far,
            words: 0,
        }
    }

    /// Sends a word there and back, and returns how long that took.
    pub fn exchange(&mut self) -> io::Result<Duration> {
        let start = Instant::now();
        self.words += 1;
        let word = self.words.to_be_bytes();
        let mut heard = [0; 4];
        self.near.write_all(&word)?;
        self.far.read_exact(&mut heard)?;
        self.far.write_all(&heard)?;
        self.near.read_exact(&mut heard)?;
        assert_eq!(heard, word, "a stream lost its order");
        Ok(start.elapsed())
    }
}
