//! A mesh in which nothing happens is nearly silent: what a member sends of its own accord is counted on the wire.
//!
//! Twenty-four routers without optimising are too much for a small machine: `WEFT_IDLE_MEMBERS=24 WEFT_IDLE_SECONDS=60`
//! counts at full size, and longer.

#![expect(clippy::print_stdout, reason = "a test says what it measured")]

use std::time::{Duration, Instant};

use weft_kernel::packet::Direction;
use weft_lab::bar::{Bar, hold, rounds};
use weft_lab::packet::Packet;
use weft_lab::{Capture, Recording, requires_root, requires_weft, wait_until};
use weft_suites::mesh::Mesh;

/// How many bytes a second a member may send to each other one, IP headers included: 3.5 kB/s where there are 23.
const BAR: usize = 3500 / 23;

/// What is said at first, of addresses and of ways that are new, is no idle traffic; it ends by then.
const SETTLED: Duration = Duration::from_secs(120);

/// The ports of weft.
const PORTS: [u16; 2] = [6783, 6784];

/// How many bytes of weft's left, without the headers of Ethernet.
fn sent(recording: &Recording) -> usize {
    let of_ours = |frame: &[u8]| {
        let packet = Packet::of_frame(frame)?;
        let ours = packet.ports?.iter().any(|port| PORTS.contains(port));
        ours.then_some(packet.length)
    };
    let frames = recording.frames().iter();
    frames
        .filter(|frame| frame.direction == Direction::Outgoing)
        .filter_map(|frame| of_ours(&frame.bytes))
        .sum()
}

/// Counts for a while what each member sends a second; returns what the one does that sends most.
fn rate(mesh: &Mesh, members: usize, seconds: usize) -> u32 {
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
    println!("bytes a second, IP headers included: {rates:?}");
    assert!(rates.iter().all(|&rate| rate > 0), "none is quite silent");
    let most = rates.into_iter().max().unwrap_or_default();
    u32::try_from(most).expect("a rate")
}

fn wanted(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

#[test]
fn an_idle_member_of_twenty_four_would_send_at_most_three_and_a_half_kilobytes_a_second() {
    requires_root!();
    let program = requires_weft!();
    let members = wanted("WEFT_IDLE_MEMBERS", 10);
    let seconds = wanted("WEFT_IDLE_SECONDS", 5);
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

    let bar = u32::try_from(BAR * (members - 1)).expect("a rate");
    let start = Instant::now();
    let mut first = rate(&mesh, members, seconds);
    while first > 2 * bar {
        assert!(start.elapsed() < SETTLED, "more than twice {bar}: {first}");
        first = rate(&mesh, members, seconds);
    }
    // From here on every round counts.
    let later = (1..rounds()).map(|_| rate(&mesh, members, seconds));
    let rates: Vec<u32> = std::iter::once(first).chain(later).collect();
    hold(Bar::new("bytes a second", bar), rates);
}
