//! What an introducer tells a node that it has just admitted, and what members tell each other when that changes.
//!
//! ```text
//!   Welcome      = { 0: MembershipDelta, 1: [Signed], 2: [TokenSecret], 3: [Signed] }
//!   DoorKey      = { 0: id (16), 1: key (32), 2: generation, 3: signer }          payload of a Signed, label "door-key"
//!   TokenSecret  = { 0: token, 1: secret (32), 2: remaining life in milliseconds }
//! ```
//!
//! These travel on sealed control connections only. Token secrets go to introducers, door keys to members.

use std::time::Duration;

use minicbor::{Decode, Decoder, Encode, Encoder};
use weft_types::{MeshId, NodeId, TokenId};

use super::MembershipDelta;
use super::delta::bounded;
use crate::crypto::{BadSignature, Crypto, Label, Secret32, SigningKey};
use crate::wire;
use crate::wire::envelope::Signed;
use crate::wire::preface::DoorKeyId;

/// A key that opens the door to members.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DoorKey {
    /// What a dialler shows in the preface.
    #[n(0)]
    pub id: DoorKeyId,
    /// The secret.
    #[n(1)]
    pub key: Secret32,
    /// Counts the keys of a mesh: dial with the highest, open to all.
    #[n(2)]
    pub generation: u64,
    /// Who made it: worth nothing from who may not.
    #[n(3)]
    pub signer: NodeId,
}

/// A door key as its maker signed it, and as every member passes it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedDoorKey {
    door: DoorKey,
    signed: Signed,
}

impl SignedDoorKey {
    /// Makes one.
    pub fn generate(
        generation: u64,
        key: &SigningKey,
        mesh: &MeshId,
        crypto: &mut dyn Crypto,
    ) -> Self {
        let door = DoorKey {
            id: DoorKeyId::new(crypto.array()),
            key: crypto.secret(),
            generation,
            signer: key.node(),
        };
        Self::sign(door, key, mesh)
    }

    /// Signs one, whomever it names.
    pub fn sign(door: DoorKey, key: &SigningKey, mesh: &MeshId) -> Self {
        let signed = Signed::seal(key, Label::DoorKey, mesh, wire::encode(&door));
        Self { door, signed }
    }

    /// What it says, on the word of who brought it.
    pub const fn door(&self) -> &DoorKey {
        &self.door
    }

    /// Whether the node that it names has signed it, for this mesh.
    ///
    /// # Errors
    ///
    /// If somebody else did.
    pub fn verify(&self, mesh: &MeshId) -> Result<(), BadSignature> {
        let signer = self.door.signer;
        self.signed.open(signer, Label::DoorKey, mesh).map(drop)
    }

    /// Reads one as it travels, with nothing behind it.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        wire::decode_whole(bytes)
    }

    /// As it travels, and as it is saved.
    pub fn encode(&self) -> Vec<u8> {
        self.signed.encode()
    }
}

impl<C> Encode<C> for SignedDoorKey {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        Encode::encode(&self.signed, e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for SignedDoorKey {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let signed: Signed = Decode::decode(d, ctx)?;
        let door = wire::decode_whole(signed.unverified())?;
        Ok(Self { door, signed })
    }
}

/// A reusable token's secret, for an introducer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TokenSecret {
    /// Which token: its limits are in the logs.
    #[n(0)]
    pub id: TokenId,
    /// The secret.
    #[n(1)]
    pub secret: Secret32,
    /// What is left of its life; the receiver counts on from here.
    #[cbor(n(2), with = "milliseconds")]
    pub remaining: Duration,
}

/// What an admitted node needs for being a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Welcome {
    /// The logs, its own admission among them. What does not fit follows by anti-entropy.
    #[n(0)]
    pub logs: MembershipDelta,
    /// All door keys that are good.
    #[cbor(n(1), with = "bounded")]
    pub door_keys: Vec<SignedDoorKey>,
    /// The reusable tokens that it may admit by, if it is an introducer.
    #[cbor(n(2), with = "bounded")]
    pub tokens: Vec<TokenSecret>,
    /// What the members say of themselves, so that a node whose introducer dies at once knows where the others are. Each is
    /// checked like any that is gossiped.
    #[cbor(n(3), with = "bounded", default)]
    pub records: Vec<Signed>,
}

macro_rules! decode {
    ($($type:ident),*) => {$(
        impl $type {
            /// Reads one, with nothing behind it.
            pub fn decode(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
                wire::decode_whole(bytes)
            }
        }
    )*};
}

decode!(TokenSecret, Welcome);

mod milliseconds {
    use std::time::Duration;

    use minicbor::decode::Error;
    use minicbor::encode::{Error as WriteError, Write};
    use minicbor::{Decoder, Encoder};

    pub(super) fn encode<C, W: Write>(
        life: &Duration,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), WriteError<W::Error>> {
        e.u64(u64::try_from(life.as_millis()).unwrap_or(u64::MAX))?
            .ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Duration, Error> {
        d.u64().map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::seeded::SeededCrypto;

    const MESH: MeshId = MeshId::new([9; 32]);

    fn signing(seed: u8) -> SigningKey {
        SigningKey::from_seed(Secret32::new([seed; 32]))
    }

    fn door_key() -> SignedDoorKey {
        SignedDoorKey::generate(3, &signing(1), &MESH, &mut SeededCrypto::new(1))
    }

    #[test]
    fn a_door_key_is_of_who_signed_it_and_of_one_mesh() {
        let ours = door_key();
        let lent = SignedDoorKey::sign(ours.door().clone(), &signing(2), &MESH);

        let read = SignedDoorKey::decode(&ours.encode()).expect("decodes");

        assert_eq!(read, ours);
        assert_eq!(read.verify(&MESH), Ok(()));
        assert_eq!(read.verify(&MeshId::new([8; 32])), Err(BadSignature));
        assert_eq!(lent.verify(&MESH), Err(BadSignature));
    }

    fn welcome() -> Welcome {
        Welcome {
            logs: MembershipDelta::default(),
            door_keys: vec![door_key()],
            tokens: vec![TokenSecret {
                id: TokenId::new([1; 16]),
                secret: Secret32::new([2; 32]),
                remaining: Duration::from_millis(12345),
            }],
            records: Vec::new(),
        }
    }

    #[test]
    fn a_welcome_is_read_as_it_was_written_and_no_prefix_of_it() {
        let bytes = wire::encode(&welcome());

        assert_eq!(Welcome::decode(&bytes).expect("decodes"), welcome());
        assert!((0..bytes.len()).all(|len| Welcome::decode(&bytes[..len]).is_err()));
    }

    #[test]
    fn a_welcome_shows_no_secret() {
        assert!(!format!("{:?}", welcome()).contains("2, 2, 2"));
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = Welcome::decode(&bytes);
            let _ = (SignedDoorKey::decode(&bytes), TokenSecret::decode(&bytes));
        }
    }
}
