//! Seals what is for a peer and sends it: sessions, what waits for one, datagrams in batches.
//!
//! ```text
//!               Install                      Retire, or the lane is used up
//!   no session ─────────▶ session ─────────────────────────────────────────▶ no session
//!   frames wait, ≤ 64, ≤ 1 s                a held session takes over when the peer is heard under it,
//!                                           unless another was installed since
//! ```
//!
//! There are two senders, one for frames and one for everything else, each on lanes of its own, so that neither waits for
//! the other. Each belongs to one thread at a time. [`ways`] is how what is sealed leaves.

mod ways;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use weft_kernel::udp::{MAX_PAYLOAD, MAX_SEGMENTS};
use weft_router_proto::io::Direction;
use weft_router_proto::overlay::{Path, Slot};
use weft_router_proto::sleeve::bundle;
use weft_router_proto::sleeve::fragment::Piece;
use weft_router_proto::sleeve::inner::{MAX_HEADERS, finish_checksum};
use weft_router_proto::sleeve::lane::{OVERHEAD, Part, SealError, SendLane, SendLanes};
use weft_router_proto::sleeve::payload::{self, Kind};
use weft_router_proto::sleeve::slots::{LEAST, SLOTS, Sealed, Slots};
use weft_router_proto::sleeve::train::{NoTrain, Train, udp_segment};
use weft_router_proto::sleeve::vnet::{Checksum, Gso, Vnet};
use weft_router_proto::sleeve::{MAX_SUPER_FRAME, SessionIndex};
use weft_router_proto::switch::DropReason;
use weft_types::{NodeId, Segment};

use super::chatter::Load;
use super::counters::{PeerCell, add};
use super::report::{Report, SAY_AGAIN};
use super::shared::{Shared, View};

pub(super) use ways::{Hop, Lone};

/// How much waits for one session.
const MAX_WAITING: usize = 64;

/// How many bytes wait for one session: a few super-frames.
const MAX_WAITING_BYTES: usize = 512 << 10;

/// How long anything waits for a session.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often a session is asked for while something waits.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// How many sessions may be waiting to be heard under: one rekey from either side.
const MAX_HELD: usize = 2;

/// One sender's end of a session.
pub(super) struct SendSession {
    /// Our index of the session.
    pub(super) local: SessionIndex,
    /// Seal.
    pub(super) lanes: SendLanes,
    /// Frames' datagrams for which the socket was too full, by slot: their counters are spent, and no way has lost them.
    /// Both senders have the same.
    pub(super) refused: Arc<[AtomicU64; Slot::COUNT as usize]>,
}

/// What a sender is told.
pub(super) enum SessionChange {
    /// Send by this.
    Install { peer: NodeId, session: SendSession },
    /// Send by this once the peer was heard under it.
    Hold { peer: NodeId, session: SendSession },
    /// The peer was heard under a held session.
    Promote { peer: NodeId, index: SessionIndex },
    /// Wipe it.
    Retire { index: SessionIndex },
}

/// One peer, as it is sent to.
struct Route {
    node: NodeId,
    /// `None` while there is no way, or the peer is absent.
    path: Option<Path>,
    session: Option<SendSession>,
    held: ArrayVec<SendSession, MAX_HELD>,
    waiting: VecDeque<Parcel>,
    waiting_bytes: usize,
    asked: Option<Instant>,
    /// When it was last said that frames travel.
    said: Option<Instant>,
    /// When it was last said that chatter does.
    chatted: Option<Instant>,
    /// One call for many datagrams was refused.
    single: bool,
    cell: Arc<PeerCell>,
}

impl Route {
    /// The largest datagram; none fits while there is no way.
    fn datagram(&self) -> usize {
        self.path.map_or(0, |path| usize::from(path.datagram))
    }

    /// What seals for the peer, and why not.
    fn lane(&mut self, part: Part) -> Result<&mut SendLane, DropReason> {
        let session = self.session.as_mut().ok_or(DropReason::NoSession)?;
        let slot = self.path.ok_or(DropReason::NoAddress)?.slot;
        let lane = match part {
            Part::Control => slot.control_lane(),
            Part::Frames => slot.frames_lane(),
        };
        session.lanes.lane(lane).ok_or(DropReason::NoSession)
    }
}

/// What waits for a session.
struct Parcel {
    content: Content,
    since: Instant,
}

enum Content {
    Frame {
        segment: Segment,
        vnet: Vnet,
        frame: Vec<u8>,
    },
    Body {
        kind: Kind,
        body: Vec<u8>,
    },
}

