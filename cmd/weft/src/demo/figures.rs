//! The demo's figures: what a program reads, and the plain words for people.

use serde::Serialize;

/// Everything the demo measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// How each host came to the mesh, in order.
    pub(super) joins: Vec<Join>,
    /// The containers.
    pub(super) attached: Attached,
    /// From a container to each other one, for the first time.
    pub(super) first_answer: FirstAnswer,
    /// The time of an answer.
    pub(super) ping: Ping,
    /// One to all.
    pub(super) broadcast: Broadcast,
    /// What was on the plain network.
    pub(super) wire: Search,
    /// One stream.
    pub(super) tcp: Tcp,
    /// One cable's way cut.
    pub(super) failover: Failover,
}

/// How a host came to the mesh.
#[derive(Debug, Serialize)]
pub(super) struct Join {
    /// Its name.
    pub(super) host: String,
    /// What was typed, without the token.
    pub(super) command: String,
    /// Its address on the mesh.
    pub(super) address: String,
    /// From the command's start to its end.
    pub(super) seconds: f64,
    /// Bytes of the encrypted packet that passed both ways before the command ended; null for the first host.
    pub(super) verified_bytes: Option<u64>,
}

/// Containers put on the mesh.
#[derive(Debug, Serialize)]
pub(super) struct Attached {
    /// Their addresses.
    pub(super) addresses: Vec<String>,
    /// Mean time of one `weft attach`.
    pub(super) seconds: f64,
}

/// The first packet between containers, which also makes their session.
#[derive(Debug, Serialize)]
pub(super) struct FirstAnswer {
    /// Until it was answered, the slowest of all.
    pub(super) seconds: f64,
}

/// The time of an answer, median.
#[derive(Debug, Serialize)]
pub(super) struct Ping {
    /// Requests sent.
    pub(super) count: usize,
    /// Not answered through the mesh.
    pub(super) lost: usize,
    /// Between containers.
    pub(super) mesh_ms: Option<f64>,
    /// Between the hosts beneath.
    pub(super) underlay_ms: Option<f64>,
}

/// One TCP stream, the best of the rounds.
#[derive(Debug, Serialize)]
pub(super) struct Tcp {
    /// Between containers.
    pub(super) mesh_bits_per_second: f64,
    /// Between the hosts beneath.
    pub(super) underlay_bits_per_second: f64,
}

/// The way between two of the hosts, cut in silence and healed.
#[derive(Debug, Serialize)]
pub(super) struct Failover {
    /// How long no ping between their containers was answered; null if none was again.
    pub(super) gone_seconds: Option<f64>,
    /// Which host passed the packets on meanwhile.
    pub(super) relay: Option<String>,
    /// From the healing until packets went straight again; null if they never did.
    pub(super) back_seconds: Option<f64>,
}

/// One to all.
#[derive(Debug, Serialize)]
pub(super) struct Broadcast {
    /// Times it was sent.
    pub(super) sent: usize,
    /// What each other container got.
    pub(super) received: Vec<Received>,
}

/// What one container got.
#[derive(Debug, Serialize)]
pub(super) struct Received {
    /// Its name.
    pub(super) container: String,
    /// Copies.
    pub(super) count: usize,
}

/// What the record of the plain network holds.
#[derive(Debug, Serialize)]
pub(super) struct Search {
    /// Pairs of containers' addresses in clear.
    pub(super) address_pairs_found: usize,
    /// Bytes recorded.
    pub(super) bytes: usize,
    /// What sealed the data.
    pub(super) cipher: Option<String>,
    /// Copies of the other marker, sent beside the mesh, that arrived.
    pub(super) control_arrived: usize,
    /// Copies of it that the search found.
    pub(super) control_found: usize,
    /// Frames recorded.
    pub(super) frames: usize,
    /// Frames that passed without being recorded.
    pub(super) lost: u64,
    /// Copies of the marker that arrived at their container.
    pub(super) marker_arrived: usize,
    /// Copies of it found in clear.
    pub(super) marker_found: usize,
    /// Copies of it sent between containers.
    pub(super) marker_sent: usize,
}

/// Says what is about to happen.
pub(super) fn headline() -> &'static str {
    "Three hosts on one plain network, each in a network namespace of its own, with one container each.\n\n"
}

impl Report {
    /// Says whether everything that weft promises held.
    pub(super) fn as_promised(&self) -> bool {
        self.ping.lost == 0
            && self.broadcast.once_everywhere()
            && self.wire.clean()
            && self.failover.survived()
    }

