//! A path that dies in silence is left within a second, and used again when it is back; whatever shape the underlay has,
//! everything reaches everything.
//!
//! `WEFT_CUTS=50` cuts that often; continuous integration does it a few times.

#![expect(clippy::print_stdout, reason = "a test says what it measured")]

use std::time::Duration;

use serde_json::Value;
use weft_lab::{requires_root, requires_weft, wait_until};
use weft_suites::flow::{Conversation, Flow, Mark, Pace};
use weft_suites::mesh::{Mesh, PATIENCE, alone, is_direct};

/// How long a flow may be silent when its path is cut.
const GAP: Duration = Duration::from_secs(1);

/// How long it may be in whatever rhythm paths die and heal.
const ALWAYS: Duration = Duration::from_millis(500);

/// How soon a healed path is used again.
const BACK: Duration = Duration::from_secs(5);

/// How long is watched that nothing switches any more.
const CALM: Duration = Duration::from_secs(2);

/// How the direct path between two hosts dies.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Both,
    Towards,
    From,
}

impl Cut {
    fn count() -> usize {
        let wanted = std::env::var("WEFT_CUTS").ok();
        wanted.and_then(|text| text.parse().ok()).unwrap_or(4)
    }

    fn of(number: usize) -> Self {
        [Self::Both, Self::Towards, Self::From][number % 3]
    }

    fn make(self, mesh: &Mesh, a: usize, b: usize) {
        let (a, b) = (&mesh.node(a).link, &mesh.node(b).link);
        match self {
            Self::Both => a.cut_off(b),
            Self::Towards => a.cut_towards(b),
            Self::From => b.cut_towards(a),
        }
        .expect("a cut");
    }

    /// Says who cannot send directly.
    fn mutes(self, a: usize, b: usize) -> Vec<(usize, usize)> {
        match self {
            Self::Both => vec![(a, b), (b, a)],
            Self::Towards => vec![(a, b)],
            Self::From => vec![(b, a)],
        }
    }
}

fn is_relayed_by(view: &Value, relay: &str) -> bool {
    let reason = view["reason"].as_str();
    view["path"] == "relay" && view["via"] == relay && reason.is_some_and(|text| !text.is_empty())
}

/// Waits until two nodes use the direct path both ways; says how long that took.
fn both_direct(mesh: &Mesh, a: usize, b: usize, patience: Duration) -> Duration {
    let there = mesh.await_view(a, b, patience, is_direct).0;
    let left = patience.saturating_sub(there);
    there + mesh.await_view(b, a, left, is_direct).0
}

fn longest(flows: &[Flow; 2], from: [Mark; 2], to: [Mark; 2]) -> Duration {
    let gaps = [0, 1].map(|at| flows[at].gap(from[at], to[at]));
    gaps[0].max(gaps[1])
}

#[test]
fn a_silent_cut_of_the_direct_path_is_bridged_within_a_second_and_healed_within_five() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let mesh = Mesh::up_shaped("cuts", &program, 3, &[]);
    let relay = mesh.id(2);
    let flows = [(0, 1), (1, 0)].map(|(from, to)| Flow::start(&mesh, from, to, Pace::STEADY));
    let mut conversation = Conversation::open(&mesh, 0, 1);
    let marks = || flows.each_ref().map(Flow::mark);
    let mut worst = (Duration::ZERO, Duration::ZERO);

    for number in 0..Cut::count() {
        both_direct(&mesh, 0, 1, PATIENCE);
        // Not always at the same moment between two probes.
        let some = 200 + number % 7 * 9;
        flows.iter().for_each(|flow| flow.more(some));
        let cut = Cut::of(number);

        let before = marks();
        cut.make(&mesh, 0, 1);
        for (from, to) in cut.mutes(0, 1) {
            mesh.await_view(from, to, BACK, |view| is_relayed_by(view, &relay));
        }
        flows.iter().for_each(|flow| flow.more(200));
        let gap = longest(&flows, before, marks());
        conversation
            .exchange()
            .unwrap_or_else(|error| panic!("cut {number}, {cut:?}: the stream: {error}"));

        let healed = marks();
        let [a, b] = [0, 1].map(|at| &mesh.node(at).link);
        a.reunite(b).expect("no cut");
        let back = both_direct(&mesh, 0, 1, BACK);
        let ways = |at, of| {
            let switches = mesh.switches(at, of).into_iter();
            let ways = switches.map(|switch| [switch["path"].clone(), switch["via"].clone()]);
            ways.collect::<Vec<_>>()
        };
        let switches = || [ways(0, 1), ways(1, 0)];
        let settled = switches();
        let switched = wait_until(CALM, || switches() != settled);
        let return_gap = longest(&flows, healed, marks());
        conversation
            .exchange()
            .unwrap_or_else(|error| panic!("heal {number}, {cut:?}: the stream: {error}"));
        println!(
            "cut {number}, {cut:?}: silent for {gap:?}, back on the direct path after {back:?}, on the way back silent \
             for {return_gap:?}"
        );

        assert!(gap <= GAP, "cut {number}, {cut:?}: silent for {gap:?}");
        assert!(
            switched.is_none(),
            "cut {number}, {cut:?}: it switched again after the return: {:?}",
            switches()
        );
        worst = (worst.0.max(gap), worst.1.max(back));
    }

    println!(
        "at worst silent for {:?}, back after {:?}",
        worst.0, worst.1
    );
    assert_eq!(flows.each_ref().map(Flow::doubled), [0, 0]);
}

