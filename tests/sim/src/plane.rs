//! The data plane: what each host's packet workers do with frames, probes, and what they shall pass on.
//!
//! ```text
//!   frame ─▶ session? ─▶ path of the snapshot ─┬─ direct ──▶ datagram
//!              │ no                            ├─ relay ───▶ datagram, inside one of the session with the relay
//!              ▼                               └─ control ─▶ to the core, which sends it on connections
//!           waits, asks
//! ```
//!
//! A relay forwards by its own snapshot, four times at most, never back to whom it has something from. Frames are numbers
//! with a length; nothing is sealed, everything is weighed.

use std::net::SocketAddr;
use std::time::Duration;

use weft_router_proto::io::{DataPlane, Direction, Input, PathAnswer};
use weft_router_proto::overlay::{
    ANSWER_LANE, Path, RELAY_FRAMES_LANE, RELAY_OVERHEAD, Slot, TRIAL_LANE, Via,
};
use weft_router_proto::sleeve::SessionIndex;
use weft_router_proto::sleeve::path_probe::PathProbe;
use weft_router_proto::sleeve::relayed::HOPS;
use weft_types::NodeId;

use crate::datagram::{Content, Datagram, Parcel, PathReply};
use crate::node::Malice;
use crate::sim::{NodeIndex, Sim, What};
use crate::underlay::Packet;
use crate::worker::{ASK_AGAIN, Asked, Refused, Workers};

/// A frame of a flow, unless its length matters: full size at the mesh's MTU.
const FRAME: usize = 1378;

/// How a datagram came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Control,
    Relayed(NodeId),
    Straight(SocketAddr),
}

/// Frames that one host sends another for as long as it lasts.
#[derive(Clone, Copy)]
pub(crate) struct Flow {
    every: Duration,
    len: usize,
}

impl Sim {
    /// Offers a frame to a router's data plane: sent if there is a session, else one is asked for and it waits.
    pub fn frame(&mut self, from: NodeIndex, to: NodeIndex) {
        self.frame_of(from, to, FRAME);
    }

    /// The same with a frame of a length.
    pub fn frame_of(&mut self, from: NodeIndex, to: NodeIndex, len: usize) {
        let peer = self.id(to);
        self.frames += 1;
        let parcel = Parcel::frame(self.frames, len);
        let number = self.frames;
        self.note(|recorder, _| recorder.offered([from, to], number));
        self.offer(from, peer, parcel);
    }

    /// Lets one host send another a frame now and then, until [`Self::stop`]. When they come is in
    /// [`crate::Node::arrivals`].
    pub fn flow(&mut self, from: NodeIndex, to: NodeIndex, every: Duration, len: usize) {
        let begun = self.flows.insert((from, to), Flow { every, len });
        if begun.is_none() {
            self.later_to_nobody(Duration::ZERO, What::Flow { from, to });
        }
    }

    /// Ends a flow.
    pub fn stop(&mut self, from: NodeIndex, to: NodeIndex) {
        self.flows.remove(&(from, to));
    }

    /// Makes a member do this to what it shall pass on.
    pub fn set_malice(&mut self, index: NodeIndex, malice: Malice) {
        self.nodes[index.0].malice = malice;
    }

    /// The longest time since `since` within which no frame of a flow came; the present counts as its end.
    pub fn silence(&self, from: NodeIndex, to: NodeIndex, since: Duration) -> Duration {
        let peer = self.id(from);
        let came = self.node(to).arrivals.get(&peer).into_iter().flatten();
        let times = came.map(|&(at, _)| at).filter(|&at| at >= since);
        let mut last = since;
        let mut longest = Duration::ZERO;
        for at in times.chain([self.elapsed()]) {
            longest = longest.max(at.saturating_sub(last));
            last = at;
        }
        longest
    }

    pub(crate) fn emit(&mut self, from: NodeIndex, to: NodeIndex) {
        let Some(&Flow { every, len }) = self.flows.get(&(from, to)) else {
            return;
        };
        self.later_to_nobody(every, What::Flow { from, to });
        if self.node(from).snapshot.is_some() && self.node(to).identity.is_some() {
            self.frame_of(from, to, len);
        }
    }

