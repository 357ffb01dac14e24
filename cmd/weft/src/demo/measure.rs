//! Takes the demo's figures: always the mesh beside the plain network beneath, in the same run.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;
use weft_kernel::netns::NetNs;
use weft_lab::traffic::{self, GroupTest, PingTest};
use weft_lab::{Capture, LabError, Recording, wait_until};
use weft_types::{Code, Problem};

use super::figures::{Broadcast, Failover, FirstAnswer, Ping, Received, Search, Tcp};
use super::interrupt::Interrupt;
use super::problem::failed;
use super::stage::{Node, Stage};
use crate::fault::broken;

/// How long a first answer may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(10);

const PINGS: u16 = 20;
const BROADCASTS: usize = 10;
const MARKER: usize = 32;

/// How often the marker is sent inside the mesh, from each container to each other.
const INSIDE: usize = 50;

/// How often a second marker is sent beside the mesh, to prove that the search would find it.
const BESIDE: usize = 10;

/// Rounds of the comparison, taken in turn so that a busy moment of the machine hits both.
const ROUNDS: usize = 2;
const ROUND: Duration = Duration::from_millis(1000);

/// Waits until every container answers the first one's ping.
pub(super) fn first_answer(stage: &Stage, interrupt: &Interrupt) -> Result<FirstAnswer, Problem> {
    let from = stage.node(0).container.netns();
    let mut slowest = Duration::ZERO;
    let test = PingTest {
        timeout: Duration::from_millis(250),
        ..PingTest::default()
    };
    for at in 1..stage.nodes() {
        let to = stage.node(at).address()?;
        let answered = || interrupt.came() || answers(from, to, test);
        let took = wait_until(PATIENCE, answered).ok_or_else(|| silent(to))?;
        interrupt.check()?;
        slowest = slowest.max(took);
    }
    Ok(FirstAnswer {
        seconds: slowest.as_secs_f64(),
    })
}

fn answers(from: &NetNs, to: IpAddr, test: PingTest) -> bool {
    traffic::ping(from, to, test).is_ok_and(|report| report.answered() > 0)
}

fn silent(to: IpAddr) -> Problem {
    let what = format!("the container at {to} does not answer through the mesh");
    let why = format!("no answer in {} s", PATIENCE.as_secs());
    Problem::new(Code::PeerUnreachable, what).why(why)
}

/// Compares the time of an answer.
pub(super) fn ping(stage: &Stage) -> Result<Ping, Problem> {
    let test = PingTest {
        count: PINGS,
        interval: Duration::from_millis(5),
        ..PingTest::default()
    };
    let median = |from: &NetNs, to: IpAddr| {
        let report = traffic::ping(from, to, test).map_err(|error| failed(&error))?;
        let median = report.median().map(|time| time.as_secs_f64() * 1e3);
        Ok::<_, Problem>((median, report.lost()))
    };
    let (a, b) = (stage.node(0), stage.node(1));
    let (underlay_ms, _) = median(a.host.netns(), b.link.v4().into())?;
    let (mesh_ms, lost) = median(a.container.netns(), b.address()?)?;
    Ok(Ping {
        count: usize::from(PINGS),
        lost,
        mesh_ms,
        underlay_ms,
    })
}

/// Compares one TCP stream.
pub(super) fn tcp(stage: &Stage, interrupt: &Interrupt) -> Result<Tcp, Problem> {
    let (a, b) = (stage.node(0), stage.node(1));
    let stream = |from: &NetNs, to: &NetNs, address: IpAddr| {
        traffic::tcp_throughput(from, to, SocketAddr::new(address, 0), ROUND)
            .map(|throughput| throughput.bits_per_second())
            .map_err(|error| failed(&error))
    };
    let (mut mesh, mut underlay) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        interrupt.check()?;
        mesh.push(stream(
            a.container.netns(),
            b.container.netns(),
            b.address()?,
        )?);
        underlay.push(stream(a.host.netns(), b.host.netns(), b.link.v4().into())?);
    }
    let best = |rounds: Vec<f64>| rounds.into_iter().fold(0.0, f64::max);
    Ok(Tcp {
        mesh_bits_per_second: best(mesh),
        underlay_bits_per_second: best(underlay),
    })
}

