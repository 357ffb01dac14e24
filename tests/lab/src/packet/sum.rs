//! The Internet checksum: computed (RFC 1071), and corrected (RFC 1624) so that one that was wrong stays wrong.

use std::net::IpAddr;

use super::numbers::protocol;
use super::read::Packet;

/// Computes the checksum of bytes; zero if a right one is among them.
pub fn checksum(bytes: &[u8]) -> u16 {
    folded(partial(0, bytes))
}

/// Corrects a checksum for bytes that are others now (RFC 1624 §3). They lie at an even place, both of one even length.
pub fn amended(sum: u16, before: &[u8], after: &[u8]) -> u16 {
    let inverted: Vec<u8> = before.iter().map(|byte| !byte).collect();
    folded(partial(partial(u32::from(!sum), &inverted), after))
}

/// Computes the checksum of what a packet carries, with the addresses where the protocol counts them (RFC 768, RFC 9293
/// §3.1, RFC 8200 §8.1); zero if the one in it is right. A packet has one if it has a place for it.
pub fn sum(packet: &Packet, bytes: &[u8]) -> Option<u16> {
    let carried = packet.carried(bytes)?;
    let pseudo = match packet.protocol {
        protocol::ICMP => 0,
        number => {
            let length = u32::try_from(carried.len()).ok()?.to_be_bytes();
            let [from, to] = packet.ends.map(octets);
            partial(0, &[&from[..], &to, &length, &[0, number]].concat())
        }
    };
    packet.sum_place(bytes)?;
    Some(folded(partial(pseudo, carried)))
}

/// Writes the checksum of what a packet carries; says whether there is a place for it.
pub fn finish(packet: &Packet, bytes: &mut [u8]) -> bool {
    let Some(at) = packet.sum_place(bytes) else {
        return false;
    };
    bytes[at..at + 2].fill(0);
    let Some(sum) = sum(packet, bytes) else {
        return false;
    };
    // Zero in a datagram means that there is none (RFC 768).
    let sum = if sum == 0 && packet.protocol == protocol::UDP {
        0xffff
    } else {
        sum
    };
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    true
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Adds up words of two bytes; a last odd byte is the upper half of one.
fn partial(start: u32, bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
    bytes
        .chunks(2)
        .fold(start, |sum, pair| sum + u32::from(word(pair)))
}

fn folded(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::super::{ipv4, ipv6, udp};
    use super::*;

    #[test]
    fn a_sum_is_that_of_the_example() {
        // RFC 1071 §3.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&bytes), !0xddf2);
    }

    #[test]
    fn an_amended_sum_is_that_of_the_changed_bytes() {
        let mut bytes = [0x45, 0x11, 0xfe, 0xdc, 0, 0, 0xff, 0xff];
        for changed in [[0, 0, 0, 1], [0xff; 4], [0x12, 0x34, 0x56, 0x78]] {
            let sum = checksum(&bytes);
            let before: [u8; 4] = bytes[2..6].try_into().unwrap();
            bytes[2..6].copy_from_slice(&changed);

            assert_eq!(amended(sum, &before, &changed), checksum(&bytes));
        }
    }

    #[test]
    fn a_finished_packet_has_a_right_sum_and_an_altered_one_a_wrong_one() {
        let (v4, v6) = ([Ipv4Addr::LOCALHOST; 2], [Ipv6Addr::LOCALHOST; 2]);
        let datagram = udp([1, 2], b"odd");
        let echo = [8, 0, 0, 0, 0, 1, 0, 1, 9];
        for mut bytes in [
            ipv4(v4, protocol::UDP, 0, &datagram),
            ipv4(v4, protocol::TCP, 0, &[7; 21]),
            ipv4(v4, protocol::ICMP, 0, &echo),
            ipv6(v6, protocol::UDP, &datagram),
            ipv6(v6, protocol::ICMPV6, &echo),
        ] {
            let packet = Packet::of_ip(&bytes).unwrap();

            assert!(finish(&packet, &mut bytes));

            assert_eq!(sum(&packet, &bytes), Some(0));
            // What pads a frame is not counted.
            let padded = [&bytes[..], &[9; 5]].concat();
            let in_padding = Packet::of_ip(&padded).unwrap();
            assert_eq!(sum(&in_padding, &padded), Some(0));
            *bytes.last_mut().unwrap() ^= 1;
            assert_ne!(sum(&packet, &bytes), Some(0));
        }
    }

    #[test]
    fn a_datagram_never_says_that_it_has_no_sum() {
        let ends = [Ipv4Addr::LOCALHOST; 2];
        let mut bytes = ipv4(ends, protocol::UDP, 0, &udp([1, 2], &[0, 0]));
        let packet = Packet::of_ip(&bytes).unwrap();
        finish(&packet, &mut bytes);
        // What is carried makes up for all the rest.
        let rest = [bytes[26], bytes[27]];
        bytes[28..30].copy_from_slice(&rest);

        finish(&packet, &mut bytes);

        assert_eq!(bytes[26..28], [0xff, 0xff]);
    }

    #[test]
    fn a_protocol_without_sum_or_too_short_for_one_gets_none() {
        for (protocol, body) in [(47, &[0; 30][..]), (protocol::TCP, &[0; 17])] {
            let mut bytes = ipv4([Ipv4Addr::LOCALHOST; 2], protocol, 0, body);
            let packet = Packet::of_ip(&bytes).unwrap();

            assert!(!finish(&packet, &mut bytes));
            assert_eq!(sum(&packet, &bytes), None);
        }
    }
}
