//! Finds the headers of a frame, and keeps them true when its payload is made shorter.
//!
//! ```text
//!   0            l3              l4                headers
//!   ┌───────────┬───────────────┬─────────────────┬─────────
//!   │ Ethernet, │ IPv4 or IPv6, │ TCP or UDP      │ payload
//!   │ ≤ 2 VLAN  │ options       │                 │
//!   └───────────┴───────────────┴─────────────────┴─────────
//! ```
//!
//! Every offset is checked against the bytes that are there; what is not understood is `None`, and travels as an
//! ordinary frame. Fragments have no transport header as far as this is concerned.

/// Ethernet, two tags, IPv6 with some extension headers, TCP with all options: what fits the byte that says it.
pub const MAX_HEADERS: usize = 255;

/// How many IPv6 extension headers are walked.
const MAX_EXTENSIONS: usize = 4;

/// Which Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

/// Which transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Transport {
    const fn protocol(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Where the checksum stands in its header.
    pub const fn checksum_offset(self) -> u16 {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// Where the headers of a frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    /// The beginning of the IP header.
    pub l3: u8,
    /// The beginning of the transport header.
    pub l4: u8,
    /// The length of all headers: where the payload begins.
    pub headers: u8,
    /// Which Internet Protocol.
    pub family: Family,
    /// Which transport.
    pub transport: Transport,
}

/// What remains of a super-frame when some of it was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remains {
    /// How many payload bytes before it are missing.
    pub skipped: u16,
    /// How many payload bytes it has.
    pub payload: u16,
    /// Whether it ends where the super-frame ended.
    pub tail: bool,
    /// How many segments are missing before it: they had identifiers (RFC 791) of their own.
    pub segments_skipped: u16,
}

impl Layers {
    /// Finds the headers of a frame of which `bytes` is the beginning.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (l3, ethertype) = network(bytes)?;
        let (l4, family, protocol) = match ethertype {
            0x0800 => ipv4(bytes, l3)?,
            0x86dd => ipv6(bytes, l3)?,
            _ => return None,
        };
        let (transport, length) = match protocol {
            6 => {
                let words = usize::from(bytes.get(l4 + 12)? >> 4);
                (Transport::Tcp, (words >= 5).then_some(words * 4)?)
            }
            17 => (Transport::Udp, 8),
            _ => return None,
        };
        let headers = l4 + length;
        if headers > bytes.len() {
            return None;
        }
        Some(Self {
            l3: u8::try_from(l3).ok()?,
            l4: u8::try_from(l4).ok()?,
            headers: u8::try_from(headers).ok()?,
            family,
            transport,
        })
    }

    /// Makes the headers tell the truth about what remains of their super-frame, and leaves the transport checksum to
    /// be finished by the kernel (it holds the pseudo-header's sum).
    ///
    /// `bytes` begins with the headers that this was parsed from. False if no such packet can exist: too long.
    pub fn shorten(&self, bytes: &mut [u8], remains: Remains) -> bool {
        if self.transport == Transport::Tcp {
            let l4 = usize::from(self.l4);
            let Some(tcp) = bytes.get_mut(l4..l4 + 20) else {
                return false;
            };
            if let Some(seq) = tcp[4..].first_chunk_mut::<4>() {
                *seq = u32::from_be_bytes(*seq)
                    .wrapping_add(u32::from(remains.skipped))
                    .to_be_bytes();
            }
            if !remains.tail {
                tcp[13] &= !0x09; // FIN and PSH belong to the end
            }
            if remains.skipped != 0 {
                tcp[13] &= !0x80; // CWR belongs to the beginning
            }
        }
        if self.family == Family::V4 {
            let at = usize::from(self.l3) + 4;
            if let Some(id) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>) {
                *id = u16::from_be_bytes(*id)
                    .wrapping_add(remains.segments_skipped)
                    .to_be_bytes();
            }
        }
        self.set_payload(bytes, usize::from(remains.payload))
    }

    /// Writes the lengths and sums that depend on the payload's length. False if no such packet can exist.
    pub fn set_payload(&self, bytes: &mut [u8], payload: usize) -> bool {
        let (l3, l4, headers) = (
            usize::from(self.l3),
            usize::from(self.l4),
            usize::from(self.headers),
        );
        let Ok(transport_len) = u16::try_from(headers - l4 + payload) else {
            return false;
        };
        let Some(head) = bytes.get_mut(..headers) else {
            return false;
        };
        let addresses = match self.family {
            Family::V4 => {
                let Ok(total) = u16::try_from(headers - l3 + payload) else {
                    return false;
                };
                head[l3 + 2..l3 + 4].copy_from_slice(&total.to_be_bytes());
                head[l3 + 10..l3 + 12].fill(0);
                let sum = !fold(sum(&head[l3..l4], 0));
                head[l3 + 10..l3 + 12].copy_from_slice(&sum.to_be_bytes());
                l3 + 12..l3 + 20
            }
            Family::V6 => {
                let Ok(total) = u16::try_from(headers - l3 - 40 + payload) else {
                    return false;
                };
                head[l3 + 4..l3 + 6].copy_from_slice(&total.to_be_bytes());
                l3 + 8..l3 + 40
            }
        };
        let pseudo = sum(
            &head[addresses],
            u32::from(self.transport.protocol()) + u32::from(transport_len),
        );
        if self.transport == Transport::Udp {
            head[l4 + 4..l4 + 6].copy_from_slice(&transport_len.to_be_bytes());
        }
        let at = l4 + usize::from(self.transport.checksum_offset());
        head[at..at + 2].copy_from_slice(&fold(pseudo).to_be_bytes());
        true
    }
}

