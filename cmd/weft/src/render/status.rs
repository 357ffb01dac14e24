//! The status screen: what an operator wants to know first, on one screen.
//!
//! ```text
//! mesh amber-otter   node b 10.32.0.2   up 3 d 4 h   OK (1 warning)
//! peers 11/12 connected · rtt p50 3.0 ms max 41 ms · loss 0.02 %
//! wire  encrypted · chacha20-poly1305 · rekeys 38 · replay drops 3 · auth drops 0
//! here  2 containers · 10.32.200.1 10.32.200.2
//! ! WFT-061: …
//! PEER  ADDRESS  PATH  …
//! ```

use std::time::{Duration, SystemTime};

use owo_colors::OwoColorize;
use weft_api::peers::PeerStatus;
use weft_api::status::MeshStatus;
use weft_api::status::Status;
use weft_types::PeerState;

use super::members::peers;
use super::{age, rtt};
use crate::output::clean;

/// Rows of peers on a screen; the rest is behind `weft peers`.
const ROWS: usize = 23;

/// Containers that are named in a line; the rest is behind `weft status containers`.
const CONTAINERS: usize = 4;

/// The whole screen.
pub(crate) fn status(status: &Status, now: SystemTime) -> String {
    let mut lines = vec![headline(status)];
    if let Some(mesh) = &status.mesh {
        lines.push(peer_line(status, mesh));
        lines.push(wire_line(status, mesh));
        lines.extend(container_line(status));
    }
    for problem in &status.problems {
        let text = clean(&problem.to_string());
        lines.push(format!("{} {text}", "!".yellow().bold()));
    }
    if !status.peers.is_empty() {
        let shown = &status.peers[..status.peers.len().min(ROWS)];
        lines.push(peers(shown, now));
        let more = status.peers.len() - shown.len();
        if more > 0 {
            lines.push(format!("… and {more} more: weft peers"));
        }
    }
    lines.join("\n")
}

fn headline(status: &Status) -> String {
    let node = &status.node;
    let mut name = clean(node.nickname.as_str());
    if let Some(address) = node.addresses.first() {
        name = format!("{name} {}", address.addr());
    }
    let up = age(Duration::from_secs(node.uptime_seconds));
    let Some(mesh) = &status.mesh else {
        return format!("node {name}   up {up}   {}", waiting(status).yellow());
    };
    let (mesh, verdict) = (clean(mesh.name.as_str()), verdict(status.problems.len()));
    format!("mesh {mesh}   node {name}   up {up}   {verdict}")
}

/// What a node without a mesh does.
fn waiting(status: &Status) -> String {
    let targets: Vec<String> = status
        .targets
        .iter()
        .map(|one| clean(&one.target))
        .collect();
    if targets.is_empty() {
        return "in no mesh".to_owned();
    }
    format!("in no mesh yet, waiting for {}", targets.join(", "))
}

fn verdict(problems: usize) -> String {
    match problems {
        0 => "OK".green().to_string(),
        1 => "1 warning".yellow().to_string(),
        count => format!("{count} warnings").yellow().to_string(),
    }
}

fn peer_line(status: &Status, mesh: &MeshStatus) -> String {
    let others = mesh.members.saturating_sub(1);
    let connected = |peer: &&PeerStatus| peer.state == PeerState::Connected;
    let peers: Vec<&PeerStatus> = status.peers.iter().filter(connected).collect();
    let (rtts, loss) = (rtts(&peers), mean_loss(&peers));
    format!("peers {}/{others} connected{rtts}{loss}", mesh.connected)
}

fn rtts(peers: &[&PeerStatus]) -> String {
    let mut rtts: Vec<f64> = peers.iter().filter_map(|peer| peer.rtt_ms).collect();
    rtts.sort_by(f64::total_cmp);
    match (rtts.get(rtts.len() / 2), rtts.last()) {
        (Some(&median), Some(&most)) => format!(" · rtt p50 {} max {}", rtt(median), rtt(most)),
        (None, _) | (_, None) => String::new(),
    }
}

fn mean_loss(peers: &[&PeerStatus]) -> String {
    if peers.is_empty() {
        return String::new();
    }
    let lost: f64 = peers.iter().map(|peer| peer.loss).sum();
    format!(" · loss {:.2} %", lost / peers.len() as f64 * 100.0)
}

fn wire_line(status: &Status, mesh: &MeshStatus) -> String {
    let wire = &status.wire;
    let sealed = if mesh.encrypted {
        "encrypted".green().to_string()
    } else {
        "NOT ENCRYPTED".red().bold().to_string()
    };
    let cipher = match (wire.cipher.as_str(), wire.sessions) {
        ("none", _) => "no session yet".to_owned(),
        (cipher, 0) => format!("{}, idle", clean(cipher)),
        (cipher, _) => clean(cipher),
    };
    let mut line = format!("wire  {sealed} · {cipher}");
    for counter in wire.counters.table().filter(|counter| counter.first) {
        line = format!("{line} · {} {}", counter.label(), counter.value);
    }
    line
}

