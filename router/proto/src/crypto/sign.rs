//! Signs what one node says, so that any node can pass it on.
//!
//! ```text
//!   Ed25519 (RFC 8032) over   "weft-v1 " ‖ label ‖ 0x00 ‖ MeshId ‖ payload
//! ```
//!
//! The label keeps a signature of one kind from being taken for another, the mesh one of another mesh.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use weft_types::{MeshId, NodeId};

use super::Secret32;

/// Bytes of a signature: RFC 8032 §5.1.6.
pub const SIGNATURE_LEN: usize = 64;

/// What a signature is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label {
    /// A door key.
    DoorKey,
    /// A mesh's first record. Its [`MeshId`] is not known yet: 32 zero bytes.
    Genesis,
    /// A record of a membership log.
    MemberLog,
    /// A node's X25519 key.
    NoiseKey,
    /// A register of a gossip channel.
    Register,
}

impl Label {
    /// As it is signed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DoorKey => "door-key",
            Self::Genesis => "genesis",
            Self::MemberLog => "member-log",
            Self::NoiseKey => "noise-key",
            Self::Register => "register",
        }
    }
}

/// A signature that does not fit: forged, corrupted, or about something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not fit")]
pub struct BadSignature;

/// A node's Ed25519 key.
#[derive(Clone)]
pub struct SigningKey {
    seed: Secret32,
    /// Shared: to expand a seed costs as much as to sign.
    pair: Arc<Ed25519KeyPair>,
    node: NodeId,
}

impl SigningKey {
    /// Expands a seed (RFC 8032 §5.1.5).
    pub fn from_seed(seed: Secret32) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_bytes())
            .expect("every 32 bytes are a seed (RFC 8032 §5.1.5)");
        let mut node = [0; NodeId::LEN];
        node.copy_from_slice(pair.public_key().as_ref());
        Self {
            seed,
            pair: Arc::new(pair),
            node: NodeId::new(node),
        }
    }

    /// Whose key it is.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// What [`Self::from_seed`] took, for the key file.
    pub const fn seed(&self) -> &Secret32 {
        &self.seed
    }

    /// Signs. The same words give the same signature.
    pub fn sign(&self, label: Label, mesh: &MeshId, payload: &[u8]) -> [u8; SIGNATURE_LEN] {
        let mut signature = [0; SIGNATURE_LEN];
        signature.copy_from_slice(self.pair.sign(&signed_bytes(label, mesh, payload)).as_ref());
        signature
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key of {}", self.node)
    }
}

/// Checks that `node` signed `payload`, as `label`, for `mesh`.
pub fn verify(
    node: NodeId,
    label: Label,
    mesh: &MeshId,
    payload: &[u8],
    signature: &[u8; SIGNATURE_LEN],
) -> Result<(), BadSignature> {
    UnparsedPublicKey::new(&ED25519, node.as_bytes())
        .verify(&signed_bytes(label, mesh, payload), signature)
        .map_err(|_| BadSignature)
}

fn signed_bytes(label: Label, mesh: &MeshId, payload: &[u8]) -> Vec<u8> {
    [
        b"weft-v1 ",
        label.as_str().as_bytes(),
        &[0],
        mesh.as_bytes(),
        payload,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_of_rfc_8032_comes_out() {
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec,
            0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03,
            0x1c, 0xae, 0x7f, 0x60,
        ];

        let key = SigningKey::from_seed(Secret32::new(seed));

        assert_eq!(
            key.node().to_string(),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
    }

    #[test]
    fn a_signature_is_good_for_one_label_one_mesh_and_one_payload() {
        let key = SigningKey::from_seed(Secret32::new([1; 32]));
        let (mesh, other) = (MeshId::new([2; 32]), MeshId::new([3; 32]));
        let signature = key.sign(Label::Register, &mesh, b"words");
        let check = |label, mesh, words: &[u8]| verify(key.node(), label, mesh, words, &signature);

        assert_eq!(check(Label::Register, &mesh, b"words"), Ok(()));
        assert_eq!(check(Label::MemberLog, &mesh, b"words"), Err(BadSignature));
        assert_eq!(check(Label::Register, &other, b"words"), Err(BadSignature));
        assert_eq!(check(Label::Register, &mesh, b"word"), Err(BadSignature));
    }
}
