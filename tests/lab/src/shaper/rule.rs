//! Says which frames a link loses on purpose, as a firewall that answers nothing does.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::packet::{Packet, protocol};

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
        let packet = Packet::of_frame(frame);
        let is = |wanted: u8| packet.is_some_and(|packet| packet.protocol == wanted);
        let port = |wanted: u16| {
            let ports = packet.and_then(|packet| packet.ports);
            ports.is_some_and(|ports| ports.contains(&wanted))
        };
        match self {
            Self::All => true,
            Self::AllOf(rules) => rules.iter().all(|rule| rule.contains(frame)),
            Self::AnyOf(rules) => rules.iter().any(|rule| rule.contains(frame)),
            Self::Custom(predicate) => predicate(frame),
            Self::Host(host) => packet
                .is_some_and(|packet| packet.ends.contains(host) && !packet.is_discovery(frame)),
            Self::Icmp => is(protocol::ICMP) || is(protocol::ICMPV6),
            Self::LongerThan(limit) => packet.is_some_and(|packet| packet.length > *limit),
            Self::Tcp => is(protocol::TCP),
            Self::TcpPort(wanted) => is(protocol::TCP) && port(*wanted),
            Self::Udp => is(protocol::UDP),
            Self::UdpPort(wanted) => is(protocol::UDP) && port(*wanted),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::{tcp6, udp4};

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
        solicitation[14 + 6] = protocol::ICMPV6;
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
