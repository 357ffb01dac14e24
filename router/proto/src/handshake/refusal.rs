//! Says no in a way that only its receiver can read.

use minicbor::{Decode, Decoder, Encode, Encoder};
use weft_types::Code;

/// Why a connection that knew the secret is refused all the same. A number on the wire, so that a later release can add
/// reasons that this one does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal(Code);

impl Refusal {
    /// Refuses for a reason.
    pub const fn new(code: Code) -> Self {
        Self(code)
    }

    /// The reason. One that this release does not know reads as [`Code::NotAuthorised`].
    pub const fn code(self) -> Code {
        self.0
    }
}

impl<C> Encode<C> for Refusal {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u16(self.0.number())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Refusal {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Ok(Self(
            Code::from_number(d.u16()?).unwrap_or(Code::NotAuthorised),
        ))
    }
}
