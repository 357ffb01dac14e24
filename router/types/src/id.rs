//! Names nodes, meshes and tokens by bytes nobody can choose to collide.

use std::fmt;
use std::str::FromStr;

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Decoder, Encode, Encoder};

/// Why a text is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseIdError {
    /// A character that is not lower-case hexadecimal.
    Digit,
    /// Not the right number of characters.
    Length {
        /// How many characters there are.
        have: usize,
        /// How many there must be.
        need: usize,
    },
}

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digit => f.write_str("an identity is written in lower-case hexadecimal"),
            Self::Length { have, need } => {
                write!(f, "an identity has {need} characters, this one has {have}")
            }
        }
    }
}

impl std::error::Error for ParseIdError {}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// The length in bytes.
            pub const LEN: usize = $len;

            /// Takes the bytes as they are: every value is legal.
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes, as they travel.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first ten characters: enough for people to tell a few thousand apart.
            pub fn short(&self) -> String {
                self.to_string()[..10].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; $len];
                if text.len() != 2 * $len {
                    return Err(ParseIdError::Length { have: text.len(), need: 2 * $len });
                }
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    *byte = digit(pair[0])? << 4 | digit(pair[1])?;
                }
                Ok(Self(bytes))
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
                ByteArray::<$len>::decode(d, ctx).map(|bytes| Self(*bytes))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

fn digit(ascii: u8) -> Result<u8, ParseIdError> {
    match ascii {
        b'0'..=b'9' => Ok(ascii - b'0'),
        b'a'..=b'f' => Ok(ascii - b'a' + 10),
        _ => Err(ParseIdError::Digit),
    }
}

id! {
    /// Who a node is, for life: its Ed25519 public key (RFC 8032).
    NodeId, 32
}

id! {
    /// Which mesh: the SHA-256 of its genesis record.
    MeshId, 32
}

id! {
    /// Names a token's secret without revealing it: what a joiner shows in the preface.
    TokenId, 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_back() {
        let id = NodeId::new(std::array::from_fn(|i| {
            u8::try_from(i * 7).expect("below 256")
        }));

        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.short().len(), 10);
    }

    #[test]
    fn other_spellings_are_refused() {
        assert_eq!(
            "00".parse::<TokenId>(),
            Err(ParseIdError::Length { have: 2, need: 32 })
        );
        assert_eq!(
            "G0000000000000000000000000000000".parse::<TokenId>(),
            Err(ParseIdError::Digit)
        );
    }

    #[test]
    fn a_byte_string_of_another_length_is_no_id() {
        let bytes = minicbor::to_vec(minicbor::bytes::ByteVec::from(vec![1; 31])).expect("encodes");

        assert!(minicbor::decode::<NodeId>(&bytes).is_err());
    }
}
