//! Splits a body that no datagram holds, and rejoins it in bounded memory.
//!
//! ```text
//!    0        1            4        5        6           8           10
//!   ┌────────┬────────────┬────────┬────────┬───────────┬───────────┬───────────────
//!   │ 6      │ segment    │ of     │ index  │ chunk     │ total     │ bytes from index × chunk
//!   └────────┴────────────┴────────┴────────┴───────────┴───────────┴───────────────
//! ```
//!
//! `of` is the kind of the whole body; every piece but the last has `chunk` bytes. The pieces of one body have
//! consecutive counters in one lane, so (lane, counter − index) names the body and nothing else has to.
//! **Invariant.** A peer occupies at most [`OPEN`] buffers of [`MAX_WHOLE`] bytes, whatever it sends.
//! **Failure policy.** A body that misses a piece for [`PATIENCE`] is worthless; the oldest makes room for a newcomer.

use std::time::{Duration, Instant};

use weft_types::Segment;

use super::payload::{self, Kind};
use super::{MAX_FRAME, Malformed, bundle};

/// How long a piece is before its bytes.
pub const HEADER: usize = 10;

/// The longest body: one frame of the largest MTU.
pub const MAX_WHOLE: usize = bundle::RECORD + MAX_FRAME;

/// How many bodies of one peer are open at once: reordering mixes neighbours, not crowds.
pub const OPEN: usize = 4;

/// A round trip around the earth and then some.
pub const PATIENCE: Duration = Duration::from_secs(1);

const MAX_PIECES: usize = 256;

/// The head of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// On which network.
    pub segment: Segment,
    /// What the whole is.
    pub of: Kind,
    /// Which piece.
    pub index: u8,
    /// How many bytes every piece but the last has.
    pub chunk: u16,
    /// How many bytes the whole has.
    pub total: u16,
}

/// Which body a piece belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeId {
    /// The lane it came on.
    pub lane: u16,
    /// The counter of its first piece.
    pub base: u64,
}

impl Piece {
    /// How a body of `total` bytes travels in datagrams of `datagram` bytes: its first piece's head, and how many.
    /// `None` if it cannot: too long, or the datagrams too small.
    pub fn plan(segment: Segment, of: Kind, total: usize, datagram: usize) -> Option<(Self, u8)> {
        let chunk = datagram
            .checked_sub(super::lane::OVERHEAD + HEADER)?
            .min(total);
        let count = u8::try_from(total.div_ceil(chunk.max(1))).ok()?;
        let first = Self {
            segment,
            of,
            index: 0,
            chunk: u16::try_from(chunk).ok()?,
            total: u16::try_from(total).ok()?,
        };
        (total <= MAX_WHOLE && chunk > 0).then_some((first, count))
    }

    /// Reads a plaintext that begins with a piece's head; its bytes are what follows [`HEADER`].
    pub fn decode(plain: &[u8]) -> Result<Self, Malformed> {
        let (&[_, s0, s1, s2, of, index, c0, c1, t0, t1], bytes) = plain
            .split_first_chunk::<HEADER>()
            .ok_or(Malformed::Truncated)?;
        let piece = Self {
            segment: Segment::from_bytes([s0, s1, s2]),
            of: Kind::from_byte(of)?,
            index,
            chunk: u16::from_be_bytes([c0, c1]),
            total: u16::from_be_bytes([t0, t1]),
        };
        let whole = match piece.of {
            Kind::Frames | Kind::Message | Kind::Probe | Kind::ProbeReply => true,
            Kind::Car | Kind::PathProbe | Kind::PathReply | Kind::Piece | Kind::Relayed => false,
        };
        if whole && usize::from(piece.total) <= MAX_WHOLE && piece.range() == Some(bytes.len()) {
            Ok(piece)
        } else {
            Err(Malformed::Inconsistent)
        }
    }

    /// As it travels.
    pub fn encode(self) -> [u8; HEADER] {
        let [kind, s0, s1, s2] = payload::encode(Kind::Piece, self.segment);
        let [c0, c1] = self.chunk.to_be_bytes();
        let [t0, t1] = self.total.to_be_bytes();
        [kind, s0, s1, s2, self.of.byte(), self.index, c0, c1, t0, t1]
    }

