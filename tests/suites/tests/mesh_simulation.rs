//! Whole router cores on a virtual network: what each kind of trouble does, one at a time. All at once: `mesh_trouble.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use weft_router_proto::io::{Command, Event, Reply};
use weft_router_proto::router::Intent;
use weft_sim::{NodeIndex, Sim};
use weft_types::Code;

const SECOND: Duration = Duration::from_secs(1);
const QUARTER_HOUR: Duration = Duration::from_secs(900);

/// A mesh of `count` nodes, joined one after the other, all linked.
fn mesh(seed: u64, count: usize) -> (Sim, Vec<NodeIndex>) {
    let mut sim = Sim::new(seed);
    let mut nodes = vec![sim.create()];
    let token = sim.token(nodes[0], true, QUARTER_HOUR);
    for _ in 1..count {
        nodes.push(sim.join(nodes[0], token.clone()));
        assert!(
            sim.run_until(SECOND, |sim| sim.converged(&nodes)),
            "{}",
            sim.story(&nodes)
        );
    }
    (sim, nodes)
}

/// The code a node stopped with.
fn halted(sim: &Sim, index: NodeIndex) -> Option<Code> {
    sim.node(index).halted.as_ref().map(|problem| problem.code)
}

/// The codes of failed attempts to join that a node told of.
fn attempts(sim: &Sim, index: NodeIndex) -> Vec<Code> {
    let problem = |event: &Event| match event {
        Event::JoinAttemptFailed(problem) => Some(problem.code),
        Event::Joined { .. }
        | Event::LinkUp { .. }
        | Event::LinkDown { .. }
        | Event::MemberJoined { .. }
        | Event::MemberLeft { .. }
        | Event::PathChanged { .. }
        | Event::Problem(_)
        | Event::SessionUp { .. }
        | Event::SessionDown { .. } => None,
    };
    sim.node(index).events.iter().filter_map(problem).collect()
}

#[test]
fn a_node_that_joins_is_seen_by_all_within_a_second() {
    let (sim, nodes) = mesh(1, 12);

    assert!(sim.converged(&nodes), "{}", sim.story(&nodes));
}

#[test]
fn twenty_four_members_fit() {
    let (sim, nodes) = mesh(2, 24);

    assert!(sim.converged(&nodes), "{}", sim.story(&nodes));
}

#[test]
fn any_member_admits_others_and_the_creator_hands_out_the_address() {
    let (mut sim, mut nodes) = mesh(3, 3);
    let token = sim.token(nodes[2], false, QUARTER_HOUR);

    nodes.push(sim.join(nodes[2], token));

    assert!(
        sim.run_until(SECOND, |sim| sim.converged(&nodes)),
        "{}",
        sim.story(&nodes)
    );
    let addresses: BTreeSet<_> = nodes
        .iter()
        .map(|&n| {
            sim.node(n)
                .snapshot
                .as_ref()
                .expect("as the scenario made it")
                .host_addresses[0]
        })
        .collect();
    assert_eq!(addresses.len(), 4);
}

#[test]
fn a_node_whose_introducer_dies_the_moment_it_is_in_finds_the_others() {
    let (mut sim, nodes) = mesh(17, 4);
    let token = sim.token(nodes[3], true, QUARTER_HOUR);
    sim.run(SECOND);
    sim.weather.common.delay = Duration::from_millis(50);
    let joiner = sim.join(nodes[3], token);
    assert!(sim.run_until(5 * SECOND, |sim| sim.node(joiner).snapshot.is_some()));

    sim.crash(nodes[3]);

    let alive = [nodes[0], nodes[1], nodes[2], joiner];
    assert!(
        sim.run_until(5 * SECOND, |sim| sim.converged(&alive)),
        "{}",
        sim.story(&alive)
    );
}

