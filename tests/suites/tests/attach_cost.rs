//! What an attach costs every router core of a mesh of 24 with 1 000 containers on each host: printed by
//! `cargo test --release -p weft-suites --test attach_cost -- --ignored --nocapture`.
//!
//! What it costs the kernel side is measured by `weft-fastdp`'s test `scale`.

#![expect(
    clippy::print_stderr,
    reason = "what was measured is what this is run for"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails its test"
)]

use std::net::IpAddr;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use weft_router_proto::io::Command;
use weft_router_proto::router::Intent;
use weft_sim::{NodeIndex, Sim};
use weft_types::MacAddr;

const SECOND: Duration = Duration::from_secs(1);
const HOSTS: usize = 24;
const CONTAINERS: u16 = 1000;
const ATTACHES: u16 = 40;
const BAR: Duration = Duration::from_millis(1);

/// What this thread has spent on a processor.
fn thread_time() -> Duration {
    let spent = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    spent.unwrap().into()
}

/// A container of a host; both are numbered.
fn container(host: usize, number: u16) -> Command {
    let host = u8::try_from(host).unwrap();
    let [high, low] = number.to_be_bytes();
    let address = IpAddr::from([10, 33 + host % 12, (host / 12) << 4 | high, low]);
    let mixed = (u64::from(host) << 16 | u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let [_, _, mac @ ..] = mixed.to_be_bytes();
    Command::Attach {
        mac: MacAddr::local(mac),
        addresses: vec![format!("{address}/12").parse().unwrap()],
        port: format!("wv{number}"),
    }
}

/// A mesh in which every host has its containers. They are attached while the others are down: together they would make
/// the simulator look at as many views as there are containers, on every host.
fn crowded() -> (Sim, Vec<NodeIndex>) {
    let mut sim = Sim::new(1);
    let mut nodes = vec![sim.create()];
    let token = sim.token(nodes[0], true, 900 * SECOND);
    for _ in 1..HOSTS {
        nodes.push(sim.join(nodes[0], token.clone()));
        assert!(sim.run_until(SECOND, |sim| sim.converged(&nodes)));
    }
    for &node in &nodes {
        sim.crash(node);
    }
    for (host, &node) in nodes.iter().enumerate() {
        sim.start(node, Intent::Resume, &[]);
        sim.run(SECOND);
        let numbers = 0..CONTAINERS;
        let asked: Vec<_> = numbers
            .map(|number| sim.command(node, container(host, number)))
            .collect();
        let all = |sim: &Sim| {
            let replies = &sim.node(node).replies;
            asked.iter().all(|id| replies.contains_key(id))
        };
        assert!(sim.run_until(60 * SECOND, all), "{}", sim.story(&[node]));
        sim.crash(node);
    }
    for &node in &nodes {
        sim.start(node, Intent::Resume, &[]);
    }
    let all = |sim: &Sim| nodes.iter().all(|&node| known(sim, node) == expected(0));
    assert!(sim.run_until(60 * SECOND, all), "{}", sim.story(&nodes));
    (sim, nodes)
}

/// How many endpoints a host knows of: containers, and hosts.
fn known(sim: &Sim, node: NodeIndex) -> usize {
    let snapshot = sim.node(node).snapshot.as_ref();
    snapshot.map_or(0, |snapshot| snapshot.endpoints.iter().count())
}

fn expected(attached: u16) -> usize {
    HOSTS * (usize::from(CONTAINERS) + 1) + usize::from(attached)
}

/// What every core spends in a second, after something was asked of one.
fn second(sim: &mut Sim, nodes: &[NodeIndex], ask: impl FnOnce(&mut Sim)) -> Vec<Duration> {
    let spent = |sim: &Sim, node: NodeIndex| sim.node(node).spent.total;
    let before: Vec<Duration> = nodes.iter().map(|&node| spent(sim, node)).collect();
    ask(sim);
    sim.run(SECOND);
    let after = nodes.iter().map(|&node| spent(sim, node));
    after
        .zip(before)
        .map(|(after, before)| after - before)
        .collect()
}

/// The median of what each core spent.
fn medians(seconds: &[Vec<Duration>]) -> Vec<Duration> {
    let of = |node: usize| {
        let mut spent: Vec<Duration> = seconds.iter().map(|second| second[node]).collect();
        spent.sort_unstable();
        spent[spent.len() / 2]
    };
    (0..HOSTS).map(of).collect()
}

#[test]
#[ignore = "measures: see the head of this file"]
fn an_attach_among_twenty_four_thousand_containers_costs_no_core_a_millisecond() {
    let (mut sim, nodes) = crowded();
    let host = 3;
    sim.run(10 * SECOND);
    sim.measure(thread_time);

    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    for n in 0..ATTACHES {
        idle.push(second(&mut sim, &nodes, |_| ()));
        busy.push(second(&mut sim, &nodes, |sim| {
            sim.command(nodes[host], container(host, CONTAINERS + n));
        }));
    }

    for &node in &nodes {
        assert_eq!(known(&sim, node), expected(ATTACHES));
    }
    let (idle, busy) = (medians(&idle), medians(&busy));
    let cost = |node: usize| busy[node].saturating_sub(idle[node]);
    let others = (0..HOSTS).filter(|&node| node != host).map(cost);
    let worst = others.max().unwrap();
    eprintln!(
        "an attach costs the core of its host {:?}, of the others at most {worst:?}; an idle second costs {:?}",
        cost(host),
        idle[host],
    );
    assert!(cost(host) < BAR && worst < BAR);
}