    pub(crate) fn data_plane(&mut self, index: NodeIndex, command: DataPlane) {
        let workers = &mut self.nodes[index.0].workers;
        match command {
            DataPlane::AdmitLink(link) => {
                workers.links.insert(link);
            }
            DataPlane::Datagrams { datagrams, .. } => {
                for bytes in datagrams {
                    let number = bytes
                        .first_chunk::<8>()
                        .map(|head| u64::from_be_bytes(*head));
                    let datagram = number.and_then(|number| self.carried.remove(&number));
                    if let Some(datagram) = datagram {
                        self.arrive(index, Origin::Control, datagram);
                    }
                }
            }
            DataPlane::Install { peer, keys } => {
                workers.install(peer, keys, false);
                self.send_what_waited(index, peer);
            }
            DataPlane::InstallReceiving { peer, keys } => workers.install(peer, keys, true),
            DataPlane::PathProbe {
                peer,
                via,
                slot,
                id,
                datagram,
            } => self.probe_path(index, peer, via, slot, id, datagram),
            DataPlane::Probe { peer, id, size } => {
                let content = Content::Probe { id, size };
                workers.pings.insert((peer, id), self.elapsed);
                let len = usize::from(size);
                self.offer(index, peer, Parcel { content, len });
            }
            DataPlane::Retire { index: session } => workers.retire(session),
            DataPlane::RetireLink(link) => {
                workers.links.remove(&link);
            }
            DataPlane::SessionMessage { peer, bytes } => {
                self.offer(index, peer, Parcel::message(bytes));
            }
        }
    }

    /// Asks again for a session, while something waits for it.
    pub(crate) fn keep_house(&mut self, index: NodeIndex, peer: NodeId) {
        let now = self.elapsed();
        let workers = &mut self.nodes[index.0].workers;
        let there = workers
            .routes
            .get(&peer)
            .is_some_and(|route| route.session.is_some());
        if !there && workers.still_waits(peer, now) {
            self.later(ASK_AGAIN, index, What::KeepHouse { peer });
            if self.nodes[index.0].workers.ask(peer, now) {
                self.input(index, Input::SessionWanted { peer });
            }
        }
    }

    fn offer(&mut self, index: NodeIndex, peer: NodeId, parcel: Parcel) {
        let now = self.elapsed();
        if self.node(index).session_to(peer).is_some() {
            return self.send_parcel(index, peer, parcel);
        }
        if self.nodes[index.0].workers.wait(peer, parcel, now) {
            self.later(ASK_AGAIN, index, What::KeepHouse { peer });
            self.input(index, Input::SessionWanted { peer });
        }
    }

    fn send_what_waited(&mut self, index: NodeIndex, peer: NodeId) {
        let now = self.elapsed();
        for parcel in self.nodes[index.0].workers.waited(peer, now) {
            self.send_parcel(index, peer, parcel);
        }
    }

    /// Sends something by the path there is; dropped where there is none.
    fn send_parcel(&mut self, index: NodeIndex, peer: NodeId, parcel: Parcel) {
        let Some(Path {
            via,
            slot,
            datagram,
        }) = self.node(index).path_to(peer)
        else {
            return;
        };
        let now = self.elapsed();
        let workers = &mut self.nodes[index.0].workers;
        let whole = workers.next_whole();
        let is_frame = parcel.content.is_frame();
        let lane = if is_frame {
            slot.frames_lane()
        } else {
            slot.control_lane()
        };
        let route = workers.routes.entry(peer).or_default();
        let says = is_frame && Workers::say(&mut route.said, now);
        for (content, size) in parcel.split(usize::from(datagram), whole) {
            let workers = &mut self.nodes[index.0].workers;
            let Some(datagram) = workers.seal(peer, lane, content, size) else {
                break;
            };
            if is_frame && let Some(route) = workers.routes.get_mut(&peer) {
                route.sent[usize::from(slot.number())] += 1;
            }
            self.launch(index, peer, via, datagram);
        }
        if says {
            let direction = Direction::Sent;
            self.input(index, Input::Traffic { peer, direction });
        }
    }

