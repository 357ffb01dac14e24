//! Holds who a node is: the key that signs, the key that does Noise, and the proof that both are one node's.

use minicbor::{Decode, Encode};
use weft_types::{MeshId, NodeId};
use zeroize::Zeroizing;

use crate::crypto::noise::{NoiseKey, NoisePublic};
use crate::crypto::{BadSignature, Crypto, Label, SIGNATURE_LEN, Secret32, SigningKey, verify};

/// A node's two keys. Lost, the node is another one.
#[derive(Clone, Debug)]
pub struct NodeKeys {
    signing: SigningKey,
    noise: NoiseKey,
}

/// A key file that is none: of another length, or without its first eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no weft key file")]
pub struct KeyFileError;

impl NodeKeys {
    /// Bytes of a key file.
    pub const FILE_LEN: usize = 72;
    const MAGIC: &[u8; 8] = b"weftkey1";

    /// Makes a node.
    pub fn generate(crypto: &mut dyn Crypto) -> Self {
        Self::from_secrets(crypto.secret(), &crypto.secret())
    }

    /// Reads a key file.
    pub fn from_bytes(file: &[u8]) -> Result<Self, KeyFileError> {
        let secrets = file.strip_prefix(Self::MAGIC).ok_or(KeyFileError)?;
        let (signing, noise) = secrets.split_first_chunk().ok_or(KeyFileError)?;
        let noise = noise.try_into().map_err(|_| KeyFileError)?;
        Ok(Self::from_secrets(
            Secret32::new(*signing),
            &Secret32::new(noise),
        ))
    }

    fn from_secrets(signing: Secret32, noise: &Secret32) -> Self {
        Self {
            signing: SigningKey::from_seed(signing),
            noise: NoiseKey::from_secret(noise),
        }
    }

    /// Writes a key file: for a file of mode 0600, and nothing else.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // With its capacity given the vector never moves, so it leaves no copy behind.
        let mut file = Zeroizing::new(Vec::with_capacity(Self::FILE_LEN));
        file.extend_from_slice(Self::MAGIC);
        file.extend_from_slice(self.signing.seed().as_bytes());
        file.extend_from_slice(self.noise.secret().as_bytes());
        file
    }

    /// Who this is.
    pub const fn node(&self) -> NodeId {
        self.signing.node()
    }

    /// The key that signs.
    pub const fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// The key that does Noise.
    pub const fn noise(&self) -> &NoiseKey {
        &self.noise
    }

    /// Proves to a mesh that both keys are one node's.
    pub fn certify(&self, mesh: &MeshId) -> NoiseCert {
        let key = self.noise.public();
        NoiseCert {
            node: self.node(),
            key,
            signature: self.signing.sign(Label::NoiseKey, mesh, key.as_bytes()),
        }
    }
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
