//! Frames what two nodes say to each other about their sessions.
//!
//! ```text
//!   1 INITIATE    kind u8 ‖ first message of Noise IK
//!   2 RESPOND     kind u8 ‖ initiator's session index u32 ‖ second message
//!   3 PART        kind u8 ‖ message u16 ‖ part u8 ‖ parts u8 ‖ bytes      of one of the above, inside a session
//!   4 CONFIRM     kind u8 ‖ responder's session index u32                 inside that session only
//!   5 CONFIRMED   kind u8 ‖ initiator's session index u32                 inside that session only
//! ```
//!
//! INITIATE and RESPOND carry their own seal, so they travel bare in a unicast; a key for post-quantum agreement is as
//! large as a datagram, so inside a session they travel in parts.

use crate::keys::SessionIndex;

/// The largest message that goes through a session in one datagram.
pub const MAX_IN_SESSION: usize = 1200;
/// The largest message at all: Noise Protocol Framework §3.
pub const MAX_MESSAGE: usize = 65535;
/// Parts of one message. A handshake without registers needs two.
pub const MAX_PARTS: u8 = 4;

const PART_HEADER: usize = 5;

/// One message, borrowed from what arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The responder received under the keys: the initiator may wipe the ones before.
    Confirmed(SessionIndex),
    /// The initiator sends by the keys: the responder may too.
    Confirm(SessionIndex),
    /// First message of a handshake.
    Initiate(&'a [u8]),
    /// A piece of a message.
    Part {
        /// Which message.
        message: u16,
        /// Which piece of it.
        part: u8,
        /// How many there are, 2 to [`MAX_PARTS`].
        parts: u8,
        /// The piece.
        bytes: &'a [u8],
    },
    /// Second message of a handshake.
    Respond {
        /// Whose first message it answers: the initiator's index.
        to: SessionIndex,
        /// The message.
        noise: &'a [u8],
    },
}

/// Bytes that are no session message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no session message")]
pub struct MessageError;

mod kind {
    pub(super) const INITIATE: u8 = 1;
    pub(super) const RESPOND: u8 = 2;
    pub(super) const PART: u8 = 3;
    pub(super) const CONFIRM: u8 = 4;
    pub(super) const CONFIRMED: u8 = 5;
}

/// Reads a message.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, MessageError> {
    let (&kind, rest) = bytes.split_first().ok_or(MessageError)?;
    if rest.len() > MAX_MESSAGE {
        return Err(MessageError);
    }
    match kind {
        kind::INITIATE if !rest.is_empty() => Ok(Message::Initiate(rest)),
        kind::RESPOND => {
            let (to, noise) = index(rest)?;
            if noise.is_empty() {
                return Err(MessageError);
            }
            Ok(Message::Respond { to, noise })
        }
        kind::PART => {
            let (&[high, low, part, parts], bytes) =
                rest.split_first_chunk().ok_or(MessageError)?;
            let fits = bytes.len() + PART_HEADER <= MAX_IN_SESSION && !bytes.is_empty();
            if !(2..=MAX_PARTS).contains(&parts) || part >= parts || !fits {
                return Err(MessageError);
            }
            Ok(Message::Part {
                message: u16::from_be_bytes([high, low]),
                part,
                parts,
                bytes,
            })
        }
        kind::CONFIRM => whole_index(rest).map(Message::Confirm),
        kind::CONFIRMED => whole_index(rest).map(Message::Confirmed),
        _ => Err(MessageError),
    }
}

fn index(bytes: &[u8]) -> Result<(SessionIndex, &[u8]), MessageError> {
    let (index, rest) = bytes.split_first_chunk().ok_or(MessageError)?;
    Ok((SessionIndex(u32::from_be_bytes(*index)), rest))
}

fn whole_index(bytes: &[u8]) -> Result<SessionIndex, MessageError> {
    match index(bytes)? {
        (index, []) => Ok(index),
        _ => Err(MessageError),
    }
}

