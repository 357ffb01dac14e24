//! Full-size frames arrive whatever the underlay's largest packet is, and nobody needs to be told what that is.

#![expect(clippy::print_stdout, reason = "a test says what it measured")]

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use weft_lab::traffic::{PingTest, ping, tcp_transfer};
use weft_lab::{Harm, Match, MtuLimit, Profile, Way, requires_root, requires_weft};
use weft_suites::flow::{Conversation, Flow, Pace};
use weft_suites::mesh::{Mesh, PATIENCE, alone};

const MEBIBYTE: u64 = 1 << 20;

/// How long a mebibyte may take.
const SOON: Duration = Duration::from_secs(2);

/// How long a stream may stand still when the path becomes narrower beneath it.
const RECOVERY: Duration = Duration::from_secs(3);

/// A limit of which nobody is told.
fn silent(bytes: usize) -> Profile {
    Profile {
        mtu: Some(MtuLimit { bytes, tell: false }),
        ..Profile::default()
    }
}

/// Joins over a narrow underlay, and carries a mebibyte each way.
fn a_mebibyte_crosses(bytes: usize) {
    let _alone = alone();
    let program = requires_weft!();
    let mut mesh = Mesh::build(&format!("mtu{bytes}"), &program, 2);
    let link = &mesh.node(1).link;
    link.shape(silent(bytes)).expect("a narrow cable");
    for at in [0, 1] {
        mesh.start(at);
    }
    for at in [0, 1] {
        mesh.attach(at);
    }
    mesh.converse();

    for (from, to) in [(0, 1), (1, 0)] {
        let inside = |at: usize| mesh.node(at).container.netns();
        let took = tcp_transfer(inside(from), inside(to), mesh.socket(to), MEBIBYTE)
            .unwrap_or_else(|error| panic!("{error}\n{}", mesh.node(from).output()));
        println!("over {bytes} bytes, c{from} to c{to}: {took:?}");
        assert!(took <= SOON, "over {bytes} bytes: {took:?}");
    }

    let (_, view) = mesh.await_view(0, 1, PATIENCE, |view| {
        let found = view["mtu"].as_u64().unwrap_or(0);
        // Within 64 bytes of the truth, and never above it.
        (bytes as u64 - 64..=bytes as u64).contains(&found)
    });
    assert_eq!(view["path"], "sleeve", "{view}");
}

#[test]
fn a_mebibyte_crosses_1500_bytes() {
    requires_root!();
    a_mebibyte_crosses(1500);
}

#[test]
fn a_mebibyte_crosses_1400_bytes() {
    requires_root!();
    a_mebibyte_crosses(1400);
}

#[test]
fn a_mebibyte_crosses_1280_bytes() {
    requires_root!();
    a_mebibyte_crosses(1280);
}

#[test]
fn a_mebibyte_crosses_1124_bytes() {
    requires_root!();
    a_mebibyte_crosses(1124);
}

#[test]
fn a_mebibyte_crosses_576_bytes() {
    requires_root!();
    a_mebibyte_crosses(576);
}

#[test]
fn a_path_that_becomes_narrower_beneath_a_stream_is_found_out_in_three_seconds() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let mesh = Mesh::up_shaped("shrink", &program, 2, &[]);
    // Nearly full frames: what does not fit is not heard at all.
    let pace = Pace {
        per_second: 200,
        size: 1300,
    };
    let flow = Flow::start(&mesh, 0, 1, pace);
    flow.more(100);
    let mut conversation = Conversation::open(&mesh, 0, 1);

    for bytes in [1300, 1124, 700] {
        let before = flow.mark();
        mesh.node(1).link.shape(silent(bytes)).expect("a limit");
        let heard = flow
            .heard_after(before, PATIENCE)
            .unwrap_or_else(|| panic!("nothing crosses {bytes} bytes\n{}", mesh.view(0, 1)));
        flow.more(100);
        let gap = flow.gap(before, flow.mark());
        let inside = |at: usize| mesh.node(at).container.netns();
        let took = tcp_transfer(inside(0), inside(1), mesh.socket(1), MEBIBYTE).expect("a stream");
        println!(
            "to {bytes} bytes: first after {heard:?}, longest silence {gap:?}, then 1 MiB in {took:?}"
        );

        assert!(mesh.node(1).link.counters(Way::In).too_big > 0);
        assert!(gap <= RECOVERY, "silent for {gap:?} at {bytes} bytes");
        conversation.exchange().expect("the stream from before");
    }
}

#[test]
fn a_pair_with_a_narrow_path_of_its_own_does_not_narrow_the_others() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let mesh = Mesh::up_shaped("pairs", &program, 3, &[]);
    let limit = Harm::Narrow(MtuLimit {
        bytes: 1000,
        tell: true,
    });
    let [a, b] = [0, 1].map(|at| &mesh.node(at).link);

    a.harm_towards(b, Match::All, limit).expect("a rule");
    b.harm_towards(a, Match::All, limit).expect("a rule");

    let inside = |at: usize| mesh.node(at).container.netns();
    for (from, to) in [(0, 1), (1, 0), (0, 2)] {
        tcp_transfer(inside(from), inside(to), mesh.socket(to), MEBIBYTE).expect("a stream");
    }
    mesh.await_view(0, 1, PATIENCE, |view| {
        view["mtu"].as_u64().is_some_and(|mtu| mtu <= 1000)
    });
    mesh.await_view(0, 2, PATIENCE, |view| {
        view["mtu"].as_u64().is_some_and(|mtu| mtu > 1400)
    });
}

