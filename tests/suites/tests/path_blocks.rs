//! Whatever a firewall takes away, one way or both, in whatever order: while some path is left, traffic flows; the
//! reason that is given is the right one; and nothing is ever in clear.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde_json::Value;
use weft_lab::{Capture, Harm, Match, MtuLimit, requires_root, requires_weft, wait_until};
use weft_suites::flow::{Flow, Pace};
use weft_suites::mesh::{Mesh, PATIENCE, alone};
use weft_suites::wire::{Dice, receive};

/// How long a flow may be silent after a change, where a path through another member or a direct one is left.
const GAP: Duration = Duration::from_secs(1);

/// The same where only TCP is left: a link that is new must be made first.
const LAST_RESORT: Duration = Duration::from_secs(5);

/// How soon the status must tell it.
const TOLD: Duration = Duration::from_secs(5);

/// What is taken away between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Icmp,
    Nothing,
    Tcp,
    Udp,
    UdpOneWay,
    UdpOtherWay,
    UdpAndIcmp,
    Narrow,
}

impl Block {
    fn make(self, mesh: &Mesh, a: usize, b: usize) {
        let (a, b) = (&mesh.node(a).link, &mesh.node(b).link);
        let both = |frames: Match| {
            a.block_towards(b, frames.clone()).unwrap();
            b.block_towards(a, frames).unwrap();
        };
        match self {
            Self::Icmp => both(Match::Icmp),
            Self::Nothing => {}
            Self::Tcp => both(Match::Tcp),
            Self::Udp => both(Match::Udp),
            Self::UdpOneWay => a.block_towards(b, Match::Udp).unwrap(),
            Self::UdpOtherWay => b.block_towards(a, Match::Udp).unwrap(),
            Self::UdpAndIcmp => both(Match::AnyOf(vec![Match::Udp, Match::Icmp])),
            Self::Narrow => {
                let limit = Harm::Narrow(MtuLimit {
                    bytes: 900,
                    tell: false,
                });
                a.harm_towards(b, Match::All, limit).unwrap();
                b.harm_towards(a, Match::All, limit).unwrap();
            }
        }
    }

    fn heal(mesh: &Mesh, a: usize, b: usize) {
        mesh.node(a).link.reunite(&mesh.node(b).link).unwrap();
    }

    /// Says whether one of the two cannot send to the other by UDP.
    const fn mutes(self, a_to_b: bool) -> bool {
        match self {
            Self::Icmp | Self::Nothing | Self::Tcp | Self::Narrow => false,
            Self::Udp | Self::UdpAndIcmp => true,
            Self::UdpOneWay => a_to_b,
            Self::UdpOtherWay => !a_to_b,
        }
    }
}

/// An order in which each block follows another one than itself, and heals in between only sometimes.
const ORDER: [Block; 12] = [
    Block::Icmp,
    Block::Udp,
    Block::Tcp,
    Block::UdpOneWay,
    Block::Nothing,
    Block::Narrow,
    Block::UdpAndIcmp,
    Block::UdpOtherWay,
    Block::Tcp,
    Block::Udp,
    Block::Narrow,
    Block::Nothing,
];

/// Says a marker from each of two containers to the other at every step, while both cables are recorded.
struct Secret {
    marker: [u8; 32],
    sockets: [UdpSocket; 2],
}

impl Secret {
    fn new(mesh: &Mesh) -> Self {
        let sockets = [0, 1].map(|at| {
            let namespace = mesh.node(at).container.netns();
            let socket = namespace.run(|| UdpSocket::bind(mesh.socket(at)));
            socket.unwrap().unwrap()
        });
        Self {
            marker: Dice::new(4).marker(),
            sockets,
        }
    }

    fn say(&self) {
        let [a, b] = &self.sockets;
        for (from, to) in [(a, b), (b, a)] {
            for _ in 0..20 {
                let _ = from.send_to(&self.marker, to.local_addr().unwrap());
            }
        }
    }
}

