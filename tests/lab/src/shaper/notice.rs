//! Writes the message by which a router tells a sender that its packet is too long.
//!
//! RFC 792 (destination unreachable, code 4, with the next hop's MTU of RFC 1191 §4), and RFC 4443 §3.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::{self, Packet, fragment, protocol};

/// How much of the packet is quoted: all that fits a message of the least MTU (RFC 1812 §4.3.2.3, RFC 4443 §3.2).
const QUOTED_V4: usize = 576 - 28;
const QUOTED_V6: usize = 1280 - 48;

/// Returns the frame that answers `frame`, or nothing where none may be sent: the packet may be fragmented, is itself an
/// error, or does not come from one station.
pub(super) fn too_big(frame: &[u8], limit: usize) -> Option<Vec<u8>> {
    let packet = Packet::of_frame(frame)?;
    let (ethernet, original) = frame.split_at_checked(packet.offset)?;
    // From the packet's destination: the lab's routers have no address of their own on the way.
    let mut message = match packet.ends {
        [IpAddr::V4(from), IpAddr::V4(to)] if packet.protocol != protocol::ICMP => {
            over_v4([to, from], original, u16::try_from(limit).ok()?)?
        }
        [IpAddr::V6(from), IpAddr::V6(to)] if packet.protocol != protocol::ICMPV6 => {
            over_v6([to, from], original, u32::try_from(limit).ok()?)
        }
        _ => return None,
    };
    packet::finish(&Packet::of_ip(&message)?, &mut message);
    let (to, from, kind) = (
        ethernet.get(..6)?,
        ethernet.get(6..12)?,
        ethernet.get(12..)?,
    );
    Some([from, to, kind, &message].concat())
}

fn over_v4(ends: [Ipv4Addr; 2], original: &[u8], limit: u16) -> Option<Vec<u8>> {
    let [high, _] = fragment::NEVER.to_be_bytes();
    let may_not_fragment = original.get(6)? & high != 0;
    let quoted = &original[..original.len().min(QUOTED_V4)];
    let icmp = [&[3, 4, 0, 0, 0, 0][..], &limit.to_be_bytes(), quoted].concat();
    may_not_fragment.then(|| packet::ipv4(ends, protocol::ICMP, 0, &icmp))
}

fn over_v6(ends: [Ipv6Addr; 2], original: &[u8], limit: u32) -> Vec<u8> {
    let quoted = &original[..original.len().min(QUOTED_V6)];
    let icmp = [&[2, 0, 0, 0][..], &limit.to_be_bytes(), quoted].concat();
    packet::ipv6(ends, protocol::ICMPV6, &icmp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::checksum;
    use crate::packet::tests::{tcp6, udp4};

    #[test]
    fn a_v4_sender_is_told_the_limit() {
        let answer = too_big(&udp4(1, 2, 1400), 1300).unwrap();

        let ip = &answer[14..];
        assert_eq!(&answer[..12], &[2; 12]);
        assert_eq!(checksum(&ip[..20]), 0);
        assert_eq!(checksum(&ip[20..]), 0);
        assert_eq!(&ip[12..20], &[192, 0, 2, 2, 192, 0, 2, 1]);
        assert_eq!(&ip[20..22], &[3, 4]);
        assert_eq!(&ip[26..28], &1300u16.to_be_bytes());
    }

    #[test]
    fn a_v6_sender_is_told_the_limit() {
        let answer = too_big(&tcp6(1, 2, 1400), 1300).unwrap();

        let ip = &answer[14..];
        let told = Packet::of_ip(ip).unwrap();
        assert_eq!(told.protocol, protocol::ICMPV6);
        assert_eq!(packet::sum(&told, ip), Some(0));
        assert_eq!(&ip[40..42], &[2, 0]);
        assert_eq!(&ip[44..48], &1300u32.to_be_bytes());
        assert!(ip.len() <= 1280);
    }

    #[test]
    fn a_packet_that_may_be_fragmented_gets_no_answer() {
        let mut frame = udp4(1, 2, 1400);
        frame[14 + 6] = 0;

        assert_eq!(too_big(&frame, 1300), None);
    }

    #[test]
    fn a_frame_cut_anywhere_gets_an_answer_or_none_without_panic() {
        for frame in [udp4(1, 2, 4), tcp6(1, 2, 4)] {
            for end in 0..frame.len() {
                let _ = too_big(&frame[..end], 1300);
            }
        }
    }
}
