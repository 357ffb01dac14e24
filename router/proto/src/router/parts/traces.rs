//! Follows a member's frames from relay to relay: each node on the way is asked which way it takes itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weft_types::{Code, NodeId, Problem};

use crate::io::{Hop, Reply, RequestId};
use crate::letter::{Letter, WayReply, WayRequest};
use crate::router::ground::Reach;
use crate::status::PathKind;

/// As many hops as a relayed datagram may take, and the last.
const MAX_HOPS: usize = 5;
/// How long one node is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is asked meanwhile: letters get lost with the connections that they travel on.
const AGAIN: Duration = Duration::from_millis(300);
/// How many traces are under way at once.
const MAX_TRACES: usize = 16;

/// Traces under way, by the number of their letters.
#[derive(Default)]
pub(crate) struct Traces {
    under_way: BTreeMap<u64, Trace>,
}

struct Trace {
    id: RequestId,
    node: NodeId,
    hops: Vec<Hop>,
    /// Who is being asked.
    asked: NodeId,
    again_at: Instant,
    until: Instant,
}

impl Traces {
    /// Begins a trace to a node that frames leave for by `way`.
    ///
    /// # Errors
    ///
    /// [`Code::Internal`] if too many are under way.
    pub(crate) fn begin(
        &mut self,
        id: RequestId,
        node: NodeId,
        way: WayReply,
        reach: &mut Reach<'_>,
        now: Instant,
    ) -> Result<(), Problem> {
        if self.under_way.len() >= MAX_TRACES {
            return Err(
                Problem::new(Code::Internal, "too many traces are under way")
                    .fix("Try again in a few seconds"),
            );
        }
        let (request, ourself) = (reach.mesh.next_request(), reach.mesh.ourself);
        let trace = Trace {
            id,
            node,
            hops: Vec::new(),
            asked: ourself,
            again_at: now,
            until: now + PATIENCE,
        };
        self.under_way.insert(request, trace);
        self.handle_reply(ourself, &WayReply { request, ..way }, reach, now);
        Ok(())
    }