/// Everything reaches everything, and each of the pairs that cannot meet says through whom.
fn assert_relayed(mesh: &Mesh, apart: &[(usize, usize)], relay: Option<usize>) {
    let relay = relay.map(|at| mesh.id(at));
    for (a, b) in apart.iter().flat_map(|&(a, b)| [(a, b), (b, a)]) {
        mesh.await_view(a, b, BACK, |view| match &relay {
            Some(relay) => is_relayed_by(view, relay),
            None => view["path"] == "relay" && view["via"].is_string(),
        });
    }
}

/// Lets time pass: a rhythm is made of nothing else.
fn passes(time: Duration) {
    wait_until(time, || false);
}

/// A cut in the middle of whatever came before: long enough for hosts to forget each other's link addresses, or too short for
/// anything to be noticed, and healed for as long.
#[test]
fn a_cut_is_bridged_in_half_a_second_in_whatever_rhythm_it_comes() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    // Each host has an address of either family.
    let mesh = Mesh::up_shaped("rhythm", &program, 3, &[]);
    let flows = [(0, 1), (1, 0)].map(|(from, to)| Flow::start(&mesh, from, to, Pace::STEADY));
    let marks = || flows.each_ref().map(Flow::mark);
    both_direct(&mesh, 0, 1, PATIENCE);
    let rhythm = [
        (5000, 5000),
        (5000, 5000),
        (600, 1000),
        (2000, 500),
        (7000, 3000),
    ];
    let rhythm = rhythm.map(|times: (u64, u64)| {
        let [cut, rest] = <[u64; 2]>::from(times).map(Duration::from_millis);
        (cut, rest)
    });
    let mut worst = Duration::ZERO;

    for (number, (lasts, rest)) in rhythm.into_iter().cycle().take(Cut::count()).enumerate() {
        let before = marks();
        Cut::Both.make(&mesh, 0, 1);
        passes(lasts);
        let gap = longest(&flows, before, marks());
        let [a, b] = [0, 1].map(|at| &mesh.node(at).link);
        a.reunite(b).expect("no cut");
        passes(rest);
        println!("cut {number} for {lasts:?}, healed for {rest:?}: silent for {gap:?}");
        assert!(
            gap <= ALWAYS,
            "cut {number}: silent for {gap:?}: {:?}",
            mesh.switches(0, 1)
        );
        worst = worst.max(gap);
    }

    println!("at worst silent for {worst:?}");
}

#[test]
fn in_a_line_the_ends_reach_each_other_through_the_middle() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let apart = [(0, 2)];

    let mesh = Mesh::up_shaped("line", &program, 3, &apart);

    assert_relayed(&mesh, &apart, Some(1));
    for (at, other) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
        mesh.await_view(at, other, BACK, is_direct);
    }
    mesh.exchange_everything();
}

#[test]
fn in_a_star_the_points_reach_each_other_through_the_centre() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let apart = [(1, 2), (1, 3), (2, 3)];

    let mesh = Mesh::up_shaped("star", &program, 4, &apart);

    assert_relayed(&mesh, &apart, Some(0));
    mesh.exchange_everything();
}

#[test]
fn two_islands_reach_each_other_over_the_one_bridge() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    // 0 and 1 on one, 3 and 4 on the other; 2 stands on the bridge.
    let apart = [(0, 3), (0, 4), (1, 3), (1, 4)];

    let mesh = Mesh::up_shaped("islands", &program, 5, &apart);

    assert_relayed(&mesh, &apart, Some(2));
    mesh.await_view(0, 1, BACK, is_direct);
    mesh.await_view(3, 4, BACK, is_direct);
    mesh.exchange_everything();
}

#[test]
fn a_longer_line_is_walked_hop_by_hop() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let apart = [(0, 2), (0, 3), (1, 3)];

    let mesh = Mesh::up_shaped("longer", &program, 4, &apart);

    assert_relayed(&mesh, &[(0, 3)], None);
    mesh.exchange_everything();
}