    /// Sums up.
    pub(super) fn verdict(&self) -> String {
        let words = if self.as_promised() {
            "All as promised: two commands to a mesh, every container reached, nothing readable beneath."
        } else {
            "NOT as promised: see the lines marked with !"
        };
        let build = if cfg!(debug_assertions) {
            "\n(This is a debug build: the speed of a release build is many times this.)"
        } else {
            ""
        };
        format!("\n{words}{build}")
    }
}

impl Join {
    pub(super) fn text(&self) -> String {
        let verified = self
            .verified_bytes
            .map(|bytes| format!(", {bytes} bytes passed encrypted both ways"))
            .unwrap_or_default();
        format!(
            "  {:<6} {:<34} {:>6.2} s   is {}{verified}",
            self.host, self.command, self.seconds, self.address
        )
    }
}

impl Attached {
    pub(super) fn text(&self) -> String {
        format!(
            "  each   {:<34} {:>6.2} s   containers are {}",
            "weft attach --address … CONTAINER",
            self.seconds,
            self.addresses.join(", ")
        )
    }
}

impl FirstAnswer {
    pub(super) fn text(&self) -> String {
        format!(
            "\n  first ping between containers answered after {:.2} s",
            self.seconds
        )
    }
}

impl Ping {
    pub(super) fn text(&self) -> String {
        let time =
            |ms: Option<f64>| ms.map_or_else(|| "no answer".to_owned(), |ms| format!("{ms:.2} ms"));
        format!(
            "{} ping, median of {}: {} through the mesh, {} on the plain network",
            mark(self.lost == 0),
            self.count,
            time(self.mesh_ms),
            time(self.underlay_ms)
        )
    }
}

impl Tcp {
    pub(super) fn text(&self) -> String {
        format!(
            "  one TCP stream: {} through the mesh, encrypted; {} on the plain network, in clear",
            rate(self.mesh_bits_per_second),
            rate(self.underlay_bits_per_second)
        )
    }
}

impl Broadcast {
    fn once_everywhere(&self) -> bool {
        self.received
            .iter()
            .all(|receiver| receiver.count == self.sent)
    }

    pub(super) fn text(&self) -> String {
        let each: Vec<String> = self
            .received
            .iter()
            .map(|receiver| format!("{} got {}", receiver.container, receiver.count))
            .collect();
        format!(
            "{} broadcast, sent {} times by alpha's container: {}",
            mark(self.once_everywhere()),
            self.sent,
            each.join(", ")
        )
    }
}

impl Failover {
    /// Somebody took over, and gave back.
    const fn survived(&self) -> bool {
        self.gone_seconds.is_some() && self.relay.is_some() && self.back_seconds.is_some()
    }

    pub(super) fn text(&self) -> String {
        let seconds = |value: Option<f64>| {
            value.map_or_else(|| "never".to_owned(), |value| format!("after {value:.2} s"))
        };
        format!(
            "{} the way between alpha and beta, cut in silence: packets flow again {}, over {};\n                 healed: straight again {}",
            mark(self.survived()),
            seconds(self.gone_seconds),
            self.relay.as_deref().unwrap_or("nobody"),
            seconds(self.back_seconds),
        )
    }
}

impl Search {
    /// The record is whole, the search finds what is there, and finds nothing of the mesh.
    fn clean(&self) -> bool {
        self.lost == 0
            && self.control_arrived > 0
            && self.control_found == self.control_arrived
            && self.marker_arrived == self.marker_sent
            && self.marker_found == 0
            && self.address_pairs_found == 0
    }

    pub(super) fn text(&self) -> String {
        format!(
            "{} the plain network, from before the first command on: {} frames, {} recorded{}\n    \
             a random marker, sent {} times between containers ({} arrived): found {} times\n    \
             containers' addresses side by side: found {} times\n    \
             a second marker, sent {} times beside the mesh to test the search: found {} times{}",
            mark(self.clean()),
            self.frames,
            size(self.bytes),
            if self.lost == 0 {
                String::new()
            } else {
                format!(", {} LOST", self.lost)
            },
            self.marker_sent,
            self.marker_arrived,
            self.marker_found,
            self.address_pairs_found,
            self.control_arrived,
            self.control_found,
            self.cipher
                .as_deref()
                .map(|cipher| format!("\n    sealed with {cipher}"))
                .unwrap_or_default(),
        )
    }
}

/// Marks a line that a reader must not miss.
fn mark(good: bool) -> &'static str {
    if good { " " } else { "!" }
}

fn rate(bits_per_second: f64) -> String {
    if bits_per_second >= 1e9 {
        format!("{:.1} Gbit/s", bits_per_second / 1e9)
    } else {
        format!("{:.0} Mbit/s", bits_per_second / 1e6)
    }
}

fn size(bytes: usize) -> String {
    if bytes >= 1 << 20 {
        format!("{:.1} MiB", float(bytes) / 1_048_576.0)
    } else {
        format!("{:.1} KiB", float(bytes) / 1024.0)
    }
}

