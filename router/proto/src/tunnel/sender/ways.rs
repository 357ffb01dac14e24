//! Lets sealed datagrams leave by a way: straight, as payloads for a member that passes them on, or by the hub.
//!
//! ```text
//!   Direct   ─▶ launched, many at once
//!   Relay    ─▶ room │ sealed │ room ─▶ sealed once more, by the session with the relay ─▶ launched, many at once
//!   Control  ─▶ report to the hub, which sends them over connections
//! ```

use std::io::IoSlice;
use std::sync::atomic::Ordering::Relaxed;

use arrayvec::ArrayVec;
use weft_types::NodeId;

use super::super::batch::{MAX_SEGMENTS, group_size};
use super::super::counters::add;
use super::super::report::Report;
use super::freight::Hop;
use super::launch::{Departure, Drops, Launch};
use super::{RouteId, Sender, Turn};
use crate::crypto::seal::TAG;
use crate::overlay::{RELAY_CONTROL_LANE, RELAY_FRAMES_LANE, Slot, Via};
use crate::sleeve::lane::{Part, SealError};
use crate::sleeve::relayed::{self, Relayed};
use crate::sleeve::slots::Sealed;
use crate::switch::DropReason;

impl Sender {
    /// Sends datagrams of equal size but the last, in as few calls as there may be.
    pub(super) fn transmit_many(&mut self, id: RouteId, sealed: &[Sealed], turn: &mut Turn<'_>) {
        let size = sealed.first().map_or(1, |first| first.len());
        for group in sealed.chunks(group_size(sealed.len(), size)) {
            self.transmit(id, group, turn);
        }
    }

    /// Sends datagrams of equal size but the last, at most one call's worth, by the peer's way.
    pub(super) fn transmit(&mut self, id: RouteId, sealed: &[Sealed], turn: &mut Turn<'_>) {
        let Some(path) = self.routes[id].path else {
            return self.discard_many(id, DropReason::NoAddress, sealed.len());
        };
        let departure = match path.via {
            Via::Control => Departure {
                left: self.by_control(id, sealed, turn),
                refused: 0,
            },
            Via::Direct(to) => {
                let launch = Launch::new(&mut self.routes[id], &self.cells, to);
                let ports = &mut *turn.ports;
                self.slots
                    .send(sealed, |datagrams| launch.send(ports, datagrams))
            }
            Via::Relay(relay) => self.by_relay(id, relay, sealed, turn),
        };
        if self.part == Part::Frames {
            self.count_frames(id, path.slot, departure);
        }
    }

    /// Counts datagrams of frames against the slot of their path, for the probes that ask what became of them.
    fn count_frames(&self, id: RouteId, slot: Slot, departure: Departure) {
        let slot = usize::from(slot.number());
        add(&self.routes[id].cell.frames[slot], departure.left);
        if departure.refused > 0
            && let Some(session) = self.session(id)
        {
            add(&session.refused[slot], departure.refused);
        }
    }

    fn by_control(&self, id: RouteId, sealed: &[Sealed], turn: &mut Turn<'_>) -> usize {
        let datagrams = sealed.iter().map(|&one| self.slots.bytes(one).to_vec());
        let left = self.report(id, datagrams.collect(), turn);
        if left == 0 {
            self.discard_many(id, DropReason::ControlFull, sealed.len());
        }
        left
    }

    /// Hands datagrams to the hub; how many it takes: all or none.
    pub(super) fn report(
        &self,
        id: RouteId,
        datagrams: Vec<Vec<u8>>,
        turn: &mut Turn<'_>,
    ) -> usize {
        let cell = &self.routes[id].cell;
        let count = datagrams.len();
        let bytes = datagrams.iter().map(Vec::len).sum();
        let peer = self.routes[id].node;
        if !turn.ports.report(Report::ByControl { peer, datagrams }) {
            return 0;
        }
        add(&cell.tx_bytes, bytes);
        add(&cell.tx_datagrams, count);
        count
    }