    /// A node on the way says which way it takes.
    pub(crate) fn handle_reply(
        &mut self,
        by: NodeId,
        told: &WayReply,
        reach: &mut Reach<'_>,
        now: Instant,
    ) {
        let trace = self.under_way.get_mut(&told.request);
        let Some(trace) = trace.filter(|trace| trace.asked == by) else {
            return;
        };
        match trace.extend(by, told) {
            Some(next) => {
                trace.asked = next;
                (trace.again_at, trace.until) = (now, now + PATIENCE);
                self.handle_timeout(reach, now);
            }
            None => self.end(told.request, reach),
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let due = |trace: &Trace| trace.again_at.min(trace.until);
        let first = self.under_way.values().map(due).min();
        first.map(|at| (at, "a node on the way is asked"))
    }

    /// Asks again, and gives up those that do not answer.
    pub(crate) fn handle_timeout(&mut self, reach: &mut Reach<'_>, now: Instant) {
        let mut ended = Vec::new();
        let mut ask = Vec::new();
        for (&request, trace) in &mut self.under_way {
            if trace.until <= now {
                ended.push(request);
            } else if trace.again_at <= now {
                trace.again_at = now + AGAIN;
                let to = trace.node;
                ask.push((trace.asked, WayRequest { request, to }));
            }
        }
        for request in ended {
            self.end(request, reach);
        }
        for (whom, letter) in ask {
            reach.send_sealed(whom, &Letter::WayRequest(letter));
        }
    }

    /// Tells what was found out; where a node did not answer the hops end at it.
    fn end(&mut self, request: u64, reach: &mut Reach<'_>) {
        if let Some(Trace { id, hops, .. }) = self.under_way.remove(&request) {
            reach.ground.reply(id, Reply::Trace(hops));
        }
    }
}

impl Trace {
    /// Adds a hop; gives who is to be asked next, if the way goes on.
    fn extend(&mut self, by: NodeId, told: &WayReply) -> Option<NodeId> {
        let next = match told.path {
            Some(PathKind::Relay) => told.via,
            Some(PathKind::Control | PathKind::Sleeve) | None => None,
        };
        self.hops.push(Hop {
            from: by,
            to: next.unwrap_or(self.node),
            path: told.path,
            rtt: told.rtt,
            loss: told.loss,
            mtu: told.mtu,
        });
        let seen = |node: NodeId| self.hops.iter().any(|hop| hop.from == node);
        next.filter(|&next| self.hops.len() < MAX_HOPS && next != self.node && !seen(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::testing::{Fixture, ID};

    fn way(request: u64, via: Option<NodeId>) -> WayReply {
        WayReply {
            request,
            path: Some(via.map_or(PathKind::Sleeve, |_| PathKind::Relay)),
            via,
            rtt: None,
            loss: 0.0,
            mtu: None,
        }
    }

    /// From whom to whom.
    fn hops(fixture: &mut Fixture) -> Vec<(NodeId, NodeId)> {
        let replies = fixture.replies();
        let [Reply::Trace(hops)] = replies.as_slice() else {
            panic!("{replies:?}");
        };
        hops.iter().map(|hop| (hop.from, hop.to)).collect()
    }

    /// A trace from us to another over a relay, who is asked first.
    fn begun(fixture: &mut Fixture) -> (Traces, NodeId, NodeId) {
        let (relay, node) = (fixture.admit("b"), fixture.admit("c"));
        let mut traces = Traces::default();
        let now = fixture.now;
        let begun = traces.begin(ID, node, way(0, Some(relay)), &mut fixture.reach(), now);
        begun.expect("the first");
        (traces, relay, node)
    }

    #[test]
    fn a_trace_ends_at_the_node_that_says_nothing_for_a_second() {
        let mut fixture = Fixture::new();
        let (mut traces, relay, _) = begun(&mut fixture);
        let (start, mut last) = (fixture.now, fixture.now);

        while let Some((at, _)) = traces.poll_timeout() {
            traces.handle_timeout(&mut fixture.reach(), at);
            last = at;
        }

        assert_eq!(last, start + PATIENCE);
        let ourself = fixture.mesh.ourself;
        assert_eq!(hops(&mut fixture), [(ourself, relay)]);
    }

    #[test]
    fn only_the_node_that_is_asked_says_how_the_way_goes_on() {
        let mut fixture = Fixture::new();
        let (mut traces, relay, node) = begun(&mut fixture);
        let now = fixture.now;

        traces.handle_reply(node, &way(1, None), &mut fixture.reach(), now);
        let early = fixture.replies();
        traces.handle_reply(relay, &way(1, None), &mut fixture.reach(), now);

        assert_eq!(early, []);
        let ourself = fixture.mesh.ourself;
        assert_eq!(hops(&mut fixture), [(ourself, relay), (relay, node)]);
    }

    #[test]
    fn a_way_that_leads_in_a_circle_ends() {
        let mut fixture = Fixture::new();
        let (mut traces, relay, _) = begun(&mut fixture);
        let (ourself, now) = (fixture.mesh.ourself, fixture.now);

        traces.handle_reply(relay, &way(1, Some(ourself)), &mut fixture.reach(), now);

        assert_eq!(hops(&mut fixture), [(ourself, relay), (relay, ourself)]);
    }

    #[test]
    fn one_trace_more_than_may_be_under_way_is_refused() {
        let mut fixture = Fixture::new();
        let (mut traces, relay, node) = begun(&mut fixture);
        let now = fixture.now;
        let mut again = || traces.begin(ID, node, way(0, Some(relay)), &mut fixture.reach(), now);

        for _ in 1..MAX_TRACES {
            again().expect("there is room");
        }

        let problem = again().expect_err("there is none");
        assert_eq!(problem.code, Code::Internal);
    }
}