    /// Where its bytes begin in the whole.
    pub fn start(self) -> usize {
        usize::from(self.index) * usize::from(self.chunk)
    }

    /// How many bytes it must have; `None` if there is no such piece.
    fn range(self) -> Option<usize> {
        let left = usize::from(self.total).checked_sub(self.start())?;
        let len = left.min(usize::from(self.chunk));
        (len > 0).then_some(len)
    }

    fn count(self) -> usize {
        usize::from(self.total).div_ceil(usize::from(self.chunk).max(1))
    }
}

/// The bodies of one peer that are being put together.
#[derive(Default)]
pub struct Rejoiner {
    open: [Option<Whole>; OPEN],
    /// Buffers of bodies that are done with.
    spare: Vec<Vec<u8>>,
}

struct Whole {
    id: WholeId,
    /// Any of its pieces: what they all must agree in.
    piece: Piece,
    have: [u64; MAX_PIECES / 64],
    missing: usize,
    bytes: Vec<u8>,
    since: Instant,
}

impl Rejoiner {
    /// Takes a piece and the bytes that follow its head. Returns the body when this was the last that it missed;
    /// give it back with [`Self::recycle`].
    pub fn handle_piece(
        &mut self,
        id: WholeId,
        piece: Piece,
        bytes: &[u8],
        now: Instant,
    ) -> Result<Option<Vec<u8>>, Malformed> {
        if piece.range() != Some(bytes.len()) || piece.count() > MAX_PIECES {
            return Err(Malformed::Inconsistent);
        }
        let slot = self.slot(id, piece, now);
        let place = &mut self.open[slot];
        let spare = &mut self.spare;
        let whole = place.get_or_insert_with(|| {
            let mut bytes = spare.pop().unwrap_or_default();
            bytes.clear();
            bytes.resize(usize::from(piece.total), 0);
            Whole {
                id,
                piece,
                have: [0; MAX_PIECES / 64],
                missing: piece.count(),
                bytes,
                since: now,
            }
        });
        let agreed = Piece {
            index: piece.index,
            ..whole.piece
        };
        let room = whole.bytes.get_mut(piece.start()..);
        let Some(room) = room.filter(|room| agreed == piece && room.len() >= bytes.len()) else {
            return Err(Malformed::Inconsistent);
        };
        let bit = 1_u64 << (piece.index % 64);
        let word = &mut whole.have[usize::from(piece.index / 64)];
        if *word & bit == 0 {
            *word |= bit;
            whole.missing -= 1;
            room[..bytes.len()].copy_from_slice(bytes);
        }
        let done = whole.missing == 0;
        Ok(if done {
            self.open[slot].take().map(|whole| whole.bytes)
        } else {
            None
        })
    }

