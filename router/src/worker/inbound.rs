//! Opens what comes to the sleeve's port, checks in whose name it speaks, and gives it to the bridge.
//!
//! ```text
//!   recv (many datagrams) ─▶ header ─▶ session ─▶ tag ─▶ window ─▶ kind ─┬─▶ frames ─▶ owner check ─▶ TAP
//!    ▲                          │         │        │        │           ├─▶ cars ──▶ joined ─▶ owner check ─▶ TAP
//!    │                          └ auth ───┴── auth ┘ replay ┘           ├─▶ pieces, messages, probes
//!    │                                                                  └─▶ relayed ─▶ ours: once more, from its header on
//!    └ by control connections: as if received                                     └─▶ another's: passed on
//! ```
//!
//! **Invariant.** Every datagram that yields nothing because of its header, tag or counter is counted exactly once, as
//! `auth_drops` or `replay_drops`, and is answered by nothing. Nothing reaches the TAP unless the peer whose session it
//! came out of may send it. What came straight can hold what was relayed, and that holds no such thing again.
//! **Failure policy.** A frame that the TAP refuses is dropped; nothing is tried twice.

mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use arrayvec::ArrayVec;
use weft_kernel::udp::UdpSocket;
use weft_router_proto::budget::Budget;
use weft_router_proto::io::Direction;
use weft_router_proto::sleeve::fragment::{self, Piece, Rejoiner, WholeId};
use weft_router_proto::sleeve::header::{self, Header, Type};
use weft_router_proto::sleeve::lane::{OpenError, Part, ReceiveLanes};
use weft_router_proto::sleeve::path_probe::PathProbe;
use weft_router_proto::sleeve::payload::{self, Kind};
use weft_router_proto::sleeve::train::{self, Car, Join, Span, TrainId};
use weft_router_proto::sleeve::vnet::Vnet;
use weft_router_proto::sleeve::{Malformed, SessionIndex, bundle, message};
use weft_router_proto::switch::DropReason;
use weft_types::{NodeId, Segment};

use super::chatter::{Chatter, Load};
use super::counters::{PeerCell, add};
use super::probes::{PathProbes, PathQuestion, Probes};
use super::relay::Relay;
use super::report::{Report, SAY_AGAIN};
use super::sender::{Sender, SessionChange};
use super::shared::{Mailbox, Shared, View};

use ways::Origin;

/// One receive: as much as the kernel joins.
const BUFFER: usize = 1 << 16;

/// Over how many receives a train may stretch.
const BUFFERS: usize = 4;

/// What the receiving side is told.
pub(super) enum Order {
    /// Receive by these; promote the sending end once something came if it is held.
    Install {
        peer: NodeId,
        index: SessionIndex,
        lanes: ReceiveLanes,
        held: bool,
    },
    /// The same for messages and probes, which this side sends.
    Session(SessionChange),
    Retire(SessionIndex),
    AdmitLink(SessionIndex),
    RetireLink(SessionIndex),
    Message {
        peer: NodeId,
        bytes: Vec<u8>,
    },
    PathProbe(PathQuestion),
    Probe {
        peer: NodeId,
        id: u64,
        size: u16,
    },
}

/// A session's receiving end.
struct Session {
    peer: NodeId,
    /// Where the peer is in the snapshot, if it is.
    position: Option<usize>,
    lanes: ReceiveLanes,
    rejoiner: Rejoiner,
    heard: Option<(SocketAddr, Instant)>,
    /// When it was last said that frames come.
    said: Option<Instant>,
    /// When it was last said that chatter comes.
    chatted: Option<Instant>,
    chatter: Chatter,
    /// Nothing came yet, and sending waits for that.
    held: bool,
    cell: Arc<PeerCell>,
}

/// What one receive came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// Nothing was there.
    Nothing,
    /// So many datagrams.
    Datagrams(usize),
}

