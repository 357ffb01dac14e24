//! Joining by the command line: what works in two commands, and what is said where it cannot.
//!
//! Every failure is made by real means on a real network, named by the command that meets it, and followed by the same
//! command with the fault gone: a token must still be good after anything that is not the token's own fault.

#![expect(clippy::print_stdout, reason = "the harness shows what was measured")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStderr, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weft_kernel::netlink::{Netlink, Request};
use weft_lab::bar::{Bar, judge};
use weft_lab::{Match, Way, requires_root, requires_weft, wait_until};
use weft_suites::site::{Mounts, Node, Site};

const LIMIT: Duration = Duration::from_secs(30);

/// How long it may take from nothing to a verified ping.
const FIRST: Duration = Duration::from_secs(5);

/// Two hosts, and a mesh on the first of them.
fn mesh_and_newcomer(name: &str, binary: std::path::PathBuf) -> (Site, Node, Node, String) {
    let site = Site::new(name, binary);
    let (a, b) = (site.node("a"), site.node("b"));
    let token = a.create();
    (site, a, b, token)
}

#[track_caller]
fn assert_joins(newcomer: &Node, to: &Node, token: &str) {
    let said = newcomer.join(to, token).expect_code(0);
    assert!(said.out.contains("verified both ways, encrypted"), "{said}");
}

#[test]
fn two_commands_and_no_file_make_an_encrypted_mesh_within_five_seconds() {
    let binary = requires_weft!();
    requires_root!();
    judge([Bar::new("two commands", FIRST)], |round| {
        let site = Site::new("first", binary.clone());
        let (a, b) = (site.node("a"), site.node("b"));

        let up = a.run(&["up"]).expect_code(0);
        let line = up
            .out
            .lines()
            .find_map(|line| line.split_once("sudo weft "));
        let words: Vec<&str> = line
            .expect("a join line")
            .1
            .split_whitespace()
            .take(4)
            .collect();
        let join = b.run(&words).expect_code(0);

        let took = up.took + join.took;
        println!(
            "round {round}: two commands took {took:?}: up {:?}, join {:?}",
            up.took, join.took
        );
        assert!(
            join.out
                .contains("1350 bytes verified both ways, encrypted"),
            "{join}"
        );
        let status = a.status();
        assert_eq!(status["mesh"]["members"], 2);
        assert_eq!(status["mesh"]["encrypted"], true);
        assert_eq!(status["peers"][0]["path"], "sleeve");
        [took]
    });
}

#[test]
fn a_wrong_token_is_told_by_its_kind() {
    let binary = requires_weft!();
    requires_root!();
    let (site, a, b, good) = mesh_and_newcomer("tokens", binary);

    // Not a token at all.
    b.join(&a, "nonsense").expect_problem(6, "WFT-030");
    let (short, _) = good.split_at(good.len() - 3);
    b.join(&a, short).expect_problem(6, "WFT-030");
    b.assert_untouched();

    // Of another mesh.
    let other = site.node("other");
    other.create();
    let foreign = other.token(&["--reusable"]);
    b.join(&a, &foreign).expect_problem(6, "WFT-031");
    b.assert_untouched();

    // Revoked.
    let voided = a.token(&[]);
    let listed = a
        .run(&["token", "list", "-o", "json"])
        .expect_code(0)
        .json();
    let live: Vec<&str> = listed
        .as_array()
        .into_iter()
        .flatten()
        .filter(|token| token["state"] == "live")
        .filter_map(|token| token["id"].as_str())
        .collect();
    assert_eq!(live.len(), 2, "{listed}");
    for id in &live {
        a.run(&["token", "revoke", id]).expect_code(0);
    }
    b.join(&a, &voided).expect_problem(6, "WFT-034");
    b.join(&a, &good).expect_problem(6, "WFT-034");
    b.assert_untouched();

    // Expired.
    let brief = a.token(&["--ttl", "1s"]);
    let expired = || {
        let listed = a.run(&["token", "list", "-o", "json"]).json();
        let mut all = listed.as_array().into_iter().flatten();
        all.any(|token| token["state"] == "expired")
    };
    assert!(wait_until(LIMIT, expired).is_some());
    b.join(&a, &brief).expect_problem(6, "WFT-033");
    b.assert_untouched();

    // Used by somebody else.
    let single = a.token(&[]);
    assert_joins(&b, &a, &single);
    let c = site.node("c");
    c.join(&a, &single).expect_problem(6, "WFT-032");
    c.assert_untouched();
    // By its own user it may be said again.
    b.join(&a, &single).expect_code(0);
}

