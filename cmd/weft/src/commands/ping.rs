//! Sends full-size packets to a member and back: a line per answer, and what came of them all.
//!
//! Who is asked a second time may be away for a moment: that is told, and asked again. What no asking again cures (a name
//! that nobody has, a router that is gone) ends it.

use std::time::Duration;

use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::signal::unix::Signal;
use weft_api::Client;
use weft_api::ping::PingAnswer;
use weft_types::{Code, ExitCode, PathKind, Problem};

use crate::complete;
use crate::context::{Context, interrupt};
use crate::output::{Outcome, Output, clean};
use crate::render::{loss, nothing, or_nothing, rtt};

/// What a full-size frame has beyond the packet: an Ethernet header, and room for a VLAN tag.
const ETHERNET: u16 = 18;

/// As people are used to.
const INTERVAL: Duration = Duration::from_secs(1);

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Send a full-size packet to a member and back
    Ping(PingArgs),
}

/// Of `ping`.
#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// A nickname, a mesh address, an identity, or the beginning of one
    #[arg(add = complete::members())]
    pub(crate) node: String,
    /// How many times, a second apart; 0 goes on until Ctrl-C
    #[arg(short, long, env = "WEFT_COUNT", value_name = "N", default_value_t = 1)]
    pub(crate) count: u32,
}

impl Verb {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let out = context.out;
        let Self::Ping(args) = self;
        context.with_router(async |router| ping(&router, &args, out).await)
    }
}

/// What `weft ping -c N -o json` prints last, where N is not 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct PingSummary {
    /// Packets sent; one for a ping that was not answered at all.
    pub(crate) sent: u32,
    /// Packets that came back.
    pub(crate) received: u32,
    /// Share that did not, 0 to 1.
    pub(crate) loss: f64,
    /// Round trips; null where nothing came back.
    pub(crate) rtt: Option<RoundTrips>,
}

/// Round trips of several packets.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct RoundTrips {
    /// The shortest.
    pub(crate) min_ms: f64,
    /// The mean.
    pub(crate) avg_ms: f64,
    /// The longest.
    pub(crate) max_ms: f64,
}

/// What has come of the pings so far.
#[derive(Default)]
struct Tally {
    trips: Vec<f64>,
    /// Packets that had not come back when a later one had.
    lost: u32,
    /// The last of the pings that were not answered.
    failed: Option<Problem>,
    unanswered: u32,
}

/// Sends full-size packets to a member and back.
async fn ping(router: &Client, args: &PingArgs, out: Output) -> Outcome {
    if args.count == 1 {
        return out.answer(&router.ping(&args.node).await?, line);
    }
    let mut interrupt = interrupt()?;
    let mut tally = Tally::default();
    let ended = several(router, args, out, &mut tally, &mut interrupt).await;
    // Where not even the first was sent there is nothing to sum up.
    if ended.is_ok() || tally.sent() > 0 {
        out.answer(&tally.summary(), summary_line)?;
    }
    ended?;
    tally.outcome(&args.node)
}