/// The way from the peers to the TAP.
pub(super) struct Inbound {
    shared: Arc<Shared>,
    orders: Arc<Mailbox<Order>>,
    /// To whoever reads the TAP.
    changes: Arc<Mailbox<SessionChange>>,
    /// Sends messages, probes and answers.
    pub(super) control: Sender,
    view: Arc<View>,
    seen: u64,
    sessions: BTreeMap<SessionIndex, Session>,
    links: BTreeSet<SessionIndex>,
    buffers: [Vec<u8>; BUFFERS],
    current: usize,
    /// How many receives ago the open train began.
    age: usize,
    join: Join,
    probes: Probes,
    path_probes: PathProbes,
    /// Of each member that has probed a way to us.
    answers: BTreeMap<NodeId, Budget>,
    relay: Relay,
}

impl Inbound {
    pub(super) fn new(
        shared: Arc<Shared>,
        orders: Arc<Mailbox<Order>>,
        changes: Arc<Mailbox<SessionChange>>,
        view: Arc<View>,
        now: Instant,
    ) -> Self {
        let mut control = Sender::new(Arc::clone(&shared), Part::Control, now);
        control.set_view(&view);
        let relay = Relay::new(Arc::clone(&shared.cells));
        Self {
            shared,
            orders,
            changes,
            control,
            view,
            seen: 0,
            sessions: BTreeMap::new(),
            links: BTreeSet::new(),
            buffers: std::array::from_fn(|_| vec![0; BUFFER]),
            current: 0,
            age: 0,
            join: Join::default(),
            probes: Probes::default(),
            path_probes: PathProbes::default(),
            answers: BTreeMap::new(),
            relay,
        }
    }

    /// Follows commands and snapshots.
    pub(super) fn catch_up(&mut self, now: Instant) {
        if let Some(view) = self.shared.news(&mut self.seen) {
            self.finish_train();
            self.control.set_view(&view);
            for session in self.sessions.values_mut() {
                session.position = position(&view, session.peer);
            }
            self.view = view;
        }
        for order in self.orders.collect() {
            self.obey(order, now);
        }
    }

    fn obey(&mut self, order: Order, now: Instant) {
        match order {
            Order::Install {
                peer,
                index,
                lanes,
                held,
            } => {
                let others = self.sessions.values();
                let said = others.filter(|other| other.peer == peer);
                let said = said.filter_map(|other| other.said).max();
                let session = Session {
                    peer,
                    position: position(&self.view, peer),
                    lanes,
                    rejoiner: Rejoiner::default(),
                    heard: None,
                    said,
                    chatted: None,
                    chatter: Chatter::new(now),
                    held,
                    cell: self.shared.cells.peer(peer),
                };
                self.sessions.insert(index, session);
            }
            Order::Session(change) => self.control.change(change, now),
            Order::Retire(index) => {
                self.finish_train();
                self.sessions.remove(&index);
                self.control.change(SessionChange::Retire { index }, now);
            }
            Order::PathProbe(question) => self.ask(&question, now),
            Order::AdmitLink(index) => {
                self.links.insert(index);
            }
            Order::RetireLink(index) => {
                self.links.remove(&index);
            }
            Order::Message { peer, bytes } => {
                self.control.message(peer, Kind::Message, &bytes, now);
            }
            Order::Probe { peer, id, size } => {
                self.probes.note(peer, id, now);
                let body = message::probe(id, size);
                self.control.message(peer, Kind::Probe, &body, now);
            }
        }
    }

    /// Whether a train misses cars that may be on their way.
    pub(super) fn is_mid_train(&self) -> bool {
        self.join.is_open()
    }

