//! What travels inside the three handshake messages.
//!
//! ```text
//! message 1   0         2                          1186
//!             ┌─────────┬──────────────────────────┐
//!             │ version │ ML-KEM-768 key           │      sealed under psk0
//!             └─────────┴──────────────────────────┘
//! message 2   CBOR: [`Answer`]       message 3   CBOR: [`Introduction`]
//! ```

use minicbor::{Decode, Encode};
use weft_types::{Boot, Nickname};

use crate::crypto::{KEM_CIPHERTEXT_LEN, KEM_KEY_LEN};
use crate::handshake::refusal::Refusal;
use crate::identity::NoiseCert;
use crate::wire::{decode_whole, encode};

/// The one version this release speaks.
pub const VERSION: u16 = 3;

/// How many features a node may name, and how long a name may be.
const MAX_FEATURES: usize = 32;
const MAX_FEATURE: usize = 32;

/// What message 1 asks with.
pub struct Question {
    /// The dialler's version.
    pub version: u16,
    /// Its one-time KEM key.
    pub kem_key: Box<[u8; KEM_KEY_LEN]>,
}

impl Question {
    /// Writes the payload.
    pub fn encode(&self) -> Vec<u8> {
        [&self.version.to_be_bytes()[..], &self.kem_key[..]].concat()
    }

    /// The version alone: what follows it is that version's.
    pub fn version_of(bytes: &[u8]) -> Option<u16> {
        bytes
            .first_chunk()
            .map(|version| u16::from_be_bytes(*version))
    }

    /// Reads the payload; what follows the key is for later versions.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first_chunk()?;
        let (key, _) = rest.split_first_chunk::<KEM_KEY_LEN>()?;
        Some(Self {
            version: u16::from_be_bytes(*version),
            kem_key: Box::new(*key),
        })
    }
}

/// What a node says of itself once the other side is known to hold the secret.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Introduction {
    /// Who it is: its two keys, tied together.
    #[n(0)]
    pub cert: NoiseCert,
    /// Which run of it this is.
    #[n(1)]
    pub boot: Boot,
    /// What people call it.
    #[n(2)]
    pub nickname: Nickname,
    /// Optional features; unknown ones are ignored.
    #[n(3)]
    pub features: Vec<String>,
    /// The UDP port of its sleeve and the TCP port it listens on: one number.
    #[n(4)]
    pub port: u16,
    /// The address a joiner asks for, as text; the mesh chooses where there is none.
    #[n(5)]
    pub wanted: Option<String>,
}

impl Introduction {
    /// Reads message 3's payload.
    ///
    /// # Errors
    ///
    /// If it is no such value, or names more features than anybody needs.
    pub fn decode(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        let introduction: Self = decode_whole(bytes)?;
        if introduction.features.len() > MAX_FEATURES
            || introduction.features.iter().any(|f| f.len() > MAX_FEATURE)
        {
            return Err(minicbor::decode::Error::message("too many features"));
        }
        Ok(introduction)
    }

    /// Writes the payload.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

/// What message 2 answers: a refusal, or everything the dialler needs for deciding.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Answer {
    /// The listener's version.
    #[n(0)]
    pub version: u16,
    /// Set: nothing else is.
    #[n(1)]
    pub refusal: Option<Refusal>,
    /// For the dialler's KEM key.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub ciphertext: Option<Vec<u8>>,
    /// The signed genesis, for a dialler that holds only its hash.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub genesis: Option<Vec<u8>>,
    /// Who answers.
    #[n(4)]
    pub introduction: Option<Introduction>,
}

impl Answer {
    /// Reads message 2's payload.
    ///
    /// # Errors
    ///
    /// If it is no such value.
    pub fn decode(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        let answer: Self = decode_whole(bytes)?;
        if answer
            .ciphertext
            .as_ref()
            .is_some_and(|ciphertext| ciphertext.len() != KEM_CIPHERTEXT_LEN)
        {
            return Err(minicbor::decode::Error::message("no KEM ciphertext"));
        }
        Ok(answer)
    }

    /// Writes the payload.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}
