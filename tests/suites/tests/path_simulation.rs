//! Whole router cores on a virtual network that has cuts, NATs and small MTUs: frames find a way wherever there is one.
//!
//! Everything is a function of its seed. `WEFT_SIM_SEEDS=n` runs so many of each scenario that draws its trouble by chance,
//! from `WEFT_SIM_FIRST` on. `WEFT_FLAP_MINUTES=10` lets links of twelve nodes flap for so long, instead of two minutes
//! of six nodes.

#![expect(
    clippy::print_stdout,
    reason = "what was measured, beside what was asked for"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weft_router_proto::io::{Command, Event, MAX_PINGS, Pong, Reply};
use weft_router_proto::overlay::Via;
use weft_router_proto::status::PeerState;
use weft_sim::{LASTING, Line, Malice, NatKind, NatSpec, NodeIndex, Sim};
use weft_suites::record::Recorded;
use weft_types::NodeId;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const QUARTER_HOUR: Duration = Duration::from_secs(900);
/// What is no silence where a frame comes every 100 ms.
const QUIET: Duration = Duration::from_millis(300);
/// A frame of a container at the mesh's MTU.
const FULL: usize = 1378;
/// A small one.
const SMALL: usize = 98;

/// So many seeds, unless more are asked for.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    let first = number("WEFT_SIM_FIRST").unwrap_or(1);
    first..first + number("WEFT_SIM_SEEDS").unwrap_or(count)
}

/// A mesh of `count` nodes, all linked, all in the open network.
fn mesh(seed: u64, count: usize) -> (Sim, Vec<NodeIndex>) {
    mesh_in(Sim::new(seed), count)
}

/// The same in a world that is there.
fn mesh_in(mut sim: Sim, count: usize) -> (Sim, Vec<NodeIndex>) {
    let nodes = sim.grow(&vec![None; count - 1]);
    assert!(
        sim.run_until(2 * SECOND, |sim| sim.converged(&nodes)),
        "{}",
        sim.story(&nodes)
    );
    (sim, nodes)
}

/// Lets frames travel between two both ways.
fn talk(sim: &mut Sim, pair: [NodeIndex; 2], every: Duration, len: usize) {
    sim.flow(pair[0], pair[1], every, len);
    sim.flow(pair[1], pair[0], every, len);
}

/// The longest silence since then, of both directions.
fn silence(sim: &Sim, pair: [NodeIndex; 2], since: Duration) -> Duration {
    let [a, b] = pair;
    sim.silence(a, b, since).max(sim.silence(b, a, since))
}

/// How often the way from one to another has changed since then.
fn switches(sim: &Sim, from: NodeIndex, to: NodeIndex, since: Duration) -> usize {
    let peer = sim.id(to);
    let paths = sim.node(from).paths.iter();
    paths
        .filter(|(at, whom, _)| *at > since && *whom == peer)
        .count()
}

/// What a failure prints.
fn ways(sim: &Sim, pair: [NodeIndex; 2]) -> String {
    let [a, b] = pair;
    let told = |from: NodeIndex, to: NodeIndex| {
        let peer = sim.id(to);
        let paths = sim.node(from).paths.iter();
        let told: Vec<String> = paths
            .filter(|(_, whom, _)| *whom == peer)
            .map(|(at, _, via)| {
                let via = via.map_or_else(|| "none".to_owned(), |via| via.to_string());
                format!("{:.3} s {via}", at.as_secs_f64())
            })
            .collect();
        told.join(", ")
    };
    format!(
        "WEFT_SIM_FIRST={} at {:?}\n  n{} to n{}: {}\n  n{} to n{}: {}",
        sim.seed,
        sim.elapsed(),
        a.0,
        b.0,
        told(a, b),
        b.0,
        a.0,
        told(b, a)
    )
}

#[test]
fn a_silent_cut_is_passed_by_within_a_second_and_the_way_back_is_found_in_five() {
    let gone = seeds(9).map(|seed| cut(Sim::new(seed)).0);
    let worst = gone.max().unwrap_or_default();

    println!("the worst cut: {worst:?}");
}

