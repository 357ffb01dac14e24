//! Tells the networks of one mesh apart.

use std::fmt;

use minicbor::{Decode, Decoder, Encode, Encoder};

/// One of the mesh's networks: 24 bits, as wide as a VXLAN network identifier (RFC 7348 §5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Segment(u32);

impl Segment {
    /// How many bits a segment has.
    pub const BITS: u32 = 24;
    /// The network every node is on.
    pub const DEFAULT: Self = Self(0);

    /// Refuses what does not fit in [`Self::BITS`].
    pub const fn new(raw: u32) -> Option<Self> {
        if raw >> Self::BITS != 0 {
            return None;
        }
        Some(Self(raw))
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// As it travels inside every sealed frame: three bytes, big-endian.
    pub const fn to_bytes(self) -> [u8; 3] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }

    /// Reads what [`Self::to_bytes`] wrote: every value is legal.
    pub const fn from_bytes([a, b, c]: [u8; 3]) -> Self {
        Self(u32::from_be_bytes([0, a, b, c]))
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<C> Encode<C> for Segment {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u32(self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Segment {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::new(d.u32()?).ok_or_else(|| minicbor::decode::Error::message("a segment has 24 bits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_fits_its_vni() {
        assert_eq!(Segment::new(1 << 24), None);
        let last = Segment::new((1 << 24) - 1).expect("24 bits");

        assert_eq!(Segment::from_bytes(last.to_bytes()), last);
    }
}