    fn by_relay(
        &mut self,
        id: RouteId,
        relay: NodeId,
        sealed: &[Sealed],
        turn: &mut Turn<'_>,
    ) -> Departure {
        let hop = match self.hop(relay, turn) {
            Ok(hop) => hop,
            Err(reason) => {
                self.discard_many(id, reason, sealed.len());
                return Departure::default();
            }
        };
        let size = sealed.first().map_or(0, |first| first.len());
        let size = size + relayed::ROOM + TAG;
        let mut all = Departure::default();
        let mut wrapped = std::mem::take(&mut self.wrapped);
        for group in sealed.chunks(group_size(sealed.len(), size)) {
            wrapped.clear();
            for &one in group {
                wrapped.extend_from_slice(&[0; relayed::ROOM]);
                wrapped.extend_from_slice(self.slots.bytes(one));
                wrapped.extend_from_slice(&[0; TAG]);
            }
            let whose = (id, Drops::Counted);
            let some = self.wrap_and_launch(whose, hop, &mut wrapped, size, turn);
            all.left += some.left;
            all.refused += some.refused;
        }
        self.wrapped = wrapped;
        all
    }

    /// Seals for the hop what is for a peer and lies in `wrapped` with room around it, `size` bytes each but the last, and
    /// sends it.
    pub(super) fn wrap_and_launch(
        &mut self,
        (id, drops): (RouteId, Drops),
        hop: Hop,
        wrapped: &mut [u8],
        size: usize,
        turn: &mut Turn<'_>,
    ) -> Departure {
        let relayed = Relayed::towards(self.routes[id].node);
        for datagram in wrapped.chunks_mut(size) {
            if let Err(reason) = self.wrap(hop, relayed, datagram) {
                if drops == Drops::Ours {
                    return Departure::default();
                }
                self.discard_many(id, reason, wrapped.len().div_ceil(size));
                return Departure::default();
            }
        }
        let departure = self.launch((hop, drops), wrapped, size, turn);
        let left = departure.left;
        let cell = &self.routes[id].cell;
        let bytes = wrapped.len().min(left * size);
        add(&cell.tx_bytes, bytes - left * (relayed::ROOM + TAG));
        add(&cell.tx_datagrams, left);
        departure
    }

    /// Finds a member that datagrams are to be handed to. Asks for a session with it if there is none.
    pub(in super::super) fn hop(
        &mut self,
        node: NodeId,
        turn: &mut Turn<'_>,
    ) -> Result<Hop, DropReason> {
        let id = self.routes.of(node);
        let Some(Via::Direct(to)) = self.routes[id].path.map(|path| path.via) else {
            return Err(DropReason::NoRelay);
        };
        if !self.has_session(id) {
            self.ask(id, turn);
            return Err(DropReason::NoSession);
        }
        Ok(Hop { id, to })
    }

    /// Seals for the next hop a datagram that lies with room around it ([`Relayed::seal`]).
    pub(in super::super) fn wrap(
        &mut self,
        hop: Hop,
        relayed: Relayed,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let lane = match self.part {
            Part::Control => RELAY_CONTROL_LANE,
            Part::Frames => RELAY_FRAMES_LANE,
        };
        let sending = &mut self.routes[hop.id].sending;
        let lane = sending.lane(lane).ok_or(DropReason::NoSession)?;
        match relayed.seal(datagram, lane) {
            Ok(()) => Ok(()),
            Err(SealError::Exhausted) => {
                sending.end();
                Err(DropReason::NoSession)
            }
            Err(SealError::TooShort) => Err(DropReason::TooLong),
        }
    }

    /// Sends to a hop what lies in a row, `size` bytes each but the last.
    pub(in super::super) fn launch(
        &mut self,
        (hop, drops): (Hop, Drops),
        bytes: &[u8],
        size: usize,
        turn: &mut Turn<'_>,
    ) -> Departure {
        let mut datagrams = ArrayVec::<IoSlice<'_>, MAX_SEGMENTS>::new();
        datagrams.extend(bytes.chunks(size).take(MAX_SEGMENTS).map(IoSlice::new));
        Launch::new(&mut self.routes[hop.id], &self.cells, hop.to)
            .with(drops)
            .send(&mut *turn.ports, &datagrams)
    }

    /// For how many datagrams of frames, sealed in the session in use, the socket was too full.
    pub(in super::super) fn refused(&mut self, peer: NodeId, slot: Slot) -> u64 {
        let id = self.routes.of(peer);
        self.session(id).map_or(0, |session| {
            session.refused[usize::from(slot.number())].load(Relaxed)
        })
    }
}