    /// Lets a datagram leave by a way.
    fn launch(&mut self, index: NodeIndex, peer: NodeId, via: Via, datagram: Datagram) {
        match via {
            Via::Control => {
                self.frames += 1;
                let mut bytes = self.frames.to_be_bytes().to_vec();
                bytes.resize(datagram.size, 0);
                self.carried.insert(self.frames, datagram);
                let datagrams = vec![bytes];
                self.input(index, Input::ByControl { peer, datagrams });
            }
            Via::Direct(to) => self.udp(index, to, Packet::Data(datagram)),
            Via::Relay(next) => self.hand_on(index, next, peer, HOPS, datagram),
        }
    }

    /// Puts a datagram into one for the next hop, which is reached straight.
    pub(crate) fn hand_on(
        &mut self,
        index: NodeIndex,
        next: NodeId,
        last: NodeId,
        hops: u8,
        datagram: Datagram,
    ) {
        let Some(Via::Direct(to)) = self.node(index).path_to(next).map(|path| path.via) else {
            return;
        };
        let now = self.elapsed();
        let size = datagram.size + usize::from(RELAY_OVERHEAD);
        let content = Content::Relayed {
            hops,
            last,
            datagram: Box::new(datagram),
        };
        let workers = &mut self.nodes[index.0].workers;
        if let Some(datagram) = workers.seal(next, RELAY_FRAMES_LANE, content, size) {
            self.udp(index, to, Packet::Data(datagram));
        } else if workers.ask(next, now) {
            self.input(index, Input::SessionWanted { peer: next });
        }
    }

    /// Sends a probe of one way, whatever way frames take.
    fn probe_path(
        &mut self,
        index: NodeIndex,
        peer: NodeId,
        via: Via,
        slot: Option<Slot>,
        id: u64,
        datagram: u16,
    ) {
        let now = self.elapsed();
        let node = &mut self.nodes[index.0];
        node.probes.push((now, peer));
        let workers = &mut node.workers;
        let lane = slot.map_or(TRIAL_LANE, Slot::control_lane);
        let size = usize::from(datagram).max(PathProbe::LEAST);
        let content = Content::PathProbe { id, slot };
        if let Some(datagram) = workers.seal(peer, lane, content, size) {
            self.ask(index, peer, id, slot);
            self.launch(index, peer, via, datagram);
        }
    }

    /// Notes that a question is out.
    fn ask(&mut self, index: NodeIndex, peer: NodeId, id: u64, slot: Option<Slot>) {
        let at = self.elapsed();
        let workers = &mut self.nodes[index.0].workers;
        let route = workers.routes.entry(peer).or_default();
        let asked = Asked {
            session: route.session.unwrap_or(SessionIndex(0)),
            sent: slot.map_or(0, |slot| route.sent[usize::from(slot.number())]),
            at,
        };
        workers.asked.insert((peer, id), asked);
    }

    /// Takes what came for a host's workers.
    pub(crate) fn arrive(&mut self, index: NodeIndex, origin: Origin, datagram: Datagram) {
        let now = self.elapsed();
        let node = &mut self.nodes[index.0];
        if node.core.is_none() {
            return;
        }
        let session = match node.workers.open(&datagram) {
            Ok(session) => session,
            Err(Refused::Inauthentic) => return node.auth_drops += 1,
            Err(Refused::Replayed) => return node.replay_drops += 1,
        };
        let peer = session.peer;
        let mut reports = Vec::new();
        if datagram.content.is_frame() && Workers::say(&mut session.said, now) {
            let direction = Direction::Received;
            reports.push(Input::Traffic { peer, direction });
        }
        if let Origin::Straight(from) = origin {
            let mut at = session
                .heard
                .and_then(|(last, at)| (last == from).then_some(at));
            if Workers::say(&mut at, now) {
                session.heard = Some((from, now));
                reports.push(Input::Heard { peer, from });
            }
        }
        let promoted = std::mem::take(&mut session.held);
        if promoted {
            node.workers.begin(peer, datagram.session);
        }
        for report in reports {
            self.input(index, report);
        }
        if promoted {
            self.send_what_waited(index, peer);
        }
        self.unwrap_content(index, origin, peer, datagram.session, datagram.content);
    }

