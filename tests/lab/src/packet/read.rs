//! Reads what an IP packet is, of either family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::numbers::{
    ETHERNET_HEADER, IPV4_HEADER, IPV6_HEADER, TAG, TCP_HEADER, UDP_HEADER, ethertype, fragment,
    protocol,
};

/// Extension headers of IPv6 that say their own length (RFC 8200 §4): hop by hop, routing, for the destination.
const EXTENSIONS: [u8; 3] = [0, 43, 60];
const FRAGMENT: u8 = 44;
const FRAGMENT_HEADER: usize = 8;

/// RFC 4861 §4: router solicitation to redirect.
const DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;

/// What an IP packet is, and where its parts lie in the bytes it was read from. A later fragment has neither ports nor a
/// place where what it carries begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Who sent it, and to whom.
    pub ends: [IpAddr; 2],
    /// How many bytes are there from the IP header on: padding too, and not what was cut off.
    pub length: usize,
    /// Where the IP header begins.
    pub offset: usize,
    /// Where what it carries begins: behind options and extension headers.
    pub payload: Option<usize>,
    /// The ports of TCP or UDP.
    pub ports: Option<[u16; 2]>,
    /// What it carries.
    pub protocol: u8,
    /// How long the sender says it is, header included.
    pub said: usize,
    /// It is no fragment, not even the first.
    pub whole: bool,
}

/// What the header of either family says.
struct Header {
    ends: [IpAddr; 2],
    /// From the IP header on.
    payload: Option<usize>,
    protocol: u8,
    said: usize,
    whole: bool,
}

impl Packet {
    /// Reads the packet in an Ethernet frame, also behind a VLAN tag; nothing if there is none.
    pub fn of_frame(frame: &[u8]) -> Option<Self> {
        match word(frame, ETHERNET_HEADER - 2)? {
            ethertype::VLAN => Self::of_kind(
                word(frame, ETHERNET_HEADER + 2)?,
                frame,
                ETHERNET_HEADER + TAG,
            ),
            kind => Self::of_kind(kind, frame, ETHERNET_HEADER),
        }
    }

    /// Reads a packet without a frame around it.
    pub fn of_ip(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::of_kind(ethertype::IPV4, bytes, 0),
            _ => Self::of_kind(ethertype::IPV6, bytes, 0),
        }
    }

    fn of_kind(kind: u16, bytes: &[u8], offset: usize) -> Option<Self> {
        let packet = bytes.get(offset..)?;
        let header = match kind {
            ethertype::IPV4 => header_v4(packet)?,
            ethertype::IPV6 => header_v6(packet)?,
            _ => return None,
        };
        let ports = header
            .payload
            .filter(|_| matches!(header.protocol, protocol::TCP | protocol::UDP))
            .and_then(|at| Some([word(packet, at)?, word(packet, at + 2)?]));
        Some(Self {
            ends: header.ends,
            length: packet.len(),
            offset,
            payload: header.payload.map(|at| offset + at),
            ports,
            protocol: header.protocol,
            said: header.said,
            whole: header.whole,
        })
    }

    /// Says whether it is a packet of IPv4.
    pub const fn is_v4(&self) -> bool {
        self.ends[0].is_ipv4()
    }

    /// Says whether it is neighbour discovery, without which IPv6 reaches nobody.
    pub fn is_discovery(&self, bytes: &[u8]) -> bool {
        let kind = self.payload.and_then(|at| bytes.get(at));
        self.protocol == protocol::ICMPV6 && kind.is_some_and(|kind| DISCOVERY.contains(kind))
    }

    /// Returns what the IP header carries, without what pads the frame; nothing of a later fragment.
    pub fn carried<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        // One of more than 64 KiB says nothing of its length (RFC 2675, and Linux of both families).
        let said = Some(self.offset + self.said).filter(|&end| end > self.payload.unwrap_or(0));
        let end = said.map_or(bytes.len(), |end| end.min(bytes.len()));
        bytes.get(self.payload?..end)
    }

    /// Returns what TCP or UDP carries, by the lengths that their headers say; nothing of a datagram that is cut.
    pub fn data<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let carried = self.carried(bytes)?;
        let (header, least, end) = match self.protocol {
            protocol::TCP => {
                let header = usize::from(*carried.get(12)? >> 4) * 4;
                (header, TCP_HEADER, carried.len())
            }
            protocol::UDP => {
                let said = usize::from(word(carried, 4)?);
                (UDP_HEADER, UDP_HEADER, said)
            }
            _ => return None,
        };
        carried.get(header..end).filter(|_| header >= least)
    }

    /// Returns where the checksum of what it carries stands, if it carries so much.
    pub fn sum_place(&self, bytes: &[u8]) -> Option<usize> {
        let within = match self.protocol {
            protocol::ICMP | protocol::ICMPV6 => 2,
            protocol::TCP => 16,
            protocol::UDP => 6,
            _ => return None,
        };
        self.carried(bytes)?.get(within..within + 2)?;
        Some(self.payload? + within)
    }
}