impl Content {
    fn len(&self) -> usize {
        match self {
            Self::Frame { frame, .. } => frame.len(),
            Self::Body { body, .. } => body.len(),
        }
    }
}

/// Sealed frames that have not left yet, all for one peer, all of one size but the last.
#[derive(Default)]
struct Batch {
    route: usize,
    /// Keeps its memory; at most [`MAX_SEGMENTS`].
    sealed: Vec<Sealed>,
    bytes: usize,
    /// A shorter one ends it.
    closed: bool,
}

/// Seals and sends.
pub(super) struct Sender {
    shared: Arc<Shared>,
    part: Part,
    pub(super) slots: Slots,
    routes: Vec<Route>,
    /// From a peer's position in the snapshot to its route.
    positions: Vec<usize>,
    batch: Batch,
    /// A frame that is sent from elsewhere than the slots.
    scratch: Vec<u8>,
    /// Datagrams with room around them, for who passes them on.
    wrapped: Vec<u8>,
    /// When the last thing was asked of it.
    clock: Instant,
    /// Datagrams that were sealed, for the caller to judge how busy it is.
    pub(super) sealed: usize,
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, part: Part, now: Instant) -> Self {
        Self {
            shared,
            part,
            slots: Slots::new(0),
            routes: Vec::new(),
            positions: Vec::new(),
            batch: Batch::default(),
            scratch: Vec::new(),
            wrapped: Vec::new(),
            clock: now,
            sealed: 0,
        }
    }

    /// Follows a snapshot. Sessions outlive a peer's absence.
    pub(super) fn set_view(&mut self, view: &View) {
        self.flush();
        self.positions.clear();
        let mut largest = 0;
        for route in &mut self.routes {
            if view.snapshot.peer(route.node).is_none() {
                route.path = None;
            }
        }
        for peer in &view.snapshot.peers {
            let number = self.route(peer.node);
            let route = &mut self.routes[number];
            if route.path != peer.path {
                (route.path, route.single) = (peer.path, false);
            }
            largest = largest.max(route.datagram());
            self.positions.push(number);
        }
        // Slots that are far too large lie far apart.
        let room = self.slots.datagram();
        if largest > room || largest > 0 && largest.max(LEAST) * 2 < room {
            self.slots = Slots::new(largest);
        }
    }

    /// Follows what happens to sessions.
    pub(super) fn change(&mut self, change: SessionChange, now: Instant) {
        self.clock = now;
        self.flush();
        match change {
            SessionChange::Install { peer, session } => {
                let number = self.route(peer);
                // What is held is older: a late datagram under it must not take sending back.
                self.routes[number].held.clear();
                self.begin(number, session, now);
            }
            SessionChange::Hold { peer, session } => {
                let number = self.route(peer);
                let held = &mut self.routes[number].held;
                if held.is_full() {
                    held.remove(0);
                }
                held.push(session);
            }
            SessionChange::Promote { peer, index } => {
                let number = self.route(peer);
                let held = &mut self.routes[number].held;
                let found = held.iter().position(|session| session.local == index);
                if let Some(session) = found.map(|at| held.remove(at)) {
                    self.begin(number, session, now);
                }
            }
            SessionChange::Retire { index } => {
                for route in &mut self.routes {
                    route.session.take_if(|session| session.local == index);
                    route.held.retain(|session| session.local != index);
                }
            }
        }
    }

    fn route(&mut self, node: NodeId) -> usize {
        if let Some(number) = self.routes.iter().position(|route| route.node == node) {
            return number;
        }
        self.routes.push(Route {
            node,
            path: None,
            session: None,
            held: ArrayVec::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            asked: None,
            said: None,
            chatted: None,
            single: false,
            cell: self.shared.cells.peer(node),
        });
        self.routes.len() - 1
    }

    /// Sends by a session from here on: first of all what waited for it.
    fn begin(&mut self, number: usize, session: SendSession, now: Instant) {
        let route = &mut self.routes[number];
        route.session = Some(session);
        route.asked = None;
        route.waiting_bytes = 0;
        for parcel in std::mem::take(&mut route.waiting) {
            if now.saturating_duration_since(parcel.since) > PATIENCE {
                self.discard(number, DropReason::NoSession);
                continue;
            }
            match parcel.content {
                Content::Frame {
                    segment,
                    vnet,
                    mut frame,
                } => self.send_frame(number, segment, vnet, &mut frame),
                Content::Body { kind, body } => self.send_body(number, kind, &body),
            }
        }
        self.flush();
    }

    /// Whether anything waits for a session: then [`Self::housekeep`] wants to be called now and then.
    pub(super) fn is_waiting(&self) -> bool {
        self.routes.iter().any(|route| !route.waiting.is_empty())
    }

    /// Drops what has waited too long, and asks again for the rest.
    pub(super) fn housekeep(&mut self, now: Instant) {
        for number in 0..self.routes.len() {
            loop {
                let route = &mut self.routes[number];
                let late =
                    |parcel: &mut Parcel| now.saturating_duration_since(parcel.since) > PATIENCE;
                let Some(parcel) = route.waiting.pop_front_if(late) else {
                    break;
                };
                route.waiting_bytes -= parcel.content.len();
                self.discard(number, DropReason::NoSession);
            }
            if !self.routes[number].waiting.is_empty() {
                self.ask(number, now);
            }
        }
    }

    fn ask(&mut self, number: usize, now: Instant) {
        let route = &mut self.routes[number];
        let due = route
            .asked
            .is_none_or(|asked| now.saturating_duration_since(asked) >= ASK_AGAIN);
        if due
            && self
                .shared
                .reporter
                .send(Report::SessionWanted { peer: route.node })
        {
            route.asked = Some(now);
        }
    }

    fn wait(&mut self, number: usize, content: Content, now: Instant) {
        let route = &mut self.routes[number];
        let full = route.waiting.len() >= MAX_WAITING
            || route.waiting_bytes + content.len() > MAX_WAITING_BYTES;
        if full {
            self.discard(number, DropReason::NoSession);
        } else {
            route.waiting_bytes += content.len();
            route.waiting.push_back(Parcel {
                content,
                since: now,
            });
        }
        self.ask(number, now);
    }

    fn discard(&self, number: usize, reason: DropReason) {
        self.discard_many(number, reason, 1);
    }

    fn discard_many(&self, number: usize, reason: DropReason, count: usize) {
        self.shared.cells.discard_many(reason, count);
        add(&self.routes[number].cell.tx_dropped, count);
    }

    /// Says now and then that frames travel.
    fn say(&mut self, number: usize, load: Load, now: Instant) {
        let route = &mut self.routes[number];
        let due = |said| now.saturating_duration_since(said) >= SAY_AGAIN;
        if !route.said.is_none_or(due) {
            return;
        }
        let peer = route.node;
        let (said, report) = match load {
            Load::Chatter => (&mut route.chatted, Report::Chatter { peer }),
            Load::Traffic => {
                let direction = Direction::Sent;
                (&mut route.said, Report::Traffic { peer, direction })
            }
        };
        if said.is_none_or(due) && self.shared.reporter.send(report) {
            *said = Some(now);
        }
    }

    /// Sends the frame of `len` bytes that was read to slot `first` to the peer at `position`. True if it now lies
    /// sealed in that slot and the next frame must be read to the one behind.
    pub(super) fn captured(
        &mut self,
        position: usize,
        first: usize,
        len: usize,
        segment: Segment,
        vnet: Vnet,
        now: Instant,
    ) -> bool {
        let Some(&number) = self.positions.get(position) else {
            self.shared.cells.discard(DropReason::PeerAbsent);
            return false;
        };
        self.clock = now;
        if self.routes[number].session.is_none() {
            let content = Content::Frame {
                segment,
                vnet,
                frame: self.slots.gather(first, len).to_vec(),
            };
            self.wait(number, content, now);
            return false;
        }
        self.say(number, Load::Traffic, now);
        let route = &mut self.routes[number];
        let weight = OVERHEAD + payload::LEN + bundle::RECORD + len;
        let small = vnet.gso == Gso::None && weight <= route.datagram() && self.slots.is_whole(len);
        if small
            && let Some(record) = bundle::encode(len, vnet.checksum)
            && let Ok(lane) = route.lane(self.part)
        {
            let sealed = self.slots.seal_frame(first, len, segment, record, lane);
            return self.enqueue(number, sealed);
        }
        self.flush();
        if vnet.gso == Gso::None {
            self.gathered(number, first, len, segment, vnet);
        } else {
            self.train(number, first, len, segment, vnet, true);
        }
        false
    }

    /// Sends a frame from elsewhere to the peer at `position`, as one of many that get it.
    pub(super) fn copied(
        &mut self,
        position: usize,
        segment: Segment,
        vnet: Vnet,
        frame: &mut [u8],
        load: Load,
        now: Instant,
    ) {
        let Some(&number) = self.positions.get(position) else {
            return;
        };
        self.clock = now;
        if self.routes[number].session.is_some() {
            self.say(number, load, now);
            self.send_frame(number, segment, vnet, frame);
        } else {
            let content = Content::Frame {
                segment,
                vnet,
                frame: frame.to_vec(),
            };
            self.wait(number, content, now);
        }
    }

    /// Sends a message, probe or answer to a peer.
    pub(super) fn message(&mut self, peer: NodeId, kind: Kind, body: &[u8], now: Instant) {
        self.clock = now;
        let number = self.route(peer);
        if self.routes[number].session.is_some() {
            self.send_body(number, kind, body);
            self.flush();
        } else {
            let body = body.to_vec();
            self.wait(number, Content::Body { kind, body }, now);
        }
    }

    /// Puts a sealed frame to those that leave together.
    fn enqueue(&mut self, number: usize, sealed: Result<Sealed, SealError>) -> bool {
        let Some(sealed) = self.sealed(number, sealed) else {
            return false;
        };
        let batch = &self.batch;
        let equal = batch.sealed.first().map_or(0, |first| first.len());
        let together = batch.route == number
            && !batch.closed
            && batch.sealed.len() < MAX_SEGMENTS
            && sealed.len() <= equal
            && batch.bytes + sealed.len() <= MAX_PAYLOAD;
        if !together {
            self.flush();
            self.batch.route = number;
        }
        let batch = &mut self.batch;
        batch.closed = batch
            .sealed
            .first()
            .is_some_and(|first| sealed.len() < first.len());
        batch.bytes += sealed.len();
        batch.sealed.push(sealed);
        true
    }

    /// Counts a sealed datagram, or ends a session that is used up.
    fn sealed(&mut self, number: usize, sealed: Result<Sealed, SealError>) -> Option<Sealed> {
        match sealed {
            Ok(sealed) => {
                self.sealed += 1;
                Some(sealed)
            }
            Err(SealError::Exhausted) => {
                self.routes[number].session = None;
                self.discard(number, DropReason::NoSession);
                None
            }
            Err(SealError::TooShort) => {
                self.discard(number, DropReason::TooLong);
                None
            }
        }
    }

    /// How many frames lie sealed in the slots.
    pub(super) fn held(&self) -> usize {
        self.batch.sealed.len()
    }

    /// Sends what is sealed. After it every slot is free.
    pub(super) fn flush(&mut self) {
        if self.batch.sealed.is_empty() {
            return;
        }
        let mut sealed = std::mem::take(&mut self.batch.sealed);
        self.transmit(self.batch.route, &sealed);
        sealed.clear();
        self.batch = Batch {
            sealed,
            ..Batch::default()
        };
    }

    /// Sends an ordinary frame that does not lie in one slot, or is longer than a datagram.
    fn gathered(&mut self, number: usize, first: usize, len: usize, segment: Segment, vnet: Vnet) {
        let mut frame = std::mem::take(&mut self.scratch);
        frame.clear();
        frame.extend_from_slice(self.slots.gather(first, len));
        self.send_frame(number, segment, vnet, &mut frame);
        self.scratch = frame;
    }

    /// Sends a frame that lies elsewhere. There is a session.
    fn send_frame(&mut self, number: usize, segment: Segment, vnet: Vnet, frame: &mut [u8]) {
        self.flush();
        match vnet.gso {
            Gso::None => self.send_ordinary(number, segment, vnet.checksum, frame),
            Gso::Tcp4 | Gso::Tcp6 | Gso::Udp if frame.len() <= MAX_SUPER_FRAME => {
                self.slots.load(frame);
                self.train(number, 0, frame.len(), segment, vnet, false);
            }
            Gso::Tcp4 | Gso::Tcp6 | Gso::Udp => self.discard(number, DropReason::TooLong),
        }
    }

    /// Sends one ordinary frame by itself, in pieces if it must be.
    fn send_ordinary(
        &mut self,
        number: usize,
        segment: Segment,
        checksum: Option<Checksum>,
        frame: &mut [u8],
    ) {
        let record = bundle::encode(frame.len(), checksum).or_else(|| {
            let sum = checksum?;
            finish_checksum(frame, usize::from(sum.start), usize::from(sum.offset));
            bundle::encode(frame.len(), None)
        });
        let Some(record) = record else {
            return self.discard(number, DropReason::TooLong);
        };
        self.send_whole(number, Kind::Frames, segment, &record, frame);
    }

    fn send_body(&mut self, number: usize, kind: Kind, body: &[u8]) {
        self.send_whole(number, kind, Segment::DEFAULT, &[], body);
    }

    /// Sends a body, `prefix` and then `rest`, in one datagram or in pieces.
    fn send_whole(
        &mut self,
        number: usize,
        kind: Kind,
        segment: Segment,
        prefix: &[u8],
        rest: &[u8],
    ) {
        self.flush();
        let route = &mut self.routes[number];
        let datagram = route.datagram();
        let lane = match route.lane(self.part) {
            Ok(lane) => lane,
            Err(reason) => return self.discard(number, reason),
        };
        let total = prefix.len() + rest.len();
        if OVERHEAD + payload::LEN + total <= datagram {
            let sealed = self
                .slots
                .seal_body(0, kind, segment, &[prefix, rest], lane);
            if let Some(sealed) = self.sealed(number, sealed) {
                self.transmit(number, &[sealed]);
            }
            return;
        }
        let Some((first, count)) = Piece::plan(segment, kind, total, datagram) else {
            return self.discard(number, DropReason::TooLong);
        };
        let mut pieces = ArrayVec::<Sealed, SLOTS>::new();
        for index in 0..count {
            let Ok(lane) = self.routes[number].lane(self.part) else {
                return;
            };
            let piece = Piece { index, ..first };
            let slot = usize::from(index);
            let sealed = self.slots.seal_piece(slot, piece, prefix, rest, lane);
            let Some(sealed) = self.sealed(number, sealed) else {
                return;
            };
            pieces.push(sealed);
        }
        self.transmit_many(number, &pieces);
    }

    /// Sends a super-frame: read to slot `first`, or loaded.
    fn train(
        &mut self,
        number: usize,
        first: usize,
        len: usize,
        segment: Segment,
        vnet: Vnet,
        captured: bool,
    ) {
        if self.routes[number].path.is_none() {
            return self.discard(number, DropReason::NoAddress);
        }
        let datagram = self.routes[number].datagram().min(self.slots.datagram());
        let mut headers = ArrayVec::<u8, MAX_HEADERS>::new();
        let start = if captured {
            self.slots.start(first, len)
        } else {
            self.slots.loaded(len)
        };
        headers
            .try_extend_from_slice(&start[..start.len().min(MAX_HEADERS)])
            .expect("cut to its capacity");
        let train = match Train::plan(segment, vnet, start, len, datagram) {
            Ok(train) => train,
            Err(NoTrain::Unknown) => return self.discard(number, DropReason::Malformed),
            Err(NoTrain::Segment) => {
                if captured {
                    self.slots.gather(first, len);
                }
                return self.segments(number, len, segment, vnet.gso_size);
            }
        };
        if captured && !self.slots.fits(&train) {
            self.slots.gather(first, len);
        }
        if (!captured || !self.slots.fits(&train))
            && self.slots.lay_out(first, len, &train).is_err()
        {
            return self.discard(number, DropReason::TooLong);
        }
        let mut group = ArrayVec::<Sealed, MAX_SEGMENTS>::new();
        let (mut bytes, mut limit) = (0, 0);
        for index in 0..train.cars() {
            let Ok(lane) = self.routes[number].lane(self.part) else {
                return;
            };
            let sealed = self.slots.seal_car(first, &train, index, &headers, lane);
            let Some(sealed) = self.sealed(number, sealed) else {
                return;
            };
            if index == 0 {
                // Where a train needs two sends, both are of one size.
                limit = group_size(usize::from(train.cars()), sealed.len());
            }
            bytes += sealed.len();
            group.push(sealed);
            if group.len() == limit {
                self.transmit(number, &group);
                group.clear();
                bytes = 0;
            }
        }
        if bytes > 0 {
            self.transmit(number, &group);
        }
    }

    /// Sends the datagrams of a UDP super-frame, which is gathered, one by one: they are too large for cars.
    fn segments(&mut self, number: usize, len: usize, segment: Segment, gso_size: u16) {
        let whole = self.slots.loaded(len).to_vec();
        let mut part = std::mem::take(&mut self.scratch);
        for count in 0.. {
            let Some(vnet) = udp_segment(&whole, gso_size, count, &mut part) else {
                break;
            };
            self.send_ordinary(number, segment, vnet.checksum, &mut part);
        }
        self.scratch = part;
    }
}

/// How many of `count` datagrams leave by one call: as few calls as possible, equally filled.
fn group_size(count: usize, size: usize) -> usize {
    let most = (MAX_PAYLOAD / size.max(1)).clamp(1, MAX_SEGMENTS);
    count.div_ceil(count.div_ceil(most).max(1)).max(1)
}
