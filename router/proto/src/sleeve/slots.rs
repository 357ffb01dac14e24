//! Keeps the datagrams that are about to leave: frames are read straight into them and sealed where they lie.
//!
//! ```text
//!   slot s       │ 28 bytes of room │ inner headers (guessed) │ payload of car 0 (guessed) │ tag │
//!   slot s + 1   │ room, then room for the headers again      │ payload of car 1           │ tag │
//!   …
//! ```
//!
//! Before a frame is read nobody knows what it will be, so [`Slots::read`] lays memory out for a super-frame with the
//! headers of the last one. If the guess holds, as it does within a stream, only headers are written and every car is
//! sealed in place; if not, the frame moves once through [`Slots::gather`]. An ordinary frame lies in one slot anyway,
//! with its record 4 bytes into the room.
//! **Invariant.** A [`Sealed`] names bytes within one slot; slots do not overlap.

use std::io::{IoSlice, IoSliceMut};

use arrayvec::ArrayVec;
use weft_types::Segment;

use super::fragment::{self, Piece};
use super::lane::{OVERHEAD, SealError, SendLane};
use super::payload::{self, Kind};
use super::train::{self, MAX_CARS, Train};
use super::vnet;
use super::{MAX_SUPER_FRAME, bundle, header};

/// How many ordinary frames are held before they leave.
pub const BATCH: usize = 64;

/// How many slots there are: a batch, or a train that was read behind most of one.
pub const SLOTS: usize = BATCH + MAX_CARS;

/// The room before a frame: what stands before a car's inner headers.
const ROOM: usize = header::LEN + train::HEADER;

/// The room that an ordinary frame needs of it.
const FRAME_ROOM: usize = header::LEN + payload::LEN + bundle::RECORD;

/// The least datagram that slots are laid out for, so that the headers of any frame lie in its first slot.
pub const LEAST: usize = 548;

/// What memory is laid out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    headers: usize,
    chunk: usize,
}

/// A sealed datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    start: usize,
    len: usize,
}

impl Sealed {
    /// How long it is.
    #[expect(clippy::len_without_is_empty, reason = "a datagram is never empty")]
    pub const fn len(self) -> usize {
        self.len
    }

    /// One of that length, somewhere.
    #[cfg(test)]
    pub(crate) const fn of_len(len: usize) -> Self {
        Self { start: 0, len }
    }
}

/// Room for datagrams.
pub struct Slots {
    bytes: Vec<u8>,
    stride: usize,
    layout: Layout,
    /// The frame in one piece, when its layout has to change.
    linear: Vec<u8>,
}

impl Slots {
    /// Makes room for datagrams of up to `datagram` bytes.
    pub fn new(datagram: usize) -> Self {
        let datagram = datagram.max(LEAST);
        let stride = datagram.next_multiple_of(64);
        let headers = 66; // Ethernet, IPv4, TCP with timestamps: what most super-frames have
        Self {
            bytes: vec![0; stride * SLOTS],
            stride,
            layout: Layout {
                headers,
                chunk: datagram - OVERHEAD - train::HEADER - headers,
            },
            linear: vec![0; MAX_SUPER_FRAME],
        }
    }

    /// The largest datagram there is room for.
    pub const fn datagram(&self) -> usize {
        self.stride
    }

    /// Lets `read` put the next frame where it belongs: behind its virtio header, beginning in slot `first` (below
    /// [`BATCH`]).
    pub fn read<T>(
        &mut self,
        first: usize,
        vnet: &mut [u8; vnet::LEN],
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> T,
    ) -> T {
        let Layout { headers, chunk } = self.layout;
        let mut room = ArrayVec::<IoSliceMut<'_>, { MAX_CARS + 2 }>::new();
        room.push(IoSliceMut::new(vnet));
        let mut left = MAX_SUPER_FRAME;
        for slot in self.bytes.chunks_exact_mut(self.stride).skip(first) {
            let whole = if room.len() == 1 {
                &mut slot[ROOM..ROOM + headers + chunk]
            } else {
                &mut slot[ROOM + headers..ROOM + headers + chunk]
            };
            let part = left.min(whole.len());
            room.push(IoSliceMut::new(&mut whole[..part]));
            left -= part;
            if left == 0 || room.is_full() {
                break;
            }
        }
        read(&mut room)
    }

