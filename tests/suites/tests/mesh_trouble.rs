//! Twelve cores in all kinds of trouble at once, by chance: everything converges, whatever the underlay does.
//!
//! ```text
//!   40 strokes of fate ── joins, crashes, leaves, containers, partitions, one-way blocks, loss, jitter ──▶ calm
//!       all of twelve linked, the same containers everywhere, and one more who joins is seen by all in a second
//! ```
//!
//! Clocks jump by up to ten years either way at every start. `WEFT_SIM_SEEDS=2000` runs so many seeds instead of a slice,
//! from `WEFT_SIM_FIRST` on; `WEFT_SIM_SEED=n` replays one. A slice goes on after a seed that fails, and names all that did.

#![expect(
    clippy::print_stdout,
    reason = "how long it took to come together, beside what is allowed"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use weft_router_proto::io::{Command, Reply, RequestId};
use weft_router_proto::router::Intent;
use weft_router_proto::token::Token;
use weft_sim::{Containers, Dice, LASTING, NodeIndex, Sim, Weather};
use weft_suites::record::Recorded;
use weft_types::{Code, MacAddr};

const SECOND: Duration = Duration::from_secs(1);
/// Longer than any run: what is tried is not expiry.
const TTL: Duration = Duration::from_secs(9000);
/// How many live members there are in the end.
const MEMBERS: usize = 12;
/// How many leave at most: a mesh counts those who left no more, but each costs time.
const LEAVERS: usize = 3;
/// How many strokes there are.
const STROKES: usize = 40;
/// What all get to find together: the longest back-off of a dialler, a connection that a kernel gives up, and as much again.
const CALM: Duration = Duration::from_secs(40);

/// How a node got in, or tries to.
#[derive(Clone)]
struct Way {
    token: Token,
    via: NodeIndex,
    /// Who came with the same single-use token: one of the two is refused.
    rival: Option<NodeIndex>,
}

/// What a test knows of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nowhere.
    Detached,
    /// There.
    On(NodeIndex),
    /// There or nowhere: a crash came before the answer, or the answer is still out.
    Perhaps(NodeIndex, Option<(RequestId, bool)>),
}

/// Every container there ever was.
type Places = BTreeMap<MacAddr, (IpNet, Place)>;

struct Trouble {
    sim: Sim,
    /// How many strokes there were.
    strokes: u64,
    /// Everybody who is, or shall become, a member.
    nodes: Vec<NodeIndex>,
    ways: BTreeMap<NodeIndex, Way>,
    reusable: Token,
    containers: Places,
    left: Vec<NodeIndex>,
    leaving: Vec<(NodeIndex, RequestId)>,
}

impl Trouble {
    fn new(mut sim: Sim) -> Self {
        let creator = sim.create();
        let reusable = sim.token(creator, true, TTL);
        Self {
            sim,
            strokes: 0,
            nodes: vec![creator],
            ways: BTreeMap::new(),
            reusable,
            containers: BTreeMap::new(),
            left: Vec::new(),
            leaving: Vec::new(),
        }
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        let at = self.sim.dice.below(among.len() as u64);
        among[usize::try_from(at).expect("an index")]
    }

    fn running(&self) -> Vec<NodeIndex> {
        let nodes = self.nodes.iter().copied();
        nodes.filter(|&n| self.sim.node(n).core.is_some()).collect()
    }

    /// Those who run and are members.
    fn inside(&self) -> Vec<NodeIndex> {
        let nodes = self.nodes.iter().copied();
        nodes
            .filter(|&n| self.sim.node(n).snapshot.is_some())
            .collect()
    }

    fn next_dice(&mut self) {
        self.strokes += 1;
        self.sim.dice = Dice::of(&[self.sim.seed, self.strokes]);
    }

    /// Every stroke has dice of its own, and draws first what does not depend on how things stand: a stroke that went another
    /// way does not send all later ones another way too.
    fn stroke(&mut self) {
        self.next_dice();
        self.weather();
        let time = self.sim.dice.up_to(3 * SECOND);
        match self.sim.dice.below(16) {
            0..=3 => self.somebody_joins(),
            4 | 5 => self.somebody_crashes(),
            6 | 7 => self.partition(),
            8 => self.one_way(),
            9 | 10 => self.sim.weather.heal(),
            11 | 12 => self.attach(),
            13 => self.detach(),
            14 if self.left.len() + self.leaving.len() < LEAVERS => self.somebody_leaves(),
            _ => {}
        }
        self.sim.run(time);
        self.look_at_answers();
        for n in self.nodes.clone() {
            if self.is_down(n) && self.heads(0, n) {
                self.restart(n);
            }
        }
    }

