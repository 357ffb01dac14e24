//! Puts answers into words and tables for people. Everything is a function of a value and the time of day.
//!
//! What others chose (nicknames, reasons) is made harmless for a terminal here. Colours say again what words say:
//! nothing is told by colour alone.

mod status;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use weft_api::connections::ConnectionStatus;
use weft_api::events::Event;
use weft_api::events::EventKind;
use weft_api::peers::PeerStatus;
use weft_api::ping::PingAnswer;
use weft_api::targets::TargetStatus;
use weft_api::tokens::TokenStatus;
use weft_api::trace::TraceAnswer;
use weft_api::wire::WireStatus;
use weft_types::NodeId;
use weft_types::PathKind;
use weft_types::PeerState;

use crate::commands::PingSummary;
use crate::output::clean;

#[cfg(test)]
pub(crate) use status::sample;
pub(crate) use status::status;

/// The other members, one a line.
pub(crate) fn peers(peers: &[PeerStatus], now: SystemTime) -> String {
    if peers.is_empty() {
        return "no other members yet".to_owned();
    }
    let mut table = table(&[
        "PEER", "ADDRESS", "PATH", "RTT", "LOSS", "MTU", "TX/RX", "STATE", "SINCE",
    ]);
    for peer in peers {
        let address = peer.addresses.first().map(|net| net.addr().to_string());
        table.add_row(vec![
            clean(peer.nickname.as_str()),
            address.unwrap_or_else(nothing),
            peer.path
                .map_or_else(nothing, |path| path_name(path).to_owned()),
            peer.rtt_ms.map_or_else(nothing, rtt),
            loss(peer.loss),
            peer.mtu.map_or_else(nothing, |mtu| mtu.to_string()),
            format!("{}/{}", bytes(peer.tx_bytes), bytes(peer.rx_bytes)),
            state(peer.state, &peer.reason),
            since(&peer.since, now),
        ]);
    }
    finish(&table)
}

/// How the other members are reached, one a line.
pub(crate) fn connections(connections: &[ConnectionStatus], now: SystemTime) -> String {
    if connections.is_empty() {
        return "no other members yet".to_owned();
    }
    let mut table = table(&["PEER", "ID", "PATH", "ENDPOINT", "STATE", "SINCE", "WHY"]);
    for connection in connections {
        table.add_row(vec![
            clean(connection.nickname.as_str()),
            connection.node.short(),
            connection
                .path
                .map_or_else(nothing, |path| over(path, connection.via, connections)),
            connection
                .endpoint
                .map_or_else(nothing, |endpoint| endpoint.to_string()),
            state(connection.state, ""),
            since(&connection.since, now),
            clean(&connection.reason),
        ]);
    }
    let text = finish(&table);
    let told = |one: &ConnectionStatus| one.switches.iter().any(|switch| !switch.reason.is_empty());
    if !connections.iter().any(told) {
        return text;
    }
    format!("{text}\n\n{}", switches(connections))
}

/// How the ways of frames have changed of late, a switch a line; the first way that there was is no change.
fn switches(connections: &[ConnectionStatus]) -> String {
    let mut table = table(&["PEER", "SWITCHED", "TO", "WHY"]);
    for connection in connections {
        let told = connection
            .switches
            .iter()
            .filter(|one| !one.reason.is_empty());
        for switch in told {
            table.add_row(vec![
                clean(connection.nickname.as_str()),
                clean(&switch.time),
                over(switch.path, switch.via, connections),
                clean(&switch.reason),
            ]);
        }
    }
    finish(&table)
}

/// A path, and by name who passes the frames on.
fn over(path: PathKind, via: Option<NodeId>, connections: &[ConnectionStatus]) -> String {
    let Some(via) = via else {
        return path_name(path).to_owned();
    };
    let relay = connections.iter().find(|one| one.node == via);
    let name = relay.map_or_else(|| via.short(), |one| clean(one.nickname.as_str()));
    format!("{} via {name}", path_name(path))
}

/// What was told to be dialled, one a line.
pub(crate) fn targets(targets: &[TargetStatus]) -> String {
    if targets.is_empty() {
        return "nothing was told to be dialled".to_owned();
    }
    let mut table = table(&["TARGET", "STATE", "NODE", "NEXT TRY", "LAST ERROR"]);
    for target in targets {
        table.add_row(vec![
            clean(&target.target),
            clean(&target.state),
            target.node.map_or_else(nothing, |node| node.short()),
            target
                .retry_in_ms
                .map_or_else(nothing, |wait| format!("in {:.1} s", wait as f64 / 1e3)),
            clean(&target.last_error),
        ]);
    }
    finish(&table)
}

/// Tokens, one a line.
pub(crate) fn tokens(tokens: &[TokenStatus]) -> String {
    if tokens.is_empty() {
        return "no tokens".to_owned();
    }
    let mut table = table(&["TOKEN", "USE", "STATE", "LEFT", "USED BY"]);
    for token in tokens {
        table.add_row(vec![
            token.id.short(),
            if token.reusable { "many" } else { "once" }.to_owned(),
            clean(&token.state),
            token
                .expires_in_seconds
                .map_or_else(nothing, |left| age(Duration::from_secs(left))),
            token.used_by.map_or_else(nothing, |node| node.short()),
        ]);
    }
    finish(&table)
}