fn walk(
    mesh: &Mesh,
    expected: impl Fn(Block, &Value, bool) -> bool,
    limit: impl Fn(Block) -> Duration,
) {
    let secret = Secret::new(mesh);
    let captures = [0, 1].map(|at| {
        let link = &mesh.node(at).link;
        Capture::start(link.port_netns(), &link.port()).unwrap()
    });
    let flows = [(0, 1), (1, 0)].map(|(from, to)| Flow::start(mesh, from, to, Pace::STEADY));
    flows.iter().for_each(|flow| flow.more(200));

    for (step, block) in ORDER.into_iter().enumerate() {
        let before = flows.each_ref().map(Flow::mark);
        Block::heal(mesh, 0, 1);
        block.make(mesh, 0, 1);
        secret.say();
        for (from, to) in [(0, 1), (1, 0)] {
            let what = wait_until(TOLD, || expected(block, &mesh.view(from, to), from == 0));
            assert!(
                what.is_some(),
                "step {step}, {block:?}: n{from} says of n{to}: {}\n{}",
                mesh.view(from, to),
                mesh.node(from).output()
            );
        }
        secret.say();
        flows.iter().for_each(|flow| flow.more(200));
        let gap = [0, 1]
            .map(|at| flows[at].gap(before[at], flows[at].mark()))
            .into_iter()
            .max()
            .unwrap();
        let views = [mesh.view(0, 1), mesh.view(1, 0)];
        println!(
            "step {step}, {block:?}: silent for {gap:?}; {} because {}, {} because {}",
            views[0]["path"], views[0]["reason"], views[1]["path"], views[1]["reason"]
        );
        assert!(
            gap <= limit(block),
            "step {step}, {block:?}: silent for {gap:?}"
        );
    }

    drop(flows);
    for capture in captures {
        let recording = capture.stop().unwrap();
        assert_eq!(recording.lost(), 0);
        assert_eq!(recording.search(&secret.marker[..8]), 0);
        assert_eq!(recording.ip_pairs(mesh.address(0), mesh.address(1)), 0);
    }
}

/// What a reason may say of a path without datagrams.
const NO_DATAGRAMS: [&str; 3] = ["datagram", "does not answer", "UDP"];

/// Whether one of the reasons that are told, of the state or of one of the last switches, is that.
fn tells(mesh: &Mesh, from: usize, to: usize, words: &[&str]) -> bool {
    let state = mesh.view(from, to)["reason"].clone();
    let switches = mesh.switches(from, to).into_iter().rev().take(3);
    let reasons = switches.map(|switch| switch["reason"].clone());
    reasons.chain([state]).any(|reason| {
        let reason = reason.as_str().unwrap_or_default();
        words.iter().any(|word| reason.contains(word))
    })
}

/// Whether one side says what it should: straight where datagrams get through, and `instead` where they do not.
fn is_as_expected(
    mesh: &Mesh,
    block: Block,
    view: &Value,
    a_to_b: bool,
    instead: &impl Fn(&Value) -> bool,
) -> bool {
    let (from, to) = (usize::from(!a_to_b), usize::from(a_to_b));
    let straight = view["path"] == "sleeve";
    if block.mutes(a_to_b) {
        instead(view) && tells(mesh, from, to, &NO_DATAGRAMS)
    } else if block.mutes(!a_to_b) {
        // Its own datagrams arrive; whether it may know that is its own matter.
        straight || instead(view)
    } else {
        straight
    }
}

#[test]
fn two_hosts_with_a_third_between_them_go_round_every_block() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let mesh = Mesh::up_shaped("blocks", &program, 3, &[]);
    let relay = mesh.id(2);

    let instead = |view: &Value| view["path"] == "relay" && view["via"] == relay;
    let expected =
        |block, view: &Value, a_to_b| is_as_expected(&mesh, block, view, a_to_b, &instead);
    walk(&mesh, expected, |_| GAP);
}

#[test]
fn two_hosts_alone_fall_back_to_tcp_and_come_back() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let mesh = Mesh::up_shaped("alone", &program, 2, &[]);

    let instead = |view: &Value| view["path"] == "control";
    let expected =
        |block, view: &Value, a_to_b| is_as_expected(&mesh, block, view, a_to_b, &instead);
    walk(&mesh, expected, |_| LAST_RESORT);
}

