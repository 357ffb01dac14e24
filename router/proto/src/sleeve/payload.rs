//! Begins every plaintext: what it is, and on which network of the mesh.
//!
//! ```text
//!    0        1                          4
//!   ┌────────┬──────────────────────────┬──────
//!   │ kind   │ segment                  │ body
//!   └────────┴──────────────────────────┴──────
//! ```
//!
//! Kinds that are not listed are for later releases: dropped and counted, never answered.

use weft_types::Segment;

use super::Malformed;

/// How long kind and segment are.
pub const LEN: usize = 4;

/// What the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whole frames: [`super::bundle`].
    Frames,
    /// A part of a super-frame: [`super::train`].
    Car,
    /// A message for the other end's control plane: [`super::message`].
    Message,
    /// A question that the other worker answers: [`super::message`].
    Probe,
    /// The answer.
    ProbeReply,
    /// A part of a body that no datagram holds: [`super::fragment`].
    Piece,
    /// A sealed datagram for another member: [`super::relayed`].
    Relayed,
    /// A question about the way that it came by: [`super::path_probe`].
    PathProbe,
    /// The answer, by the same way.
    PathReply,
}

impl Kind {
    /// As it travels.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Frames => 1,
            Self::Car => 2,
            Self::Message => 3,
            Self::Probe => 4,
            Self::ProbeReply => 5,
            Self::Piece => 6,
            Self::Relayed => 7,
            Self::PathProbe => 8,
            Self::PathReply => 9,
        }
    }

    /// Reads it back.
    pub const fn from_byte(byte: u8) -> Result<Self, Malformed> {
        match byte {
            1 => Ok(Self::Frames),
            2 => Ok(Self::Car),
            3 => Ok(Self::Message),
            4 => Ok(Self::Probe),
            5 => Ok(Self::ProbeReply),
            6 => Ok(Self::Piece),
            7 => Ok(Self::Relayed),
            8 => Ok(Self::PathProbe),
            9 => Ok(Self::PathReply),
            _ => Err(Malformed::Unknown),
        }
    }
}

/// The four bytes before a body.
pub const fn encode(kind: Kind, segment: Segment) -> [u8; LEN] {
    let [a, b, c] = segment.to_bytes();
    [kind.byte(), a, b, c]
}

/// Takes a plaintext apart; the body is what follows [`LEN`] bytes.
pub fn decode(plain: &[u8]) -> Result<(Kind, Segment), Malformed> {
    let (&[kind, a, b, c], _) = plain
        .split_first_chunk::<LEN>()
        .ok_or(Malformed::Truncated)?;
    Ok((Kind::from_byte(kind)?, Segment::from_bytes([a, b, c])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_back() {
        let segment = Segment::new(0x01_02_03).unwrap();
        let known: Vec<Kind> = (0..=255)
            .filter_map(|byte| Kind::from_byte(byte).ok())
            .collect();

        assert_eq!(known.len(), 9);
        for kind in known {
            assert_eq!(decode(&encode(kind, segment)), Ok((kind, segment)));
        }
        assert_eq!(decode(&[1, 0, 0]), Err(Malformed::Truncated));
        assert_eq!(decode(&[10, 0, 0, 0]), Err(Malformed::Unknown));
    }
}