    /// Takes what one receive yields.
    pub(super) fn receive(&mut self, socket: &UdpSocket, now: Instant) -> Received {
        if self.join.is_open() {
            // Its pieces stay where they are.
            self.age += 1;
            if self.age == BUFFERS {
                self.finish_train();
            }
            self.current = (self.current + 1) % BUFFERS;
        }
        let mut room = [IoSliceMut::new(&mut self.buffers[self.current])];
        // An error is of one datagram that is gone, or of a socket that the next poll tells about.
        let Ok(received) = socket.recv(&mut room) else {
            return Received::Nothing;
        };
        // A peer that was told of a session may use it before this burst is over: what came is judged by every order
        // given before it came.
        self.catch_up(now);
        if received.len == 0 {
            add(&self.shared.cells.auth_drops, 1);
            return Received::Datagrams(1);
        }
        let size = received.segment.max(1);
        let mut start = 0;
        let mut count = 0;
        while start < received.len {
            let end = received.len.min(start + size);
            self.datagram(Origin::Straight(received.from), start..end, now);
            start = end;
            count += 1;
        }
        self.relay
            .finish(&self.buffers[self.current], &mut self.control);
        Received::Datagrams(count)
    }

    /// Takes one datagram of the current buffer.
    fn datagram(&mut self, origin: Origin, place: Range<usize>, now: Instant) {
        let cells = &self.shared.cells;
        let bytes = &mut self.buffers[self.current][place.clone()];
        let Some(head) = Header::decode(bytes) else {
            return add(&cells.auth_drops, 1);
        };
        match head.kind {
            Type::Data => {}
            Type::Link => {
                let Origin::Straight(from) = origin else {
                    return add(&cells.auth_drops, 1);
                };
                if self.links.contains(&head.index) {
                    let report = || Report::LinkDatagram {
                        from,
                        bytes: bytes.to_vec(),
                    };
                    self.shared.reporter.send_unproven(report);
                } else {
                    add(&cells.auth_drops, 1);
                }
                return;
            }
        }
        let Some(session) = self.sessions.get_mut(&head.index) else {
            return add(&cells.auth_drops, 1);
        };
        let plain = match session.lanes.open(head, bytes) {
            Ok(plain) => plain,
            Err(OpenError::Inauthentic) => return add(&cells.auth_drops, 1),
            Err(OpenError::Replayed) => return add(&cells.replay_drops, 1),
        };
        add(&session.cell.rx_bytes, place.len());
        add(&session.cell.rx_datagrams, 1);
        let body = place.start + header::LEN..place.start + header::LEN + plain.len();
        let kind = payload::decode(plain);
        if let Ok((kind, _)) = kind
            && carries_frames(kind, plain)
            && session.said.is_none_or(|at| due(at, now))
        {
            let load = if kind == Kind::Frames {
                session.chatter.judge_body(&plain[payload::LEN..], now)
            } else {
                Load::Traffic // A frame that fills more than one datagram.
            };
            let peer = session.peer;
            let (said, report) = match load {
                Load::Chatter => (&mut session.chatted, Report::Chatter { peer }),
                Load::Traffic => {
                    let direction = Direction::Received;
                    (&mut session.said, Report::Traffic { peer, direction })
                }
            };
            if said.is_none_or(|at| due(at, now)) && self.shared.reporter.send(report) {
                *said = Some(now);
            }
        }
        if let Origin::Straight(from) = origin
            && session
                .heard
                .is_none_or(|(last, at)| last != from || due(at, now))
        {
            let peer = session.peer;
            if self.shared.reporter.send(Report::Heard { peer, from }) {
                session.heard = Some((from, now));
            }
        }
        if session.held {
            self.promote(head.index, now);
        }
        match kind {
            Ok((Kind::Car, _)) => self.car(head, body),
            Ok((Kind::Relayed, _)) => self.relayed(head.index, origin, place, now),
            Ok((Kind::PathProbe, _)) => {
                let plain = &self.buffers[self.current][body];
                match PathProbe::decode(&plain[payload::LEN..]) {
                    Ok(probe) => self.answer(head.index, origin, probe, now),
                    Err(malformed) => self.malformed(malformed),
                }
            }
            Ok((Kind::PathReply, _)) => self.path_answered(head.index, body),
            Ok((kind, segment)) => {
                self.finish_train();
                self.body(head, kind, segment, body, now);
            }
            Err(malformed) => self.malformed(malformed),
        }
    }

