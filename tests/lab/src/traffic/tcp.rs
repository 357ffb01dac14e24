//! TCP: how fast a stream is, and whether every byte of it arrives.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use weft_kernel::netns::NetNs;

use crate::LabError;
use crate::shaper::Chance;

/// Large enough that the calls cost nothing beside the copying.
const CHUNK: usize = 256 << 10;

/// A stream that stands still this long has failed.
const STALL: Duration = Duration::from_secs(30);

/// How much a stream carried, seen by the receiver from its first byte to its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throughput {
    /// Bytes received.
    pub bytes: u64,
    /// Time between the first and the last of them.
    pub elapsed: Duration,
}

/// Why a transfer was not complete and true.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A byte is not what was sent.
    #[error("byte {at} of the stream is wrong")]
    Altered {
        /// Where, from the beginning.
        at: u64,
    },
    /// The sockets failed, or stood still for 30 seconds.
    #[error("the transfer stopped after {received} bytes: {source}")]
    Broken {
        /// Bytes that had arrived.
        received: u64,
        /// What the socket said.
        source: io::Error,
    },
    /// The lab failed.
    #[error(transparent)]
    Lab(#[from] LabError),
}

impl Throughput {
    /// Returns bits per second.
    pub fn bits_per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people and ratios")]
        let bytes = self.bytes as f64;
        if self.elapsed.is_zero() {
            0.0
        } else {
            bytes * 8.0 / self.elapsed.as_secs_f64()
        }
    }
}

/// Sends as much as one stream takes for a while. `to` is an address of the receiving namespace; port 0 picks one.
pub fn tcp_throughput(
    sender: &NetNs,
    receiver: &NetNs,
    to: SocketAddr,
    duration: Duration,
) -> Result<Throughput, LabError> {
    let (mut output, mut input) = connect(sender, receiver, to)?;
    thread::scope(|scope| {
        let sending = scope.spawn(move || {
            let chunk = vec![0x5a; CHUNK];
            let end = Instant::now() + duration;
            while Instant::now() < end {
                output.write_all(&chunk)?;
            }
            // The receiver stops the clock here; what is still on its way does not count.
            output.shutdown(Shutdown::Both)
        });
        let mut chunk = vec![0; CHUNK];
        let mut bytes = 0;
        let mut span: Option<(Instant, Instant)> = None;
        let outcome = loop {
            match input.read(&mut chunk) {
                Ok(0) => break Ok(()),
                Ok(length) => {
                    bytes += length as u64;
                    let now = Instant::now();
                    span = Some((span.map_or(now, |(first, _)| first), now));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // Ends a sender that waits for us.
        let _ = input.shutdown(Shutdown::Both);
        let sent = sending
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        outcome.and(sent).map_err(LabError::io("carry a stream"))?;
        let elapsed = span.map_or(Duration::ZERO, |(first, last)| last - first);
        Ok(Throughput { bytes, elapsed })
    })
}

/// Sends `bytes` bytes that nothing on the way can guess, and compares each one. Returns how long it took.
pub fn tcp_transfer(
    sender: &NetNs,
    receiver: &NetNs,
    to: SocketAddr,
    bytes: u64,
) -> Result<Duration, TransferError> {
    let (mut output, mut input) = connect(sender, receiver, to)?;
    let start = Instant::now();
    thread::scope(|scope| {
        let sending = scope.spawn(move || {
            let mut pattern = Pattern::new();
            let mut left = bytes;
            while left > 0 {
                let chunk = pattern.take(left);
                output.write_all(chunk)?;
                left -= chunk.len() as u64;
            }
            output.shutdown(Shutdown::Write)?;
            Ok(output)
        });
        let received = compare(&mut input, bytes);
        if received.is_err() {
            let _ = input.shutdown(Shutdown::Both);
        }
        let sent: io::Result<TcpStream> = sending
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        received?;
        sent.map_err(|source| TransferError::Broken {
            received: bytes,
            source,
        })?;
        Ok(start.elapsed())
    })
}

fn compare(input: &mut TcpStream, bytes: u64) -> Result<(), TransferError> {
    let mut pattern = Pattern::new();
    let mut chunk = vec![0; CHUNK];
    let mut received = 0;
    while received < bytes {
        let expected = pattern.take(bytes - received);
        let got = &mut chunk[..expected.len()];
        input
            .read_exact(got)
            .map_err(|source| TransferError::Broken { received, source })?;
        if let Some(at) = got
            .iter()
            .zip(expected)
            .position(|(got, expected)| got != expected)
        {
            return Err(TransferError::Altered {
                at: received + at as u64,
            });
        }
        received += got.len() as u64;
    }
    Ok(())
}

/// Opens a stream from one namespace to an address in another.
fn connect(
    sender: &NetNs,
    receiver: &NetNs,
    to: SocketAddr,
) -> Result<(TcpStream, TcpStream), LabError> {
    let listener = receiver
        .run(|| TcpListener::bind(to))?
        .map_err(LabError::io(format!("listen on {to}")))?;
    let to = listener
        .local_addr()
        .map_err(LabError::io("ask for a port"))?;
    let output = sender
        .run(|| TcpStream::connect_timeout(&to, STALL))?
        .map_err(LabError::io(format!("connect to {to}")))?;
    let (input, _) = listener.accept().map_err(LabError::io("accept a stream"))?;
    for stream in [&output, &input] {
        stream
            .set_read_timeout(Some(STALL))
            .map_err(LabError::io("set a time limit"))?;
        stream
            .set_write_timeout(Some(STALL))
            .map_err(LabError::io("set a time limit"))?;
    }
    Ok((output, input))
}

/// The same bytes on both sides: a block of chance, its first bytes changed from block to block so that none repeats.
struct Pattern {
    block: Vec<u8>,
    number: u64,
}

impl Pattern {
    fn new() -> Self {
        let mut chance = Chance(0x77_65_66_74);
        let block = (0..CHUNK / 8)
            .flat_map(|_| chance.next().to_be_bytes())
            .collect();
        Self { block, number: 0 }
    }

    fn take(&mut self, left: u64) -> &[u8] {
        self.number += 1;
        self.block[..8].copy_from_slice(&self.number.to_be_bytes());
        let length = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        &self.block[..length]
    }
}
