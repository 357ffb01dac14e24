//! Full-size frames arrive whatever the underlay's largest packet is, and nobody needs to be told what that is.

#![expect(clippy::print_stdout, reason = "a test says what it measured")]

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use weft_lab::traffic::tcp_transfer;
use weft_lab::{Harm, Match, MtuLimit, Profile, Way, requires_root, requires_weft};
use weft_suites::flow::{Conversation, Flow, Pace};
use weft_suites::mesh::{Mesh, PATIENCE};

/// What is measured must not be disturbed by the other tests.
static ALONE: Mutex<()> = Mutex::new(());

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
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(program) = weft_lab::weft::binary() else {
        return weft_lab::skip::skip(module_path!(), "needs the weft program");
    };
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
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
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
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
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
