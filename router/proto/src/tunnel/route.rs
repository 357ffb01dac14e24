//! Every peer as one half of a tunnel sends to it.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

use weft_types::NodeId;

use super::counters::{Cells, PeerCell};
use super::said::Said;
use super::sending::Sending;
use super::view::View;
use super::waiting::WaitingRoom;
use crate::overlay::Path;
use crate::sleeve::SessionIndex;
use crate::sleeve::lane::{Part, SendLane};
use crate::switch::DropReason;

/// Names a route of one half: it outlives snapshots, as a position in them does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RouteId(pub(super) usize);

/// One peer, as it is sent to.
pub(super) struct Route {
    pub(super) node: NodeId,
    /// `None` while there is no way, or the peer is absent.
    pub(super) path: Option<Path>,
    pub(super) sending: Sending,
    pub(super) room: WaitingRoom,
    pub(super) said: Said,
    /// One call for many datagrams was refused on this path.
    pub(super) single: bool,
    pub(super) cell: Arc<PeerCell>,
}

impl Route {
    /// The largest datagram; none fits while there is no way.
    pub(super) fn datagram(&self) -> usize {
        self.path.map_or(0, |path| usize::from(path.datagram))
    }

    /// What seals for the peer, and why not.
    pub(super) fn lane(&mut self, part: Part) -> Result<&mut SendLane, DropReason> {
        let slot = self.path.map(|path| path.slot);
        let lane = |slot: crate::overlay::Slot| match part {
            Part::Control => slot.control_lane(),
            Part::Frames => slot.frames_lane(),
        };
        if self.sending.in_use().is_none() {
            return Err(DropReason::NoSession);
        }
        let lane = lane(slot.ok_or(DropReason::NoAddress)?);
        self.sending.lane(lane).ok_or(DropReason::NoSession)
    }
}

/// All routes, and which of them the peers of the snapshot have.
pub(super) struct Routes {
    routes: Vec<Route>,
    /// From a peer's position in the snapshot to its route.
    positions: Vec<RouteId>,
    cells: Arc<Cells>,
}

impl Routes {
    pub(super) const fn new(cells: Arc<Cells>) -> Self {
        Self {
            routes: Vec::new(),
            positions: Vec::new(),
            cells,
        }
    }

    /// Follows a snapshot; what its largest datagram is. Sessions outlive a peer's absence.
    pub(super) fn follow(&mut self, view: &View) -> usize {
        self.positions.clear();
        for route in &mut self.routes {
            if view.snapshot.peer(route.node).is_none() {
                route.path = None;
            }
        }
        let mut largest = 0;
        for peer in &view.snapshot.peers {
            let id = self.of(peer.node);
            let route = &mut self[id];
            if route.path != peer.path {
                (route.path, route.single) = (peer.path, false);
            }
            largest = largest.max(route.datagram());
            self.positions.push(id);
        }
        largest
    }

    /// The route of the peer at a position in the snapshot.
    pub(super) fn at(&self, position: usize) -> Option<RouteId> {
        self.positions.get(position).copied()
    }

    /// A node's route, made if there is none.
    pub(super) fn of(&mut self, node: NodeId) -> RouteId {
        let found = self.routes.iter().position(|route| route.node == node);
        RouteId(found.unwrap_or_else(|| {
            self.routes.push(Route {
                node,
                path: None,
                sending: Sending::default(),
                room: WaitingRoom::default(),
                said: Said::default(),
                single: false,
                cell: self.cells.peer(node),
            });
            self.routes.len() - 1
        }))
    }

    /// Forgets a session, whoever it is with.
    pub(super) fn retire(&mut self, index: SessionIndex) {
        for route in &mut self.routes {
            route.sending.retire(index);
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = RouteId> + use<> {
        (0..self.routes.len()).map(RouteId)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }
}

impl Index<RouteId> for Routes {
    type Output = Route;

    fn index(&self, RouteId(number): RouteId) -> &Route {
        &self.routes[number]
    }
}

impl IndexMut<RouteId> for Routes {
    fn index_mut(&mut self, RouteId(number): RouteId) -> &mut Route {
        &mut self.routes[number]
    }
}
