//! Takes bodies, whole or in pieces: frames, messages, probes of pings.

use std::io::IoSlice;

use weft_types::{NodeId, Segment};

use super::super::counters::{Cells, add};
use super::super::receiving::Session;
use super::super::report::Report;
use super::super::view::View;
use super::{Inbound, Opened, Turn};
use crate::sleeve::fragment::{self, Piece, WholeId};
use crate::sleeve::payload::{self, Kind};
use crate::sleeve::vnet::Vnet;
use crate::sleeve::{bundle, message};
use crate::switch::DropReason;

impl Session {
    /// Whether the peer may send this frame, which is cut after its headers at the earliest.
    pub(super) fn may_send(
        &self,
        segment: Segment,
        frame: &[u8],
        view: &View,
        cells: &Cells,
    ) -> bool {
        let verdict = match self.position {
            _ if segment != Segment::DEFAULT => Err(DropReason::SegmentUnknown),
            None => Err(DropReason::PeerAbsent),
            Some(position) => view.table.check_received(segment, position, frame),
        };
        let Err(reason) = verdict else {
            return true;
        };
        cells.discard(reason);
        if reason.is_forgery() {
            add(&self.cell.rx_forged, 1);
        }
        false
    }

    pub(super) fn deliver(&self, frame: &[IoSlice<'_>], cells: &Cells, turn: &mut Turn<'_>) {
        if turn.ports.deliver(self.peer, frame).is_err() {
            cells.discard(DropReason::TapRefused);
        }
    }

    /// Delivers the frames of a body.
    fn frames(
        &self,
        segment: Segment,
        body: &[u8],
        (view, cells): (&View, &Cells),
        turn: &mut Turn<'_>,
    ) {
        for record in bundle::records(body) {
            let Ok(record) = record else {
                return cells.discard(DropReason::Malformed);
            };
            let frame = &body[record.frame];
            if self.may_send(segment, frame, view, cells) {
                let vnet = Vnet::plain(record.checksum).encode();
                let frame = [IoSlice::new(&vnet), IoSlice::new(frame)];
                self.deliver(&frame, cells, turn);
            }
        }
    }
}

impl Inbound {
    /// Takes a body that came in one datagram.
    pub(super) fn whole(
        &mut self,
        (kind, segment): (Kind, Segment),
        opened: &Opened,
        turn: &mut Turn<'_>,
    ) {
        let Some(session) = self.sessions.get(&opened.head.index) else {
            return;
        };
        let bytes = &self.buffers.now()[opened.plain.clone()][payload::LEN..];
        if kind == Kind::Frames {
            return session.frames(segment, bytes, (&self.view, &self.cells), turn);
        }
        let peer = session.peer;
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        body.extend_from_slice(bytes);
        self.message(peer, kind, &body, turn);
        self.body = body;
    }

    /// Takes a piece of a body, and the body if it was the last that was missing.
    pub(super) fn piece(&mut self, piece: Piece, opened: &Opened, turn: &mut Turn<'_>) {
        let head = opened.head;
        let Some(session) = self.sessions.get_mut(&head.index) else {
            return;
        };
        let bytes = &self.buffers.now()[opened.plain.clone()][fragment::HEADER..];
        let id = WholeId {
            lane: head.lane,
            base: head.counter.wrapping_sub(u64::from(piece.index)),
        };
        let whole = match session.rejoiner.handle_piece(id, piece, bytes, turn.now) {
            Ok(Some(whole)) => whole,
            Ok(None) => return,
            Err(malformed) => return self.malformed(malformed),
        };
        let peer = session.peer;
        if piece.of == Kind::Frames {
            session.frames(piece.segment, &whole, (&self.view, &self.cells), turn);
        } else {
            self.message(peer, piece.of, &whole, turn);
        }
        if let Some(session) = self.sessions.get_mut(&head.index) {
            session.rejoiner.recycle(whole);
        }
    }

    /// Takes what is no frame.
    fn message(&mut self, peer: NodeId, kind: Kind, body: &[u8], turn: &mut Turn<'_>) {
        match kind {
            Kind::Message if body.len() <= message::MAX_MESSAGE => {
                let bytes = body.to_vec();
                turn.ports.report(Report::SessionMessage { peer, bytes });
            }
            Kind::Probe => self.control.message(peer, Kind::ProbeReply, body, turn),
            Kind::ProbeReply => self.ping_answered(peer, body, turn),
            // All others are taken elsewhere, and a message is not so long.
            Kind::Car
            | Kind::Frames
            | Kind::Message
            | Kind::PathProbe
            | Kind::PathReply
            | Kind::Piece
            | Kind::Relayed => self.cells.discard(DropReason::Malformed),
        }
    }

    fn ping_answered(&mut self, peer: NodeId, body: &[u8], turn: &mut Turn<'_>) {
        let Ok(id) = message::probe_id(body) else {
            return self.cells.discard(DropReason::Truncated);
        };
        if let Some(sent) = self.probes.answered(peer, id) {
            let rtt = turn.ports.since(sent);
            turn.ports.report(Report::ProbeAnswered { peer, id, rtt });
        }
    }
}