    /// The beginning of the frame of `len` bytes that was read to slot `first`: all that lies in that slot.
    pub fn start(&self, first: usize, len: usize) -> &[u8] {
        let at = first * self.stride + ROOM;
        &self.bytes[at..at + len.min(self.layout.headers + self.layout.chunk)]
    }

    /// Whether a frame of `len` bytes lies within its first slot.
    pub const fn is_whole(&self, len: usize) -> bool {
        len <= self.layout.headers + self.layout.chunk
    }

    /// Seals the ordinary frame that was read to slot `first`, as a bundle of one.
    pub fn seal_frame(
        &mut self,
        first: usize,
        len: usize,
        segment: Segment,
        record: [u8; bundle::RECORD],
        lane: &mut SendLane,
    ) -> Result<Sealed, SealError> {
        let sealed = Sealed {
            start: first * self.stride + ROOM - FRAME_ROOM,
            len: FRAME_ROOM + len + super::lane::OVERHEAD - header::LEN,
        };
        let datagram = self.at(sealed)?;
        datagram[header::LEN..][..payload::LEN]
            .copy_from_slice(&payload::encode(Kind::Frames, segment));
        datagram[header::LEN + payload::LEN..][..bundle::RECORD].copy_from_slice(&record);
        lane.seal(datagram)?;
        Ok(sealed)
    }

    /// Copies the frame that was read to slot `first` into one piece, and returns it.
    pub fn gather(&mut self, first: usize, len: usize) -> &mut [u8] {
        let Layout { headers, chunk } = self.layout;
        let len = len.min(MAX_SUPER_FRAME);
        let mut have = 0;
        for slot in self.bytes.chunks_exact(self.stride).skip(first) {
            let whole = if have == 0 {
                &slot[ROOM..ROOM + headers + chunk]
            } else {
                &slot[ROOM + headers..ROOM + headers + chunk]
            };
            let part = whole.len().min(len - have);
            self.linear[have..have + part].copy_from_slice(&whole[..part]);
            have += part;
            if have == len {
                break;
            }
        }
        &mut self.linear[..len]
    }

    /// Takes a frame from elsewhere, as if it had been gathered.
    pub fn load(&mut self, frame: &[u8]) {
        let len = frame.len().min(self.linear.len());
        self.linear[..len].copy_from_slice(&frame[..len]);
    }

    /// The frame that was gathered or loaded.
    pub fn loaded(&self, len: usize) -> &[u8] {
        &self.linear[..len.min(self.linear.len())]
    }

    /// Whether the frame lies as this train wants it.
    pub fn fits(&self, train: &Train) -> bool {
        self.layout == layout(train)
    }