    /// Takes a buffer back, so that the next body needs no memory of its own.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < OPEN {
            self.spare.push(buffer);
        }
    }

    /// Where a body is, or may be: its own place, else an empty one, else the oldest's.
    fn slot(&mut self, id: WholeId, piece: Piece, now: Instant) -> usize {
        for place in &mut self.open {
            let late = |whole: &mut Whole| {
                now.saturating_duration_since(whole.since) > PATIENCE
                    || whole.id == id && whole.piece.total != piece.total
            };
            if let Some(stale) = place.take_if(late)
                && self.spare.len() < OPEN
            {
                self.spare.push(stale.bytes);
            }
        }
        let own = |place: &Option<Whole>| place.as_ref().is_some_and(|whole| whole.id == id);
        let found = self
            .open
            .iter()
            .position(own)
            .or_else(|| self.open.iter().position(Option::is_none));
        found.unwrap_or_else(|| {
            let oldest = (0..OPEN)
                .min_by_key(|&slot| self.open[slot].as_ref().map(|whole| whole.since))
                .unwrap_or(0);
            if let Some(evicted) = self.open[oldest].take() {
                self.recycle(evicted.bytes);
            }
            oldest
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "where virtual time begins")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn id(base: u64) -> WholeId {
        WholeId { lane: 0, base }
    }

    fn pieces(body: &[u8], datagram: usize) -> Vec<Vec<u8>> {
        let (first, count) =
            Piece::plan(Segment::DEFAULT, Kind::Frames, body.len(), datagram).unwrap();
        (0..count)
            .map(|index| {
                let piece = Piece { index, ..first };
                let end = (piece.start() + usize::from(piece.chunk)).min(body.len());
                let mut plain = piece.encode().to_vec();
                plain.extend_from_slice(&body[piece.start()..end]);
                plain
            })
            .collect()
    }

    fn feed(
        rejoiner: &mut Rejoiner,
        base: u64,
        plain: &[u8],
        now: Instant,
    ) -> Result<Option<Vec<u8>>, Malformed> {
        let piece = Piece::decode(plain)?;
        rejoiner.handle_piece(id(base), piece, &plain[HEADER..], now)
    }

    #[test]
    fn a_late_piece_completes_nothing() {
        let mut rejoiner = Rejoiner::default();
        let now = origin();
        let parts = pieces(&[7; 2000], 1472);
        assert_eq!(feed(&mut rejoiner, 0, &parts[0], now), Ok(None));

        let late = now + PATIENCE + Duration::from_millis(1);

        assert_eq!(feed(&mut rejoiner, 0, &parts[1], late), Ok(None));
    }

    #[test]
    fn a_peer_that_never_finishes_occupies_bounded_memory() {
        let mut rejoiner = Rejoiner::default();
        let now = origin();
        let parts = pieces(&[7; MAX_WHOLE], 1472);
        for base in 0..1000 {
            assert_eq!(feed(&mut rejoiner, base, &parts[0], now), Ok(None));
        }

        let open: usize = rejoiner.open.iter().flatten().map(|w| w.bytes.len()).sum();
        assert!(open <= OPEN * MAX_WHOLE && rejoiner.spare.len() <= OPEN);
    }

    #[test]
    fn nothing_of_an_earlier_body_shows_through() {
        let mut rejoiner = Rejoiner::default();
        let now = origin();
        for part in pieces(&[7; 2000], 1472) {
            if let Some(done) = feed(&mut rejoiner, 0, &part, now).unwrap() {
                rejoiner.recycle(done);
            }
        }
        let parts = pieces(&[9; 1900], 1472);
        feed(&mut rejoiner, 9, &parts[1], now).unwrap();

        let done = feed(&mut rejoiner, 9, &parts[0], now).unwrap();

        assert_eq!(done, Some(vec![9; 1900]));
    }

    #[test]
    fn every_prefix_is_refused() {
        let part = &pieces(&[7; 2000], 1472)[0];

        assert!((0..part.len()).all(|len| Piece::decode(&part[..len]).is_err()));
    }

    #[test]
    fn what_is_too_long_or_does_not_fit_is_not_split() {
        let plan = |total, datagram| {
            Piece::plan(Segment::DEFAULT, Kind::Frames, total, datagram).is_some()
        };

        assert!(plan(MAX_WHOLE, 1472));
        assert!(!plan(MAX_WHOLE + 1, 1472));
        assert!(!plan(100, 42));
        assert!(!plan(9000, 60));
    }

    proptest! {
        #[test]
        fn any_order_rejoins(
            body in prop::collection::vec(any::<u8>(), 1..4000),
            datagram in 100..1500_usize,
            seed in any::<usize>(),
        ) {
            let mut parts: Vec<Vec<u8>> = pieces(&body, datagram);
            let count = parts.len();
            for i in 0..count {
                parts.swap(i, seed.wrapping_mul(i + 7) % count);
            }
            let mut rejoiner = Rejoiner::default();
            let now = origin();
            for (i, part) in parts.iter().enumerate() {
                let done = feed(&mut rejoiner, 5, part, now).unwrap();
                prop_assert_eq!(done, (i + 1 == count).then(|| body.clone()));
            }
        }

        #[test]
        fn random_bytes_do_not_panic(
            plains in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..50),
        ) {
            let mut rejoiner = Rejoiner::default();
            let now = origin();
            for mut plain in plains {
                if plain.len() > 8 {
                    plain[4] = 1;
                    plain[6] = 0;
                    plain[8] = 0;
                }
                let _ = feed(&mut rejoiner, 0, &plain, now);
            }
        }
    }
}
