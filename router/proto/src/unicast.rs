//! Carries a message from one member to another over any number of others, who forward what they cannot read.
//!
//! ```text
//!   Unicast = { 0: from, 1: to, 2: hop limit, 3: body }                                    CBOR map
//!   body    = 0 ‖ Noise X message                                                          sealed: see `letter`
//!           | 1 ‖ session message                                                          carries its own seal
//!           | 2 ‖ sealed datagram of a session, as on the data port                        where no datagram passes
//! ```
//!
//! **Failure policy.** A unicast that cannot be forwarded or opened is dropped; who needs an answer asks again.

use minicbor::{Decode, Encode, decode};
use weft_types::NodeId;

use crate::wire;

/// Hops of a message: several times the diameter of any control graph, and little to lose in a loop.
pub const HOP_LIMIT: u8 = 16;
/// The longest body: a session message of full size and its header.
pub const MAX_BODY: usize = 65_535 + 16;

/// One message on its way.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Unicast {
    /// Who sends it: a claim, until the body is opened.
    #[n(0)]
    pub from: NodeId,
    /// Whom it is for.
    #[n(1)]
    pub to: NodeId,
    /// How many more times it may be forwarded.
    #[n(2)]
    pub hop_limit: u8,
    /// See [`Body`].
    #[cbor(n(3), with = "bounded")]
    pub body: Vec<u8>,
}

/// What a unicast carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// A datagram of a session, for want of a way by UDP.
    Datagram(&'a [u8]),
    /// A Noise X message: see [`Mail::open`](crate::letter::Mail::open).
    Sealed(&'a [u8]),
    /// A session message, bare.
    Session(&'a [u8]),
}

impl Unicast {
    /// Begins a journey.
    pub fn new(from: NodeId, to: NodeId, body: Vec<u8>) -> Self {
        Self {
            from,
            to,
            hop_limit: HOP_LIMIT,
            body,
        }
    }

    /// Reads one, with nothing behind it.
    pub fn decode(bytes: &[u8]) -> Result<Self, decode::Error> {
        wire::decode_whole(bytes)
    }

    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Takes a hop; `None` if it was the last.
    pub fn forwarded(mut self) -> Option<Self> {
        self.hop_limit = self.hop_limit.checked_sub(1).filter(|&left| left > 0)?;
        Some(self)
    }
}

impl std::fmt::Debug for Unicast {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "unicast {} to {}, {} bytes",
            self.from.short(),
            self.to.short(),
            self.body.len()
        )
    }
}

impl<'a> Body<'a> {
    const SEALED: u8 = 0;
    const SESSION: u8 = 1;
    const DATAGRAM: u8 = 2;

    /// Reads a body; `None` for one that a later release made.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = bytes.split_first()?;
        match kind {
            Self::SEALED => Some(Self::Sealed(rest)),
            Self::SESSION => Some(Self::Session(rest)),
            Self::DATAGRAM => Some(Self::Datagram(rest)),
            _ => None,
        }
    }

    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Datagram(bytes) => [&[Self::DATAGRAM], *bytes].concat(),
            Self::Sealed(bytes) => [&[Self::SEALED], *bytes].concat(),
            Self::Session(bytes) => [&[Self::SESSION], *bytes].concat(),
        }
    }
}

mod bounded {
    use minicbor::decode::Error;
    use minicbor::encode::{Error as WriteError, Write};
    use minicbor::{Decoder, Encoder};

    use super::MAX_BODY;

    pub(super) fn encode<C, W: Write>(
        body: &[u8],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), WriteError<W::Error>> {
        e.bytes(body)?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<u8>, Error> {
        let body = d.bytes()?;
        if body.len() > MAX_BODY {
            return Err(Error::message("a unicast's body is too long"));
        }
        Ok(body.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::new([n; 32])
    }

    #[test]
    fn the_last_hop_is_the_last() {
        let mut unicast = Unicast::new(id(1), id(2), vec![1]);
        let mut hops = 0;
        while let Some(forwarded) = unicast.clone().forwarded() {
            unicast = forwarded;
            hops += 1;
        }

        assert_eq!(hops, HOP_LIMIT - 1);
    }

    #[test]
    fn what_is_written_is_read_back_and_prefixes_are_refused() {
        let unicast = Unicast::new(id(1), id(2), Body::Session(b"words").encode());
        let bytes = unicast.encode();

        assert_eq!(Unicast::decode(&bytes).expect("decodes"), unicast);
        assert_eq!(Body::decode(&unicast.body), Some(Body::Session(b"words")));
        assert!((0..bytes.len()).all(|cut| Unicast::decode(&bytes[..cut]).is_err()));
    }

    #[test]
    fn a_body_too_long_is_refused() {
        let unicast = Unicast::new(id(1), id(2), vec![0; MAX_BODY + 1]);

        assert!(Unicast::decode(&unicast.encode()).is_err());
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Unicast::decode(&bytes);
            let _ = Body::decode(&bytes);
        }
    }
}
