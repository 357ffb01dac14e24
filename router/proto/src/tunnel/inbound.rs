//! Opens what peers send, checks in whose name it speaks, and gives it to the bridge: the half of a tunnel that receives.
//!
//! ```text
//!   room, received ─▶ header ─▶ session ─▶ tag ─▶ window ─▶ kind ─┬─▶ frames ─▶ owner check ─▶ bridge
//!    ▲                  │         │        │        │             ├─▶ cars ──▶ joined ─▶ owner check ─▶ bridge
//!    │                  └ auth ───┴── auth ┘ replay ┘             ├─▶ pieces, messages, probes
//!    │                                                            └─▶ relayed ─▶ ours: once more, from its header on
//!    └ by control connections: as if received                               └─▶ another's: passed on
//! ```
//!
//! It has a sender of its own, for messages, probes and answers, and for what it passes on.
//! **Invariant.** Every datagram that yields nothing because of its header, tag or counter is counted exactly once, as
//! `auth_drops` or `replay_drops`, and is answered by nothing. Nothing reaches the bridge unless the peer whose session it
//! came out of may send it. What came straight can hold what was relayed, and that holds no such thing again.
//! **Failure policy.** A frame that the bridge refuses is dropped; nothing is tried twice.

mod bodies;
mod origin;
mod trains;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use weft_types::{NodeId, Segment};

use super::buffers::Buffers;
use super::counters::{Cells, add};
use super::orders::Order;
use super::ports::Turn;
use super::probes::{PathProbes, Probes};
use super::receiving::{Beginning, Session};
use super::relay::Relay;
use super::said::Said;
use super::sender::Sender;
use super::sending::SessionChange;
use super::view::View;
use crate::budget::Budget;
use crate::sleeve::fragment::Piece;
use crate::sleeve::header::{self, Header, Type};
use crate::sleeve::lane::{OpenError, Part, ReceiveLanes};
use crate::sleeve::payload::{self, Kind};
use crate::sleeve::{Malformed, SessionIndex, message};
use crate::switch::DropReason;

use origin::Origin;

/// The way from the peers to the bridge.
pub struct Inbound {
    cells: Arc<Cells>,
    /// Sends messages, probes and answers.
    control: Sender,
    view: Arc<View>,
    sessions: BTreeMap<SessionIndex, Session>,
    links: BTreeSet<SessionIndex>,
    buffers: Buffers,
    probes: Probes,
    path_probes: PathProbes,
    /// Of each member that has probed a way to us.
    answers: BTreeMap<NodeId, Budget>,
    relay: Relay,
    /// What is no frame, while it is looked at.
    body: Vec<u8>,
}

/// An authentic datagram: the session it came out of, how it came, and where it lies in the current buffer.
#[derive(Clone)]
struct Opened {
    head: Header,
    origin: Origin,
    place: Range<usize>,
    plain: Range<usize>,
}

/// What an authentic payload is; of a piece, what the whole is.
#[derive(Clone, Copy)]
enum Payload {
    Piece(Piece),
    Whole(Kind, Segment),
}

impl Payload {
    fn decode(plain: &[u8]) -> Result<Self, Malformed> {
        Ok(match payload::decode(plain)? {
            (Kind::Piece, _) => Self::Piece(Piece::decode(plain)?),
            (kind, segment) => Self::Whole(kind, segment),
        })
    }

    const fn kinds(self) -> (Kind, Kind) {
        match self {
            Self::Piece(piece) => (Kind::Piece, piece.of),
            Self::Whole(kind, _) => (kind, kind),
        }
    }
}

impl Inbound {
    pub(super) fn new(view: Arc<View>, cells: Arc<Cells>, now: Instant) -> Self {
        Self {
            control: Sender::new(Part::Control, &view, Arc::clone(&cells)),
            relay: Relay::new(Arc::clone(&cells)),
            cells,
            view,
            sessions: BTreeMap::new(),
            links: BTreeSet::new(),
            buffers: Buffers::new(now),
            probes: Probes::default(),
            path_probes: PathProbes::default(),
            answers: BTreeMap::new(),
            body: Vec::new(),
        }
    }

    /// Follows a snapshot.
    pub fn set_view(&mut self, view: Arc<View>, turn: &mut Turn<'_>) {
        self.finish_train(turn);
        self.control.set_view(&view, turn);
        for session in self.sessions.values_mut() {
            session.position = view.position(session.peer);
        }
        self.view = view;
    }

    /// Does what the core says.
    pub fn obey(&mut self, order: Order, turn: &mut Turn<'_>) {
        match order {
            Order::AdmitLink(index) => {
                self.links.insert(index);
            }
            Order::Arrived(datagrams) => self.arrived(datagrams, turn),
            Order::Install {
                peer,
                index,
                lanes,
                held,
            } => self.install((peer, index), lanes, held, turn.now),
            Order::Message { peer, bytes } => {
                self.control.message(peer, Kind::Message, &bytes, turn);
            }
            Order::PathProbe(question) => self.ask(&question, turn),
            Order::Probe { peer, id, size } => {
                self.probes.note(peer, id, turn.now);
                let body = message::probe(id, size);
                self.control.message(peer, Kind::Probe, &body, turn);
            }
            Order::Retire(index) => {
                self.finish_train(turn);
                self.sessions.remove(&index);
                self.control.change(SessionChange::Retire { index }, turn);
            }
            Order::RetireLink(index) => {
                self.links.remove(&index);
            }
            Order::Session(change) => self.control.change(change, turn),
        }
    }

