//! One host's packet workers: the tunnel that real ones drive, and a world that notes what it does until the simulation
//! looks.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_router_proto::crypto::seal::{AeadKey, Backend, TAG, lane_key};
use weft_router_proto::io::DataPlane;
use weft_router_proto::overlay::RELAY_CONTROL_LANE;
use weft_router_proto::session::SessionKeys;
use weft_router_proto::sleeve::SessionIndex;
use weft_router_proto::sleeve::header::{self, Header, Type};
use weft_router_proto::sleeve::payload;
use weft_router_proto::sleeve::relayed::{self, Relayed};
use weft_router_proto::snapshot::{Endpoints, Snapshot};
use weft_router_proto::tunnel::{
    Cells, Hints, Orders, Ports, Refusal, Report, SessionChange, TapRefused, TooBig, Tunnel, Turn,
    View,
};
use weft_types::{Mtu, NodeId};

/// Something that a tunnel did.
pub(crate) enum Act {
    /// Gave the bridge a frame, which stands behind its virtio header.
    Deliver(NodeId, Vec<u8>),
    /// Received a datagram for the core.
    Link(SocketAddr, Vec<u8>),
    /// Told its other half.
    Promote(SessionChange),
    /// Told the hub.
    Report(Report),
    /// Sent a datagram.
    Send(SocketAddr, Vec<u8>),
}

/// What the tunnel sees of the world.
struct Outside {
    acts: Vec<Act>,
    now: Instant,
}