/// Finishes a checksum that the kernel left to us. False, and nothing written, if it does not lie within the frame.
pub fn finish_checksum(frame: &mut [u8], start: usize, offset: usize) -> bool {
    let at = start + offset;
    if at + 2 > frame.len() {
        return false;
    }
    // The field holds the pseudo-header's sum, which is part of what is summed (RFC 1071).
    let folded = match !fold(sum(&frame[start..], 0)) {
        0 => 0xffff, // RFC 768: zero would say that there is none
        sum => sum,
    };
    frame[at..at + 2].copy_from_slice(&folded.to_be_bytes());
    true
}

/// Where the network header begins, and of which type it is.
fn network(bytes: &[u8]) -> Option<(usize, u16)> {
    let mut l3 = 14;
    let mut ethertype = be16(bytes, 12)?;
    for _ in 0..2 {
        if !matches!(ethertype, 0x8100 | 0x88a8) {
            break;
        }
        ethertype = be16(bytes, l3 + 2)?;
        l3 += 4;
    }
    Some((l3, ethertype))
}

fn ipv4(bytes: &[u8], l3: usize) -> Option<(usize, Family, u8)> {
    let first = *bytes.get(l3)?;
    let words = usize::from(first & 0x0f);
    if first >> 4 != 4 || words < 5 {
        return None;
    }
    let header = bytes.get(l3..l3 + words * 4)?;
    let fragment = be16(header, 6)? & 0x3fff != 0; // more fragments, or an offset
    (!fragment).then_some((l3 + words * 4, Family::V4, header[9]))
}

