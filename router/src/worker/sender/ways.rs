//! Lets sealed datagrams leave by a way: straight, as payloads for a member that passes them on, or by the hub.
//!
//! ```text
//!   Direct   ─▶ sendmsg, many at once
//!   Relay    ─▶ room │ sealed │ room ─▶ sealed once more, by the session with the relay ─▶ sendmsg, many at once
//!   Control  ─▶ report to the hub, which sends them over connections
//! ```
//!
//! **Failure policy.** What cannot leave at once is dropped and counted, for that peer only. Where one call for many
//! datagrams is refused, that peer's leave one by one until its path changes.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use arrayvec::ArrayVec;
use weft_kernel::udp::{MAX_PAYLOAD, MAX_SEGMENTS};
use weft_router_proto::crypto::seal::TAG;
use weft_router_proto::overlay::{RELAY_CONTROL_LANE, RELAY_FRAMES_LANE, Slot, Via};
use weft_router_proto::sleeve::SessionIndex;
use weft_router_proto::sleeve::header;
use weft_router_proto::sleeve::lane::{OVERHEAD, Part, SealError};
use weft_router_proto::sleeve::payload::{self, Kind};
use weft_router_proto::sleeve::relayed::{self, Relayed};
use weft_router_proto::sleeve::slots::Sealed;
use weft_router_proto::switch::DropReason;
use weft_types::{NodeId, Segment};

use super::super::counters::add;
use super::super::report::Report;
use super::super::shared::Shared;
use super::{Route, Sender, group_size};

/// A member that datagrams are handed to, straight, by a session with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) struct Hop {
    route: usize,
    to: SocketAddr,
}

/// What became of datagrams that were to leave; what is missing was dropped for another reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::worker) struct Departure {
    /// How many have left.
    pub(in crate::worker) left: usize,
    /// For how many the socket was too full.
    pub(in crate::worker) refused: usize,
}

/// What is sent by itself, by a way that the caller names.
pub(in crate::worker) struct Lone {
    pub(in crate::worker) peer: NodeId,
    pub(in crate::worker) via: Via,
    pub(in crate::worker) lane: u16,
    pub(in crate::worker) kind: Kind,
    /// How long the body is.
    pub(in crate::worker) len: usize,
}

impl Sender {
    /// Sends datagrams of equal size but the last, in as few calls as there may be.
    pub(super) fn transmit_many(&mut self, number: usize, sealed: &[Sealed]) {
        let size = sealed.first().map_or(1, |first| first.len());
        for group in sealed.chunks(group_size(sealed.len(), size)) {
            self.transmit(number, group);
        }
    }

    /// Sends datagrams of equal size but the last, at most one call's worth, by the peer's way.
    pub(super) fn transmit(&mut self, number: usize, sealed: &[Sealed]) {
        let Some(path) = self.routes[number].path else {
            return self.discard_many(number, DropReason::NoAddress, sealed.len());
        };
        let departure = match path.via {
            Via::Control => Departure {
                left: self.by_control(number, sealed),
                refused: 0,
            },
            Via::Direct(to) => {
                let (shared, route) = (&self.shared, &mut self.routes[number]);
                self.slots
                    .send(sealed, |datagrams| launch(shared, route, to, datagrams))
            }
            Via::Relay(relay) => self.by_relay(number, relay, sealed),
        };
        if self.part == Part::Frames {
            let slot = usize::from(path.slot.number());
            let route = &self.routes[number];
            add(&route.cell.frames[slot], departure.left);
            if departure.refused > 0
                && let Some(session) = &route.session
            {
                add(&session.refused[slot], departure.refused);
            }
        }
    }

    fn by_control(&self, number: usize, sealed: &[Sealed]) -> usize {
        let datagrams = sealed.iter().map(|&one| self.slots.bytes(one).to_vec());
        self.report(number, datagrams.collect())
    }

    /// Hands datagrams to the hub; how many it takes.
    fn report(&self, number: usize, datagrams: Vec<Vec<u8>>) -> usize {
        let cell = &self.routes[number].cell;
        let count = datagrams.len();
        let bytes = datagrams.iter().map(Vec::len).sum();
        let peer = self.routes[number].node;
        let report = Report::ByControl { peer, datagrams };
        if !self.shared.reporter.send_bulk(report) {
            self.discard_many(number, DropReason::ControlFull, count);
            return 0;
        }
        add(&cell.tx_bytes, bytes);
        add(&cell.tx_datagrams, count);
        count
    }

