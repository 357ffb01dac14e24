//! End-to-end sessions between two nodes: made over the control plane, rekeyed inside themselves.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::sleeve::SessionIndex;

/// Which AEAD a session seals with: a fact of both nodes' records, not a negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// Both nodes say that their hardware has AES.
    Aes256Gcm,
    /// Everybody else (RFC 8439).
    ChaCha20Poly1305,
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
