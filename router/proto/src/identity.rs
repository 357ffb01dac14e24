//! Holds who a node is: the key that signs, the key that does Noise, and the proof that both are one node's.

use std::sync::Arc;

use minicbor::{Decode, Encode};
use weft_types::{MeshId, NodeId};
use zeroize::Zeroizing;

use crate::crypto::noise::{NoiseKey, NoisePublic};
use crate::crypto::{
    BadSignature, Crypto, Label, SIGNATURE_LEN, Secret32, SigningKey, sha256, verify,
};

/// A node's two keys. Lost, the node is another one. Clones share them: there is one copy in memory, however many
/// connections there are.
#[derive(Clone, Debug)]
pub struct NodeKeys(Arc<Both>);

#[derive(Debug)]
struct Both {
    signing: SigningKey,
    noise: NoiseKey,
}

/// Why a key file gives no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// Its checksum is that of other bytes.
    #[error("its checksum is wrong: some bytes of it have changed")]
    Changed,
    /// Of another length, or without its first eight bytes.
    #[error("this is no weft key file")]
    Foreign,
}

impl NodeKeys {
    /// Bytes of a key file: eight that name it, two secrets, and a checksum of all that.
    pub const FILE_LEN: usize = Self::CHECKED + CHECKSUM_LEN;
    const MAGIC: &[u8; 8] = b"weftkey2";
    const CHECKED: usize = 72;
    /// How a file without a checksum began; it is read still.
    const MAGIC_UNCHECKED: &[u8; 8] = b"weftkey1";

    /// Makes a node.
    pub fn generate(crypto: &mut dyn Crypto) -> Self {
        Self::from_secrets(crypto.secret(), &crypto.secret())
    }

    /// Reads a key file.
    pub fn from_bytes(file: &[u8]) -> Result<Self, KeyFileError> {
        let secrets = Self::secrets(file)?;
        let (signing, noise) = secrets.split_first_chunk().ok_or(KeyFileError::Foreign)?;
        let noise = noise.try_into().map_err(|_| KeyFileError::Foreign)?;
        Ok(Self::from_secrets(
            Secret32::new(*signing),
            &Secret32::new(noise),
        ))
    }

    /// The secrets in a key file whose checksum is right.
    fn secrets(file: &[u8]) -> Result<&[u8], KeyFileError> {
        if let Some(secrets) = file.strip_prefix(Self::MAGIC_UNCHECKED) {
            return Ok(secrets);
        }
        let (checked, sum) = file
            .split_at_checked(Self::CHECKED)
            .filter(|(_, sum)| sum.len() == CHECKSUM_LEN)
            .ok_or(KeyFileError::Foreign)?;
        let secrets = checked.strip_prefix(Self::MAGIC);
        let secrets = secrets.ok_or(KeyFileError::Foreign)?;
        if checksum(checked) != sum {
            return Err(KeyFileError::Changed);
        }
        Ok(secrets)
    }

    fn from_secrets(signing: Secret32, noise: &Secret32) -> Self {
        Self(Arc::new(Both {
            signing: SigningKey::from_seed(signing),
            noise: NoiseKey::from_secret(noise),
        }))
    }

    /// Writes a key file: for a file of mode 0600, and nothing else.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // With its capacity given the vector never moves, so it leaves no copy behind.
        let mut file = Zeroizing::new(Vec::with_capacity(Self::FILE_LEN));
        file.extend_from_slice(Self::MAGIC);
        file.extend_from_slice(self.0.signing.seed().as_bytes());
        file.extend_from_slice(self.0.noise.secret().as_bytes());
        let sum = checksum(&file);
        file.extend_from_slice(&sum);
        file
    }

    /// Who this is.
    pub fn node(&self) -> NodeId {
        self.0.signing.node()
    }

    /// The key that signs.
    pub fn signing(&self) -> &SigningKey {
        &self.0.signing
    }

    /// The key that does Noise.
    pub fn noise(&self) -> &NoiseKey {
        &self.0.noise
    }

    /// Proves to a mesh that both keys are one node's.
    pub fn certify(&self, mesh: &MeshId) -> NoiseCert {
        let key = self.0.noise.public();
        NoiseCert {
            node: self.node(),
            key,
            signature: self.0.signing.sign(Label::NoiseKey, mesh, key.as_bytes()),
        }
    }
}

/// Bytes of a key file's checksum: against decay, not against anybody.
const CHECKSUM_LEN: usize = 8;

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut sum = [0; CHECKSUM_LEN];
    sum.copy_from_slice(&sha256(bytes)[..CHECKSUM_LEN]);
    sum
}

/// A node's word that an X25519 key is its own. Worth nothing until [`Self::verify`] said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NoiseCert {
    /// Whose word.
    #[n(0)]
    pub node: NodeId,
    /// The key.
    #[n(1)]
    pub key: NoisePublic,
    /// Over the key, as [`Label::NoiseKey`].
    #[cbor(n(2), with = "minicbor::bytes")]
    pub signature: [u8; SIGNATURE_LEN],
}

impl NoiseCert {
    /// Checks the signature, for one mesh.
    pub fn verify(&self, mesh: &MeshId) -> Result<(), BadSignature> {
        verify(
            self.node,
            Label::NoiseKey,
            mesh,
            self.key.as_bytes(),
            &self.signature,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::seeded::SeededCrypto;

    #[test]
    fn what_a_key_file_holds_is_the_same_node() {
        let keys = NodeKeys::generate(&mut SeededCrypto::new(1));
        let file = keys.to_bytes();

        let read = NodeKeys::from_bytes(&file).expect("a key file");

        assert_eq!(file.len(), NodeKeys::FILE_LEN);
        assert_eq!(read.node(), keys.node());
        assert_eq!(read.noise().public(), keys.noise().public());
    }

    #[test]
    fn a_bit_that_flipped_anywhere_is_noticed() {
        let file = NodeKeys::generate(&mut SeededCrypto::new(1)).to_bytes();

        for bit in 0..file.len() * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);

            assert!(NodeKeys::from_bytes(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_file_without_a_checksum_is_read_still() {
        let keys = NodeKeys::generate(&mut SeededCrypto::new(1));
        let mut file = keys.to_bytes()[..NodeKeys::CHECKED].to_vec();
        file[..8].copy_from_slice(NodeKeys::MAGIC_UNCHECKED);

        let read = NodeKeys::from_bytes(&file).expect("a key file");

        assert_eq!(read.node(), keys.node());
    }

    #[test]
    fn every_other_length_is_no_key_file() {
        let mut file = NodeKeys::generate(&mut SeededCrypto::new(1))
            .to_bytes()
            .to_vec();

        for len in 0..file.len() {
            assert!(NodeKeys::from_bytes(&file[..len]).is_err());
        }
        file.push(0);
        assert!(NodeKeys::from_bytes(&file).is_err());
    }

    #[test]
    fn a_certificate_is_good_in_one_mesh() {
        let keys = NodeKeys::generate(&mut SeededCrypto::new(1));
        let mesh = MeshId::new([1; 32]);
        let cert = keys.certify(&mesh);

        assert_eq!(cert.verify(&mesh), Ok(()));
        assert_eq!(cert.verify(&MeshId::new([2; 32])), Err(BadSignature));
        assert_eq!(
            minicbor::decode::<NoiseCert>(&minicbor::to_vec(cert).expect("encodes"))
                .expect("decodes"),
            cert
        );
    }
}
