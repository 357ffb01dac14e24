//! Routers that are killed, copied and lost: the mesh finds out, and what comes back is what was there before.

#![expect(clippy::print_stdout, reason = "the harness shows what was measured")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use weft_lab::bar::{Bar, judge};
use weft_lab::{Daemon, Profile, Way, Weft, requires_root, requires_weft, wait_for, wait_until};
use weft_suites::mesh::Mesh;
use weft_suites::site::{Node, Site};

const LIMIT: Duration = Duration::from_secs(30);

/// How soon a killed router is missed everywhere.
const MISSED: Duration = Duration::from_millis(1500);
/// How soon one that is up again is back everywhere.
const BACK: Duration = Duration::from_secs(1);

/// How many members a node reaches.
fn reached(node: &Node) -> Option<u64> {
    let said = node.run(&["status", "-o", "json"]);
    let status: Value = serde_json::from_str(&said.out).ok()?;
    status["mesh"]["connected"].as_u64()
}

#[test]
fn a_killed_router_is_missed_at_once_and_back_at_once() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("killed", binary);
    let nodes = ["a", "b", "c"].map(|name| site.node(name));
    let [a, b, c] = &nodes;
    a.create();
    let token = a.token(&["--reusable"]);
    b.join(a, &token).expect_code(0);
    c.join(a, &token).expect_code(0);
    for node in &nodes {
        node.run(&["wait", "--for", "peers=2"]).expect_code(0);
    }

    judge([Bar::new("missed", MISSED), Bar::new("back", BACK)], |_| {
        kill(Pid::from_raw(c.process()), Signal::SIGKILL).unwrap();
        let begun = Instant::now();
        for node in [a, b] {
            assert!(wait_until(LIMIT, || reached(node) == Some(1)).is_some());
        }
        let missed = begun.elapsed();
        c.run(&["up"]).expect_code(0);
        let begun = Instant::now();
        for node in [a, b] {
            assert!(wait_until(LIMIT, || reached(node) == Some(2)).is_some());
        }
        [missed, begun.elapsed()]
    });
}

#[test]
fn a_node_killed_while_it_joins_keeps_the_name_it_was_given() {
    requires_root!();
    let program = requires_weft!();
    let mut mesh = Mesh::build("named", &program, 2);
    let far = Profile {
        delay: Duration::from_millis(150),
        ..Profile::default()
    };
    for way in [Way::In, Way::Out] {
        mesh.node(1).link.shape_way(way, far).unwrap();
    }
    mesh.start(0);
    // A member, whose first ping is still on its way.
    mesh.start(1);

    mesh.daemon(1).kill9().unwrap();
    mesh.daemon(1).restart().unwrap();

    let status = mesh.await_status(1, |status| status["mesh"]["connected"] == 1);
    assert_eq!(status["node"]["nickname"], "n1");
    mesh.await_status(0, |status| status["peers"][0]["nickname"] == "n1");
}

#[test]
fn a_router_killed_at_any_moment_starts_again_as_the_same_node() {
    let binary = requires_weft!();
    requires_root!();
    let kills: u32 = std::env::var("WEFT_KILLS").map_or(20, |text| text.parse().unwrap());
    let site = Site::new("kills", binary.clone());
    let node = site.node("a");
    let weft = Weft::new(binary, &node.host).unwrap();
    let mut daemon = Daemon::start(weft, &["up", "--log", "warn"]).unwrap();
    let ask = |daemon: &Daemon| -> Option<Value> {
        let output = daemon.weft().run(&["status", "-o", "json"]).unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        status["mesh"]["id"].is_string().then_some(status)
    };
    let mut first: Option<Value> = None;
    let mut tokens = 0;
    let mut slowest = Duration::ZERO;

    let mut seed = u64::from(std::process::id());
    println!("seed {seed}");
    for round in 0..kills.div_ceil(2) {
        // Once while it starts, at a moment of a span that is longer than its start.
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let moment = Duration::from_micros(seed >> 33).min(Duration::from_secs(3600));
        let moment = Duration::from_micros(u64::try_from(moment.as_micros()).unwrap() % 400_000);
        let fell = wait_until(moment, || daemon.ended().is_some());
        assert!(fell.is_none(), "it ended by itself: {}", daemon.output());
        daemon.kill9().unwrap();
        daemon.restart().unwrap();
        // And once while it runs and writes.
        let up = wait_for(LIMIT, || ask(&daemon));
        let (took, status) = up.unwrap_or_else(|| panic!("round {round}: {}", daemon.output()));
        slowest = slowest.max(took);
        // Before it was ever up it may have been killed before it had a mesh.
        let first = first.get_or_insert_with(|| status.clone());
        for place in ["/node/id", "/node/addresses", "/mesh/id"] {
            assert_eq!(
                first.pointer(place),
                status.pointer(place),
                "round {round}: {place}"
            );
        }
        let listed = daemon.weft().run(&["token", "list", "-o", "json"]).unwrap();
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        assert!(
            listed.as_array().unwrap().len() >= tokens,
            "round {round}: a token is lost"
        );
        let mut making = daemon.weft().command(&["token", "create"]);
        let output = node.host.run(|| making.output()).unwrap().unwrap();
        assert!(output.status.success(), "round {round}: {output:?}");
        tokens = listed.as_array().unwrap().len() + 1;
        // One more is being made while it dies.
        let mut last = daemon.weft().command(&["token", "create"]);
        let devnull = || std::process::Stdio::null();
        let mut last = node
            .host
            .netns()
            .spawn(last.stdout(devnull()).stderr(devnull()))
            .unwrap()
            .unwrap();
        let _ = wait_until(moment / 16, || last.try_wait().unwrap().is_some());
        daemon.kill9().unwrap();
        last.wait().unwrap();
        daemon.restart().unwrap();
    }
    assert!(
        wait_for(LIMIT, || ask(&daemon)).is_some(),
        "{}",
        daemon.output()
    );
    println!("{kills} kills; the slowest of the starts took {slowest:?}");
}

