//! Names a node for people.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Decoder, Encode, Encoder};

/// What people call a node: free text of strangers, so bounded, printable, and never trusted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nickname(String);

/// Why a text is no nickname.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NicknameError {
    /// A control character, one that cannot be seen, or white space other than single blanks between words.
    Character,
    /// Nothing, or more than [`Nickname::MAX_LEN`] bytes.
    Length,
}

impl fmt::Display for NicknameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character => {
                f.write_str("a nickname has no control or invisible characters, and only single blanks between words")
            }
            Self::Length => write!(f, "a nickname has 1 to {} bytes", Nickname::MAX_LEN),
        }
    }
}

impl std::error::Error for NicknameError {}

impl Nickname {
    /// As long as a host name's label: RFC 1035 §2.3.4.
    pub const MAX_LEN: usize = 63;

    /// Refuses what would garble a terminal or a table.
    pub fn new(text: &str) -> Result<Self, NicknameError> {
        if text.is_empty() || text.len() > Self::MAX_LEN {
            return Err(NicknameError::Length);
        }
        let blank = text.trim() != text || text.contains("  ");
        if text.chars().any(misleads) || blank {
            return Err(NicknameError::Character);
        }
        Ok(Self(text.to_owned()))
    }

    /// The name with a number behind it, for one of several that would be called alike: cut where both do not fit.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Self {
        let suffix = format!("-{number}");
        let mut end = self.0.len().min(Self::MAX_LEN - suffix.len());
        while !self.0.is_char_boundary(end) {
            end -= 1;
        }
        Self(format!("{}{suffix}", &self.0[..end]))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a character could make one name look like another, or a line like something else: what cannot be seen, and what
/// changes the direction of writing (`Default_Ignorable_Code_Point` and `Bidi_Control` of the Unicode Character Database,
/// and the blanks of other widths).
fn misleads(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

impl fmt::Display for Nickname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Nickname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Nickname {
    type Err = NicknameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl<C> Encode<C> for Nickname {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Nickname {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::new(d.str()?).map_err(|_| minicbor::decode::Error::message("no nickname"))
    }
}

impl serde::Serialize for Nickname {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Nickname {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_garbles_a_terminal_is_refused() {
        assert_eq!(Nickname::new("a\u{1b}[31m"), Err(NicknameError::Character));
        assert_eq!(Nickname::new("a\u{202e}b"), Err(NicknameError::Character));
        assert_eq!(Nickname::new(" a"), Err(NicknameError::Character));
        assert_eq!(Nickname::new(""), Err(NicknameError::Length));
        assert_eq!(Nickname::new(&"x".repeat(64)), Err(NicknameError::Length));
        assert!(Nickname::new("Käfer 7").is_ok());
    }

    #[test]
    fn what_looks_like_another_name_is_refused() {
        let hidden = [
            '\u{a0}',
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{115f}',
            '\u{180e}',
            '\u{2003}',
            '\u{200d}',
            '\u{202d}',
            '\u{2066}',
            '\u{2800}',
            '\u{3000}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fff9}',
            '\u{e0041}',
            '\u{e0100}',
        ];
        for c in hidden {
            let name = format!("a{c}b");
            let refused = Err(NicknameError::Character);
            assert_eq!(Nickname::new(&name), refused, "U+{:04X}", u32::from(c));
        }
        assert_eq!(Nickname::new("a  b"), Err(NicknameError::Character));
    }

    #[test]
    fn a_numbered_name_is_a_name() {
        let longest = Nickname::new(&format!("{}ä", "x".repeat(61))).unwrap();

        let numbered = longest.numbered(10);

        assert_eq!(Nickname::new("b").unwrap().numbered(2).as_str(), "b-2");
        assert_eq!(numbered.as_str(), format!("{}-10", "x".repeat(60)));
        assert_eq!(Nickname::new(numbered.as_str()), Ok(numbered));
    }
}
