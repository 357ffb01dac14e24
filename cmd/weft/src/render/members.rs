//! Tables of the other members.

use std::time::SystemTime;

use weft_api::connections::ConnectionStatus;
use weft_api::peers::PeerStatus;
use weft_types::{NodeId, PathKind, PeerState};

use super::{bytes, finish, loss, nothing, or_nothing, rtt, since, table};
use crate::output::clean;

/// The other members, one a line.
pub(crate) fn peers(peers: &[PeerStatus], now: SystemTime) -> String {
    if peers.is_empty() {
        return "no other members yet".to_owned();
    }
    let mut table = table(&[
        "PEER", "ADDRESS", "PATH", "RTT", "LOSS", "PATH MTU", "TX/RX", "STATE", "SINCE",
    ]);
    for peer in peers {
        let address = peer.addresses.first().map(|net| net.addr().to_string());
        table.add_row(vec![
            clean(peer.nickname.as_str()),
            address.unwrap_or_else(nothing),
            or_nothing(peer.path),
            peer.rtt_ms.map_or_else(nothing, rtt),
            loss(peer.loss),
            or_nothing(peer.mtu),
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
            or_nothing(connection.endpoint),
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
        return path.name().to_owned();
    };
    format!("{} via {}", path.name(), name_in(connections, via))
}

fn name_in(connections: &[ConnectionStatus], node: NodeId) -> String {
    let member = connections.iter().find(|one| one.node == node);
    member.map_or_else(|| node.short(), |one| clean(one.nickname.as_str()))
}

/// Not coloured: a table counts the bytes of a colour as columns.
fn state(state: PeerState, reason: &str) -> String {
    if state == PeerState::Connected || reason.is_empty() {
        state.name().to_owned()
    } else {
        format!("{}: {}", state.name(), clean(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
