//! Puts what the core knows and what the workers counted together: how things stand.

use std::time::SystemTime;

use weft_api::Route;
use weft_api::status::{MeshStatus, NodeStatus, RelayedStatus, STATUS, Status};
use weft_router_proto::status::{self as core, RouterStatus};
use weft_types::{PeerState, Problem};

use super::handle::Api;
use super::report::{Report, Traffic};
use super::routes::Routes;
use super::{connections, containers, peers, targets, wire};

/// The same by TCP.
const PAGE: Route<(), Status> = Route::get("/status");

pub(super) fn routes(routes: Routes) -> Routes {
    routes.on(STATUS, |api| async move { api.status().await })
}

pub(super) fn page(routes: Routes) -> Routes {
    routes.on(PAGE, |api| async move { api.status().await })
}

impl Api {
    /// How things stand.
    pub async fn status(&self) -> Result<Status, Problem> {
        let report = self.report().await?;
        let mut status = assemble(report, self.release(), SystemTime::now());
        status.problems.extend_from_slice(self.problems());
        Ok(status)
    }
}

/// Says how things stand. Ages become times of day by the clock of the moment, so a jump of the clock moves them and
/// nothing else; switches keep the time that they have.
fn assemble(report: Report, version: &str, now: SystemTime) -> Status {
    let Report {
        core,
        traffic,
        times,
    } = report;
    let peers = peers::assemble(&core.peers, &traffic, now);
    Status {
        version: version.to_owned(),
        mesh: mesh(&core),
        wire: wire::assemble(&core),
        connections: connections::assemble(&core.peers, &peers, &times, now),
        peers,
        relayed: relayed(&traffic),
        switches: connections::count(&core.switches),
        node: node(core.node),
        containers: core
            .containers
            .into_iter()
            .map(containers::assemble)
            .collect(),
        problems: core.problems,
        targets: core.targets.into_iter().map(targets::assemble).collect(),
        drops: drops(traffic),
    }
}

fn mesh(core: &RouterStatus) -> Option<MeshStatus> {
    let mesh = core.mesh.as_ref()?;
    let is_connected = |peer: &&core::PeerStatus| peer.state == PeerState::Connected;
    Some(MeshStatus {
        name: mesh.name.clone(),
        id: mesh.id,
        encrypted: mesh.encrypted,
        members: mesh.members,
        connected: core.peers.iter().filter(is_connected).count(),
        mtu: mesh.mtu.get(),
        ranges: mesh.ranges.clone(),
    })
}

fn node(node: core::NodeStatus) -> NodeStatus {
    NodeStatus {
        id: node.id,
        nickname: node.nickname,
        addresses: node.addresses,
        uptime_seconds: node.uptime.as_secs(),
        advertised: node.advertised,
    }
}

fn relayed(traffic: &Traffic) -> Vec<RelayedStatus> {
    let carried = traffic.relayed.iter();
    carried
        .map(|(&(from, to), carried)| RelayedStatus {
            from,
            to,
            datagrams: carried.datagrams,
            bytes: carried.bytes,
        })
        .collect()
}

fn drops(traffic: Traffic) -> std::collections::BTreeMap<String, u64> {
    let drops = traffic.drops.into_iter();
    drops
        .map(|(reason, count)| (reason.to_owned(), count))
        .collect()
}