#[test]
fn a_token_that_the_asked_host_does_not_know_is_told() {
    let binary = requires_weft!();
    requires_root!();
    let (site, a, b, good) = mesh_and_newcomer("unknown", binary);
    assert_joins(&b, &a, &good);
    let c = site.node("c");
    // A single-use token stays at its issuer: nobody else can take it. Here the issuer is not reached.
    let token = a.token(&[]);
    c.link.block(concerns(&a)).unwrap();

    let said = c.join(&b, &token).expect_problem(6, "WFT-031");

    assert!(said.err.contains(&b.address()), "{said}");
    c.assert_untouched();
    c.link.heal().unwrap();
    assert_joins(&c, &a, &token);
}

/// Frames that carry one host's IPv4 or IPv6 address.
fn concerns(node: &Node) -> Match {
    let (v4, v6) = (node.link.v4().octets(), node.link.v6().octets());
    Match::Custom(Arc::new(move |frame: &[u8]| {
        frame.windows(4).take(60).any(|window| window == v4)
            || frame.windows(16).take(60).any(|window| window == v6)
    }))
}

#[test]
fn a_port_where_nobody_listens_and_one_that_is_filtered_are_told_apart() {
    let binary = requires_weft!();
    requires_root!();
    let (site, a, b, token) = mesh_and_newcomer("ports", binary);
    let idle = site.node("idle");
    b.link.block(concerns(&a)).unwrap();

    let said = b.join(&idle, &token).expect_problem(7, "WFT-021");
    assert!(said.err.contains(&idle.address()), "{said}");
    b.assert_untouched();
    b.link.heal().unwrap();
    b.link.block(Match::TcpPort(6783)).unwrap();
    let said = b.join(&a, &token).expect_problem(7, "WFT-020");
    assert!(said.err.contains(&a.address()), "{said}");
    b.assert_untouched();

    b.link.heal().unwrap();
    assert_joins(&b, &a, &token);
}

#[test]
fn names_and_networks_that_lead_nowhere_are_told() {
    let binary = requires_weft!();
    requires_root!();
    let (_site, a, b, _) = mesh_and_newcomer("nowhere", binary);
    let token = a.token(&["--reusable"]);

    b.run(&["join", "no-such-host.invalid", "--token", &token])
        .expect_problem(7, "WFT-023");
    b.assert_untouched();
    b.run(&["join", "198.51.100.1", "--token", &token])
        .expect_problem(7, "WFT-022");
    b.assert_untouched();

    assert_joins(&b, &a, &token);
}

#[test]
fn with_udp_blocked_a_join_succeeds_slowly_and_says_so() {
    let binary = requires_weft!();
    requires_root!();
    let (_site, a, b, token) = mesh_and_newcomer("udp", binary);

    b.link.block(Match::UdpPort(6783)).unwrap();
    let said = b.join(&a, &token).expect_problem(4, "WFT-060");

    assert!(said.err.contains("Let UDP port 6783 through"), "{said}");
    assert_eq!(b.status()["peers"][0]["path"], "control");
}

#[test]
fn with_udp_blocked_one_way_it_says_so_too() {
    let binary = requires_weft!();
    requires_root!();
    let (_site, a, b, token) = mesh_and_newcomer("oneway", binary);

    b.link.block_way(Way::In, Match::UdpPort(6783)).unwrap();
    b.join(&a, &token).expect_problem(4, "WFT-060");

    assert_eq!(b.status()["peers"][0]["path"], "control");
}