#[test]
fn a_used_token_is_told_from_an_expired_and_a_voided_one() {
    let (mut sim, nodes) = mesh(4, 2);
    let used = sim.token(nodes[0], false, QUARTER_HOUR);
    let first = sim.join(nodes[0], used.clone());
    assert!(sim.run_until(SECOND, |sim| sim.node(first).snapshot.is_some()));
    let expired = sim.token(nodes[0], false, SECOND);
    let voided = sim.token(nodes[0], false, QUARTER_HOUR);
    sim.command(nodes[0], Command::TokenRevoke { token: voided.id });
    sim.run(2 * SECOND);

    let joiners = [used, expired, voided].map(|token| sim.join(nodes[0], token));
    sim.run(5 * SECOND);

    let codes = joiners.map(|n| halted(&sim, n));
    assert_eq!(
        codes,
        [
            Some(Code::TokenUsed),
            Some(Code::TokenExpired),
            Some(Code::TokenVoided)
        ]
    );
}

#[test]
fn a_token_of_another_mesh_is_not_accepted() {
    let (mut sim, nodes) = mesh(5, 2);
    let other = sim.create();
    let token = sim.token(other, false, QUARTER_HOUR);

    let stranger = sim.join(nodes[0], token);
    sim.run(6 * SECOND);

    let told = attempts(&sim, stranger)
        .into_iter()
        .chain(halted(&sim, stranger))
        .collect::<Vec<_>>();
    assert!(told.contains(&Code::TokenNotAccepted), "{told:?}");
}

#[test]
fn without_the_creator_a_join_fails_by_name_and_the_token_stays_good() {
    let (mut sim, mut nodes) = mesh(6, 3);
    let token = sim.token(nodes[1], false, QUARTER_HOUR);
    sim.crash(nodes[0]);
    sim.run(3 * SECOND);

    let joiner = sim.join(nodes[1], token.clone());
    sim.run(8 * SECOND);
    let told = attempts(&sim, joiner)
        .into_iter()
        .chain(halted(&sim, joiner))
        .collect::<Vec<_>>();
    assert!(told.contains(&Code::CreatorUnreachable), "{told:?}");

    sim.crash(joiner);
    sim.start(nodes[0], Intent::Resume, &[]);
    sim.run(5 * SECOND);
    sim.start(
        joiner,
        Intent::Join {
            token,
            address: None,
        },
        &[nodes[1]],
    );
    nodes.push(joiner);
    assert!(
        sim.run_until(5 * SECOND, |sim| sim.converged(&nodes)),
        "{}",
        sim.story(&nodes)
    );
}

#[test]
fn a_killed_node_is_known_to_be_gone_and_comes_back() {
    let (mut sim, nodes) = mesh(7, 5);
    let id = sim.id(nodes[3]);
    let others = [nodes[0], nodes[1], nodes[2], nodes[4]];

    sim.crash(nodes[3]);
    let known = sim.run_until(Duration::from_millis(1500), |sim| {
        others.iter().all(|&n| !sim.node(n).peers().contains(&id))
    });
    assert!(known, "{}", sim.story(&nodes));
    sim.run(60 * SECOND);
    sim.start(nodes[3], Intent::Resume, &[]);

    assert!(
        sim.run_until(SECOND, |sim| sim.converged(&nodes)),
        "{}",
        sim.story(&nodes)
    );
}

#[test]
fn a_silent_host_is_known_everywhere_within_two_and_a_half_seconds() {
    let (mut sim, nodes) = mesh(8, 5);
    let id = sim.id(nodes[3]);
    let others = [nodes[0], nodes[1], nodes[2], nodes[4]];

    sim.weather.partition(&[nodes[3]], &others);

    let known = sim.run_until(Duration::from_millis(2500), |sim| {
        others.iter().all(|&n| !sim.node(n).peers().contains(&id))
    });
    assert!(known, "{}", sim.story(&nodes));
}

