//! Reads and rewrites the two ends of an IPv4 packet, its checksums included.
//!
//! A finished checksum is amended (RFC 1624), so that one that was wrong stays wrong; an unfinished one is computed.

use std::net::{Ipv4Addr, SocketAddrV4};

use weft_kernel::packet::Offload;

use super::table::{Protocol, socket};
use crate::shaper::{amended, checksum};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
/// Destination unreachable, time exceeded, parameter problem (RFC 792): each quotes the packet that it is about.
const ERRORS: [u8; 3] = [3, 11, 12];
const ICMP_HEADER: usize = 8;

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

/// One IPv4 packet without anything around it.
#[derive(Debug)]
pub(super) struct Packet {
    bytes: Vec<u8>,
    header: usize,
}

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Target,
}

impl Packet {
    /// Takes a packet as it stands in a frame, behind the Ethernet header; nothing if it is none, or only a part of one.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let header = header(packet)?;
        let total = usize::from(word(packet, 2)?);
        let bytes = packet.get(..total).filter(|bytes| bytes.len() >= header)?;
        let fragment = word(bytes, 6)? & 0x3fff != 0;
        (!fragment).then(|| Self {
            bytes: bytes.to_vec(),
            header,
        })
    }

    /// Returns what the packet is; nothing for protocols that no translator knows.
    pub(super) fn sight(&self) -> Option<Sight> {
        let icmp = self.bytes.get(self.header..)?;
        if self.bytes[9] == ICMP && ERRORS.contains(icmp.first()?) {
            let (from, to) = ends(&self.bytes);
            let about = flow(icmp.get(ICMP_HEADER..)?)?;
            return Some(Sight::Error { from, to, about });
        }
        flow(&self.bytes).map(Sight::Flow)
    }

    /// Computes a checksum that the sender left to others.
    pub(super) fn finish(&mut self, offload: &Offload) {
        if offload.checksum().is_none() {
            return;
        }
        let Some(at) = sum_place(&self.bytes, self.header) else {
            return;
        };
        let body = &mut self.bytes[self.header..];
        body[at - self.header..at - self.header + 2].fill(0);
        let Ok(length) = u16::try_from(body.len()) else {
            return;
        };
        let mut sum = 0;
        if self.bytes[9] != ICMP {
            let pseudo = [
                &self.bytes[12..20],
                &[0, self.bytes[9]],
                &length.to_be_bytes(),
            ]
            .concat();
            sum = u32::from(!checksum(0, &pseudo));
        }
        let sum = match checksum(sum, &self.bytes[self.header..]) {
            0 => 0xffff,
            sum => sum,
        };
        self.bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
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
        set(&mut self.bytes, self.header, end, to);
    }

    /// Writes the other address of an error, and the same into the packet that it quotes, where that is the other end.
    pub(super) fn set_error(&mut self, end: End, to: SocketAddrV4) {
        let quoted = self.header + ICMP_HEADER;
        let Some(quoted_header) = header(&self.bytes[quoted..]) else {
            return;
        };
        let opposite = match end {
            End::Source => End::Target,
            End::Target => End::Source,
        };
        set(&mut self.bytes[quoted..], quoted_header, opposite, to);
        set_address(&mut self.bytes, end, *to.ip());
        let at = self.header + 2;
        self.bytes[at..at + 2].fill(0);
        let sum = checksum(0, &self.bytes[self.header..]);
        self.bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// Returns the packet.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Returns the length of a packet's header, if it has a whole one.
fn header(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let length = usize::from(first & 0x0f) * 4;
    (first >> 4 == 4 && length >= 20 && packet.len() >= length).then_some(length)
}

/// Reads the ends of a packet, of which a quotation may have kept 8 bytes behind the header.
fn flow(packet: &[u8]) -> Option<Flow> {
    let at = header(packet)?;
    let (source, target) = ends(packet);
    let body = packet.get(at..at + 8)?;
    let words = (word(body, 0)?, word(body, 2)?, word(body, 4)?);
    let (protocol, from, to) = match (packet[9], body[0]) {
        (ICMP, ECHO_REQUEST) => (Protocol::Echo, words.2, 0),
        (ICMP, ECHO_REPLY) => (Protocol::Echo, 0, words.2),
        (TCP, _) => (Protocol::Tcp, words.0, words.1),
        (UDP, _) => (Protocol::Udp, words.0, words.1),
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
    (at(12), at(16))
}

fn set(packet: &mut [u8], header: usize, end: End, to: SocketAddrV4) {
    let (address, port) = match (packet[9], end) {
        (ICMP, End::Source) => (12, header + 4),
        (ICMP, End::Target) => (16, header + 4),
        (_, End::Source) => (12, header),
        (_, End::Target) => (16, header + 2),
    };
    let sum = sum_place(packet, header);
    let new_port = to.port().to_be_bytes();
    if let (Some(at), Some(old_port)) = (sum, packet.get(port..port + 2).map(<[u8]>::to_vec)) {
        // No checksum at all (RFC 768) stays none.
        let none = packet[9] == UDP && packet[at..at + 2] == [0, 0];
        if !none {
            // The pseudo header of ICMP has no addresses.
            if packet[9] != ICMP {
                let old = packet[address..address + 4].to_vec();
                amend(packet, at, &old, &to.ip().octets());
            }
            amend(packet, at, &old_port, &new_port);
            if packet[9] == UDP && packet[at..at + 2] == [0, 0] {
                packet[at..at + 2].fill(0xff);
            }
        }
    }
    if let Some(place) = packet.get_mut(port..port + 2) {
        place.copy_from_slice(&new_port);
    }
    set_address(packet, end, *to.ip());
}

fn set_address(packet: &mut [u8], end: End, to: Ipv4Addr) {
    let at = match end {
        End::Source => 12,
        End::Target => 16,
    };
    let before = packet[at..at + 4].to_vec();
    packet[at..at + 4].copy_from_slice(&to.octets());
    amend(packet, 10, &before, &to.octets());
}

/// Returns where the checksum of what the packet carries is, if the packet is long enough to have it.
fn sum_place(packet: &[u8], header: usize) -> Option<usize> {
    let at = match packet[9] {
        ICMP => header + 2,
        TCP => header + 16,
        UDP => header + 6,
        _ => return None,
    };
    (packet.len() >= at + 2).then_some(at)
}

fn amend(bytes: &mut [u8], at: usize, before: &[u8], after: &[u8]) {
    let sum = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    bytes[at..at + 2].copy_from_slice(&amended(sum, before, after).to_be_bytes());
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: SocketAddrV4 = socket(Ipv4Addr::new(192, 168, 1, 1), 4000);
    const TO: SocketAddrV4 = socket(Ipv4Addr::new(192, 0, 2, 7), 5000);
    const OTHER: SocketAddrV4 = socket(Ipv4Addr::new(203, 0, 113, 9), 61_000);

    /// A packet with right checksums and some bytes in it.
    fn packet(protocol: u8, body: &[u8]) -> Vec<u8> {
        let total = u16::try_from(20 + body.len()).unwrap();
        let mut packet = vec![0x45, 0];
        packet.extend(total.to_be_bytes());
        packet.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
        packet.extend(FROM.ip().octets());
        packet.extend(TO.ip().octets());
        let sum = checksum(0, &packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(body);
        if let Some(at) = sum_place(&packet, 20) {
            let sum = body_sum(&packet);
            packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        packet
    }

    fn ports() -> Vec<u8> {
        [FROM.port().to_be_bytes(), TO.port().to_be_bytes()].concat()
    }

    fn udp() -> Vec<u8> {
        packet(UDP, &[&ports()[..], &[0, 15, 0, 0], b"seven!!"].concat())
    }

    fn tcp() -> Vec<u8> {
        packet(TCP, &[&ports()[..], &[7; 12], &[0; 4], b"odd"].concat())
    }

    fn echo(kind: u8) -> Vec<u8> {
        packet(ICMP, &[kind, 0, 0, 0, 0x0f, 0xa0, 0, 1, 9, 9, 9])
    }

    /// The sum over what the packet carries; zero if the one in it is right.
    fn body_sum(packet: &[u8]) -> u16 {
        let body = &packet[20..];
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        let pseudo = [&packet[12..20], &[0, packet[9]], &length].concat();
        let start = if packet[9] == ICMP {
            0xffff
        } else {
            checksum(0, &pseudo)
        };
        checksum(u32::from(!start), body)
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
            assert_eq!((checksum(0, &bytes[..20]), body_sum(&bytes)), (0, 0));
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
            assert_eq!((checksum(0, &bytes[..20]), body_sum(&bytes)), (0, 0));
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
            assert_eq!(body_sum(&packet.into_bytes()) == 0, expected);
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
        let mut error = packet(
            ICMP,
            &[&[3, 4, 0, 0, 0, 0, 5, 0][..], &quoted[..28]].concat(),
        );
        error[12..16].copy_from_slice(&TO.ip().octets());
        error[16..20].copy_from_slice(&OTHER.ip().octets());
        error[10..12].fill(0);
        let sum = checksum(0, &error[..20]);
        error[10..12].copy_from_slice(&sum.to_be_bytes());
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
        assert_eq!((checksum(0, &bytes[..20]), body_sum(&bytes)), (0, 0));
        assert_eq!(checksum(0, &bytes[28..48]), 0);
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