/// Cuts two nodes of three apart, in one direction or both, and heals them. Returns the longest silence of the cut.
fn cut(sim: Sim) -> (Duration, Sim) {
    let seed = sim.seed;
    let (mut sim, nodes) = mesh_in(sim, 3);
    let pair = [nodes[0], nodes[1]];
    sim.weather.common.delay = [1, 5, 20][usize::try_from(seed % 3).expect("small")] * MILLISECOND;
    talk(&mut sim, pair, 10 * MILLISECOND, SMALL);
    let lead = 5 * SECOND + sim.dice.up_to(SECOND);
    sim.run(lead);
    assert!(sim.is_direct(pair), "{}", ways(&sim, pair));

    let cut = sim.elapsed();
    sim.weather.block(nodes[0], nodes[1]);
    if seed.is_multiple_of(2) {
        sim.weather.block(nodes[1], nodes[0]);
    }
    sim.run(8 * SECOND);
    let gone = silence(&sim, pair, cut);
    assert!(gone <= SECOND, "gone for {gone:?}: {}", ways(&sim, pair));

    let healed = sim.elapsed();
    sim.weather.heal();
    let back = sim.run_until(5 * SECOND, |sim| sim.is_direct(pair));
    assert!(back, "{}", ways(&sim, pair));
    sim.run(20 * SECOND);
    let calm = silence(&sim, pair, healed);
    assert!(calm <= 200 * MILLISECOND, "{calm:?}: {}", ways(&sim, pair));
    for [from, to] in [pair, [pair[1], pair[0]]] {
        let count = switches(&sim, from, to, healed);
        assert!(count <= 2, "flaps: {}", ways(&sim, pair));
    }
    (gone, sim)
}

#[test]
fn sessions_are_not_renewed_over_and_over_while_a_way_is_cut() {
    let (mut sim, nodes) = mesh(1, 3);
    let pair = [nodes[0], nodes[1]];
    talk(&mut sim, pair, 100 * MILLISECOND, SMALL);
    sim.run(10 * SECOND);
    let renewed = |sim: &Sim| -> u64 {
        let status = nodes
            .iter()
            .map(|&node| sim.core(node).status(sim.now(node)));
        status.map(|status| status.counters.rekeys).sum()
    };

    let before = renewed(&sim);
    sim.weather.block(nodes[0], nodes[1]);
    sim.weather.block(nodes[1], nodes[0]);
    sim.run(25 * SECOND);

    assert!(!sim.is_direct(pair), "{}", ways(&sim, pair));
    // Keys live three minutes: what is renewed here is by who comes back with another session, once each.
    let more = renewed(&sim) - before;
    assert!(more <= 4, "{more} renewed in 25 s");
}

#[test]
fn heartbeats_leave_a_dead_way_within_a_second_where_no_frames_travel() {
    for seed in seeds(8) {
        let (mut sim, nodes) = mesh(530 + seed, 3);
        let pair = [nodes[0], nodes[1]];
        talk(&mut sim, pair, 100 * MILLISECOND, SMALL);
        sim.run(2 * SECOND);
        sim.stop(pair[0], pair[1]);
        sim.stop(pair[1], pair[0]);
        let lead = 30 * SECOND + sim.dice.up_to(SECOND);
        sim.run(lead);
        assert!(sim.is_direct(pair), "{}", ways(&sim, pair));

        sim.weather.block(nodes[0], nodes[1]);
        if seed % 2 == 0 {
            sim.weather.block(nodes[1], nodes[0]);
        }
        let left = sim.run_until(SECOND, |sim| {
            let direct = |from, to| matches!(sim.via(from, to), Some(Via::Direct(_)));
            !direct(pair[0], pair[1]) && !direct(pair[1], pair[0])
        });

        assert!(left, "{}", ways(&sim, pair));
    }
}

/// Hosts of which only some pairs reach each other; each joins by a neighbour that is there already.
fn shape(seed: u64, count: usize, linked: impl Fn(usize, usize) -> bool) -> (Sim, Vec<NodeIndex>) {
    let mut sim = Sim::new(seed);
    for a in 0..count {
        for b in 0..count {
            if a != b && !linked(a.min(b), a.max(b)) {
                sim.weather.block(NodeIndex(a), NodeIndex(b));
            }
        }
    }
    let mut nodes = vec![sim.create()];
    let token = sim.token(nodes[0], true, QUARTER_HOUR);
    for new in 1..count {
        let by = (0..new).find(|&old| linked(old, new)).expect("a neighbour");
        // An introducer passes tokens on that have reached it.
        sim.run(SECOND);
        nodes.push(sim.join(nodes[by], token.clone()));
    }
    let known = sim.run_until(10 * SECOND, |sim| {
        nodes
            .iter()
            .all(|&n| sim.node(n).peers().len() + 1 == count)
    });
    assert!(known, "{}", sim.story(&nodes));
    (sim, nodes)
}