    /// Tosses a node's coin, one of several that it has in every stroke.
    fn heads(&self, coin: u64, node: NodeIndex) -> bool {
        let of = [self.sim.seed, self.strokes, coin, node.0 as u64];
        Dice::of(&of).below(2) == 0
    }

    /// Whether a router is down that would come back; who lost a race for a token stays down.
    fn is_down(&self, node: NodeIndex) -> bool {
        self.sim.node(node).core.is_none() && !refused(&self.sim, node, Code::TokenUsed)
    }

    fn weather(&mut self) {
        self.sim.weather.common.loss = self.pick(&[0.0, 0.0, 0.05, 0.3]);
        self.sim.weather.common.duplication = self.pick(&[0.0, 0.1]);
        self.sim.weather.common.jitter = Duration::from_millis(self.pick(&[0, 1, 50, 400]));
    }

    fn somebody_joins(&mut self) {
        let room = MEMBERS.saturating_sub(self.nodes.len());
        let inside = self.inside();
        let (false, false) = (room == 0, inside.is_empty()) else {
            return;
        };
        let via = self.pick(&inside);
        let kind = self.sim.dice.below(4);
        let token = match kind {
            0 | 1 => self.reusable.clone(),
            _ => self.sim.token(via, false, TTL),
        };
        let one = self.join(via, token.clone());
        if kind == 3 {
            let other = self.join(via, token);
            for (n, rival) in [(one, other), (other, one)] {
                self.ways.entry(n).and_modify(|way| way.rival = Some(rival));
            }
        }
    }

    fn join(&mut self, via: NodeIndex, token: Token) -> NodeIndex {
        let node = self.sim.join(via, token.clone());
        let rival = None;
        self.ways.insert(node, Way { token, via, rival });
        self.nodes.push(node);
        node
    }

    /// Starts a router again, as it was started first: where it is a member by then, it resumes.
    fn restart(&mut self, node: NodeIndex) {
        let (token, via) = match self.ways.get(&node) {
            Some(way) => (way.token.clone(), way.via),
            None => (self.reusable.clone(), self.nodes[0]),
        };
        let intent = Intent::Join {
            token,
            address: None,
        };
        let first = self.nodes[0];
        self.sim.start(node, intent, &[via, first]);
        if refused(&self.sim, node, Code::NotAMember) {
            // Its leave was durable before the crash, whoever heard of it.
            self.gone(node);
        }
    }

    fn somebody_crashes(&mut self) {
        let running = self.running();
        if running.len() > 1 {
            let node = self.pick(&running);
            self.crash(node);
        }
    }

    fn crash(&mut self, node: NodeIndex) {
        self.look_at_answers();
        self.sim.crash(node);
        // What was not answered may be durable or not.
        for (_, place) in self.containers.values_mut() {
            if let Place::Perhaps(n, asked) = place
                && *n == node
            {
                *asked = None;
            }
        }
        // The same with a leave: it shows at the next start.
        self.leaving.retain(|&(n, _)| n != node);
    }