/// Figures of a demo are far below 2^53.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts and sizes of a demo are far below 2^53"
)]
pub(super) fn float(value: usize) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let received = |container: &str| Received {
            container: container.to_owned(),
            count: 10,
        };
        Report {
            joins: vec![
                Join {
                    host: "alpha".to_owned(),
                    command: "weft up".to_owned(),
                    address: "10.32.0.1".to_owned(),
                    seconds: 0.31,
                    verified_bytes: None,
                },
                Join {
                    host: "beta".to_owned(),
                    command: "weft join 192.0.2.1 --token …".to_owned(),
                    address: "10.32.0.2".to_owned(),
                    seconds: 0.4,
                    verified_bytes: Some(1350),
                },
            ],
            attached: Attached {
                addresses: vec!["10.32.200.1".to_owned()],
                seconds: 0.05,
            },
            first_answer: FirstAnswer { seconds: 0.02 },
            ping: Ping {
                count: 20,
                lost: 0,
                mesh_ms: Some(0.213),
                underlay_ms: Some(0.04),
            },
            broadcast: Broadcast {
                sent: 10,
                received: vec![received("beta-container"), received("gamma-container")],
            },
            wire: Search {
                address_pairs_found: 0,
                bytes: 250_000,
                cipher: Some("ChaCha20-Poly1305".to_owned()),
                control_arrived: 10,
                control_found: 10,
                frames: 1234,
                lost: 0,
                marker_arrived: 300,
                marker_found: 0,
                marker_sent: 300,
            },
            tcp: Tcp {
                mesh_bits_per_second: 4.21e9,
                underlay_bits_per_second: 19.5e9,
            },
            failover: Failover {
                gone_seconds: Some(0.52),
                relay: Some("gamma".to_owned()),
                back_seconds: Some(1.7),
            },
        }
    }

    #[test]
    fn a_reader_gets_plain_words_and_figures() {
        let report = report();

        assert_eq!(
            report.joins[0].text(),
            "  alpha  weft up                              0.31 s   is 10.32.0.1"
        );
        assert_eq!(
            report.joins[1].text(),
            "  beta   weft join 192.0.2.1 --token …        0.40 s   is 10.32.0.2, 1350 bytes passed encrypted both ways"
        );
        assert_eq!(
            report.ping.text(),
            "  ping, median of 20: 0.21 ms through the mesh, 0.04 ms on the plain network"
        );
        assert_eq!(
            report.tcp.text(),
            "  one TCP stream: 4.2 Gbit/s through the mesh, encrypted; 19.5 Gbit/s on the plain network, in clear"
        );
        assert_eq!(
            report.broadcast.text(),
            "  broadcast, sent 10 times by alpha's container: beta-container got 10, gamma-container got 10"
        );
        assert!(
            report
                .wire
                .text()
                .contains("1234 frames, 244.1 KiB recorded")
        );
        assert!(report.as_promised());
    }

    type Break = fn(&mut Report);
    type Text = fn(&Report) -> String;

    #[test]
    fn every_broken_promise_is_told_and_marked() {
        let broken: [(Break, Text); 9] = [
            (|report| report.ping.lost = 1, |report| report.ping.text()),
            (
                |report| report.broadcast.received[0].count = 9,
                |report| report.broadcast.text(),
            ),
            (
                |report| report.broadcast.received[1].count = 11,
                |report| report.broadcast.text(),
            ),
            (
                |report| report.wire.marker_found = 1,
                |report| report.wire.text(),
            ),
            (
                |report| report.wire.address_pairs_found = 1,
                |report| report.wire.text(),
            ),
            (|report| report.wire.lost = 1, |report| report.wire.text()),
            (
                |report| report.wire.marker_arrived = 299,
                |report| report.wire.text(),
            ),
            (
                |report| report.failover.relay = None,
                |report| report.failover.text(),
            ),
            (
                |report| report.wire.control_found = 9,
                |report| report.wire.text(),
            ),
        ];

        for (breaks, text) in broken {
            let mut report = report();
            breaks(&mut report);

            assert!(!report.as_promised());
            assert!(text(&report).starts_with('!'));
            assert!(report.verdict().contains("NOT as promised"));
        }
    }

    #[test]
    fn a_program_reads_the_same_figures() {
        let json = serde_json::to_value(report()).unwrap();

        assert_eq!(json["joins"][1]["verified_bytes"], 1350);
        assert_eq!(json["wire"]["marker_found"], 0);
        assert_eq!(json["broadcast"]["received"][1]["count"], 10);
        assert_eq!(json["joins"][0]["verified_bytes"], serde_json::Value::Null);
    }
}