fn header_v4(packet: &[u8]) -> Option<Header> {
    let first = *packet.first()?;
    let length = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || length < IPV4_HEADER || packet.len() < length {
        return None;
    }
    let place = word(packet, 6)?;
    let end = |at| {
        packet
            .get(at..)?
            .first_chunk::<4>()
            .map(|it| Ipv4Addr::from(*it))
    };
    Some(Header {
        ends: [end(12)?.into(), end(16)?.into()],
        payload: (place & fragment::OFFSET == 0).then_some(length),
        protocol: packet[9],
        said: usize::from(word(packet, 2)?),
        whole: place & (fragment::MORE | fragment::OFFSET) == 0,
    })
}

fn header_v6(packet: &[u8]) -> Option<Header> {
    if packet.first()? >> 4 != 6 || packet.len() < IPV6_HEADER {
        return None;
    }
    let end = |at| {
        packet
            .get(at..)?
            .first_chunk::<16>()
            .map(|it| Ipv6Addr::from(*it))
    };
    let mut header = Header {
        ends: [end(8)?.into(), end(24)?.into()],
        payload: Some(IPV6_HEADER),
        protocol: packet[6],
        said: IPV6_HEADER + usize::from(word(packet, 4)?),
        whole: true,
    };
    // Each takes eight bytes at least: they end where the packet does.
    while let Some(at) = header.payload {
        let next = packet.get(at).copied();
        if EXTENSIONS.contains(&header.protocol) {
            let length = (usize::from(*packet.get(at + 1)?) + 1) * 8;
            packet.get(at..at + length)?;
            header.payload = Some(at + length);
        } else if header.protocol == FRAGMENT {
            packet.get(at..at + FRAGMENT_HEADER)?;
            let later = word(packet, at + 2)? & 0xfff8 != 0;
            header.payload = (!later).then_some(at + FRAGMENT_HEADER);
            header.whole = false;
        } else {
            break;
        }
        header.protocol = next?;
    }
    Some(header)
}