#[test]
fn two_machines_with_one_identity_are_a_clone() {
    let (mut sim, nodes) = mesh(9, 3);
    let copy = sim.clone_host(nodes[2]);

    sim.start(copy, Intent::Resume, &[nodes[0]]);
    sim.run(10 * SECOND);

    assert_eq!(
        halted(&sim, copy),
        Some(Code::Clone),
        "{}",
        sim.story(&nodes)
    );
    assert!(sim.converged(&nodes), "{}", sim.story(&nodes));
    // The original says so while it is fresh; nobody else has that problem.
    let told = |sim: &Sim, at: NodeIndex| {
        let problems = sim.core(at).status(sim.now(at)).problems;
        let told = problems.into_iter().find(|one| one.code == Code::Clone);
        told.map(|problem| problem.why)
    };
    let address = sim.node(copy).address.ip().to_string();
    let why = told(&sim, nodes[2]).expect("the original tells");
    assert!(why.contains(&address), "{address}: {why}");
    assert_eq!(told(&sim, nodes[0]), None);
    sim.run(QUARTER_HOUR);
    assert_eq!(told(&sim, nodes[2]), None);
}

#[test]
fn who_left_stays_out() {
    let (mut sim, nodes) = mesh(10, 3);
    let id = sim.id(nodes[2]);

    let request = sim.command(nodes[2], Command::Leave);
    assert!(
        sim.run_until(SECOND, |sim| sim.node(nodes[2]).replies.get(&request)
            == Some(&Reply::Done))
    );
    let gone = sim.run_until(SECOND, |sim| {
        nodes[..2]
            .iter()
            .all(|&n| !sim.node(n).peers().contains(&id))
    });

    assert!(gone, "{}", sim.story(&nodes));
    assert_eq!(
        sim.core(nodes[0])
            .status(sim.now(nodes[0]))
            .mesh
            .map(|mesh| mesh.members),
        Some(2)
    );
}

#[test]
fn a_first_frame_makes_a_session_and_later_ones_pass() {
    let (mut sim, nodes) = mesh(11, 2);
    let (a, b) = (sim.id(nodes[0]), sim.id(nodes[1]));

    sim.frame(nodes[0], nodes[1]);
    assert!(sim.run_until(SECOND, |sim| sim.node(nodes[0]).session_to(b).is_some()));
    for _ in 0..1000 {
        sim.frame(nodes[0], nodes[1]);
        sim.frame(nodes[1], nodes[0]);
        sim.run(SECOND);
    }

    let delivered = |n: NodeIndex, from| {
        sim.node(n)
            .delivered
            .get(&from)
            .copied()
            .unwrap_or_default()
    };
    assert_eq!(
        delivered(nodes[1], a),
        1001,
        "the first one waits, and no frame is lost over eight rekeys"
    );
    assert_eq!(delivered(nodes[0], b), 1000);
    assert!(sim.core(nodes[0]).status(sim.now(nodes[0])).counters.rekeys >= 7);
}

#[test]
fn heartbeats_go_by_tcp_where_udp_is_blocked() {
    let (mut sim, nodes) = mesh(12, 2);
    sim.weather.block_udp(nodes[0], nodes[1]);
    sim.weather.block_udp(nodes[1], nodes[0]);

    sim.run(30 * SECOND);

    assert!(sim.converged(&nodes), "{}", sim.story(&nodes));
    let problems = sim.core(nodes[0]).status(sim.now(nodes[0])).problems;
    assert!(
        problems
            .iter()
            .any(|problem| problem.code == Code::HeartbeatsByTcp),
        "{problems:?}"
    );
}

#[test]
fn an_attached_container_is_known_everywhere_and_again_after_a_restart() {
    let (mut sim, nodes) = mesh(13, 3);
    let mac = "02:00:00:00:00:07"
        .parse()
        .expect("as the scenario made it");
    let attach = Command::Attach {
        mac,
        addresses: vec!["10.32.1.7/12".parse().expect("as the scenario made it")],
        port: "wv7".to_owned(),
    };
    let seen = |sim: &Sim, n: NodeIndex| {
        sim.node(n)
            .snapshot
            .iter()
            .any(|s| s.endpoints.iter().any(|e| e.mac == mac))
    };

    sim.command(nodes[1], attach);
    assert!(sim.run_until(SECOND, |sim| nodes.iter().all(|&n| seen(sim, n))));
    sim.crash(nodes[1]);
    sim.run(5 * SECOND);
    assert!(!seen(&sim, nodes[0]));
    sim.start(nodes[1], Intent::Resume, &[]);
    assert!(
        sim.run_until(2 * SECOND, |sim| nodes.iter().all(|&n| seen(sim, n))),
        "{}",
        sim.story(&nodes)
    );

    sim.command(nodes[1], Command::Detach { mac });
    assert!(sim.run_until(SECOND, |sim| nodes.iter().all(|&n| !seen(sim, n))));
}

