//! Says which frames a link loses on purpose, as a firewall that answers nothing does.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_FRAGMENT: u8 = 44;
const PROTOCOL_ICMPV6: u8 = 58;

/// RFC 4861 §4: router solicitation to redirect.
const DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;

/// Judges one frame.
pub type Predicate = dyn Fn(&[u8]) -> bool + Send + Sync;

/// A set of frames. Neighbour discovery is ICMPv6 and goes with it; a block of UDP or TCP leaves it alone.
#[derive(Clone)]
pub enum Match {
    /// Every frame.
    All,
    /// What is in every one of these sets.
    AllOf(Vec<Self>),
    /// What is in at least one of these sets.
    AnyOf(Vec<Self>),
    /// Every frame for which the function says so.
    Custom(Arc<Predicate>),
    /// Packets from or to an address. Neighbour discovery is left alone, as ARP is: who is cut off shall not be told so.
    Host(IpAddr),
    /// ICMP and ICMPv6.
    Icmp,
    /// Packets longer than this from the IP header on.
    LongerThan(usize),
    /// TCP, any port.
    Tcp,
    /// TCP from or to a port.
    TcpPort(u16),
    /// UDP, any port.
    Udp,
    /// UDP from or to a port.
    UdpPort(u16),
}

impl Match {
    /// Says whether a frame is in the set.
    pub fn contains(&self, frame: &[u8]) -> bool {
        let packet = Packet::parse(frame);
        let protocol = |wanted: u8| {
            packet
                .as_ref()
                .is_some_and(|packet| packet.protocol == wanted)
        };
        let port = |wanted: u16| {
            packet
                .as_ref()
                .is_some_and(|packet| packet.ports.is_some_and(|ports| ports.contains(&wanted)))
        };
        match self {
            Self::All => true,
            Self::AllOf(rules) => rules.iter().all(|rule| rule.contains(frame)),
            Self::AnyOf(rules) => rules.iter().any(|rule| rule.contains(frame)),
            Self::Custom(predicate) => predicate(frame),
            Self::Host(host) => packet.as_ref().is_some_and(|packet| {
                let ends = packet.ends(frame);
                ends.is_some_and(|ends| ends.contains(host)) && !packet.is_discovery(frame)
            }),
            Self::Icmp => protocol(PROTOCOL_ICMP) || protocol(PROTOCOL_ICMPV6),
            Self::LongerThan(limit) => packet.as_ref().is_some_and(|packet| packet.length > *limit),
            Self::Tcp => protocol(PROTOCOL_TCP),
            Self::TcpPort(wanted) => protocol(PROTOCOL_TCP) && port(*wanted),
            Self::Udp => protocol(PROTOCOL_UDP),
            Self::UdpPort(wanted) => protocol(PROTOCOL_UDP) && port(*wanted),
        }
    }
}

impl fmt::Debug for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("All"),
            Self::AllOf(rules) => write!(f, "AllOf({rules:?})"),
            Self::AnyOf(rules) => write!(f, "AnyOf({rules:?})"),
            Self::Custom(_) => f.write_str("Custom"),
            Self::Host(host) => write!(f, "Host({host})"),
            Self::Icmp => f.write_str("Icmp"),
            Self::LongerThan(limit) => write!(f, "LongerThan({limit})"),
            Self::Tcp => f.write_str("Tcp"),
            Self::TcpPort(port) => write!(f, "TcpPort({port})"),
            Self::Udp => f.write_str("Udp"),
            Self::UdpPort(port) => write!(f, "UdpPort({port})"),
        }
    }
}

/// What a rule looks at. A later fragment has no ports.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Bytes from the IP header on.
    pub(crate) length: usize,
    /// Where the IP header begins in the frame.
    pub(crate) offset: usize,
    /// Where what the IP header carries begins in the frame; a later fragment has no such place.
    pub(crate) payload: Option<usize>,
    pub(crate) ports: Option<[u16; 2]>,
    pub(crate) protocol: u8,
    pub(crate) version: u8,
    /// It is no fragment, not even the first.
    pub(crate) whole: bool,
}