/// Copies what a router saved onto another machine.
fn copy_state(from: &Node, to: &Node) {
    fs::create_dir_all(to.weft.state_dir()).unwrap();
    for entry in fs::read_dir(from.weft.state_dir()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.weft.state_dir().join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_copy_of_a_machine_is_refused_and_the_original_is_undisturbed() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("clone", binary);
    // Two that refuse the copy: one alone would not be believed.
    let nodes = ["a", "b", "c", "copy"].map(|name| site.node(name));
    let [a, b, c, copy] = &nodes;
    a.create();
    let token = a.token(&["--reusable"]);
    c.join(a, &token).expect_code(0);
    b.join(a, &token).expect_code(0);
    // As when a stopped virtual machine is copied, and both are started.
    b.run(&["down"]).expect_code(0);
    copy_state(b, copy);
    b.run(&["up"]).expect_code(0);
    b.run(&["wait", "--for", "peers=2"]).expect_code(0);
    let uptime = b.process();

    let said = copy.join(a, &token).expect_problem(11, "WFT-040");

    assert!(said.err.contains("reset"), "no word of what to do: {said}");
    copy.assert_untouched();
    assert_eq!(b.process(), uptime);
    assert_clone_is_told(b, copy);
    b.run(&["ping", &a_name(b)]).expect_code(0);
    assert_eq!(reached(a), Some(2));
    // With an identity of its own it is welcome.
    copy.run(&["reset", "--force"]).expect_code(0);
    copy.join(a, &token).expect_code(0);
    a.run(&["wait", "--for", "peers=3"]).expect_code(0);
}

#[test]
fn a_copy_of_a_running_machine_is_refused_and_the_original_is_undisturbed() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("twin", binary);
    // Two that refuse the copy: one alone would not be believed.
    let nodes = ["a", "b", "c", "copy"].map(|name| site.node(name));
    let [a, b, c, copy] = &nodes;
    a.create();
    let token = a.token(&["--reusable"]);
    c.join(a, &token).expect_code(0);
    b.join(a, &token).expect_code(0);
    let (process, identity) = (b.process(), b.status()["node"]["id"].clone());
    // As when a snapshot of a running machine is started beside it: boot counter, logs and keys are its own.
    // A snapshot is of one moment, so what was written meanwhile is copied again.
    let same = || {
        copy_state(b, copy);
        let file = |node: &Node| fs::read(node.weft.state_dir().join("weft.redb")).unwrap();
        file(b) == file(copy)
    };
    assert!(wait_until(LIMIT, same).is_some());

    // To resume is to be ready, which it is; then it hears from the mesh, and ends.
    copy.run(&["up"]).expect_code(0);
    copy.assert_untouched();
    // Whoever asks next is told why there is no router.
    copy.run(&["status"]).expect_problem(3, "WFT-040");
    let said = copy.join(a, &token).expect_problem(11, "WFT-040");
    assert!(said.err.contains("reset"), "no word of what to do: {said}");
    copy.assert_untouched();
    // The original goes on, and says what it heard.
    assert_clone_is_told(b, copy);
    assert_eq!(b.process(), process);
    assert_eq!(b.status()["node"]["id"], identity);
    assert_eq!((reached(a), reached(b)), (Some(2), Some(2)));
    b.run(&["ping", &a_name(b)]).expect_code(0);
}

/// Waits until the original names its copy, and where that is.
fn assert_clone_is_told(original: &Node, copy: &Node) {
    let told = || {
        let status = original.status();
        let problems = status["problems"].as_array().unwrap();
        problems.iter().any(|problem| {
            let why = problem["why"].as_str().unwrap_or_default();
            problem["code"] == "WFT-040" && why.contains(&copy.address())
        })
    };
    assert!(wait_until(LIMIT, told).is_some(), "{}", original.status());
    original.run(&["status"]).expect_code(4);
}

/// The identity of a peer: of the first, by name.
fn a_name(node: &Node) -> String {
    node.status()["peers"][0]["id"].as_str().unwrap().to_owned()
}
