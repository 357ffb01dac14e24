//! Makes datagrams of frames and bodies: one, several pieces, or a train.
//!
//! ```text
//!   ordinary, fits        ─▶ a bundle of one
//!   ordinary, does not    ─▶ pieces            (a checksum that no record can tell of is finished first)
//!   super-frame           ─▶ a train, or its UDP datagrams one by one
//!   message, probe        ─▶ one datagram, or pieces
//! ```

use arrayvec::ArrayVec;
use weft_types::Segment;

use super::super::batch::{MAX_SEGMENTS, group_size};
use super::super::framing::Framing;
use super::freight::{Frame, Place};
use super::{RouteId, Sender, Turn};
use crate::sleeve::fragment::Piece;
use crate::sleeve::inner::{MAX_HEADERS, finish_checksum};
use crate::sleeve::lane::{OVERHEAD, SealError};
use crate::sleeve::payload::{self, Kind};
use crate::sleeve::slots::{SLOTS, Sealed};
use crate::sleeve::train::{NoTrain, Train, udp_segment};
use crate::sleeve::vnet::{Checksum, Gso};
use crate::sleeve::{MAX_SUPER_FRAME, bundle};
use crate::switch::DropReason;

/// What a datagram says before its bytes.
#[derive(Clone, Copy)]
struct Label {
    kind: Kind,
    segment: Segment,
}

impl Sender {
    /// Sends an ordinary frame that does not lie in one slot, or is longer than a datagram.
    pub(super) fn gathered(&mut self, id: RouteId, frame: Frame, turn: &mut Turn<'_>) {
        let mut whole = std::mem::take(&mut self.scratch);
        whole.clear();
        whole.extend_from_slice(self.slots.gather(frame.first(), frame.len));
        self.send_frame(id, frame.framing, &mut whole, turn);
        self.scratch = whole;
    }

    /// Sends a frame that lies elsewhere. There is a session.
    pub(super) fn send_frame(
        &mut self,
        id: RouteId,
        framing: Framing,
        frame: &mut [u8],
        turn: &mut Turn<'_>,
    ) {
        self.flush(turn);
        match framing.vnet.gso {
            Gso::None => self.send_ordinary(id, framing, frame, turn),
            Gso::Tcp4 | Gso::Tcp6 | Gso::Udp if frame.len() <= MAX_SUPER_FRAME => {
                self.slots.load(frame);
                let frame = Frame {
                    place: Place::Loaded,
                    len: frame.len(),
                    framing,
                };
                self.train(id, frame, turn);
            }
            Gso::Tcp4 | Gso::Tcp6 | Gso::Udp => self.discard(id, DropReason::TooLong),
        }
    }

    /// Sends one ordinary frame by itself, in pieces if it must be.
    fn send_ordinary(
        &mut self,
        id: RouteId,
        framing: Framing,
        frame: &mut [u8],
        turn: &mut Turn<'_>,
    ) {
        let checksum = framing.vnet.checksum;
        let Some(record) = record(frame, checksum) else {
            return self.discard(id, DropReason::TooLong);
        };
        let label = Label {
            kind: Kind::Frames,
            segment: framing.segment,
        };
        self.send_whole(id, label, [&record, frame], turn);
    }

    /// Sends a message, probe or answer. There is a session.
    pub(super) fn send_body(&mut self, id: RouteId, kind: Kind, body: &[u8], turn: &mut Turn<'_>) {
        let label = Label {
            kind,
            segment: Segment::DEFAULT,
        };
        self.send_whole(id, label, [&[], body], turn);
    }

    /// Sends a body, which lies in two parts, in one datagram or in pieces.
    fn send_whole(
        &mut self,
        id: RouteId,
        Label { kind, segment }: Label,
        body: [&[u8]; 2],
        turn: &mut Turn<'_>,
    ) {
        self.flush(turn);
        let route = &mut self.routes[id];
        let datagram = route.datagram();
        let lane = match route.lane(self.part) {
            Ok(lane) => lane,
            Err(reason) => return self.discard(id, reason),
        };
        let total = body[0].len() + body[1].len();
        if OVERHEAD + payload::LEN + total <= datagram {
            let sealed = self.slots.seal_body(0, kind, segment, &body, lane);
            if let Some(sealed) = self.sealed(id, sealed) {
                self.transmit(id, &[sealed], turn);
            }
            return;
        }
        match Piece::plan(segment, kind, total, datagram) {
            Some(plan) => self.send_pieces(id, plan, body, turn),
            None => self.discard(id, DropReason::TooLong),
        }
    }

