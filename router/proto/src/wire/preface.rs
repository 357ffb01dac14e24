//! Opens every control connection: which key the Noise messages behind it are under. Frozen for ever.
//!
//! ```text
//!    0      4      5                     16               32
//!    ├──────┼──────┼─────────────────────┼────────────────┤
//!    │"WEFT"│ mode │ reserved (11 zeros) │ key id (16)    │
//!    └──────┴──────┴─────────────────────┴────────────────┘
//! ```
//!
//! Mode 1 is MEMBER (the key id names a door key), 2 is TOKEN (it names a token), 3 is reserved for PASSWORD. Reserved
//! bytes are written zero and ignored when read; all 32 bytes are part of the handshake's prologue.

use weft_types::TokenId;

/// Bytes of a preface.
pub const LEN: usize = 32;

mod field {
    use std::ops::Range;

    pub(super) const MAGIC: Range<usize> = 0..4;
    pub(super) const MODE: usize = 4;
    pub(super) const KEY_ID: Range<usize> = 16..32;
}

const MAGIC: &[u8; 4] = b"WEFT";
const MODE_MEMBER: u8 = 1;
const MODE_TOKEN: u8 = 2;

/// Names a door key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct DoorKeyId(#[cbor(n(0), with = "minicbor::bytes")] [u8; 16]);

impl DoorKeyId {
    /// Takes the bytes as they are: every value is legal.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, as they travel.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl std::fmt::Debug for DoorKeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why bytes are no preface of ours. The connection is closed without a byte, whichever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefaceError {
    /// Somebody else's protocol.
    #[error("the connection does not begin as one of weft's does")]
    Magic,
    /// Password, or one that a later release made.
    #[error("the connection asks for mode {0}, which is not served here")]
    Mode(u8),
}

/// Looks at a preface in place.
pub struct Preface<'a>(&'a [u8; LEN]);

impl<'a> Preface<'a> {
    /// Looks at the first bytes of a connection; `None` until there are [`LEN`] of them.
    pub fn new_checked(bytes: &'a [u8]) -> Option<Self> {
        bytes.first_chunk().map(Self)
    }

    /// The magic.
    pub fn magic(&self) -> &[u8] {
        &self.0[field::MAGIC]
    }

    /// The mode, as a number.
    pub const fn mode(&self) -> u8 {
        self.0[field::MODE]
    }

    /// The key id.
    pub fn key_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id.copy_from_slice(&self.0[field::KEY_ID]);
        id
    }

    /// All of it, for the prologue.
    pub const fn as_bytes(&self) -> &[u8; LEN] {
        self.0
    }
}

/// How a connection asks to be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Repr {
    /// By a key that all members know.
    Member(DoorKeyId),
    /// By a token.
    Token(TokenId),
}

impl Repr {
    /// Understands a preface.
    pub fn parse(preface: &Preface<'_>) -> Result<Self, PrefaceError> {
        if preface.magic() != MAGIC {
            return Err(PrefaceError::Magic);
        }
        match preface.mode() {
            MODE_MEMBER => Ok(Self::Member(DoorKeyId::new(preface.key_id()))),
            MODE_TOKEN => Ok(Self::Token(TokenId::new(preface.key_id()))),
            other => Err(PrefaceError::Mode(other)),
        }
    }

    /// Understands the first bytes of a connection; `None` where there are too few.
    pub fn decode(bytes: &[u8]) -> Option<Result<Self, PrefaceError>> {
        Preface::new_checked(bytes).map(|preface| Self::parse(&preface))
    }

    /// Writes a preface.
    pub fn emit(&self) -> [u8; LEN] {
        let (mode, key_id) = match self {
            Self::Member(id) => (MODE_MEMBER, id.as_bytes()),
            Self::Token(id) => (MODE_TOKEN, id.as_bytes()),
        };
        let mut bytes = [0; LEN];
        bytes[field::MAGIC].copy_from_slice(MAGIC);
        bytes[field::MODE] = mode;
        bytes[field::KEY_ID].copy_from_slice(key_id);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_of_a_preface_are_frozen() {
        let mut frozen = *b"WEFT\x01...........0123456789abcdef";
        frozen[5..16].fill(0);

        let repr = Repr::Member(DoorKeyId::new(*b"0123456789abcdef"));

        assert_eq!(repr.emit(), frozen);
        assert_eq!(Repr::decode(&frozen), Some(Ok(repr)));
    }

    #[test]
    fn reserved_bytes_are_ignored() {
        let repr = Repr::Token(TokenId::new([7; 16]));
        let mut bytes = repr.emit();
        bytes[5..16].fill(0xff);

        assert_eq!(Repr::decode(&bytes), Some(Ok(repr)));
    }

    #[test]
    fn every_prefix_is_too_short() {
        let bytes = Repr::Token(TokenId::new([7; 16])).emit();

        for len in 0..LEN {
            assert_eq!(Repr::decode(&bytes[..len]), None);
        }
    }

    #[test]
    fn other_protocols_and_modes_are_refused() {
        let mut bytes = Repr::Token(TokenId::new([7; 16])).emit();
        bytes[4] = 3;
        assert_eq!(Repr::decode(&bytes), Some(Err(PrefaceError::Mode(3))));
        bytes[..4].copy_from_slice(b"GET ");
        assert_eq!(Repr::decode(&bytes), Some(Err(PrefaceError::Magic)));
    }

    proptest! {
        #[test]
        fn what_parses_is_emitted_alike(mode in 1..=2u8, id in any::<[u8; 16]>()) {
            let repr = if mode == 1 { Repr::Member(DoorKeyId::new(id)) } else { Repr::Token(TokenId::new(id)) };

            prop_assert_eq!(Repr::decode(&repr.emit()), Some(Ok(repr)));
        }
    }
}
