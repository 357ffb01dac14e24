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

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use weft_router_proto::budget::Budget;
use weft_router_proto::crypto::seal::TAG;
use weft_router_proto::overlay::{ANSWER_LANE, Slot, TRIAL_LANE, Via};
use weft_router_proto::sleeve::lane::{Arrivals, OVERHEAD};
use weft_router_proto::sleeve::path_probe::{PathProbe, PathReply};
use weft_router_proto::sleeve::payload::{self, Kind};
use weft_router_proto::sleeve::relayed::{self, Relayed};
use weft_router_proto::sleeve::{SessionIndex, header};
use weft_router_proto::switch::DropReason;
use weft_types::NodeId;

use super::super::counters::add;
use super::super::probes::{Asked, PathQuestion};
use super::super::relay::Carried;
use super::super::report::Report;
use super::super::sender::Lone;
use super::{BUFFER, Inbound};

/// How many probes of ways a member gets answered in a second: many times what the busiest router asks.
const ANSWERS_PER_SECOND: u64 = 200;

/// How a datagram came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Over control connections.
    Control,
    /// As the payload of a datagram of this member.
    Relayed(NodeId),
    /// From this address.
    Straight(SocketAddr),
}

impl Origin {
    /// The way back.
    const fn back(self) -> Via {
        match self {
            Self::Control => Via::Control,
            Self::Relayed(member) => Via::Relay(member),
            Self::Straight(from) => Via::Direct(from),
        }
    }
}

impl Inbound {
    /// Sends a probe of a way.
    pub(super) fn ask(&mut self, question: &PathQuestion, now: Instant) {
        let &PathQuestion {
            peer,
            via,
            slot,
            id,
            datagram,
        } = question;
        let sent = slot.map_or(0, |slot| {
            let cell = self.shared.cells.peer(peer);
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
        if let Some(session) = self.control.lone(&probe, fill, now) {
            self.path_probes.note(Asked {
                peer,
                id,
                session,
                sent,
                refused,
                at: now,
            });
        }
    }

    /// Answers a probe of a way by that way.
    pub(super) fn answer(
        &mut self,
        index: SessionIndex,
        origin: Origin,
        probe: PathProbe,
        now: Instant,
    ) {
        let Some(session) = self.sessions.get(&index) else {
            return;
        };
        let peer = session.peer;
        let budget = || Budget::new(ANSWERS_PER_SECOND, ANSWERS_PER_SECOND, now);
        let answers = self.answers.entry(peer).or_insert_with(budget);
        if !answers.spend(1, now) {
            return self.shared.cells.discard(DropReason::ProbeLimit);
        }
        let arrivals = probe.slot.map_or_else(Arrivals::default, |slot| {
            session.lanes.arrivals(slot.frames_lane())
        });
        let reply = PathReply {
            id: probe.id,
            highest: arrivals.highest,
            received: arrivals.received,
            seen_at: match origin {
                Origin::Straight(from) => Some(from),
                Origin::Control | Origin::Relayed(_) => None,
            },
        };
        let answer = Lone {
            peer,
            via: origin.back(),
            lane: ANSWER_LANE,
            kind: Kind::PathReply,
            len: PathReply::LEN,
        };
        let fill = |body: &mut [u8]| body.copy_from_slice(&reply.encode());
        // Whoever asked asks again.
        let _ = self.control.lone(&answer, fill, now);
    }

    /// Takes what came over control connections.
    pub(in crate::worker) fn take_arrived(&mut self, now: Instant) {
        let arrived = self.shared.arrivals.collect();
        if arrived.is_empty() {
            return;
        }
        // Judged by every order given before it came.
        self.catch_up(now);
        self.finish_train();
        let mut start = 0;
        for datagram in arrived {
            if datagram.len() > BUFFER {
                add(&self.shared.cells.auth_drops, 1);
                continue;
            }
            if start + datagram.len() > BUFFER {
                self.finish_train();
                start = 0;
            }
            let end = start + datagram.len();
            self.buffers[self.current][start..end].copy_from_slice(&datagram);
            self.datagram(Origin::Control, start..end, now);
            start = end;
        }
        self.finish_train();
    }

    /// Takes what a member passes on: to us, or by us to another.
    pub(super) fn relayed(
        &mut self,
        index: SessionIndex,
        origin: Origin,
        place: Range<usize>,
        now: Instant,
    ) {
        let discard = |reason| self.shared.cells.discard(reason);
        let Some(session) = self.sessions.get(&index) else {
            return;
        };
        let from = session.peer;
        match origin {
            Origin::Straight(_) => {}
            Origin::Control | Origin::Relayed(_) => return discard(DropReason::Nested),
        }
        if session.position.is_none() {
            return discard(DropReason::PeerAbsent);
        }
        let buffer = &mut self.buffers[self.current];
        let body = place.start + header::LEN + payload::LEN..place.end - TAG;
        let relayed = match Relayed::decode(&buffer[body]) {
            Ok((relayed, _)) => relayed,
            Err(malformed) => return self.malformed(malformed),
        };
        if relayed.last.is(self.view.snapshot.node) {
            let carried = place.start + relayed::ROOM..place.end - TAG;
            return self.datagram(Origin::Relayed(from), carried, now);
        }
        let carried = Carried {
            from,
            relayed,
            place,
        };
        let passed = self
            .relay
            .pass_on(carried, buffer, &mut self.control, &self.view, now);
        if let Err(reason) = passed {
            self.shared.cells.discard(reason);
        }
    }

    pub(super) fn path_answered(&mut self, index: SessionIndex, plain: Range<usize>) {
        let Some(session) = self.sessions.get(&index) else {
            return;
        };
        let body = &self.buffers[self.current][plain][payload::LEN..];
        match PathReply::decode(body) {
            Ok(reply) => {
                // The time of the turn is from before the wait for datagrams: an answer may be younger.
                let now = Instant::now();
                if let Some(answer) = self.path_probes.answered(session.peer, reply, now) {
                    self.shared.reporter.send(Report::PathAnswered(answer));
                }
            }
            Err(malformed) => self.malformed(malformed),
        }
    }
}
