//! Writes a [`Status`] in the words of Prometheus.
//!
//! Names are `weft_*` in base units; `docs/metrics.md` lists them, a test compares the two, and
//! [`weft_types::WireCounters`] declares those of the wire. Labels are bounded by the mesh: nicknames, paths, reasons and
//! codes, never addresses, and none that changes while the series goes on. Two members of one nickname are told apart by
//! the beginning of their identity.

mod exposition;
mod process;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use weft_api::peers::PeerStatus;
use weft_api::status::Status;
use weft_types::{Code, NodeId, PathKind, PeerState, Problem};

use self::exposition::{Family, Format};
use super::handle::Api;
use super::routes::{Routes, refusal};

pub(super) fn routes(routes: Routes) -> Routes {
    routes.at("/metrics", get(page)).at("/healthz", get(health))
}

/// Whether the router is alive: its hub answers. What is wrong with the mesh is no reason to restart it.
async fn health(State(api): State<Api>) -> Response {
    match api.report().await {
        Ok(_) => "ok\n".into_response(),
        Err(problem) => refusal(&problem),
    }
}

async fn page(State(api): State<Api>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    match read(&api, format).await {
        Ok(page) => ([(header::CONTENT_TYPE, format.content_type())], page).into_response(),
        Err(problem) => refusal(&problem),
    }
}

async fn read(api: &Api, format: Format) -> Result<String, Problem> {
    let families = families(&api.status().await?);
    exposition::page(&families, format).map_err(|error| {
        Problem::new(Code::Internal, "metrics cannot be written").why(error.to_string())
    })
}

/// Everything that is told. Made anew per scrape: a status is the only state there is.
fn families(status: &Status) -> Vec<Family> {
    let mut build = Family::gauge("weft_build_info", "The release that runs", &["version"]);
    build.add([status.version.as_str()], 1.0);
    let members = status.mesh.as_ref().map_or(0, |mesh| mesh.members);
    let help = "Members of the mesh, this node included";
    let members = Family::gauge("weft_members", help, &[]).single(count(members));
    let help = "Since the router was started";
    let uptime = Family::gauge("weft_uptime_seconds", help, &[]);
    let uptime = uptime.single(status.node.uptime_seconds as f64);
    let wire = status.wire.counters.table().map(|one| {
        let name = format!("weft_{}", one.metric);
        Family::counter(&name, one.help, &[]).single(one.value as f64)
    });
    let mut all = vec![build, members, uptime];
    all.extend(wire);
    all.extend([by_reason(status), problems(status)]);
    all.extend([paths(status), switches(status)]);
    all.extend(peers(status));
    all.extend(relayed(status));
    all.extend(process::families());
    all
}

fn by_reason(status: &Status) -> Family {
    let help = "Frames and datagrams dropped";
    let mut family = Family::counter("weft_drop_packets", help, &["reason"]);
    for (reason, &dropped) in &status.drops {
        family.add([reason.as_str()], dropped as f64);
    }
    family
}

fn problems(status: &Status) -> Family {
    let mut by_code = std::collections::BTreeMap::<Code, usize>::new();
    for problem in &status.problems {
        *by_code.entry(problem.code).or_default() += 1;
    }
    let mut family = Family::gauge("weft_problems", "What is wrong at the moment", &["code"]);
    for (code, problems) in by_code {
        family.add([code.to_string().as_str()], count(problems));
    }
    family
}

fn peers(status: &Status) -> Vec<Family> {
    let gauge = |name, help| Family::gauge(name, help, &["peer"]);
    let counter = |name, help| Family::counter(name, help, &["peer"]);
    let mut up = gauge("weft_peer_up", "Whether the peer is reached");
    let help = "1 for what the peer's frames travel by, 0 for what they do not";
    let mut path = Family::gauge("weft_peer_path", help, &["peer", "path"]);
    let mut rtt = gauge("weft_peer_rtt_seconds", "Smoothed round trip");
    let mut loss = gauge(
        "weft_peer_loss_ratio",
        "Share of frames and probes lost while frames travel, else of heartbeats",
    );
    let help = "Largest IP packet of the underlay that is known to pass whole: the path MTU";
    let mut mtu = gauge("weft_peer_path_mtu_bytes", help);
    let mut tx = counter("weft_tx_bytes", "Sealed bytes sent");
    let mut rx = counter("weft_rx_bytes", "Genuine sealed bytes received");
    let help = "Frames from the peer that spoke in another's name";
    let mut forged = counter("weft_rx_forged_frames", help);
    for peer in &status.peers {
        let name = unique_name(peer, &status.peers);
        let name = name.as_str();
        up.add([name], flag(peer.state == PeerState::Connected));
        for kind in kinds() {
            path.add([name, path_name(kind)], flag(peer.path == kind));
        }
        if let Some(milliseconds) = peer.rtt_ms {
            rtt.add([name], milliseconds / 1e3);
        }
        loss.add([name], peer.loss);
        if let Some(bytes) = peer.mtu {
            mtu.add([name], f64::from(bytes));
        }
        tx.add([name], peer.tx_bytes as f64);
        rx.add([name], peer.rx_bytes as f64);
        forged.add([name], peer.rx_forged as f64);
    }
    vec![up, path, rtt, loss, mtu, tx, rx, forged]
}

/// How many peers each kind of way serves, zeroes included.
fn paths(status: &Status) -> Family {
    let help = "Other members, by what their frames travel by";
    let mut family = Family::gauge("weft_peers", help, &["path"]);
    for kind in kinds() {
        let served = status.peers.iter().filter(|peer| peer.path == kind).count();
        family.add([path_name(kind)], count(served));
    }
    family
}