fn frames_pass_between_all(sim: &mut Sim, nodes: &[NodeIndex]) {
    for pair in pairs(nodes) {
        talk(sim, pair, 50 * MILLISECOND, SMALL);
    }
    sim.run(4 * SECOND);
    let since = sim.elapsed();
    sim.run(10 * SECOND);
    for pair in pairs(nodes) {
        let quiet = silence(sim, pair, since);
        assert!(quiet <= 200 * MILLISECOND, "{quiet:?}: {}", ways(sim, pair));
    }
}

#[test]
fn a_line_of_five_carries_frames_from_end_to_end() {
    let (mut sim, nodes) = shape(20, 5, |a, b| a + 1 == b);

    frames_pass_between_all(&mut sim, &nodes);
}

#[test]
fn a_star_carries_frames_between_its_rays() {
    let (mut sim, nodes) = shape(21, 6, |a, _| a == 0);

    frames_pass_between_all(&mut sim, &nodes);
}

#[test]
fn two_islands_are_joined_by_the_one_host_that_reaches_both() {
    let (mut sim, nodes) = shape(22, 7, |a, b| (a < 4) == (b < 4) || a == 3);

    frames_pass_between_all(&mut sim, &nodes);
}

#[test]
fn a_member_without_a_link_is_told_of_with_its_relay_and_every_switch() {
    let (mut sim, nodes) = shape(23, 3, |a, b| a + 1 == b);
    let [a, b, c] = [nodes[0], nodes[1], nodes[2]];
    talk(&mut sim, [a, c], 50 * MILLISECOND, SMALL);
    sim.run(4 * SECOND);
    let told = |sim: &Sim| {
        let peers = sim.core(a).status(sim.now(a)).peers;
        let told = peers.into_iter().find(|peer| peer.id == sim.id(c));
        told.expect("a member")
    };

    let relayed = told(&sim);
    sim.weather.block(b, c);
    sim.weather.block(c, b);
    let gone = sim.run_until(10 * SECOND, |sim| told(sim).state == PeerState::Down);
    let down = told(&sim);
    sim.weather.unblock(b, c);
    sim.weather.unblock(c, b);
    let back = sim.run_until(30 * SECOND, |sim| told(sim).path.is_some());
    let again = told(&sim);

    assert!(gone && back, "{}", sim.story(&nodes));
    assert_eq!(relayed.state, PeerState::Connected);
    assert_eq!(relayed.via, Some(sim.id(b)));
    assert!(relayed.reason.starts_with("no link: "), "{relayed:?}");
    assert!(relayed.switches.len() > 1, "{relayed:?}");
    // Whoever asks why a member went away wants to know what its way was before.
    assert_eq!(down.path, None);
    assert!(down.switches.starts_with(&relayed.switches), "{down:?}");
    assert!(down.switches.len() > relayed.switches.len(), "{down:?}");
    assert!(again.switches.starts_with(&down.switches), "{again:?}");
}

/// What a relay may do, by name.
fn evils() -> Vec<(&'static str, Malice)> {
    let (none, half) = (Malice::default(), SECOND / 2);
    let drops = [0.01, 0.1, 0.5, 1.0].map(|drops| ("drops", Malice { drops, ..none }));
    let mutates = [0.01, 0.1, 0.5, 1.0].map(|mutates| ("mutates", Malice { mutates, ..none }));
    let delays = [(
        "delays",
        Malice {
            delays: half,
            ..none
        },
    )];
    drops.into_iter().chain(mutates).chain(delays).collect()
}

#[test]
fn a_relay_that_harms_what_it_passes_on_is_left_within_a_second() {
    for (number, (name, malice)) in evils().into_iter().enumerate() {
        let (mut sim, nodes) = mesh(30 + number as u64, 4);
        let pair = [nodes[0], nodes[1]];
        sim.weather.partition(&[nodes[0]], &[nodes[1]]);
        talk(&mut sim, pair, MILLISECOND / 5, SMALL);
        sim.run(4 * SECOND);
        let relay = |sim: &Sim, [from, to]: [NodeIndex; 2]| match sim.via(from, to) {
            Some(Via::Relay(relay)) => Some(relay),
            Some(Via::Control | Via::Direct(_)) | None => None,
        };
        let used = relay(&sim, pair).expect("over a member");
        let evil = nodes[2..].iter().find(|&&n| sim.id(n) == used).copied();
        let evil = evil.expect("over one of the other two");

        sim.set_malice(evil, malice);
        let left = sim.run_until(SECOND, |sim| {
            [pair, [pair[1], pair[0]]]
                .into_iter()
                .all(|pair| relay(sim, pair).is_some_and(|relay| relay != used))
        });

        assert!(left, "{name} {malice:?}: {}", ways(&sim, pair));
        let since = sim.elapsed();
        sim.run(10 * SECOND);
        for [from, to] in [pair, [pair[1], pair[0]]] {
            let count = switches(&sim, from, to, since);
            assert!(count <= 1, "{name} {malice:?} flaps: {}", ways(&sim, pair));
        }
    }
}

