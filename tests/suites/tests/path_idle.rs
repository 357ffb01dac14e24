//! A mesh in which nothing happens is nearly silent: what a member sends of its own accord is counted on the wire.
//!
//! Twenty-four routers without optimising are too much for a small machine: `WEFT_IDLE_MEMBERS=24 WEFT_IDLE_SECONDS=60`
//! counts at full size, and longer.

#![expect(clippy::print_stdout, reason = "a test says what it measured")]

use std::time::{Duration, Instant};

use weft_kernel::packet::Direction;
use weft_lab::{Capture, Recording, requires_root, requires_weft, wait_until};
use weft_suites::mesh::Mesh;

/// How many bytes a second a member may send to each other one, IP headers included: 3.5 kB/s where there are 23.
const BAR: usize = 3500 / 23;

/// What is said at first, of addresses and of ways that are new, is no idle traffic.
const SETTLED: Duration = Duration::from_secs(120);

const ETHERNET: usize = 14;

/// The ports of weft.
const PORTS: [u16; 2] = [6783, 6784];

/// How many bytes of weft's left, without the headers of Ethernet.
fn sent(recording: &Recording) -> usize {
    let is_ours = |bytes: &[u8]| {
        // IPv4 without options, TCP or UDP: the hosts have no other addresses of each other's.
        let ipv4 = bytes.get(12..15) == Some(&[8, 0, 0x45]);
        let port = |at: usize| {
            bytes
                .get(at..at + 2)
                .map(|b| u16::from_be_bytes([b[0], b[1]]))
        };
        let ports = [port(34), port(36)];
        ipv4 && ports.iter().flatten().any(|port| PORTS.contains(port))
    };
    let frames = recording.frames().iter();
    frames
        .filter(|frame| frame.direction == Direction::Outgoing && is_ours(&frame.bytes))
        .map(|frame| frame.bytes.len() - ETHERNET)
        .sum()
}

fn wanted(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

#[test]
fn an_idle_member_of_twenty_four_would_send_at_most_three_and_a_half_kilobytes_a_second() {
    requires_root!();
    let program = requires_weft!();
    let members = wanted("WEFT_IDLE_MEMBERS", 10);
    let seconds = wanted("WEFT_IDLE_SECONDS", 20);
    let mut mesh = Mesh::build("idle", &program, members);
    for at in 0..members {
        mesh.start(at);
    }
    let connected = |at: usize| {
        let status = mesh.node(at).status();
        status.is_some_and(|status| status["mesh"]["connected"] == members - 1)
    };
    let complete = wait_until(SETTLED, || (0..members).all(connected));
    let alone = || (0..members).filter(|&at| !connected(at));
    let stories = || alone().map(|at| mesh.node(at).output()).collect::<Vec<_>>();
    assert!(complete.is_some(), "{}", stories().join("\n"));

    let start = Instant::now();
    loop {
        let captures: Vec<Capture> = (0..members)
            .map(|at| {
                let node = mesh.node(at);
                Capture::start(node.host.netns(), node.link.device()).expect("a capture")
            })
            .collect();
        std::thread::sleep(Duration::from_secs(seconds as u64));
        let rates: Vec<usize> = captures
            .into_iter()
            .map(|capture| {
                let recording = capture.stop().expect("a record");
                assert_eq!(recording.lost(), 0);
                sent(&recording) / seconds
            })
            .collect();
        println!(
            "{:.0} s after the last has joined, bytes a second, IP headers included: {rates:?}",
            start.elapsed().as_secs_f64()
        );
        let bar = BAR * (members - 1);
        if rates.iter().all(|&rate| rate > 0 && rate <= bar) {
            return;
        }
        assert!(start.elapsed() < SETTLED, "more than {bar}: {rates:?}");
    }
}
