//! The bytes of a heartbeat, as a datagram's sealed body and as a control message, and the keys of a link.
//!
//! ```text
//!    0      1      2                 6                   14                  22        26
//!   ┌──────┬──────┬─────────────────┬───────────────────┬───────────────────┬─────────┐
//!   │ 1    │ flags│ sequence        │ stamp             │ echo              │ hold    │   behind the header of type 2
//!   └──────┴──────┴─────────────────┴───────────────────┴───────────────────┴─────────┘
//! ```
//!
//! Stamps are microseconds on the sender's own clock, never 0. `echo` is the last stamp that came the same way (0: none yet)
//! and `hold` the microseconds since it came, so a round trip needs no clocks that agree. Bit 0 of the flags asks for an
//! answer at once. Other bits, and what follows, are for later releases.

use minicbor::{Decode, Encode, decode};

use crate::crypto::Secret32;
use crate::wire::{decode_whole, encode};

/// Bytes of a heartbeat in a datagram.
const LEN: usize = 26;
/// The first byte: what the sealed body is.
const HEARTBEAT: u8 = 1;
const WANTS_ANSWER: u8 = 1;

/// What a heartbeat tells, whichever way it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Whether the other side shall answer at once.
    pub wants_answer: bool,
    /// Counts the heartbeats of one link that went by datagram; meaningless on a connection, where none is lost.
    pub sequence: u32,
    /// When it was sent, in microseconds of the sender.
    pub stamp: u64,
    /// The last stamp that came the same way; 0 for none.
    pub echo: u64,
    /// How long ago that was, in microseconds.
    pub hold: u32,
}

impl Beat {
    /// Reads a datagram's opened body; `None` for what is too short or something else.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let (body, _) = body.split_first_chunk::<LEN>()?;
        let [HEARTBEAT, flags, rest @ ..] = *body else {
            return None;
        };
        let (sequence, rest) = rest.split_first_chunk()?;
        let (stamp, rest) = rest.split_first_chunk()?;
        let (echo, rest) = rest.split_first_chunk()?;
        let (hold, _) = rest.split_first_chunk()?;
        Some(Self {
            wants_answer: flags & WANTS_ANSWER != 0,
            sequence: u32::from_be_bytes(*sequence),
            stamp: u64::from_be_bytes(*stamp),
            echo: u64::from_be_bytes(*echo),
            hold: u32::from_be_bytes(*hold),
        })
    }

    /// As it is sealed.
    pub fn encode(&self) -> [u8; LEN] {
        let mut body = [0; LEN];
        body[0] = HEARTBEAT;
        body[1] = u8::from(self.wants_answer);
        body[2..6].copy_from_slice(&self.sequence.to_be_bytes());
        body[6..14].copy_from_slice(&self.stamp.to_be_bytes());
        body[14..22].copy_from_slice(&self.echo.to_be_bytes());
        body[22..26].copy_from_slice(&self.hold.to_be_bytes());
        body
    }
}

/// A heartbeat over the control connection, while datagrams do not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Heartbeat {
    /// Whether the other side shall answer at once.
    #[n(0)]
    pub wants_answer: bool,
    /// When it was sent, in microseconds of the sender.
    #[n(1)]
    pub stamp: u64,
    /// The last stamp that came by a control message; 0 for none.
    #[n(2)]
    pub echo: u64,
    /// How long ago that was, in microseconds.
    #[n(3)]
    pub hold: u32,
    /// Whether the sender hears no datagrams, so that the other side must send these too.
    #[n(4)]
    pub needed: bool,
}

impl Heartbeat {
    /// Reads one, with nothing behind it.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, decode::Error> {
        decode_whole(bytes)
    }

    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

/// How to send datagrams to whoever made this: seal them by this key, under this index, and count from 0.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LinkKeys {
    /// What to write into the header.
    #[n(0)]
    pub index: u32,
    /// ChaCha20-Poly1305 (RFC 8439).
    #[n(1)]
    pub key: Secret32,
}

impl LinkKeys {
    /// Reads one, with nothing behind it.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, decode::Error> {
        decode_whole(bytes)
    }

    /// As it travels, in a sealed message and nowhere else.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BEAT: Beat = Beat {
        wants_answer: true,
        sequence: 0x0203_0405,
        stamp: 6,
        echo: 7,
        hold: 8,
    };

    #[test]
    fn it_travels_as_drawn() {
        let mut bytes = vec![1, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0, 0, 6];
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 8]);

        assert_eq!(BEAT.encode(), bytes[..]);
        assert_eq!(Beat::decode(&bytes), Some(BEAT));
        assert!((0..LEN).all(|len| Beat::decode(&bytes[..len]).is_none()));
    }

    #[test]
    fn what_a_later_release_adds_is_ignored_and_another_kind_refused() {
        let mut bytes = BEAT.encode().to_vec();
        bytes[1] = 0xff;
        bytes.push(9);
        assert_eq!(Beat::decode(&bytes), Some(BEAT));

        bytes[0] = 2;
        assert_eq!(Beat::decode(&bytes), None);
    }

    #[test]
    fn messages_are_read_as_written_and_no_prefix_is() {
        let beat = Heartbeat {
            wants_answer: false,
            stamp: 1,
            echo: 0,
            hold: 3,
            needed: true,
        };
        let keys = LinkKeys {
            index: 5,
            key: Secret32::new([6; 32]),
        };
        let (a, b) = (beat.encode(), keys.encode());

        assert_eq!(Heartbeat::decode(&a).expect("decodes"), beat);
        assert_eq!(LinkKeys::decode(&b).expect("decodes"), keys);
        assert!((0..a.len()).all(|len| Heartbeat::decode(&a[..len]).is_err()));
        assert!((0..b.len()).all(|len| LinkKeys::decode(&b[..len]).is_err()));
        assert!(!format!("{keys:?}").contains('6'));
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Beat::decode(&bytes);
            let _ = Heartbeat::decode(&bytes);
            let _ = LinkKeys::decode(&bytes);
        }
    }
}