/// Whether connections, one after another, lead from one to the other.
fn connected(nodes: &[NodeIndex], sim: &Sim, [from, to]: [NodeIndex; 2]) -> bool {
    let passes = |a, b| !sim.weather.is_tcp_blocked(a, b) && !sim.weather.is_tcp_blocked(b, a);
    let mut reached = BTreeSet::from([from]);
    loop {
        let next: Vec<NodeIndex> = nodes
            .iter()
            .copied()
            .filter(|&n| !reached.contains(&n) && reached.iter().any(|&r| passes(r, n)))
            .collect();
        if next.is_empty() {
            return reached.contains(&to);
        }
        reached.extend(next);
    }
}

#[test]
fn whatever_is_blocked_frames_pass_where_some_way_is_left() {
    for seed in seeds(2) {
        block(Sim::new(seed));
    }
}

/// Blocks ways of four nodes by chance, twelve times, and looks each time whether frames pass.
fn block(sim: Sim) -> Sim {
    let (mut sim, nodes) = mesh_in(sim, 4);
    let pair = [nodes[0], nodes[1]];
    talk(&mut sim, pair, 20 * MILLISECOND, SMALL);
    for _ in 0..12 {
        let [a, b] = [0, 1].map(|_| {
            let at = sim.dice.below(4);
            nodes[usize::try_from(at).expect("an index")]
        });
        match sim.dice.below(8) {
            0 => sim.weather.block(a, b),
            1 => sim.weather.block_tcp(a, b),
            2 | 3 => sim.weather.block_udp(a, b),
            4 => {
                sim.weather.block_udp(a, b);
                sim.weather.block_udp(b, a);
            }
            5 => {
                for &n in &nodes {
                    sim.weather.block_udp(nodes[0], n);
                }
            }
            6 => sim.weather.unblock(a, b),
            _ => sim.weather.heal(),
        }
        // As long as a kernel keeps a dead connection, and a dialler waits at most.
        sim.run(26 * SECOND);
        let since = sim.elapsed();
        sim.run(3 * SECOND);
        let quiet = silence(&sim, pair, since);
        assert!(
            !connected(&nodes, &sim, pair) || quiet <= SECOND,
            "{quiet:?}: {}\n{:?}\n{}",
            ways(&sim, pair),
            sim.weather,
            sim.story(&nodes)
        );
    }
    sim
}

#[test]
fn without_udp_frames_travel_over_connections() {
    let (mut sim, nodes) = mesh(50, 3);
    let pair = [nodes[0], nodes[1]];
    for &a in &nodes {
        for &b in &nodes {
            sim.weather.block_udp(a, b);
        }
    }
    talk(&mut sim, pair, 20 * MILLISECOND, FULL);

    sim.run(4 * SECOND);
    let since = sim.elapsed();
    sim.run(10 * SECOND);

    assert_eq!(sim.via(nodes[0], nodes[1]), Some(Via::Control));
    let quiet = silence(&sim, pair, since);
    assert!(
        quiet <= 200 * MILLISECOND,
        "{quiet:?}: {}",
        ways(&sim, pair)
    );
}

/// Lets nothing but connections pass between two.
fn only_tcp(sim: &mut Sim, a: NodeIndex, b: NodeIndex) {
    sim.weather.block_udp(a, b);
    sim.weather.block_udp(b, a);
}

