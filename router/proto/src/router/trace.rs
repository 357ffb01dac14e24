//! Follows a member's frames from relay to relay: each node on the way is asked which way it takes itself.

use std::time::{Duration, Instant};

use weft_types::{Code, NodeId, Problem};

use super::Router;
use super::mesh::Mesh;
use crate::io::{Hop, Output, Reply, RequestId};
use crate::letter::{Letter, WayReply, WayRequest};
use crate::overlay::OverlayInput;
use crate::status::PathKind;

/// As many hops as a relayed datagram may take, and the last.
const MAX_HOPS: usize = 5;
/// How long one node is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is asked meanwhile: letters get lost with the connections that they travel on.
const AGAIN: Duration = Duration::from_millis(300);
/// How many traces are under way at once.
const MAX_TRACES: usize = 16;

/// A trace under way.
pub(super) struct Trace {
    id: RequestId,
    node: NodeId,
    hops: Vec<Hop>,
    /// Who is being asked.
    asked: NodeId,
    again_at: Instant,
    until: Instant,
}

impl Trace {
    pub(super) fn poll_timeout(&self) -> (Instant, &'static str) {
        (self.again_at.min(self.until), "a node on the way is asked")
    }
}

impl Mesh {
    /// By which way frames for `node` leave this host.
    pub(super) fn own_way(&self, node: NodeId) -> WayReply {
        let report = self
            .overlays
            .get(&node)
            .and_then(crate::overlay::Overlay::report);
        let (path, via) = match self.path_kind(node) {
            Some((path, via)) => (Some(path), via),
            None => (None, None),
        };
        WayReply {
            request: 0,
            path,
            via,
            rtt: report.as_ref().and_then(|report| report.rtt),
            loss: report.as_ref().map_or(0.0, |report| report.loss),
            mtu: report.and_then(|report| report.mtu),
        }
    }
}

impl Router {
    pub(super) fn trace(
        &mut self,
        id: RequestId,
        node: NodeId,
        now: Instant,
    ) -> Result<(), Problem> {
        let ourself = self.node();
        let mesh = self.mesh.as_mut().ok_or_else(super::commands::not_joined)?;
        if !mesh.overlays.contains_key(&node) {
            return Err(Problem::new(
                Code::PeerUnreachable,
                format!("{} is not reachable at the moment", mesh.name_of(node)),
            )
            .fix("`weft status` says since when and why"));
        }
        if mesh.traces.len() >= MAX_TRACES {
            return Err(
                Problem::new(Code::Internal, "too many traces are under way")
                    .fix("Try again in a few seconds"),
            );
        }
        // A way that is asked about is probed, as one that frames take.
        if let Some(overlay) = mesh.overlays.get_mut(&node) {
            overlay.handle_input(OverlayInput::Traffic, now);
        }
        let way = mesh.own_way(node);
        mesh.requests += 1;
        let request = mesh.requests;
        let trace = Trace {
            id,
            node,
            hops: Vec::new(),
            asked: ourself,
            again_at: now,
            until: now + PATIENCE,
        };
        mesh.traces.insert(request, trace);
        self.way_told(ourself, &WayReply { request, ..way }, now);
        Ok(())
    }

    /// Somebody asks by which way frames for another leave this host.
    pub(super) fn way_requested(&mut self, by: NodeId, asked: &WayRequest, now: Instant) {
        let Some(mesh) = &mut self.mesh else { return };
        if let Some(overlay) = mesh.overlays.get_mut(&asked.to) {
            overlay.handle_input(OverlayInput::Traffic, now);
        }
        let reply = WayReply {
            request: asked.request,
            ..mesh.own_way(asked.to)
        };
        self.send_sealed(by, &Letter::WayReply(reply), now);
    }

    /// A node on the way says which way it takes.
    pub(super) fn way_told(&mut self, by: NodeId, told: &WayReply, now: Instant) {
        let Some(mesh) = &mut self.mesh else { return };
        let Some(trace) = mesh.traces.get_mut(&told.request) else {
            return;
        };
        if trace.asked != by {
            return;
        }
        let next = match told.path {
            Some(PathKind::Relay) => told.via,
            Some(PathKind::Control | PathKind::Sleeve) | None => None,
        };
        trace.hops.push(Hop {
            from: by,
            to: next.unwrap_or(trace.node),
            path: told.path,
            rtt: told.rtt,
            loss: told.loss,
            mtu: told.mtu,
        });
        let seen = |node: NodeId| trace.hops.iter().any(|hop| hop.from == node);
        match next.filter(|&next| trace.hops.len() < MAX_HOPS && next != trace.node && !seen(next))
        {
            Some(next) => {
                trace.asked = next;
                (trace.again_at, trace.until) = (now, now + PATIENCE);
                self.wake_traces(now);
            }
            None => self.end_trace(told.request),
        }
    }

    pub(super) fn wake_traces(&mut self, now: Instant) {
        let Some(mesh) = &mut self.mesh else { return };
        let over = |trace: &Trace| trace.until <= now;
        let ended: Vec<u64> = mesh
            .traces
            .iter()
            .filter(|(_, trace)| over(trace))
            .map(|(&request, _)| request)
            .collect();
        let mut ask = Vec::new();
        for (&request, trace) in &mut mesh.traces {
            if !over(trace) && trace.again_at <= now {
                trace.again_at = now + AGAIN;
                let to = trace.node;
                ask.push((trace.asked, WayRequest { request, to }));
            }
        }
        for request in ended {
            self.end_trace(request);
        }
        for (whom, letter) in ask {
            self.send_sealed(whom, &Letter::WayRequest(letter), now);
        }
    }

    /// Tells what was found out; where a node did not answer the hops end at it.
    fn end_trace(&mut self, request: u64) {
        let Some(mesh) = &mut self.mesh else { return };
        if let Some(Trace { id, hops, .. }) = mesh.traces.remove(&request) {
            self.outputs.push_back(Output::Reply {
                id,
                reply: Reply::Trace(hops),
            });
        }
    }
}