    fn send_pieces(
        &mut self,
        id: RouteId,
        (first, count): (Piece, u8),
        [prefix, rest]: [&[u8]; 2],
        turn: &mut Turn<'_>,
    ) {
        let mut pieces = ArrayVec::<Sealed, SLOTS>::new();
        for index in 0..count {
            let Ok(lane) = self.routes[id].lane(self.part) else {
                return;
            };
            let piece = Piece { index, ..first };
            let slot = usize::from(index);
            let sealed = self.slots.seal_piece(slot, piece, prefix, rest, lane);
            let Some(sealed) = self.sealed(id, sealed) else {
                return;
            };
            pieces.push(sealed);
        }
        self.transmit_many(id, &pieces, turn);
    }

    /// Sends a super-frame. What was held has left.
    pub(super) fn train(&mut self, id: RouteId, frame: Frame, turn: &mut Turn<'_>) {
        if self.routes[id].path.is_none() {
            return self.discard(id, DropReason::NoAddress);
        }
        let Framing { segment, vnet } = frame.framing;
        let datagram = self.routes[id].datagram().min(self.slots.datagram());
        let start = match frame.place {
            Place::Loaded => self.slots.loaded(frame.len),
            Place::Slot(slot) => self.slots.start(slot, frame.len),
        };
        let mut headers = ArrayVec::<u8, MAX_HEADERS>::new();
        headers
            .try_extend_from_slice(&start[..start.len().min(MAX_HEADERS)])
            .expect("cut to its capacity");
        match Train::plan(segment, vnet, start, frame.len, datagram) {
            Ok(train) if self.lay_out(frame, &train).is_ok() => {
                self.seal_train(id, frame.first(), &train, &headers, turn);
            }
            Ok(_) => self.discard(id, DropReason::TooLong),
            Err(NoTrain::Unknown) => self.discard(id, DropReason::Malformed),
            Err(NoTrain::Segment) => {
                if let Place::Slot(slot) = frame.place {
                    self.slots.gather(slot, frame.len);
                }
                self.segments(id, frame, turn);
            }
        }
    }

    /// Makes a super-frame lie as its train wants it; one that was read does already if it is like the one before.
    fn lay_out(&mut self, frame: Frame, train: &Train) -> Result<(), SealError> {
        if let Place::Slot(slot) = frame.place {
            if self.slots.fits(train) {
                return Ok(());
            }
            self.slots.gather(slot, frame.len);
        }
        self.slots.lay_out(frame.first(), frame.len, train)
    }

    /// Sends the train that lies from slot `first` on; `headers` begins with the frame's.
    fn seal_train(
        &mut self,
        id: RouteId,
        first: usize,
        train: &Train,
        headers: &[u8],
        turn: &mut Turn<'_>,
    ) {
        let mut group = ArrayVec::<Sealed, MAX_SEGMENTS>::new();
        let mut limit = 0;
        for index in 0..train.cars() {
            let Ok(lane) = self.routes[id].lane(self.part) else {
                return;
            };
            let sealed = self.slots.seal_car(first, train, index, headers, lane);
            let Some(sealed) = self.sealed(id, sealed) else {
                return;
            };
            if index == 0 {
                // Where a train needs two sends, both are of one size.
                limit = group_size(usize::from(train.cars()), sealed.len());
            }
            group.push(sealed);
            if group.len() == limit {
                self.transmit(id, &group, turn);
                group.clear();
            }
        }
        if !group.is_empty() {
            self.transmit(id, &group, turn);
        }
    }

    /// Sends the datagrams of a UDP super-frame, which is gathered, one by one: they are too large for cars.
    fn segments(&mut self, id: RouteId, frame: Frame, turn: &mut Turn<'_>) {
        let Framing { segment, vnet } = frame.framing;
        let whole = self.slots.loaded(frame.len).to_vec();
        let mut part = std::mem::take(&mut self.scratch);
        for count in 0.. {
            let Some(vnet) = udp_segment(&whole, vnet.gso_size, count, &mut part) else {
                break;
            };
            self.send_ordinary(id, Framing { segment, vnet }, &mut part, turn);
        }
        self.scratch = part;
    }
}

/// What stands before an ordinary frame; a checksum that it cannot tell of is finished. `None` if the frame is too long.
fn record(frame: &mut [u8], checksum: Option<Checksum>) -> Option<[u8; bundle::RECORD]> {
    bundle::encode(frame.len(), checksum).or_else(|| {
        let sum = checksum?;
        finish_checksum(frame, usize::from(sum.start), usize::from(sum.offset));
        bundle::encode(frame.len(), None)
    })
}