/// What crosses the underlay.
pub(crate) fn wire(wire: &WireStatus, drops: &BTreeMap<String, u64>) -> String {
    let mut table = table(&[]);
    let mut row = |name: &str, value: String| {
        table.add_row(vec![name.to_owned(), value]);
    };
    row("cipher", clean(&wire.cipher));
    for counter in wire.counters.table() {
        row(&counter.label(), counter.value.to_string());
    }
    for (reason, count) in drops {
        row(&format!("dropped: {}", clean(reason)), count.to_string());
    }
    finish(&table)
}

/// A probe that came back.
pub(crate) fn ping(ping: &PingAnswer) -> String {
    let address = ping.addresses.first().map(|net| net.addr().to_string());
    let mtu = ping.mtu.map_or_else(nothing, |mtu| mtu.to_string());
    let mut text = format!(
        "{}  {}  {}  {}  loss {}  mtu {mtu}  {} bytes both ways",
        clean(ping.nickname.as_str()),
        address.unwrap_or_else(nothing),
        way(ping),
        rtt(ping.rtt_ms),
        loss(ping.loss),
        ping.bytes
    );
    if ping.lost > 0 {
        text = format!("{text}, after {} lost", ping.lost);
    }
    text
}

/// By what it went, over whom, and how many hops that makes.
fn way(ping: &PingAnswer) -> String {
    let mut text = ping.path.map_or("no path", path_name).to_owned();
    if !ping.relays.is_empty() {
        let relays: Vec<String> = ping.relays.iter().map(|one| clean(&one.nickname)).collect();
        text = format!("{text} via {}", relays.join(", "));
    }
    match ping.hops {
        None => text,
        Some(1) => format!("{text}, 1 hop"),
        Some(hops) => format!("{text}, {hops} hops"),
    }
}

/// What came of several probes.
pub(crate) fn ping_summary(summary: &PingSummary) -> String {
    let PingSummary { sent, received, .. } = summary;
    let mut text = format!(
        "{sent} sent, {received} received, loss {}",
        loss(summary.loss)
    );
    if let Some(trip) = &summary.rtt {
        text = format!(
            "{text}, round trip min/avg/max {}/{}/{}",
            rtt(trip.min_ms),
            rtt(trip.avg_ms),
            rtt(trip.max_ms)
        );
    }
    text
}

/// The way of a member's frames, a hop a line.
pub(crate) fn trace(trace: &TraceAnswer) -> String {
    let mut table = table(&["HOP", "FROM", "TO", "PATH", "RTT", "LOSS", "MTU"]);
    for (number, hop) in trace.hops.iter().enumerate() {
        table.add_row(vec![
            (number + 1).to_string(),
            clean(&hop.from_nickname),
            clean(&hop.to_nickname),
            hop.path
                .map_or_else(nothing, |path| path_name(path).to_owned()),
            hop.rtt_ms.map_or_else(nothing, rtt),
            format!("{:.1} %", hop.loss * 100.0),
            hop.mtu.map_or_else(nothing, |mtu| mtu.to_string()),
        ]);
    }
    let mut text = finish(&table);
    if !trace.complete {
        text = format!(
            "{}\nthe way from there to {} is not known",
            text.trim_end(),
            clean(trace.nickname.as_str())
        );
    }
    text
}

/// An event, on one line.
pub(crate) fn event(event: &Event) -> String {
    let what = match &event.kind {
        EventKind::Joined {
            mesh, addresses, ..
        } => {
            let list: Vec<String> = addresses.iter().map(|net| net.addr().to_string()).collect();
            format!("in mesh \"{mesh}\" as {}", list.join(", "))
        }
        EventKind::JoinAttemptFailed { problem } => format!("join: {problem}"),
        EventKind::PathChanged {
            node,
            path,
            via,
            reason,
            ..
        } => {
            let through = via.map_or_else(String::new, |via| format!(" via {}", via.short()));
            format!(
                "{} by {}{through}: {}",
                node.short(),
                path_name(*path),
                clean(reason)
            )
        }
        EventKind::LinkDown { node, reason } => format!("link to {} down: {reason}", node.short()),
        EventKind::LinkUp {
            node,
            nickname,
            endpoint,
        } => {
            format!("link to {nickname} ({}) up at {endpoint}", node.short())
        }
        EventKind::MemberJoined { node, nickname } => {
            format!("{nickname} ({}) joined", node.short())
        }
        EventKind::MemberLeft { node } => format!("{} left", node.short()),
        EventKind::Missed { events } => format!("{events} events missed"),
        EventKind::Problem { problem } => problem.to_string(),
        EventKind::SessionDown { node } => format!("no session with {} any more", node.short()),
        EventKind::SessionUp { node } => format!("session with {} up", node.short()),
        EventKind::Stopping {
            problem: Some(problem),
        } => format!("stopping: {problem}"),
        EventKind::Stopping { problem: None } => "stopping, as asked".to_owned(),
    };
    format!("{}  {}", clean(&event.time), clean(&what))
}

