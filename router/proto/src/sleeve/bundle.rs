//! Packs whole frames into a datagram.
//!
//! ```text
//!    0                 2            3             4
//!   ┌─────────────────┬────────────┬─────────────┬───────────────┬─ ─ ─
//!   │ length          │ csum start │ csum offset │ frame         │ the next record
//!   └─────────────────┴────────────┴─────────────┴───────────────┴─ ─ ─
//! ```
//!
//! Checksums travel unfinished: the seal vouches for the bytes, and the far kernel finishes a sum only for a frame that
//! leaves the machine. A `csum start` of zero says that nothing is to be done. A length of zero ends the bundle: what
//! follows is padding.

use std::ops::Range;

use super::Malformed;
use super::vnet::Checksum;

/// How long a record is before its frame.
pub const RECORD: usize = 4;

/// The least that an Ethernet frame has.
const ETHERNET: usize = 14;

/// A frame within a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where in the body.
    pub frame: Range<usize>,
    /// What the kernel is to finish.
    pub checksum: Option<Checksum>,
}

/// What stands before a frame; `None` if its checksum lies too far in to be told, and must be finished first, or if it
/// is too long.
pub fn encode(len: usize, checksum: Option<Checksum>) -> Option<[u8; RECORD]> {
    let [high, low] = u16::try_from(len).ok()?.to_be_bytes();
    let (start, offset) = match checksum {
        None => (0, 0),
        Some(Checksum { start, offset }) => (u8::try_from(start).ok()?, u8::try_from(offset).ok()?),
    };
    Some([high, low, start, offset])
}

/// Lists the frames of a body; ends after the first error.
pub const fn records(body: &[u8]) -> Records<'_> {
    Records { body, at: 0 }
}

/// The frames of a body.
#[derive(Debug)]
pub struct Records<'a> {
    body: &'a [u8],
    at: usize,
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.body.get(self.at..).filter(|rest| !rest.is_empty())?;
        let Some((&[high, low, start, offset], _)) = rest.split_first_chunk::<RECORD>() else {
            self.at = self.body.len();
            return Some(Err(Malformed::Truncated));
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if len == 0 {
            self.at = self.body.len();
            return None;
        }
        let frame = self.at + RECORD..self.at + RECORD + len;
        self.at = frame.end;
        if frame.end > self.body.len() || len < ETHERNET {
            self.at = self.body.len();
            return Some(Err(Malformed::Truncated));
        }
        let checksum = (start != 0).then_some(Checksum {
            start: u16::from(start),
            offset: u16::from(offset),
        });
        let within = checksum.is_none_or(|sum| {
            let (start, offset) = (usize::from(sum.start), usize::from(sum.offset));
            start >= ETHERNET && start + offset + 2 <= len
        });
        if !within {
            self.at = self.body.len();
            return Some(Err(Malformed::Inconsistent));
        }
        Some(Ok(Record { frame, checksum }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SUM: Option<Checksum> = Some(Checksum {
        start: 34,
        offset: 6,
    });

    fn body(frames: &[(usize, Option<Checksum>)]) -> Vec<u8> {
        let mut body = Vec::new();
        for &(len, checksum) in frames {
            body.extend(encode(len, checksum).unwrap());
            body.extend(std::iter::repeat_n(0xaa, len));
        }
        body
    }

    #[test]
    fn several_frames_share_a_body() {
        let mut body = body(&[(60, None), (80, SUM)]);
        let expected = [
            Ok(Record {
                frame: 4..64,
                checksum: None,
            }),
            Ok(Record {
                frame: 68..148,
                checksum: SUM,
            }),
        ];
        assert!(records(&body).eq(expected.clone()));

        body.extend([0; 9]);
        assert!(records(&body).eq(expected));
    }

    #[test]
    fn every_prefix_is_refused() {
        let body = body(&[(60, None)]);

        for len in 1..body.len() {
            let found: Vec<_> = records(&body[..len]).collect();
            assert_eq!(found, [Err(Malformed::Truncated)]);
        }
    }

    #[test]
    fn a_checksum_outside_its_frame_is_refused() {
        for (start, offset) in [(13, 0), (34, 25), (59, 0), (255, 255)] {
            let sum = Checksum { start, offset };
            let found: Vec<_> = records(&body(&[(60, Some(sum))])).collect();

            assert_eq!(found, [Err(Malformed::Inconsistent)]);
        }
    }

    #[test]
    fn a_checksum_too_far_in_has_to_be_finished() {
        let sum = Checksum {
            start: 256,
            offset: 6,
        };

        assert_eq!(encode(1000, Some(sum)), None);
    }

    proptest! {
        #[test]
        fn random_bytes_yield_only_what_lies_within(body in prop::collection::vec(any::<u8>(), 0..300)) {
            for record in records(&body).flatten() {
                prop_assert!(record.frame.end <= body.len());
            }
        }
    }
}