#[test]
fn a_hop_by_udp_and_one_by_tcp_alone_carry_frames_together() {
    let (mut sim, nodes) = shape(51, 3, |a, b| a + 1 == b);
    let [a, b, c] = [nodes[0], nodes[1], nodes[2]];
    only_tcp(&mut sim, b, c);
    for pair in pairs(&nodes) {
        talk(&mut sim, pair, 20 * MILLISECOND, FULL);
    }

    sim.run(4 * SECOND);
    let since = sim.elapsed();
    sim.run(20 * SECOND);

    assert!(sim.is_direct([a, b]), "{}", ways(&sim, [a, b]));
    for pair in pairs(&nodes) {
        let quiet = silence(&sim, pair, since);
        let told = ways(&sim, pair);
        assert!(quiet <= 200 * MILLISECOND, "{quiet:?}: {told}");
    }
    let pair = [a, c];
    assert_eq!(sim.via(a, c), Some(Via::Control), "{}", ways(&sim, pair));
}

#[test]
fn an_mtu_that_changes_is_found_out_within_three_seconds() {
    for (number, icmp) in [(60, false), (61, true)] {
        let (mut sim, nodes) = mesh(number, 2);
        let pair = [nodes[0], nodes[1]];
        talk(&mut sim, pair, 5 * MILLISECOND, FULL);
        sim.run(10 * SECOND);
        for mtu in [
            1500, 1400, 1280, 1124, 576, 1124, 1280, 1400, 1500, 576, 1500,
        ] {
            for [from, to] in [pair, [pair[1], pair[0]]] {
                *sim.weather.line(from, to) = Line {
                    mtu,
                    icmp,
                    ..Line::default()
                };
            }
            let since = sim.elapsed();
            let fits = |sim: &Sim, [from, to]: [NodeIndex; 2]| {
                let path = sim.node(from).path_to(sim.id(to));
                path.is_some_and(|path| path.datagram + 28 <= mtu)
            };
            let found = sim.run_until(3 * SECOND, |sim| {
                fits(sim, pair) && fits(sim, [pair[1], pair[0]])
            });
            assert!(found, "{mtu}: {}", ways(&sim, pair));
            sim.run_until(3 * SECOND, |sim| sim.elapsed() >= since + 3 * SECOND);
            let after = sim.elapsed();
            sim.run(10 * SECOND);
            let (gone, quiet) = (silence(&sim, pair, since), silence(&sim, pair, after));
            assert!(
                gone <= 3 * SECOND,
                "{mtu}: gone for {gone:?}: {}",
                ways(&sim, pair)
            );
            assert!(
                quiet <= 100 * MILLISECOND,
                "{mtu}: {quiet:?}: {}",
                ways(&sim, pair)
            );
        }
    }
}

/// How a run of flapping links went.
struct Flaps {
    /// The longest silence between two whose link was steady.
    steady: Duration,
    /// How often the way between two of those changed, both directions counted.
    switched: usize,
    /// After the last flap, until everybody was linked to everybody and all frames came as they should.
    settled: Duration,
}

/// A fifth of the links of a mesh fails 100 times a minute, each in its own time, and frames travel between all.
fn flap(seed: u64, count: usize, minutes: u32) -> Flaps {
    const TICK: Duration = Duration::from_millis(25);
    const CYCLE: u64 = 24;
    let (mut sim, nodes) = mesh(seed, count);
    let mut steady: Vec<[NodeIndex; 2]> = pairs(&nodes).collect();
    let flapping: Vec<([NodeIndex; 2], u64)> = (0..steady.len() / 5)
        .map(|_| {
            let at = sim.dice.below(steady.len() as u64);
            let pair = steady.swap_remove(usize::try_from(at).expect("an index"));
            (pair, sim.dice.below(CYCLE))
        })
        .collect();
    for pair in pairs(&nodes) {
        talk(&mut sim, pair, 100 * MILLISECOND, SMALL);
    }
    sim.run(5 * SECOND);
    let begun = sim.elapsed();
    let told: BTreeMap<NodeIndex, usize> = nodes
        .iter()
        .map(|&n| (n, sim.node(n).events.len()))
        .collect();
    for tick in 0..u64::from(100 * minutes) * CYCLE {
        for &([a, b], phase) in &flapping {
            match (tick + phase) % CYCLE {
                0 => sim.weather.partition(&[a], &[b]),
                time if time == CYCLE / 2 => {
                    sim.weather.unblock(a, b);
                    sim.weather.unblock(b, a);
                }
                _ => {}
            }
        }
        sim.run(TICK);
    }
    sim.weather.heal();
    let ended = sim.elapsed();
    let linked = sim.run_until(20 * SECOND, |sim| sim.converged(&nodes));
    assert!(linked, "{}", sim.story(&nodes));
    let linked = sim.elapsed();
    sim.run_until(20 * SECOND, |sim| sim.elapsed() >= ended + 20 * SECOND);

    for &n in &nodes {
        let is_steady = |node: &NodeId| {
            let peer = nodes.iter().find(|&&peer| sim.id(peer) == *node);
            let peer = peer.copied().expect("one of them");
            steady
                .iter()
                .any(|&pair| pair == [n, peer] || pair == [peer, n])
        };
        let lost =
            |event: &&Event| matches!(event, Event::LinkDown { node, .. } if is_steady(node));
        let lost: Vec<&Event> = sim.node(n).events[told[&n]..].iter().filter(lost).collect();
        assert!(lost.is_empty(), "seed {seed}, {n:?}: {lost:?}");
    }
    let late = pairs(&nodes).map(|pair| quiet_until(&sim, pair, ended));
    Flaps {
        steady: steady
            .iter()
            .map(|&pair| silence(&sim, pair, begun))
            .max()
            .unwrap_or_default(),
        switched: steady
            .iter()
            .map(|&[a, b]| switches(&sim, a, b, begun) + switches(&sim, b, a, begun))
            .sum(),
        settled: late.fold(linked, Duration::max) - ended,
    }
}

