//! What a command refuses since something else is there already: a router, a bridge, a mesh, another command.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

use std::thread;
use std::time::Duration;

use weft_kernel::link::BridgeOptions;
use weft_kernel::netlink::Netlink;
use weft_lab::{requires_root, requires_weft, wait_until};
use weft_suites::site::{Node, Said, Site};

const LIMIT: Duration = Duration::from_secs(30);

/// Types the same command so many times at once.
fn at_once(node: &Node, words: &[&str], times: usize) -> Vec<Said> {
    thread::scope(|scope| {
        let typed: Vec<_> = (0..times)
            .map(|_| scope.spawn(|| node.run(words)))
            .collect();
        typed.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn of_several_commands_at_once_one_wins_and_the_others_say_that_it_runs() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("at-once", binary);
    let (a, b) = (site.node("a"), site.node("b"));

    for (round, times) in [2, 3, 3].into_iter().enumerate() {
        let all = at_once(&a, &["up"], times);
        let created = all.iter().filter(|said| said.out.contains("created"));
        assert_eq!(created.count(), 1, "round {round}: {all:?}");
        for said in all.iter().filter(|said| !said.out.contains("created")) {
            let runs = said.code == Some(0) && said.out.contains("runs already");
            let starts = said.code == Some(11) && said.err.contains("WFT-004");
            assert!(runs || starts, "round {round}: {said}");
            assert!(!said.err.contains("ip link"), "round {round}: {said}");
        }
        assert!(a.devices().contains(&"weft".to_owned()), "round {round}");
        a.process();
        a.run(&["status"]).expect_code(0);

        let token = a.token(&["--reusable"]);
        let address = a.address();
        let all = at_once(&b, &["join", &address, "--token", &token], times);
        let joined = all.iter().filter(|said| said.out.contains("joined"));
        assert_eq!(joined.count(), 1, "round {round}: {all:?}");
        for said in all.iter().filter(|said| !said.out.contains("joined")) {
            let is_in = said.code == Some(0) && said.out.contains("already");
            let starts = said.code == Some(11) && said.err.contains("WFT-004");
            assert!(is_in || starts, "round {round}: {said}");
        }
        b.run(&["wait", "--for", "peers=1"]).expect_code(0);
        b.process();
        for node in [&b, &a] {
            node.run(&["reset", "--force"]).expect_code(0);
            node.assert_untouched();
        }
    }
}

#[test]
fn a_bridge_of_others_is_left_alone() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("foreign", binary);
    let a = site.node("a");
    let netlink =
        |work: &(dyn Fn(Netlink) -> std::pin::Pin<Box<dyn Future<Output = ()>>> + Sync)| {
            let done = a.host.netns().block_on(|| async move {
                work(Netlink::connect().unwrap()).await;
            });
            done.unwrap();
        };
    netlink(&|netlink| {
        Box::pin(async move {
            let options = BridgeOptions {
                name: "weft".to_owned(),
                mac: None,
                alias: String::new(),
                mtu: 1500,
            };
            netlink.create_bridge(&options).await.unwrap();
        })
    });

    let up = a.run(&["up"]).expect_problem(11, "WFT-019");
    a.run(&["reset"]).expect_code(0);

    assert!(
        up.err.contains("--bridge NAME") && !up.err.contains("delete"),
        "{up}"
    );
    assert_eq!(a.devices(), ["eth0", "lo", "weft"]);
    a.run(&["up", "--bridge", "other"]).expect_code(0);
}

#[test]
fn what_a_running_router_cannot_take_is_refused_by_name() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("settings", binary);
    let (a, b) = (site.node("a"), site.node("b"));
    a.run(&["up", "--name", "a"]).expect_code(0);
    let token = a.token(&["--reusable"]);
    b.join(&a, &token).expect_code(0);

    for (flag, value) in [
        ("--name", "other"),
        ("--port", "7000"),
        ("--mtu", "1400"),
        ("--range", "10.99.0.0/16"),
        ("--log", "debug"),
        ("--listen", "127.0.0.1"),
    ] {
        let said = a.run(&["up", flag, value]).expect_problem(11, "WFT-004");
        assert!(
            said.err.contains(&format!("takes no other {flag}")),
            "{said}"
        );
    }
    let address = a.address();
    for (flag, value) in [("--name", "other"), ("--address", "10.32.9.9/12")] {
        let words = ["join", &address, "--token", &token, flag, value];
        let said = b.run(&words).expect_problem(11, "WFT-004");
        assert!(
            said.err.contains(&format!("takes no other {flag}")),
            "{said}"
        );
    }
    // What is as it was said is no other.
    a.run(&["up", "--name", "a", "--port", "6783", "--mtu", "1350"])
        .expect_code(0);
    a.run(&["down"]).expect_code(0);
    let said = a.run(&["up", "--mtu", "1400"]).expect_problem(9, "WFT-018");
    assert!(said.err.contains("is 1350, not 1400"), "{said}");
    a.assert_untouched();
    // A member needs no token.
    a.run(&["up", "--token-file", "/nonexistent"])
        .expect_code(0);
    site.node("c")
        .run(&["up", "--token-file", "/nonexistent"])
        .expect_problem(9, "WFT-018");
}

