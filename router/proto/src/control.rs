//! Everything that travels on a control connection after the handshake: one number, one body.
//!
//! ```text
//!   array(2) ── kind: unsigned ── body: map
//! ```
//!
//! A kind that is not known is ignored, so that neighbouring releases interoperate. 1 to 15 are admission, 16 to 31 gossip,
//! 32 to 47 the link itself, 48 and up what passes through.

use std::net::SocketAddr;

use minicbor::{Decode, Decoder, Encode, Encoder, decode};

use crate::connection::{Heartbeat, LinkKeys};
use crate::gossip::exchange::{DeltaMessage, DigestMessage, GossipMessage, SummaryMessage, Topic};
use crate::handshake::Refusal;
use crate::membership::{SignedDoorKey, TokenSecret, Welcome};
use crate::unicast::Unicast;

/// The connection ends, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Refused {
    /// Why.
    #[n(0)]
    pub code: Refusal,
}

/// Where the receiver's datagrams come from: its address as one sees it who is beyond its NATs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Observed {
    /// The source of the last authentic datagram.
    #[cbor(n(0), with = "crate::wire::ip::socket")]
    pub address: SocketAddr,
}

/// Everything that travels on a control connection after the handshake.
#[derive(Clone, Debug)]
pub enum ControlMessage {
    /// 18: news, or what was missing.
    Delta(DeltaMessage),
    /// 16: names a state.
    Digest(DigestMessage),
    /// 3: a door key, as its maker signed it.
    DoorKey(SignedDoorKey),
    /// 33: a heartbeat, where no datagram comes through.
    Heartbeat(Heartbeat),
    /// 32: what datagrams for us are sealed by.
    LinkKeys(LinkKeys),
    /// 34: where our datagrams come from, as the other end sees it.
    Observed(Observed),
    /// 2: the connection ends.
    Refused(Refused),
    /// 17: what is there.
    Summary(SummaryMessage),
    /// 4: a reusable token.
    TokenSecret(TokenSecret),
    /// 48: for another node.
    Unicast(Unicast),
    /// A kind of a later release.
    Unknown(u32),
    /// 1: the joiner is in.
    Welcome(Box<Welcome>),
}

impl ControlMessage {
    /// Reads one; what follows it is an error.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, decode::Error> {
        let mut d = Decoder::new(bytes);
        if d.array()? != Some(2) {
            return Err(decode::Error::message("a control message is a pair"));
        }
        let message = match d.u32()? {
            1 => Self::Welcome(Box::new(d.decode()?)),
            2 => Self::Refused(d.decode()?),
            3 => Self::DoorKey(d.decode()?),
            4 => Self::TokenSecret(d.decode()?),
            16 => Self::Digest(d.decode()?),
            17 => Self::Summary(d.decode()?),
            18 => Self::Delta(d.decode()?),
            32 => Self::LinkKeys(d.decode()?),
            33 => Self::Heartbeat(d.decode()?),
            34 => Self::Observed(d.decode()?),
            48 => Self::Unicast(d.decode()?),
            other => {
                d.skip()?;
                Self::Unknown(other)
            }
        };
        if d.position() != bytes.len() {
            return Err(decode::Error::message("something follows the message"));
        }
        Ok(message)
    }

    /// As it travels, within the sealed frames.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Delta(body) => pair(18, body),
            Self::Digest(body) => pair(16, body),
            Self::DoorKey(body) => pair(3, body),
            Self::Heartbeat(body) => pair(33, body),
            Self::LinkKeys(body) => pair(32, body),
            Self::Observed(body) => pair(34, body),
            Self::Refused(body) => pair(2, body),
            Self::Summary(body) => pair(17, body),
            Self::TokenSecret(body) => pair(4, body),
            Self::Unicast(body) => pair(48, body),
            Self::Unknown(kind) => pair(*kind, &()),
            Self::Welcome(body) => pair(1, &**body),
        }
    }

    /// Whether a node may send it that has not yet proved to be a member.
    pub fn is_membership(&self) -> bool {
        match self {
            Self::Delta(DeltaMessage { topic, .. })
            | Self::Digest(DigestMessage { topic, .. })
            | Self::Summary(SummaryMessage { topic, .. }) => *topic == Topic::Membership,
            Self::DoorKey(_)
            | Self::Heartbeat(_)
            | Self::LinkKeys(_)
            | Self::Observed(_)
            | Self::Refused(_)
            | Self::TokenSecret(_)
            | Self::Unicast(_)
            | Self::Unknown(_)
            | Self::Welcome(_) => false,
        }
    }
}

impl From<GossipMessage> for ControlMessage {
    fn from(message: GossipMessage) -> Self {
        match message {
            GossipMessage::Delta(delta) => Self::Delta(delta),
            GossipMessage::Digest(digest) => Self::Digest(digest),
            GossipMessage::Summary(summary) => Self::Summary(summary),
        }
    }
}

fn pair<T: Encode<()>>(kind: u32, body: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut e = Encoder::new(&mut bytes);
    let written = e
        .array(2)
        .and_then(|e| e.u32(kind))
        .and_then(|e| e.encode(body))
        .map(|_| ());
    written.expect("a vector takes every byte, and our encoders do not fail");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Secret32, SigningKey};
    use crate::membership::DoorKey;
    use crate::wire::preface::DoorKeyId;
    use proptest::prelude::*;
    use weft_types::MeshId;

    #[test]
    fn a_kind_of_a_later_release_is_ignored() {
        let bytes = ControlMessage::Unknown(999).encode();

        assert!(matches!(
            ControlMessage::decode(&bytes),
            Ok(ControlMessage::Unknown(999))
        ));
    }

    #[test]
    fn a_welcome_is_read_as_it_was_written() {
        let key = SigningKey::from_seed(Secret32::new([1; 32]));
        let door = DoorKey {
            id: DoorKeyId::new([3; 16]),
            key: Secret32::new([4; 32]),
            generation: 1,
            signer: key.node(),
        };
        let welcome = Welcome {
            door_keys: vec![SignedDoorKey::sign(door, &key, &MeshId::new([9; 32]))],
            ..Welcome::default()
        };
        let bytes = ControlMessage::Welcome(Box::new(welcome)).encode();

        let Ok(ControlMessage::Welcome(read)) = ControlMessage::decode(&bytes) else {
            panic!("a welcome")
        };

        assert_eq!(ControlMessage::Welcome(read).encode(), bytes);
        assert!((0..bytes.len()).all(|cut| ControlMessage::decode(&bytes[..cut]).is_err()));
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..50u8) {
            let _ = ControlMessage::decode(&bytes);
            let framed = [&[0x82, 0x18, kind][..], &bytes].concat();
            let _ = ControlMessage::decode(&framed);
        }
    }
}
