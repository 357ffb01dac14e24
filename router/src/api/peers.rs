//! Tells of the other members.

use std::time::SystemTime;

use weft_api::peers::PeerStatus;
use weft_router_proto::status as core;

use super::events::timestamp;
use super::ping::milliseconds;
use super::report::Traffic;
use crate::worker::PeerTraffic;

/// What is told of every one of them.
pub(super) fn assemble(
    peers: &[core::PeerStatus],
    traffic: &Traffic,
    now: SystemTime,
) -> Vec<PeerStatus> {
    let counted = |peer: &core::PeerStatus| traffic.peers.get(&peer.id).copied();
    peers
        .iter()
        .map(|peer| one(peer, counted(peer).unwrap_or_default(), now))
        .collect()
}

fn one(peer: &core::PeerStatus, counted: PeerTraffic, now: SystemTime) -> PeerStatus {
    PeerStatus {
        id: peer.id,
        nickname: peer.nickname.clone(),
        addresses: peer.addresses.clone(),
        state: peer.state,
        path: peer.path,
        via: peer.via,
        endpoint: peer.endpoint,
        rtt_ms: peer.rtt.map(milliseconds),
        loss: peer.loss,
        mtu: peer.mtu,
        tx_bytes: counted.tx_bytes,
        rx_bytes: counted.rx_bytes,
        rx_forged: counted.rx_forged,
        since: timestamp(now.checked_sub(peer.since).unwrap_or(now)),
        reason: peer.reason.clone(),
    }
}
