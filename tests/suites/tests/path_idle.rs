//! A mesh in which nothing happens is nearly silent: what a member of twenty-four sends of its own accord is counted on the wire.
//!
//! `WEFT_IDLE_SECONDS=60` counts longer.

#![expect(clippy::print_stdout, reason = "a test says what it measured")]

use std::time::{Duration, Instant};

use weft_kernel::packet::Direction;
use weft_lab::{Capture, Recording, requires_root, requires_weft, wait_until};
use weft_suites::mesh::Mesh;

/// As many as a complete graph may have.
const MEMBERS: usize = 24;

/// How many bytes a second a member of so many may send, IP headers included.
const BAR: usize = 3500;

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

#[test]
fn an_idle_member_of_twenty_four_sends_at_most_three_and_a_half_kilobytes_a_second() {
    requires_root!();
    requires_weft!();
    let program = weft_lab::weft::binary().expect("required above");
    let seconds =
        std::env::var("WEFT_IDLE_SECONDS").map_or(30, |text| text.parse().expect("a number"));
    let mut mesh = Mesh::build("idle", &program, MEMBERS);
    for at in 0..MEMBERS {
        mesh.start(at);
    }
    let connected = |at: usize| {
        mesh.node(at)
            .status()
            .map(|status| status["mesh"]["connected"].clone())
    };
    let complete =
        || (0..MEMBERS).all(|at| connected(at).is_some_and(|count| count == MEMBERS - 1));
    let alone =
        || (0..MEMBERS).filter(|&at| connected(at).is_none_or(|count| count != MEMBERS - 1));
    let stories = || alone().map(|at| mesh.node(at).output()).collect::<Vec<_>>();
    assert!(
        wait_until(SETTLED, complete).is_some(),
        "{}",
        stories().join("\n")
    );

    let start = Instant::now();
    loop {
        let captures: Vec<Capture> = (0..MEMBERS)
            .map(|at| {
                let node = mesh.node(at);
                Capture::start(node.host.netns(), node.link.device()).expect("a capture")
            })
            .collect();
        std::thread::sleep(Duration::from_secs(seconds));
        let window = usize::try_from(seconds).expect("a number of seconds");
        let rates: Vec<usize> = captures
            .into_iter()
            .map(|capture| {
                let recording = capture.stop().expect("a record");
                assert_eq!(recording.lost(), 0);
                sent(&recording) / window
            })
            .collect();
        println!(
            "{:.0} s after the last has joined, bytes a second, IP headers included: {rates:?}",
            start.elapsed().as_secs_f64()
        );
        let quiet = rates.iter().all(|&rate| rate > 0 && rate <= BAR);
        if quiet {
            return;
        }
        assert!(start.elapsed() < SETTLED, "{rates:?}");
    }
}
