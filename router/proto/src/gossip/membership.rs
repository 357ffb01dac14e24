//! Lets membership travel as registers do.

use minicbor::decode;
use weft_types::Delta;

use super::{Gossiped, Piece};
use crate::membership::{Membership, MembershipDelta, Summary};
use crate::wire::encode;

impl Piece for MembershipDelta {
    fn split(&mut self, bytes: usize) -> Self {
        let whole = std::mem::take(self);
        let mut chunks = whole.into_chunks(bytes).into_iter();
        let first = chunks.next().unwrap_or_default();
        let rest = chunks.flat_map(Self::into_records).collect();
        *self = Self::new(rest);
        debug_assert!(
            !first.is_empty() || self.is_empty(),
            "a split takes something"
        );
        first
    }

    fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, decode::Error> {
        Self::decode(bytes)
    }
}

impl Gossiped for Membership {
    fn digest(&self) -> [u8; 32] {
        Self::digest(self)
    }

    fn summary(&self) -> Vec<u8> {
        encode(&Self::summary(self))
    }

    fn missing(&self, summary: &[u8]) -> Result<MembershipDelta, decode::Error> {
        Ok(Self::missing(self, &Summary::decode(summary)?))
    }
}
