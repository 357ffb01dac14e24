//! Puts together how things stand: what the core knows, what was counted, and what the driver met.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use weft_router_proto::overlay::HISTORY;
use weft_router_proto::status::{RouterStatus, TransitStatus};
use weft_types::{Code, NodeId, Problem};

use crate::api::{Report, SwitchTimes, Traffic};
use crate::tcp::TcpCounters;

/// Adds to the core's view what only the driver knows.
pub(crate) fn report(
    mut core: RouterStatus,
    times: SwitchTimes,
    mut traffic: Traffic,
    tcp: TcpCounters,
    met: &[Problem],
) -> Report {
    core.problems.extend_from_slice(met);
    // Link datagrams are opened by the core, those of sessions by the workers: on the wire they are one kind.
    core.counters.auth_drops += traffic.auth_drops;
    core.counters.replay_drops += traffic.replay_drops;
    add_transit(&mut traffic, &core.transit);
    let dropped = dropped_connections(tcp).filter(|&(_, count)| count > 0);
    traffic.drops.extend(dropped);
    Report {
        core,
        traffic,
        times,
    }
}

/// How long a member is told of that has sent frames in another's name.
const FORGED: Duration = Duration::from_secs(3600);

/// Remembers who has sent frames in another's name.
#[derive(Debug, Default)]
pub(crate) struct ForgeryWatch {
    /// How many there were when they were last more than before, and when that was.
    seen: BTreeMap<NodeId, (u64, Instant)>,
}

impl ForgeryWatch {
    /// Takes what was counted by now; a problem for each member that has done it lately.
    pub(crate) fn problems(
        &mut self,
        core: &RouterStatus,
        traffic: &Traffic,
        now: Instant,
    ) -> Vec<Problem> {
        for (&node, peer) in traffic.peers.iter().filter(|(_, peer)| peer.rx_forged > 0) {
            let seen = self.seen.entry(node).or_insert((0, now));
            if seen.0 != peer.rx_forged {
                *seen = (peer.rx_forged, now);
            }
        }
        self.seen
            .retain(|node, _| core.peers.iter().any(|peer| peer.id == *node));
        let lately = self.seen.iter();
        lately
            .filter(|(_, (_, at))| now.duration_since(*at) < FORGED)
            .map(|(&node, &(count, _))| forges(core, node, count))
            .collect()
    }
}

fn forges(core: &RouterStatus, node: NodeId, count: u64) -> Problem {
    let peer = core.peers.iter().find(|peer| peer.id == node);
    let name = peer.map_or_else(
        || node.short(),
        |peer| format!("{} ({})", peer.nickname, node.short()),
    );
    let what = format!("{name} sends frames in another's name: {count} were dropped here");
    Problem::new(Code::OwnerViolation, what)
        .why("they bear addresses that are not its own, which the router of an honest member does not let out")
        .fix(format!(
            "See what runs on {name}. weft status wire counts what was dropped, and why; this is told for an hour after the last"
        ))
}

/// What is passed on is passed on, whatever carries it.
fn add_transit(traffic: &mut Traffic, transit: &TransitStatus) {
    for (&pair, &(datagrams, bytes)) in &transit.carried {
        let carried = traffic.relayed.entry(pair).or_default();
        carried.datagrams += datagrams;
        carried.bytes += bytes;
    }
    for (reason, &count) in &transit.drops {
        *traffic.drops.entry(reason.label()).or_default() += count;
    }
}

fn dropped_connections(tcp: TcpCounters) -> impl Iterator<Item = (&'static str, u64)> {
    let evicted = ("connection_evicted", tcp.evicted);
    let overflowed = ("connection_overflowed", tcp.overflowed);
    [evicted, overflowed].into_iter()
}

/// Remembers what the clock showed when ways changed: the core has no clock, and what is told twice must be told alike,
/// however the clock is set meanwhile.
#[derive(Debug, Default)]
pub(crate) struct SwitchClock {
    times: SwitchTimes,
}

impl SwitchClock {
    /// A peer's way changed at this moment, which is now.
    pub(crate) fn note(&mut self, node: NodeId, at: Instant, clock: SystemTime) {
        let times = self.times.entry(node).or_default();
        times.entry(at).or_insert(clock);
        while times.len() > HISTORY {
            times.pop_first();
        }
    }