/// How often one way was left for another.
fn switches(status: &Status) -> Family {
    let help = "How often frames left one way for another";
    let labels = &["from", "to", "reason"];
    let mut family = Family::counter("weft_path_switches", help, labels);
    for switch in &status.switches {
        let labels = [switch.from.name(), switch.to.name(), switch.reason.name()];
        family.add(labels, switch.count as f64);
    }
    family
}

fn relayed(status: &Status) -> [Family; 2] {
    let labels = &["from", "to"];
    let help = "Datagrams passed on for other members";
    let mut datagrams = Family::counter("weft_relayed_datagrams", help, labels);
    let help = "Sealed bytes passed on for other members";
    let mut bytes = Family::counter("weft_relayed_bytes", help, labels);
    for carried in &status.relayed {
        let from = member(carried.from, &status.peers);
        let to = member(carried.to, &status.peers);
        datagrams.add([from.as_str(), &to], carried.datagrams as f64);
        bytes.add([from.as_str(), &to], carried.bytes as f64);
    }
    [datagrams, bytes]
}

fn kinds() -> impl Iterator<Item = Option<PathKind>> {
    PathKind::ALL.into_iter().map(Some).chain([None])
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn count(of: usize) -> f64 {
    of as f64
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A mesh of two, one of whose members travels over the other: enough for each family to have a series.
    fn sample() -> Status {
        serde_json::from_value(serde_json::json!({
            "version": "0.1.0",
            "mesh": {"name": "amber-otter", "id": "09".repeat(32), "encrypted": true, "members": 3, "connected": 2, "mtu": 1350},
            "node": {"id": "01".repeat(32), "nickname": "b", "addresses": ["10.32.0.2/12"], "uptime_seconds": 9, "advertised": []},
            "peers": [
                {"id": "02".repeat(32), "nickname": "a", "addresses": [], "state": "connected", "path": "sleeve", "via": null,
                 "endpoint": "192.0.2.1:6783", "rtt_ms": 0.84, "loss": 0.25, "mtu": 1350, "tx_bytes": 7, "rx_bytes": 8, "rx_forged": 9,
                 "since": "2026-01-01T00:00:00.000Z", "reason": ""},
                {"id": "03".repeat(32), "nickname": "a", "addresses": [], "state": "connected", "path": "relay", "via": "02".repeat(32),
                 "endpoint": null, "rtt_ms": 2.0, "loss": 0.0, "mtu": null, "tx_bytes": 0, "rx_bytes": 0, "rx_forged": 0,
                 "since": "2026-01-01T00:00:00.000Z", "reason": ""}
            ],
            "wire": {"cipher": "chacha20-poly1305", "rekeys": 4, "replay_drops": 3, "auth_drops": 1},
            "problems": [{"code": "WFT-061", "what": "c", "why": "", "fix": ""}, {"code": "WFT-061", "what": "d", "why": "", "fix": ""}],
            "targets": [],
            "connections": [],
            "drops": {"inauthentic": 1},
            "relayed": [{"from": "02".repeat(32), "to": "03".repeat(32), "datagrams": 1, "bytes": 2}],
            "switches": [{"from": "sleeve", "to": "relay", "reason": "silent", "count": 4}]
        }))
        .unwrap()
    }

    /// The rows of the table in docs/metrics.md: name, kind, labels.
    fn documented() -> BTreeMap<String, (String, Vec<String>)> {
        let docs = include_str!("../../../../docs/metrics.md");
        let quoted = |cell: &str| -> Vec<String> {
            let parts = cell.split('`').skip(1).step_by(2);
            parts.map(str::to_owned).collect()
        };
        let mut rows = BTreeMap::new();
        for row in docs
            .lines()
            .filter(|line| line.starts_with("| `weft_") || line.starts_with("| `process_"))
        {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            for name in quoted(cells[1]) {
                rows.insert(name, (cells[2].to_owned(), quoted(cells[3])));
            }
        }
        rows
    }

    #[test]
    fn what_is_served_is_what_is_documented() {
        let served: BTreeMap<String, (String, Vec<String>)> = families(&sample())
            .iter()
            .map(|family| {
                let labels = family.labels.iter().map(|&label| label.to_owned());
                let kind = family.kind.name().to_owned();
                (family.name.clone(), (kind, labels.collect()))
            })
            .collect();

        assert_eq!(served, documented());
    }

    #[test]
    fn a_series_goes_on_when_the_path_changes() {
        let mut status = sample();
        let series = |status: &Status| -> Vec<String> {
            let page = exposition::page(&families(status), Format::Text).unwrap();
            let lines = page.lines().filter(|line| line.starts_with("weft_peer"));
            lines
                .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
                .collect()
        };

        let before = series(&status);
        status.peers[0].path = Some(PathKind::Control);
        let after = series(&status);

        assert_eq!(before, after);
    }

    /// promtool is Prometheus's own; where it is not installed there is nobody to ask.
    #[test]
    fn promtool_finds_nothing_to_complain_about() {
        use std::io::Write as _;
        use std::process::{Command, Stdio};

        weft_lab::requires_program!("promtool");
        let page = exposition::page(&families(&sample()), Format::Text).unwrap();
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = promtool.stdin.take().unwrap();
        pipe.write_all(page.as_bytes()).unwrap();
        drop(pipe);

        let said = promtool.wait_with_output().unwrap();

        let complaint = [said.stdout, said.stderr].concat();
        let complaint = String::from_utf8_lossy(&complaint);
        assert!(
            said.status.success() && complaint.is_empty(),
            "{complaint}\n{page}"
        );
    }
}
