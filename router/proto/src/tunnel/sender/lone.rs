//! Sends one datagram by a way that the caller names, whatever way the peer's frames take: a probe of it, or an answer.
//!
//! **Failure policy.** What cannot leave is not sent, and no drop: a probe that is too large for this host's device has found out
//! what it asks.

use std::io::IoSlice;

use weft_types::Segment;

use super::super::batch::MAX_PAYLOAD;
use super::freight::Lone;
use super::launch::{Drops, Launch};
use super::{RouteId, Sender, Turn};
use crate::crypto::seal::TAG;
use crate::overlay::Via;
use crate::sleeve::lane::OVERHEAD;
use crate::sleeve::payload;
use crate::sleeve::{SessionIndex, header, relayed};

impl Sender {
    /// Sends it. What is returned is our index of the session that it was sealed in, if it has left.
    pub(in super::super) fn lone(
        &mut self,
        lone: &Lone,
        fill: impl FnOnce(&mut [u8]),
        turn: &mut Turn<'_>,
    ) -> Option<SessionIndex> {
        self.flush(turn);
        let id = self.routes.of(lone.peer);
        let size = OVERHEAD + payload::LEN + lone.len;
        if size + relayed::ROOM + TAG > MAX_PAYLOAD {
            return None;
        }
        let mut wrapped = std::mem::take(&mut self.wrapped);
        wrapped.clear();
        wrapped.resize(relayed::ROOM + size + TAG, 0);
        let datagram = &mut wrapped[relayed::ROOM..relayed::ROOM + size];
        let (head, body) = datagram[header::LEN..size - TAG].split_at_mut(payload::LEN);
        head.copy_from_slice(&payload::encode(lone.kind, Segment::DEFAULT));
        fill(body);
        let index = self.seal_lone(id, lone.lane, datagram);
        let left = index.is_some() && self.depart(id, lone.via, &mut wrapped, turn);
        self.wrapped = wrapped;
        index.filter(|_| left)
    }

    fn seal_lone(&mut self, id: RouteId, lane: u16, datagram: &mut [u8]) -> Option<SessionIndex> {
        let index = self.session(id).map(|session| session.local);
        let sending = &mut self.routes[id].sending;
        let sealed = sending.lane(lane).map(|lane| lane.seal(datagram));
        if let Some(Ok(())) = sealed {
            return index;
        }
        if sealed.is_some() {
            sending.end(); // Its lane is used up.
        }
        None
    }

    /// Lets a sealed datagram leave that lies in `wrapped` with room around it; whether it has.
    fn depart(&mut self, id: RouteId, via: Via, wrapped: &mut [u8], turn: &mut Turn<'_>) -> bool {
        let size = wrapped.len();
        let datagram = &wrapped[relayed::ROOM..size - TAG];
        match via {
            Via::Control => self.report(id, vec![datagram.to_vec()], turn) > 0,
            Via::Direct(to) => {
                let launch = Launch::new(&mut self.routes[id], &self.cells, to);
                let launch = launch.with(Drops::Ours);
                let departure = launch.send(&mut *turn.ports, &[IoSlice::new(datagram)]);
                departure.left > 0
            }
            Via::Relay(relay) => self.hop(relay, turn).is_ok_and(|hop| {
                let whose = (id, Drops::Ours);
                self.wrap_and_launch(whose, hop, wrapped, size, turn).left > 0
            }),
        }
    }
}
