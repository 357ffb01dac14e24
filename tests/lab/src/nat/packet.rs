//! Reads and rewrites the two ends of an IPv4 packet, its checksums included.
//!
//! A finished checksum is amended (RFC 1624), so that one that was wrong stays wrong; an unfinished one is computed.

use std::net::{Ipv4Addr, SocketAddrV4};

use weft_kernel::packet::Offload;

use super::table::{Protocol, socket};
use crate::packet::{self, amended, protocol};

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
/// Destination unreachable, time exceeded, parameter problem (RFC 792): each quotes the packet that it is about.
const ERRORS: [u8; 3] = [3, 11, 12];
const ICMP_HEADER: usize = 8;

/// Where the addresses stand in an IPv4 header.
const SOURCE: usize = 12;
const TARGET: usize = 16;

/// What a gateway sees in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// An error about a packet that went the other way.
    Error {
        from: Ipv4Addr,
        to: Ipv4Addr,
        about: Flow,
    },
    /// A packet of its own.
    Flow(Flow),
}

/// Who sends what to whom. An echo has its identifier at the end that asks, and no port at the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) protocol: Protocol,
    pub(super) from: SocketAddrV4,
    pub(super) to: SocketAddrV4,
}

/// One whole IPv4 packet without anything around it.
#[derive(Debug)]
pub(super) struct Packet {
    bytes: Vec<u8>,
    /// Where what it carries begins.
    payload: usize,
}

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Target,
}

impl Packet {
    /// Takes a packet as it stands in a frame, behind the Ethernet header; nothing if it is none, or only a part of one.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let packet = packet::Packet::of_ip(bytes)?;
        let payload = packet.payload.filter(|&payload| payload <= packet.said)?;
        (packet.is_v4() && packet.whole).then_some(())?;
        Some(Self {
            bytes: bytes.get(..packet.said)?.to_vec(),
            payload,
        })
    }

    /// Returns what the packet is; nothing for protocols that no translator knows.
    pub(super) fn sight(&self) -> Option<Sight> {
        let (icmp, (from, to)) = (&self.bytes[self.payload..], ends(&self.bytes));
        if self.bytes[9] == protocol::ICMP && ERRORS.contains(icmp.first()?) {
            let about = flow(icmp.get(ICMP_HEADER..)?)?;
            return Some(Sight::Error { from, to, about });
        }
        flow(&self.bytes).map(Sight::Flow)
    }

    /// Computes a checksum that the sender left to others.
    pub(super) fn finish(&mut self, offload: &Offload) {
        if offload.checksum().is_some() {
            self.sum();
        }
    }

    fn sum(&mut self) {
        if let Some(packet) = packet::Packet::of_ip(&self.bytes) {
            packet::finish(&packet, &mut self.bytes);
        }
    }

    /// Counts the hop; says whether the packet may go on.
    pub(super) fn hop(&mut self) -> bool {
        if self.bytes[8] <= 1 {
            return false;
        }
        let before = [self.bytes[8], self.bytes[9]];
        self.bytes[8] -= 1;
        let after = [self.bytes[8], self.bytes[9]];
        amend(&mut self.bytes, 10, &before, &after);
        true
    }

    /// Writes another address, and another port or identifier, at one end.
    pub(super) fn set(&mut self, end: End, to: SocketAddrV4) {
        set(&mut self.bytes, end, to);
    }

    /// Writes the other address of an error, and the same into the packet that it quotes, where that is the other end.
    pub(super) fn set_error(&mut self, end: End, to: SocketAddrV4) {
        let opposite = match end {
            End::Source => End::Target,
            End::Target => End::Source,
        };
        if let Some(quoted) = self.bytes.get_mut(self.payload + ICMP_HEADER..) {
            set(quoted, opposite, to);
        }
        set_address(&mut self.bytes, end, *to.ip());
        self.sum();
    }

    /// Returns the packet.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads the ends of a packet, of which a quotation may have kept 8 bytes behind the header.
fn flow(bytes: &[u8]) -> Option<Flow> {
    let packet = packet::Packet::of_ip(bytes).filter(packet::Packet::is_v4)?;
    let body = bytes.get(packet.payload?..)?.first_chunk::<8>()?;
    let (source, target) = ends(bytes);
    let identifier = u16::from_be_bytes([body[4], body[5]]);
    let (protocol, from, to) = match (packet.protocol, body[0], packet.ports) {
        (protocol::ICMP, ECHO_REQUEST, _) => (Protocol::Echo, identifier, 0),
        (protocol::ICMP, ECHO_REPLY, _) => (Protocol::Echo, 0, identifier),
        (protocol::TCP, _, Some([from, to])) => (Protocol::Tcp, from, to),
        (protocol::UDP, _, Some([from, to])) => (Protocol::Udp, from, to),
        _ => return None,
    };
    Some(Flow {
        protocol,
        from: socket(source, from),
        to: socket(target, to),
    })
}