fn pairs(nodes: &[NodeIndex]) -> impl Iterator<Item = [NodeIndex; 2]> {
    nodes
        .iter()
        .flat_map(|&a| nodes.iter().filter(move |&&b| a < b).map(move |&b| [a, b]))
}

/// When the last long silence between two ended, of those since then.
fn quiet_until(sim: &Sim, [a, b]: [NodeIndex; 2], since: Duration) -> Duration {
    let one_way = |from: NodeIndex, to: NodeIndex| {
        let peer = sim.id(from);
        let came = sim.node(to).arrivals.get(&peer).into_iter().flatten();
        let mut last = since;
        let mut ended = since;
        for at in came.map(|&(at, _)| at).chain([sim.elapsed()]) {
            if at > last + QUIET {
                ended = at;
            }
            last = last.max(at);
        }
        ended
    };
    one_way(a, b).max(one_way(b, a))
}

#[test]
fn links_that_flap_disturb_no_others() {
    let long = std::env::var("WEFT_FLAP_MINUTES").ok();
    let (count, minutes) = match long {
        Some(minutes) => (12, minutes.parse().expect("a number of minutes")),
        None => (6, 2),
    };
    for seed in seeds(1) {
        let Flaps {
            steady,
            switched,
            settled,
        } = flap(70 + seed, count, minutes);

        println!(
            "{count} nodes, {minutes} minutes of flaps, seed {seed}: the longest silence on a steady link {steady:?}, \
             {switched} changes of way there; settled after {settled:?}"
        );
        assert!(steady <= QUIET, "seed {seed}: {steady:?}");
        assert_eq!(switched, 0, "seed {seed}");
        assert!(settled <= 2 * SECOND, "seed {seed}: {settled:?}");
    }
}

/// Whether two sites can reach each other straight with the help of a third: one of them must be able to tell, from
/// where it is known to be reached, where the other's datagrams will come from.
fn punches(a: NatKind, b: NatKind) -> bool {
    let hard = |one, other| {
        one == NatKind::Symmetric && matches!(other, NatKind::PortRestricted | NatKind::Symmetric)
    };
    !hard(a, b) && !hard(b, a)
}

fn meet(sim: &mut Sim, pair: [NodeIndex; 2], direct: bool, what: &str) {
    talk(sim, pair, 20 * MILLISECOND, SMALL);
    let begun = sim.elapsed();
    sim.run(3 * SECOND);
    let peers = [(pair[0], pair[1]), (pair[1], pair[0])];
    for (from, to) in peers {
        let came = sim.node(to).arrivals.get(&sim.id(from)).map_or(0, Vec::len);
        assert!(came > 0, "{what}: {}", ways(sim, pair));
    }
    if direct {
        let met = sim.run_until(7 * SECOND, |sim| sim.is_direct(pair));
        assert!(met, "{what}: not direct: {}", ways(sim, pair));
    }
    sim.run_until(10 * SECOND, |sim| sim.elapsed() >= begun + 10 * SECOND);
    let since = sim.elapsed();
    sim.run(60 * SECOND);
    let quiet = silence(sim, pair, since);
    assert!(
        quiet <= 200 * MILLISECOND,
        "{what}: {quiet:?}: {}",
        ways(sim, pair)
    );
    assert_eq!(sim.is_direct(pair), direct, "{what}: {}", ways(sim, pair));
}

