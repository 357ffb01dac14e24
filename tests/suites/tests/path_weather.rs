//! Bad weather: loss, disorder, doubles and long ways slow a mesh down and stop nothing.

#![expect(clippy::print_stdout, reason = "a test says what it measured")]

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use weft_lab::{Lab, Match, Profile, Reorder, Way, requires_root, requires_weft, wait_until};
use weft_suites::flow::{Flow, Pace};
use weft_suites::mesh::Mesh;
use weft_suites::site::Site;

/// How long a join may take.
const JOIN: Duration = Duration::from_secs(10);

/// What a flow through the mesh must deliver of what it delivers without one.
const SHARE: f64 = 0.9;

/// How much is compared: enough that chance moves the share by two hundredths at most.
const COMPARED: usize = 2_000;

const PACE: Pace = Pace {
    per_second: 1_000,
    size: 1_000,
};

/// Returns the share of datagrams that arrive, once the last of them had time to.
fn delivered(flow: &Flow, latency: Duration) -> f64 {
    // The first ones wait for a session, or for an answer to ARP.
    let patience = Duration::from_secs(20);
    assert!(flow.heard_after(flow.mark(), patience).is_some());
    let from = flow.mark();
    let sent = wait_until(patience, || flow.sent(from, flow.mark()) >= COMPARED);
    assert!(sent.is_some(), "the sender is too slow");
    let to = flow.mark();
    // Long enough for the slowest of them.
    let start = Instant::now();
    wait_until(patience, || {
        start.elapsed() > latency || flow.lost(from, to) == 0
    });
    let (sent, lost) = (flow.sent(from, to), flow.lost(from, to));
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let share = (sent - lost) as f64 / sent as f64;
    share
}

/// What two hosts without a mesh get across the same cables, with the same seeds.
fn twin(name: &str, out: Profile, back: Profile, latency: Duration) -> f64 {
    let lab = Lab::new(name);
    let underlay = lab.underlay("net").expect("an underlay");
    let hosts = ["a", "b"].map(|name| lab.host(name).expect("a host"));
    let links = [0, 1].map(|at| underlay.join(&hosts[at]).expect("a cable"));
    links[1].shape_way(Way::In, out).expect("weather");
    links[1].shape_way(Way::Out, back).expect("weather");
    let [output, input] = [0, 1].map(|at| {
        let place = SocketAddr::new(links[at].v4().into(), 0);
        let bound = hosts[at].run(|| UdpSocket::bind(place));
        bound.expect("a namespace").expect("a socket")
    });
    delivered(&Flow::between(output, input, PACE), latency)
}

/// Joins behind the weather, three times at most: where a third is lost, five lost in a row are luck and no fault.
fn join(name: &str, program: &Path, out: Profile, back: Profile) -> (Mesh, Duration) {
    let mut took = Vec::new();
    for _ in 0..3 {
        let mut mesh = Mesh::build(name, program, 2);
        let link = &mesh.node(1).link;
        link.shape_way(Way::In, out).expect("weather");
        link.shape_way(Way::Out, back).expect("weather");
        mesh.start(0);

        let start = Instant::now();
        mesh.start(1);
        let verified = ["wait", "--for", "encrypted", "--timeout", "20s"];
        mesh.node(1).say(&verified);
        let joined = start.elapsed();
        took.push(joined);
        if joined <= JOIN {
            println!("{name}: joined in {took:?}");
            return (mesh, joined);
        }
    }
    panic!("joined after {took:?}");
}

fn survives(name: &str, program: &Path, out: Profile, back: Profile) {
    let latency = Duration::from_millis(300) + 2 * (out.delay + back.delay);
    let (mut mesh, joined) = join(name, program, out, back);
    for at in [0, 1] {
        mesh.attach(at);
    }
    mesh.converse_within(Duration::from_secs(3));
    let through = delivered(&Flow::start(&mesh, 0, 1, PACE), latency);
    let plain = twin(&format!("{name}-twin"), out, back, latency);
    println!("{name}: joined in {joined:?}, delivered {through:.3}, plain {plain:.3}");

    assert!(
        through >= SHARE * plain,
        "{through:.3} through the mesh, {plain:.3} without: {}\n{}",
        mesh.view(0, 1),
        mesh.node(0).output()
    );
}

#[test]
fn a_third_of_all_packets_may_be_lost() {
    requires_root!();
    let program = requires_weft!();
    // Lost one way or the other: 0.3 of what is sent either way.
    let loss = Profile {
        loss: 0.3,
        ..Profile::default()
    };
    survives("loss", &program, loss, loss);
}

#[test]
fn a_quarter_of_all_packets_may_be_overtaken() {
    requires_root!();
    let program = requires_weft!();
    let reorder = Some(Reorder {
        by: Duration::from_millis(5),
        chance: 0.25,
    });
    let disorder = Profile {
        reorder,
        ..Profile::default()
    };
    survives("disorder", &program, disorder, disorder);
}

#[test]
fn a_tenth_of_all_packets_may_come_twice() {
    requires_root!();
    let program = requires_weft!();
    let doubles = Profile {
        duplicate: 0.1,
        ..Profile::default()
    };
    survives("doubles", &program, doubles, doubles);
}

#[test]
fn an_answer_may_take_a_second() {
    requires_root!();
    let program = requires_weft!();
    let far = Profile {
        delay: Duration::from_millis(500),
        ..Profile::default()
    };
    survives("far", &program, far, far);
}

#[test]
fn without_udp_a_join_succeeds_over_tcp_and_says_what_to_do() {
    requires_root!();
    let program = requires_weft!();
    let site = Site::new("no-udp", program);
    let (first, second) = (site.node("a"), site.node("b"));
    let token = first.create();
    second.link.block(Match::Udp).expect("a block");

    let said = second.join(&first, &token).expect_code(4);

    println!("{said}");
    assert!(said.err.contains("WFT-"), "no number: {said}");
    for word in ["UDP", "6783"] {
        assert!(said.err.contains(word), "{word} is not named: {said}");
    }
    for (node, peer) in [(&first, "b"), (&second, "a")] {
        let path = wait_until(Duration::from_secs(5), || {
            let status = node.status();
            status["peers"][0]["path"] == "control"
        });
        assert!(path.is_some(), "towards {peer}: {}", node.status());
    }
}