/// Reads the two addresses of a packet that has a whole header.
fn ends(packet: &[u8]) -> (Ipv4Addr, Ipv4Addr) {
    let at = |at: usize| {
        let [a, b, c, d] = [at, at + 1, at + 2, at + 3].map(|at| packet[at]);
        Ipv4Addr::new(a, b, c, d)
    };
    (at(SOURCE), at(TARGET))
}

fn set(bytes: &mut [u8], end: End, to: SocketAddrV4) {
    let Some(packet) = packet::Packet::of_ip(bytes).filter(packet::Packet::is_v4) else {
        return;
    };
    let Some(payload) = packet.payload else {
        return;
    };
    let (address, port) = match (packet.protocol, end) {
        (protocol::ICMP, End::Source) => (SOURCE, payload + 4),
        (protocol::ICMP, End::Target) => (TARGET, payload + 4),
        (_, End::Source) => (SOURCE, payload),
        (_, End::Target) => (TARGET, payload + 2),
    };
    let Some(old_port) = bytes.get(port..port + 2).map(<[u8]>::to_vec) else {
        return;
    };
    let new_port = to.port().to_be_bytes();
    let is_udp = packet.protocol == protocol::UDP;
    let sum = packet.sum_place(bytes);
    // No checksum at all (RFC 768) stays none.
    if let Some(at) = sum.filter(|&at| !is_udp || bytes[at..at + 2] != [0, 0]) {
        // The pseudo header of ICMP has no addresses.
        if packet.protocol != protocol::ICMP {
            let old = bytes[address..address + 4].to_vec();
            amend(bytes, at, &old, &to.ip().octets());
        }
        amend(bytes, at, &old_port, &new_port);
        if is_udp && bytes[at..at + 2] == [0, 0] {
            bytes[at..at + 2].fill(0xff);
        }
    }
    bytes[port..port + 2].copy_from_slice(&new_port);
    set_address(bytes, end, *to.ip());
}

fn set_address(packet: &mut [u8], end: End, to: Ipv4Addr) {
    let at = match end {
        End::Source => SOURCE,
        End::Target => TARGET,
    };
    let before = packet[at..at + 4].to_vec();
    packet[at..at + 4].copy_from_slice(&to.octets());
    amend(packet, 10, &before, &to.octets());
}

