//! Tells how each other member is reached, and how that has changed.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use weft_api::connections::{ConnectionStatus, SwitchCount, SwitchStatus};
use weft_api::peers::PeerStatus;
use weft_router_proto::status::{self as core, Switching};

use super::events::timestamp;
use super::report::SwitchTimes;

/// What is told of every member: what stands in `peers`, and the switches, which only the core knows.
pub(super) fn assemble(
    known: &[core::PeerStatus],
    peers: &[PeerStatus],
    times: &SwitchTimes,
    now: SystemTime,
) -> Vec<ConnectionStatus> {
    let both = known.iter().zip(peers);
    both.map(|(known, peer)| one(peer, switches(known, times.get(&known.id), now)))
        .collect()
}

fn one(peer: &PeerStatus, switches: Vec<SwitchStatus>) -> ConnectionStatus {
    ConnectionStatus {
        node: peer.id,
        nickname: peer.nickname.clone(),
        state: peer.state,
        path: peer.path,
        via: peer.via,
        endpoint: peer.endpoint,
        since: peer.since.clone(),
        reason: peer.reason.clone(),
        switches,
    }
}

fn switches(
    peer: &core::PeerStatus,
    times: Option<&BTreeMap<Instant, SystemTime>>,
    now: SystemTime,
) -> Vec<SwitchStatus> {
    let when = |at: &Instant| times.and_then(|times| times.get(at).copied());
    peer.switches
        .iter()
        .map(|switch| SwitchStatus {
            time: timestamp(when(&switch.at).unwrap_or(now)),
            path: switch.path,
            via: switch.via,
            reason: switch.reason.clone(),
        })
        .collect()
}

/// How often frames have left one way for another.
pub(super) fn count(switches: &BTreeMap<Switching, u64>) -> Vec<SwitchCount> {
    switches
        .iter()
        .map(|(switching, &count)| SwitchCount {
            from: switching.from,
            to: switching.to,
            reason: switching.why,
            count,
        })
        .collect()
}