/// Lets two sites meet, each behind a NAT of its kind.
fn nats(mut sim: Sim, [a, b]: [NatKind; 2]) -> Sim {
    let sites = [a, b].map(|kind| Some(sim.add_nat(NatSpec::home(kind))));
    let nodes = sim.grow(&[sites[0], sites[1]]);
    sim.run(2 * SECOND);

    let what = format!("{a:?} and {b:?}");
    meet(&mut sim, [nodes[1], nodes[2]], punches(a, b), &what);
    sim
}

#[test]
fn every_pair_of_nats_is_connected_and_directly_where_theory_allows() {
    for (number, &a) in NatKind::ALL.iter().enumerate() {
        for &b in &NatKind::ALL[number..] {
            nats(Sim::new(80), [a, b]);
        }
    }
}

#[test]
fn a_pair_that_talks_straight_talks_on_when_the_member_between_them_dies() {
    for seed in seeds(4) {
        let mut sim = Sim::new(seed);
        let site = |sim: &mut Sim| Some(sim.add_nat(NatSpec::home(NatKind::PortRestricted)));
        let sites = [site(&mut sim), site(&mut sim)];
        let nodes = sim.grow(&sites);
        let [between, pair] = [&nodes[..1], &nodes[1..]];
        let pair = [pair[0], pair[1]];
        talk(&mut sim, pair, 20 * MILLISECOND, SMALL);
        assert!(sim.run_until(10 * SECOND, |sim| sim.is_direct(pair)));
        sim.run(10 * SECOND);

        // For longer than a session lasts, which is renewed by the way alone.
        let since = sim.elapsed();
        sim.crash(between[0]);
        sim.run(600 * SECOND);
        let quiet = silence(&sim, pair, since);
        assert!(
            quiet <= 200 * MILLISECOND,
            "{quiet:?}: {}",
            ways(&sim, pair)
        );

        // Who dies now is missed soon: nobody else could tell.
        sim.crash(pair[1]);
        let gone = sim.run_until(5 * SECOND, |sim| sim.node(pair[0]).peers().is_empty());
        assert!(gone, "{}", sim.story(&nodes));
    }
}

#[test]
fn a_site_is_reached_from_the_open_network_whatever_its_nat() {
    for kind in NatKind::ALL {
        let mut sim = Sim::new(81);
        let site = Some(sim.add_nat(NatSpec::home(kind)));
        let nodes = sim.grow(&[site]);
        sim.run(2 * SECOND);

        meet(&mut sim, [nodes[0], nodes[1]], true, &format!("{kind:?}"));
    }
}

#[test]
fn two_hosts_of_one_site_meet_inside_whether_or_not_its_nat_turns_datagrams_round() {
    for hairpin in [false, true] {
        let mut sim = Sim::new(82);
        let site = Some(sim.add_nat(NatSpec {
            hairpin,
            ..NatSpec::home(NatKind::Symmetric)
        }));
        let nodes = sim.grow(&[site, site]);
        sim.run(2 * SECOND);

        let what = format!("hairpin {hairpin}");
        meet(&mut sim, [nodes[1], nodes[2]], true, &what);
    }
}

#[test]
fn two_homes_of_one_carrier_meet_where_its_nat_turns_datagrams_round() {
    for hairpin in [false, true] {
        let mut sim = Sim::new(83);
        let carrier = Some(sim.add_nat(NatSpec {
            hairpin,
            ..NatSpec::home(NatKind::FullCone)
        }));
        let homes = [0, 1].map(|_| {
            Some(sim.add_nat(NatSpec {
                around: carrier,
                ..NatSpec::home(NatKind::PortRestricted)
            }))
        });
        let nodes = sim.grow(&[homes[0], homes[1]]);
        sim.run(2 * SECOND);

        let what = format!("hairpin {hairpin}");
        meet(&mut sim, [nodes[1], nodes[2]], hairpin, &what);
    }
}