    /// The times of what the core tells of. What no event told of (a peer's first way) gets its time by its age, once.
    pub(crate) fn times(
        &mut self,
        core: &RouterStatus,
        now: Instant,
        clock: SystemTime,
    ) -> SwitchTimes {
        let known = |node: &NodeId| core.peers.iter().any(|peer| peer.id == *node);
        self.times.retain(|node, _| known(node));
        for peer in &core.peers {
            let times = self.times.entry(peer.id).or_default();
            times.retain(|at, _| peer.switches.iter().any(|switch| switch.at == *at));
            for switch in &peer.switches {
                let age = now.saturating_duration_since(switch.at);
                times
                    .entry(switch.at)
                    .or_insert_with(|| clock.checked_sub(age).unwrap_or(clock));
            }
        }
        self.times.clone()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use weft_router_proto::status::{
        NodeStatus, PathKind, PeerState, PeerStatus, SwitchStatus, TransitStatus,
    };
    use weft_types::{Nickname, WireCounters};

    use super::*;
    use crate::worker::PeerTraffic;

    const PEER: NodeId = NodeId::new([1; 32]);

    /// What a core says that is in no mesh and knows nobody.
    pub(crate) fn alone() -> RouterStatus {
        RouterStatus {
            mesh: None,
            node: NodeStatus {
                id: NodeId::new([9; 32]),
                nickname: Nickname::new("a").unwrap(),
                addresses: Vec::new(),
                uptime: Duration::ZERO,
                advertised: Vec::new(),
            },
            peers: Vec::new(),
            targets: Vec::new(),
            containers: Vec::new(),
            tokens: Vec::new(),
            problems: Vec::new(),
            counters: WireCounters::default(),
            ciphers: BTreeSet::new(),
            transit: TransitStatus::default(),
            switches: BTreeMap::new(),
        }
    }

    /// What a core says that knows one peer, whose way changed at these moments.
    fn status_of(id: NodeId, changes: &[Instant]) -> RouterStatus {
        let switch = |&at: &Instant| SwitchStatus {
            at,
            path: PathKind::Sleeve,
            via: None,
            reason: String::new(),
        };
        let peer = PeerStatus {
            id,
            nickname: Nickname::new("b").unwrap(),
            addresses: Vec::new(),
            state: PeerState::Connected,
            path: Some(PathKind::Sleeve),
            via: None,
            mtu: None,
            switches: changes.iter().map(switch).collect(),
            endpoint: None,
            rtt: None,
            loss: 0.0,
            since: Duration::ZERO,
            reason: String::new(),
            cipher: None,
        };
        RouterStatus {
            peers: vec![peer],
            ..alone()
        }
    }

    #[test]
    fn who_sends_in_another_s_name_is_named_until_it_has_not_for_an_hour() {
        let now = Instant::now();
        let core = status_of(PEER, &[]);
        let mut watch = ForgeryWatch::default();
        let mut told = |rx_forged, at: Instant| {
            let counted = PeerTraffic {
                rx_forged,
                ..PeerTraffic::default()
            };
            let traffic = Traffic {
                peers: BTreeMap::from([(PEER, counted)]),
                ..Traffic::default()
            };
            watch.problems(&core, &traffic, at)
        };

        assert_eq!(told(0, now), []);
        let problems = told(3, now);
        assert_eq!(problems[0].code, Code::OwnerViolation);
        assert!(
            problems[0]
                .what
                .starts_with(&format!("b ({})", PEER.short()))
        );
        assert_eq!(told(3, now + FORGED / 2), problems);
        assert_eq!(told(3, now + FORGED), []);
        assert_eq!(told(4, now + 2 * FORGED).len(), 1);
    }

    #[test]
    fn a_switch_keeps_the_time_that_its_event_told() {
        let (now, clock, second) = (Instant::now(), SystemTime::now(), Duration::from_secs(1));
        let mut switches = SwitchClock::default();
        let status = |at: &[Instant]| status_of(PEER, at);

        switches.note(PEER, now, clock);
        // The clock is set back a day meanwhile.
        let later = clock - 86_400 * second;
        let told = switches.times(&status(&[now - second, now]), now + second, later);
        let again = switches.times(&status(&[now - second, now]), now + 9 * second, clock);

        assert_eq!(told[&PEER][&now], clock);
        assert_eq!(told[&PEER][&(now - second)], later - 2 * second);
        assert_eq!(again, told);
    }

    #[test]
    fn no_more_is_remembered_than_is_told() {
        let (now, clock) = (Instant::now(), SystemTime::now());
        let mut switches = SwitchClock::default();

        for age in 0..100 {
            switches.note(PEER, now + Duration::from_secs(age), clock);
        }

        assert_eq!(switches.times[&PEER].len(), HISTORY);
        let told = switches.times(&status_of(NodeId::new([2; 32]), &[]), now, clock);
        assert!(!told.contains_key(&PEER));
    }
}
