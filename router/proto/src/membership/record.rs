//! One line of a membership log: what its signer says about who belongs.
//!
//! ```text
//!   payload = { 0: signer, 1: number, 2: hash of the record before, 3: kind, 4: body }      CBOR map, signed "member-log"
//!
//!   kind  1 Admit    { 0: node, 1: X25519 key, 2: nickname, 3: [address/prefix], 4: role, 5: token }
//!         2 Role     { 0: node, 1: role }
//!         3 Token    { 0: token, 1: reusable, 2: ttl in seconds }
//!         4 Void     { 0: token }
//!         5 Revoke   { 0: victim, 1: last valid number of its log }
//!         6 Leave    { }
//!   role  1 member, 2 introducer, 3 admin
//! ```
//!
//! Numbers begin at 1; the record before the first is the mesh: its id stands for the hash. The body is a byte string with
//! CBOR inside, so that a kind or a role that a later release made is carried, kept and counted in its log by this one,
//! which only does not understand it ([`Record::Unknown`]).

use std::time::Duration;

use ipnet::IpNet;
use minicbor::{Decode, Encode};
use weft_types::{MeshId, Nickname, NodeId, TokenId};

use crate::crypto::noise::NoisePublic;
use crate::crypto::{Label, SigningKey};
use crate::wire;
use crate::wire::envelope::{MAX_PAYLOAD, Signed};

/// What a member may do. The later in this list, the more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// Belongs.
    #[n(1)]
    Member,
    /// Admits others.
    #[n(2)]
    Introducer,
    /// Revokes and grants roles too.
    #[n(3)]
    Admin,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A node belongs from here on.
    Admit(Admit),
    /// The signer belongs no more, for good.
    Leave,
    /// A node never belonged beyond a point.
    Revoke(Revoke),
    /// A member may do more, or less.
    Role(RoleChange),
    /// A token admits.
    Token(TokenGrant),
    /// Of a later release.
    Unknown {
        /// Its number there.
        kind: u32,
        /// Its body.
        body: Vec<u8>,
    },
    /// A token admits nobody any more.
    Void(TokenId),
}

/// A node belongs from here on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Admit {
    /// Who.
    #[n(0)]
    pub node: NodeId,
    /// The key it does Noise with.
    #[n(1)]
    pub noise_key: NoisePublic,
    /// What people call it.
    #[n(2)]
    pub nickname: Nickname,
    /// The mesh addresses that the creator assigned to it, with their networks' prefix lengths.
    #[cbor(n(3), with = "crate::wire::ip::net_list")]
    pub addresses: Vec<IpNet>,
    /// What it may do.
    #[n(4)]
    pub role: Role,
    /// What it came with; nothing where a person let it in.
    #[n(5)]
    pub token: Option<TokenId>,
}

/// A member may do more, or less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RoleChange {
    /// Who.
    #[n(0)]
    pub node: NodeId,
    /// What it may do.
    #[n(1)]
    pub role: Role,
}

/// A token admits: its name and limits, never its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TokenGrant {
    /// Which.
    #[n(0)]
    pub id: TokenId,
    /// Admits more than one node.
    #[n(1)]
    pub reusable: bool,
    /// How long it lives, counted by everybody from when they received its secret.
    #[cbor(n(2), with = "seconds")]
    pub ttl: Duration,
}

/// A node never belonged beyond a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Revoke {
    /// Who.
    #[n(0)]
    pub victim: NodeId,
    /// The last record of its log that counts; 0 for none.
    #[n(1)]
    pub last_valid: u64,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Void {
    #[n(0)]
    id: TokenId,
}

/// Why a record is not taken. Its bearer lied or is damaged; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not the signature of the one it names.
    #[error("a membership record is not signed by the node it names")]
    Inauthentic,
    /// Not the bytes of one.
    #[error("a membership record cannot be read")]
    Malformed,
}

/// A record in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose log.
    pub signer: NodeId,
    /// Counts the records of that log, from 1.
    pub number: u64,
    /// Hash of the record before.
    pub previous: [u8; 32],
    /// What it says.
    pub record: Record,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Payload {
    #[n(0)]
    signer: NodeId,
    #[n(1)]
    number: u64,
    #[cbor(n(2), with = "minicbor::bytes")]
    previous: [u8; 32],
    #[n(3)]
    kind: u32,
    #[cbor(n(4), with = "minicbor::bytes")]
    body: Vec<u8>,
}

mod kind {
    pub(super) const ADMIT: u32 = 1;
    pub(super) const ROLE: u32 = 2;
    pub(super) const TOKEN: u32 = 3;
    pub(super) const VOID: u32 = 4;
    pub(super) const REVOKE: u32 = 5;
    pub(super) const LEAVE: u32 = 6;
}

impl Entry {
    /// Signs it; `None` where it is longer than anybody would accept.
    pub fn seal(&self, key: &SigningKey, mesh: &MeshId) -> Option<Signed> {
        let (kind, body) = self.record.to_parts();
        let payload = wire::encode(&Payload {
            signer: self.signer,
            number: self.number,
            previous: self.previous,
            kind,
            body,
        });
        (payload.len() <= MAX_PAYLOAD).then(|| Signed::seal(key, Label::MemberLog, mesh, payload))
    }

    /// Reads the payload of a [`Signed`]: what it claims, on nobody's word.
    pub fn decode(payload: &[u8]) -> Result<Self, RecordError> {
        let payload: Payload = wire::decode_whole(payload).map_err(|_| RecordError::Malformed)?;
        if payload.number == 0 {
            return Err(RecordError::Malformed);
        }
        Ok(Self {
            signer: payload.signer,
            number: payload.number,
            previous: payload.previous,
            record: Record::from_parts(payload.kind, payload.body),
        })
    }