    fn by_relay(&mut self, number: usize, relay: NodeId, sealed: &[Sealed]) -> Departure {
        let hop = match self.hop(relay, self.clock) {
            Ok(hop) => hop,
            Err(reason) => {
                self.discard_many(number, reason, sealed.len());
                return Departure::default();
            }
        };
        let size = sealed.first().map_or(0, |first| first.len());
        let size = size + relayed::ROOM + TAG;
        let mut all = Departure::default();
        for group in sealed.chunks(group_size(sealed.len(), size)) {
            self.wrapped.clear();
            for &one in group {
                self.wrapped.extend_from_slice(&[0; relayed::ROOM]);
                self.wrapped.extend_from_slice(self.slots.bytes(one));
                self.wrapped.extend_from_slice(&[0; TAG]);
            }
            let mut wrapped = std::mem::take(&mut self.wrapped);
            let some = self.wrap_and_launch(number, hop, &mut wrapped, size);
            all.left += some.left;
            all.refused += some.refused;
            self.wrapped = wrapped;
        }
        all
    }

    /// Seals for the hop what lies in `wrapped` with room around it, `size` bytes each but the last, and sends it.
    fn wrap_and_launch(
        &mut self,
        number: usize,
        hop: Hop,
        wrapped: &mut [u8],
        size: usize,
    ) -> Departure {
        let relayed = Relayed::towards(self.routes[number].node);
        for datagram in wrapped.chunks_mut(size) {
            if let Err(reason) = self.wrap(hop, relayed, datagram) {
                self.discard_many(number, reason, wrapped.len().div_ceil(size));
                return Departure::default();
            }
        }
        let departure = self.launch(hop, wrapped, size);
        let left = departure.left;
        let cell = &self.routes[number].cell;
        let bytes = wrapped.len().min(left * size);
        add(&cell.tx_bytes, bytes - left * (relayed::ROOM + TAG));
        add(&cell.tx_datagrams, left);
        departure
    }

    /// Finds a member that datagrams are to be handed to. Asks for a session with it if there is none.
    pub(in crate::worker) fn hop(&mut self, node: NodeId, now: Instant) -> Result<Hop, DropReason> {
        let route = self.route(node);
        let Some(Via::Direct(to)) = self.routes[route].path.map(|path| path.via) else {
            return Err(DropReason::NoRelay);
        };
        if self.routes[route].session.is_none() {
            self.ask(route, now);
            return Err(DropReason::NoSession);
        }
        Ok(Hop { route, to })
    }

    /// Seals for the next hop a datagram that lies with room around it ([`Relayed::seal`]).
    pub(in crate::worker) fn wrap(
        &mut self,
        hop: Hop,
        relayed: Relayed,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let lane = match self.part {
            Part::Control => RELAY_CONTROL_LANE,
            Part::Frames => RELAY_FRAMES_LANE,
        };
        let session = self.routes[hop.route].session.as_mut();
        let lane = session.and_then(|session| session.lanes.lane(lane));
        match relayed.seal(datagram, lane.ok_or(DropReason::NoSession)?) {
            Ok(()) => Ok(()),
            Err(SealError::Exhausted) => {
                self.routes[hop.route].session = None;
                Err(DropReason::NoSession)
            }
            Err(SealError::TooShort) => Err(DropReason::TooLong),
        }
    }

    /// Sends to a hop what lies in a row, `size` bytes each but the last.
    pub(in crate::worker) fn launch(&mut self, hop: Hop, bytes: &[u8], size: usize) -> Departure {
        let mut datagrams = ArrayVec::<IoSlice<'_>, MAX_SEGMENTS>::new();
        datagrams.extend(bytes.chunks(size).take(MAX_SEGMENTS).map(IoSlice::new));
        launch(
            &self.shared,
            &mut self.routes[hop.route],
            hop.to,
            &datagrams,
        )
    }

    /// For how many datagrams of frames, sealed in the session in use, the socket was too full.
    pub(in crate::worker) fn refused(&mut self, peer: NodeId, slot: Slot) -> u64 {
        let number = self.route(peer);
        let session = self.routes[number].session.as_ref();
        session.map_or(0, |session| {
            session.refused[usize::from(slot.number())].load(Relaxed)
        })
    }

