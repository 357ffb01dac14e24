//! UDP: numbered datagrams at a given rate, and what became of each.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use weft_kernel::netns::NetNs;

use crate::LabError;

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpTest {
    /// How many datagrams.
    pub count: u32,
    /// How many a second; as fast as the socket takes them if `None`.
    pub per_second: Option<u32>,
    /// Bytes of each, at least 4 for its number.
    pub size: usize,
    /// How long the receiver waits for stragglers after the last one was sent.
    pub patience: Duration,
}

/// What became of the datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UdpReport {
    /// Copies beyond the first.
    pub duplicates: u32,
    /// Never arrived.
    pub lost: u32,
    /// Arrived once or more.
    pub received: u32,
    /// Arrived after one that was sent later.
    pub reordered: u32,
    /// Accepted by the sender's socket.
    pub sent: u32,
}

/// Sends numbered datagrams from one namespace to an address of another. Port 0 picks one.
pub fn udp_stream(
    sender: &NetNs,
    receiver: &NetNs,
    to: SocketAddr,
    test: UdpTest,
) -> Result<UdpReport, LabError> {
    let (output, input) = connect(sender, receiver, to)?;
    // The receiver must not be what loses.
    let _ = socket2::SockRef::from(&input).set_recv_buffer_size(32 << 20);

    thread::scope(|scope| {
        let sending = scope.spawn(|| send(&output, test));
        let mut tally = Tally::new(test.count);
        let mut buffer = vec![0; test.size.max(4)];
        let mut deadline: Option<Instant> = None;
        input
            .set_read_timeout(Some(Duration::from_millis(20)))
            .map_err(LabError::io("set a time limit"))?;
        loop {
            match input.recv(&mut buffer) {
                Ok(length) => tally.count(&buffer[..length]),
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(LabError::io("receive datagrams")(error)),
            }
            if sending.is_finished() {
                let end = *deadline.get_or_insert_with(|| Instant::now() + test.patience);
                if Instant::now() >= end {
                    break;
                }
            }
        }
        let sent = sending
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(tally.finish(sent))
    })
}

/// Sends one payload many times from one namespace to an address of another, and returns how many copies arrived.
/// Port 0 picks one. Each waits for the one before, so that no queue on the way overflows.
pub fn udp_copies(
    sender: &NetNs,
    receiver: &NetNs,
    to: SocketAddr,
    payload: &[u8],
    count: usize,
) -> Result<usize, LabError> {
    let (output, input) = connect(sender, receiver, to)?;
    input
        .set_read_timeout(Some(Duration::from_millis(200)))
        .map_err(LabError::io("set a time limit"))?;
    let mut buffer = vec![0; payload.len() + 1];
    let mut received = 0;
    for _ in 0..count {
        output
            .send(payload)
            .map_err(LabError::io("send datagrams"))?;
        match input.recv(&mut buffer) {
            Ok(length) => received += usize::from(buffer[..length] == *payload),
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(LabError::io("receive datagrams")(error)),
        }
    }
    Ok(received)
}

fn connect(
    sender: &NetNs,
    receiver: &NetNs,
    to: SocketAddr,
) -> Result<(UdpSocket, UdpSocket), LabError> {
    let input = receiver
        .run(|| UdpSocket::bind(to))?
        .map_err(LabError::io(format!("bind to {to}")))?;
    let to = input.local_addr().map_err(LabError::io("ask for a port"))?;
    let any: SocketAddr = if to.is_ipv4() {
        ([0u8; 4], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let output = sender
        .run(|| UdpSocket::bind(any))?
        .map_err(LabError::io("bind to any port"))?;
    output
        .connect(to)
        .map_err(LabError::io(format!("send to {to}")))?;
    Ok((output, input))
}

/// A refused datagram is not sent: the report tells.
fn send(output: &UdpSocket, test: UdpTest) -> u32 {
    let start = Instant::now();
    let mut datagram = vec![0x5a; test.size.max(4)];
    let mut sent = 0;
    for number in 0..test.count {
        if let Some(rate) = test.per_second.filter(|&rate| rate > 0) {
            let due = Duration::from_secs_f64(f64::from(number) / f64::from(rate));
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
        datagram[..4].copy_from_slice(&number.to_be_bytes());
        sent += u32::from(output.send(&datagram).is_ok());
    }
    sent
}

pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        // A connected socket may also be told that nobody listens yet.
        io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
    )
}

struct Tally {
    latest: Option<u32>,
    report: UdpReport,
    seen: Vec<bool>,
}

impl Tally {
    fn new(count: u32) -> Self {
        Self {
            latest: None,
            report: UdpReport::default(),
            seen: vec![false; count as usize],
        }
    }

    fn count(&mut self, datagram: &[u8]) {
        let Some(Ok(number)) = datagram.get(..4).map(<[u8; 4]>::try_from) else {
            return;
        };
        let number = u32::from_be_bytes(number);
        let Some(seen) = self.seen.get_mut(number as usize) else {
            return;
        };
        if std::mem::replace(seen, true) {
            self.report.duplicates += 1;
            return;
        }
        self.report.received += 1;
        self.report.reordered += u32::from(self.latest.is_some_and(|latest| number < latest));
        self.latest = self.latest.max(Some(number));
    }

    fn finish(mut self, sent: u32) -> UdpReport {
        self.report.sent = sent;
        self.report.lost = sent.saturating_sub(self.report.received);
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fate_is_told_apart() {
        let mut tally = Tally::new(5);

        for number in [0u32, 2, 1, 2, 4] {
            tally.count(&number.to_be_bytes());
        }
        tally.count(&[1, 2]);
        tally.count(&9u32.to_be_bytes());

        let expected = UdpReport {
            duplicates: 1,
            lost: 1,
            received: 4,
            reordered: 1,
            sent: 5,
        };
        assert_eq!(tally.finish(5), expected);
    }
}