/// Begins a join to somewhere, and waits until it says what it does.
fn begin_join(node: &Node, to: &str, token: &str) -> (Child, BufReader<ChildStderr>) {
    let mut command = node.weft.command(&["join", to, "--token", token]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut join = node.host.netns().spawn(&mut command).unwrap().unwrap();
    let mut said = BufReader::new(join.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line.trim(), format!("dialling {to}"));
    let runs = || !node.host.processes().unwrap().is_empty();
    assert!(wait_until(LIMIT, runs).is_some());
    (join, said)
}

fn signal(process: &Child, signal: Signal) {
    let process = i32::try_from(process.id()).unwrap();
    kill(Pid::from_raw(process), signal).unwrap();
}

#[test]
fn an_interrupted_join_leaves_nothing_and_the_next_one_works() {
    let binary = requires_weft!();
    requires_root!();
    let (site, a, b, token) = mesh_and_newcomer("interrupt", binary);
    let silent = site.node("silent");
    silent.link.cut().unwrap();

    let (mut join, said) = begin_join(&b, &silent.address(), &token);
    // There are devices to be taken back.
    let begun = || b.devices().contains(&"weft-tap".to_owned());
    assert!(wait_until(LIMIT, begun).is_some());
    signal(&join, Signal::SIGINT);
    let code = join.wait().unwrap().code();
    let said = said.lines().map_while(Result::ok).collect::<Vec<_>>();

    assert_eq!(code, Some(130), "{said:?}");
    let last = said.last().unwrap();
    assert!(
        last.contains("interrupted before this node was in the mesh"),
        "{said:?}"
    );
    b.assert_untouched();
    // Killed, it says nothing, and its router ends all the same.
    let (mut join, _said) = begin_join(&b, &silent.address(), &token);
    assert!(wait_until(LIMIT, begun).is_some());
    signal(&join, Signal::SIGKILL);
    join.wait().unwrap();
    b.assert_untouched();
    assert_joins(&b, &a, &token);
}

#[test]
fn a_join_says_where_it_was_tried_and_gives_up_early_on_what_cannot_change() {
    let binary = requires_weft!();
    requires_root!();
    let (site, a, b, token) = mesh_and_newcomer("tries", binary);
    let idle = site.node("idle");

    let hosts = ["no-such-host.invalid", "198.51.100.1", &idle.address()].map(str::to_owned);
    let mut words = vec!["join"];
    words.extend(hosts.iter().map(String::as_str));
    words.extend(["--token", &token]);
    // The issuer stands in the token, and would let this node in.
    b.link.block(concerns(&a)).unwrap();
    let said = b.run(&words);

    assert_eq!(said.code, Some(7), "{said}");
    for host in &hosts[1..] {
        let told = |line: &str| line.contains(host.as_str()) && line.ends_with("; going on");
        assert!(said.err.lines().any(told), "{said}");
    }
    let named = b.run(&["join", "no-such-host.invalid", "--token", &token]);
    let named = named.expect_problem(7, "WFT-023");
    assert!(named.took < Duration::from_secs(8), "{named}");
    b.assert_untouched();
}

#[test]
fn a_port_in_use_is_named_before_the_token_is_spent() {
    let binary = requires_weft!();
    requires_root!();
    let (_site, a, b, token) = mesh_and_newcomer("inuse", binary);

    for protocol in ["tcp", "udp"] {
        let held: Box<dyn std::any::Any + Send> = b
            .host
            .run(|| -> Box<dyn std::any::Any + Send> {
                match protocol {
                    "tcp" => Box::new(TcpListener::bind("0.0.0.0:6783").unwrap()),
                    _ => Box::new(UdpSocket::bind("0.0.0.0:6783").unwrap()),
                }
            })
            .unwrap();
        let said = b.join(&a, &token).expect_problem(11, "WFT-017");
        assert!(said.err.contains(&format!("{protocol}/6783")), "{said}");
        b.run(&["up"]).expect_problem(11, "WFT-017");
        b.run(&["up", "--foreground"]).expect_problem(11, "WFT-017");
        b.assert_untouched();
        drop(held);
    }
    assert_joins(&b, &a, &token);
}

#[test]
fn a_range_that_overlaps_a_route_is_named_by_who_creates_and_by_who_joins() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("range", binary);
    let (a, b) = (site.node("a"), site.node("b"));

    let said = a
        .run(&["up", "--range", "192.0.0.0/16"])
        .expect_problem(11, "WFT-042");
    assert!(
        said.err.contains("192.0.2.0/24") && said.err.contains("eth0"),
        "{said}"
    );
    assert!(said.err.contains("--range"), "{said}");
    a.assert_untouched();
    let token = a.create();
    route_into_the_mesh(&b, true);
    let said = b.join(&a, &token).expect_problem(11, "WFT-042");
    assert!(said.err.contains("10.40.0.0/16"), "{said}");
    b.assert_untouched();

    route_into_the_mesh(&b, false);
    assert_joins(&b, &a, &token);
}

