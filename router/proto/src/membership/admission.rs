//! What an introducer tells a node that it has just admitted, and what members tell each other when that changes.
//!
//! ```text
//!   Welcome      = { 0: MembershipDelta, 1: [DoorKey], 2: [TokenSecret], 3: [Signed] }
//!   DoorKey      = { 0: id (16), 1: key (32), 2: generation }
//!   TokenSecret  = { 0: token, 1: secret (32), 2: remaining life in milliseconds }
//! ```
//!
//! These travel on sealed control connections only. Token secrets go to introducers, door keys to members.

use std::time::Duration;

use minicbor::{Decode, Encode};
use weft_types::TokenId;

use super::MembershipDelta;
use super::delta::bounded;
use crate::crypto::{Crypto, Secret32};
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
}

impl DoorKey {
    /// Makes one.
    pub fn generate(generation: u64, crypto: &mut dyn Crypto) -> Self {
        Self {
            id: DoorKeyId::new(crypto.array()),
            key: crypto.secret(),
            generation,
        }
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
    pub door_keys: Vec<DoorKey>,
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

decode!(DoorKey, TokenSecret, Welcome);

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

    fn welcome() -> Welcome {
        Welcome {
            logs: MembershipDelta::default(),
            door_keys: vec![DoorKey::generate(3, &mut SeededCrypto::new(1))],
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
            let _ = (DoorKey::decode(&bytes), TokenSecret::decode(&bytes));
        }
    }
}
