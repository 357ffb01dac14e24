//! Begins a mesh: one signed record that never changes, whose hash is the mesh's name for ever.
//!
//! ```text
//!   Genesis = { 0: name, 1: nonce, 2: range, 3: range6, 4: encryption, 5: mtu, 6: creator }      CBOR map
//!   MeshId  = SHA-256(the signed bytes of it)
//! ```
//!
//! **Invariant.** A [`SignedGenesis`] is signed by its creator, and its [`MeshId`] is the hash of the very bytes that were
//! signed: whoever knows the id needs to trust nobody about the record.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use minicbor::{Decode, Encode};
use weft_types::{MeshId, Mtu, Nickname, NodeId};

use crate::crypto::{Crypto, Label};
use crate::identity::NodeKeys;
use crate::wire::envelope::Signed;
use crate::wire::{self, ip};

/// How a mesh treats its payload. Fixed for the mesh's life: there is no mode in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Encryption {
    /// Every frame is sealed.
    #[n(1)]
    On,
}

/// What a mesh is, from its first to its last day.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Genesis {
    /// What people call it.
    #[n(0)]
    pub name: Nickname,
    /// Makes two meshes of equal settings different.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub nonce: [u8; 32],
    /// Where IPv4 addresses come from.
    #[cbor(n(2), with = "v4")]
    pub range: Ipv4Net,
    /// A random unique local prefix (RFC 4193): where IPv6 addresses come from.
    #[cbor(n(3), with = "v6")]
    pub range6: Ipv6Net,
    /// Whether payload is sealed.
    #[n(4)]
    pub encryption: Encryption,
    /// The largest IP packet.
    #[n(5)]
    pub mtu: Mtu,
    /// The first admin, who signs this.
    #[n(6)]
    pub creator: NodeId,
}

/// Why a record is no genesis. Nothing has changed; a person typed it, or a peer lied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Not the creator's signature.
    #[error("the mesh's first record is not signed by its creator")]
    Inauthentic,
    /// Not the bytes of one, or of a later release.
    #[error("the mesh's first record cannot be read by this release")]
    Malformed,
    /// IPv6 needs at least 1280 bytes: RFC 8200 §5.
    #[error("a mesh's MTU is at least {}", Mtu::MIN_MESH)]
    Mtu,
    /// The IPv4 range is no network, or too small or large for a mesh.
    #[error("a mesh's IPv4 range is a network of /8 to /29, written with its first address")]
    Range,
    /// The IPv6 range is no unique local /64.
    #[error("a mesh's IPv6 range is a unique local /64")]
    Range6,
}

impl Genesis {
    /// The range of a mesh whose creator names none.
    pub const DEFAULT_RANGE: Ipv4Net =
        Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 32, 0, 0), 12);

    /// Begins a mesh. A name is made up where none is given.
    pub fn create(
        name: Option<Nickname>,
        range: Ipv4Net,
        mtu: Mtu,
        keys: &NodeKeys,
        crypto: &mut dyn Crypto,
    ) -> Result<SignedGenesis, GenesisError> {
        let genesis = Self {
            name: name.unwrap_or_else(|| made_up_name(crypto)),
            nonce: crypto.array(),
            range,
            range6: unique_local(crypto),
            encryption: Encryption::On,
            mtu,
            creator: keys.node(),
        };
        genesis.check()?;
        let signed = Signed::seal(
            keys.signing(),
            Label::Genesis,
            &NO_MESH,
            wire::encode(&genesis),
        );
        Ok(SignedGenesis {
            mesh: MeshId::new(signed.hash()),
            genesis,
            signed,
        })
    }

    /// Both ranges.
    pub const fn ranges(&self) -> [IpNet; 2] {
        [IpNet::V4(self.range), IpNet::V6(self.range6)]
    }

    fn check(&self) -> Result<(), GenesisError> {
        if !(8..=29).contains(&self.range.prefix_len()) || self.range != self.range.trunc() {
            return Err(GenesisError::Range);
        }
        let unique_local = self.range6.addr().octets()[0] == 0xfd; // RFC 4193 §3.1
        if !unique_local || self.range6.prefix_len() != 64 || self.range6 != self.range6.trunc() {
            return Err(GenesisError::Range6);
        }
        if self.mtu < Mtu::MIN_MESH {
            return Err(GenesisError::Mtu);
        }
        Ok(())
    }
}

/// What stands for the mesh in the signature of a record that makes one.
const NO_MESH: MeshId = MeshId::new([0; MeshId::LEN]);

/// A [`Genesis`] that its creator signed, as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedGenesis {
    signed: Signed,
    genesis: Genesis,
    mesh: MeshId,
}

impl SignedGenesis {
    /// Reads and checks one, signature included. That it is the mesh one asked for shows in [`Self::mesh_id`].
    pub fn decode(bytes: &[u8]) -> Result<Self, GenesisError> {
        let signed = Signed::decode(bytes).map_err(|_| GenesisError::Malformed)?;
        let genesis: Genesis =
            wire::decode_whole(signed.unverified()).map_err(|_| GenesisError::Malformed)?;
        signed
            .open(genesis.creator, Label::Genesis, &NO_MESH)
            .map_err(|_| GenesisError::Inauthentic)?;
        genesis.check()?;
        Ok(Self {
            mesh: MeshId::new(signed.hash()),
            genesis,
            signed,
        })
    }

    /// As it travels and is saved.
    pub fn encode(&self) -> Vec<u8> {
        self.signed.encode()
    }