    /// Reads a record and checks its signature.
    pub fn open(signed: &Signed, mesh: &MeshId) -> Result<Self, RecordError> {
        let entry = Self::decode(signed.unverified())?;
        signed
            .open(entry.signer, Label::MemberLog, mesh)
            .map_err(|_| RecordError::Inauthentic)?;
        Ok(entry)
    }
}

impl Record {
    fn to_parts(&self) -> (u32, Vec<u8>) {
        match self {
            Self::Admit(admit) => (kind::ADMIT, wire::encode(admit)),
            Self::Leave => (kind::LEAVE, Vec::new()),
            Self::Revoke(revoke) => (kind::REVOKE, wire::encode(revoke)),
            Self::Role(change) => (kind::ROLE, wire::encode(change)),
            Self::Token(grant) => (kind::TOKEN, wire::encode(grant)),
            Self::Unknown { kind, body } => (*kind, body.clone()),
            Self::Void(id) => (kind::VOID, wire::encode(&Void { id: *id })),
        }
    }

    fn from_parts(kind: u32, body: Vec<u8>) -> Self {
        let known = match kind {
            kind::ADMIT => wire::decode_whole(&body).map(Self::Admit).ok(),
            kind::ROLE => wire::decode_whole(&body).map(Self::Role).ok(),
            kind::TOKEN => wire::decode_whole(&body).map(Self::Token).ok(),
            kind::VOID => wire::decode_whole(&body)
                .map(|void: Void| Self::Void(void.id))
                .ok(),
            kind::REVOKE => wire::decode_whole(&body).map(Self::Revoke).ok(),
            kind::LEAVE => Some(Self::Leave),
            _ => None,
        };
        known.unwrap_or(Self::Unknown { kind, body })
    }
}

mod seconds {
    use std::time::Duration;

    use minicbor::decode::Error;
    use minicbor::encode::{Error as WriteError, Write};
    use minicbor::{Decoder, Encoder};

    pub(super) fn encode<C, W: Write>(
        ttl: &Duration,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), WriteError<W::Error>> {
        e.u64(ttl.as_secs())?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Duration, Error> {
        d.u64().map(Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::Secret32;

    const MESH: MeshId = MeshId::new([9; 32]);

    fn every_kind() -> Vec<Record> {
        let node = NodeId::new([1; 32]);
        let id = TokenId::new([2; 16]);
        vec![
            Record::Admit(Admit {
                node,
                noise_key: NoisePublic::new([3; 32]),
                nickname: Nickname::new("host-1").unwrap(),
                addresses: vec![
                    "10.32.0.2/12".parse().unwrap(),
                    "fd00::2/64".parse().unwrap(),
                ],
                role: Role::Introducer,
                token: Some(id),
            }),
            Record::Role(RoleChange {
                node,
                role: Role::Admin,
            }),
            Record::Token(TokenGrant {
                id,
                reusable: true,
                ttl: Duration::from_secs(900),
            }),
            Record::Void(id),
            Record::Revoke(Revoke {
                victim: node,
                last_valid: 7,
            }),
            Record::Leave,
            Record::Unknown {
                kind: 99,
                body: vec![1, 2, 3],
            },
        ]
    }

    fn seal(record: Record) -> (Entry, Signed) {
        let key = SigningKey::from_seed(Secret32::new([1; 32]));
        let entry = Entry {
            signer: key.node(),
            number: 3,
            previous: [4; 32],
            record,
        };
        let signed = entry.seal(&key, &MESH).expect("is short");
        (entry, signed)
    }

    #[test]
    fn every_kind_is_read_as_it_was_written() {
        for record in every_kind() {
            let (entry, signed) = seal(record);

            assert_eq!(Entry::open(&signed, &MESH), Ok(entry));
        }
    }

    #[test]
    fn every_prefix_is_refused() {
        for record in every_kind() {
            let (_, signed) = seal(record);
            let payload = signed.unverified();

            for len in 0..payload.len() {
                assert_eq!(Entry::decode(&payload[..len]), Err(RecordError::Malformed));
            }
        }
    }

    #[test]
    fn a_record_of_another_mesh_or_signer_is_refused() {
        let (mut entry, signed) = seal(Record::Leave);
        assert_eq!(
            Entry::open(&signed, &MeshId::new([8; 32])),
            Err(RecordError::Inauthentic)
        );

        entry.signer = NodeId::new([1; 32]);
        let key = SigningKey::from_seed(Secret32::new([1; 32]));
        let forged = entry.seal(&key, &MESH).expect("is short");
        assert_eq!(Entry::open(&forged, &MESH), Err(RecordError::Inauthentic));
    }

    #[test]
    fn a_role_of_a_later_release_leaves_the_record_in_its_log() {
        let mut body = wire::encode(&RoleChange {
            node: NodeId::new([1; 32]),
            role: Role::Admin,
        });
        *body.last_mut().unwrap() = 9;

        let record = Record::from_parts(kind::ROLE, body.clone());

        assert_eq!(
            record,
            Record::Unknown {
                kind: kind::ROLE,
                body
            }
        );
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = Entry::decode(&bytes);
        }

        #[test]
        fn a_body_of_random_bytes_does_not_panic(
            kind in 0..9u32,
            body in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = Record::from_parts(kind, body);
        }
    }
}
