//! Writes a [`Status`] in the words of Prometheus (OpenMetrics text).
//!
//! Names are `weft_*` in base units; `docs/metrics.md` lists them, and [`weft_types::WireCounters`] declares
//! those of the wire. Labels are bounded by the mesh: nicknames, paths, reasons
//! and codes, never addresses. Two members of one nickname are told apart by the beginning of their identity.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use weft_api::peers::PeerStatus;
use weft_api::status::Status;
use weft_types::{Code, NodeId, PathKind, PeerState, Problem};

use super::handle::Api;
use super::routes::{Routes, refusal};

/// What the answer is: the version is the text format's own.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(String, String)>;
type Number = Gauge<f64, AtomicU64>;

pub(super) fn routes(routes: Routes) -> Routes {
    routes.at("/metrics", get(page))
}

async fn page(State(api): State<Api>) -> Response {
    match read(&api).await {
        Ok(page) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
        Err(problem) => refusal(&problem),
    }
}

async fn read(api: &Api) -> Result<String, Problem> {
    render(&api.status().await?).map_err(|error| {
        Problem::new(Code::Internal, "metrics cannot be written").why(error.to_string())
    })
}

/// Makes the whole page. Everything is registered anew per scrape: a status is the only state there is.
fn render(status: &Status) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("weft");
    registry.register(
        "build",
        "The release that runs",
        Info::new(vec![("version", status.version.clone())]),
    );
    single(
        &mut registry,
        "members",
        "Members of the mesh, this node included",
        status.mesh.as_ref().map_or(0, |mesh| mesh.members as u64),
    );
    single(
        &mut registry,
        "uptime_seconds",
        "Since the router was started",
        status.node.uptime_seconds,
    );
    for one in status.wire.counters.table() {
        counter(&mut registry, one.metric, one.help, one.value);
    }
    by_reason(&mut registry, &status.drops);
    problems(&mut registry, status);
    peers(&mut registry, status);
    paths(&mut registry, status);
    switches(&mut registry, status);
    relayed(&mut registry, status);

    let mut page = String::new();
    encode(&mut page, &registry)?;
    Ok(page)
}

fn single(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Number::default();
    gauge.set(value as f64);
    registry.register(name, help, gauge);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter = Counter::<u64>::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn by_reason(registry: &mut Registry, drops: &BTreeMap<String, u64>) {
    let family = Family::<Labels, Counter>::default();
    for (reason, count) in drops {
        family
            .get_or_create(&vec![label("reason", reason)])
            .inc_by(*count);
    }
    registry.register("drop_packets", "Frames and datagrams dropped", family);
}

fn problems(registry: &mut Registry, status: &Status) {
    let family = Family::<Labels, Gauge>::default();
    for problem in &status.problems {
        family
            .get_or_create(&vec![label("code", &problem.code.to_string())])
            .inc();
    }
    registry.register("problems", "What is wrong at the moment", family);
}

fn peers(registry: &mut Registry, status: &Status) {
    let up = Family::<Labels, Gauge>::default();
    let rtt = Family::<Labels, Number>::default();
    let loss = Family::<Labels, Number>::default();
    let mtu = Family::<Labels, Gauge>::default();
    let tx = Family::<Labels, Counter>::default();
    let rx = Family::<Labels, Counter>::default();
    let forged = Family::<Labels, Counter>::default();
    for peer in &status.peers {
        let name = vec![label("peer", &unique_name(peer, &status.peers))];
        let mut with_path = name.clone();
        with_path.push(label("path", path_name(peer.path)));
        up.get_or_create(&with_path)
            .set(i64::from(peer.state == PeerState::Connected));
        if let Some(milliseconds) = peer.rtt_ms {
            rtt.get_or_create(&name).set(milliseconds / 1e3);
        }
        loss.get_or_create(&name).set(peer.loss);
        if let Some(bytes) = peer.mtu {
            mtu.get_or_create(&name).set(i64::from(bytes));
        }
        tx.get_or_create(&name).inc_by(peer.tx_bytes);
        rx.get_or_create(&name).inc_by(peer.rx_bytes);
        forged.get_or_create(&name).inc_by(peer.rx_forged);
    }
    registry.register("peer_up", "Whether the peer is reached", up);
    registry.register_with_unit("peer_rtt", "Smoothed round trip", Unit::Seconds, rtt);
    registry.register_with_unit("peer_loss", "Share of heartbeats lost", Unit::Ratios, loss);
    registry.register_with_unit(
        "mtu",
        "Largest IP packet that passes whole",
        Unit::Bytes,
        mtu,
    );
    registry.register_with_unit("tx", "Sealed bytes sent", Unit::Bytes, tx);
    registry.register_with_unit("rx", "Genuine sealed bytes received", Unit::Bytes, rx);
    registry.register(
        "rx_forged_frames",
        "Frames from the peer that spoke in another's name",
        forged,
    );
}

/// How many peers each kind of way serves, zeroes included.
fn paths(registry: &mut Registry, status: &Status) {
    let peers = Family::<Labels, Gauge>::default();
    let kinds = PathKind::ALL.into_iter().map(Some).chain([None]);
    for path in kinds {
        let served = status.peers.iter().filter(|peer| peer.path == path).count();
        peers
            .get_or_create(&vec![label("path", path_name(path))])
            .set(i64::try_from(served).unwrap_or(i64::MAX));
    }
    registry.register(
        "peers",
        "Other members, by what their frames travel by",
        peers,
    );
}

/// How often one way was left for another.
fn switches(registry: &mut Registry, status: &Status) {
    let switches = Family::<Labels, Counter>::default();
    for switch in &status.switches {
        let labels = vec![
            label("from", switch.from.name()),
            label("to", switch.to.name()),
            label("reason", switch.reason.name()),
        ];
        switches.get_or_create(&labels).inc_by(switch.count);
    }
    let help = "How often frames left one way for another";
    registry.register("path_switches", help, switches);
}

fn relayed(registry: &mut Registry, status: &Status) {
    let datagrams = Family::<Labels, Counter>::default();
    let bytes = Family::<Labels, Counter>::default();
    for carried in &status.relayed {
        let labels = vec![
            label("from", &member(carried.from, &status.peers)),
            label("to", &member(carried.to, &status.peers)),
        ];
        datagrams.get_or_create(&labels).inc_by(carried.datagrams);
        bytes.get_or_create(&labels).inc_by(carried.bytes);
    }
    let help = "Datagrams passed on for other members";
    registry.register("relayed_datagrams", help, datagrams);
    let help = "Sealed bytes passed on for other members";
    registry.register_with_unit("relayed", help, Unit::Bytes, bytes);
}

/// What a member is called; by its identity where it is known no longer.
fn member(node: NodeId, peers: &[PeerStatus]) -> String {
    let known = peers.iter().find(|peer| peer.id == node);
    known.map_or_else(|| node.short(), |peer| unique_name(peer, peers))
}

/// The nickname; where two members share one, with the beginning of the identity.
fn unique_name(peer: &PeerStatus, peers: &[PeerStatus]) -> String {
    let shared = peers
        .iter()
        .any(|other| other.nickname == peer.nickname && other.id != peer.id);
    if shared {
        format!("{}~{}", peer.nickname, peer.id.short())
    } else {
        peer.nickname.to_string()
    }
}

fn path_name(path: Option<PathKind>) -> &'static str {
    path.map_or("none", PathKind::name)
}

fn label(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}
