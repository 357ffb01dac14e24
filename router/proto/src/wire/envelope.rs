//! Carries what one node signed, byte for byte, through any number of others.
//!
//! ```text
//!   Signed = { 0: payload (byte string), 1: signature (64 bytes) }        CBOR map, RFC 8949
//! ```
//!
//! The signature covers the payload's bytes as they came, never a second encoding of what they mean. Who signed, and for
//! what, is not said outside: the payload names its author, and the caller knows the kind.

use minicbor::{Decode, Encode};
use weft_types::{MeshId, NodeId};

use crate::crypto::{BadSignature, Label, SIGNATURE_LEN, SigningKey, sha256, verify};

/// The longest payload: the fullest bucket of endpoints, and the register around it.
pub const MAX_PAYLOAD: usize = 20 * 1024;

/// Bytes and their signature, not checked yet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct Signed {
    #[cbor(n(0), with = "payload")]
    payload: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    signature: [u8; SIGNATURE_LEN],
}

impl Signed {
    /// Signs `payload`, which the caller keeps within [`MAX_PAYLOAD`]: a longer one is refused wherever it arrives.
    pub fn seal(key: &SigningKey, label: Label, mesh: &MeshId, payload: Vec<u8>) -> Self {
        debug_assert!(payload.len() <= MAX_PAYLOAD, "nobody would accept this");
        let signature = key.sign(label, mesh, &payload);
        Self { payload, signature }
    }

    /// The payload, if `signer` signed it as `label` for `mesh`.
    pub fn open(&self, signer: NodeId, label: Label, mesh: &MeshId) -> Result<&[u8], BadSignature> {
        verify(signer, label, mesh, &self.payload, &self.signature)?;
        Ok(&self.payload)
    }

    /// The payload on nobody's word: to find out who claims to have signed it.
    pub fn unverified(&self) -> &[u8] {
        &self.payload
    }

    /// Names the payload.
    pub fn hash(&self) -> [u8; 32] {
        sha256(&self.payload)
    }

    /// How many bytes [`Self::encode`] gives at most.
    pub fn encoded_len(&self) -> usize {
        self.payload.len() + SIGNATURE_LEN + 8
    }

    /// Reads one, with nothing behind it.
    pub fn decode(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        super::decode_whole(bytes)
    }

    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        super::encode(self)
    }
}

impl std::fmt::Debug for Signed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signed({} bytes)", self.payload.len())
    }
}

mod payload {
    use minicbor::decode::Error;
    use minicbor::encode::{Error as WriteError, Write};
    use minicbor::{Decoder, Encoder};

    use super::MAX_PAYLOAD;

    pub(super) fn encode<C, W: Write>(
        payload: &[u8],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), WriteError<W::Error>> {
        e.bytes(payload)?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<u8>, Error> {
        let bytes = d.bytes()?;
        if bytes.len() > MAX_PAYLOAD {
            return Err(Error::message("a signed payload has at most 16 KiB"));
        }
        Ok(bytes.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::Secret32;

    const MESH: MeshId = MeshId::new([9; 32]);

    fn sealed(payload: &[u8]) -> (NodeId, Signed) {
        let key = SigningKey::from_seed(Secret32::new([1; 32]));
        let signed = Signed::seal(&key, Label::Register, &MESH, payload.to_vec());
        (key.node(), signed)
    }

    #[test]
    fn what_was_sealed_opens_after_travelling() {
        let (signer, signed) = sealed(b"words");

        let arrived = Signed::decode(&signed.encode()).expect("decodes");

        assert_eq!(arrived, signed);
        assert_eq!(
            arrived.open(signer, Label::Register, &MESH),
            Ok(&b"words"[..])
        );
        assert!(signed.encode().len() <= signed.encoded_len());
    }

    #[test]
    fn a_flipped_bit_anywhere_does_not_open() {
        let (signer, signed) = sealed(b"words");
        let bytes = signed.encode();

        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let opened = Signed::decode(&damaged).ok();
            assert!(
                opened.is_none_or(|signed| signed.open(signer, Label::Register, &MESH).is_err())
            );
        }
    }

    #[test]
    fn every_prefix_is_refused() {
        let bytes = sealed(b"words").1.encode();

        for len in 0..bytes.len() {
            assert!(Signed::decode(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn a_payload_too_long_is_refused_while_it_is_read() {
        let signed = Signed {
            payload: vec![0; MAX_PAYLOAD + 1],
            signature: [0; SIGNATURE_LEN],
        };

        assert!(Signed::decode(&signed.encode()).is_err());
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = Signed::decode(&bytes);
        }
    }
}
