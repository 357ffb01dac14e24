//! Follows a member's frames from relay to relay.

use weft_api::ping::PingRequest;
use weft_api::status::Status;
use weft_api::trace::{HopStatus, TRACE, TraceAnswer};
use weft_router_proto::io::Hop;
use weft_types::Problem;

use super::handle::Api;
use super::ping::{leads_to, milliseconds};
use super::routes::Routes;
use crate::ask::Ask;

pub(super) fn routes(routes: Routes) -> Routes {
    routes.on_request(TRACE, |api, request: PingRequest| async move {
        api.trace(&request.node).await
    })
}

impl Api {
    /// Follows a member's frames from relay to relay.
    pub async fn trace(&self, name: &str) -> Result<TraceAnswer, Problem> {
        let status = self.status().await?;
        let peer = status.find_peer(name)?;
        let hops = self.ask(Ask::trace(peer.id)).await?;
        Ok(TraceAnswer {
            node: peer.id,
            nickname: peer.nickname.clone(),
            complete: leads_to(&hops, peer.id),
            hops: hops.iter().map(|hop| assemble(&status, hop)).collect(),
        })
    }
}

fn assemble(status: &Status, hop: &Hop) -> HopStatus {
    HopStatus {
        from: hop.from,
        from_nickname: status.name_of(hop.from),
        to: hop.to,
        to_nickname: status.name_of(hop.to),
        path: hop.path,
        rtt_ms: hop.rtt.map(milliseconds),
        loss: hop.loss,
        mtu: hop.mtu,
    }
}
