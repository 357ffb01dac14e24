//! Reads and writes the virtio header that the kernel puts before every frame of a TAP device.
//!
//! ```text
//!    0        1          2          4           6            8             10
//!   ┌────────┬──────────┬──────────┬───────────┬────────────┬─────────────┐
//!   │ flags  │ gso type │ hdr len  │ gso size  │ csum start │ csum offset │     integers are little-endian
//!   └────────┴──────────┴──────────┴───────────┴────────────┴─────────────┘
//! ```
//!
//! Virtio 1.2 §5.1.6. It never leaves the host: the parts that matter travel in [`super::train`] and [`super::bundle`].
//! `hdr len` is a hint that some kernels get wrong, so it is written and never read.

/// How long it is.
pub const LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const ECN: u8 = 0x80;

/// What kind of super-frame it heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gso {
    /// An ordinary frame.
    None,
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams of equal size but the last, either family.
    Udp,
}

impl Gso {
    /// The number the kernel and the wire know it by.
    pub const fn byte(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Tcp4 => 1,
            Self::Tcp6 => 4,
            Self::Udp => 5,
        }
    }

    /// Reads it back, without the congestion bit.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::None),
            1 => Some(Self::Tcp4),
            4 => Some(Self::Tcp6),
            5 => Some(Self::Udp),
            _ => None,
        }
    }
}

/// A checksum that is still to be computed: over everything from `start`, written `offset` bytes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// Where the transport header begins.
    pub start: u16,
    /// Where in it the checksum stands.
    pub offset: u16,
}

/// The virtio header, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vnet {
    /// Whether the kernel is to finish a checksum.
    pub checksum: Option<Checksum>,
    /// What kind of super-frame follows.
    pub gso: Gso,
    /// TCP segments carry congestion marks (RFC 3168): only the first may have CWR.
    pub ecn: bool,
    /// How long the headers are; written, never read.
    pub headers: u16,
    /// How much payload each segment gets.
    pub gso_size: u16,
}

impl Vnet {
    /// Heads an ordinary frame.
    pub const fn plain(checksum: Option<Checksum>) -> Self {
        Self {
            checksum,
            gso: Gso::None,
            ecn: false,
            headers: 0,
            gso_size: 0,
        }
    }

    /// Reads it; `None` for a kind of super-frame that was not asked for.
    pub fn decode(bytes: &[u8; LEN]) -> Option<Self> {
        let [flags, gso, h0, h1, g0, g1, s0, s1, o0, o1] = *bytes;
        Some(Self {
            checksum: (flags & NEEDS_CSUM != 0).then_some(Checksum {
                start: u16::from_le_bytes([s0, s1]),
                offset: u16::from_le_bytes([o0, o1]),
            }),
            gso: Gso::from_byte(gso & !ECN)?,
            ecn: gso & ECN != 0,
            headers: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
        })
    }

    /// As the kernel takes it.
    pub fn encode(self) -> [u8; LEN] {
        let [h0, h1] = self.headers.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let Checksum { start, offset } = self.checksum.unwrap_or(Checksum {
            start: 0,
            offset: 0,
        });
        let [s0, s1] = start.to_le_bytes();
        let [o0, o1] = offset.to_le_bytes();
        let flags = if self.checksum.is_some() {
            NEEDS_CSUM
        } else {
            0
        };
        let ecn = if self.ecn { ECN } else { 0 };
        [flags, self.gso.byte() | ecn, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let vnet = Vnet {
            checksum: Some(Checksum {
                start: 34,
                offset: 16,
            }),
            gso: Gso::Tcp4,
            ecn: true,
            headers: 66,
            gso_size: 1298,
        };

        assert_eq!(Vnet::decode(&vnet.encode()), Some(vnet));
        assert_eq!(vnet.encode()[..2], [1, 0x81]);
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        assert_eq!(Vnet::decode(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
