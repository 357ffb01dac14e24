//! Names what a session is sealed by: its index, its cipher, its keys.
//!
//! Making keys (`session`), using them (`crypto::seal`, `sleeve`) and carrying them (`io`) all speak of these and of
//! nothing else of each other.
//! **Invariant.** Keys are wiped when dropped, and `Debug` shows none.

use zeroize::{Zeroize, ZeroizeOnDrop};

/// The receiver's handle for a session: random, meaningless to others, unique among the receiver's live sessions and links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionIndex(pub u32);

/// Which AEAD a session seals with: a fact of both nodes' records, not a negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cipher {
    /// Both nodes say that their hardware has AES.
    Aes256Gcm,
    /// Everybody else (RFC 8439).
    ChaCha20Poly1305,
}

impl Cipher {
    /// What two nodes use, by whether each says in its record that its hardware has AES.
    pub const fn between(ours_has_aes: bool, theirs_has_aes: bool) -> Self {
        if ours_has_aes && theirs_has_aes {
            Self::Aes256Gcm
        } else {
            Self::ChaCha20Poly1305
        }
    }

    /// Its name, for people and for deriving keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }
}

/// Both directions of one session. Lane keys are derived from these (HKDF by lane).
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SessionKeys {
    /// What the peer writes into datagrams for us.
    #[zeroize(skip)]
    pub local: SessionIndex,
    /// What we write into datagrams for the peer.
    #[zeroize(skip)]
    pub remote: SessionIndex,
    /// Which AEAD.
    #[zeroize(skip)]
    pub cipher: Cipher,
    /// Seals what we send.
    pub send: [u8; 32],
    /// Opens what we receive.
    pub receive: [u8; 32],
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}/{:?} {:?}", self.local, self.remote, self.cipher)
    }
}
