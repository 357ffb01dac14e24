//! Writes the message by which a router tells a sender that its packet is too long.
//!
//! RFC 792 (destination unreachable, code 4, with the next hop's MTU of RFC 1191 §4), and RFC 4443 §3.2.

use super::rule::Packet;

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;

/// Returns the frame that answers `frame`, or nothing where none may be sent: the packet may be fragmented, is itself an
/// error, or does not come from one station.
pub(super) fn too_big(frame: &[u8], limit: usize) -> Option<Vec<u8>> {
    let packet = Packet::parse(frame)?;
    let original = frame.get(packet.offset..)?;
    let mut answer = Vec::new();
    answer.extend_from_slice(frame.get(6..12)?);
    answer.extend_from_slice(frame.get(..6)?);
    answer.extend_from_slice(frame.get(12..packet.offset)?);
    let message = match packet.version {
        4 if packet.protocol != PROTOCOL_ICMP => over_v4(original, u16::try_from(limit).ok()?)?,
        6 if packet.protocol != PROTOCOL_ICMPV6 => over_v6(original, u32::try_from(limit).ok()?)?,
        _ => return None,
    };
    answer.extend(message);
    Some(answer)
}

fn over_v4(original: &[u8], limit: u16) -> Option<Vec<u8>> {
    let may_not_fragment = original.get(6)? & 0x40 != 0;
    if !may_not_fragment {
        return None;
    }
    let quoted = original.get(..original.len().min(548))?;
    let mut icmp = vec![3, 4, 0, 0, 0, 0];
    icmp.extend(limit.to_be_bytes());
    icmp.extend(quoted);
    let sum = checksum(0, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());

    let total = u16::try_from(20 + icmp.len()).ok()?;
    let mut ip = vec![0x45, 0];
    ip.extend(total.to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, PROTOCOL_ICMP, 0, 0]);
    // From the packet's destination: the lab's routers have no address of their own on the way.
    ip.extend(original.get(16..20)?);
    ip.extend(original.get(12..16)?);
    let sum = checksum(0, &ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip.extend(icmp);
    Some(ip)
}

fn over_v6(original: &[u8], limit: u32) -> Option<Vec<u8>> {
    let quoted = original.get(..original.len().min(1280 - 48))?;
    let mut icmp = vec![2, 0, 0, 0];
    icmp.extend(limit.to_be_bytes());
    icmp.extend(quoted);
    let (source, target) = (original.get(24..40)?, original.get(8..24)?);
    let length = u16::try_from(icmp.len()).ok()?;
    let mut pseudo = [source, target].concat();
    pseudo.extend(u32::from(length).to_be_bytes());
    pseudo.extend([0, 0, 0, PROTOCOL_ICMPV6]);
    let sum = checksum(partial(0, &pseudo), &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend(length.to_be_bytes());
    ip.extend([PROTOCOL_ICMPV6, 64]);
    ip.extend(source);
    ip.extend(target);
    ip.extend(icmp);
    Some(ip)
}

/// Computes the Internet checksum (RFC 1071) on top of a partial sum.
pub(crate) fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = partial(start, bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// Corrects a checksum for bytes that are others now (RFC 1624 §3). They lie at an even place, both of one even length.
pub(crate) fn amended(sum: u16, before: &[u8], after: &[u8]) -> u16 {
    let inverted: Vec<u8> = before.iter().map(|byte| !byte).collect();
    checksum(partial(u32::from(!sum), &inverted), after)
}

fn partial(start: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(start, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]))
    })
}

#[cfg(test)]
mod tests {
    use super::super::rule::tests::{tcp6, udp4};
    use super::*;

    #[test]
    fn an_amended_sum_is_that_of_the_changed_bytes() {
        let mut bytes = [0x45, 0x11, 0xfe, 0xdc, 0, 0, 0xff, 0xff];
        for changed in [[0, 0, 0, 1], [0xff; 4], [0x12, 0x34, 0x56, 0x78]] {
            let sum = checksum(0, &bytes);
            let before: [u8; 4] = bytes[2..6].try_into().unwrap();
            bytes[2..6].copy_from_slice(&changed);

            assert_eq!(amended(sum, &before, &changed), checksum(0, &bytes));
        }
    }

    #[test]
    fn a_v4_sender_is_told_the_limit() {
        let answer = too_big(&udp4(1, 2, 1400), 1300).unwrap();

        let ip = &answer[14..];
        assert_eq!(&answer[..12], &[2; 12]);
        assert_eq!(checksum(0, &ip[..20]), 0);
        assert_eq!(checksum(0, &ip[20..]), 0);
        assert_eq!(&ip[12..20], &[192, 0, 2, 2, 192, 0, 2, 1]);
        assert_eq!(&ip[20..22], &[3, 4]);
        assert_eq!(&ip[26..28], &1300u16.to_be_bytes());
    }

    #[test]
    fn a_v6_sender_is_told_the_limit() {
        let answer = too_big(&tcp6(1, 2, 1400), 1300).unwrap();

        let ip = &answer[14..];
        assert_eq!(ip[6], PROTOCOL_ICMPV6);
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
