//! Seals and opens datagrams in place, by whichever implementation is fastest on this processor.
//!
//! ```text
//!   associated data │ plaintext ──seal──▶ ciphertext │ tag        nonce = 0000 ‖ counter (u64, big-endian)
//! ```
//!
//! Two ciphers are known on the data path and two libraries implement both: `ring` has AES with 256-bit vectors,
//! `aws-lc-rs` with 512-bit ones, and which wins depends on the machine. The driver times [`Backend::ALL`] for a
//! millisecond at start and gives the winner to everyone; both speak the same bytes.
//! **Invariant.** A key is wiped when it is dropped, and has no `Debug`.
//! **Failure policy.** Opening fails with one answer whatever was wrong: nothing is learnt from it.

use aws_lc_rs::aead as aws;
use ring::aead as ring_aead;
use ring::hkdf;
use zeroize::Zeroizing;

use crate::keys::Cipher;

/// How long every tag is.
pub const TAG: usize = 16;

/// Which library does the work. A matter of speed only: the bytes are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// AWS-LC: AES with 512-bit vectors where the processor has them.
    AwsLc,
    /// ring: AES with 256-bit vectors, and the lower cost per call.
    Ring,
}

impl Backend {
    /// Every implementation, for the self-test that picks one.
    pub const ALL: [Self; 2] = [Self::Ring, Self::AwsLc];
}

/// The bytes do not come from who holds the key, or are not what was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the seal does not hold")]
pub struct Inauthentic;

/// A key of one lane, ready to seal or to open.
pub struct AeadKey {
    cipher: Cipher,
    inner: Inner,
}

// Boxed, so that moving a key leaves no copy behind and wiping it finds its bytes.
enum Inner {
    AwsLc(Box<aws::LessSafeKey>),
    Ring(Box<ring_aead::LessSafeKey>),
}

impl AeadKey {
    /// Prepares a key.
    pub fn new(backend: Backend, cipher: Cipher, key: &[u8; 32]) -> Self {
        let inner = match backend {
            Backend::AwsLc => Inner::AwsLc(Box::new(aws_key(cipher, key))),
            Backend::Ring => Inner::Ring(Box::new(ring_key(cipher, key))),
        };
        Self { cipher, inner }
    }

    /// Encrypts `body` in place and returns its tag.
    ///
    /// The caller never gives one counter twice under one key: that would reveal both bodies.
    pub fn seal(&self, counter: u64, aad: &[u8], body: &mut [u8]) -> [u8; TAG] {
        let mut tag = [0; TAG];
        match &self.inner {
            Inner::AwsLc(key) => {
                let nonce = aws::Nonce::assume_unique_for_key(nonce(counter));
                let sealed = key
                    .seal_in_place_separate_tag(nonce, aws::Aad::from(aad), body)
                    .expect("a datagram is far shorter than what one nonce may seal");
                tag.copy_from_slice(sealed.as_ref());
            }
            Inner::Ring(key) => {
                let nonce = ring_aead::Nonce::assume_unique_for_key(nonce(counter));
                let sealed = key
                    .seal_in_place_separate_tag(nonce, ring_aead::Aad::from(aad), body)
                    .expect("a datagram is far shorter than what one nonce may seal");
                tag.copy_from_slice(sealed.as_ref());
            }
        }
        tag
    }

    /// Checks and decrypts `sealed` (ciphertext ‖ tag) in place; the plaintext is its beginning.
    ///
    /// After an error the bytes are worthless.
    pub fn open<'a>(
        &self,
        counter: u64,
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], Inauthentic> {
        match &self.inner {
            Inner::AwsLc(key) => {
                let nonce = aws::Nonce::assume_unique_for_key(nonce(counter));
                key.open_in_place(nonce, aws::Aad::from(aad), sealed)
                    .map_err(|_| Inauthentic)
            }
            Inner::Ring(key) => {
                let nonce = ring_aead::Nonce::assume_unique_for_key(nonce(counter));
                key.open_in_place(nonce, ring_aead::Aad::from(aad), sealed)
                    .map_err(|_| Inauthentic)
            }
        }
    }
}

