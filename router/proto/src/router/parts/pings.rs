//! Full-size probes through the data path that people ask for.
//!
//! A ping is answered when a probe came back *and* the way in use has answered probes of its own: which of several ways the
//! answer took shows only then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weft_types::{Code, NodeId, Problem};

use crate::io::{DataPlane, MAX_PINGS, MAX_PROBES, Pong, Reply, RequestId};
use crate::letter::WayReply;
use crate::router::ground::Reach;
use crate::router::ground::facts::OwnWay;
use crate::router::ground::mesh::Mesh;
use crate::status::PathKind;

/// How long a ping may take over a short way.
const PING: Duration = Duration::from_secs(3);
/// How much longer over a long one: a session is made first, over the control plane, and one probe may be lost.
const ROUND_TRIPS: u32 = 4;
/// How often an unanswered probe is sent again: the first may have waited for its session in vain.
const AGAIN: Duration = Duration::from_millis(250);
/// An Ethernet header and one VLAN tag: what a full-size frame has beyond the MTU.
const FRAME_OVERHEAD: u16 = 18;

/// Pings under way.
#[derive(Default)]
pub(crate) struct Pings {
    under_way: BTreeMap<RequestId, Ping>,
    probes: u64,
}

struct Ping {
    node: NodeId,
    size: u16,
    again_at: Instant,
    begun: Instant,
    until: Instant,
    /// Each probe that left has a number of its own, so that an answer tells which of them came back.
    probes: Vec<u64>,
    /// It has come back, and the way that it took is not proved yet.
    came: Option<Came>,
}

/// A probe of a ping came back.
#[derive(Clone, Copy)]
struct Came {
    rtt: Duration,
    /// How many left before it.
    lost: u32,
}

impl Pings {
    /// Begins a ping.
    ///
    /// # Errors
    ///
    /// [`Code::PeerUnreachable`], or [`Code::Internal`] if too many are under way.
    pub(crate) fn begin(
        &mut self,
        id: RequestId,
        node: NodeId,
        reach: &mut Reach<'_>,
        now: Instant,
    ) -> Result<(), Problem> {
        let mesh = &reach.mesh;
        if !mesh.forwards_to(node) {
            return Err(mesh.not_reachable(node));
        }
        if self.under_way.len() >= MAX_PINGS {
            let name = mesh.name_of(node);
            return Err(
                Problem::new(Code::Internal, format!("{name} cannot be pinged now"))
                    .why(format!("{MAX_PINGS} pings of this host are under way"))
                    .fix("Try again in a few seconds, or ping less at once"),
            );
        }
        let ping = Ping {
            node,
            size: mesh.genesis.genesis().mtu.get() + FRAME_OVERHEAD,
            again_at: now,
            begun: now,
            until: now + PING,
            probes: Vec::new(),
            came: None,
        };
        self.under_way.insert(id, ping);
        self.probe(reach, now);
        Ok(())
    }

    /// Sends the probes that are due.
    fn probe(&mut self, reach: &mut Reach<'_>, now: Instant) {
        for ping in self.under_way.values_mut() {
            if ping.came.is_some() || ping.again_at > now {
                continue;
            }
            if ping.probes.len() == MAX_PROBES {
                ping.again_at = ping.until;
                continue;
            }
            self.probes += 1;
            ping.again_at = now + AGAIN;
            ping.probes.push(self.probes);
            reach.ground.data_plane(DataPlane::Probe {
                peer: ping.node,
                id: self.probes,
                size: ping.size,
            });
        }
    }

    /// A probe came back.
    pub(crate) fn handle_answer(&mut self, peer: NodeId, id: u64, rtt: Duration) {
        let pings = self.under_way.values_mut();
        for ping in pings.filter(|ping| ping.node == peer) {
            let at = ping.probes.iter().position(|&probe| probe == id);
            if let Some(lost) = at.and_then(|at| u32::try_from(at).ok()) {
                ping.came.get_or_insert(Came { rtt, lost });
            }
        }
    }

    /// Answers the pings that have come back by a way that is known.
    pub(crate) fn answer(&mut self, own_way: impl Fn(NodeId) -> OwnWay, reach: &mut Reach<'_>) {
        let came = self.under_way.iter();
        let came = came.filter_map(|(&id, ping)| Some((id, ping.node, ping.came?)));
        for (id, node, came) in came.collect::<Vec<_>>() {
            let OwnWay { is_proved, way } = own_way(node);
            if is_proved {
                self.pong(id, came, way, reach);
            }
        }
    }

    fn pong(&mut self, id: RequestId, came: Came, way: WayReply, reach: &mut Reach<'_>) {
        let Some(ping) = self.under_way.remove(&id) else {
            return;
        };
        let pong = Pong {
            rtt: came.rtt,
            size: ping.size,
            lost: came.lost,
            path: way.path.unwrap_or(PathKind::Sleeve),
            via: way.via,
            loss: way.loss,
            mtu: way.mtu,
        };
        reach.ground.reply(id, Reply::Pong(pong));
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let due = |ping: &Ping| match ping.came {
            Some(_) => (ping.until, "a ping's way is not proved"),
            None => (ping.again_at.min(ping.until), "a ping is out"),
        };
        self.under_way.values().map(due).min()
    }

