//! Heads every datagram on the data port, and is authenticated with what follows it.
//!
//! ```text
//!    0        1        2                 4                                   8                                        16
//!   ┌────────┬────────┬─────────────────┬───────────────────────────────────┬──────────────────────────────────────────┐
//!   │ type   │ flags 0│ lane            │ session index (the receiver's)    │ counter                                  │
//!   └────────┴────────┴─────────────────┴───────────────────────────────────┴──────────────────────────────────────────┘
//!   then ciphertext ‖ tag (16). Integers are big-endian; the nonce is four zero bytes ‖ counter.
//! ```
//!
//! Flags are written zero and ignored when read. Anything that is no such datagram is dropped without an answer.

use super::SessionIndex;

/// How long the header is.
pub const LEN: usize = 16;

/// What a datagram carries, and so who holds its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Frames and messages of a data session.
    Data,
    /// Heartbeats and probes of a control link.
    Link,
}

impl Type {
    const fn byte(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Link => 2,
        }
    }
}

/// The header, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub kind: Type,
    /// Which key and counter of the session.
    pub lane: u16,
    /// The receiver's handle.
    pub index: SessionIndex,
    /// Never twice in one lane.
    pub counter: u64,
}

impl Header {
    /// Reads the beginning of a datagram; `None` for what is too short or of another type.
    pub fn decode(datagram: &[u8]) -> Option<Self> {
        let (head, _) = datagram.split_first_chunk::<LEN>()?;
        let [kind, _, l0, l1, i0, i1, i2, i3, counter @ ..] = *head;
        let kind = match kind {
            1 => Type::Data,
            2 => Type::Link,
            _ => return None,
        };
        Some(Self {
            kind,
            lane: u16::from_be_bytes([l0, l1]),
            index: SessionIndex(u32::from_be_bytes([i0, i1, i2, i3])),
            counter: u64::from_be_bytes(counter),
        })
    }

    /// As it travels.
    pub fn encode(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0] = self.kind.byte();
        bytes[2..4].copy_from_slice(&self.lane.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.index.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.counter.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        kind: Type::Data,
        lane: 0x0203,
        index: SessionIndex(0x0405_0607),
        counter: 0x08_090a_0b0c,
    };

    #[test]
    fn it_travels_as_drawn() {
        let bytes = [1, 0, 2, 3, 4, 5, 6, 7, 0, 0, 0, 8, 9, 0x0a, 0x0b, 0x0c];

        assert_eq!(HEADER.encode(), bytes);
        assert_eq!(Header::decode(&bytes), Some(HEADER));
    }

    #[test]
    fn every_prefix_is_refused() {
        let bytes = HEADER.encode();

        assert!((0..LEN).all(|len| Header::decode(&bytes[..len]).is_none()));
    }

    #[test]
    fn other_types_are_refused_and_flags_are_not() {
        let mut bytes = HEADER.encode();
        bytes[1] = 0xff;
        assert_eq!(Header::decode(&bytes), Some(HEADER));

        bytes[0] = 3;
        assert_eq!(Header::decode(&bytes), None);
    }
}
