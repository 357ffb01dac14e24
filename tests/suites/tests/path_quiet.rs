//! Two hosts behind NATs that have talked and fallen silent are found where they were, and say as little as that takes.

#![expect(
    clippy::print_stdout,
    reason = "what was measured, beside what was asked for"
)]

use std::time::Duration;

use weft_router_proto::overlay::Via;
use weft_sim::{NatIndex, NatKind, NatSpec, NodeIndex, Sim};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// A frame.
const SMALL: usize = 98;
/// More than a datagram takes that goes straight, less than anything that has to be found out.
const AT_ONCE: Duration = Duration::from_millis(100);
/// Renewing a session's keys within this uses the mapping too.
const REKEY: Duration = Duration::from_secs(120);

/// Two hosts behind NATs of their own, and a creator that both have met.
struct Homes {
    sim: Sim,
    nats: [NatIndex; 2],
    pair: [NodeIndex; 2],
}

impl Homes {
    /// They talk until they have met straight, and fall silent.
    fn meet(seed: u64, kinds: [NatKind; 2], idle: [Duration; 2]) -> Self {
        let mut sim = Sim::new(seed);
        let nats = [0, 1].map(|at| {
            sim.add_nat(NatSpec {
                idle: idle[at],
                ..NatSpec::home(kinds[at])
            })
        });
        let nodes = sim.grow(&nats.map(Some));
        let pair = [nodes[1], nodes[2]];
        sim.run(2 * SECOND);
        let mut homes = Self { sim, nats, pair };
        homes.talk();
        homes
    }

    fn talk(&mut self) {
        let [a, b] = self.pair;
        for (from, to) in [(a, b), (b, a)] {
            self.sim.flow(from, to, 100 * MILLISECOND, SMALL);
        }
        self.sim.run(15 * SECOND);
        assert!(self.sim.is_direct(self.pair), "{}", self.story());
        for (from, to) in [(a, b), (b, a)] {
            self.sim.stop(from, to);
        }
    }

    /// Whether one frame from one to the other is there at once, with nothing before it that could open a NAT.
    fn is_heard(&mut self, at: usize) -> bool {
        let [from, to] = [self.pair[at], self.pair[1 - at]];
        let sender = self.sim.id(from);
        let count = |sim: &Sim| sim.node(to).delivered.get(&sender).copied();
        let before = count(&self.sim);
        let straight = matches!(self.sim.via(from, to), Some(Via::Direct(_)));
        self.sim.frame_of(from, to, SMALL);
        self.sim.run(AT_ONCE);
        straight && count(&self.sim) > before
    }

    /// The usual pause between two probes of the pair in the last so long, and how many pauses there were. While a mapping
    /// that was lost is made anew they follow each other closely; that is none.
    fn pace(&self, last: Duration) -> (Duration, usize) {
        let since = self.sim.elapsed() - last;
        let mut times: Vec<Duration> = [0, 1]
            .into_iter()
            .flat_map(|at| {
                let other = self.sim.id(self.pair[1 - at]);
                let probes = self.sim.node(self.pair[at]).probes.iter();
                probes.filter(move |(when, whom)| *when >= since && *whom == other)
            })
            .map(|(when, _)| *when)
            .collect();
        times.sort_unstable();
        let pauses = times.windows(2).map(|two| two[1] - two[0]);
        let mut pauses: Vec<Duration> = pauses.filter(|&pause| pause >= 5 * SECOND).collect();
        pauses.sort_unstable();
        let usual = pauses.get(pauses.len() / 2).copied();
        (usual.unwrap_or(last), pauses.len())
    }

