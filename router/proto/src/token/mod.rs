//! Admits a node that nobody knows yet: what a person copies from one terminal to another.
//!
//! ```text
//!   text    "wft1-" ‖ base32(bytes ‖ first 4 bytes of SHA-256(bytes))           RFC 4648 §6, lower case, no padding
//!
//!   bytes   0      1          33        49          81               113     114
//!           ├──────┼──────────┼─────────┼───────────┼────────────────┼───────┼─────────────────────────────
//!           │ kind │ mesh id  │ id (16) │ secret    │ issuer (32)    │ count │ count × { 4 or 6, address, port (2) }
//!           └──────┴──────────┴─────────┴───────────┴────────────────┴───────┴─────────────────────────────
//!   kind    1 reusable: ends after the secret       2 single use: goes on with who made it and where that is
//! ```
//!
//! The checksum is there so that a mistyped token is found out where it was typed, before anything is dialled. A secret
//! admits a key once; it never keys data.

mod book;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

pub use book::{BookFull, DamagedToken, Redeem, TokenBook, TokenInfo, TokenState};
use data_encoding::{BASE32_NOPAD, BASE32_NOPAD_NOCASE};
use weft_types::{Code, MeshId, NodeId, TokenId};
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::{Secret32, sha256};
use crate::io::TokenText;

/// What stands in front: weft's tokens, first form.
const PREFIX: &str = "wft1-";
/// The most addresses in one token. More make it too long to copy, and a mesh's other addresses follow after joining.
pub const MAX_ADDRESSES: usize = 8;
/// Longer than any token with [`MAX_ADDRESSES`], so nothing else is even decoded.
const MAX_TEXT: usize = 600;
const CHECKSUM_LEN: usize = 4;

const KIND_REUSABLE: u8 = 1;
const KIND_SINGLE_USE: u8 = 2;
const IPV4: u8 = 4;
const IPV6: u8 = 6;

/// What admits a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Into which mesh.
    pub mesh: MeshId,
    /// Names it, in the open.
    pub id: TokenId,
    /// Proves it.
    pub secret: Secret32,
    /// Who made it: only for single use, which only its issuer can redeem.
    pub issuer: Option<Issuer>,
}

/// Who made a single-use token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// Who.
    pub node: NodeId,
    /// Where it listens: the first [`MAX_ADDRESSES`] are written.
    pub addresses: Vec<SocketAddr>,
}

/// Why a text is no token. Found where it was typed; nothing was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// A character that no token has.
    #[error("a token has only the letters a to z and the digits 2 to 7 after {PREFIX}")]
    Character,
    /// Mistyped, or cut short.
    #[error("a character of it is wrong or missing: copy it again, whole")]
    Checksum,
    /// The checksum fits, the content does not: another program made it.
    #[error("it was made by another release of weft, or by another program")]
    Content,
    /// Too long or too short for any token.
    #[error("it is too short or too long: copy it again, whole")]
    Length,
    /// Something else altogether.
    #[error("a token begins with {PREFIX}")]
    Prefix,
}

impl TokenError {
    /// The code of all of them.
    pub const fn code(self) -> Code {
        Code::TokenMalformed
    }
}

impl Token {
    /// Whether it admits more than one node.
    pub const fn reusable(&self) -> bool {
        self.issuer.is_none()
    }

    /// Reads what a person typed. Space around it and upper case are forgiven.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return Err(TokenError::Length);
        }
        let (prefix, body) = text
            .split_at_checked(PREFIX.len())
            .ok_or(TokenError::Prefix)?;
        if !prefix.eq_ignore_ascii_case(PREFIX) {
            return Err(TokenError::Prefix);
        }
        let bytes = BASE32_NOPAD_NOCASE
            .decode(body.as_bytes())
            .map(Zeroizing::new)
            .map_err(|error| match error.kind {
                data_encoding::DecodeKind::Symbol => TokenError::Character,
                data_encoding::DecodeKind::Length
                | data_encoding::DecodeKind::Padding
                | data_encoding::DecodeKind::Trailing => TokenError::Checksum,
            })?;
        let (bytes, checksum) = bytes
            .split_last_chunk::<CHECKSUM_LEN>()
            .ok_or(TokenError::Length)?;
        if sha256(bytes)[..CHECKSUM_LEN] != checksum[..] {
            return Err(TokenError::Checksum);
        }
        Self::decode(bytes)
    }

    /// Writes it for the person who asked for it.
    pub fn reveal(&self) -> TokenText {
        let mut bytes = self.encode();
        let checksum = sha256(&bytes);
        bytes.extend_from_slice(&checksum[..CHECKSUM_LEN]);
        let mut upper = BASE32_NOPAD.encode(&bytes);
        let text = [PREFIX, &*Zeroizing::new(upper.to_ascii_lowercase())].concat();
        upper.zeroize();
        TokenText::new(text)
    }

    /// Reads the bytes inside a token's text, without the checksum.
    pub fn decode(bytes: &[u8]) -> Result<Self, TokenError> {
        let mut reader = Reader(bytes);
        let [kind] = reader.array()?;
        let (mesh, id, secret) = (reader.array()?, reader.array()?, reader.array()?);
        let issuer = match kind {
            KIND_REUSABLE => None,
            KIND_SINGLE_USE => Some(reader.issuer()?),
            _ => return Err(TokenError::Content),
        };
        if !reader.0.is_empty() {
            return Err(TokenError::Content);
        }
        Ok(Self {
            mesh: MeshId::new(mesh),
            id: TokenId::new(id),
            secret: Secret32::new(secret),
            issuer,
        })
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Room for the longest: the vector never moves, so it leaves no copy behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_TEXT));
        let kind = if self.reusable() {
            KIND_REUSABLE
        } else {
            KIND_SINGLE_USE
        };
        bytes.push(kind);
        bytes.extend_from_slice(self.mesh.as_bytes());
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(self.secret.as_bytes());
        if let Some(issuer) = &self.issuer {
            let addresses = &issuer.addresses[..issuer.addresses.len().min(MAX_ADDRESSES)];
            bytes.extend_from_slice(issuer.node.as_bytes());
            bytes.extend(u8::try_from(addresses.len()));
            for address in addresses {
                match address.ip() {
                    IpAddr::V4(v4) => {
                        bytes.push(IPV4);
                        bytes.extend_from_slice(&v4.octets());
                    }
                    IpAddr::V6(v6) => {
                        bytes.push(IPV6);
                        bytes.extend_from_slice(&v6.octets());
                    }
                }
                bytes.extend_from_slice(&address.port().to_be_bytes());
            }
        }
        bytes
    }
}