/// Gives the loopback device an address in the mesh's range, or takes it back.
fn route_into_the_mesh(node: &Node, there: bool) {
    let net: ipnet::IpNet = "10.40.0.1/16".parse().unwrap();
    let change = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let netlink = Netlink::connect().unwrap();
            let lo = netlink.link("lo").await.unwrap().unwrap().index;
            if there {
                netlink.change(Request::add_address(lo, net)).await.unwrap();
            } else {
                netlink
                    .change(Request::delete_address(lo, net))
                    .await
                    .unwrap();
            }
        });
    };
    node.host.run(change).unwrap();
}

#[test]
fn who_lacks_privilege_is_told_so() {
    let binary = requires_weft!();
    requires_root!();
    let (_site, a, b, token) = mesh_and_newcomer("nobody", binary);

    let words = ["join", &a.address(), "--token", &token];
    b.run_unprivileged(&words).expect_problem(10, "WFT-010");
    b.run_unprivileged(&["up"]).expect_problem(10, "WFT-010");
    b.run_unprivileged(&["up", "--foreground"])
        .expect_problem(10, "WFT-010");
    // A router of root is none of theirs.
    a.run_unprivileged(&["status"])
        .expect_problem(10, "WFT-010");
    a.run_unprivileged(&["down"]).expect_problem(10, "WFT-010");
    b.assert_untouched();

    assert_joins(&b, &a, &token);
}

#[test]
fn a_machine_without_tun_is_told_so() {
    let binary = requires_weft!();
    requires_root!();
    let (_site, a, b, token) = mesh_and_newcomer("notun", binary);
    let mounts = Mounts::without_device(Path::new("/dev/net/tun"));

    let words = ["join", &a.address(), "--token", &token];
    b.run_within(&mounts, &words).expect_problem(13, "WFT-011");
    b.run_within(&mounts, &["up"]).expect_problem(13, "WFT-011");
    b.run_within(&mounts, &["up", "--foreground"])
        .expect_problem(13, "WFT-011");
    b.assert_untouched();

    assert_joins(&b, &a, &token);
}

#[test]
fn a_full_disk_is_named_before_the_token_is_spent() {
    let binary = requires_weft!();
    requires_root!();
    let (_site, a, b, token) = mesh_and_newcomer("full", binary);

    // Full at the log, at the first file, at the look for room.
    for size in [4 << 10, 64 << 10, 200 << 10] {
        let disk = Mounts::with_small_disk(&b.weft.state_dir(), size);
        let words = ["join", &a.address(), "--token", &token];
        b.run_within(&disk, &words).expect_problem(13, "WFT-014");
        b.assert_untouched();
    }
    assert_joins(&b, &a, &token);
}

