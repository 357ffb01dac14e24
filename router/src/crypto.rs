//! Draws chance from the system, and key encapsulation from aws-lc.

use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use weft_router_proto::crypto::{
    Crypto, KEM_CIPHERTEXT_LEN, KemError, KemKeys, KemSecret, Secret32,
};

/// The provider of every real router.
#[derive(Debug)]
pub struct SystemCrypto {
    random: SystemRandom,
}

impl SystemCrypto {
    /// Opens the system's source.
    pub fn new() -> Self {
        Self {
            random: SystemRandom::new(),
        }
    }
}

impl Default for SystemCrypto {
    fn default() -> Self {
        Self::new()
    }
}

impl Crypto for SystemCrypto {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.random.fill(bytes).expect(
            "without the system's generator there are no keys: stopping is the only safe answer",
        );
    }

    fn kem_generate(&mut self) -> KemKeys {
        let secret = DecapsulationKey::generate(&ML_KEM_768).expect("only memory can run out");
        let public = secret
            .encapsulation_key()
            .and_then(|key| key.key_bytes().map(|bytes| bytes.as_ref().try_into()))
            .expect("a generated key has a public half");
        KemKeys {
            encapsulation: Box::new(public.expect("1184 bytes: FIPS 203 §8")),
            secret: Box::new(SystemKemSecret(secret)),
        }
    }

    fn kem_encapsulate(
        &mut self,
        encapsulation: &[u8],
    ) -> Result<(Box<[u8; KEM_CIPHERTEXT_LEN]>, Secret32), KemError> {
        let key = EncapsulationKey::new(&ML_KEM_768, encapsulation).map_err(|_| KemError)?;
        let (ciphertext, secret) = key.encapsulate().map_err(|_| KemError)?;
        let ciphertext = ciphertext.as_ref().try_into().map_err(|_| KemError)?;
        Ok((Box::new(ciphertext), shared(secret.as_ref())?))
    }
}

struct SystemKemSecret(DecapsulationKey);

impl KemSecret for SystemKemSecret {
    fn decapsulate(&self, ciphertext: &[u8]) -> Result<Secret32, KemError> {
        let secret = self
            .0
            .decapsulate(Ciphertext::from(ciphertext))
            .map_err(|_| KemError)?;
        shared(secret.as_ref())
    }
}

fn shared(secret: &[u8]) -> Result<Secret32, KemError> {
    secret.try_into().map(Secret32::new).map_err(|_| KemError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_an_encapsulation_agree() {
        let mut crypto = SystemCrypto::new();
        let keys = crypto.kem_generate();

        let (ciphertext, theirs) = crypto.kem_encapsulate(&keys.encapsulation[..]).unwrap();
        let ours = keys.secret.decapsulate(&ciphertext[..]).unwrap();

        assert_eq!(ours, theirs);
    }

    #[test]
    fn a_damaged_ciphertext_gives_another_secret_and_a_short_one_none() {
        let mut crypto = SystemCrypto::new();
        let keys = crypto.kem_generate();
        let (mut ciphertext, theirs) = crypto.kem_encapsulate(&keys.encapsulation[..]).unwrap();

        ciphertext[0] ^= 1;

        assert_ne!(keys.secret.decapsulate(&ciphertext[..]).unwrap(), theirs);
        assert!(keys.secret.decapsulate(&ciphertext[1..]).is_err());
        assert!(crypto.kem_encapsulate(&keys.encapsulation[1..]).is_err());
    }
}
