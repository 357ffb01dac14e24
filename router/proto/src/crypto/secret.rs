//! Holds 32 bytes that nobody may see.

use std::fmt;

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Decoder, Encode, Encoder};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A key of 32 bytes: wiped on drop, shown by nothing, compared in constant time.
///
/// Its CBOR form exists for sealed messages and for the store's file of mode 0600.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret32([u8; 32]);

impl Secret32 {
    /// Takes the bytes as they are: every value is legal.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the algorithm that needs them.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) const fn as_mut_bytes(&mut self) -> &mut [u8; 32] {
        &mut self.0
    }
}

impl PartialEq for Secret32 {
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for Secret32 {}

impl fmt::Debug for Secret32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl<C> Encode<C> for Secret32 {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Secret32 {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        ByteArray::<32>::decode(d, ctx).map(|bytes| Self(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret32::new([7; 32])), "(secret)");
    }

    #[test]
    fn secrets_are_equal_by_content() {
        assert_eq!(Secret32::new([7; 32]), Secret32::new([7; 32]));
        assert_ne!(Secret32::new([7; 32]), Secret32::new([8; 32]));
    }
}