    fn malformed(&self, malformed: Malformed) {
        self.shared.cells.discard(match malformed {
            Malformed::Inconsistent | Malformed::Unknown => DropReason::Malformed,
            Malformed::Truncated => DropReason::Truncated,
        });
    }

    /// Lets a session be sent by, as the peer was heard under it.
    fn promote(&mut self, index: SessionIndex, now: Instant) {
        let Some(session) = self.sessions.get_mut(&index) else {
            return;
        };
        session.held = false;
        let peer = session.peer;
        self.changes.post(SessionChange::Promote { peer, index });
        self.shared.bell.ring();
        self.control
            .change(SessionChange::Promote { peer, index }, now);
    }

    fn car(&mut self, head: Header, plain: Range<usize>) {
        let car = match Car::decode(&self.buffers[self.current][plain.clone()]) {
            Ok(car) => car,
            Err(malformed) => return self.malformed(malformed),
        };
        let id = TrainId {
            session: head.index,
            lane: head.lane,
            base: head.counter.wrapping_sub(u64::from(car.index)),
        };
        if !self.join.continues(id, car) {
            self.finish_train();
            self.age = 0;
        }
        let rest = Span {
            buffer: self.current,
            start: plain.start + train::HEADER,
            len: plain.len() - train::HEADER,
        };
        self.join.push(id, car, rest);
        if self.join.is_complete() {
            self.finish_train();
        }
    }

    /// Delivers what has been gathered of the open train.
    pub(super) fn finish_train(&mut self) {
        let (Some(segment), Some(session), Some(&first)) = (
            self.join.segment(),
            self.join.session(),
            self.join.spans().first(),
        ) else {
            return;
        };
        let head = &mut self.buffers[first.buffer][first.start..first.start + first.len];
        let vnet = match self.join.finish(head) {
            Ok(vnet) => vnet,
            Err(malformed) => return self.malformed(malformed),
        };
        let Some(session) = self.sessions.get(&session) else {
            return;
        };
        let head = &self.buffers[first.buffer][first.start..first.start + first.len];
        if !may_enter(&self.shared, &self.view, session, segment, head) {
            return;
        }
        let vnet = vnet.encode();
        let mut slices = ArrayVec::<IoSlice<'_>, 257>::new();
        slices.push(IoSlice::new(&vnet));
        slices.extend(self.join.spans().iter().map(|span| {
            IoSlice::new(&self.buffers[span.buffer][span.start..span.start + span.len])
        }));
        write(&self.shared, &slices);
    }

    /// Takes a body that lies in the current buffer, behind kind and segment.
    fn body(
        &mut self,
        head: Header,
        kind: Kind,
        segment: Segment,
        plain: Range<usize>,
        now: Instant,
    ) {
        let Some(session) = self.sessions.get_mut(&head.index) else {
            return;
        };
        let plain = &self.buffers[self.current][plain];
        if kind != Kind::Piece {
            let (peer, body) = (session.peer, &plain[payload::LEN..]);
            if kind == Kind::Frames {
                frames(&self.shared, &self.view, session, segment, body);
            } else {
                message(
                    &self.shared,
                    &mut self.control,
                    &mut self.probes,
                    (peer, kind, body),
                    now,
                );
            }
            return;
        }
        let whole = Piece::decode(plain).and_then(|piece| {
            let id = WholeId {
                lane: head.lane,
                base: head.counter.wrapping_sub(u64::from(piece.index)),
            };
            let bytes = &plain[fragment::HEADER..];
            let whole = session.rejoiner.handle_piece(id, piece, bytes, now)?;
            Ok(whole.map(|whole| (piece, whole)))
        });
        match whole {
            Ok(None) => {}
            Ok(Some((piece, whole))) => {
                if piece.of == Kind::Frames {
                    frames(&self.shared, &self.view, session, piece.segment, &whole);
                } else {
                    let about = (session.peer, piece.of, &whole[..]);
                    let probes = &mut self.probes;
                    message(&self.shared, &mut self.control, probes, about, now);
                }
                session.rejoiner.recycle(whole);
            }
            Err(malformed) => self.malformed(malformed),
        }
    }
}