    fn install(
        &mut self,
        (peer, index): (NodeId, SessionIndex),
        lanes: ReceiveLanes,
        held: bool,
        now: Instant,
    ) {
        let others = self.sessions.values();
        let others = others.filter(|other| other.peer == peer);
        let beginning = Beginning {
            peer,
            position: self.view.position(peer),
            lanes,
            said: Said::inherit(others.map(|other| other.said)),
            held,
            cell: self.cells.peer(peer),
        };
        self.sessions.insert(index, Session::new(beginning, now));
    }

    /// Where to receive to. What is there is taken by [`Self::received`].
    pub fn room(&mut self, turn: &mut Turn<'_>) -> &mut [u8] {
        if self.buffers.is_exhausted() {
            self.finish_train(turn);
        }
        self.buffers.turn_over();
        self.buffers.now_mut()
    }

    /// Takes what one receive yields: `len` bytes of datagrams, each of `size` bytes but the last. Returns how many.
    pub fn received(
        &mut self,
        from: SocketAddr,
        len: usize,
        size: usize,
        turn: &mut Turn<'_>,
    ) -> usize {
        self.buffers.note_received(turn.now);
        if len == 0 {
            add(&self.cells.auth_drops, 1);
            return 1;
        }
        let size = size.max(1);
        for start in (0..len).step_by(size) {
            let place = start..len.min(start + size);
            self.datagram(Origin::Straight(from), place, turn);
        }
        self.relay
            .finish(self.buffers.now(), &mut self.control, turn);
        len.div_ceil(size)
    }

    /// When to call [`Self::handle_timeout`], and whether it is a train that waits: then what is missing is on its way.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let train = self.buffers.poll_timeout().map(|at| (at, "train"));
        let waiting = self.control.poll_timeout().map(|at| (at, "session"));
        train.into_iter().chain(waiting).min()
    }

    /// Whether a train misses cars that may be on their way.
    pub const fn is_mid_train(&self) -> bool {
        self.buffers.join.is_open()
    }

    /// Delivers what came of a train whose rest does not come, drops what waits too long, and asks again.
    pub fn handle_timeout(&mut self, turn: &mut Turn<'_>) {
        if self.buffers.poll_timeout().is_some_and(|at| turn.now >= at) {
            self.finish_train(turn);
        }
        if self.control.poll_timeout().is_some_and(|at| turn.now >= at) {
            self.control.handle_timeout(turn);
        }
    }

    /// Takes one datagram of the current buffer.
    fn datagram(&mut self, origin: Origin, place: Range<usize>, turn: &mut Turn<'_>) {
        let bytes = &self.buffers.now()[place.clone()];
        match Header::decode(bytes) {
            Some(head) if head.kind == Type::Data => self.data(head, origin, place, turn),
            Some(head) if self.links.contains(&head.index) => match origin {
                Origin::Straight(from) => turn.ports.link(from, bytes),
                Origin::Control | Origin::Relayed(_) => add(&self.cells.auth_drops, 1),
            },
            Some(_) | None => add(&self.cells.auth_drops, 1),
        }
    }

    fn data(&mut self, head: Header, origin: Origin, place: Range<usize>, turn: &mut Turn<'_>) {
        let Some(session) = self.sessions.get_mut(&head.index) else {
            return add(&self.cells.auth_drops, 1);
        };
        let bytes = &mut self.buffers.now_mut()[place.clone()];
        let plain = match session.lanes.open(head, bytes) {
            Ok(plain) => &*plain,
            Err(OpenError::Inauthentic) => return add(&self.cells.auth_drops, 1),
            Err(OpenError::Replayed) => return add(&self.cells.replay_drops, 1),
        };
        add(&session.cell.rx_bytes, place.len());
        add(&session.cell.rx_datagrams, 1);
        let payload = Payload::decode(plain);
        if let Ok(payload) = payload {
            session.say(payload.kinds(), plain, turn);
        }
        if let Origin::Straight(from) = origin {
            session.hear(from, turn);
        }
        let begin = place.start + header::LEN;
        let opened = Opened {
            head,
            origin,
            plain: begin..begin + plain.len(),
            place,
        };
        if session.held {
            self.promote(head.index, turn);
        }
        match payload {
            Ok(payload) => self.take(payload, opened, turn),
            Err(malformed) => self.malformed(malformed),
        }
    }

    fn take(&mut self, payload: Payload, opened: Opened, turn: &mut Turn<'_>) {
        match payload {
            Payload::Whole(Kind::Car, _) => self.car(opened.head, opened.plain, turn),
            Payload::Whole(Kind::PathProbe, _) => self.path_probed(&opened, turn),
            Payload::Whole(Kind::PathReply, _) => self.path_answered(&opened, turn),
            Payload::Whole(Kind::Relayed, _) => self.relayed(opened, turn),
            Payload::Whole(kind, segment) => {
                self.finish_train(turn);
                self.whole((kind, segment), &opened, turn);
            }
            Payload::Piece(piece) => {
                self.finish_train(turn);
                self.piece(piece, &opened, turn);
            }
        }
    }

    fn malformed(&self, malformed: Malformed) {
        self.cells.discard(match malformed {
            Malformed::Inconsistent | Malformed::Unknown => DropReason::Malformed,
            Malformed::Truncated => DropReason::Truncated,
        });
    }

    /// Lets a session be sent by, as the peer was heard under it.
    fn promote(&mut self, index: SessionIndex, turn: &mut Turn<'_>) {
        let Some(session) = self.sessions.get_mut(&index) else {
            return;
        };
        session.held = false;
        let peer = session.peer;
        turn.ports.promote(peer, index);
        self.control
            .change(SessionChange::Promote { peer, index }, turn);
    }
}
