//! The life of a router as a user sees it: real routers on namespace hosts, worked by the command line alone.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use weft_lab::{Host, Lab, Link, Match, Underlay, Weft, requires_root, wait_until};

/// Two hosts on one switch, nothing started.
struct Pair {
    a: Weft,
    b: Weft,
    at_a: Link,
    _at_b: Link,
    _host_a: Host,
    host_b: Host,
    _underlay: Underlay,
}

impl Pair {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let underlay = lab.underlay("net").unwrap();
        let (host_a, host_b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
        let (at_a, at_b) = (
            underlay.join(&host_a).unwrap(),
            underlay.join(&host_b).unwrap(),
        );
        let program = Path::new(env!("CARGO_BIN_EXE_weft"));
        Self {
            a: Weft::new(program, &host_a).unwrap(),
            b: Weft::new(program, &host_b).unwrap(),
            at_a,
            _at_b: at_b,
            _host_a: host_a,
            host_b,
            _underlay: underlay,
        }
    }

    /// Begins the mesh on `a` and returns the token of the line that it prints.
    fn up(&self) -> String {
        let up = json(&self.a, &["up", "--name", "a"]);
        up["join"]["token"].as_str().unwrap().to_owned()
    }

    fn join(&self, token: &str) -> Output {
        let host = self.at_a.v4().to_string();
        self.b
            .run(&["join", &host, "--name", "b", "--token", token])
            .unwrap()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for weft in [&self.b, &self.a] {
            let _ = weft.run(&["reset", "--force"]);
        }
    }
}

