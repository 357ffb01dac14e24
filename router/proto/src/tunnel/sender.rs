//! Seals what is for a peer and lets it leave.
//!
//! There are two senders, one for frames and one for everything else, each on lanes of its own, so that neither waits for
//! the other. [`frames`] is how frames and bodies become datagrams, [`ways`] how datagrams leave, [`lone`] what is sent
//! by another way than a peer's frames take.

mod frames;
mod freight;
mod launch;
mod lone;
mod ways;

use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::Instant;

use weft_types::NodeId;

use super::batch::Batch;
use super::chatter::Load;
use super::counters::{Cells, add};
use super::framing::Framing;
use super::ports::Turn;
use super::report::Report;
use super::route::{RouteId, Routes};
use super::sending::{SendSession, SessionChange};
use super::view::View;
use super::waiting::Parcel;
use crate::io::Direction;
use crate::sleeve::lane::{OVERHEAD, Part, SealError};
use crate::sleeve::payload::{self, Kind};
use crate::sleeve::slots::{LEAST, Sealed, Slots};
use crate::sleeve::vnet::{self, Gso};
use crate::sleeve::{SessionIndex, bundle};
use crate::switch::DropReason;

use freight::{Frame, Place};
pub(super) use freight::{Hop, Lone};
pub(super) use launch::Drops;

/// Seals and sends.
pub(super) struct Sender {
    part: Part,
    cells: Arc<Cells>,
    slots: Slots,
    routes: Routes,
    batch: Batch,
    /// A frame that is sent from elsewhere than the slots.
    scratch: Vec<u8>,
    /// Datagrams with room around them, for who passes them on.
    wrapped: Vec<u8>,
    sealed: usize,
}

impl Sender {
    pub(super) fn new(part: Part, view: &View, cells: Arc<Cells>) -> Self {
        let mut routes = Routes::new(Arc::clone(&cells));
        let largest = routes.follow(view);
        Self {
            part,
            cells,
            slots: Slots::new(largest),
            routes,
            batch: Batch::default(),
            scratch: Vec::new(),
            wrapped: Vec::new(),
            sealed: 0,
        }
    }

    /// Follows a snapshot.
    pub(super) fn set_view(&mut self, view: &View, turn: &mut Turn<'_>) {
        self.flush(turn);
        let largest = self.routes.follow(view);
        // Slots that are far too large lie far apart.
        let room = self.slots.datagram();
        if largest > room || largest > 0 && largest.max(LEAST) * 2 < room {
            self.slots = Slots::new(largest);
        }
    }

    /// Follows what happens to sessions.
    pub(super) fn change(&mut self, change: SessionChange, turn: &mut Turn<'_>) {
        self.flush(turn);
        match change {
            SessionChange::Install { peer, session } => {
                let id = self.routes.of(peer);
                self.routes[id].sending.install(session);
                self.send_what_waited(id, turn);
            }
            SessionChange::Hold { peer, session } => {
                let id = self.routes.of(peer);
                self.routes[id].sending.hold(session);
            }
            SessionChange::Promote { peer, index } => {
                let id = self.routes.of(peer);
                if self.routes[id].sending.promote(index) {
                    self.send_what_waited(id, turn);
                }
            }
            SessionChange::Retire { index } => self.routes.retire(index),
        }
    }

    fn send_what_waited(&mut self, id: RouteId, turn: &mut Turn<'_>) {
        let expired = self.routes[id].room.expire(turn.now);
        self.discard_many(id, DropReason::NoSession, expired);
        for parcel in self.routes[id].room.take() {
            match parcel {
                Parcel::Body { kind, body } => self.send_body(id, kind, &body, turn),
                Parcel::Frame {
                    framing,
                    mut frame,
                    load,
                } => {
                    self.send_frame(id, framing, &mut frame, turn);
                    self.say(id, load, turn);
                }
            }
        }
        self.flush(turn);
    }