async fn several(
    router: &Client,
    args: &PingArgs,
    out: Output,
    tally: &mut Tally,
    interrupt: &mut Signal,
) -> Result<(), Problem> {
    let mut round = 0;
    loop {
        let next = tokio::time::Instant::now() + INTERVAL;
        let answer = tokio::select! {
            answer = router.ping(&args.node) => answer,
            _ = interrupt.recv() => return Ok(()),
        };
        tally.take(answer, out)?;
        round += 1;
        if round == args.count {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

/// Whether the next ping may be answered all the same.
const fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::FullSizeLost | Code::PeerUnreachable | Code::UdpBlocked
    )
}

impl Tally {
    /// Tells what has come of a ping, and counts it.
    fn take(&mut self, answer: Result<PingAnswer, Problem>, out: Output) -> Result<(), Problem> {
        match answer {
            Ok(answer) => {
                out.answer(&answer, line)?;
                self.answered(&answer);
            }
            Err(problem) if may_pass(problem.code) => {
                out.problem(&problem);
                self.unanswered(problem);
            }
            Err(problem) => return Err(problem),
        }
        Ok(())
    }

    fn answered(&mut self, answer: &PingAnswer) {
        self.trips.push(answer.rtt_ms);
        self.lost += answer.lost;
    }

    fn unanswered(&mut self, problem: Problem) {
        self.failed = Some(problem);
        self.unanswered += 1;
    }

    fn received(&self) -> u32 {
        u32::try_from(self.trips.len()).unwrap_or(u32::MAX)
    }

    fn sent(&self) -> u32 {
        self.received() + self.lost + self.unanswered
    }

    fn summary(&self) -> PingSummary {
        let (sent, received) = (self.sent(), self.received());
        PingSummary {
            sent,
            received,
            // Of nothing, nothing is lost.
            loss: f64::from(sent - received) / f64::from(sent.max(1)),
            rtt: self.round_trips(),
        }
    }

    fn round_trips(&self) -> Option<RoundTrips> {
        let sum: f64 = self.trips.iter().sum();
        (!self.trips.is_empty()).then(|| RoundTrips {
            min_ms: self.trips.iter().copied().fold(f64::INFINITY, f64::min),
            // As many digits as the router tells of one.
            avg_ms: (sum / f64::from(self.received()) * 1e3).round() / 1e3,
            max_ms: self.trips.iter().copied().fold(0.0, f64::max),
        })
    }

    /// Success where every ping was answered, "degraded" where some were, and why not where none was.
    fn outcome(self, node: &str) -> Outcome {
        match (self.trips.is_empty(), self.failed) {
            (false, None) => Ok(ExitCode::Ok),
            (false, Some(_)) => Ok(ExitCode::Degraded),
            // It has been told.
            (true, Some(problem)) => Ok(problem.code.exit()),
            (true, None) => Err(in_vain(node)),
        }
    }
}

fn in_vain(node: &str) -> Problem {
    let what = format!("nothing came back from {node:?} before Ctrl-C");
    Problem::new(Code::PeerUnreachable, what).fix("`weft status` says how it is reached")
}

/// A probe that came back.
fn line(ping: &PingAnswer) -> String {
    let address = ping.addresses.first().map(|net| net.addr().to_string());
    let mtu = or_nothing(ping.mtu);
    let mut text = format!(
        "{}  {}  {}  {}  loss {}  {} bytes both ways, path MTU {mtu}",
        clean(ping.nickname.as_str()),
        address.unwrap_or_else(nothing),
        way(ping),
        rtt(ping.rtt_ms),
        loss(ping.loss),
        packet(ping.bytes),
    );
    if ping.lost > 0 {
        text = format!("{text}, after {} lost", ping.lost);
    }
    text
}

/// The IP packet in a frame: sizes are told to people as those of IP packets, as the MTU of a mesh is.
const fn packet(frame: u16) -> u16 {
    frame.saturating_sub(ETHERNET)
}

/// By what it went, over whom, and how many hops that makes.
fn way(ping: &PingAnswer) -> String {
    let mut text = ping.path.map_or("no path", PathKind::name).to_owned();
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
fn summary_line(summary: &PingSummary) -> String {
    let PingSummary { sent, received, .. } = summary;
    let trips = summary.rtt.as_ref().map(trips_text).unwrap_or_default();
    let lost = loss(summary.loss);
    format!("{sent} sent, {received} received, loss {lost}{trips}")
}

fn trips_text(trips: &RoundTrips) -> String {
    let [min, avg, max] = [trips.min_ms, trips.avg_ms, trips.max_ms].map(rtt);
    format!(", round trip min/avg/max {min}/{avg}/{max}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(rtt_ms: f64, lost: u32) -> PingAnswer {
        serde_json::from_value(serde_json::json!({
            "node": "02".repeat(32), "nickname": "a", "addresses": ["10.32.0.1/12"],
            "path": "sleeve", "rtt_ms": rtt_ms, "lost": lost, "bytes": 1368
        }))
        .unwrap()
    }

    fn tally(answers: &[(f64, u32)], unanswered: u32) -> Tally {
        let mut tally = Tally::default();
        for &(rtt, lost) in answers {
            tally.answered(&answer(rtt, lost));
        }
        for _ in 0..unanswered {
            tally.unanswered(Problem::new(Code::FullSizeLost, "frames do not reach a"));
        }
        tally
    }

    #[test]
    fn sizes_are_those_of_ip_packets() {
        let mut answer = answer(0.8, 0);
        answer.mtu = Some(1500);

        let text = line(&answer);

        assert_eq!(
            text,
            "a  10.32.0.1  sleeve  0.8 ms  loss 0%  1350 bytes both ways, path MTU 1500"
        );
    }

    #[test]
    fn every_packet_counts_and_not_only_every_ping() {
        let summary = tally(&[(1.0, 0), (4.0, 3)], 1).summary();

        assert_eq!((summary.sent, summary.received), (6, 2));
        assert!((summary.loss - 4.0 / 6.0).abs() < 1e-9, "{}", summary.loss);
        let text = summary_line(&summary);
        assert_eq!(
            text,
            "6 sent, 2 received, loss 67%, round trip min/avg/max 1.0 ms/2.5 ms/4.0 ms"
        );
    }

    #[test]
    fn where_nothing_came_back_there_is_no_round_trip() {
        let text = summary_line(&tally(&[], 3).summary());

        assert_eq!(text, "3 sent, 0 received, loss 100%");
    }

    #[test]
    fn the_exit_code_tells_all_from_some_from_none() {
        let exit = |tally: Tally| match tally.outcome("a") {
            Ok(exit) => exit,
            Err(problem) => problem.code.exit(),
        };

        assert_eq!(exit(tally(&[(1.0, 2)], 0)), ExitCode::Ok);
        assert_eq!(exit(tally(&[(1.0, 0)], 1)), ExitCode::Degraded);
        assert_eq!(exit(tally(&[], 1)), Code::FullSizeLost.exit());
        assert_eq!(exit(tally(&[], 0)), ExitCode::Unreachable);
    }

    #[test]
    fn the_schema_of_a_summary_is_as_reviewed() {
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/schema");
        let path = std::path::Path::new(docs).join("ping-summary.json");
        let schema = serde_json::to_string_pretty(&schemars::schema_for!(PingSummary)).unwrap();
        let text = format!("{schema}\n");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &text).unwrap();
        }

        let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            text == reviewed,
            "{} differs; if that is meant: UPDATE=1 cargo test -p weft schema",
            path.display()
        );
    }
}
