//! Nodes behind address translators of every kind meet, directly wherever that is possible at all.

#![expect(clippy::print_stdout, reason = "a test says what it measured")]

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use weft_lab::{Lan, NatKind, NatProfile, requires_root, requires_weft, wait_until};
use weft_suites::flow::{Conversation, Flow, Pace};
use weft_suites::mesh::{Mesh, PATIENCE, alone, is_direct};

/// How soon two nodes are connected, and directly where that is possible.
const SOON: Duration = Duration::from_secs(3);

/// Says whether two nodes can meet: a mapping that only one destination sees cannot be guessed by whoever must be sent to
/// first, port and all.
fn can_meet(a: NatKind, b: NatKind) -> bool {
    let strict = |kind| matches!(kind, NatKind::PortRestricted | NatKind::Symmetric);
    let symmetric = |kind| kind == NatKind::Symmetric;
    !(symmetric(a) && strict(b) || symmetric(b) && strict(a))
}

/// A public node, and behind translators as many as are asked for. Node `n + 1` is behind the translator `n`.
struct Grid {
    mesh: Mesh,
    _lans: Vec<Lan>,
}

impl Grid {
    fn up(name: &str, program: &Path, profiles: &[NatProfile]) -> Self {
        let mut mesh = Mesh::build(name, program, 1);
        let mut lans = Vec::new();
        for (number, &profile) in profiles.iter().enumerate() {
            let outside = mesh.underlay();
            let name = format!("lan{number}");
            let lan = mesh.lab().lan(&name, outside, profile).expect("a network");
            mesh.add(Some(&lan));
            lans.push(lan);
        }
        for at in 0..=profiles.len() {
            mesh.start(at);
        }
        for at in 0..=profiles.len() {
            mesh.attach(at);
        }
        Self { mesh, _lans: lans }
    }
}

/// Sends the first frames between two nodes, and waits until they are answered, and by the path that is expected.
fn meet(mesh: &Mesh, a: usize, b: usize, directly: bool) -> (Duration, Duration) {
    let start = Instant::now();
    let answered = wait_until(SOON, || mesh.pings(a, b));
    let Some(answered) = answered else {
        panic!("c{a} does not reach c{b}: {}", mesh.view(a, b));
    };
    // Its path is chosen while it talks.
    let arrived = wait_until(SOON.saturating_sub(start.elapsed()), || {
        mesh.pings(a, b);
        let views = [mesh.view(a, b), mesh.view(b, a)];
        if directly {
            views.iter().all(is_direct)
        } else {
            views
                .iter()
                .all(|view| view["path"] == "relay" && view["via"].is_string())
        }
    });
    assert!(
        arrived.is_some(),
        "n{a} and n{b}, which {} meet: {} {}",
        if directly { "can" } else { "cannot" },
        mesh.view(a, b),
        mesh.view(b, a)
    );
    (answered, start.elapsed())
}

#[test]
fn every_pair_of_kinds_is_connected_in_three_seconds_and_directly_where_that_is_possible() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    // Two of each, for the pairs of one kind. At home everybody has the same private addresses.
    let kinds: Vec<NatKind> = NatKind::ALL.iter().flat_map(|&kind| [kind, kind]).collect();
    let profiles: Vec<NatProfile> = kinds.iter().map(|&kind| NatProfile::new(kind)).collect();
    let Grid { mesh, _lans } = Grid::up("grid", &program, &profiles);
    let mut met = Vec::new();

    for a in 0..kinds.len() {
        meet(&mesh, a + 1, 0, true);
        for b in a + 1..kinds.len() {
            let pair = (kinds[a], kinds[b]);
            if met.contains(&pair) {
                continue;
            }
            met.push(pair);
            let directly = can_meet(pair.0, pair.1);
            let (answered, arrived) = meet(&mesh, a + 1, b + 1, directly);
            println!("{pair:?}: answered after {answered:?}, direct: {directly} after {arrived:?}");
        }
    }

    assert_eq!(met.len(), 10);
}

#[test]
fn neighbours_behind_one_translator_meet_inside() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let mut mesh = Mesh::build("neighbours", &program, 1);
    let profile = NatProfile::new(NatKind::Symmetric);
    let lan = mesh
        .lab()
        .lan("lan", mesh.underlay(), profile)
        .expect("a network");
    for _ in 0..2 {
        mesh.add(Some(&lan));
    }
    for at in 0..3 {
        mesh.start(at);
    }
    for at in 0..3 {
        mesh.attach(at);
    }

    meet(&mesh, 1, 2, true);

    let inside = format!("{}:", mesh.node(2).link.v4());
    let view = mesh.view(1, 2);
    let endpoint = view["endpoint"].as_str().unwrap_or_default();
    assert!(endpoint.starts_with(&inside), "{view}");
}

#[test]
fn a_node_behind_two_translators_reaches_and_is_reached() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let mut mesh = Mesh::build("carrier", &program, 1);
    let carrier = NatProfile {
        subnet: Ipv4Addr::new(10, 64, 0, 0),
        ..NatProfile::new(NatKind::PortRestricted)
    };
    let carrier = mesh
        .lab()
        .lan("carrier", mesh.underlay(), carrier)
        .expect("a network");
    let home = NatProfile::new(NatKind::PortRestricted);
    let home = mesh
        .lab()
        .lan("home", carrier.inside(), home)
        .expect("a network");
    let other = NatProfile::new(NatKind::AddressRestricted);
    let other = mesh
        .lab()
        .lan("other", mesh.underlay(), other)
        .expect("a network");
    mesh.add(Some(&home));
    mesh.add(Some(&other));
    for at in 0..3 {
        mesh.start(at);
    }
    for at in 0..3 {
        mesh.attach(at);
    }

    meet(&mesh, 1, 0, true);
    meet(&mesh, 1, 2, true);
    mesh.exchange_everything();
}

#[test]
fn a_translator_that_forgets_everything_costs_a_moment() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    // Mappings that live shortly must be kept alive often.
    let profile = NatProfile {
        udp_idle: Duration::from_secs(10),
        ..NatProfile::new(NatKind::PortRestricted)
    };
    let Grid { mesh, _lans } = Grid::up("forgets", &program, &[profile, profile]);
    meet(&mesh, 1, 2, true);
    let flow = Flow::start(&mesh, 2, 1, Pace::STEADY);
    let mut conversation = Conversation::open(&mesh, 2, 1);
    flow.more(500);

    let before = flow.mark();
    _lans[0].forget();

    let heard = flow.heard_after(before, PATIENCE).expect("a way");
    flow.more(500);
    conversation.exchange().expect("the stream from before");
    let gap = flow.gap(before, flow.mark());
    println!("first after {heard:?}, longest silence {gap:?}");
    assert!(gap <= SOON, "silent for {gap:?}");
}