/// Reads two bytes.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::SocketAddrV4;

    use weft_types::MacAddr;

    use super::super::{ethernet, finish, ipv4, ipv6, sum, tagged, udp};
    use super::*;

    const STATION: MacAddr = MacAddr::new([2; 6]);
    const V4: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
    const V6: [Ipv6Addr; 2] = [
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
    ];

    /// A frame with a UDP datagram over IPv4 that may not be fragmented.
    pub(crate) fn udp4(from: u16, to: u16, payload: usize) -> Vec<u8> {
        let datagram = udp([from, to], &vec![7; payload]);
        let packet = ipv4(V4, protocol::UDP, fragment::NEVER, &datagram);
        ethernet(STATION, STATION, ethertype::IPV4, &packet)
    }

    /// A frame with a TCP segment over IPv6.
    pub(crate) fn tcp6(from: u16, to: u16, payload: usize) -> Vec<u8> {
        let packet = ipv6(V6, protocol::TCP, &tcp([from, to], 5, payload));
        ethernet(STATION, STATION, ethertype::IPV6, &packet)
    }

    /// A segment whose header says to be so many words of four bytes long.
    fn tcp(ports: [u16; 2], words: u8, payload: usize) -> Vec<u8> {
        let mut segment = ports.map(u16::to_be_bytes).concat();
        segment.extend([0; 8]);
        segment.extend([words << 4, 0, 0, 0, 0, 0, 0, 0]);
        segment.extend(vec![7; payload]);
        segment
    }

    #[test]
    fn a_datagram_says_who_to_whom_and_what() {
        let frame = udp4(1234, 6783, 10);

        let packet = Packet::of_frame(&frame).unwrap();

        assert_eq!(packet.ends, V4.map(IpAddr::from));
        assert_eq!(packet.ports, Some([1234, 6783]));
        assert_eq!((packet.protocol, packet.whole), (protocol::UDP, true));
        assert_eq!((packet.offset, packet.length, packet.said), (14, 38, 38));
        assert_eq!(packet.data(&frame), Some(&[7; 10][..]));
        assert_eq!(packet.sum_place(&frame), Some(14 + 20 + 6));
        let bare = Packet::of_ip(&frame[14..]).unwrap();
        assert_eq!((bare.offset, bare.payload), (0, Some(20)));
        assert_eq!(bare.ends, packet.ends);
    }

    #[test]
    fn a_tag_and_the_options_of_headers_are_stepped_over() {
        let mut v4 = ipv4(V4, protocol::UDP, 0, &udp([1, 2], b"data"));
        v4[0] = 0x46;
        v4.splice(20..20, [1; 4]);
        v4[3] += 4;
        // Eight bytes hop by hop, then sixteen for the destination.
        let options = [
            &[60, 0][..],
            &[0; 6],
            &[protocol::TCP, 1],
            &[0; 14],
            &tcp([1, 2], 6, 8),
        ];
        let v6 = ipv6(V6, 0, &options.concat());
        for (kind, packet, wanted) in [
            (ethertype::IPV4, v4, &b"data"[..]),
            (ethertype::IPV6, v6, &[7; 4][..]),
        ] {
            let frame = tagged(
                &ethernet(STATION, STATION, kind, &packet),
                ethertype::VLAN,
                7,
            );

            let packet = Packet::of_frame(&frame).unwrap();

            assert_eq!(packet.ports, Some([1, 2]));
            assert_eq!(packet.data(&frame), Some(wanted));
        }
    }

    #[test]
    fn a_fragment_is_not_whole_and_a_later_one_carries_nothing_that_can_be_told() {
        let datagram = udp([1, 2], b"data");
        let v6 = |place: u16| {
            let [high, low] = place.to_be_bytes();
            let header = [protocol::UDP, 0, high, low, 0, 0, 0, 1];
            ipv6(V6, FRAGMENT, &[&header[..], &datagram].concat())
        };
        let v4 = |place| ipv4(V4, protocol::UDP, place, &datagram);
        for (bytes, ports) in [
            (v4(fragment::MORE), Some([1, 2])),
            (v4(fragment::MORE | 1), None),
            (v4(185), None),
            (v6(1), Some([1, 2])),
            (v6(1 << 3), None),
        ] {
            let packet = Packet::of_ip(&bytes).unwrap();

            assert_eq!((packet.whole, packet.protocol), (false, protocol::UDP));
            assert_eq!(
                (packet.ports, packet.payload.is_some()),
                (ports, ports.is_some())
            );
            assert_eq!(packet.data(&bytes).is_some(), ports.is_some());
        }
        assert!(Packet::of_ip(&v4(fragment::NEVER)).unwrap().whole);
    }

    #[test]
    fn what_pads_a_frame_is_not_what_a_packet_carries() {
        let mut frame = udp4(1, 2, 4);
        frame.resize(60, 0);
        let packet = Packet::of_frame(&frame).unwrap();
        assert_eq!((packet.length, packet.said), (46, 32));
        assert_eq!(packet.data(&frame), Some(&[7; 4][..]));

        // Longer than a header could say.
        let mut frame = tcp6(1, 2, 100);
        frame[18..20].fill(0);
        let packet = Packet::of_frame(&frame).unwrap();
        assert_eq!(packet.data(&frame), Some(&[7; 100][..]));
    }

    #[test]
    fn what_contradicts_itself_is_no_packet() {
        let whole = ipv4(V4, protocol::UDP, 0, &udp([1, 2], b"data"));
        let first = |byte: u8| {
            let mut packet = whole.clone();
            packet[0] = byte;
            packet
        };
        // Headers shorter than a header, longer than the packet, and of another version than the frame says.
        for byte in [0x40, 0x41, 0x44, 0x4f, 0x55, 0x65, 0x05] {
            let frame = ethernet(STATION, STATION, ethertype::IPV4, &first(byte));
            assert_eq!(Packet::of_frame(&frame), None, "{byte:x}");
        }
        let frame = ethernet(STATION, STATION, ethertype::IPV6, &whole);
        assert_eq!(Packet::of_frame(&frame), None);
        let frame = ethernet(STATION, STATION, ethertype::ARP, &whole);
        assert_eq!(Packet::of_frame(&frame), None);

        // An extension header, or a header of what is carried, that is not there to its end.
        for (next, body) in [
            (0, vec![protocol::UDP, 9, 0, 0, 0, 0, 0, 0]),
            (60, vec![]),
            (FRAGMENT, vec![protocol::UDP, 0, 0, 0]),
        ] {
            assert_eq!(Packet::of_ip(&ipv6(V6, next, &body)), None, "{next}");
        }
        for words in [0, 4, 15] {
            let packet = ipv6(V6, protocol::TCP, &tcp([1, 2], words, 0));
            assert_eq!(Packet::of_ip(&packet).unwrap().data(&packet), None);
        }
        let mut short = whole;
        short[24..26].copy_from_slice(&[0, 7]);
        assert_eq!(Packet::of_ip(&short).unwrap().data(&short), None);
    }

    #[test]
    fn discovery_is_told_from_what_else_icmp_says() {
        let says = |kind, protocol| {
            let packet = ipv6(V6, protocol, &[kind, 0, 0, 0, 0, 0, 0, 0]);
            Packet::of_ip(&packet).unwrap().is_discovery(&packet)
        };

        assert!(says(135, protocol::ICMPV6) && says(133, protocol::ICMPV6));
        assert!(!says(128, protocol::ICMPV6) && !says(135, protocol::UDP));
    }

    #[test]
    fn bytes_cut_or_altered_anywhere_are_read_without_panic() {
        let look = |bytes: &[u8]| {
            for packet in [Packet::of_frame(bytes), Packet::of_ip(bytes)] {
                let Some(packet) = packet else { continue };
                let _ = (packet.data(bytes), packet.is_discovery(bytes));
                let _ = (sum(&packet, bytes), finish(&packet, &mut bytes.to_vec()));
                assert!(packet.payload.is_none_or(|at| at <= bytes.len()));
            }
        };
        let v4 = super::super::udp4(V4.map(|ip| SocketAddrV4::new(ip, 1)), b"data");
        for whole in [udp4(1, 2, 4), tcp6(1, 2, 4), v4] {
            for end in 0..whole.len() {
                look(&whole[..end]);
            }
            for at in 0..whole.len() {
                let mut bytes = whole.clone();
                for byte in 0..=255 {
                    bytes[at] = byte;
                    look(&bytes);
                }
            }
        }
    }
}
