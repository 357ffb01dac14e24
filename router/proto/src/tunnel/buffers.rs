//! The memory that datagrams are received to, and the train whose cars lie there.
//!
//! **Invariant.** What an open train points at stays where it is: while one is open each receive goes to the next buffer,
//! and a train is over before its first buffer is used again.

use std::time::{Duration, Instant};

use crate::sleeve::train::Join;

/// One receive: as much as the kernel joins.
pub const BUFFER: usize = 1 << 16;

/// Over how many receives a train may stretch.
const BUFFERS: usize = 4;

/// How long the rest of a train is waited for: its next send follows within microseconds.
const TRAIN_PATIENCE: Duration = Duration::from_millis(1);

pub(super) struct Buffers {
    bytes: [Vec<u8>; BUFFERS],
    current: usize,
    /// How many receives ago the open train began.
    age: usize,
    /// When something was received last.
    received: Instant,
    pub(super) join: Join,
}

impl Buffers {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            bytes: std::array::from_fn(|_| vec![0; BUFFER]),
            current: 0,
            age: 0,
            received: now,
            join: Join::default(),
        }
    }

    /// Whether the open train may not stretch over another receive.
    pub(super) const fn is_exhausted(&self) -> bool {
        self.join.is_open() && self.age + 1 == BUFFERS
    }

    /// Where to receive to next.
    pub(super) fn turn_over(&mut self) {
        if self.join.is_open() {
            self.age += 1;
            self.current = (self.current + 1) % BUFFERS;
        }
    }

    /// A train begins in the current buffer.
    pub(super) const fn begin_train(&mut self) {
        self.age = 0;
    }

    pub(super) const fn note_received(&mut self, now: Instant) {
        self.received = now;
    }

    /// When an open train is finished as it is, if nothing comes before.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let open = self.join.is_open();
        open.then(|| self.received + TRAIN_PATIENCE)
    }

    pub(super) const fn current(&self) -> usize {
        self.current
    }

    pub(super) fn now(&self) -> &[u8] {
        &self.bytes[self.current]
    }

    pub(super) fn now_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.current]
    }

    pub(super) fn bytes(&self) -> &[Vec<u8>] {
        &self.bytes
    }

    /// The train, and where its first piece lies.
    pub(super) fn join_and_head(&mut self) -> Option<(&mut Join, &mut [u8])> {
        let first = *self.join.spans().first()?;
        let head = &mut self.bytes[first.buffer][first.start..first.start + first.len];
        Some((&mut self.join, head))
    }
}