impl Message<'_> {
    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Confirm(index) => [&[kind::CONFIRM][..], &index.0.to_be_bytes()].concat(),
            Self::Confirmed(index) => [&[kind::CONFIRMED][..], &index.0.to_be_bytes()].concat(),
            Self::Initiate(noise) => [&[kind::INITIATE], *noise].concat(),
            Self::Part {
                message,
                part,
                parts,
                bytes,
            } => {
                let [high, low] = message.to_be_bytes();
                [&[kind::PART, high, low, *part, *parts], *bytes].concat()
            }
            Self::Respond { to, noise } => {
                [&[kind::RESPOND][..], &to.0.to_be_bytes(), noise].concat()
            }
        }
    }
}

/// Cuts a message into what goes through a session; `None` if it is too long for [`MAX_PARTS`].
pub fn parts(message: u16, bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    if bytes.len() <= MAX_IN_SESSION {
        return Some(vec![bytes.to_vec()]);
    }
    let chunks = bytes.chunks(MAX_IN_SESSION - PART_HEADER);
    let parts = u8::try_from(chunks.len())
        .ok()
        .filter(|&parts| parts <= MAX_PARTS)?;
    let part = |(part, bytes)| {
        Message::Part {
            message,
            part,
            parts,
            bytes,
        }
        .encode()
    };
    Some((0..parts).zip(chunks).map(part).collect())
}

/// The parts of one message, in whatever order they come. A later message replaces an unfinished one.
#[derive(Clone, Debug, Default)]
pub struct Assembly {
    message: Option<u16>,
    parts: Vec<Option<Vec<u8>>>,
}

impl Assembly {
    /// Takes a part; gives the whole message with the last one.
    pub fn take(&mut self, message: u16, part: u8, parts: u8, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.message != Some(message) || self.parts.len() != usize::from(parts) {
            self.message = Some(message);
            self.parts = vec![None; usize::from(parts)];
        }
        *self.parts.get_mut(usize::from(part))? = Some(bytes.to_vec());
        if self.parts.iter().any(Option::is_none) {
            return None;
        }
        self.message = None;
        Some(self.parts.drain(..).flatten().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all() -> [Message<'static>; 5] {
        [
            Message::Confirm(SessionIndex(7)),
            Message::Confirmed(SessionIndex(u32::MAX)),
            Message::Initiate(b"first"),
            Message::Part {
                message: 515,
                part: 1,
                parts: 2,
                bytes: b"piece",
            },
            Message::Respond {
                to: SessionIndex(9),
                noise: b"second",
            },
        ]
    }

    #[test]
    fn what_is_written_is_read_back() {
        for message in all() {
            assert_eq!(decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn every_prefix_into_the_header_is_refused() {
        for message in all() {
            let bytes = message.encode();
            let header = match message {
                Message::Confirm(_) | Message::Confirmed(_) => 5,
                Message::Initiate(_) => 2,
                Message::Part { .. } | Message::Respond { .. } => 6,
            };
            for cut in 0..header {
                assert_eq!(decode(&bytes[..cut]), Err(MessageError));
            }
        }
    }

    #[test]
    fn parts_in_any_order_make_the_message() {
        let whole: Vec<u8> = (0..3000_u32)
            .flat_map(u32::to_be_bytes)
            .take(3000)
            .collect();
        let mut pieces = parts(1, &whole).expect("three parts");
        pieces.reverse();

        let mut assembly = Assembly::default();
        let assembled: Vec<Vec<u8>> = pieces
            .iter()
            .chain(&pieces)
            .filter_map(|piece| match decode(piece) {
                Ok(Message::Part {
                    message,
                    part,
                    parts,
                    bytes,
                }) => assembly.take(message, part, parts, bytes),
                other => panic!("{other:?}"),
            })
            .collect();

        assert_eq!(assembled, [whole.clone(), whole]);
        assert!(pieces.iter().all(|piece| piece.len() <= MAX_IN_SESSION));
        assert_eq!(parts(1, &[0; 4 * MAX_IN_SESSION]), None);
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut assembly = Assembly::default();
            if let Ok(Message::Part { message, part, parts, bytes }) = decode(&bytes) {
                let _ = assembly.take(message, part, parts, bytes);
            }
        }
    }
}