fn due(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) >= SAY_AGAIN
}

/// Whether a payload is frames, or a part of some.
fn carries_frames(kind: Kind, plain: &[u8]) -> bool {
    match kind {
        Kind::Car | Kind::Frames => true,
        Kind::Piece => Piece::decode(plain).is_ok_and(|piece| piece.of == Kind::Frames),
        Kind::Message
        | Kind::PathProbe
        | Kind::PathReply
        | Kind::Probe
        | Kind::ProbeReply
        | Kind::Relayed => false,
    }
}

fn position(view: &View, peer: NodeId) -> Option<usize> {
    view.snapshot
        .peers
        .binary_search_by_key(&peer, |peer| peer.node)
        .ok()
}

/// Whether a peer may send this frame, which is cut after its headers at the earliest.
fn may_enter(
    shared: &Shared,
    view: &View,
    session: &Session,
    segment: Segment,
    frame: &[u8],
) -> bool {
    let verdict = match session.position {
        _ if segment != Segment::DEFAULT => Err(DropReason::SegmentUnknown),
        None => Err(DropReason::PeerAbsent),
        Some(position) => view.table.check_received(segment, position, frame),
    };
    let Err(reason) = verdict else {
        return true;
    };
    shared.cells.discard(reason);
    if reason.is_forgery() {
        add(&session.cell.rx_forged, 1);
    }
    false
}

/// Delivers the frames of a body.
fn frames(shared: &Shared, view: &View, session: &Session, segment: Segment, body: &[u8]) {
    for record in bundle::records(body) {
        let Ok(record) = record else {
            return shared.cells.discard(DropReason::Malformed);
        };
        let frame = &body[record.frame];
        if may_enter(shared, view, session, segment, frame) {
            let vnet = Vnet::plain(record.checksum).encode();
            write(shared, &[IoSlice::new(&vnet), IoSlice::new(frame)]);
        }
    }
}

fn write(shared: &Shared, frame: &[IoSlice<'_>]) {
    if shared.tap.write_vectored(frame).is_err() {
        shared.cells.discard(DropReason::TapRefused);
    }
}

/// Takes what is no frame.
fn message(
    shared: &Shared,
    control: &mut Sender,
    probes: &mut Probes,
    (peer, kind, body): (NodeId, Kind, &[u8]),
    now: Instant,
) {
    match kind {
        Kind::Message if body.len() <= message::MAX_MESSAGE => {
            let bytes = body.to_vec();
            shared.reporter.send(Report::SessionMessage { peer, bytes });
        }
        Kind::Probe => control.message(peer, Kind::ProbeReply, body, now),
        Kind::ProbeReply => {
            let Ok(id) = message::probe_id(body) else {
                return shared.cells.discard(DropReason::Truncated);
            };
            if let Some(sent) = probes.answered(peer, id) {
                // The time of the turn is from before the wait for datagrams: an answer may be younger.
                let rtt = Instant::now().saturating_duration_since(sent);
                shared
                    .reporter
                    .send(Report::ProbeAnswered { peer, id, rtt });
            }
        }
        // All others are taken elsewhere, and a message is not so long.
        Kind::Car
        | Kind::Frames
        | Kind::Message
        | Kind::PathProbe
        | Kind::PathReply
        | Kind::Piece
        | Kind::Relayed => shared.cells.discard(DropReason::Malformed),
    }
}