    /// When to look after what waits, if anything does.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due = |route: &super::route::Route| route.room.poll_timeout();
        self.routes.iter().filter_map(due).min()
    }

    /// Drops what has waited too long, and asks again for the rest.
    pub(super) fn handle_timeout(&mut self, turn: &mut Turn<'_>) {
        for id in self.routes.ids() {
            if self.routes[id].room.poll_timeout().is_none() {
                continue;
            }
            let expired = self.routes[id].room.expire(turn.now);
            self.discard_many(id, DropReason::NoSession, expired);
            if self.routes[id].room.poll_timeout().is_some() {
                self.ask(id, turn);
            }
        }
    }

    fn ask(&mut self, id: RouteId, turn: &mut Turn<'_>) {
        let route = &mut self.routes[id];
        let (peer, ports) = (route.node, &mut turn.ports);
        let ask = || ports.report(Report::SessionWanted { peer });
        route.room.ask(turn.now, ask);
    }

    fn wait(&mut self, id: RouteId, parcel: Parcel, turn: &mut Turn<'_>) {
        if !self.routes[id].room.put(parcel, turn.now) {
            self.discard(id, DropReason::NoSession);
        }
        self.ask(id, turn);
    }

    fn has_session(&self, id: RouteId) -> bool {
        self.routes[id].sending.in_use().is_some()
    }

    fn discard(&self, id: RouteId, reason: DropReason) {
        self.discard_many(id, reason, 1);
    }

    fn discard_many(&self, id: RouteId, reason: DropReason, count: usize) {
        self.cells.discard_many(reason, count);
        add(&self.routes[id].cell.tx_dropped, count);
    }

    /// Says now and then that frames travel.
    fn say(&mut self, id: RouteId, load: Load, turn: &mut Turn<'_>) {
        let route = &mut self.routes[id];
        let about = (route.node, Direction::Sent);
        route.said.say(about, || load, turn);
    }

    /// Lets `read` put the next frame where it belongs.
    pub(super) fn read<T>(
        &mut self,
        vnet: &mut [u8; vnet::LEN],
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> T,
    ) -> T {
        self.slots.read(self.batch.next_slot(), vnet, read)
    }

    /// The beginning of the frame of `len` bytes that was read last.
    pub(super) fn start(&self, len: usize) -> &[u8] {
        self.slots.start(self.batch.next_slot(), len)
    }

    /// Copies the frame that was read last to `out`.
    pub(super) fn copy(&mut self, len: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.slots.gather(self.batch.next_slot(), len));
    }

    /// Sends the frame that was read last to the peer at `position`: at once, or with those that follow.
    pub(super) fn captured(
        &mut self,
        position: usize,
        len: usize,
        framing: Framing,
        turn: &mut Turn<'_>,
    ) {
        let Some(id) = self.routes.at(position) else {
            return self.cells.discard(DropReason::PeerAbsent);
        };
        let slot = self.batch.next_slot();
        if !self.has_session(id) {
            let frame = self.slots.gather(slot, len).to_vec();
            let parcel = Parcel::Frame {
                framing,
                frame,
                load: Load::Traffic,
            };
            return self.wait(id, parcel, turn);
        }
        let frame = Frame {
            place: Place::Slot(slot),
            len,
            framing,
        };
        self.send_captured(id, frame, turn);
        self.say(id, Load::Traffic, turn);
    }

    fn send_captured(&mut self, id: RouteId, frame: Frame, turn: &mut Turn<'_>) {
        let Frame { len, framing, .. } = frame;
        let slot = frame.first();
        if self.is_small(id, frame)
            && let Some(record) = bundle::encode(len, framing.vnet.checksum)
            && let Ok(lane) = self.routes[id].lane(self.part)
        {
            let segment = framing.segment;
            let sealed = self.slots.seal_frame(slot, len, segment, record, lane);
            return self.enqueue(id, slot, sealed, turn);
        }
        self.flush(turn);
        match framing.vnet.gso {
            Gso::None => self.gathered(id, frame, turn),
            Gso::Tcp4 | Gso::Tcp6 | Gso::Udp => self.train(id, frame, turn),
        }
    }

    /// Whether a frame fills no more than the slot that it was read to, and a datagram.
    fn is_small(&self, id: RouteId, frame: Frame) -> bool {
        let weight = OVERHEAD + payload::LEN + bundle::RECORD + frame.len;
        frame.framing.vnet.gso == Gso::None
            && weight <= self.routes[id].datagram()
            && self.slots.is_whole(frame.len)
    }

    /// Sends a frame from elsewhere to the peer at `position`, as one of many that get it.
    pub(super) fn copied(
        &mut self,
        position: usize,
        framing: Framing,
        frame: &mut [u8],
        load: Load,
        turn: &mut Turn<'_>,
    ) {
        let Some(id) = self.routes.at(position) else {
            return;
        };
        if self.has_session(id) {
            self.send_frame(id, framing, frame, turn);
            self.say(id, load, turn);
        } else {
            let frame = frame.to_vec();
            let parcel = Parcel::Frame {
                framing,
                frame,
                load,
            };
            self.wait(id, parcel, turn);
        }
    }

    /// Sends a message, probe or answer to a peer.
    pub(super) fn message(&mut self, peer: NodeId, kind: Kind, body: &[u8], turn: &mut Turn<'_>) {
        let id = self.routes.of(peer);
        if self.has_session(id) {
            self.send_body(id, kind, body, turn);
            self.flush(turn);
        } else {
            let body = body.to_vec();
            self.wait(id, Parcel::Body { kind, body }, turn);
        }
    }

    /// Puts a sealed frame to those that leave together.
    fn enqueue(
        &mut self,
        id: RouteId,
        slot: usize,
        sealed: Result<Sealed, SealError>,
        turn: &mut Turn<'_>,
    ) {
        let Some(sealed) = self.sealed(id, sealed) else {
            return;
        };
        if !self.batch.takes(id, sealed) {
            self.flush(turn);
        }
        self.batch.push(id, slot, sealed);
        if self.batch.is_full() {
            self.flush(turn);
        }
    }

    /// Counts a sealed datagram, or ends a session that is used up.
    fn sealed(&mut self, id: RouteId, sealed: Result<Sealed, SealError>) -> Option<Sealed> {
        match sealed {
            Ok(sealed) => {
                self.sealed += 1;
                Some(sealed)
            }
            Err(SealError::Exhausted) => {
                self.routes[id].sending.end();
                self.discard(id, DropReason::NoSession);
                None
            }
            Err(SealError::TooShort) => {
                self.discard(id, DropReason::TooLong);
                None
            }
        }
    }

    /// Our index of the session that a peer is sent to by.
    pub(super) fn session_with(&self, peer: NodeId) -> Option<SessionIndex> {
        let route = self.routes.iter().find(|route| route.node == peer)?;
        route.sending.in_use().map(|session| session.local)
    }

    /// How many datagrams were sealed, for the caller to judge how busy it is.
    pub(super) const fn count(&self) -> usize {
        self.sealed
    }

    /// Sends what is sealed. After it every slot is free.
    pub(super) fn flush(&mut self, turn: &mut Turn<'_>) {
        if self.batch.is_empty() {
            return;
        }
        let (id, sealed) = self.batch.take();
        self.transmit(id, &sealed, turn);
        self.batch.recycle(sealed);
    }

    /// A session that a hop or a lone datagram is sealed by.
    fn session(&self, id: RouteId) -> Option<&SendSession> {
        self.routes[id].sending.in_use()
    }
}