    /// Lays the gathered frame out for a train, from slot `first` on, and guesses the same for the next.
    pub fn lay_out(&mut self, first: usize, len: usize, train: &Train) -> Result<(), SealError> {
        let Layout { headers, chunk } = layout(train);
        if ROOM + headers + chunk + super::lane::OVERHEAD - header::LEN > self.stride {
            return Err(SealError::TooShort);
        }
        self.layout = Layout { headers, chunk };
        let mut rest = &self.linear[..len.min(MAX_SUPER_FRAME)];
        for (number, slot) in self
            .bytes
            .chunks_exact_mut(self.stride)
            .skip(first)
            .enumerate()
        {
            let (at, room) = if number == 0 {
                (ROOM, headers + chunk)
            } else {
                (ROOM + headers, chunk)
            };
            let (part, later) = rest.split_at(room.min(rest.len()));
            slot[at..at + part.len()].copy_from_slice(part);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Seals cars of the train that lies from slot `first` on. `headers` holds the frame's headers: sealing a car
    /// encrypts its own.
    pub fn seal_car(
        &mut self,
        first: usize,
        train: &Train,
        index: u8,
        headers: &[u8],
        lane: &mut SendLane,
    ) -> Result<Sealed, SealError> {
        let sealed = Sealed {
            start: (first + usize::from(index)) * self.stride,
            len: ROOM + train.headers() + train.payload_of(index) + OVERHEAD - header::LEN,
        };
        let datagram = self.at(sealed)?;
        datagram[header::LEN..ROOM].copy_from_slice(&train.car(index).encode());
        datagram[ROOM..ROOM + train.headers()].copy_from_slice(&headers[..train.headers()]);
        lane.seal(datagram)?;
        Ok(sealed)
    }

    /// Seals a body as one datagram, in slot `slot`.
    pub fn seal_body(
        &mut self,
        slot: usize,
        kind: Kind,
        segment: Segment,
        body: &[&[u8]],
        lane: &mut SendLane,
    ) -> Result<Sealed, SealError> {
        let len: usize = body.iter().map(|part| part.len()).sum();
        let sealed = Sealed {
            start: slot * self.stride,
            len: OVERHEAD + payload::LEN + len,
        };
        let datagram = self.at(sealed)?;
        datagram[header::LEN..][..payload::LEN].copy_from_slice(&payload::encode(kind, segment));
        let mut at = header::LEN + payload::LEN;
        for part in body {
            datagram[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        lane.seal(datagram)?;
        Ok(sealed)
    }

    /// Seals one piece of a body that is `prefix` and then `rest`.
    pub fn seal_piece(
        &mut self,
        slot: usize,
        piece: Piece,
        prefix: &[u8],
        rest: &[u8],
        lane: &mut SendLane,
    ) -> Result<Sealed, SealError> {
        let from = piece.start();
        let until = (from + usize::from(piece.chunk)).min(usize::from(piece.total));
        let (a, b) = parts(prefix, rest, from, until).ok_or(SealError::TooShort)?;
        let sealed = Sealed {
            start: slot * self.stride,
            len: OVERHEAD + fragment::HEADER + a.len() + b.len(),
        };
        let datagram = self.at(sealed)?;
        let at = header::LEN + fragment::HEADER;
        datagram[header::LEN..at].copy_from_slice(&piece.encode());
        datagram[at..at + a.len()].copy_from_slice(a);
        datagram[at + a.len()..][..b.len()].copy_from_slice(b);
        lane.seal(datagram)?;
        Ok(sealed)
    }

    /// A sealed datagram's bytes.
    pub fn bytes(&self, sealed: Sealed) -> &[u8] {
        &self.bytes[sealed.start..sealed.start + sealed.len]
    }

    /// Lets `send` take sealed datagrams as a gathering send wants them.
    pub fn send<T>(&self, sealed: &[Sealed], send: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let mut slices = ArrayVec::<IoSlice<'_>, SLOTS>::new();
        for &sealed in sealed.iter().take(SLOTS) {
            slices.push(IoSlice::new(self.bytes(sealed)));
        }
        send(&slices)
    }

    /// The bytes of a datagram that lies within its slot.
    fn at(&mut self, sealed: Sealed) -> Result<&mut [u8], SealError> {
        if sealed.start % self.stride + sealed.len > self.stride {
            return Err(SealError::TooShort);
        }
        self.bytes
            .get_mut(sealed.start..sealed.start + sealed.len)
            .ok_or(SealError::TooShort)
    }
}

fn layout(train: &Train) -> Layout {
    Layout {
        headers: train.headers(),
        chunk: train.chunk(),
    }
}

/// The bytes `from..until` of `prefix` followed by `rest`.
fn parts<'a>(
    prefix: &'a [u8],
    rest: &'a [u8],
    from: usize,
    until: usize,
) -> Option<(&'a [u8], &'a [u8])> {
    let cut = prefix.len();
    Some((
        prefix.get(from.min(cut)..until.min(cut))?,
        rest.get(from.saturating_sub(cut)..until.saturating_sub(cut))?,
    ))
}
