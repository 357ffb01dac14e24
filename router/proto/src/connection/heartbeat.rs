//! The bytes of a heartbeat, as a datagram's sealed body and as a control message, and the keys of a link.
//!
//! ```text
//!    0      1              4                   8                   12
//!   ┌──────┬──────────────┬───────────────────┬───────────────────┐
//!   │ flags│ hold         │ stamp             │ echo              │   behind the header of type 2
//!   └──────┴──────────────┴───────────────────┴───────────────────┘
//! ```
//!
//! Two a second go to every neighbour, so each byte counts. Stamps are microseconds on the sender's own clock, of which a
//! datagram carries the lower 32 bits. `echo` is the last stamp that came the same way and `hold` the microseconds since it
//! came, so a round trip needs no clocks that agree. The four lower bits of the flags are 1, as for every heartbeat; bit 4
//! asks for an answer at once, and bit 5 says that there is an echo. Other bits, and what follows, are for later releases.

use minicbor::{Decode, Encode, decode};

use crate::crypto::Secret32;
use crate::wire::{decode_whole, encode};

/// Bytes of a heartbeat in a datagram.
const LEN: usize = 12;
/// The lower half of the first byte: what the sealed body is.
const HEARTBEAT: u8 = 1;
const KIND: u8 = 0x0f;
const WANTS_ANSWER: u8 = 1 << 4;
const HAS_ECHO: u8 = 1 << 5;
/// An echo that was held longer does not fit: 16.8 s, in microseconds.
const MAX_HOLD: u32 = (1 << 24) - 1;

/// A heartbeat by datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Whether the other side shall answer at once.
    pub wants_answer: bool,
    /// When it was sent, in microseconds of the sender; it begins again every 71 minutes.
    pub stamp: u32,
    /// The last stamp that came by datagram.
    pub echo: Option<Echo>,
}

/// A stamp on its way back to whoever made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// As it came.
    pub stamp: u32,
    /// How long ago it came, in microseconds.
    hold: u32,
}

impl Echo {
    /// `None` for a stamp that was held too long, 16.8 s, to tell anything.
    pub fn new(stamp: u32, hold: u32) -> Option<Self> {
        (hold <= MAX_HOLD).then_some(Self { stamp, hold })
    }

    /// How long ago it came, in microseconds.
    pub const fn hold(&self) -> u32 {
        self.hold
    }
}

impl Beat {
    /// Reads a datagram's opened body; `None` for what is too short or something else.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let (body, _) = body.split_first_chunk::<LEN>()?;
        let [flags, h0, h1, h2, s0, s1, s2, s3, echo @ ..] = *body;
        if flags & KIND != HEARTBEAT {
            return None;
        }
        Some(Self {
            wants_answer: flags & WANTS_ANSWER != 0,
            stamp: u32::from_be_bytes([s0, s1, s2, s3]),
            echo: (flags & HAS_ECHO != 0).then(|| Echo {
                stamp: u32::from_be_bytes(echo),
                hold: u32::from_be_bytes([0, h0, h1, h2]),
            }),
        })
    }

    /// As it is sealed.
    pub fn encode(&self) -> [u8; LEN] {
        let wants_answer = if self.wants_answer { WANTS_ANSWER } else { 0 };
        let has_echo = if self.echo.is_some() { HAS_ECHO } else { 0 };
        let (echo, hold) = self.echo.map_or((0, 0), |echo| (echo.stamp, echo.hold));
        let mut body = [0; LEN];
        body[..4].copy_from_slice(&hold.to_be_bytes()); // 24 bits: the first byte is the flags'
        body[0] = HEARTBEAT | wants_answer | has_echo;
        body[4..8].copy_from_slice(&self.stamp.to_be_bytes());
        body[8..].copy_from_slice(&echo.to_be_bytes());
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
        stamp: 0x0203_0405,
        echo: Some(Echo {
            stamp: 6,
            hold: 0x0007_0809,
        }),
    };

    #[test]
    fn it_travels_as_drawn() {
        let bytes = [0x31, 7, 8, 9, 2, 3, 4, 5, 0, 0, 0, 6];
        assert_eq!(BEAT.encode(), bytes);
        assert_eq!(Beat::decode(&bytes), Some(BEAT));
        assert!((0..LEN).all(|len| Beat::decode(&bytes[..len]).is_none()));

        let first = Beat {
            wants_answer: false,
            echo: None,
            ..BEAT
        };
        let bytes = [1, 0, 0, 0, 2, 3, 4, 5, 0, 0, 0, 0];
        assert_eq!(first.encode(), bytes);
        assert_eq!(Beat::decode(&bytes), Some(first));
    }

    #[test]
    fn a_stamp_that_was_held_too_long_is_not_echoed() {
        assert!(Echo::new(1, MAX_HOLD).is_some());
        assert_eq!(Echo::new(1, MAX_HOLD + 1), None);
    }

    #[test]
    fn what_a_later_release_adds_is_ignored_and_another_kind_refused() {
        let mut bytes = BEAT.encode().to_vec();
        bytes[0] |= 0xc0;
        bytes.push(9);
        assert_eq!(Beat::decode(&bytes), Some(BEAT));

        bytes[0] = 0x32;
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