impl Ports for Outside {
    fn send(&mut self, to: SocketAddr, datagrams: &[IoSlice<'_>]) -> Result<(), Refusal> {
        let sent = datagrams.iter().map(|one| Act::Send(to, one.to_vec()));
        self.acts.extend(sent);
        Ok(())
    }

    fn deliver(&mut self, from: NodeId, frame: &[IoSlice<'_>]) -> Result<(), TapRefused> {
        self.acts.push(Act::Deliver(
            from,
            frame.iter().flat_map(|part| part.iter().copied()).collect(),
        ));
        Ok(())
    }

    fn report(&mut self, report: Report) -> bool {
        self.acts.push(Act::Report(report));
        true
    }

    fn link(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.acts.push(Act::Link(from, datagram.to_vec()));
    }

    fn promote(&mut self, peer: NodeId, index: SessionIndex) {
        let change = SessionChange::Promote { peer, index };
        self.acts.push(Act::Promote(change));
    }

    fn since(&self, sent: Instant) -> Duration {
        self.now.saturating_duration_since(sent)
    }
}

/// A host's packet workers, for one life of its router.
pub(crate) struct Workers {
    tunnel: Tunnel,
    view: Arc<View>,
    cells: Arc<Cells>,
    hints: Hints,
    /// Of every session that is received by.
    keys: BTreeMap<SessionIndex, SessionKeys>,
    /// When the simulation looks after what waits.
    pub(crate) wake: Option<Duration>,
}

impl Workers {
    /// Begins, with nobody to talk to.
    pub(crate) fn new(node: NodeId, now: Instant) -> Self {
        let nobody = Snapshot {
            generation: 0,
            node,
            mtu: Mtu::MESH,
            ranges: Vec::new(),
            host_addresses: Vec::new(),
            peers: Vec::new(),
            endpoints: Endpoints::default(),
        };
        let view = Arc::new(View::new(Arc::new(nobody)));
        let cells = Arc::new(Cells::default());
        Self {
            tunnel: Tunnel::new(&view, &cells, now),
            view,
            cells,
            hints: Hints::default(),
            keys: BTreeMap::new(),
            wake: None,
        }
    }

    fn act(&mut self, now: Instant, act: impl FnOnce(&mut Tunnel, &mut Turn<'_>)) -> Vec<Act> {
        let acts = Vec::new();
        let mut outside = Outside { acts, now };
        let ports = &mut outside;
        act(&mut self.tunnel, &mut Turn { ports, now });
        outside.acts
    }

    pub(crate) fn forward_by(&mut self, snapshot: Arc<Snapshot>, now: Instant) -> Vec<Act> {
        self.view = Arc::new(View::new(snapshot));
        let view = Arc::clone(&self.view);
        self.act(now, |tunnel, turn| {
            tunnel.outbound.set_view(Arc::clone(&view), turn);
            tunnel.inbound.set_view(view, turn);
        })
    }

    pub(crate) fn obey(&mut self, command: DataPlane, now: Instant) -> Vec<Act> {
        match &command {
            DataPlane::Install { keys, .. } | DataPlane::InstallReceiving { keys, .. } => {
                self.keys.insert(keys.local, keys.clone());
            }
            DataPlane::Retire { index } => {
                self.keys.remove(index);
            }
            DataPlane::AdmitLink(_)
            | DataPlane::Datagrams { .. }
            | DataPlane::PathProbe { .. }
            | DataPlane::Probe { .. }
            | DataPlane::RetireLink(_)
            | DataPlane::SessionMessage { .. } => {}
        }
        let orders = Orders::new(command, |_| Backend::Ring);
        self.act(now, |tunnel, turn| {
            for order in orders.inbound {
                tunnel.inbound.obey(order, turn);
            }
            if let Some(change) = orders.outbound {
                tunnel.outbound.change(change, turn);
            }
        })
    }

    pub(crate) fn promote(&mut self, change: SessionChange, now: Instant) -> Vec<Act> {
        self.act(now, |tunnel, turn| tunnel.outbound.change(change, turn))
    }

    /// Takes a frame off the bridge. It leaves before anything is said of it: the hub hears through a queue.
    pub(crate) fn capture(&mut self, frame: &[u8], now: Instant) -> Vec<Act> {
        let mut acts = self.act(now, |tunnel, turn| {
            let read = tunnel.outbound.read(|room| {
                let plain = [0; weft_router_proto::sleeve::vnet::LEN];
                let mut bytes = plain.iter().chain(frame).copied();
                for place in room.iter_mut().flat_map(|part| part.iter_mut()) {
                    let Some(byte) = bytes.next() else { break };
                    *place = byte;
                }
                plain.len() + frame.len()
            });
            tunnel.outbound.frame(read, turn);
            tunnel.outbound.flush(turn);
        });
        acts.sort_by_key(|act| !matches!(act, Act::Send(..)));
        acts
    }

    pub(crate) fn receive(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) -> Vec<Act> {
        self.act(now, |tunnel, turn| {
            tunnel.inbound.room(turn)[..bytes.len()].copy_from_slice(bytes);
            let len = bytes.len();
            tunnel.inbound.received(from, len, len, turn);
        })
    }

    /// When to call [`Self::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let inbound = self.tunnel.inbound.poll_timeout().map(|(at, _)| at);
        let outbound = self.tunnel.outbound.poll_timeout();
        inbound.into_iter().chain(outbound).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<Act> {
        self.act(now, |tunnel, turn| {
            if tunnel.outbound.poll_timeout().is_some_and(|at| now >= at) {
                tunnel.outbound.handle_timeout(turn);
            }
            tunnel.inbound.handle_timeout(turn);
        })
    }

    /// What is to be told of a router's word that a datagram was too large.
    pub(crate) fn too_big(&mut self, said: TooBig, now: Instant) -> Option<(SocketAddr, u16)> {
        let told = said.believed(&self.view);
        told.filter(|&(to, datagram)| self.hints.are_news(to, datagram, now))
    }

    pub(crate) fn cells(&self) -> &Cells {
        &self.cells
    }

    /// Our index of the session by which frames for a peer leave.
    pub(crate) fn session_to(&self, peer: NodeId) -> Option<SessionIndex> {
        self.tunnel.outbound.session(peer)
    }

    /// What somebody who has this host's keys reads in a datagram that it is about to send, if that passes on another's.
    pub(crate) fn pried_open(&self, datagram: &[u8]) -> Option<PriedOpen> {
        let head = Header::decode(datagram)?;
        if (head.kind, head.lane) != (Type::Data, RELAY_CONTROL_LANE) {
            return None;
        }
        let keys = self.keys.values().find(|keys| keys.remote == head.index)?;
        let direction = lane_key(&keys.send, head.lane);
        let key = AeadKey::new(Backend::Ring, keys.cipher, &direction);
        let mut bytes = datagram.to_vec();
        let (aad, sealed) = bytes.split_at_mut(header::LEN);
        let plain = key.open(head.counter, aad, sealed).ok()?;
        let (relayed, _) = Relayed::decode(plain.get(payload::LEN..)?).ok()?;
        let counter = head.counter;
        // What is its own is not passed on yet.
        (relayed.hops < relayed::HOPS).then_some(PriedOpen {
            key,
            counter,
            bytes,
        })
    }
}

/// Another's datagram within one of this host's, opened.
pub(crate) struct PriedOpen {
    key: AeadKey,
    counter: u64,
    bytes: Vec<u8>,
}

impl PriedOpen {
    /// Turns a bit over in what is carried, and closes it again.
    pub(crate) fn mutate(mut self) -> Vec<u8> {
        let plain = self.bytes.len() - TAG;
        self.bytes[plain - 1] ^= 1;
        let (aad, rest) = self.bytes.split_at_mut(header::LEN);
        let (body, tag) = rest.split_at_mut(plain - header::LEN);
        tag.copy_from_slice(&self.key.seal(self.counter, aad, body));
        self.bytes
    }
}
