//! Sends a full-size probe to a member and back, and says by what way it went.

use std::time::Duration;

use weft_api::peers::PeerStatus;
use weft_api::ping::{PING, PingAnswer, PingRequest, RelayStatus};
use weft_api::status::Status;
use weft_router_proto::io::{Hop, Pong};
use weft_types::{NodeId, PathKind, PeerState, Problem};

use super::handle::Api;
use super::routes::Routes;
use crate::ask::Ask;

pub(super) fn routes(routes: Routes) -> Routes {
    routes.on_request(PING, |api, request: PingRequest| async move {
        api.ping(&request.node).await
    })
}

impl Api {
    /// Sends a full-size probe to a member and back.
    pub async fn ping(&self, name: &str) -> Result<PingAnswer, Problem> {
        let status = self.status().await?;
        let peer = status.find_peer(name)?;
        let pong = self.ask(Ask::ping(peer.id)).await?;
        // Only a relay can say where it passes frames on to; a way that cannot be followed is no failure of the ping.
        let hops = match pong.path {
            PathKind::Relay => self.ask(Ask::trace(peer.id)).await.unwrap_or_default(),
            PathKind::Control | PathKind::Sleeve => Vec::new(),
        };
        Ok(answer(&status, peer, &pong, &hops))
    }
}

/// Puts a probe that came back from a member into words. `hops` is the way as it was followed, if it was.
pub fn answer(status: &Status, peer: &PeerStatus, pong: &Pong, hops: &[Hop]) -> PingAnswer {
    let (count, relays) = way(peer, pong, hops);
    let relay = |node| RelayStatus {
        node,
        nickname: status.name_of(node),
    };
    PingAnswer {
        node: peer.id,
        nickname: peer.nickname.clone(),
        addresses: peer.addresses.clone(),
        path: Some(pong.path),
        via: pong.via,
        hops: count,
        relays: relays.into_iter().map(relay).collect(),
        rtt_ms: milliseconds(pong.rtt),
        lost: pong.lost,
        loss: pong.loss,
        mtu: pong.mtu,
        bytes: pong.size,
    }
}

/// How many hops a probe took, and who passed it on, as far as that is known.
fn way(peer: &PeerStatus, pong: &Pong, hops: &[Hop]) -> (Option<usize>, Vec<NodeId>) {
    let followed = hops.first().map(|hop| hop.to) == pong.via;
    match pong.path {
        PathKind::Sleeve => (Some(1), Vec::new()),
        PathKind::Control => {
            let linked = peer.state == PeerState::Connected;
            (linked.then_some(1), Vec::new())
        }
        PathKind::Relay if followed => {
            let relays = hops.iter().map(|hop| hop.to).filter(|&to| to != peer.id);
            (
                leads_to(hops, peer.id).then_some(hops.len()),
                relays.collect(),
            )
        }
        PathKind::Relay => (None, pong.via.into_iter().collect()),
    }
}

/// Whether the last of these hops leads to a node.
pub(super) fn leads_to(hops: &[Hop], node: NodeId) -> bool {
    let last = hops.last();
    last.is_some_and(|hop| hop.to == node && hop.path.is_some())
}

/// A duration as people compare them.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
