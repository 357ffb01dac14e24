//! What commands say and show, to people and programs, beside whether they do what they say.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use weft_lab::{requires_root, requires_weft, wait_until};
use weft_suites::site::{Node, Site};

const LIMIT: Duration = Duration::from_secs(30);

/// Types a command to a shell on a host, which may send its output anywhere; `weft` is the program.
fn shell(node: &Node, line: &str) -> weft_suites::site::Said {
    let prepared = node.weft.command::<&str>(&[]);
    let mut command = Command::new("/bin/sh");
    let program = prepared.get_program();
    command.args(["-c", &format!("weft() {{ \"$WEFT\" \"$@\"; }}; {line}")]);
    for (name, value) in prepared.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    // Of the shell's, and no variable of the program's, which knows all of its own.
    command.env("WEFT", program).stdin(Stdio::null());
    node.finish(command, None)
}

#[test]
fn the_router_is_called_weft_where_processes_are_listed() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("comm", binary);
    let a = site.node("a");
    a.create();

    let name = fs::read_to_string(format!("/proc/{}/comm", a.process())).unwrap();

    assert_eq!(name, "weft\n");
}

#[test]
fn a_token_that_nobody_sees_admits_nobody() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("unseen", binary);
    let a = site.node("a");
    a.create();
    let states = || {
        let listed = a.run(&["token", "list", "-o", "json"]).json();
        let all = listed.as_array().unwrap().iter();
        let mut states: Vec<String> = all
            .map(|token| token["state"].as_str().unwrap().to_owned())
            .collect();
        states.sort();
        states
    };

    let full = shell(&a, "weft token create >/dev/full").expect_problem(1, "WFT-001");
    assert!(full.err.contains("The token was revoked"), "{full}");
    assert_eq!(states(), ["live", "voided"]);
    let gone = shell(&a, "{ weft token create; echo $? >&2; } | true");
    assert!(
        gone.err.contains("The token was revoked") && gone.err.contains("\n1"),
        "{gone}"
    );
    assert_eq!(states(), ["live", "voided", "voided"]);
    let closed = shell(&a, "weft token create >&-").expect_problem(2, "WFT-002");
    assert!(closed.err.contains("No token was made"), "{closed}");
    shell(&a, "weft token create >/dev/null").expect_code(0);

    assert_eq!(states(), ["live", "live", "voided", "voided"]);
}

#[test]
fn what_cannot_be_attached_is_refused_in_words_and_leaves_nothing() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("unfit", binary);
    let a = site.node("a");
    a.create();
    let devices = a.devices();
    let container = site.lab.container("c").unwrap();
    let name = container.full_name();
    let attach = |address: &str, target: &str| a.run(&["attach", "--address", address, target]);

    for (address, says) in [
        (
            "192.0.2.7/12",
            "lies outside the mesh's range (that is 10.32.0.0/12 and fd",
        ),
        ("224.0.0.1/12", "lies outside the mesh's range"),
        ("0.0.0.0/0", "lies outside the mesh's range"),
        ("10.32.0.0/12", "is the address of the network itself"),
        (
            "10.47.255.255/12",
            "is the broadcast address of the network",
        ),
        ("10.32.200.1/24", "--address ADDRESS/12"),
    ] {
        let said = attach(address, name).expect_problem(11, "WFT-045");
        assert!(said.err.contains(says), "{said}");
    }
    attach("10.32.200.1/12", "").expect_problem(2, "WFT-002");
    for (target, says) in [
        ("/tmp", "/tmp is no network namespace"),
        ("..", ".. is no network namespace"),
        (
            "/proc/self/ns/mnt",
            "/proc/self/ns/mnt is no network namespace",
        ),
        ("no-such", "/var/run/docker.sock: "),
        ("no-such", "/run/podman/podman.sock: "),
    ] {
        let said = attach("10.32.200.1/12", target).expect_problem(2, "WFT-048");
        assert!(said.err.contains(says), "{said}");
    }
    let words = ["attach", "--address", "10.32.200.1/12", "--interface"];
    for device in ["", "a/b", "longer-than-fifteen"] {
        a.run(&[&words[..], &[device, name]].concat())
            .expect_problem(2, "WFT-002");
    }

    assert_eq!(a.devices(), devices);
    assert_eq!(a.status()["containers"], serde_json::json!([]));
}

#[test]
fn what_is_done_already_is_no_failure_and_what_is_attached_is_shown() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("twice", binary);
    let a = site.node("a");
    a.create();
    let container = site.lab.container("c").unwrap();
    let attach = |address: &str| a.run(&["attach", "--address", address, container.full_name()]);

    let first = attach("10.32.200.1/12").expect_code(0);
    let devices = a.devices();
    let second = attach("10.32.200.1/12").expect_code(0);
    let other = attach("10.32.200.2/12").expect_problem(2, "WFT-048");
    let status = a.status();
    let screen = a.run(&["status"]).expect_code(0);
    let table = a.run(&["status", "containers"]).expect_code(0);
    a.run(&["down"]).expect_code(0);
    a.run(&["down"]).expect_code(0);

    assert!(
        first.out.contains("is on the mesh as 10.32.200.1/12"),
        "{first}"
    );
    assert!(
        second
            .out
            .contains("is on the mesh already as 10.32.200.1/12"),
        "{second}"
    );
    assert!(other.err.contains("as 10.32.200.1/12 (weft0)"), "{other}");
    assert_eq!(status["containers"][0]["addresses"][0], "10.32.200.1");
    assert_eq!(status["containers"].as_array().unwrap().len(), 1);
    assert!(screen.out.contains("1 container · 10.32.200.1"), "{screen}");
    assert!(table.out.contains("10.32.200.1"), "{table}");
    assert!(
        devices.iter().any(|name| name.starts_with("wv")),
        "{devices:?}"
    );
}

#[test]
fn a_host_that_nobody_answers_at_is_told_of() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("dead", binary);
    let (a, b) = (site.node("a"), site.node("b"));
    let token = a.create();
    b.join(&a, &token).expect_code(0);
    a.run(&["status"]).expect_code(0);

    // A member is reached, an address without a route is not.
    let reached = a.run(&["connect", &b.address()]).expect_code(0);
    let dead = a
        .run(&["connect", "198.51.100.1"])
        .expect_problem(4, "WFT-026");
    let targets = a.run(&["status", "targets"]).expect_code(4);
    let told = || {
        a.run(&["status"])
            .out
            .contains("sudo weft forget 198.51.100.1")
    };
    let told = wait_until(LIMIT, told);
    a.run(&["forget", "198.51.100.1"]).expect_code(0);

    assert!(reached.out.contains("connected to"), "{reached}");
    assert!(dead.out.contains("dialling 198.51.100.1"), "{dead}");
    assert!(targets.out.contains("198.51.100.1"), "{targets}");
    assert!(told.is_some(), "{:#}", a.status());
    a.run(&["status"]).expect_code(0);
    a.run(&["status", "targets"]).expect_code(0);
}