    /// Which mesh it begins.
    pub const fn mesh_id(&self) -> MeshId {
        self.mesh
    }

    /// What it says.
    pub const fn genesis(&self) -> &Genesis {
        &self.genesis
    }
}

/// A /64 of a random unique local /48: `fd`, a global id of 40 random bits, subnet 0 (RFC 4193 §3.2).
fn unique_local(crypto: &mut dyn Crypto) -> Ipv6Net {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&crypto.array::<5>());
    Ipv6Net::new_assert(octets.into(), 64)
}

fn made_up_name(crypto: &mut dyn Crypto) -> Nickname {
    let mut pick = |words: &[&'static str; 32]| words[usize::from(crypto.array::<1>()[0] % 32)];
    let name = format!("{}-{}", pick(&ADJECTIVES), pick(&ANIMALS));
    Nickname::new(&name).expect("two short words of letters are a nickname")
}

const ADJECTIVES: [&str; 32] = [
    "amber", "brave", "bright", "calm", "clever", "copper", "cosy", "daring", "eager", "fair",
    "gentle", "glad", "golden", "hazel", "humble", "ivory", "jolly", "keen", "kind", "lively",
    "lucky", "mellow", "misty", "nimble", "noble", "patient", "quick", "quiet", "silver", "sunny",
    "tidy", "warm",
];
const ANIMALS: [&str; 32] = [
    "badger", "beaver", "bison", "crane", "curlew", "dolphin", "falcon", "ferret", "finch",
    "gecko", "hare", "heron", "ibex", "jackdaw", "kestrel", "lark", "lemur", "lynx", "marten",
    "newt", "otter", "owl", "panda", "plover", "puffin", "raven", "robin", "seal", "stoat",
    "swift", "tern", "wren",
];

mod v4 {
    use ipnet::{IpNet, Ipv4Net};
    use minicbor::decode::Error;
    use minicbor::encode::{Error as WriteError, Write};
    use minicbor::{Decoder, Encoder};

    use super::ip;

    pub(super) fn encode<C, W: Write>(
        net: &Ipv4Net,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), WriteError<W::Error>> {
        ip::net::encode(&IpNet::V4(*net), e, ctx)
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, ctx: &mut C) -> Result<Ipv4Net, Error> {
        match ip::net::decode(d, ctx)? {
            IpNet::V4(net) => Ok(net),
            IpNet::V6(_) => Err(Error::message("no IPv4 network")),
        }
    }
}

mod v6 {
    use ipnet::{IpNet, Ipv6Net};
    use minicbor::decode::Error;
    use minicbor::encode::{Error as WriteError, Write};
    use minicbor::{Decoder, Encoder};

    use super::ip;

    pub(super) fn encode<C, W: Write>(
        net: &Ipv6Net,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), WriteError<W::Error>> {
        ip::net::encode(&IpNet::V6(*net), e, ctx)
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, ctx: &mut C) -> Result<Ipv6Net, Error> {
        match ip::net::decode(d, ctx)? {
            IpNet::V6(net) => Ok(net),
            IpNet::V4(_) => Err(Error::message("no IPv6 network")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::seeded::SeededCrypto;

    fn create(seed: u64, range: &str, mtu: u16) -> Result<SignedGenesis, GenesisError> {
        let mut crypto = SeededCrypto::new(seed);
        let keys = NodeKeys::generate(&mut crypto);
        Genesis::create(
            None,
            range.parse().unwrap(),
            Mtu::new(mtu).unwrap(),
            &keys,
            &mut crypto,
        )
    }

    #[test]
    fn a_genesis_travels_and_keeps_its_id() {
        let genesis = create(1, "10.32.0.0/12", 1350).expect("creates");

        let arrived = SignedGenesis::decode(&genesis.encode()).expect("decodes");

        assert_eq!(arrived, genesis);
        assert_eq!(arrived.mesh_id(), genesis.mesh_id());
    }

    #[test]
    fn two_meshes_of_equal_settings_differ() {
        let ids = [1, 2].map(|seed| {
            create(seed, "10.32.0.0/12", 1350)
                .expect("creates")
                .mesh_id()
        });

        assert_ne!(ids[0], ids[1]);
    }

    #[test]
    fn the_ipv6_range_is_unique_local_and_random() {
        let ranges = [1, 2].map(|seed| {
            create(seed, "10.32.0.0/12", 1350)
                .expect("creates")
                .genesis()
                .range6
        });

        assert_ne!(ranges[0], ranges[1]);
        assert!(
            ranges
                .iter()
                .all(|range| range.addr().is_unique_local() && range.prefix_len() == 64)
        );
    }

    #[test]
    fn settings_that_no_mesh_can_have_are_refused() {
        assert_eq!(create(1, "10.32.0.0/7", 1350), Err(GenesisError::Range));
        assert_eq!(create(1, "10.32.0.0/30", 1350), Err(GenesisError::Range));
        assert_eq!(create(1, "10.32.0.1/12", 1350), Err(GenesisError::Range));
        assert_eq!(create(1, "10.32.0.0/12", 1279), Err(GenesisError::Mtu));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused() {
        let bytes = create(1, "10.32.0.0/12", 1350).expect("creates").encode();

        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(SignedGenesis::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_prefix_is_refused() {
        let bytes = create(1, "10.32.0.0/12", 1350).expect("creates").encode();

        for len in 0..bytes.len() {
            assert_eq!(
                SignedGenesis::decode(&bytes[..len]),
                Err(GenesisError::Malformed)
            );
        }
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = SignedGenesis::decode(&bytes);
        }
    }
}
