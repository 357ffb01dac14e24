//! Joins cars, and delivers the super-frames that they make.

use std::io::IoSlice;
use std::ops::Range;

use arrayvec::ArrayVec;

use super::{Inbound, Turn};
use crate::sleeve::header::Header;
use crate::sleeve::train::{self, Car, Span, TrainId};

impl Inbound {
    pub(super) fn car(&mut self, head: Header, plain: Range<usize>, turn: &mut Turn<'_>) {
        let car = match Car::decode(&self.buffers.now()[plain.clone()]) {
            Ok(car) => car,
            Err(malformed) => return self.malformed(malformed),
        };
        let id = TrainId {
            session: head.index,
            lane: head.lane,
            base: head.counter.wrapping_sub(u64::from(car.index)),
        };
        if !self.buffers.join.continues(id, car) {
            self.finish_train(turn);
            self.buffers.begin_train();
        }
        let rest = Span {
            buffer: self.buffers.current(),
            start: plain.start + train::HEADER,
            len: plain.len() - train::HEADER,
        };
        self.buffers.join.push(id, car, rest);
        if self.buffers.join.is_complete() {
            self.finish_train(turn);
        }
    }

    /// Delivers what has been gathered of the open train.
    pub(super) fn finish_train(&mut self, turn: &mut Turn<'_>) {
        let join = &self.buffers.join;
        let (Some(segment), Some(session)) = (join.segment(), join.session()) else {
            return;
        };
        let Some((join, head)) = self.buffers.join_and_head() else {
            return;
        };
        let vnet = match join.finish(head) {
            Ok(vnet) => vnet.encode(),
            Err(malformed) => return self.malformed(malformed),
        };
        let head = &*head;
        let Some(session) = self.sessions.get(&session) else {
            return;
        };
        if !session.may_send(segment, head, &self.view, &self.cells) {
            return;
        }
        let mut frame = ArrayVec::<IoSlice<'_>, { train::MAX_SPANS + 1 }>::new();
        frame.push(IoSlice::new(&vnet));
        let bytes = self.buffers.bytes();
        frame.extend(
            self.buffers
                .join
                .spans()
                .iter()
                .map(|span| IoSlice::new(&bytes[span.buffer][span.start..span.start + span.len])),
        );
        session.deliver(&frame, &self.cells, turn);
    }
}