    fn partition(&mut self) {
        let nodes = self.nodes.clone();
        let (one, other): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|&n| self.heads(1, n));
        self.sim.weather.partition(&one, &other);
    }

    /// A few directions are cut, some for datagrams only.
    fn one_way(&mut self) {
        let nodes = self.nodes.clone();
        for _ in 0..nodes.len() {
            let (from, to) = (self.pick(&nodes), self.pick(&nodes));
            match self.sim.dice.below(3) {
                0 => self.sim.weather.block(from, to),
                1 => self.sim.weather.block_udp(from, to),
                _ => {
                    self.sim.weather.block_udp(from, to);
                    self.sim.weather.block_udp(to, from);
                }
            }
        }
    }

    /// A container comes up somewhere: a new one, or one that is known to be gone from where it was.
    fn attach(&mut self) {
        let inside = self.inside();
        if inside.is_empty() {
            return;
        }
        let node = self.pick(&inside);
        let gone: Vec<MacAddr> = self
            .containers
            .iter()
            .filter(|(_, (_, place))| *place == Place::Detached)
            .map(|(&mac, _)| mac)
            .collect();
        let (mac, address) = if !gone.is_empty() && self.sim.dice.below(2) == 0 {
            let mac = self.pick(&gone);
            (mac, self.containers[&mac].0)
        } else {
            let number = u8::try_from(self.containers.len() + 1).expect("few containers");
            let address = format!("10.40.0.{number}/12").parse().expect("a network");
            (MacAddr::new([2, 0, 0, 0, 0, number]), address)
        };
        let attach = Command::Attach {
            mac,
            addresses: vec![address],
            port: format!("p{}", node.0),
        };
        let id = self.sim.command(node, attach);
        let place = Place::Perhaps(node, Some((id, true)));
        self.containers.insert(mac, (address, place));
    }

    fn detach(&mut self) {
        let there: Vec<(MacAddr, NodeIndex)> = self
            .containers
            .iter()
            .filter_map(|(&mac, &(_, place))| match place {
                Place::On(n) | Place::Perhaps(n, None) => Some((mac, n)),
                Place::Detached | Place::Perhaps(_, Some(_)) => None,
            })
            .filter(|&(_, n)| self.sim.node(n).snapshot.is_some())
            .collect();
        if there.is_empty() {
            return;
        }
        let (mac, node) = self.pick(&there);
        let id = self.sim.command(node, Command::Detach { mac });
        if let Some((_, place)) = self.containers.get_mut(&mac) {
            *place = Place::Perhaps(node, Some((id, false)));
        }
    }

    /// Somebody who is linked leaves for good; never the creator, who hands out the addresses.
    fn somebody_leaves(&mut self) {
        let linked: Vec<NodeIndex> = self
            .inside()
            .into_iter()
            .skip(1)
            .filter(|&n| n != self.nodes[0] && self.sim.connected(n) > 0)
            .filter(|&n| self.leaving.iter().all(|&(leaving, _)| leaving != n))
            .collect();
        if !linked.is_empty() {
            let node = self.pick(&linked);
            let id = self.sim.command(node, Command::Leave);
            self.leaving.push((node, id));
        }
    }

    /// What was asked and is answered by now.
    fn look_at_answers(&mut self) {
        for (_, place) in self.containers.values_mut() {
            if let Place::Perhaps(node, Some((id, attached))) = *place
                && let Some(reply) = self.sim.node(node).replies.get(&id)
            {
                *place = match (reply, attached) {
                    (Reply::Done, true) => Place::On(node),
                    (Reply::Done, false) => Place::Detached,
                    // Others are still seen to have its address.
                    (Reply::Failed(problem), true) if problem.code == Code::AddressInUse => {
                        Place::Detached
                    }
                    (other, _) => panic!("seed {}: {other:?}", self.sim.seed),
                };
            }
        }
        let sim = &self.sim;
        let (done, waiting) = std::mem::take(&mut self.leaving)
            .into_iter()
            .partition(|(n, id)| sim.node(*n).replies.get(id) == Some(&Reply::Done));
        self.leaving = waiting;
        let done: Vec<(NodeIndex, RequestId)> = done;
        for (node, _) in done {
            self.gone(node);
        }
    }

    /// A node has left: its router is stopped for good, and its containers are gone with it.
    fn gone(&mut self, node: NodeIndex) {
        self.sim.crash(node);
        self.left.push(node);
        self.nodes.retain(|&n| n != node);
        for (_, place) in self.containers.values_mut() {
            if matches!(*place, Place::On(n) | Place::Perhaps(n, _) if n == node) {
                *place = Place::Detached;
            }
        }
    }

    /// Nothing hurts any more: everybody is started, and whoever cannot get in by the token it has gets another.
    fn calm(&mut self) {
        self.sim.weather = Weather::default();
        for n in self.nodes.clone() {
            if self.is_down(n) {
                self.restart(n);
            }
        }
        self.sim.run(3 * SECOND);
        self.look_at_answers();
        self.settle_rivals();
        for n in self.nodes.clone() {
            let lost = self.ways.get(&n).is_some_and(|way| self.is_lost(way));
            if lost && self.sim.node(n).snapshot.is_none() {
                self.sim.crash(n);
                self.ways.remove(&n);
                self.restart(n);
            }
        }
        while self.nodes.len() < MEMBERS {
            self.join(self.nodes[0], self.reusable.clone());
        }
    }

    /// Whether a way leads in no more: a single-use token is good at its issuer only, and once.
    fn is_lost(&self, way: &Way) -> bool {
        self.left.contains(&way.via) || way.rival.is_some_and(|rival| self.left.contains(&rival))
    }

    /// Of two with one single-use token exactly one is in, and the other was told why it is not.
    fn settle_rivals(&mut self) {
        for n in self.nodes.clone() {
            let Some(way) = self.ways.get(&n).filter(|way| !self.is_lost(way)) else {
                continue;
            };
            let Some(rival) = way.rival.filter(|&rival| n < rival) else {
                continue;
            };
            let nodes = [n, rival];
            let settled = self.sim.run_until(CALM, |sim| {
                nodes.iter().any(|&n| refused(sim, n, Code::TokenUsed))
                    && nodes.iter().any(|&n| sim.node(n).snapshot.is_some())
            });
            assert!(settled, "rivals: {}", self.sim.story(&nodes));
            let sim = &self.sim;
            self.nodes
                .retain(|n| !nodes.contains(n) || !refused(sim, *n, Code::TokenUsed));
        }
    }

    fn story(&self) -> String {
        let seen: Vec<Containers> = self.nodes.iter().map(|&n| self.sim.containers(n)).collect();
        format!(
            "{}  left: {:?}\n  containers: {:?}\n  as seen: {seen:?}",
            self.sim.story(&self.nodes),
            self.left,
            self.containers
        )
    }
}