#[test]
fn a_restored_snapshot_steps_past_its_own_footsteps_and_frames_pass_again() {
    let (mut sim, nodes) = mesh(14, 3);
    let (a, b) = (sim.id(nodes[0]), sim.id(nodes[1]));
    let snapshot = sim.node(nodes[1]).disk.clone();
    for _ in 0..3 {
        sim.crash(nodes[1]);
        sim.start(nodes[1], Intent::Resume, &[]);
        assert!(sim.run_until(3 * SECOND, |sim| sim.converged(&nodes)));
    }

    sim.crash(nodes[1]);
    sim.restore(nodes[1], snapshot);
    sim.start(nodes[1], Intent::Resume, &[]);

    assert!(
        sim.run_until(5 * SECOND, |sim| sim.converged(&nodes)),
        "{}",
        sim.story(&nodes)
    );
    sim.run(2 * SECOND);
    sim.frame(nodes[0], nodes[1]);
    sim.run(SECOND);
    sim.frame(nodes[0], nodes[1]);
    sim.run(SECOND);
    assert!(sim.node(nodes[0]).session_to(b).is_some());
    assert_eq!(sim.node(nodes[1]).delivered.get(&a), Some(&2));
}

#[test]
fn a_restored_snapshot_asks_how_far_its_log_goes_before_it_adds_to_it() {
    let (mut sim, nodes) = mesh(15, 3);
    let snapshot = sim.node(nodes[1]).disk.clone();
    sim.token(nodes[1], true, QUARTER_HOUR);
    sim.run(SECOND);
    sim.crash(nodes[1]);
    sim.restore(nodes[1], snapshot);
    sim.start(nodes[1], Intent::Resume, &[]);

    sim.token(nodes[1], true, QUARTER_HOUR);
    sim.run(5 * SECOND);

    assert!(sim.converged(&nodes), "{}", sim.story(&nodes));
    let problems = sim.core(nodes[0]).status(sim.now(nodes[0])).problems;
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn a_single_use_token_that_a_restored_snapshot_holds_live_admits_nobody_again() {
    let (mut sim, mut nodes) = mesh(16, 3);
    let token = sim.token(nodes[1], false, QUARTER_HOUR);
    let snapshot = sim.node(nodes[1]).disk.clone();
    nodes.push(sim.join(nodes[1], token.clone()));
    assert!(sim.run_until(SECOND, |sim| sim.converged(&nodes)));
    sim.crash(nodes[1]);
    sim.restore(nodes[1], snapshot);
    sim.start(nodes[1], Intent::Resume, &[]);

    let second = sim.join(nodes[1], token);
    sim.run(6 * SECOND);

    assert_eq!(
        halted(&sim, second),
        Some(Code::TokenUsed),
        "{:?}",
        attempts(&sim, second)
    );
    assert!(sim.converged(&nodes), "{}", sim.story(&nodes));
}

#[test]
fn two_who_come_with_one_single_use_token_are_one_member() {
    for seed in 100..110 {
        let (mut sim, mut nodes) = mesh(seed, 2);
        let token = sim.token(nodes[1], false, QUARTER_HOUR);

        let pair = [0, 1].map(|_| sim.join(nodes[1], token.clone()));
        sim.run(6 * SECOND);

        let (inside, outside): (Vec<_>, Vec<_>) = pair
            .into_iter()
            .partition(|&n| sim.node(n).halted.is_none());
        assert_eq!(inside.len(), 1, "{}", sim.story(&pair));
        assert_eq!(halted(&sim, outside[0]), Some(Code::TokenUsed));
        nodes.extend(inside);
        assert!(sim.converged(&nodes), "{}", sim.story(&nodes));
    }
}