impl Packet {
    pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
        let mut offset = 14;
        let mut ethertype = word(frame, 12)?;
        if ethertype == ETHERTYPE_VLAN {
            ethertype = word(frame, 16)?;
            offset = 18;
        }
        let packet = frame.get(offset..)?;
        let (version, protocol, payload, whole) = match ethertype {
            ETHERTYPE_IPV4 => {
                let header = usize::from(packet.first()? & 0x0f) * 4;
                let place = word(packet, 6)?;
                let later = place & 0x1fff != 0;
                (
                    4,
                    *packet.get(9)?,
                    (!later).then_some(header),
                    place & 0x3fff == 0,
                )
            }
            ETHERTYPE_IPV6 => match *packet.get(6)? {
                PROTOCOL_FRAGMENT => {
                    let later = word(packet, 42)? & 0xfff8 != 0;
                    (6, *packet.get(40)?, (!later).then_some(48), false)
                }
                protocol => (6, protocol, Some(40), true),
            },
            _ => return None,
        };
        let ports = match protocol {
            PROTOCOL_TCP | PROTOCOL_UDP => {
                payload.and_then(|at| Some([word(packet, at)?, word(packet, at + 2)?]))
            }
            _ => None,
        };
        Some(Self {
            length: packet.len(),
            offset,
            payload: payload.map(|at| offset + at),
            ports,
            protocol,
            version,
            whole,
        })
    }

    /// Returns who sent the packet and to whom.
    pub(crate) fn ends(&self, frame: &[u8]) -> Option<[IpAddr; 2]> {
        let packet = frame.get(self.offset..)?;
        if self.version == 4 {
            let at = |at: usize| Some(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?.into());
            Some([at(12)?, at(16)?])
        } else {
            let at = |at: usize| Some(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?.into());
            Some([at(8)?, at(24)?])
        }
    }

    pub(crate) fn is_discovery(&self, frame: &[u8]) -> bool {
        self.protocol == PROTOCOL_ICMPV6
            && self
                .payload
                .and_then(|at| frame.get(at))
                .is_some_and(|kind| DISCOVERY.contains(kind))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An Ethernet frame with a UDP datagram over IPv4, as far as rules look.
    pub(crate) fn udp4(from: u16, to: u16, payload: usize) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend([
            0x08, 0x00, 0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
        ]);
        frame.extend(from.to_be_bytes());
        frame.extend(to.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(vec![7; payload]);
        frame
    }

    pub(crate) fn tcp6(from: u16, to: u16, payload: usize) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
        frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        frame.extend(from.to_be_bytes());
        frame.extend(to.to_be_bytes());
        frame.extend([0; 16]);
        frame.extend(vec![7; payload]);
        frame
    }

    #[test]
    fn a_datagram_is_udp_and_has_its_two_ports() {
        let frame = udp4(1234, 6783, 10);

        assert!(Match::Udp.contains(&frame));
        assert!(Match::UdpPort(6783).contains(&frame));
        assert!(Match::UdpPort(1234).contains(&frame));
        assert!(!Match::UdpPort(6784).contains(&frame));
        assert!(!Match::Tcp.contains(&frame));
        assert!(!Match::TcpPort(6783).contains(&frame));
        assert!(!Match::Icmp.contains(&frame));
    }

    #[test]
    fn a_tag_does_not_hide_a_packet() {
        let mut frame = tcp6(1, 6783, 0);
        frame.splice(12..12, [0x81, 0x00, 0x00, 0x2a]);

        assert!(Match::TcpPort(6783).contains(&frame));
        assert!(!Match::Udp.contains(&frame));
    }

    #[test]
    fn a_later_fragment_has_a_protocol_but_no_ports() {
        let mut frame = udp4(6783, 6783, 100);
        frame[14 + 7] = 0xb9;

        assert!(Match::Udp.contains(&frame));
        assert!(!Match::UdpPort(6783).contains(&frame));
    }

    #[test]
    fn a_host_is_matched_at_either_end_and_its_neighbour_discovery_is_not() {
        let v4 = udp4(1, 2, 10);
        let v6 = tcp6(1, 2, 10);
        let mut solicitation = tcp6(1, 2, 10);
        solicitation[14 + 6] = PROTOCOL_ICMPV6;
        solicitation[14 + 40] = 135;
        let host = |text: &str| Match::Host(text.parse().unwrap());

        assert!(host("192.0.2.1").contains(&v4) && host("192.0.2.2").contains(&v4));
        assert!(host("2001:db8::1").contains(&v6) && host("2001:db8::2").contains(&v6));
        assert!(!host("192.0.2.3").contains(&v4) && !host("2001:db8::3").contains(&v6));
        assert!(!host("2001:db8::1").contains(&solicitation));
    }

    #[test]
    fn sets_are_joined_and_cut() {
        let frame = udp4(1, 2, 100);
        let (in_it, not_in_it) = (Match::Udp, Match::Tcp);

        assert!(Match::AllOf(vec![in_it.clone(), Match::LongerThan(10)]).contains(&frame));
        assert!(!Match::AllOf(vec![in_it.clone(), not_in_it.clone()]).contains(&frame));
        assert!(Match::AnyOf(vec![not_in_it.clone(), in_it]).contains(&frame));
        assert!(!Match::AnyOf(vec![not_in_it]).contains(&frame));
    }

    #[test]
    fn length_counts_from_the_ip_header() {
        let frame = udp4(1, 2, 72);

        assert!(!Match::LongerThan(100).contains(&frame));
        assert!(Match::LongerThan(99).contains(&frame));
    }

    #[test]
    fn a_frame_cut_anywhere_is_judged_without_panic() {
        for frame in [udp4(1, 2, 4), tcp6(1, 2, 4)] {
            for end in 0..frame.len() {
                let cut = &frame[..end];
                for rule in [
                    Match::Host([192, 0, 2, 1].into()),
                    Match::Icmp,
                    Match::LongerThan(3),
                    Match::TcpPort(2),
                    Match::UdpPort(2),
                ] {
                    let _ = rule.contains(cut);
                }
            }
        }
    }
}
