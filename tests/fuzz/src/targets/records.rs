//! What members and joiners say for the record: genesis, logs, registers, and what admits a node.

use std::str;

use weft_router_proto::crypto::{Label, SigningKey};
use weft_router_proto::endpoints::{self as buckets, BUCKET_SIZE, BUCKETS, bucket_of};
use weft_router_proto::genesis::SignedGenesis;
use weft_router_proto::gossip::exchange::{DeltaMessage, DigestMessage, SummaryMessage};
use weft_router_proto::gossip::registers::{
    Register, RegisterDelta, RegisterSummary, Registers, SignedRegister,
};
use weft_router_proto::gossip::{Gossiped, Piece};
use weft_router_proto::identity::NodeKeys;
use weft_router_proto::membership::{
    Entry, Membership, MembershipDelta, SignedDoorKey, Summary, TokenSecret, Welcome,
};
use weft_router_proto::token::Token;
use weft_router_proto::topology::{Links, NodeRecord};
use weft_router_proto::wire::encode;
use weft_router_proto::wire::envelope::{MAX_PAYLOAD, Signed};
use weft_types::{MeshId, NodeId, Replica};

use super::{stable, world};

/// The first record of a mesh: as it travels, and what a creator may sign.
pub fn genesis(data: &[u8]) {
    stable(data, SignedGenesis::decode, SignedGenesis::encode);
    stable(data, Signed::decode, Signed::encode);
    if data.len() <= MAX_PAYLOAD {
        let no_mesh = MeshId::new([0; 32]);
        let keys = world::keys(0);
        let signed = Signed::seal(keys.signing(), Label::Genesis, &no_mesh, data.to_vec());
        let genesis = stable(
            &signed.encode(),
            SignedGenesis::decode,
            SignedGenesis::encode,
        );
        if let Some(genesis) = genesis {
            assert_eq!(genesis.genesis().creator, keys.node());
            assert_eq!(genesis.mesh_id().as_bytes(), &signed.hash());
        }
    }
}

/// Logs: a delta, a summary, and one record of a node that is a member.
pub fn membership(data: &[u8]) {
    let mut membership = founded();
    if let Some(summary) = stable(data, Summary::decode, encode) {
        assert!(membership.missing(&summary).records().len() <= 1);
    }
    if let Some(delta) = stable(data, MembershipDelta::decode, encode) {
        let offered = delta.records().len();
        let news = membership.merge(delta.clone(), world::origin());
        assert!(news.is_none_or(|news| news.records().len() <= offered));
        assert!(
            membership.merge(delta, world::origin()).is_none(),
            "news twice"
        );
    }
    if let Ok(entry) = Entry::decode(data) {
        let keys = world::keys(0);
        let Some(signed) = entry.seal(keys.signing(), &world::MESH) else {
            return;
        };
        assert_eq!(Entry::decode(signed.unverified()), Ok(entry.clone()));
        let opened = Entry::open(&signed, &world::MESH);
        assert_eq!(opened.is_ok(), entry.signer == keys.node());
        let mut membership = founded();
        membership.merge(MembershipDelta::new(vec![signed]), world::origin());
    }
}

/// A mesh of its creator alone.
fn founded() -> Membership {
    Membership::new(world::MESH, world::keys(0).node())
}

/// What an introducer tells.
pub fn admission(data: &[u8]) {
    stable(data, Welcome::decode, encode);
    stable(data, SignedDoorKey::decode, encode);
    stable(data, TokenSecret::decode, encode);
}

/// What a person typed, and what is inside of it.
pub fn token(data: &[u8]) {
    if let Ok(token) = Token::decode(data) {
        let text = token.reveal();
        assert!(Token::parse(text.reveal()).as_ref() == Ok(&token));
    }
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    if let Ok(token) = Token::parse(text) {
        assert!(text.trim().eq_ignore_ascii_case(token.reveal().reveal()));
    }
}

/// What the ends of a link compare.
pub fn gossip(data: &[u8]) {
    stable(data, DigestMessage::decode, DigestMessage::encode);
    if let Some(message) = stable(data, SummaryMessage::decode, SummaryMessage::encode) {
        let (registers, membership) = (registers(), founded());
        let _ = Gossiped::missing(&registers, &message.summary);
        let _ = Gossiped::missing(&membership, &message.summary);
    }
    if let Some(message) = stable(data, DeltaMessage::decode, DeltaMessage::encode) {
        let _ = <RegisterDelta as Piece>::decode(&message.delta);
        let _ = MembershipDelta::decode(&message.delta);
    }
}

/// Registers: one as its owner signs it, and lists of them.
pub fn register(data: &[u8]) {
    let mut registers = registers();
    if let Some(register) = stable(data, Register::decode, encode)
        && let Some(key) = key_of(register.owner)
    {
        let signed = Signed::seal(&key, Label::Register, &world::MESH, data.to_vec());
        let signed = SignedRegister::decode(&signed.encode()).expect("it was read before");
        let delta: RegisterDelta = std::iter::once(signed.into()).collect();
        assert!(registers.merge(delta, world::origin()).is_some());
        let kept = registers.get(register.channel, register.owner, register.slot);
        assert_eq!(kept, Some(&register));
    }
    let _ = SignedRegister::decode(data);
    stable(data, RegisterSummary::decode, encode);
    let _ = Gossiped::missing(&registers, data);
    if let Some(delta) = stable(data, <RegisterDelta as Piece>::decode, Piece::encode) {
        let _ = registers.merge(delta.clone(), world::origin());
        assert!(
            registers.merge(delta, world::origin()).is_none(),
            "news twice"
        );
    }
}

/// The register of a mesh of two, as the first of them sees it.
fn registers() -> Registers {
    let [ourself, other] = [0, 1].map(|number| world::keys(number).node());
    let mut registers = Registers::new(world::MESH, ourself, world::boot(3));
    registers.set_members([ourself, other]);
    registers
}

/// The key of the one other member.
fn key_of(node: NodeId) -> Option<SigningKey> {
    let keys = world::keys(1);
    (keys.node() == node).then(|| keys.signing().clone())
}

/// What a node says of itself, and of its links.
pub fn topology(data: &[u8]) {
    if let Some(record) = stable(data, NodeRecord::decode, NodeRecord::encode) {
        let printable = |text: &str| !text.chars().any(char::is_control);
        assert!(printable(&record.release) && record.features.iter().all(|text| printable(text)));
        let _ = record.is_of(world::keys(0).node(), &world::MESH);
    }
    if let Some(links) = stable(data, Links::decode, Links::encode) {
        assert!(links.nodes().is_sorted());
    }
}

/// A bucket of endpoints: the first byte says which.
pub fn endpoints(data: &[u8]) {
    let Some((slot, body)) = data.split_first() else {
        return;
    };
    let slot = u16::from(*slot) % BUCKETS;
    let Ok(endpoints) = buckets::decode(world::keys(0).node(), slot, body) else {
        return;
    };
    assert!(endpoints.len() <= BUCKET_SIZE);
    for endpoint in endpoints {
        assert!(!endpoint.mac.is_group() && bucket_of(endpoint.mac) == slot);
        assert!(
            !endpoint
                .addresses
                .iter()
                .any(std::net::IpAddr::is_multicast)
        );
    }
}

/// A node's own key file, which somebody may have damaged.
pub fn key_file(data: &[u8]) {
    if let Ok(keys) = NodeKeys::from_bytes(data) {
        let written = keys.to_bytes();
        let read = NodeKeys::from_bytes(&written).map(|keys| keys.to_bytes());
        assert!(read.is_ok_and(|read| read == written));
    }
}