fn ipv6(bytes: &[u8], l3: usize) -> Option<(usize, Family, u8)> {
    if bytes.get(l3)? >> 4 != 6 || bytes.len() < l3 + 40 {
        return None;
    }
    let (mut next, mut at) = (bytes[l3 + 6], l3 + 40);
    for _ in 0..MAX_EXTENSIONS {
        // Hop-by-hop and destination options, RFC 8200 §4. A routing header would change what the checksum covers.
        if !matches!(next, 0 | 60) {
            break;
        }
        next = *bytes.get(at)?;
        at += (usize::from(*bytes.get(at + 1)?) + 1) * 8;
    }
    Some((at, Family::V6, next))
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The Internet checksum's running sum (RFC 1071).
fn sum(bytes: &[u8], start: u32) -> u32 {
    bytes.chunks(2).fold(start, |sum, pair| match *pair {
        [high, low] => sum + u32::from(u16::from_be_bytes([high, low])),
        [high] => sum + u32::from(u16::from_be_bytes([high, 0])),
        _ => sum,
    })
}

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    let [_, _, high, low] = ((once & 0xffff) + (once >> 16)).to_be_bytes();
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ethernet, IPv4 or IPv6, TCP or UDP; lengths and sums as a sender leaves them to the hardware.
    pub(crate) fn frame(
        family: Family,
        transport: Transport,
        vlan: bool,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        if vlan {
            bytes.extend([0x81, 0x00, 0x00, 0x05]);
        }
        let protocol = transport.protocol();
        match family {
            Family::V4 => {
                bytes.extend([0x08, 0x00, 0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, protocol]);
                bytes.extend([0, 0, 10, 32, 0, 1, 10, 32, 0, 2]);
            }
            Family::V6 => {
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, protocol, 64]);
                bytes.extend([0xfd; 16]);
                bytes.extend([0xfc; 16]);
            }
        }
        match transport {
            Transport::Tcp => {
                bytes.extend([0x9c, 0x40, 0x14, 0x51, 0xff, 0xff, 0xf0, 0x00, 1, 2, 3, 4]);
                bytes.extend([0x80, 0x99, 1, 0, 0, 0, 0, 0]); // CWR, ACK, PSH, FIN
                bytes.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
            }
            Transport::Udp => bytes.extend([0x9c, 0x40, 0x14, 0x51, 0, 0, 0, 0]),
        }
        bytes.extend_from_slice(payload);
        let layers = Layers::parse(&bytes).unwrap();
        assert!(layers.set_payload(&mut bytes, payload.len()));
        bytes
    }

    fn valid(bytes: &mut [u8]) -> bool {
        let layers = Layers::parse(bytes).unwrap();
        let (l3, l4) = (usize::from(layers.l3), usize::from(layers.l4));
        let start = layers.transport.checksum_offset();
        assert!(finish_checksum(bytes, l4, usize::from(start)));
        let (addresses, ip_ok) = match layers.family {
            Family::V4 => (l3 + 12..l3 + 20, fold(sum(&bytes[l3..l4], 0)) == 0xffff),
            Family::V6 => (l3 + 8..l3 + 40, true),
        };
        let length = u32::try_from(bytes.len() - l4).unwrap();
        let pseudo = sum(
            &bytes[addresses],
            u32::from(layers.transport.protocol()) + length,
        );
        ip_ok && fold(sum(&bytes[l4..], pseudo)) == 0xffff
    }

    #[test]
    fn the_headers_of_every_kind_are_found() {
        for (family, l3_len) in [(Family::V4, 20), (Family::V6, 40)] {
            for (transport, l4_len) in [(Transport::Tcp, 32), (Transport::Udp, 8)] {
                for (vlan, l3) in [(false, 14), (true, 18)] {
                    let bytes = frame(family, transport, vlan, b"payload");

                    let expected = Layers {
                        l3,
                        l4: l3 + l3_len,
                        headers: l3 + l3_len + l4_len,
                        family,
                        transport,
                    };
                    assert_eq!(Layers::parse(&bytes), Some(expected));
                    assert!(valid(&mut bytes.clone()));
                    assert!(
                        (0..usize::from(expected.headers))
                            .all(|len| Layers::parse(&bytes[..len]).is_none())
                    );
                }
            }
        }
    }

    #[test]
    fn extension_headers_are_walked() {
        let mut bytes = frame(Family::V6, Transport::Udp, false, b"payload");
        bytes[14 + 6] = 60;
        bytes.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);

        assert_eq!(Layers::parse(&bytes).unwrap().l4, 62);
    }

    #[test]
    fn a_fragment_has_no_transport_header() {
        let mut bytes = frame(Family::V4, Transport::Udp, false, b"payload");
        bytes[14 + 6] = 0x20;

        assert_eq!(Layers::parse(&bytes), None);
    }

    #[test]
    fn a_shortened_middle_loses_the_flags_of_both_ends() {
        let mut bytes = frame(Family::V4, Transport::Tcp, false, &[5; 100]);
        let layers = Layers::parse(&bytes).unwrap();

        assert!(layers.shorten(
            &mut bytes,
            Remains {
                skipped: 0x2000,
                payload: 30,
                tail: false,
                segments_skipped: 3,
            }
        ));
        bytes.truncate(usize::from(layers.headers) + 30);

        assert_eq!(bytes[38..42], 0x0000_1000_u32.to_be_bytes()); // wrapped
        assert_eq!(bytes[47], 0x10);
        assert_eq!(bytes[18..20], [0x12, 0x37]);
        assert!(valid(&mut bytes));
    }

    #[test]
    fn a_payload_longer_than_ip_allows_is_refused() {
        let mut bytes = frame(Family::V4, Transport::Udp, false, b"");
        let layers = Layers::parse(&bytes).unwrap();

        assert!(layers.set_payload(&mut bytes, 65_507));
        assert!(!layers.set_payload(&mut bytes, 65_508));
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Layers::parse(&bytes);
        }

        #[test]
        fn what_is_found_lies_within(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            v6 in any::<bool>(),
            payload in 0..70_000_usize,
        ) {
            let mut bytes = bytes;
            if bytes.len() > 15 {
                bytes[12..15].copy_from_slice(if v6 { &[0x86, 0xdd, 0x60] } else { &[8, 0, 0x46] });
            }
            if let Some(layers) = Layers::parse(&bytes) {
                prop_assert!(layers.l3 < layers.l4 && layers.l4 < layers.headers);
                prop_assert!(usize::from(layers.headers) <= bytes.len());
                let _ = layers.set_payload(&mut bytes, payload);
            }
        }
    }
}