#[test]
fn a_ping_tells_the_packets_that_it_lost_from_those_that_take_long() {
    let (mut sim, nodes) = mesh(91, 2);
    let [a, b] = [nodes[0], nodes[1]];
    talk(&mut sim, [a, b], 100 * MILLISECOND, SMALL);
    sim.run(2 * SECOND);
    let ping = |sim: &mut Sim, lossy: Option<Duration>| -> Pong {
        if lossy.is_some() {
            sim.weather.block_udp(a, b);
        }
        let node = sim.id(b);
        let id = sim.command(a, Command::Ping { node });
        sim.run(lossy.unwrap_or_default());
        sim.weather.unblock(a, b);
        sim.run_until(4 * SECOND, |sim| sim.node(a).replies.contains_key(&id));
        match sim.node(a).replies.get(&id) {
            Some(Reply::Pong(pong)) => pong.clone(),
            other => panic!("no answer to a ping but {other:?}"),
        }
    };

    // The second leaves after a quarter of a second, and is lost too.
    let lossy = ping(&mut sim, Some(300 * MILLISECOND));
    sim.run(2 * SECOND);
    sim.weather.common.delay = 400 * MILLISECOND;
    sim.run(10 * SECOND);
    let slow = ping(&mut sim, None);

    assert_eq!(lossy.lost, 2);
    assert!(lossy.rtt < 200 * MILLISECOND, "{lossy:?}");
    assert_eq!(slow.lost, 0);
    assert!(slow.rtt >= 800 * MILLISECOND, "{slow:?}");
}

#[test]
fn many_pings_at_once_are_answered_each_and_too_many_are_refused_with_the_reason() {
    let (mut sim, nodes) = mesh(92, 2);
    let [a, b] = [nodes[0], nodes[1]];
    talk(&mut sim, [a, b], 100 * MILLISECOND, SMALL);
    sim.run(2 * SECOND);
    let node = sim.id(b);
    sim.weather.block_udp(a, b);
    let pings: Vec<_> = (0..=MAX_PINGS)
        .map(|_| sim.command(a, Command::Ping { node }))
        .collect();
    sim.run(300 * MILLISECOND);
    sim.weather.unblock(a, b);
    sim.run_until(4 * SECOND, |sim| {
        let replies = &sim.node(a).replies;
        pings.iter().all(|id| replies.contains_key(id))
    });

    let told: Vec<_> = pings.iter().map(|id| sim.node(a).replies.get(id)).collect();
    let (last, first) = told.split_last().expect("pings");
    for reply in first {
        let lost = match reply {
            Some(Reply::Pong(pong)) => pong.lost,
            other => panic!("no answer to a ping but {other:?}"),
        };
        assert_eq!(lost, 2);
    }
    let Some(Reply::Failed(problem)) = last else {
        panic!("one too many, and {last:?}");
    };
    assert!(problem.why.contains("64 pings"), "{problem}");
}

#[test]
fn an_idle_member_of_twenty_four_sends_at_most_three_and_a_half_kilobytes_a_second() {
    let (mut sim, nodes) = mesh(90, 24);
    sim.run(10 * SECOND);
    let sent = |sim: &Sim| -> Vec<u64> {
        nodes
            .iter()
            .map(|&n| sim.node(n).sent.udp + sim.node(n).sent.tcp)
            .collect()
    };
    let before = sent(&sim);

    sim.run(60 * SECOND);

    let rates: Vec<u64> = sent(&sim)
        .iter()
        .zip(&before)
        .map(|(after, before)| (after - before) / 60)
        .collect();
    println!("bytes a second, IP headers included: {rates:?}");
    assert!(rates.iter().all(|&rate| rate <= 3500), "{rates:?}");
}

/// Compares 50 seeds of a scenario with their record, some of them in every run.
fn compare(name: &'static str, test: &'static str, slice: usize, run: impl Fn(Sim) -> Sim) {
    let recorded = Recorded {
        name,
        test: ("path_simulation", test),
        seeds: 1..51,
        slice,
        lasting: &LASTING,
    };
    recorded.compare(|seed, text| {
        let record = run(Sim::recorded(seed, text)).record();
        (record.columns, record.text)
    });
}

#[test]
fn blocks_go_as_they_were_recorded() {
    let name = "path_simulation_blocks";

    compare(name, "blocks_go_as_they_were_recorded", 1, block);
}

#[test]
fn cuts_go_as_they_were_recorded() {
    let name = "path_simulation_cuts";

    compare(name, "cuts_go_as_they_were_recorded", 4, |sim| cut(sim).1);
}

#[test]
fn nats_go_as_they_were_recorded() {
    let name = "path_simulation_nats";
    let kind = |number: u64| {
        let number = usize::try_from(number).expect("small");
        NatKind::ALL[number % NatKind::ALL.len()]
    };

    // Every pair, one after the other.
    compare(name, "nats_go_as_they_were_recorded", 4, |sim| {
        let kinds = [kind(sim.seed), kind(sim.seed / NatKind::ALL.len() as u64)];
        nats(sim, kinds)
    });
}