/// Whether a router stopped for this reason.
fn refused(sim: &Sim, node: NodeIndex, code: Code) -> bool {
    let halted = sim.node(node).halted.as_ref();
    halted.is_some_and(|problem| problem.code == code)
}

/// Whether everybody knows exactly the containers that there are, each with its owner.
fn same_containers(sim: &Sim, nodes: &[NodeIndex], there: &Places) -> bool {
    let first = sim.containers(nodes[0]);
    let fits = |(mac, &(address, place)): (&MacAddr, &(IpNet, Place))| {
        let on = |n: NodeIndex| (sim.id(n), vec![address.addr()]);
        match place {
            Place::Detached => !first.contains_key(mac),
            Place::On(n) => first.get(mac) == Some(&on(n)),
            Place::Perhaps(n, _) => first.get(mac).is_none_or(|known| *known == on(n)),
        }
    };
    there.iter().all(fits)
        && first.keys().all(|mac| there.contains_key(mac))
        && nodes.iter().all(|&n| sim.containers(n) == first)
}

/// Runs one seed. Returns how long everybody took to find together after the last trouble, and the world as it is then.
fn trouble(sim: Sim) -> (Duration, Sim) {
    let mut trouble = Trouble::new(sim);
    for _ in 0..STROKES {
        trouble.stroke();
    }

    let calm = trouble.sim.elapsed();
    trouble.calm();
    let nodes = trouble.nodes.clone();
    let found = trouble.sim.run_until(CALM, |sim| sim.converged(&nodes));
    assert!(found, "{}", trouble.story());
    let took = trouble.sim.elapsed() - calm;
    trouble.look_at_answers();
    let there = trouble.containers.clone();
    let told = trouble
        .sim
        .run_until(5 * SECOND, |sim| same_containers(sim, &nodes, &there));
    assert!(told, "{}", trouble.story());

    // What TCP lost is sent again after up to ten seconds, and holds up what is sent behind it.
    trouble.sim.run(12 * SECOND);
    trouble.next_dice();
    let via = trouble.pick(&nodes);
    let token = trouble.sim.token(via, false, TTL);
    trouble.join(via, token);
    let nodes = trouble.nodes.clone();
    let seen = trouble.sim.run_until(SECOND, |sim| sim.converged(&nodes));
    assert!(seen, "not seen by all in a second: {}", trouble.story());
    let addresses: std::collections::BTreeSet<_> = nodes
        .iter()
        .filter_map(|&n| trouble.sim.node(n).snapshot.as_ref())
        .map(|snapshot| snapshot.host_addresses[0])
        .collect();
    assert_eq!(
        addresses.len(),
        nodes.len(),
        "two have one address: {}",
        trouble.story()
    );
    (took, trouble.sim)
}

#[test]
fn twelve_cores_converge_after_any_trouble() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    let seeds = match number("WEFT_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("WEFT_SIM_FIRST").unwrap_or(1000);
            first..first + number("WEFT_SIM_SEEDS").unwrap_or(12)
        }
    };
    let mut took = Vec::new();
    let mut failed = Vec::new();
    for seed in seeds {
        match std::panic::catch_unwind(|| trouble(Sim::new(seed))) {
            Ok((time, _)) => took.push((time, seed)),
            Err(_) => failed.push(seed),
        }
    }

    took.sort();
    let slowest: Vec<_> = took.iter().rev().take(10).collect();
    let share = |percent: usize| took.get(took.len() * percent / 100).map(|&(time, _)| time);
    println!(
        "{} seeds found together: half in {:?}, 90 % in {:?}, 99 % in {:?}; the slowest: {slowest:?}",
        took.len(),
        share(50),
        share(90),
        share(99)
    );
    assert!(failed.is_empty(), "these seeds fail: {failed:?}");
}

#[test]
fn trouble_goes_as_it_was_recorded() {
    let recorded = Recorded {
        name: "mesh_trouble",
        test: ("mesh_trouble", "trouble_goes_as_it_was_recorded"),
        seeds: 1000..1050,
        slice: 2,
        lasting: &LASTING,
    };

    recorded.compare(|seed, text| {
        let (_, sim) = trouble(Sim::recorded(seed, text));
        let record = sim.record();
        (record.columns, record.text)
    });
}