#[test]
fn the_command_line_and_the_configuration_are_checked_before_anything_is_done() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("usage", binary);
    let a = site.node("a");
    let file = a.weft.folder().join("weft.toml");
    let with = |text: &str, words: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let config = ["--config", file.to_str().unwrap()];
        a.run(&[words, &config].concat())
    };

    a.run(&["up", "--port", "many"]).expect_code(2);
    a.run(&["join"]).expect_code(2);
    a.run(&["weave"]).expect_code(2);
    for words in [&["config", "check"][..], &["up"]] {
        let said = with("port = 7000\nrange = \"10.32.0.0\"\n", words).expect_problem(9, "WFT-018");
        assert!(said.err.contains("line 2, column 9"), "{said}");
        let said = with("port = 7000\nprot = 1\n", words).expect_problem(9, "WFT-018");
        assert!(
            said.err.contains("line 2, column 1") && said.err.contains("prot"),
            "{said}"
        );
    }
    with("port = 7000\n", &["config", "check"]).expect_code(0);
    a.assert_untouched();
    assert!(!a.weft.state_dir().exists());
}

#[test]
fn what_cannot_be_true_yet_has_an_exit_code_of_its_own() {
    let binary = requires_weft!();
    requires_root!();
    let (_site, a, b, token) = mesh_and_newcomer("states", binary);

    for words in [
        &["status"][..],
        &["peers"],
        &["token", "list"],
        &["report"],
        &["events"],
        &["ping", "a"],
    ] {
        b.run(words).expect_problem(3, "WFT-003");
    }
    b.run(&["down"]).expect_code(0);
    b.run(&["wait", "--for", "ready", "--timeout", "50ms"])
        .expect_problem(8, "WFT-006");
    a.run(&["wait", "--for", "peers=7", "--timeout", "50ms"])
        .expect_problem(8, "WFT-006");
    a.run(&["ping", "nobody"]).expect_problem(2, "WFT-047");

    // Without a token a host is not joined by `up`, and it is said how.
    b.run(&["up", &a.address()]).expect_problem(5, "WFT-005");
    b.assert_untouched();
    // With one it waits, while its cable is cut as well.
    b.link.cut().unwrap();
    b.run(&["up", &a.address(), "--token", &token])
        .expect_code(0);
    b.run(&["status"]).expect_code(5);
    b.run(&["token", "create"]).expect_problem(5, "WFT-005");
    b.link.heal().unwrap();
    b.run(&["wait", "--for", "joined"]).expect_code(0);
    b.run(&["wait", "--for", "peers=1"]).expect_code(0);
}

#[test]
fn a_node_of_one_mesh_is_not_joined_to_another() {
    let binary = requires_weft!();
    requires_root!();
    let (site, a, b, token) = mesh_and_newcomer("twice", binary);
    assert_joins(&b, &a, &token);
    let other = site.node("other");
    let foreign = other.create();

    b.join(&other, &foreign).expect_problem(11, "WFT-041");
    b.run(&["down"]).expect_code(0);
    b.join(&other, &foreign).expect_problem(11, "WFT-041");
    b.assert_untouched();
    b.run(&["up"]).expect_code(0);
    b.run(&["wait", "--for", "peers=1"]).expect_code(0);
    b.run(&["reset"]).expect_code(0);
    assert_joins(&b, &other, &foreign);
}

#[test]
fn without_the_creator_no_address_is_given_and_no_token_spent() {
    let binary = requires_weft!();
    requires_root!();
    let (site, a, b, token) = mesh_and_newcomer("creator", binary);
    assert_joins(&b, &a, &token);
    let token = b.token(&[]);
    let c = site.node("c");
    a.run(&["down"]).expect_code(0);

    c.join(&b, &token).expect_problem(7, "WFT-025");
    c.assert_untouched();
    a.run(&["up"]).expect_code(0);
    // As the one sees it that is asked.
    b.run(&["wait", "--for", "peers=1"]).expect_code(0);
    assert_joins(&c, &b, &token);
}
