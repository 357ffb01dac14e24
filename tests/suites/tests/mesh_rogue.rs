//! One member lies: it forges, refuses, makes members up and names others' addresses. What that costs everybody else.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use weft_router_proto::control::ControlMessage;
use weft_router_proto::endpoints::{LocalEndpoints, host_mac};
use weft_router_proto::gossip::registers::{ENDPOINTS, MAX_OWNER_BYTES, TOPOLOGY};
use weft_router_proto::identity::NodeKeys;
use weft_router_proto::router::Intent;
use weft_router_proto::topology::RECORD;
use weft_router_proto::wire::envelope::Signed;
use weft_sim::{NodeIndex, Rogue, Sim};
use weft_types::{Boot, BootId, Code, NodeId, Problem, Version};

const SECOND: Duration = Duration::from_secs(1);
const MIB: usize = 1024 * 1024;
/// A body as large as a bucket may be, nearly.
const FULL: usize = 19_000;

/// Two honest members and one that was turned, the last; it is linked to both.
fn mesh(seed: u64) -> (Sim, [NodeIndex; 3]) {
    let mut sim = Sim::new(seed);
    let nodes = sim.grow(&[None, None]);
    let nodes = [nodes[0], nodes[1], nodes[2]];
    let met = sim.run_until(5 * SECOND, |sim| sim.converged(&nodes));
    assert!(met, "{}", sim.story(&nodes));
    turn(&mut sim, nodes[2], &nodes[..2]);
    (sim, nodes)
}

/// Turns a member, and waits until it is linked to the others.
fn turn(sim: &mut Sim, rogue: NodeIndex, others: &[NodeIndex]) {
    sim.turn(rogue);
    let all: BTreeSet<NodeId> = others.iter().map(|&n| sim.id(n)).collect();
    let linked = sim.run_until(20 * SECOND, |sim| sim.rogue(rogue).linked() == all);
    assert!(linked, "{}", sim.story(others));
    sim.run(SECOND);
}

fn restart(sim: &mut Sim, node: NodeIndex) {
    sim.crash(node);
    sim.start(node, Intent::Resume, &[]);
}

/// What a member's status says is wrong, as far as it has a code.
fn problems(sim: &Sim, at: NodeIndex, code: Code) -> Vec<Problem> {
    let mut problems = sim.core(at).status(sim.now(at)).problems;
    problems.retain(|problem| problem.code == code);
    problems
}

/// Whether a member's status names another with a code.
fn names(sim: &Sim, at: NodeIndex, code: Code, whom: NodeId) -> bool {
    let named = |problem: &Problem| {
        let text = format!("{} {}", problem.what, problem.why);
        text.contains(&whom.short())
    };
    problems(sim, at, code).iter().any(named)
}

/// Bytes of registers that a member keeps.
fn kept(sim: &Sim, at: NodeIndex) -> usize {
    let registers = sim.core(at).registers().expect("a member");
    registers.bytes().0
}

/// Makes up members, each with so many full registers, and tells everybody.
fn parade(sim: &mut Sim, rogue: NodeIndex, puppets: usize, registers: u16) {
    for _ in 0..puppets {
        sim.instruct(rogue, |rogue| puppet(rogue, registers));
        sim.run(Duration::from_millis(20));
    }
}

fn puppet(rogue: &mut Rogue, registers: u16) {
    let (keys, admit) = rogue.puppet(Vec::new());
    rogue.spread_records(vec![admit]);
    let said = claims_of(rogue, &keys, registers);
    for piece in said.chunks(10) {
        rogue.spread(piece.to_vec());
    }
}

/// What is said in a puppet's name.
fn claims_of(rogue: &Rogue, keys: &NodeKeys, registers: u16) -> Vec<Signed> {
    let version = Version {
        boot: Boot {
            counter: 1,
            id: BootId::new([1; 8]),
        },
        sequence: 1,
    };
    let record = rogue.record_of(keys, Vec::new()).encode();
    let record = rogue.forge(keys, (TOPOLOGY, RECORD, version), record);
    let buckets =
        (0..registers).map(|slot| rogue.forge(keys, (ENDPOINTS, slot, version), vec![7; FULL]));
    std::iter::once(record).chain(buckets).collect()
}

#[test]
fn a_member_that_was_turned_is_a_member_to_everybody_else() {
    let (mut sim, [a, b, rogue]) = mesh(1);

    let there = |sim: &Sim| {
        let id = sim.id(rogue);
        [a, b].iter().all(|&n| sim.node(n).peers().contains(&id))
    };
    sim.run(30 * SECOND);

    assert!(there(&sim), "{}", sim.story(&[a, b]));
    assert_eq!(problems(&sim, a, Code::Misbehaviour), []);
}