    /// Ends the pings whose time is over, and probes again for the others.
    pub(crate) fn handle_timeout(
        &mut self,
        own_way: impl Fn(NodeId) -> OwnWay,
        reach: &mut Reach<'_>,
        now: Instant,
    ) {
        let pings = self.under_way.values_mut();
        for ping in pings.filter(|ping| ping.until <= now) {
            let link = reach.mesh.links.get(&ping.node);
            let way = link.and_then(|link| link.machine.rtt()).unwrap_or_default();
            ping.until = ping.begun + PING + ROUND_TRIPS * way;
        }
        let over = self.under_way.iter().filter(|(_, ping)| ping.until <= now);
        let over = over.map(|(&id, ping)| (id, ping.node, ping.came));
        for (id, node, came) in over.collect::<Vec<_>>() {
            match came {
                Some(came) => self.pong(id, came, own_way(node).way, reach),
                None => self.give_up(id, reach),
            }
        }
        self.probe(reach, now);
    }

    fn give_up(&mut self, id: RequestId, reach: &mut Reach<'_>) {
        if let Some(ping) = self.under_way.remove(&id) {
            let problem = explain(ping.node, ping.size, reach.mesh);
            reach.ground.reply(id, Reply::Failed(problem));
        }
    }
}

/// Why a full-size probe did not come back.
fn explain(node: NodeId, size: u16, mesh: &Mesh) -> Problem {
    let name = mesh.name_of(node);
    match mesh.links.get(&node) {
        Some(link) if link.passes_no_datagrams() => {
            Problem::new(Code::UdpBlocked, format!("no datagram passes between this host and {name}"))
                .why("TCP works, UDP does not")
                .fix("Let the UDP port of weft (6783 unless changed) through, in both directions, on both hosts and between them")
        }
        Some(_) => Problem::new(Code::FullSizeLost, format!("frames of {size} bytes do not reach {name}"))
            .why("small datagrams pass, full-size ones get lost")
            .fix("Let fragments, or ICMP \"fragmentation needed\", through; or create the mesh with a smaller --mtu"),
        None => Problem::new(Code::PeerUnreachable, format!("{name} does not answer"))
            .fix("`weft status` says since when and why"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::testing::{Fixture, ID};

    const fn nothing_known() -> WayReply {
        WayReply {
            request: 0,
            path: None,
            via: None,
            rtt: None,
            loss: 0.0,
            mtu: None,
        }
    }

    #[test]
    fn who_is_not_reachable_is_not_pinged() {
        let mut fixture = Fixture::new();
        let node = fixture.admit("b");
        let now = fixture.now;

        let begun = Pings::default().begin(ID, node, &mut fixture.reach(), now);

        let problem = begun.expect_err("nobody has heard of it");
        assert_eq!(problem.code, Code::PeerUnreachable);
        assert!(problem.what.starts_with("b ("), "{}", problem.what);
    }

    #[test]
    fn a_ping_that_nobody_answers_ends_with_a_reason() {
        let mut fixture = Fixture::new();
        let node = fixture.forward_to("b");
        let mut pings = Pings::default();
        let begun = fixture.now;
        let asked = pings.begin(ID, node, &mut fixture.reach(), begun);
        asked.expect("it is present");
        let unknown = |_| OwnWay {
            is_proved: false,
            way: nothing_known(),
        };

        while let Some((at, _)) = pings.poll_timeout() {
            assert!(at <= begun + PING, "it goes on");
            pings.handle_timeout(unknown, &mut fixture.reach(), at);
        }

        let replies = fixture.replies();
        let [Reply::Failed(problem)] = replies.as_slice() else {
            panic!("{replies:?}");
        };
        assert_eq!(problem.code, Code::PeerUnreachable);
    }

    #[test]
    fn a_ping_is_answered_when_its_way_is_proved_and_not_before() {
        let mut fixture = Fixture::new();
        let node = fixture.forward_to("b");
        let mut pings = Pings::default();
        let now = fixture.now;
        let asked = pings.begin(ID, node, &mut fixture.reach(), now);
        asked.expect("it is present");
        let way = |is_proved| {
            move |_| OwnWay {
                is_proved,
                way: nothing_known(),
            }
        };

        pings.handle_answer(node, 1, Duration::from_millis(3));
        pings.answer(way(false), &mut fixture.reach());
        let early = fixture.replies();
        pings.answer(way(true), &mut fixture.reach());

        assert_eq!(early, []);
        let replies = fixture.replies();
        assert!(
            matches!(replies.as_slice(), [Reply::Pong(pong)] if pong.rtt == Duration::from_millis(3)),
            "{replies:?}"
        );
    }
}