/// Cuts the way between the first two hosts in silence, sees who passes packets on, and heals it.
pub(super) fn failover(stage: &Stage, interrupt: &Interrupt) -> Result<Failover, Problem> {
    let (a, b) = (stage.node(0), stage.node(1));
    let to = b.address()?;
    let beat = PingTest {
        timeout: Duration::from_millis(50),
        ..PingTest::default()
    };
    let answers = || answers(a.container.netns(), to, beat);
    // A link that loses packets has to be one that sees single ones first.
    a.link.insert_shaper().map_err(|error| failed(&error))?;
    wait_until(PATIENCE, || interrupt.came() || answers());
    interrupt.check()?;

    a.link.cut_off(&b.link).map_err(|error| failed(&error))?;
    let gone = wait_until(PATIENCE, || interrupt.came() || answers());
    interrupt.check()?;
    let relay = path_to_second(stage).and_then(|(_, via)| via);

    a.link.reunite(&b.link).map_err(|error| failed(&error))?;
    let straight = || path_to_second(stage).is_some_and(|(path, _)| path == "sleeve");
    let back = wait_until(PATIENCE, || {
        // Only a way that packets want is looked after.
        let _ = answers();
        interrupt.came() || straight()
    });
    interrupt.check()?;
    Ok(Failover {
        gone_seconds: gone.map(|took| took.as_secs_f64()),
        relay,
        back_seconds: back.map(|took| took.as_secs_f64()),
    })
}

/// By what frames of the first host travel to the second, and through whom.
fn path_to_second(stage: &Stage) -> Option<(String, Option<String>)> {
    let status = stage.status(0).ok()?;
    let peers = status["peers"].as_array()?;
    let peer = peers.iter().find(|peer| peer["nickname"] == "beta")?;
    let is_relay = |other: &&Value| !peer["via"].is_null() && other["id"] == peer["via"];
    let relay = peers.iter().find(is_relay);
    let via = relay.and_then(|relay| Some(relay["nickname"].as_str()?.to_owned()));
    Some((peer["path"].as_str()?.to_owned(), via))
}

/// Counts how often a broadcast of the first container arrives at each other one.
pub(super) fn broadcast(stage: &Stage) -> Result<Broadcast, Problem> {
    let sender = station(stage.node(0))?;
    let receivers = (1..stage.nodes())
        .map(|at| station(stage.node(at)))
        .collect::<Result<Vec<_>, _>>()?;
    let test = GroupTest {
        count: BROADCASTS,
        group: SocketAddr::new(broadcast_address(stage)?.into(), 7007),
        patience: Duration::from_millis(400),
        payload: b"to everyone on the mesh",
    };
    let counts =
        traffic::group_receipts(sender, &receivers, test).map_err(|error| failed(&error))?;
    let received = counts
        .into_iter()
        .zip(1..)
        .map(|(count, at)| Received {
            container: stage.node(at).container.name().to_owned(),
            count,
        })
        .collect();
    Ok(Broadcast {
        sent: BROADCASTS,
        received,
    })
}

fn station(node: &Node) -> Result<(&NetNs, IpAddr), Problem> {
    Ok((node.container.netns(), node.address()?))
}

fn broadcast_address(stage: &Stage) -> Result<Ipv4Addr, Problem> {
    let address = stage.node(0).address()?;
    match IpNet::new(address, stage.prefix_len()) {
        Ok(IpNet::V4(net)) => Ok(net.broadcast()),
        Ok(IpNet::V6(_)) | Err(_) => Err(Problem::new(
            Code::Internal,
            "the demo's mesh has no IPv4 range",
        )),
    }
}

/// Everything that passes the plain network, from before the first router starts.
pub(super) struct Wire {
    captures: Vec<Capture>,
}