    /// Sends one datagram, never split, by the way that it names. What it returns is our index of the session that it
    /// was sealed in, if it has left.
    pub(in crate::worker) fn lone(
        &mut self,
        lone: &Lone,
        fill: impl FnOnce(&mut [u8]),
        now: Instant,
    ) -> Option<SessionIndex> {
        self.flush();
        let number = self.route(lone.peer);
        let Some(session) = &mut self.routes[number].session else {
            self.discard(number, DropReason::NoSession);
            return None;
        };
        let index = session.local;
        let Some(lane) = session.lanes.lane(lone.lane) else {
            self.discard(number, DropReason::NoSession);
            return None;
        };
        let size = OVERHEAD + payload::LEN + lone.len;
        if size + relayed::ROOM + TAG > MAX_PAYLOAD {
            self.discard(number, DropReason::TooLong);
            return None;
        }
        let mut wrapped = std::mem::take(&mut self.wrapped);
        wrapped.clear();
        wrapped.resize(relayed::ROOM + size + TAG, 0);
        let place = relayed::ROOM..relayed::ROOM + size;
        let datagram = &mut wrapped[place.clone()];
        let (head, body) = datagram[header::LEN..size - TAG].split_at_mut(payload::LEN);
        head.copy_from_slice(&payload::encode(lone.kind, Segment::DEFAULT));
        fill(body);
        let left = match lane.seal(datagram) {
            Ok(()) => match lone.via {
                Via::Control => self.report(number, vec![datagram.to_vec()]),
                Via::Direct(to) => {
                    let datagram = IoSlice::new(datagram);
                    launch(&self.shared, &mut self.routes[number], to, &[datagram]).left
                }
                Via::Relay(relay) => match self.hop(relay, now) {
                    Ok(hop) => {
                        let size = wrapped.len();
                        self.wrap_and_launch(number, hop, &mut wrapped, size).left
                    }
                    Err(reason) => {
                        self.discard(number, reason);
                        0
                    }
                },
            },
            Err(_) => {
                self.routes[number].session = None;
                self.discard(number, DropReason::NoSession);
                0
            }
        };
        self.wrapped = wrapped;
        (left > 0).then_some(index)
    }
}

/// Sends datagrams of equal size but the last to an address: by one call, or one by one where that is refused.
fn launch(
    shared: &Shared,
    route: &mut Route,
    to: SocketAddr,
    datagrams: &[IoSlice<'_>],
) -> Departure {
    let count = datagrams.len();
    let mut departure = Departure::default();
    let discard = |route: &Route, reason: DropReason, count: usize| {
        shared.cells.discard_many(reason, count);
        add(&route.cell.tx_dropped, count);
    };
    let Some(socket) = shared.sockets.towards(to) else {
        discard(route, DropReason::NoAddress, count);
        return departure;
    };
    let mut bytes = 0;
    let mut rest = datagrams;
    if count > 1 && !route.single {
        let size = u16::try_from(datagrams[0].len()).ok();
        match socket.send_segments(to, datagrams, size) {
            Ok(()) => {
                (departure.left, rest) = (count, &[]);
                bytes = datagrams.iter().map(|datagram| datagram.len()).sum();
            }
            Err(error) if refuses_many(&error) => route.single = true,
            Err(error) => {
                let reason = reason(&error);
                if reason == DropReason::SocketFull {
                    departure.refused = count;
                }
                discard(route, reason, count);
                return departure;
            }
        }
    }
    let mut too_long = usize::MAX;
    for datagram in rest {
        if datagram.len() >= too_long {
            discard(route, DropReason::TooLong, 1);
            continue;
        }
        match socket.send_segments(to, &[IoSlice::new(datagram)], None) {
            Ok(()) => {
                departure.left += 1;
                bytes += datagram.len();
            }
            Err(error) => {
                let reason = reason(&error);
                if reason == DropReason::TooLong {
                    too_long = datagram.len();
                    shared.heed(socket, Some(to));
                }
                departure.refused += usize::from(reason == DropReason::SocketFull);
                discard(route, reason, 1);
            }
        }
    }
    add(&route.cell.tx_bytes, bytes);
    add(&route.cell.tx_datagrams, departure.left);
    departure
}

/// Whether datagrams may pass one by one though one call for all was refused: udp(7), `UDP_SEGMENT`.
fn refuses_many(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMSGSIZE | libc::EINVAL | libc::EIO)
    )
}

fn reason(error: &io::Error) -> DropReason {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => DropReason::SocketFull,
        Some(libc::EMSGSIZE) => DropReason::TooLong,
        _ => DropReason::SendRefused,
    }
}
