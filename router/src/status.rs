//! Puts together how things stand: what the core knows, what was counted, and what the driver met.

use std::time::{Instant, SystemTime};

use weft_router_proto::overlay::HISTORY;
use weft_router_proto::status::{RouterStatus, TransitStatus};
use weft_types::{NodeId, Problem};

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
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use weft_router_proto::status::{
        NodeStatus, PathKind, PeerState, PeerStatus, SwitchStatus, TransitStatus,
    };
    use weft_types::{Nickname, WireCounters};

    use super::*;

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