#[test]
fn nobody_stops_on_the_word_of_one_member() {
    let (mut sim, [a, b, rogue]) = mesh(2);
    let liar = sim.id(rogue);
    sim.instruct(rogue, |rogue| rogue.refuses = Some(Code::Clone));
    sim.crash(a);

    restart(&mut sim, b);
    sim.run(60 * SECOND);

    assert_eq!(sim.node(b).halted, None);
    assert!(
        names(&sim, b, Code::Clone, liar),
        "{:?}",
        problems(&sim, b, Code::Clone)
    );
    sim.start(a, Intent::Resume, &[]);
    let met = sim.run_until(20 * SECOND, |sim| sim.node(b).peers().contains(&sim.id(a)));
    assert!(met, "{}", sim.story(&[a, b]));
}

#[test]
fn nobody_connects_where_only_it_or_the_mesh_would_answer_and_to_bystanders_seldom() {
    let (mut sim, [a, b, rogue]) = mesh(3);
    let nowhere = [
        "127.0.0.1:22",
        "[::1]:6783",
        "[fe80::1]:6783",
        "224.0.0.1:6783",
        "169.254.169.254:80",
        "10.32.0.1:6783",
        "0.0.0.0:6783",
        "203.0.113.1:0",
    ];
    let nowhere = nowhere.map(|text| text.parse::<SocketAddr>().expect("an address"));
    let bystanders = (1..=40).map(|n| SocketAddr::from(([198, 51, 100, n], 443)));
    let told: Vec<SocketAddr> = nowhere.into_iter().chain(bystanders).collect();

    sim.instruct(rogue, |rogue| rogue.claim_addresses(told));
    sim.run(SECOND);
    sim.crash(rogue);
    sim.run(120 * SECOND);

    for n in [a, b] {
        let dials = &sim.node(n).dials;
        let odd: Vec<_> = dials
            .iter()
            .filter(|(_, to)| nowhere.contains(to))
            .collect();
        assert_eq!(odd, Vec::<&(Duration, SocketAddr)>::new());
        let bystander = |to: &SocketAddr| to.port() == 443;
        let count = dials.iter().filter(|(_, to)| bystander(to)).count();
        assert!((1..=96 + 121).contains(&count), "{count} dials");
    }
}

#[test]
fn door_keys_of_a_member_that_may_make_none_end_no_link_for_good() {
    let (mut sim, [a, b, rogue]) = mesh(4);
    let (liar, creator) = (sim.id(rogue), sim.id(a));

    for n in [a, b] {
        let to = sim.id(n);
        for generation in 2..22 {
            sim.instruct(rogue, |rogue| {
                for signer in [liar, creator] {
                    let door = rogue.door_key(u64::MAX - generation, signer);
                    rogue.tell(to, &ControlMessage::DoorKey(door));
                }
            });
        }
    }
    sim.run(SECOND);
    let told = [a, b].map(|n| names(&sim, n, Code::Misbehaviour, liar));
    sim.crash(rogue);
    restart(&mut sim, a);
    restart(&mut sim, b);

    let met = sim.run_until(20 * SECOND, |sim| sim.node(a).peers().contains(&sim.id(b)));
    assert!(met, "{}", sim.story(&[a, b]));
    assert_eq!(told, [true; 2]);
}

#[test]
fn members_that_nobody_has_met_cost_next_to_nothing() {
    let (mut sim, [a, b, rogue]) = mesh(5);
    let before = [a, b].map(|n| kept(&sim, n));

    parade(&mut sim, rogue, 100, 12);
    sim.run(60 * SECOND);

    for (n, before) in [a, b].into_iter().zip(before) {
        let grown = kept(&sim, n) - before;
        assert!(grown <= 2 * MIB, "{grown} bytes");
    }
    // Whoever comes is heard all the same.
    restart(&mut sim, b);
    let met = sim.run_until(20 * SECOND, |sim| sim.node(a).peers().contains(&sim.id(b)));
    assert!(met, "{}", sim.story(&[a, b]));
}

#[test]
fn a_member_that_says_too_much_of_itself_is_cut_short_and_named() {
    let (mut sim, [a, b, rogue]) = mesh(6);
    let (liar, before) = (sim.id(rogue), [a, b].map(|n| kept(&sim, n)));

    for slot in 0..200 {
        sim.instruct(rogue, |rogue| {
            let signed = rogue.register(ENDPOINTS, slot, vec![0; FULL]);
            rogue.spread([signed]);
        });
        sim.run(Duration::from_millis(10));
    }
    sim.run(10 * SECOND);

    for (n, before) in [a, b].into_iter().zip(before) {
        assert!(kept(&sim, n) - before <= MAX_OWNER_BYTES);
        assert!(names(&sim, n, Code::Misbehaviour, liar));
    }
}