/// Runs what must succeed and reads its JSON.
fn json(weft: &Weft, args: &[&str]) -> Value {
    let output = weft.run(&[&["-o", "json"], args].concat()).unwrap();
    assert!(output.status.success(), "{args:?}: {}", complaint(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn ends(output: &Output, exit: i32, code: &str) {
    let complaint = complaint(output);
    assert_eq!(
        output.status.code(),
        Some(exit),
        "{complaint}{}",
        said(output)
    );
    // What the command did while it waited comes before.
    let last = complaint.lines().last().unwrap_or_default();
    assert!(last.starts_with(code), "{complaint}");
}

#[test]
fn two_commands_make_a_mesh_and_everything_about_it_can_be_asked() {
    requires_root!();
    let pair = Pair::new("cli-life");
    let token = pair.up();

    let join = pair.join(&token);
    ends(&join, 0, "");
    let told = said(&join);
    assert!(told.starts_with("joined \""), "{told}");
    assert!(
        told.contains("1350 bytes verified both ways, encrypted"),
        "{told}"
    );

    let status = json(&pair.b, &["status"]);
    assert_eq!(status["mesh"]["members"], 2);
    assert_eq!(status["mesh"]["connected"], 1);
    assert_eq!(status["peers"][0]["nickname"], "a");
    assert_eq!(status["peers"][0]["path"], "sleeve");
    assert!(json(&pair.b, &["ping", "a"])["rtt_ms"].as_f64().unwrap() < 1000.0);
    ends(
        &pair
            .b
            .run(&["wait", "--for", "encrypted", "--timeout", "30s"])
            .unwrap(),
        0,
        "",
    );
    ends(
        &pair
            .b
            .run(&["wait", "--for", "peers=2", "--timeout", "50ms"])
            .unwrap(),
        8,
        "WFT-006",
    );
    ends(&pair.b.run(&["ping", "nobody"]).unwrap(), 2, "WFT-047");
    let report = pair
        .b
        .run(&["report", "-f", "{{.node.nickname}} {{.mesh.mtu}}"])
        .unwrap();
    assert_eq!(said(&report), "b 1350\n");
    for (weft, other) in [(&pair.a, "b"), (&pair.b, "a")] {
        let events = said(&weft.run(&["events"]).unwrap());
        assert!(events.contains(&format!("link to {other} (")), "{events}");
        assert!(!events.contains(" down: "), "a join cuts no link: {events}");
    }
    let made = said(&pair.a.run(&["events"]).unwrap());
    assert!(
        made.contains("token for one host made, good for 15 min"),
        "{made}"
    );
    assert_eq!(json(&pair.a, &["token", "list"])[0]["state"], "used");

    ends(&pair.b.run(&["up"]).unwrap(), 0, "");
    ends(&pair.b.run(&["up", "192.0.2.99"]).unwrap(), 11, "WFT-004");
    ends(&pair.b.run(&["down"]).unwrap(), 0, "");
    ends(&pair.b.run(&["status"]).unwrap(), 3, "WFT-003");
    let resumed = pair.b.run(&["up"]).unwrap();
    assert!(
        said(&resumed).contains("resumed, this node is b ("),
        "{}",
        complaint(&resumed)
    );
    ends(
        &pair
            .b
            .run(&["wait", "--for", "peers=1", "--timeout", "30s"])
            .unwrap(),
        0,
        "",
    );

    ends(&pair.b.run(&["reset"]).unwrap(), 0, "");
    assert!(!pair.b.state_dir().exists());
    assert!(!pair.b.socket().exists());
    assert!(
        pair.host_b.mac("weft").unwrap().is_none(),
        "no bridge is left"
    );
    let forgotten = wait_until(Duration::from_secs(30), || {
        json(&pair.a, &["status"])["mesh"]["members"] == 1
    });
    assert!(forgotten.is_some(), "the mesh was told");
}

#[test]
fn a_name_that_is_taken_gets_a_number_and_shells_complete_what_members_are_called() {
    requires_root!();
    let pair = Pair::new("cli-names");
    let token = pair.up();
    let host = pair.at_a.v4().to_string();

    let join = pair
        .b
        .run(&["join", &host, "--name", "a", "--token", &token])
        .unwrap();
    ends(&join, 0, "");
    let told = said(&join);
    ends(&pair.b.run(&["down"]).unwrap(), 0, "");
    let resumed = said(&pair.b.run(&["up", "--name", "a"]).unwrap());
    let completed = pair
        .a
        .command(&["--", "weft", "ping", ""])
        .env("WEFT_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "2")
        .output()
        .unwrap();

    let renamed = "the name a is another member's, so this node is called a-2";
    assert!(told.contains(renamed), "{told}");
    assert!(resumed.contains(renamed), "{resumed}");
    assert_eq!(json(&pair.a, &["status"])["peers"][0]["nickname"], "a-2");
    assert_eq!(json(&pair.a, &["status"])["node"]["nickname"], "a");
    let completed = said(&completed);
    assert!(completed.lines().any(|word| word == "a-2"), "{completed}");
}

#[test]
fn a_fault_of_this_machine_is_named_and_leaves_the_token_good() {
    requires_root!();
    let pair = Pair::new("cli-local");
    let token = pair.up();

    let taken = pair
        .host_b
        .run(|| UdpSocket::bind("0.0.0.0:6783").unwrap())
        .unwrap();
    ends(&pair.join(&token), 11, "WFT-017: port udp/6783 is in use");
    drop(taken);
    ends(&pair.join(&token[..token.len() - 1]), 6, "WFT-030");
    let file = pair.b.folder().join("file");
    fs::write(&file, "").unwrap();
    let host = pair.at_a.v4().to_string();
    let inside_a_file = file.join("state");
    let args = ["join", &host, "--token", &token, "--state-dir"].map(str::to_owned);
    let nowhere = [&args[..], &[inside_a_file.display().to_string()]].concat();
    ends(&pair.b.run(&nowhere).unwrap(), 13, "WFT-013");

    ends(&pair.join(&token), 0, "");
}

#[test]
fn a_way_that_is_closed_is_told_from_one_that_is_refused() {
    requires_root!();
    let pair = Pair::new("cli-ways");
    let token = pair.up();

    pair.at_a.block(Match::UdpPort(6783)).unwrap();
    ends(&pair.join(&token), 4, "WFT-060");
    pair.at_a.heal().unwrap();

    ends(&pair.b.run(&["reset"]).unwrap(), 0, "");
    ends(&pair.join(&token), 6, "WFT-032");
    let second = said(&pair.a.run(&["token", "create"]).unwrap());
    let second = second.trim();
    pair.at_a.cut().unwrap();
    ends(&pair.join(second), 7, "WFT-020");
    pair.at_a.heal().unwrap();
    ends(&pair.a.run(&["down"]).unwrap(), 0, "");
    ends(&pair.join(second), 7, "WFT-021");
    ends(&pair.a.run(&["up"]).unwrap(), 0, "");
    ends(&pair.join(second), 0, "");
}

#[test]
fn a_node_of_another_mesh_is_refused_before_anybody_is_asked() {
    requires_root!();
    let pair = Pair::new("cli-other");
    let token = pair.up();
    ends(&pair.b.run(&["up"]).unwrap(), 0, "");

    let running = pair.join(&token);
    ends(&pair.b.run(&["down"]).unwrap(), 0, "");
    let stopped = pair.join(&token);

    ends(&running, 11, "WFT-041");
    ends(&stopped, 11, "WFT-041");
    assert_eq!(json(&pair.a, &["token", "list"])[0]["state"], "live");
}

#[test]
fn who_has_left_does_not_come_back_by_itself() {
    requires_root!();
    let pair = Pair::new("cli-leave");
    pair.up();

    ends(&pair.a.run(&["leave"]).unwrap(), 0, "");
    ends(&pair.a.run(&["status"]).unwrap(), 3, "WFT-003");
    ends(&pair.a.run(&["up"]).unwrap(), 6, "WFT-035");
    ends(&pair.a.run(&["reset"]).unwrap(), 0, "");
    ends(&pair.a.run(&["up"]).unwrap(), 0, "");
}

#[test]
fn no_token_stands_where_others_look() {
    requires_root!();
    let pair = Pair::new("cli-secret");
    let token = pair.up();
    let host = pair.at_a.v4().to_string();
    let join = pair
        .b
        .run(&["join", &host, "--token", &token, "--log", "trace"])
        .unwrap();
    ends(&join, 0, "");

    let mut looked = 0;
    for pid in pair.host_b.processes().unwrap() {
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            assert!(
                !String::from_utf8_lossy(&bytes).contains(&token),
                "{file} of {pid}"
            );
            assert!(
                !String::from_utf8_lossy(&bytes).contains("WEFT_"),
                "{file} of {pid}"
            );
            looked += 1;
        }
    }
    assert!(looked > 0);
    for weft in [&pair.a, &pair.b] {
        let log = fs::read_to_string(weft.state_dir().join("weft.log")).unwrap();
        assert!(!log.is_empty() && !log.contains(&token));
        for args in [["status"], ["report"], ["events"]] {
            assert!(!said(&weft.run(&args).unwrap()).contains(&token));
        }
    }
}