impl Wire {
    /// Starts to record at every port of the switch.
    pub(super) fn tap(stage: &Stage) -> Result<Self, Problem> {
        let captures = (0..stage.nodes())
            .map(|at| {
                let link = &stage.node(at).link;
                Capture::start_incoming(link.port_netns(), &link.port())
            })
            .collect::<Result<_, LabError>>()
            .map_err(|error| failed(&error))?;
        Ok(Self { captures })
    }

    fn stop(self) -> Result<Vec<Recording>, Problem> {
        let recordings = self.captures.into_iter().map(Capture::stop);
        let recordings = recordings.collect::<Result<_, _>>();
        recordings.map_err(|error| failed(&error))
    }

    /// Sends markers inside and beside the mesh, ends the record, and searches it.
    pub(super) fn search(self, stage: &Stage) -> Result<Search, Problem> {
        let (inside, beside) = (marker()?, marker()?);
        let arrived = send_inside(stage, &inside)?;
        let control_arrived = send_beside(stage, &beside)?;
        let recordings = self.stop()?;
        let sum = |count: &dyn Fn(&Recording) -> usize| recordings.iter().map(count).sum::<usize>();
        let status = stage.status(0)?;
        Ok(Search {
            address_pairs_found: address_pairs(stage, &recordings)?,
            bytes: sum(&Recording::bytes),
            cipher: status["wire"]["cipher"].as_str().map(str::to_owned),
            control_arrived,
            control_found: sum(&|recording| recording.search(&beside)),
            frames: sum(&|recording| recording.frames().len()),
            lost: recordings.iter().map(Recording::lost).sum(),
            marker_arrived: arrived,
            marker_found: sum(&|recording| recording.search(&inside)),
            marker_sent: INSIDE * stage.nodes() * (stage.nodes() - 1),
        })
    }
}

/// Sends a marker from host to host, beside the mesh, and returns how many copies arrived.
fn send_beside(stage: &Stage, marker: &[u8]) -> Result<usize, Problem> {
    let (a, b) = (stage.node(0), stage.node(1));
    let to = SocketAddr::new(b.link.v4().into(), 0);
    let copies = traffic::udp_copies(a.host.netns(), b.host.netns(), to, marker, BESIDE);
    copies.map_err(|error| failed(&error))
}

/// Sends the marker from every container to every other one, and returns how many copies arrived.
fn send_inside(stage: &Stage, marker: &[u8]) -> Result<usize, Problem> {
    let mut arrived = 0;
    for (from, to) in pairs(stage.nodes()) {
        let (from, to) = (stage.node(from), stage.node(to));
        let address = SocketAddr::new(to.address()?, 0);
        arrived += traffic::udp_copies(
            from.container.netns(),
            to.container.netns(),
            address,
            marker,
            INSIDE,
        )
        .map_err(|error| failed(&error))?;
    }
    Ok(arrived)
}

/// Counts pairs of containers' addresses, hardware and IP, that stand in the record in clear.
fn address_pairs(stage: &Stage, recordings: &[Recording]) -> Result<usize, Problem> {
    let mut found = 0;
    for (a, b) in pairs(stage.nodes()).filter(|(a, b)| a < b) {
        let (a, b) = (stage.node(a), stage.node(b));
        let (ip_a, ip_b) = (a.address()?, b.address()?);
        let macs = a.mac()?.zip(b.mac()?);
        for recording in recordings {
            found += recording.ip_pairs(ip_a, ip_b);
            found += macs.map_or(0, |(a, b)| recording.mac_pairs(a, b));
        }
    }
    Ok(found)
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count)
        .flat_map(move |a| (0..count).map(move |b| (a, b)))
        .filter(|(a, b)| a != b)
}

/// 32 bytes that appear nowhere by chance.
fn marker() -> Result<[u8; MARKER], Problem> {
    let mut marker = [0; MARKER];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut marker))
        .map_err(broken("/dev/urandom cannot be read"))?;
    Ok(marker)
}
