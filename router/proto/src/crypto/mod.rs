//! Seals, signs and hashes; and names where chance comes from.
//!
//! What needs no chance is a plain function or type here. What needs it goes through [`Crypto`], which the driver
//! implements with the system's generator and a simulation with a seed (`seeded`), so that a core's whole life follows
//! from its inputs.
//!
//! **Invariant.** A secret is wiped when dropped, has no `Debug` or `Display` of its content, and is compared in constant
//! time.

pub mod noise;
pub mod seal;
mod secret;
#[cfg(any(test, feature = "seeded"))]
pub mod seeded;
mod sign;

use aws_lc_rs::{digest, hkdf};
pub use secret::Secret32;
pub use sign::{BadSignature, Label, SIGNATURE_LEN, SigningKey, verify};

/// Bytes of an ML-KEM-768 encapsulation key: FIPS 203 §8.
pub const KEM_KEY_LEN: usize = 1184;
/// Bytes of an ML-KEM-768 ciphertext: FIPS 203 §8.
pub const KEM_CIPHERTEXT_LEN: usize = 1088;

/// The source of chance, and of the algorithms that draw on one of their own.
pub trait Crypto: Send {
    /// Fills `bytes` with chance. A source that fails must not return.
    fn fill(&mut self, bytes: &mut [u8]);

    /// Makes a key pair for ML-KEM-768 (FIPS 203 §7.1).
    fn kem_generate(&mut self) -> KemKeys;

    /// Makes a secret, and the ciphertext that tells it to the owner of `encapsulation` (FIPS 203 §7.2).
    fn kem_encapsulate(
        &mut self,
        encapsulation: &[u8],
    ) -> Result<(Box<[u8; KEM_CIPHERTEXT_LEN]>, Secret32), KemError>;
}

impl dyn Crypto + '_ {
    /// Draws an array.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// Draws a secret.
    pub fn secret(&mut self) -> Secret32 {
        let mut secret = Secret32::new([0; 32]);
        self.fill(secret.as_mut_bytes());
        secret
    }

    /// Draws a number below `bound`, evenly enough for choosing names and back-offs; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        u64::from_be_bytes(self.array())
            .checked_rem(bound)
            .unwrap_or(0)
    }
}

/// One ML-KEM-768 key pair, used for one handshake.
pub struct KemKeys {
    /// What the other side encapsulates to.
    pub encapsulation: Box<[u8; KEM_KEY_LEN]>,
    /// What opens the answer.
    pub secret: Box<dyn KemSecret>,
}

/// The secret half of a [`KemKeys`].
pub trait KemSecret: Send + Sync {
    /// Recovers the secret from a ciphertext. A ciphertext that was made for another key yields another secret, not an
    /// error (FIPS 203 §6.3): the difference shows in the next authenticated message.
    fn decapsulate(&self, ciphertext: &[u8]) -> Result<Secret32, KemError>;
}

/// An encapsulation key or a ciphertext that is none: of the wrong length, or out of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no ML-KEM-768 key or ciphertext")]
pub struct KemError;

/// Hashes by SHA-256 (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// Derives a key by HKDF with SHA-256 (RFC 5869).
pub fn hkdf_sha256(salt: &[u8], ikm: &[u8], info: &[u8]) -> Secret32 {
    let mut key = Secret32::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(ikm)
        .expand(&[info], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(key.as_mut_bytes()))
        .expect("one block is less than the 255 that HKDF can make (RFC 5869 §2.3)");
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_vector_of_rfc_5869_comes_out() {
        let salt: Vec<u8> = (0x00..=0x0c).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();

        let key = hkdf_sha256(&salt, &[0x0b; 22], &info);

        assert_eq!(
            key.as_bytes(),
            &[
                0x3c, 0xb2, 0x5f, 0x25, 0xfa, 0xac, 0xd5, 0x7a, 0x90, 0x43, 0x4f, 0x64, 0xd0, 0x36,
                0x2f, 0x2a, 0x2d, 0x2d, 0x0a, 0x90, 0xcf, 0x1a, 0x5a, 0x4c, 0x5d, 0xb0, 0x2d, 0x56,
                0xec, 0xc4, 0xc5, 0xbf
            ]
        );
    }

    #[test]
    fn nothing_is_below_zero() {
        let mut crypto = seeded::SeededCrypto::new(1);
        let crypto: &mut dyn Crypto = &mut crypto;

        assert_eq!(crypto.below(0), 0);
        assert!(crypto.below(3) < 3);
    }
}
