//! Echo requests over ICMP and ICMPv6, with the time each took.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use weft_kernel::netns::NetNs;

use super::udp::is_timeout;
use crate::LabError;
use crate::packet::{Packet, checksum};

const HEADER: usize = 8;

/// Tells apart the pings of this process: a raw socket gets the answers to all.
static IDENTIFIER: AtomicU16 = AtomicU16::new(1);

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingTest {
    /// How many requests, one after the other.
    pub count: u16,
    /// How long each may take.
    pub timeout: Duration,
    /// Pause between an answer and the next request.
    pub interval: Duration,
    /// Bytes of payload: 1472 fill an Ethernet frame over IPv4. Routers may not fragment; the sender itself does, where
    /// its own device or what it learnt of the path asks for it.
    pub size: usize,
}

impl Default for PingTest {
    fn default() -> Self {
        Self {
            count: 1,
            timeout: Duration::from_secs(1),
            interval: Duration::ZERO,
            size: 56,
        }
    }
}

/// What came back, in the order of the requests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PingReport {
    /// How long each request took; `None` if it was not answered in time.
    pub times: Vec<Option<Duration>>,
}

impl PingReport {
    /// Returns how many were answered.
    pub fn answered(&self) -> usize {
        self.times.iter().flatten().count()
    }

    /// Returns how many were not.
    pub fn lost(&self) -> usize {
        self.times.len() - self.answered()
    }

    /// Returns the median time of the answered ones.
    pub fn median(&self) -> Option<Duration> {
        let mut times: Vec<Duration> = self.times.iter().flatten().copied().collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied()
    }
}

/// Sends echo requests from a namespace.
pub fn ping(from: &NetNs, to: IpAddr, test: PingTest) -> Result<PingReport, LabError> {
    let socket = from
        .run(|| open(to))?
        .map_err(LabError::io("open a socket for ping"))?;
    let identifier = IDENTIFIER.fetch_add(1, Ordering::Relaxed);
    let mut report = PingReport::default();
    for sequence in 0..test.count {
        if sequence > 0 {
            thread::sleep(test.interval);
        }
        let time = once(&socket, to, identifier, sequence, test)
            .map_err(LabError::io(format!("ping {to}")))?;
        report.times.push(time);
    }
    Ok(report)
}

fn open(to: IpAddr) -> io::Result<Socket> {
    let (domain, protocol) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    Socket::new(domain, Type::RAW, Some(protocol))
}

fn once(
    socket: &Socket,
    to: IpAddr,
    identifier: u16,
    sequence: u16,
    test: PingTest,
) -> io::Result<Option<Duration>> {
    let request = request(to, identifier, sequence, test.size);
    let start = Instant::now();
    if let Err(error) = socket.send_to(&request, &SockAddr::from(SocketAddr::new(to, 0))) {
        // No route, or too long for the first hop: an answer will not come.
        return match error.raw_os_error() {
            Some(libc::EMSGSIZE | libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENOBUFS) => {
                Ok(None)
            }
            _ => Err(error),
        };
    }
    let mut buffer = vec![0; 65_536];
    loop {
        let Some(left) = test
            .timeout
            .checked_sub(start.elapsed())
            .filter(|left| !left.is_zero())
        else {
            return Ok(None);
        };
        socket.set_read_timeout(Some(left))?;
        match (&*socket).read(&mut buffer) {
            Ok(length) if answers(to, &request, &buffer[..length]) => {
                return Ok(Some(start.elapsed()));
            }
            Ok(_) => {}
            Err(error) if is_timeout(&error) => {}
            Err(error) if error.raw_os_error() == Some(libc::EHOSTUNREACH) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

fn request(to: IpAddr, identifier: u16, sequence: u16, size: usize) -> Vec<u8> {
    let kind = if to.is_ipv4() { 8 } else { 128 };
    let mut request = vec![kind, 0, 0, 0];
    request.extend(identifier.to_be_bytes());
    request.extend(sequence.to_be_bytes());
    request.extend((0..size).map(|at| u8::try_from(at % 251).unwrap_or(0)));
    if to.is_ipv4() {
        // Over IPv6 the kernel computes it (RFC 3542 §3.1).
        let sum = checksum(&request);
        request[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    request
}

/// Says whether a packet is the answer to `request`, byte for byte.
fn answers(to: IpAddr, request: &[u8], packet: &[u8]) -> bool {
    // A raw socket of IPv4 hands over the IP header too (raw(7)).
    let (kind, icmp) = match to {
        IpAddr::V4(_) => {
            let header = Packet::of_ip(packet);
            (0, header.and_then(|header| header.carried(packet)))
        }
        IpAddr::V6(_) => (129, Some(packet)),
    };
    icmp.is_some_and(|icmp| {
        icmp.len() >= HEADER && icmp.first() == Some(&kind) && icmp[4..] == request[4..]
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::packet::{ipv4, protocol};

    #[test]
    fn only_the_answer_to_this_request_counts() {
        let to = IpAddr::from([192, 0, 2, 1]);
        let request = request(to, 7, 3, 100);
        let mut reply = request.clone();
        reply[0] = 0;
        let here = Ipv4Addr::new(192, 0, 2, 2);
        let answer = ipv4(
            [Ipv4Addr::new(192, 0, 2, 1), here],
            protocol::ICMP,
            0,
            &reply,
        );

        assert_eq!(checksum(&request), 0);
        assert!(answers(to, &request, &answer));
        assert!(!answers(to, &self::request(to, 7, 4, 100), &answer));
        assert!((0..answer.len()).all(|end| !answers(to, &request, &answer[..end])));
    }
}
