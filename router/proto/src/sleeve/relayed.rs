//! Hands a sealed datagram to a member that passes it on: it sees where to, and nothing of what is inside.
//!
//! ```text
//!    0        1          4        5          8                                   24
//!   ┌────────┬──────────┬────────┬──────────┬───────────────────────────────────┬─────────────────────────
//!   │ 7      │ 0        │ hops   │ 0        │ final node: first 16 bytes of it  │ datagram, header to tag
//!   └────────┴──────────┴────────┴──────────┴───────────────────────────────────┴─────────────────────────
//! ```
//!
//! The datagram is of a session between the first and the last node of the way. Each hop puts it into a datagram of its
//! own session with the next, of the very same size: a relay opens and seals where it lies.
//! **Invariant.** What is carried is of type data: no link's datagram, and, since a relay sees the header only, whoever
//! opens the inside refuses another of this kind.

use weft_types::{NodeId, Segment};

use super::Malformed;
use super::header::{self, Header, Type};
use super::lane::{OVERHEAD, SealError, SendLane};
use super::payload::{self, Kind};
use crate::crypto::seal::TAG;

/// How many members may pass a datagram on, at most.
pub const HOPS: u8 = 4;

/// How long the head of the body is.
pub const HEAD: usize = 20;

/// The room before the datagram that is carried.
pub const ROOM: usize = header::LEN + payload::LEN + HEAD;

/// What a datagram weighs more when it travels as the payload of another: header, tag, kind and segment, hop limit and
/// final node.
pub const RELAY_OVERHEAD: u16 = 56;

const _: () = assert!(ROOM + TAG == RELAY_OVERHEAD as usize);

/// What a datagram names a node by: 16 bytes of a key are as hard to meet by chance as the node's 32 are to forge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Addressee([u8; 16]);

impl Addressee {
    /// Whether this is the node meant.
    pub fn is(self, node: NodeId) -> bool {
        Self::from(node) == self
    }
}

impl From<NodeId> for Addressee {
    fn from(node: NodeId) -> Self {
        let mut head = [0; 16];
        head.copy_from_slice(&node.as_bytes()[..16]);
        Self(head)
    }
}

/// The head of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// How many more members may pass it on.
    pub hops: u8,
    /// Whose session the datagram is of.
    pub last: Addressee,
}

impl Relayed {
    /// What a datagram's first node writes.
    pub fn towards(last: NodeId) -> Self {
        Self {
            hops: HOPS,
            last: last.into(),
        }
    }

    /// Reads a body; what is carried is what follows [`HEAD`] bytes, and its header is returned.
    pub fn decode(body: &[u8]) -> Result<(Self, Header), Malformed> {
        let (head, carried) = body
            .split_first_chunk::<HEAD>()
            .ok_or(Malformed::Truncated)?;
        let &[hops, _, _, _, ref last @ ..] = head;
        let header = Header::decode(carried).ok_or(Malformed::Inconsistent)?;
        match header.kind {
            Type::Data if hops <= HOPS && carried.len() >= OVERHEAD => {
                let last = Addressee(*last);
                Ok((Self { hops, last }, header))
            }
            Type::Data | Type::Link => Err(Malformed::Inconsistent),
        }
    }

    /// As it travels.
    pub fn encode(self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[0] = self.hops;
        bytes[4..].copy_from_slice(&self.last.0);
        bytes
    }

    /// Seals for the next hop: `datagram` is room ([`ROOM`]) ‖ what is carried ‖ room (16).
    pub fn seal(self, datagram: &mut [u8], lane: &mut SendLane) -> Result<(), SealError> {
        let head = datagram
            .get_mut(header::LEN..ROOM)
            .ok_or(SealError::TooShort)?;
        let (kind, rest) = head.split_at_mut(payload::LEN);
        kind.copy_from_slice(&payload::encode(Kind::Relayed, Segment::DEFAULT));
        rest.copy_from_slice(&self.encode());
        lane.seal(datagram)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::seal::Backend;
    use crate::sleeve::lane::ReceiveLanes;
    use crate::sleeve::lane::tests::pair;

    const LAST: NodeId = NodeId::new([7; 32]);

    fn body(relayed: Relayed, kind: u8, len: usize) -> Vec<u8> {
        let mut carried = vec![0; len];
        carried[0] = kind;
        [&relayed.encode(), &carried[..]].concat()
    }

    #[test]
    fn it_travels_as_drawn() {
        let bytes = Relayed::towards(LAST).encode();

        assert_eq!(bytes[..4], [4, 0, 0, 0]);
        assert_eq!(bytes[4..], [7; 16]);
        let body = body(Relayed::towards(LAST), 1, OVERHEAD);
        let (read, header) = Relayed::decode(&body).unwrap();
        assert_eq!((read.hops, header.kind), (HOPS, Type::Data));
        assert!(read.last.is(LAST));
        assert!(!read.last.is(NodeId::new([8; 32])));
    }

    #[test]
    fn what_no_session_could_open_is_refused() {
        let relayed = Relayed::towards(LAST);
        let whole = body(relayed, 1, OVERHEAD);
        let far = Relayed {
            hops: HOPS + 1,
            ..relayed
        };

        assert!((0..whole.len()).all(|len| Relayed::decode(&whole[..len]).is_err()));
        assert!(Relayed::decode(&body(relayed, 2, OVERHEAD)).is_err());
        assert!(Relayed::decode(&body(far, 1, OVERHEAD)).is_err());
    }

    proptest! {
        #[test]
        fn a_relay_seals_again_in_place_what_it_opened(carried in prop::collection::vec(any::<u8>(), OVERHEAD..1500)) {
            let carried = [&[1], &carried[1..]].concat();
            let (ours, theirs) = pair();
            let mut datagram = [&[0; ROOM], &carried[..], &[0; TAG]].concat();
            let mut relayed = Relayed::towards(LAST);
            let mut lane = SendLane::new(&ours, 12, Backend::Ring);
            let mut lanes = ReceiveLanes::new(&theirs, Backend::Ring);
            for hops in (0..=HOPS).rev() {
                relayed.seal(&mut datagram, &mut lane).unwrap();

                let header = Header::decode(&datagram).unwrap();
                let plain = lanes.open(header, &mut datagram).unwrap();
                prop_assert_eq!(payload::decode(plain), Ok((Kind::Relayed, Segment::DEFAULT)));
                let body = &plain[payload::LEN..];
                prop_assert_eq!(Relayed::decode(body), Ok((relayed, Header::decode(&carried).unwrap())));
                prop_assert_eq!(&body[HEAD..], &carried[..]);
                relayed.hops = hops.saturating_sub(1);
            }
        }
    }
}