    fn unwrap_content(
        &mut self,
        index: NodeIndex,
        origin: Origin,
        peer: NodeId,
        session: SessionIndex,
        content: Content,
    ) {
        let now = self.elapsed();
        let node = &mut self.nodes[index.0];
        match content {
            Content::Frame(number) => {
                *node.delivered.entry(peer).or_default() += 1;
                node.arrivals.entry(peer).or_default().push((now, number));
                self.note(|recorder, at| recorder.delivered(at, index, number));
            }
            Content::Message(bytes) => self.input(index, Input::SessionMessage { peer, bytes }),
            Content::PathProbe { id, slot } => {
                let lane = slot.map(Slot::frames_lane);
                let (highest, received) =
                    lane.map_or((0, 0), |lane| node.workers.arrivals(session, lane));
                let (via, seen_at) = match origin {
                    Origin::Control => (Via::Control, None),
                    Origin::Relayed(from) => (Via::Relay(from), None),
                    Origin::Straight(from) => (Via::Direct(from), Some(from)),
                };
                let reply = Content::PathReply(PathReply {
                    id,
                    highest,
                    received,
                    seen_at,
                });
                if let Some(answer) = node
                    .workers
                    .seal(peer, ANSWER_LANE, reply, PathProbe::LEAST)
                {
                    self.launch(index, peer, via, answer);
                }
            }
            Content::PathReply(reply) => {
                if let Some(asked) = node.workers.asked.remove(&(peer, reply.id)) {
                    let answer = PathAnswer {
                        peer,
                        id: reply.id,
                        rtt: now - asked.at,
                        seen_at: reply.seen_at,
                        session: asked.session,
                        sent: asked.sent,
                        highest: reply.highest,
                        received: reply.received,
                    };
                    self.input(index, Input::PathAnswered(answer));
                }
            }
            Content::Piece { whole, of, content } => {
                if node.workers.join(session, whole, of) {
                    self.unwrap_content(index, origin, peer, session, *content);
                }
            }
            Content::Probe { id, size } => {
                let content = Content::ProbeReply { id };
                let len = usize::from(size);
                self.offer(index, peer, Parcel { content, len });
            }
            Content::ProbeReply { id } => {
                if let Some(at) = node.workers.pings.remove(&(peer, id)) {
                    let rtt = now - at;
                    self.input(index, Input::ProbeAnswered { peer, id, rtt });
                }
            }
            Content::Relayed {
                hops,
                last,
                datagram,
            } => {
                // What did not come straight holds no such thing.
                let Origin::Straight(_) = origin else { return };
                if self.id(index) == last {
                    self.arrive(index, Origin::Relayed(peer), *datagram);
                } else {
                    self.pass_on(index, peer, last, hops, *datagram);
                }
            }
        }
    }

    /// Passes another's datagram on.
    fn pass_on(
        &mut self,
        index: NodeIndex,
        from: NodeId,
        last: NodeId,
        hops: u8,
        mut datagram: Datagram,
    ) {
        let Some(hops) = hops.checked_sub(1) else {
            return;
        };
        let next = match self.node(index).path_to(last).map(|path| path.via) {
            Some(Via::Direct(_)) => last,
            Some(Via::Relay(next)) => next,
            Some(Via::Control) | None => return,
        };
        if next == from || last == from {
            return;
        }
        let malice = self.node(index).malice;
        if self.dice.chance(malice.drops) {
            return;
        }
        if self.dice.chance(malice.mutates) {
            datagram.intact = false;
        }
        self.nodes[index.0].relayed += 1;
        if malice.delays.is_zero() {
            return self.hand_on(index, next, last, hops, datagram);
        }
        let what = What::HandOn {
            next,
            last,
            hops,
            datagram,
        };
        self.later(malice.delays, index, what);
    }
}
