//! Two nodes meet where there is no IPv4 beneath, where a firewall lets in only what answers, and where one of two
//! families is blocked.

#![expect(clippy::print_stdout, reason = "a test says what it measured")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use weft_lab::packet::Packet;
use weft_lab::{Match, requires_root, requires_weft, wait_until};
use weft_suites::flow::{Conversation, Flow, Pace};
use weft_suites::mesh::{Mesh, PATIENCE, alone, is_direct};

/// How soon two nodes are connected, and directly where that is possible.
const SOON: Duration = Duration::from_secs(3);

/// How long a flow may be silent when the family that it travels by is blocked.
const GAP: Duration = Duration::from_secs(1);

/// What plain firewalls remember of UDP.
const MEMORY: Duration = Duration::from_secs(30);

/// Which family a path is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    const fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }

    /// Whether a path is straight, and of this family.
    fn serves(self, view: &Value) -> bool {
        let endpoint = view["endpoint"].as_str().unwrap_or_default();
        let is_v6 = endpoint.starts_with('[');
        is_direct(view) && is_v6 == (self == Self::V6)
    }

    /// Of a set of packets, those of this family.
    fn of(self, packets: Match) -> Match {
        let ours = Match::Custom(Arc::new(move |frame: &[u8]| {
            Packet::of_frame(frame).is_some_and(|packet| packet.is_v4() == (self == Self::V4))
        }));
        Match::AllOf(vec![ours, packets])
    }
}

/// Talks, and waits until the path both ways is straight and of a family.
fn meet(mesh: &Mesh, a: usize, b: usize, family: Family) {
    let start = Instant::now();
    let answered = wait_until(SOON, || mesh.pings(a, b));
    assert!(
        answered.is_some(),
        "c{a} does not reach c{b}: {}",
        mesh.view(a, b)
    );
    let met = wait_until(SOON.saturating_sub(start.elapsed()), || {
        mesh.pings(a, b);
        family.serves(&mesh.view(a, b)) && family.serves(&mesh.view(b, a))
    });
    println!(
        "answered after {answered:?}, straight after {:?}",
        start.elapsed()
    );
    assert!(
        met.is_some(),
        "n{a} and n{b} do not meet by {family:?}: {} {}",
        mesh.view(a, b),
        mesh.view(b, a)
    );
}

#[test]
fn hosts_without_ipv4_meet_through_the_firewalls_of_both() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let mut mesh = Mesh::build_on("six", &program, 3, |lab| {
        lab.underlay_v6("net").expect("a switch")
    });
    for at in [1, 2] {
        mesh.node(at).link.guard(MEMORY).expect("a firewall");
    }
    for at in 0..3 {
        mesh.start(at);
    }
    for at in 0..3 {
        mesh.attach(at);
    }

    meet(&mesh, 1, 2, Family::V6);
    meet(&mesh, 1, 0, Family::V6);

    mesh.exchange_everything();
    // Neither firewall has let in a connection: the way was made by what both sent.
    for (at, other) in [(1, 2), (2, 1)] {
        let state = mesh.view(at, other)["state"].clone();
        assert!(
            mesh.node(at).link.counters(weft_lab::Way::In).blocked > 0,
            "{state}"
        );
    }
}

/// Hosts with both families, between two of which one is blocked from the beginning.
fn one_family_is_enough(name: &str, blocked: Family) {
    let _alone = alone();
    let program = requires_weft!();
    let mut mesh = Mesh::build(name, &program, 3);
    let [a, b] = [1, 2].map(|at| &mesh.node(at).link);
    for (from, to) in [(a, b), (b, a)] {
        let all = Match::AnyOf(vec![Match::Tcp, Match::Udp]);
        from.block_towards(to, blocked.of(all)).expect("a rule");
    }
    for at in 0..3 {
        mesh.start(at);
    }
    for at in 0..3 {
        mesh.attach(at);
    }

    meet(&mesh, 1, 2, blocked.other());

    mesh.exchange_everything();
}

#[test]
fn two_hosts_without_ipv4_between_them_meet_by_ipv6() {
    requires_root!();
    one_family_is_enough("no-four", Family::V4);
}

#[test]
fn two_hosts_without_ipv6_between_them_meet_by_ipv4() {
    requires_root!();
    one_family_is_enough("no-six", Family::V6);
}

#[test]
fn a_family_that_is_blocked_beneath_a_stream_is_left_for_the_other() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    // Nobody could relay.
    let mesh = Mesh::up_shaped("families", &program, 2, &[]);
    let links = [0, 1].map(|at| &mesh.node(at).link);
    let flows = [(0, 1), (1, 0)].map(|(from, to)| Flow::start(&mesh, from, to, Pace::STEADY));
    let mut conversation = Conversation::open(&mesh, 0, 1);

    let family_of = || {
        let by =
            |family: Family| family.serves(&mesh.view(0, 1)) && family.serves(&mesh.view(1, 0));
        [Family::V4, Family::V6].into_iter().find(|&one| by(one))
    };
    for round in 0..4 {
        flows.iter().for_each(|flow| flow.more(200));
        let mut used = None;
        wait_until(PATIENCE, || {
            used = family_of();
            used.is_some()
        });
        let used = used.expect("a straight path");
        let before = flows.each_ref().map(Flow::mark);
        for (from, to) in [(0, 1), (1, 0)] {
            let outcome = links[from].block_towards(links[to], used.of(Match::Udp));
            outcome.expect("a rule");
        }
        for (from, to) in [(0, 1), (1, 0)] {
            mesh.await_view(from, to, PATIENCE, |view| used.other().serves(view));
        }
        flows.iter().for_each(|flow| flow.more(200));
        let gap = [0, 1].map(|at| flows[at].gap(before[at], flows[at].mark()));
        conversation.exchange().expect("the stream from before");
        links[0].reunite(links[1]).expect("no rule");
        println!("round {round}: {used:?} blocked, silent for {gap:?}");
        assert!(
            gap.into_iter().all(|gap| gap <= GAP),
            "round {round}: {gap:?}"
        );
    }
}