#[test]
fn an_address_that_is_given_again_names_the_newcomer_and_who_let_it_in() {
    let (mut sim, [a, b, rogue]) = mesh(7);
    let (liar, victim) = (sim.id(rogue), sim.id(b));
    let known = sim.core(a).membership().expect("a member");
    let addresses = known.member(victim).expect("a member").addresses.clone();

    let thief = sim.instruct(rogue, |rogue| {
        let (keys, admit) = rogue.puppet(addresses);
        rogue.spread_records(vec![admit]);
        keys.node()
    });
    sim.run(5 * SECOND);

    let told = problems(&sim, a, Code::AddressInUse);
    assert!(!told.is_empty());
    for problem in told {
        assert!(problem.what.contains(&thief.short()), "{problem:?}");
        assert!(problem.why.contains(&liar.short()), "{problem:?}");
        assert!(!problem.fix.contains(&victim.short()), "{problem:?}");
    }
}

#[test]
fn the_ethernet_address_of_a_host_is_its_own_whoever_claims_it() {
    for seed in 8..14 {
        let (mut sim, [a, b, rogue]) = mesh(seed);
        let (liar, victim) = (sim.id(rogue), sim.id(b));
        let mac = host_mac(victim);

        sim.instruct(rogue, |rogue| {
            let mut local = LocalEndpoints::new(liar);
            let slot = local.attach(mac, &[], "wv0".to_owned(), None);
            let slot = slot.expect("there is room");
            let signed = rogue.register(ENDPOINTS, slot, local.body(slot));
            rogue.spread([signed]);
        });
        sim.run(5 * SECOND);

        let snapshot = sim.node(a).snapshot.as_ref().expect("a member");
        let owners = snapshot.endpoints.iter();
        let owners = owners.filter(|endpoint| endpoint.mac == mac);
        let owners: Vec<NodeId> = owners.map(|endpoint| endpoint.owner).collect();
        assert_eq!(owners, [victim]);
        // Six seeds: the liar is the smaller node of the two in some, the greater one in others.
        assert!(names(&sim, a, Code::AddressInUse, liar));
    }
}

/// Ten minutes with `WEFT_CHURN=full`; else the same deeds in twenty seconds.
fn churn() -> Duration {
    match std::env::var("WEFT_CHURN") {
        Ok(full) if full == "full" => 600 * SECOND,
        Ok(_) | Err(_) => 20 * SECOND,
    }
}

#[test]
fn churn_of_one_member_costs_a_flow_beside_it_nothing_and_is_told() {
    const DEEDS: u32 = 200;
    let (mut sim, [a, b, rogue]) = mesh(20);
    let (liar, honest) = (sim.id(rogue), BTreeSet::from([sim.id(a), sim.id(b)]));
    let before = [a, b].map(|n| kept(&sim, n));
    sim.flow(a, b, Duration::from_millis(5), 1378);
    sim.run(SECOND);
    let pause = churn() / DEEDS / 4;

    for deed in 0..DEEDS {
        // Something that its author did not sign.
        sim.instruct(rogue, |rogue| {
            let stranger = rogue.stranger();
            let mut forged = claims_of(rogue, &rogue.keys.clone(), 1);
            forged.extend(claims_of(rogue, &stranger, 1));
            rogue.spread(forged.into_iter().map(Rogue::spoil));
        });
        sim.run(pause);
        sim.instruct(rogue, |rogue| {
            let links = if deed % 2 == 0 {
                &honest
            } else {
                &BTreeSet::new()
            };
            rogue.claim_links(links);
        });
        sim.run(pause);
        sim.instruct(rogue, |rogue| rogue.refuse_all(Code::Clone));
        sim.run(pause);
        sim.instruct(rogue, |rogue| puppet(rogue, 2));
        sim.run(pause);
    }

    sim.run(SECOND);
    sim.stop(a, b);
    let last = sim.elapsed();
    sim.run(SECOND);
    let came = &sim.node(b).arrivals[&sim.id(a)];
    let numbers: BTreeSet<u64> = came.iter().map(|&(_, number)| number).collect();
    let sent = numbers.last().expect("frames") - numbers.first().expect("frames") + 1;
    assert_eq!(numbers.len() as u64, sent, "frames were lost");
    assert!(came.last().expect("frames").0 + Duration::from_millis(50) > last);
    for (n, before) in [a, b].into_iter().zip(before) {
        let grown = kept(&sim, n) - before;
        assert!(grown <= 2 * MIB, "{grown} bytes");
        assert!(
            names(&sim, n, Code::Misbehaviour, liar),
            "{}",
            sim.story(&[n])
        );
    }
}