impl Drop for AeadKey {
    fn drop(&mut self) {
        // Neither library wipes its keys, so the schedule of a worthless key is written over this one's.
        match &mut self.inner {
            Inner::AwsLc(key) => {
                **key = aws_key(self.cipher, &[0; 32]);
                std::hint::black_box(&**key);
            }
            Inner::Ring(key) => {
                **key = ring_key(self.cipher, &[0; 32]);
                std::hint::black_box(&**key);
            }
        }
    }
}

/// Derives the key of one lane from a session's key of one direction: HKDF-SHA256 (RFC 5869), no salt, info
/// `"weft-v1 lane" ‖ lane`.
pub fn lane_key(direction: &[u8; 32], lane: u16) -> Zeroizing<[u8; 32]> {
    let [high, low] = lane.to_be_bytes();
    let mut key = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
        .extract(direction)
        .expand(&[b"weft-v1 lane", &[high, low]], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(key.as_mut_slice()))
        .expect("32 bytes are one block of HKDF-SHA256");
    key
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

fn aws_key(cipher: Cipher, key: &[u8; 32]) -> aws::LessSafeKey {
    let algorithm = match cipher {
        Cipher::Aes256Gcm => &aws::AES_256_GCM,
        Cipher::ChaCha20Poly1305 => &aws::CHACHA20_POLY1305,
    };
    aws::LessSafeKey::new(aws::UnboundKey::new(algorithm, key).expect("both ciphers take 32 bytes"))
}

fn ring_key(cipher: Cipher, key: &[u8; 32]) -> ring_aead::LessSafeKey {
    let algorithm = match cipher {
        Cipher::Aes256Gcm => &ring_aead::AES_256_GCM,
        Cipher::ChaCha20Poly1305 => &ring_aead::CHACHA20_POLY1305,
    };
    ring_aead::LessSafeKey::new(
        ring_aead::UnboundKey::new(algorithm, key).expect("both ciphers take 32 bytes"),
    )
}

#[cfg(test)]
mod tests {
    use chacha20poly1305::aead::AeadInPlace;
    use chacha20poly1305::{ChaCha20Poly1305, KeyInit};

    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const CIPHERS: [Cipher; 2] = [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];

    fn sealed(backend: Backend, cipher: Cipher) -> Vec<u8> {
        let mut bytes = b"sixteen and more bytes".to_vec();
        let tag = AeadKey::new(backend, cipher, &KEY).seal(5, b"header", &mut bytes);
        bytes.extend_from_slice(&tag);
        bytes
    }

    #[test]
    fn both_backends_write_the_same_bytes() {
        for cipher in CIPHERS {
            assert_eq!(
                sealed(Backend::Ring, cipher),
                sealed(Backend::AwsLc, cipher)
            );
        }
    }

    #[test]
    fn an_independent_implementation_agrees() {
        let mut expected = b"sixteen and more bytes".to_vec();
        ChaCha20Poly1305::new(&KEY.into())
            .encrypt_in_place(&nonce(5).into(), b"header", &mut expected)
            .unwrap();

        assert_eq!(sealed(Backend::Ring, Cipher::ChaCha20Poly1305), expected);
    }

    #[test]
    fn what_one_backend_seals_the_other_opens() {
        for cipher in CIPHERS {
            let mut bytes = sealed(Backend::Ring, cipher);

            let key = AeadKey::new(Backend::AwsLc, cipher, &KEY);

            assert_eq!(
                key.open(5, b"header", &mut bytes).map(|open| open.to_vec()),
                Ok(b"sixteen and more bytes".to_vec())
            );
        }
    }

    #[test]
    fn every_flipped_bit_breaks_the_seal() {
        for backend in Backend::ALL {
            for cipher in CIPHERS {
                let key = AeadKey::new(backend, cipher, &KEY);
                for bit in 0..sealed(backend, cipher).len() * 8 {
                    let mut bytes = sealed(backend, cipher);
                    bytes[bit / 8] ^= 1 << (bit % 8);

                    assert_eq!(key.open(5, b"header", &mut bytes), Err(Inauthentic));
                }
                assert!(
                    key.open(6, b"header", &mut sealed(backend, cipher))
                        .is_err()
                );
                assert!(
                    key.open(5, b"Header", &mut sealed(backend, cipher))
                        .is_err()
                );
            }
        }
    }

    #[test]
    fn lanes_have_keys_of_their_own() {
        assert_ne!(lane_key(&KEY, 0), lane_key(&KEY, 1));
        assert_ne!(*lane_key(&KEY, 0), KEY);
    }
}
