//! The data plane: what each host's packet workers do, carried out in the simulated world.
//!
//! Every host runs the tunnel of real packet workers, with real keys: frames are Ethernet frames from one host's address to
//! another's, datagrams are the bytes that would travel. A frame tells its number behind its header.

use std::net::SocketAddr;
use std::time::Duration;

use weft_router_proto::io::{DataPlane, Input};
use weft_router_proto::sleeve::vnet;
use weft_router_proto::snapshot::EndpointKind;
use weft_router_proto::tunnel::{Report, SessionChange, TooBig};
use weft_types::{MacAddr, NodeId};

use crate::dice::Purpose;
use crate::node::{Malice, Node, NodeIndex};
use crate::worker::Act;
use crate::world::{Flow, Sim, What};

/// A frame of a flow, unless its length matters: full size at the mesh's MTU.
const FRAME: usize = 1378;

/// What a frame begins with: two addresses and a type that nothing looks behind (IEEE 802, for experiments).
const HEAD: usize = 14;
const ETHERTYPE: [u8; 2] = [0x88, 0xb6];

impl Sim {
    /// Offers a frame to a router's data plane: sent if there is a session, else one is asked for and it waits. It is lost
    /// where the other host's Ethernet address is not known.
    pub fn frame(&mut self, from: NodeIndex, to: NodeIndex) {
        self.frame_of(from, to, FRAME);
    }

    /// The same with a frame of a length.
    pub fn frame_of(&mut self, from: NodeIndex, to: NodeIndex, len: usize) {
        let (source, target) = (self.id(from), self.id(to));
        self.frames += 1;
        let number = self.frames;
        self.note(|recorder, _| recorder.offered([from, to], number));
        let node = self.node(from);
        let (Some(source), Some(target)) = (node.mac_of(source), node.mac_of(target)) else {
            return;
        };
        let mut frame = [target.as_bytes(), source.as_bytes(), &ETHERTYPE[..]].concat();
        frame.extend_from_slice(&number.to_be_bytes());
        frame.resize(len.max(frame.len()), 0);
        let now = self.now(from);
        if let Some(workers) = &mut self.nodes[from.0].workers {
            let acts = workers.capture(&frame, now);
            self.carry_out(from, acts);
        }
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
        if let DataPlane::PathProbe { peer, .. } = command {
            self.nodes[index.0].probes.push((self.elapsed, peer));
        }
        let now = self.now(index);
        if let Some(workers) = &mut self.nodes[index.0].workers {
            let acts = workers.obey(command, now);
            self.carry_out(index, acts);
        }
    }

    /// Looks after what waits.
    pub(crate) fn keep_house(&mut self, index: NodeIndex) {
        let now = self.now(index);
        if let Some(workers) = &mut self.nodes[index.0].workers {
            workers.wake = None;
            let acts = workers.handle_timeout(now);
            self.carry_out(index, acts);
        }
    }

    /// Takes a datagram that came to a host.
    pub(crate) fn arrive(&mut self, index: NodeIndex, from: SocketAddr, datagram: &[u8]) {
        let now = self.now(index);
        if let Some(workers) = &mut self.nodes[index.0].workers {
            let acts = workers.receive(from, datagram, now);
            self.carry_out(index, acts);
        }
    }

    /// A router on the way says that a datagram was too large for it.
    pub(crate) fn too_big(&mut self, index: NodeIndex, said: TooBig) {
        let now = self.now(index);
        let workers = self.nodes[index.0].workers.as_mut();
        if let Some((to, datagram)) = workers.and_then(|workers| workers.too_big(said, now)) {
            self.input(index, Report::TooBig { to, datagram }.into());
        }
    }

    pub(crate) fn carry_out(&mut self, index: NodeIndex, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Deliver(from, frame) => self.deliver(index, from, &frame),
                Act::Link(from, bytes) => self.input(index, Input::LinkDatagram { from, bytes }),
                Act::Promote(change) => self.promote(index, change),
                Act::Report(report) => self.input(index, report.into()),
                Act::Send(to, datagram) => self.depart(index, to, datagram),
            }
        }
        self.set_alarm(index);
    }

    fn promote(&mut self, index: NodeIndex, change: SessionChange) {
        let now = self.now(index);
        if let Some(workers) = &mut self.nodes[index.0].workers {
            let acts = workers.promote(change, now);
            self.carry_out(index, acts);
        }
    }

    /// Sees to it that what waits is looked after in time.
    fn set_alarm(&mut self, index: NodeIndex) {
        let (now, elapsed) = (self.now(index), self.elapsed);
        let Some(workers) = &mut self.nodes[index.0].workers else {
            return;
        };
        let Some(at) = workers.poll_timeout() else {
            return;
        };
        let after = at.saturating_duration_since(now);
        if workers.wake.is_none_or(|wake| elapsed + after < wake) {
            workers.wake = Some(elapsed + after);
            self.later(after, index, What::KeepHouse);
        }
    }

    fn deliver(&mut self, index: NodeIndex, from: NodeId, frame: &[u8]) {
        let number = frame
            .get(vnet::LEN + HEAD..)
            .and_then(|rest| rest.first_chunk());
        let number = number.copied().map_or(0, u64::from_be_bytes);
        let node = &mut self.nodes[index.0];
        *node.delivered.entry(from).or_default() += 1;
        let arrivals = node.arrivals.entry(from).or_default();
        arrivals.push((self.elapsed, number));
        self.note(|recorder, at| recorder.delivered(at, index, number));
    }

    /// Lets a datagram leave, unless it is another's and this host does evil to it.
    fn depart(&mut self, index: NodeIndex, to: SocketAddr, mut datagram: Vec<u8>) {
        let node = &self.nodes[index.0];
        let pried = node
            .workers
            .as_ref()
            .and_then(|workers| workers.pried_open(&datagram));
        if let Some(pried) = pried {
            let malice = node.malice;
            let mut dice = self.throw(Purpose::Malice, [index.0, 0, 0]);
            if dice.chance(malice.drops) {
                return;
            }
            if dice.chance(malice.mutates) {
                datagram = pried.mutate();
            }
            if !malice.delays.is_zero() {
                return self.later(malice.delays, index, What::Depart { to, datagram });
            }
        }
        self.udp(index, to, datagram);
    }
}

impl Node {
    /// The Ethernet address of a member's host, as far as it is known here.
    fn mac_of(&self, owner: NodeId) -> Option<MacAddr> {
        let endpoints = &self.snapshot.as_ref()?.endpoints;
        let hosts = endpoints
            .iter()
            .filter(|endpoint| endpoint.kind == EndpointKind::Host);
        let mut macs = hosts
            .filter(|host| host.owner == owner)
            .map(|host| host.mac);
        macs.next()
    }
}