/// Whom of this host the mesh carries, beside the host itself.
fn container_line(status: &Status) -> Option<String> {
    let count = status.containers.len();
    let first = status.containers.iter().take(CONTAINERS);
    let names: Vec<String> = first
        .filter_map(|one| one.addresses.first())
        .map(ToString::to_string)
        .collect();
    let more = if count > CONTAINERS {
        " …: weft status containers"
    } else {
        ""
    };
    let what = if count == 1 {
        "container"
    } else {
        "containers"
    };
    (count > 0).then(|| format!("here  {count} {what} · {}{more}", names.join(" ")))
}

/// A mesh of three, one of them away.
#[cfg(test)]
pub(crate) fn sample() -> Status {
    serde_json::from_value(serde_json::json!({
        "version": "0.1.0",
        "mesh": {"name": "amber-otter", "id": "09".repeat(32), "encrypted": true, "members": 3, "connected": 1, "mtu": 1350},
        "node": {"id": "01".repeat(32), "nickname": "b", "addresses": ["10.32.0.2/12"], "uptime_seconds": 273_600, "advertised": ["192.0.2.2:6783"]},
        "peers": [
            {"id": "02".repeat(32), "nickname": "a", "addresses": ["10.32.0.1/12", "fd00::1/48"], "state": "connected", "path": "sleeve", "via": null,
             "endpoint": "192.0.2.1:6783", "rtt_ms": 0.84, "loss": 0.0, "mtu": 1350, "tx_bytes": 1_234_567, "rx_bytes": 890, "rx_forged": 0,
             "since": "2026-01-01T00:00:00.000Z", "reason": ""},
            {"id": "03".repeat(32), "nickname": "c", "addresses": ["10.32.0.3/12"], "state": "down", "path": null, "via": null,
             "endpoint": null, "rtt_ms": null, "loss": 1.0, "mtu": null, "tx_bytes": 0, "rx_bytes": 0, "rx_forged": 0,
             "since": "2026-01-01T01:00:00.000Z", "reason": "heartbeats stopped"}
        ],
        "wire": {"cipher": "chacha20-poly1305", "sessions": 1, "rekeys": 4, "replay_drops": 3, "auth_drops": 1},
        "problems": [{"code": "WFT-061", "what": "c cannot be reached", "why": "silent for 12 s", "fix": "Look whether it runs: weft status on c"}],
        "targets": [],
        "containers": [{"mac": "02:00:00:00:00:07", "addresses": ["10.32.200.1"], "port": "wv020000000007"}],
        "connections": [],
        "drops": {"inauthentic": 1, "replayed": 3}
    }))
    .unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two hours into 2026.
    fn now() -> SystemTime {
        humantime::parse_rfc3339("2026-01-01T02:00:00Z").unwrap()
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn the_screen_is_as_reviewed() {
        let screen = plain(&status(&sample(), now()));

        assert_eq!(
            screen,
            include_str!("status.golden.txt").trim_end(),
            "\n{screen}"
        );
    }

    #[test]
    fn an_idle_mesh_is_as_encrypted_as_it_was() {
        let mut idle = sample();
        idle.wire.sessions = 0;

        let screen = plain(&status(&idle, now()));

        assert!(
            screen.contains("wire  encrypted · chacha20-poly1305, idle"),
            "{screen}"
        );
    }

    #[test]
    fn a_node_without_a_mesh_says_what_it_waits_for() {
        let mut waiting = sample();
        waiting.mesh = None;
        waiting.peers.clear();
        waiting.problems.clear();
        waiting.node.addresses.clear();
        waiting.targets = vec![weft_api::targets::TargetStatus {
            target: "192.0.2.1".to_owned(),
            state: "waiting".to_owned(),
            node: None,
            retry_in_ms: Some(1500),
            last_error: String::new(),
        }];

        let screen = plain(&status(&waiting, now()));

        assert_eq!(
            screen,
            "node b   up 3 d 4 h   in no mesh yet, waiting for 192.0.2.1"
        );
    }

    #[test]
    fn the_largest_mesh_fits_one_screen() {
        let mut large = sample();
        large.peers = vec![large.peers[0].clone(); 40];

        let screen = plain(&status(&large, now()));

        assert!(screen.lines().count() <= 30, "{screen}");
        assert!(screen.ends_with("… and 17 more: weft peers"));
    }
}
