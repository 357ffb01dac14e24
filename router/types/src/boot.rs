//! Orders what one node says, across its restarts.

use std::fmt;

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Decoder, Encode, Encoder};

/// One run of a router: how many there were before it, and random bytes that tell a clone from a restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct Boot {
    /// Counts the starts of this node; committed to disk before the first packet.
    #[n(0)]
    pub counter: u64,
    /// Random, drawn at every start. Two runs with one counter are two machines with one key.
    #[n(1)]
    pub id: BootId,
}

/// The random half of a [`Boot`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId([u8; 8]);

impl BootId {
    /// Takes the bytes as they are: every value is legal.
    pub const fn new(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The bytes, as they travel.
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:?}", self.counter, self.id)
    }
}

impl fmt::Debug for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<C> Encode<C> for BootId {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for BootId {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        ByteArray::<8>::decode(d, ctx).map(|bytes| Self(*bytes))
    }
}

/// Which of two records of one owner is the later: by boot counter, then by sequence within the boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(array)]
pub struct Version {
    /// The run that wrote the record.
    #[n(0)]
    pub boot: Boot,
    /// Counts the records of one run.
    #[n(1)]
    pub sequence: u64,
}

impl Version {
    /// What is compared. The boot's random id is left out: at one counter it is a symptom of a clone, not an order.
    pub const fn rank(&self) -> (u64, u64) {
        (self.boot.counter, self.sequence)
    }
}
