//! Containers that come, go and take each other's place, as other hosts and their neighbours see it.

#![expect(clippy::print_stdout, reason = "the harness shows what was measured")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::Ipv6Net;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weft_kernel::netns::NetNs;
use weft_lab::traffic::{self, PingTest};
use weft_lab::{Container, requires_root, requires_weft, wait_until};
use weft_suites::site::{Node, Site};

const LIMIT: Duration = Duration::from_secs(30);
/// How long a container may be without traffic that takes another's place.
const REACHED: Duration = Duration::from_secs(1);

fn two(name: &str, binary: std::path::PathBuf) -> (Site, [Node; 2]) {
    let site = Site::new(name, binary);
    let nodes = ["a", "b"].map(|name| site.node(name));
    let [a, b] = &nodes;
    let token = a.create();
    b.join(a, &token).expect_code(0);
    b.run(&["wait", "--for", "peers=1"]).expect_code(0);
    (site, nodes)
}

fn attach(node: &Node, container: &Container, address: &str) {
    node.run(&["attach", "--address", address, container.full_name()])
        .expect_code(0);
}

/// Whether a host's kernel has a neighbour of this address that the mesh gave it.
fn knows(node: &Node, address: &str) -> bool {
    let words = ["neighbour", "show", "dev", "weft", "nud", "permanent"];
    let said = node.host.output("ip", &words).unwrap();
    let said = String::from_utf8_lossy(&said.stdout);
    said.lines()
        .any(|line| line.split(' ').next() == Some(address))
}

fn kill_router(node: &Node) {
    kill(Pid::from_raw(node.process()), Signal::SIGKILL).unwrap();
    let ended = || node.host.processes().unwrap().is_empty();
    assert!(wait_until(LIMIT, ended).is_some());
}

#[test]
fn a_container_that_ended_while_no_router_ran_is_withdrawn() {
    let binary = requires_weft!();
    requires_root!();
    let (site, [a, b]) = two("orphan", binary);
    let ends: [fn(&Node); 2] = [kill_router, |node| {
        node.run(&["down"]).expect_code(0);
    }];

    for (round, end) in ends.into_iter().enumerate() {
        let container = site.lab.container(&format!("c{round}")).unwrap();
        attach(&a, &container, "10.32.200.1/12");
        let told = wait_until(LIMIT, || knows(&b, "10.32.200.1"));
        assert!(told.is_some(), "round {round}");

        end(&a);
        drop(container);
        // Whether or not a stop has left the bridge.
        let _ = a.host.output("ip", &["link", "delete", "weft"]);
        a.run(&["up"]).expect_code(0);
        a.run(&["wait", "--for", "peers=1"]).expect_code(0);

        let gone = wait_until(LIMIT, || !knows(&b, "10.32.200.1"));
        assert!(gone.is_some(), "round {round}: {:#}", a.status());
    }
}

#[test]
fn the_first_container_may_end_before_anybody_has_seen_its_port() {
    let binary = requires_weft!();
    requires_root!();
    let (site, [a, b]) = two("short", binary);

    let container = site.lab.container("c1").unwrap();
    attach(&a, &container, "10.32.200.1/12");
    let there = a.devices();
    let port = there.iter().find(|name| name.starts_with("wv")).unwrap();
    a.host.output("ip", &["link", "delete", port]).unwrap();
    let again = site.lab.container("c2").unwrap();
    let words = ["attach", "--address", "10.32.200.1/12", again.full_name()];
    let free = wait_until(LIMIT, || a.run(&words).code == Some(0));

    assert!(free.is_some(), "{:#}", a.status());
    assert!(wait_until(LIMIT, || knows(&b, "10.32.200.1")).is_some());
}

/// Whether an echo comes back at once.
fn answers(from: &NetNs, to: IpAddr) -> bool {
    let test = PingTest {
        timeout: Duration::from_millis(100),
        ..PingTest::default()
    };
    traffic::ping(from, to, test).unwrap().answered() == 1
}

#[test]
fn a_container_that_takes_another_s_place_is_reached_within_a_second() {
    let binary = requires_weft!();
    requires_root!();
    let (site, [a, b]) = two("instead", binary);
    let status = a.status();
    let addresses = status["node"]["addresses"].as_array().unwrap();
    let mut nets = addresses.iter().map(|net| net.as_str().unwrap());
    let v6: Ipv6Net = nets.find_map(|net| net.parse().ok()).unwrap();
    // Clear of what hosts are given.
    let nth = |n: u8| {
        let v6 = Ipv6Addr::from_bits(v6.network().to_bits() + 0xabc0 + u128::from(n));
        (IpAddr::from([10, 32, 200, n]), IpAddr::from(v6))
    };
    let put = |node: &Node, container: &Container, n| {
        let (v4, v6_address) = nth(n);
        let (v4, v6) = (
            format!("{v4}/12"),
            format!("{v6_address}/{}", v6.prefix_len()),
        );
        let words = ["attach", "--address", &v4, "--address", &v6];
        let words = [&words[..], &[container.full_name()]].concat();
        node.run(&words).expect_code(0);
    };
    let [near, far, first, second] =
        ["near", "far", "first", "second"].map(|name| site.lab.container(name).unwrap());
    put(&a, &first, 1);
    put(&a, &near, 2);
    put(&b, &far, 3);
    let (v4, v6) = nth(1);
    let who = [&near, &far].map(Container::netns);
    let who = who
        .into_iter()
        .chain([&a, &b].map(|node| node.host.netns()));
    let ways: Vec<_> = who.flat_map(|from| [(from, v4), (from, v6)]).collect();
    for &(from, to) in &ways {
        let there = wait_until(LIMIT, || answers(from, to));
        assert!(there.is_some(), "{to}: {:#}", a.status());
    }

    a.run(&["detach", first.full_name()]).expect_code(0);
    put(&a, &second, 1);
    let begun = Instant::now();

    for &(from, to) in &ways {
        let there = wait_until(LIMIT, || answers(from, to));
        println!("{to} is reached {:?} after the attach", begun.elapsed());
        assert!(there.is_some(), "{to}");
    }
    assert!(begun.elapsed() < REACHED);
}
