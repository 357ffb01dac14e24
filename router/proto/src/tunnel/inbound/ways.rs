//! Takes what came otherwise than straight, passes on what is for others, and asks and answers what ways do.
//!
//! ```text
//!   by control connections ─▶ a buffer ─▶ as if received                answered ─▶ by control connections
//!   relayed, for us        ─▶ where it lies ─▶ as if received           answered ─▶ by the member that it came from
//!   relayed, for another   ─▶ [`Relay`](super::super::relay::Relay)
//! ```
//!
//! **Invariant.** An answer takes the way that its probe came by, and is no larger. What was relayed holds nothing to be
//! relayed, and so does what came over control connections.

use std::sync::atomic::Ordering::Relaxed;

use super::super::buffers::BUFFER;
use super::super::counters::add;
use super::super::probes::{Asked, PathQuestion};
use super::super::relay::Carried;
use super::super::report::Report;
use super::super::sender::Lone;
use super::origin::Origin;
use super::{Inbound, Opened, Turn};
use crate::budget::Budget;
use crate::crypto::seal::TAG;
use crate::overlay::{ANSWER_LANE, Slot, TRIAL_LANE};
use crate::sleeve::lane::{Arrivals, OVERHEAD};
use crate::sleeve::path_probe::{PathProbe, PathReply};
use crate::sleeve::payload::{self, Kind};
use crate::sleeve::relayed::{self, Relayed};
use crate::switch::DropReason;

/// How many probes of ways a member gets answered in a second: many times what the busiest router asks.
const ANSWERS_PER_SECOND: u64 = 200;

impl Inbound {
    /// Sends a probe of a way.
    pub(super) fn ask(&mut self, question: &PathQuestion, turn: &mut Turn<'_>) {
        let &PathQuestion {
            peer,
            via,
            slot,
            id,
            datagram,
        } = question;
        let sent = slot.map_or(0, |slot| {
            let cell = self.cells.peer(peer);
            cell.frames[usize::from(slot.number())].load(Relaxed)
        });
        let refused = slot.map_or(0, |slot| self.control.refused(peer, slot));
        let probe = Lone {
            peer,
            via,
            lane: slot.map_or(TRIAL_LANE, Slot::control_lane),
            kind: Kind::PathProbe,
            len: usize::from(datagram).max(PathProbe::LEAST) - OVERHEAD - payload::LEN,
        };
        let fill = |body: &mut [u8]| PathProbe { id, slot }.emit(body);
        if let Some(session) = self.control.lone(&probe, fill, turn) {
            self.path_probes.note(Asked {
                peer,
                id,
                session,
                sent,
                refused,
                at: turn.now,
            });
        }
    }

    /// Answers a probe of a way by that way.
    pub(super) fn path_probed(&mut self, opened: &Opened, turn: &mut Turn<'_>) {
        let body = &self.buffers.now()[opened.plain.clone()][payload::LEN..];
        let probe = match PathProbe::decode(body) {
            Ok(probe) => probe,
            Err(malformed) => return self.malformed(malformed),
        };
        let Some(session) = self.sessions.get(&opened.head.index) else {
            return;
        };
        let peer = session.peer;
        let budget = || Budget::new(ANSWERS_PER_SECOND, ANSWERS_PER_SECOND, turn.now);
        let answers = self.answers.entry(peer).or_insert_with(budget);
        if !answers.spend(1, turn.now) {
            return self.cells.discard(DropReason::ProbeLimit);
        }
        let arrivals = probe.slot.map_or_else(Arrivals::default, |slot| {
            session.lanes.arrivals(slot.frames_lane())
        });
        let reply = PathReply {
            id: probe.id,
            highest: arrivals.highest,
            received: arrivals.received,
            seen_at: opened.origin.address(),
        };
        let answer = Lone {
            peer,
            via: opened.origin.back(),
            lane: ANSWER_LANE,
            kind: Kind::PathReply,
            len: PathReply::LEN,
        };
        let fill = |body: &mut [u8]| body.copy_from_slice(&reply.encode());
        // Whoever asked asks again.
        let _ = self.control.lone(&answer, fill, turn);
    }

    pub(super) fn path_answered(&mut self, opened: &Opened, turn: &mut Turn<'_>) {
        let Some(session) = self.sessions.get(&opened.head.index) else {
            return;
        };
        let body = &self.buffers.now()[opened.plain.clone()][payload::LEN..];
        let reply = match PathReply::decode(body) {
            Ok(reply) => reply,
            Err(malformed) => return self.malformed(malformed),
        };
        let ports = &mut *turn.ports;
        let answer = self
            .path_probes
            .answered(session.peer, reply, |sent| ports.since(sent));
        if let Some(answer) = answer {
            ports.report(Report::PathAnswered(answer));
        }
    }

    /// Takes what came over control connections.
    pub(super) fn arrived(&mut self, datagrams: Vec<Vec<u8>>, turn: &mut Turn<'_>) {
        self.finish_train(turn);
        let mut start = 0;
        for datagram in datagrams {
            if datagram.len() > BUFFER {
                add(&self.cells.auth_drops, 1);
                continue;
            }
            if start + datagram.len() > BUFFER {
                self.finish_train(turn);
                start = 0;
            }
            let end = start + datagram.len();
            self.buffers.now_mut()[start..end].copy_from_slice(&datagram);
            self.datagram(Origin::Control, start..end, turn);
            start = end;
        }
        self.finish_train(turn);
    }

    /// Takes what a member passes on: to us, or by us to another.
    pub(super) fn relayed(&mut self, opened: Opened, turn: &mut Turn<'_>) {
        let Opened {
            head,
            origin,
            place,
            plain,
        } = opened;
        let Some(session) = self.sessions.get(&head.index) else {
            return;
        };
        let from = session.peer;
        match origin {
            Origin::Straight(_) => {}
            Origin::Control | Origin::Relayed(_) => return self.cells.discard(DropReason::Nested),
        }
        if session.position.is_none() {
            return self.cells.discard(DropReason::PeerAbsent);
        }
        let buffer = self.buffers.now_mut();
        let relayed = match Relayed::decode(&buffer[plain][payload::LEN..]) {
            Ok((relayed, _)) => relayed,
            Err(malformed) => return self.malformed(malformed),
        };
        if relayed.last.is(self.view.snapshot.node) {
            let carried = place.start + relayed::ROOM..place.end - TAG;
            return self.datagram(Origin::Relayed(from), carried, turn);
        }
        let carried = Carried {
            from,
            relayed,
            place,
        };
        let by = (&mut self.control, &*self.view);
        if let Err(reason) = self.relay.pass_on(carried, buffer, by, turn) {
            self.cells.discard(reason);
        }
    }
}