fn amend(bytes: &mut [u8], at: usize, before: &[u8], after: &[u8]) {
    let sum = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    bytes[at..at + 2].copy_from_slice(&amended(sum, before, after).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{checksum, fragment, ipv4};

    const FROM: SocketAddrV4 = socket(Ipv4Addr::new(192, 168, 1, 1), 4000);
    const TO: SocketAddrV4 = socket(Ipv4Addr::new(192, 0, 2, 7), 5000);
    const OTHER: SocketAddrV4 = socket(Ipv4Addr::new(203, 0, 113, 9), 61_000);

    /// A packet with right checksums and some bytes in it.
    fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = ipv4([*FROM.ip(), *TO.ip()], kind, fragment::NEVER, body);
        packet::finish(&packet::Packet::of_ip(&bytes).unwrap(), &mut bytes);
        bytes
    }

    fn udp() -> Vec<u8> {
        let datagram = packet::udp([FROM.port(), TO.port()], b"seven!!");
        packet(protocol::UDP, &datagram)
    }

    fn tcp() -> Vec<u8> {
        let ports = [FROM.port(), TO.port()].map(u16::to_be_bytes).concat();
        packet(
            protocol::TCP,
            &[&ports[..], &[7; 12], &[0; 4], b"odd"].concat(),
        )
    }

    fn echo(kind: u8) -> Vec<u8> {
        packet(protocol::ICMP, &[kind, 0, 0, 0, 0x0f, 0xa0, 0, 1, 9, 9, 9])
    }

    /// The sum of the header, and that of what the packet carries; zero if the one in it is right.
    fn sums(bytes: &[u8]) -> (u16, u16) {
        let carried = packet::sum(&packet::Packet::of_ip(bytes).unwrap(), bytes);
        (checksum(&bytes[..20]), carried.unwrap())
    }

    #[test]
    fn every_end_is_written_and_the_sums_stay_right() {
        for bytes in [udp(), tcp()] {
            let mut packet = Packet::parse(&bytes).unwrap();
            packet.set(End::Source, OTHER);
            assert!(packet.hop());
            let Some(Sight::Flow(flow)) = packet.sight() else {
                panic!("{bytes:?}");
            };
            assert_eq!((flow.from, flow.to), (OTHER, TO));
            packet.set(End::Target, FROM);
            let Some(Sight::Flow(flow)) = packet.sight() else {
                panic!("{bytes:?}");
            };
            assert_eq!((flow.from, flow.to), (OTHER, FROM));

            let bytes = packet.into_bytes();
            assert_eq!(sums(&bytes), (0, 0));
            assert_eq!(bytes[8], 63);
        }
    }

    #[test]
    fn an_echo_keeps_one_identifier_both_ways() {
        let identifier = 0x0fa0;
        for (kind, ends) in [
            (ECHO_REQUEST, (identifier, 0)),
            (ECHO_REPLY, (0, identifier)),
        ] {
            let mut packet = Packet::parse(&echo(kind)).unwrap();
            let Some(Sight::Flow(flow)) = packet.sight() else {
                panic!("an echo");
            };
            assert_eq!((flow.from.port(), flow.to.port()), ends);

            packet.set(
                if kind == ECHO_REQUEST {
                    End::Source
                } else {
                    End::Target
                },
                OTHER,
            );

            let bytes = packet.into_bytes();
            assert_eq!(sums(&bytes), (0, 0));
            assert_eq!(bytes[24..26], OTHER.port().to_be_bytes());
        }
    }

    #[test]
    fn a_wrong_sum_stays_wrong_and_none_stays_none() {
        let mut wrong = udp();
        wrong[30] ^= 1;
        let mut none = udp();
        none[26..28].fill(0);

        for (bytes, expected) in [(wrong, false), (none.clone(), false)] {
            let mut packet = Packet::parse(&bytes).unwrap();
            packet.set(End::Source, OTHER);
            assert_eq!(sums(&packet.into_bytes()).1 == 0, expected);
        }
        let mut packet = Packet::parse(&none).unwrap();
        packet.set(End::Source, OTHER);
        assert_eq!(packet.into_bytes()[26..28], [0, 0]);
    }

    #[test]
    fn an_error_is_rewritten_with_what_it_quotes() {
        // What OTHER has sent to TO did not fit; TO is told to say so to OTHER, who is FROM really.
        let mut quoted = Packet::parse(&udp()).unwrap();
        quoted.set(End::Source, OTHER);
        let quoted = quoted.into_bytes();
        let body = [&[3, 4, 0, 0, 0, 0, 5, 0][..], &quoted[..28]].concat();
        let error = ipv4([*TO.ip(), *OTHER.ip()], protocol::ICMP, 0, &body);
        let mut packet = Packet::parse(&error).unwrap();
        let Some(Sight::Error { from, to, about }) = packet.sight() else {
            panic!("an error");
        };
        assert_eq!((from, to), (*TO.ip(), *OTHER.ip()));
        assert_eq!((about.from, about.to), (OTHER, TO));

        packet.set_error(End::Target, FROM);

        let Some(Sight::Error { to, about, .. }) = packet.sight() else {
            panic!("an error");
        };
        assert_eq!((to, about.from, about.to), (*FROM.ip(), FROM, TO));
        let bytes = packet.into_bytes();
        assert_eq!(sums(&bytes), (0, 0));
        assert_eq!(checksum(&bytes[28..48]), 0);
    }

    #[test]
    fn parts_and_ends_of_packets_are_refused_without_panic() {
        let mut fragment = udp();
        fragment[6] = 0x20;
        assert!(Packet::parse(&fragment).is_none());
        for bytes in [udp(), tcp(), echo(3), echo(8)] {
            for end in 0..bytes.len() {
                assert!(Packet::parse(&bytes[..end]).is_none());
                // A header that promises no more than there is.
                let mut cut = bytes[..end].to_vec();
                if let (Some(place), Ok(total)) = (cut.get_mut(2..4), u16::try_from(end)) {
                    place.copy_from_slice(&total.to_be_bytes());
                }
                if let Some(mut packet) = Packet::parse(&cut) {
                    match packet.sight() {
                        Some(Sight::Flow(_)) => packet.set(End::Source, OTHER),
                        Some(Sight::Error { .. }) => packet.set_error(End::Target, OTHER),
                        None => {}
                    }
                }
            }
        }
    }
}