/// The largest round number of bytes whose frames pass an underlay of 9000 whole, by IPv4 and by IPv6.
const LONG: u16 = 8900;

/// A mesh on an underlay of jumbo frames, some of whose hosts have a cable that carries 1500 bytes and tells nobody.
fn jumbo(name: &str, program: &Path, hosts: usize, flags: &[&str], narrow: &[usize]) -> Mesh {
    let mut mesh = Mesh::build_on(name, program, hosts, |lab| {
        lab.underlay("net").expect("a switch").jumbo()
    });
    for &at in narrow {
        let link = &mesh.node(at).link;
        link.shape(silent(1500)).expect("a narrow cable");
    }
    for at in 0..hosts {
        mesh.start_with(at, 0, if at == 0 { flags } else { &[] });
    }
    for at in 0..hosts {
        mesh.attach(at);
    }
    mesh.converse();
    mesh
}

/// Sends a mebibyte from one container to another, in time.
fn carries_a_mebibyte(mesh: &Mesh, from: usize, to: usize) {
    let inside = |at: usize| mesh.node(at).container.netns();
    let took = tcp_transfer(inside(from), inside(to), mesh.socket(to), MEBIBYTE)
        .unwrap_or_else(|error| panic!("{error}\n{}", mesh.node(from).output()));
    println!("c{from} to c{to}: 1 MiB in {took:?}");
    assert!(took <= SOON, "from c{from} to c{to}: {took:?}");
}

/// Sends echo requests that fill the longest packets of a network, and says how many are answered.
fn full_pings(mesh: &Mesh, from: usize, to: usize, mtu: u16) -> usize {
    let test = PingTest {
        count: 5,
        size: usize::from(mtu) - 28,
        ..PingTest::default()
    };
    let report = ping(mesh.node(from).container.netns(), mesh.address(to), test);
    report.expect("a ping").answered()
}

/// Reads the MTU of a container's device: the kernel tells it in the device's IPv6 settings too.
fn device_mtu(mesh: &Mesh, at: usize) -> u16 {
    let read = || std::fs::read_to_string("/proc/sys/net/ipv6/conf/weft0/mtu");
    let text = mesh.node(at).container.run(read).expect("a namespace");
    text.expect("a device").trim().parse().expect("a number")
}

/// Waits until a router says that packets of so many bytes pass straight to a peer.
fn await_mtu(mesh: &Mesh, from: usize, to: usize, wanted: impl Fn(u64) -> bool) {
    mesh.await_view(from, to, PATIENCE, |view: &Value| {
        view["path"] == "sleeve" && view["mtu"].as_u64().is_some_and(&wanted)
    });
}

#[test]
fn on_jumbo_frames_a_mesh_of_the_usual_mtu_is_as_on_any_ethernet() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();

    let mesh = jumbo("usual", &program, 2, &[], &[]);

    assert_eq!(device_mtu(&mesh, 0), 1350);
    assert_eq!(full_pings(&mesh, 0, 1, 1350), 5);
    carries_a_mebibyte(&mesh, 0, 1);
    // What is larger than its frames is not looked for.
    await_mtu(&mesh, 0, 1, |mtu| mtu == 1500);
}

#[test]
fn a_mesh_of_jumbo_frames_sends_them_whole() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();

    let mesh = jumbo("jumbo", &program, 2, &["--mtu", &LONG.to_string()], &[]);

    for (from, to) in [(0, 1), (1, 0)] {
        let status = mesh.node(from).status().expect("a status");
        assert_eq!(status["mesh"]["mtu"], LONG);
        assert_eq!(device_mtu(&mesh, from), LONG);
        assert_eq!(full_pings(&mesh, from, to, LONG), 5);
        carries_a_mebibyte(&mesh, from, to);
        // Whatever a frame of that size needs around it.
        await_mtu(&mesh, from, to, |mtu| (8982..=9000).contains(&mtu));
    }
}

#[test]
fn a_mesh_of_jumbo_frames_carries_them_over_a_path_of_1500_bytes() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();

    let mesh = jumbo("mixed", &program, 3, &["--mtu", &LONG.to_string()], &[1]);

    for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 1), (0, 2)] {
        assert_eq!(device_mtu(&mesh, from), LONG);
        carries_a_mebibyte(&mesh, from, to);
        assert_eq!(full_pings(&mesh, from, to, LONG), 5);
    }
    await_mtu(&mesh, 0, 1, |mtu| (1436..=1500).contains(&mtu));
    await_mtu(&mesh, 1, 0, |mtu| (1436..=1500).contains(&mtu));
    await_mtu(&mesh, 0, 2, |mtu| mtu >= 8982);
}