#[test]
fn a_line_whose_far_half_has_only_tcp_carries_everything_and_says_so() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let mut mesh = Mesh::build("half", &program, 3);
    let links = [0, 1, 2].map(|at| &mesh.node(at).link);
    links[0].cut_off(links[2]).unwrap();
    for (from, to) in [(1, 2), (2, 1)] {
        links[from].block_towards(links[to], Match::Udp).unwrap();
    }
    let captures = links.map(|link| Capture::start(link.port_netns(), &link.port()).unwrap());
    mesh.start(0);
    mesh.start_by(1, 0);
    mesh.await_view(1, 0, PATIENCE, |view| view["path"] == "sleeve");
    mesh.start_by(2, 1);
    for at in 0..3 {
        mesh.attach(at);
    }

    mesh.converse_within(Duration::from_secs(1));

    let marker = Dice::new(5).marker();
    let sockets = [0, 2].map(|at| {
        let namespace = mesh.node(at).container.netns();
        let bound = namespace.run(|| UdpSocket::bind(mesh.socket(at)));
        bound.unwrap().unwrap()
    });
    for (from, to) in [(0, 1), (1, 0)] {
        let target = sockets[to].local_addr().unwrap();
        sockets[to].set_read_timeout(Some(PATIENCE)).unwrap();
        for _ in 0..50 {
            sockets[from].send_to(&marker, target).unwrap();
            let mut heard = [0; 64];
            assert_eq!(receive(&sockets[to], &mut heard), marker.len());
        }
    }
    mesh.exchange_everything();
    for (at, of, path) in [
        (0, 1, "sleeve"),
        (1, 0, "sleeve"),
        (1, 2, "control"),
        (2, 1, "control"),
        (0, 2, "control"),
        (2, 0, "control"),
    ] {
        mesh.await_view(at, of, TOLD, |view| view["path"] == path);
    }
    // Who talks so is told, and who carries counts it.
    for (at, of) in [(0, 2), (2, 0)] {
        let status = mesh.await_status(at, |status| {
            let problems = status["problems"].as_array().unwrap();
            problems.iter().any(|problem| {
                let text = problem["what"].as_str().unwrap_or_default();
                text.contains(&format!("n{of} ")) && text.contains("TCP")
            })
        });
        let relayed = mesh.node(1).status().unwrap()["relayed"].clone();
        let (from, to) = (mesh.id(at), mesh.id(of));
        let carried = relayed
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["from"] == from && one["to"] == to);
        let datagrams = carried.and_then(|one| one["datagrams"].as_u64());
        assert!(
            datagrams.is_some_and(|count| count >= 50),
            "{relayed} {status}"
        );
        let said = mesh.node(at).program().run(&["status"]).unwrap();
        assert_eq!(said.status.code(), Some(4));
    }
    for capture in captures {
        let recording = capture.stop().unwrap();
        assert_eq!(recording.lost(), 0);
        assert_eq!(recording.search(&marker[..8]), 0);
        assert_eq!(recording.ip_pairs(mesh.address(0), mesh.address(2)), 0);
    }
}

#[test]
fn a_mesh_that_has_lost_everything_is_whole_soon_after_it_is_back() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let mesh = Mesh::up_shaped("dark", &program, 3, &[]);
    let flow = Flow::start(&mesh, 0, 1, Pace::STEADY);
    flow.more(200);

    for at in 0..3 {
        mesh.node(at).link.cut().unwrap();
    }
    for at in 0..3 {
        let alone = |status: &Value| status["mesh"]["connected"] == 0;
        mesh.await_status(at, alone);
    }
    let start = Instant::now();
    let before = flow.mark();
    for at in 0..3 {
        mesh.node(at).link.heal().unwrap();
    }

    let heard = flow.heard_after(before, PATIENCE).expect("a way");
    mesh.settle();
    println!("heard after {heard:?}, whole after {:?}", start.elapsed());
}