#[test]
fn what_up_refuses_a_check_of_the_configuration_refuses() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("check", binary);
    let a = site.node("a");

    for (words, code, number) in [
        (["--range", "10.99.0.0/30"], 9, "WFT-018"),
        (["--range", "10.99.0.1/16"], 9, "WFT-018"),
        (["--log", "loud"], 9, "WFT-018"),
        (["--address", "192.0.2.9/12"], 11, "WFT-045"),
        (["--address", "10.32.0.0/12"], 11, "WFT-045"),
        (["--token-file", "/nonexistent"], 9, "WFT-018"),
        (["--token", "junk"], 6, "WFT-030"),
    ] {
        for verb in [&["config", "check"][..], &["up"]] {
            let said = a.run(&[verb, &words].concat()).expect_problem(code, number);
            assert!(!said.err.contains("without a word"), "{said}");
        }
    }
    a.assert_untouched();
    assert!(!a.weft.state_dir().exists());
}

#[test]
fn a_node_is_not_taken_away_behind_the_back_of_its_mesh() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("reset", binary);
    let (a, b) = (site.node("a"), site.node("b"));

    // A fresh machine, and one that is alone in its mesh.
    a.run(&["reset"]).expect_code(0);
    a.create();
    a.run(&["down"]).expect_code(0);
    a.run(&["reset"]).expect_code(0);
    let token = a.create();
    b.join(&a, &token).expect_code(0);
    b.run_unprivileged(&["reset"]).expect_problem(10, "WFT-010");

    b.link.cut().unwrap();
    for verb in ["reset", "leave"] {
        let said = b.run(&[verb]).expect_problem(7, "WFT-026");
        assert!(said.err.contains("sudo weft reset --force"), "{said}");
    }
    b.link.heal().unwrap();
    b.run(&["wait", "--for", "peers=1"]).expect_code(0);
    b.run(&["down"]).expect_code(0);
    let said = b.run(&["reset"]).expect_problem(3, "WFT-003");
    assert!(said.err.contains("1 other members know it"), "{said}");
    assert!(b.weft.state_dir().exists());
    b.run(&["up"]).expect_code(0);
    b.run(&["wait", "--for", "peers=1"]).expect_code(0);
    b.run(&["leave"]).expect_code(0);
    let said = b.run(&["reset"]).expect_code(0);
    assert!(said.out.contains("had left"), "{said}");

    let gone = wait_until(LIMIT, || a.status()["mesh"]["members"] == 1);
    assert!(gone.is_some(), "{:#}", a.status());
    let token = a.token(&[]);
    b.join(&a, &token).expect_code(0);
    b.run(&["down"]).expect_code(0);
    let said = b.run(&["reset", "--force"]).expect_code(0);
    assert!(said.out.contains("was not told"), "{said}");
}