impl fmt::Display for Token {
    /// The name of it, never the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {}", self.id.short())
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], TokenError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(TokenError::Content)?;
        self.0 = rest;
        Ok(*array)
    }

    fn issuer(&mut self) -> Result<Issuer, TokenError> {
        let node = NodeId::new(self.array()?);
        let [count] = self.array()?;
        if usize::from(count) > MAX_ADDRESSES {
            return Err(TokenError::Content);
        }
        let addresses = (0..count)
            .map(|_| self.address())
            .collect::<Result<_, _>>()?;
        Ok(Issuer { node, addresses })
    }

    fn address(&mut self) -> Result<SocketAddr, TokenError> {
        let [family] = self.array()?;
        let address: IpAddr = match family {
            IPV4 => self.array::<4>()?.into(),
            IPV6 => self.array::<16>()?.into(),
            _ => return Err(TokenError::Content),
        };
        Ok(SocketAddr::new(address, u16::from_be_bytes(self.array()?)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(addresses: &[&str]) -> Token {
        Token {
            mesh: MeshId::new([1; 32]),
            id: TokenId::new([2; 16]),
            secret: Secret32::new([3; 32]),
            issuer: Some(Issuer {
                node: NodeId::new([4; 32]),
                addresses: addresses
                    .iter()
                    .map(|address| address.parse().unwrap())
                    .collect(),
            }),
        }
    }

    fn reusable() -> Token {
        Token {
            issuer: None,
            ..token(&[])
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for token in [
            reusable(),
            token(&[]),
            token(&["192.0.2.1:6783", "[2001:db8::1]:6783"]),
        ] {
            let text = token.reveal();

            assert_eq!(Token::parse(text.reveal()), Ok(token.clone()));
            assert_eq!(
                Token::parse(&format!(" {}\n", text.reveal().to_uppercase())),
                Ok(token)
            );
        }
    }

    #[test]
    fn the_longest_token_is_read_back_and_no_longer_one_is_written() {
        let longest = token(&["[2001:db8::1]:6783"; MAX_ADDRESSES]);
        let longer = token(&["[2001:db8::1]:6783"; MAX_ADDRESSES + 1]);

        assert_eq!(Token::parse(longest.reveal().reveal()), Ok(longest.clone()));
        assert_eq!(longer.reveal(), longest.reveal());
    }

    #[test]
    fn any_character_mistyped_is_found_out() {
        let text = token(&["192.0.2.1:6783"]).reveal();

        for at in PREFIX.len()..text.reveal().len() {
            for wrong in ["a", "7", "1", "-"] {
                let mut mistyped = text.reveal().to_owned();
                mistyped.replace_range(at..=at, wrong);
                assert!(mistyped == text.reveal() || Token::parse(&mistyped).is_err());
            }
        }
    }

    #[test]
    fn every_prefix_is_refused() {
        let token = token(&["192.0.2.1:6783"]);
        let (text, bytes) = (token.reveal(), token.encode());

        for len in 0..text.reveal().len() {
            assert!(Token::parse(&text.reveal()[..len]).is_err());
        }
        for len in 0..bytes.len() {
            assert_eq!(Token::decode(&bytes[..len]), Err(TokenError::Content));
        }
    }

    #[test]
    fn each_mistake_has_its_name() {
        let text = reusable().reveal();
        let body = &text.reveal()[PREFIX.len()..];

        assert_eq!(Token::parse("10.0.0.1"), Err(TokenError::Prefix));
        assert_eq!(Token::parse("wft1-"), Err(TokenError::Length));
        assert_eq!(
            Token::parse(&format!("wft2-{body}")),
            Err(TokenError::Prefix)
        );
        assert_eq!(
            Token::parse(&format!("wft1-!{}", &body[1..])),
            Err(TokenError::Character)
        );
        assert_eq!(
            Token::parse(&format!("wft1-{}", &body[8..])),
            Err(TokenError::Checksum)
        );
        assert_eq!(Token::parse(&"wft1-a".repeat(200)), Err(TokenError::Length));
    }

    #[test]
    fn neither_debug_nor_display_shows_the_secret() {
        let token = token(&[]);

        assert!(!format!("{token:?} {token}").contains("3, 3"));
        assert!(format!("{token:?}").contains("(secret)"));
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = Token::decode(&bytes);
        }

        #[test]
        fn random_text_does_not_panic(text in "(wft1-)?[a-zA-Z2-7 \u{e9}]{0,200}") {
            let _ = Token::parse(&text);
        }
    }
}
