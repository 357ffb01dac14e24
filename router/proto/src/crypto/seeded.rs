//! **For simulation and tests only: nothing here is secret.** Gives a whole run its chance from one seed.
//!
//! The key encapsulation is a hash construction with the sizes and the manners of ML-KEM-768 (a damaged ciphertext yields
//! another secret, not an error), which anybody who reads the wire can undo. It exists because the real one draws on a
//! generator of its own, so no two runs of a simulation would be alike.

use super::{
    Crypto, KEM_CIPHERTEXT_LEN, KEM_KEY_LEN, KemError, KemKeys, KemSecret, Secret32, sha256,
};

/// Chance that follows from a seed.
#[derive(Clone, Debug)]
pub struct SeededCrypto {
    seed: u64,
    block: [u8; 32],
    used: usize,
    counter: u64,
}

impl SeededCrypto {
    /// Equal seeds give equal lives.
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            block: [0; 32],
            used: 32,
            counter: 0,
        }
    }

    fn next_block(&mut self) {
        let mut input = [0; 16];
        input[..8].copy_from_slice(&self.seed.to_be_bytes());
        input[8..].copy_from_slice(&self.counter.to_be_bytes());
        self.block = sha256(&input);
        self.counter += 1;
        self.used = 0;
    }
}

impl Crypto for SeededCrypto {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.used == self.block.len() {
                self.next_block();
            }
            *byte = self.block[self.used];
            self.used += 1;
        }
    }

    fn kem_generate(&mut self) -> KemKeys {
        let mut encapsulation = Box::new([0; KEM_KEY_LEN]);
        self.fill(&mut encapsulation[..32]);
        KemKeys {
            encapsulation: encapsulation.clone(),
            secret: Box::new(Transparent(encapsulation)),
        }
    }

    fn kem_encapsulate(
        &mut self,
        encapsulation: &[u8],
    ) -> Result<(Box<[u8; KEM_CIPHERTEXT_LEN]>, Secret32), KemError> {
        if encapsulation.len() != KEM_KEY_LEN {
            return Err(KemError);
        }
        let mut ciphertext = Box::new([0; KEM_CIPHERTEXT_LEN]);
        self.fill(&mut ciphertext[..32]);
        let secret = shared(encapsulation, &ciphertext[..]);
        Ok((ciphertext, secret))
    }
}

struct Transparent(Box<[u8; KEM_KEY_LEN]>);

impl KemSecret for Transparent {
    fn decapsulate(&self, ciphertext: &[u8]) -> Result<Secret32, KemError> {
        if ciphertext.len() != KEM_CIPHERTEXT_LEN {
            return Err(KemError);
        }
        Ok(shared(&self.0[..], ciphertext))
    }
}

fn shared(encapsulation: &[u8], ciphertext: &[u8]) -> Secret32 {
    Secret32::new(sha256(&[encapsulation, ciphertext].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_chance() {
        let draw = |seed| -> [u8; 70] {
            let mut crypto = SeededCrypto::new(seed);
            (&mut crypto as &mut dyn Crypto).array()
        };

        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn both_sides_find_the_same_secret_and_a_damaged_ciphertext_another() {
        let mut crypto = SeededCrypto::new(1);
        let keys = crypto.kem_generate();
        let (mut ciphertext, secret) = crypto
            .kem_encapsulate(&keys.encapsulation[..])
            .expect("encapsulates");

        assert_eq!(keys.secret.decapsulate(&ciphertext[..]), Ok(secret.clone()));
        ciphertext[1087] ^= 1;
        assert_ne!(keys.secret.decapsulate(&ciphertext[..]), Ok(secret));
    }
}
