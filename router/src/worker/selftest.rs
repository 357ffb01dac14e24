//! Finds out which cryptographic library is faster on this processor.

use std::hint::black_box;
use std::time::{Duration, Instant};

use weft_router_proto::crypto::seal::{AeadKey, Backend};
use weft_router_proto::session::Cipher;

/// How long each library is tried with each cipher.
const TRIAL: Duration = Duration::from_micros(250);

/// A full datagram's worth.
const BYTES: usize = 1418;

/// Which library seals with which cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backends {
    /// For AES-256-GCM.
    pub aes: Backend,
    /// For ChaCha20-Poly1305.
    pub chacha: Backend,
}

impl Backends {
    /// Tries all of them, for a millisecond in total.
    pub fn fastest() -> Self {
        Self {
            aes: fastest(Cipher::Aes256Gcm),
            chacha: fastest(Cipher::ChaCha20Poly1305),
        }
    }

    pub(super) const fn of(self, cipher: Cipher) -> Backend {
        match cipher {
            Cipher::Aes256Gcm => self.aes,
            Cipher::ChaCha20Poly1305 => self.chacha,
        }
    }
}

fn fastest(cipher: Cipher) -> Backend {
    Backend::ALL
        .into_iter()
        .max_by_key(|&backend| sealed_within(TRIAL, backend, cipher))
        .unwrap_or(Backend::Ring)
}

/// How many full datagrams are sealed in that time.
fn sealed_within(time: Duration, backend: Backend, cipher: Cipher) -> u64 {
    let key = AeadKey::new(backend, cipher, &[0; 32]);
    let mut bytes = [0; BYTES];
    let start = Instant::now();
    let mut sealed = 0;
    while start.elapsed() < time {
        for _ in 0..8 {
            black_box(key.seal(sealed, &[], black_box(&mut bytes)));
            sealed += 1;
        }
    }
    sealed
}