    fn story(&self) -> String {
        let told = [0, 1].map(|at| {
            let other = self.sim.id(self.pair[1 - at]);
            let paths = self.sim.node(self.pair[at]).paths.iter();
            let paths = paths.filter(|(_, whom, _)| *whom == other);
            paths
                .map(|(when, _, via)| format!("{:.1} s {via:?}", when.as_secs_f64()))
                .collect::<Vec<_>>()
        });
        let [a, b] = told;
        let last = [0, 1].map(|at| {
            let other = self.sim.id(self.pair[1 - at]);
            let node = self.sim.node(self.pair[at]);
            let probes = node.probes.iter().filter(|(_, whom)| *whom == other);
            let times: Vec<f64> = probes.map(|(when, _)| when.as_secs_f64()).collect();
            let skipped = times.len().saturating_sub(12);
            (node.session_to(other).is_some(), times[skipped..].to_vec())
        });
        format!(
            "at {:?}\n  {a:?}\n  {b:?}\nsession, and last probes: {last:?}",
            self.sim.elapsed()
        )
    }
}

const STRICT: [NatKind; 2] = [NatKind::PortRestricted, NatKind::PortRestricted];
const MIXED: [NatKind; 2] = [NatKind::Symmetric, NatKind::Restricted];

#[test]
fn after_an_idle_hour_the_first_frame_goes_straight() {
    for (number, (kinds, idle)) in [
        (STRICT, [20, 20]),
        (STRICT, [30, 30]),
        (STRICT, [60, 60]),
        (STRICT, [20, 60]),
        (MIXED, [30, 30]),
        (MIXED, [60, 30]),
    ]
    .into_iter()
    .enumerate()
    {
        let memory = idle.map(Duration::from_secs);
        let shortest = memory[0].min(memory[1]);
        let seed = 100 + number as u64;
        let mut homes = Homes::meet(seed, kinds, memory);

        for at in [0, 1] {
            homes.sim.run(HOUR);
            let what = format!("{kinds:?} {idle:?} seed {seed}, from {at}");
            assert!(homes.is_heard(at), "{what}: {}", homes.story());

            // As seldom as the NAT allows: what passes when a session's keys are renewed counts as well.
            let (pause, count) = homes.pace(HOUR / 2);
            println!("{what}: every {pause:?}, {count} times in half an hour");
            assert!(pause >= shortest * 2 / 3, "{what}: every {pause:?}");
            assert!(pause <= REKEY, "{what}: every {pause:?}");
        }
    }
}

#[test]
fn a_nat_that_remembers_for_less_or_for_longer_is_followed() {
    let mut homes = Homes::meet(120, STRICT, [MINUTE, MINUTE]);
    homes.sim.run(HOUR / 2);
    let (long, _) = homes.pace(10 * MINUTE);

    for nat in homes.nats {
        homes.sim.set_nat_idle(nat, 20 * SECOND);
    }
    homes.sim.run(HOUR / 4);
    let (short, _) = homes.pace(5 * MINUTE);
    assert!(homes.is_heard(0), "for less: {}", homes.story());
    homes.sim.run(HOUR / 4);
    assert!(homes.is_heard(1), "for less: {}", homes.story());

    for nat in homes.nats {
        homes.sim.set_nat_idle(nat, 2 * MINUTE);
    }
    homes.sim.run(HOUR + HOUR / 2);
    let (longest, _) = homes.pace(10 * MINUTE);
    assert!(homes.is_heard(0), "for longer: {}", homes.story());

    println!("every {long:?}, then every {short:?}, then every {longest:?}");
    assert!(long >= 40 * SECOND, "{long:?}");
    assert!(short <= 20 * SECOND, "{short:?}");
    assert!(longest >= 60 * SECOND, "{longest:?}");
}

#[test]
fn a_nat_that_has_lost_its_memory_costs_the_first_frame_nothing() {
    let mut homes = Homes::meet(121, STRICT, [MINUTE, MINUTE]);
    homes.sim.run(HOUR / 2);

    for nat in homes.nats {
        homes.sim.forget_nat(nat);
    }
    // As long as a mapping is left alone at most, and what it takes to make it anew.
    homes.sim.run(2 * MINUTE);

    assert!(homes.is_heard(0), "{}", homes.story());
}
