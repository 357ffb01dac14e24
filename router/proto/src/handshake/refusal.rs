//! Says no in a way that only its receiver can read.

use minicbor::{Decode, Decoder, Encode, Encoder};
use weft_types::{Code, Outlook, Problem};

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

    /// Whether a joiner hears the same from everybody, however often it asks.
    pub fn is_final(self) -> bool {
        self.0.outlook() == Outlook::Never
    }

    /// In words, and what to do about it.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "few of all codes are refusals; the page of any code says what to do"
    )]
    pub fn problem(self, by: &str) -> Problem {
        let fix = match self.0 {
            Code::TokenUsed | Code::TokenExpired | Code::TokenVoided | Code::TokenNotAccepted => {
                "Make a new token on a member: `weft token create`"
            }
            Code::NotAMember => "Run `weft reset --force` here, then join with a new token",
            Code::Clone => {
                "On the copy run `weft reset --force`, then join it with a token of its own"
            }
            Code::VersionMismatch => "Install the same release of weft on both hosts",
            Code::CreatorUnreachable => {
                "Start the host that created the mesh, then try again; the token is still good"
            }
            Code::AddressInUse | Code::AddressOutsideRange => {
                "Choose another --address, or leave it out"
            }
            Code::RangeExhausted | Code::MeshFull => {
                "Remove nodes that are not needed: `weft leave` on them"
            }
            _ => "See the page of this code",
        };
        Problem::new(self.0, self.0.title())
            .why(format!("refused by {by}"))
            .fix(fix)
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