/// A path's word.
pub(crate) const fn path_name(path: PathKind) -> &'static str {
    match path {
        PathKind::Control => "control",
        PathKind::Relay => "relay",
        PathKind::Sleeve => "sleeve",
    }
}

/// A round trip, with as many digits as mean something.
pub(crate) fn rtt(milliseconds: f64) -> String {
    if milliseconds < 0.1 {
        format!("{milliseconds:.2} ms")
    } else if milliseconds < 10.0 {
        format!("{milliseconds:.1} ms")
    } else {
        format!("{milliseconds:.0} ms")
    }
}

/// Not coloured: a table counts the bytes of a colour as columns.
fn state(state: PeerState, reason: &str) -> String {
    let word = match state {
        PeerState::Connected => return "connected".to_owned(),
        PeerState::Connecting => "connecting",
        PeerState::Down => "down",
        PeerState::Indirect => "indirect",
    };
    with_reason(word, &clean(reason))
}

fn with_reason(word: &str, reason: &str) -> String {
    if reason.is_empty() {
        word.to_owned()
    } else {
        format!("{word}: {reason}")
    }
}

fn loss(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// How long ago a time of day was, or the time itself where it makes no sense.
fn since(time: &str, now: SystemTime) -> String {
    match humantime::parse_rfc3339(time) {
        Ok(at) => age(now.duration_since(at).unwrap_or_default()),
        Err(_) => clean(time),
    }
}

/// A duration in its two largest units.
pub(crate) fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    if days > 0 {
        format!("{days} d {} h", hours % 24)
    } else if hours > 0 {
        format!("{hours} h {} min", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes} min {} s", seconds % 60)
    } else {
        format!("{seconds} s")
    }
}

/// A number of bytes, as short as it says enough.
fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            let digits = usize::from(value < 9.95 && unit != "B");
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

fn nothing() -> String {
    "-".to_owned()
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    if !header.is_empty() {
        table.set_header(header.iter().map(|title| (*title).to_owned()));
    }
    table
}

fn finish(table: &Table) -> String {
    let mut table = table.clone();
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
        column.set_cell_alignment(CellAlignment::Left);
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_short_as_they_say_enough() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "1.0 kB");
        assert_eq!(bytes(999_600), "1.0 MB");
        assert_eq!(bytes(123_456_789), "123 MB");
        assert_eq!(age(Duration::from_secs(59)), "59 s");
        assert_eq!(age(Duration::from_secs(3 * 86400 + 4 * 3600)), "3 d 4 h");
        assert_eq!(rtt(0.042), "0.04 ms");
        assert_eq!(rtt(0.84), "0.8 ms");
        assert_eq!(rtt(41.2), "41 ms");
    }

    #[test]
    fn every_member_is_told_of_with_its_path_why_and_what_changed() {
        let all: Vec<ConnectionStatus> = serde_json::from_value(serde_json::json!([
            {"node": "02".repeat(32), "nickname": "a", "state": "connected", "path": "sleeve", "via": null, "endpoint": "192.0.2.1:6783",
             "since": "2026-01-01T00:00:00.000Z", "reason": "", "switches": []},
            {"node": "03".repeat(32), "nickname": "c", "state": "indirect", "path": "relay", "via": "02".repeat(32), "endpoint": null,
             "since": "2026-01-01T01:00:00.000Z", "reason": "heartbeats stopped", "switches": [
                {"time": "2026-01-01T01:00:00.123Z", "path": "relay", "via": "02".repeat(32), "reason": "192.0.2.3:6783 does not answer"}]},
            {"node": "04".repeat(32), "nickname": "d", "state": "down", "path": null, "via": null, "endpoint": null,
             "since": "2026-01-01T01:00:00.000Z", "reason": "it refuses the connection", "switches": []}
        ]))
        .unwrap();
        let now = humantime::parse_rfc3339("2026-01-01T02:00:00Z").unwrap();

        let text = connections(&all, now);

        assert_eq!(
            text,
            "PEER  ID          PATH         ENDPOINT        STATE      SINCE      WHY\n\
             a     0202020202  sleeve       192.0.2.1:6783  connected  2 h 0 min\n\
             c     0303030303  relay via a  -               indirect   1 h 0 min  heartbeats stopped\n\
             d     0404040404  -            -               down       1 h 0 min  it refuses the connection\n\
             \n\
             PEER  SWITCHED                  TO           WHY\n\
             c     2026-01-01T01:00:00.123Z  relay via a  192.0.2.3:6783 does not answer",
            "\n{text}"
        );
    }

    #[test]
    fn an_event_is_one_harmless_line() {
        let text = event(&Event {
            time: "2026-01-01T00:00:00.000Z".to_owned(),
            kind: EventKind::LinkDown {
                node: weft_types::NodeId::new([1; 32]),
                reason: "closed\n\u{1b}[31m".to_owned(),
            },
        });

        assert_eq!(
            text,
            "2026-01-01T00:00:00.000Z  link to 0101010101 down: closed??[31m"
        );
    }
}
