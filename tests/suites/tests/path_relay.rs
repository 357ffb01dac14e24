//! Who relays is trusted with nothing: it cannot read, it cannot use again what it saw, and when it does its work badly
//! the traffic goes elsewhere.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use weft_lab::{Capture, Datagram, Harm, Match, requires_root, requires_weft, wait_until};
use weft_router_proto::sleeve::header::{Header, Type};
use weft_suites::flow::{Conversation, Flow, Pace};
use weft_suites::mesh::{Mesh, PATIENCE, alone, is_direct};
use weft_suites::wire::{Injector, receive};

const MS: Duration = Duration::from_millis(1);

/// So long without a datagram of a session is rest: ways in doubt are probed every second.
const SILENCE: Duration = Duration::from_millis(1500);

/// The port of the sleeve.
const PORT: u16 = 6783;

/// How soon a bad relay is left.
const LEFT: Duration = Duration::from_secs(1);

/// Larger than heartbeats and probes, smaller than what carries a datagram of the flow: a relay that answers for itself
/// and spoils what it carries.
const CARRIED: usize = 600;

/// What the flow sends: enough that a hundredth of it is seen at once. `WEFT_RATE` is for machines that can do 10 000.
fn pace() -> Pace {
    let wanted = std::env::var("WEFT_RATE").ok();
    Pace {
        per_second: wanted.and_then(|text| text.parse().ok()).unwrap_or(3_000),
        size: 700,
    }
}

/// The two nodes that are cut off from each other; 0 and 1 can relay.
const ENDS: (usize, usize) = (2, 3);

/// Returns which node carries what one says to the other.
fn relay(mesh: &Mesh, from: usize, to: usize) -> usize {
    let relayed = |view: &Value| view["path"] == "relay" && view["via"].is_string();
    let (_, view) = mesh.await_view(from, to, PATIENCE, relayed);
    [0, 1]
        .into_iter()
        .find(|&at| view["via"] == mesh.id(at))
        .unwrap_or_else(|| panic!("a relay that is none of ours: {view}"))
}

fn is_left(name: &str, harm: Harm) {
    let _alone = alone();
    let program = requires_weft!();
    let mesh = Mesh::up_shaped(name, &program, 4, &[ENDS]);
    let (from, to) = ENDS;
    let flow = Flow::start(&mesh, from, to, pace());
    flow.more(2_000);
    let bad = relay(&mesh, from, to);
    // It is not left without a reason.
    let switches = mesh.switches(from, to).len();
    let restless = wait_until(LEFT, || mesh.switches(from, to).len() != switches);
    assert!(restless.is_none(), "{:?}", mesh.switches(from, to));
    let before = flow.mark();

    let carried = Match::AllOf(vec![Match::UdpPort(PORT), Match::LongerThan(CARRIED)]);
    let [at_relay, at_end] = [bad, to].map(|at| &mesh.node(at).link);
    at_relay.harm_towards(at_end, carried, harm).unwrap();
    let start = Instant::now();
    let (_, view) = mesh.await_view(from, to, PATIENCE, |view| {
        view["path"] != "relay" || view["via"] != mesh.id(bad)
    });
    let left = start.elapsed();
    flow.more(1_000);
    let after = flow.mark();
    // Nothing is lost beyond the second that it may take.
    println!(
        "{harm:?}: left after {left:?}, longest silence {:?}, lost {} of {}, because: {}",
        flow.gap(before, after),
        flow.lost(before, after),
        flow.sent(before, after),
        view["reason"]
    );

    assert!(left <= LEFT, "{harm:?}: left after {left:?}");
    assert_eq!(view["path"], "relay", "{view}");
    // Whoever looks is told who was left, and why.
    let switches = mesh.switches(from, to);
    let named = switches.iter().any(|switch| {
        let reason = switch["reason"].as_str().unwrap_or_default();
        reason.contains(&format!("n{bad} "))
    });
    assert!(named, "the bad relay n{bad} is not named: {switches:?}");
}

/// The two nodes of three that are cut off from each other; 0 relays.
const OUTER: (usize, usize) = (1, 2);

#[test]
fn ping_and_trace_name_the_relay_and_the_mtu() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let mesh = Mesh::up_shaped("named", &program, 3, &[OUTER]);
    let n1 = mesh.node(1);
    let ask = |verb: &str| -> Value {
        let said = n1.say(&[verb, "n2", "-o", "json"]);
        serde_json::from_str(&said).unwrap()
    };

    // Its size is found out while it is in use, and both say the same once it is.
    let (mut ping, mut trace) = (Value::Null, Value::Null);
    let found = wait_until(PATIENCE, || {
        (ping, trace) = (ask("ping"), ask("trace"));
        let mtu = &ping["mtu"];
        ping["path"] == "relay" && mtu.is_number() && trace["hops"][0]["mtu"] == *mtu
    });
    let text = n1.say(&["ping", "n2"]);
    let straight = n1.say(&["ping", "n0"]);

    assert!(found.is_some(), "{ping}\n{trace}\n{}", n1.output());
    assert_eq!(ping["hops"], 2, "{ping}");
    let relay = serde_json::json!([{ "node": mesh.id(0), "nickname": "n0" }]);
    assert_eq!(ping["relays"], relay, "{ping}");
    assert_eq!(ping["loss"], 0.0, "{ping}");
    assert_eq!(trace["complete"], true, "{trace}");
    let froms: Vec<&Value> = trace["hops"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hop| &hop["from_nickname"])
        .collect();
    assert_eq!(froms, ["n1", "n0"], "{trace}");
    assert!(text.contains("relay via n0, 2 hops"), "{text}");
    assert!(straight.contains("sleeve, 1 hop"), "{straight}");
}

#[test]
fn a_relay_that_loses_everything_is_left_within_a_second() {
    requires_root!();
    is_left("loses-all", Harm::LOSE);
}

#[test]
fn a_relay_that_loses_a_tenth_is_left_within_a_second() {
    requires_root!();
    is_left("loses-tenth", Harm::Lose { share: 0.1 });
}

#[test]
fn a_relay_that_loses_a_hundredth_is_left_within_a_second() {
    requires_root!();
    is_left("loses-hundredth", Harm::Lose { share: 0.01 });
}

#[test]
fn a_relay_that_alters_what_it_carries_is_left_within_a_second() {
    requires_root!();
    is_left("alters", Harm::Alter { share: 0.1 });
}

#[test]
fn a_relay_that_delays_a_part_is_left_within_a_second() {
    requires_root!();
    let late = Harm::Delay {
        by: 200 * MS,
        share: 0.2,
    };
    is_left("delays", late);
}

#[test]
fn the_way_back_to_the_direct_path_costs_nothing() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let mesh = Mesh::up_shaped("back", &program, 3, &[]);
    let [a, b] = [0, 1].map(|at| &mesh.node(at).link);
    let relayed = |view: &Value| view["path"] == "relay";
    let both = |wanted: fn(&Value) -> bool| {
        for (from, to) in [(0, 1), (1, 0)] {
            mesh.await_view(from, to, PATIENCE, wanted);
        }
    };
    let flow = Flow::start(&mesh, 0, 1, pace());
    let mut conversation = Conversation::open(&mesh, 0, 1);

    for round in 0..3 {
        flow.more(1_000);
        a.cut_off(b).unwrap();
        both(relayed);
        flow.more(1_000);
        conversation.exchange().unwrap();

        let before = flow.mark();
        a.reunite(b).unwrap();
        both(is_direct);
        let after = flow.mark();
        flow.more(1_000);
        let (lost, sent) = (flow.lost(before, after), flow.sent(before, after));
        println!("round {round}: lost {lost} of {sent}");

        assert!(lost <= 10, "round {round}: lost {lost} of {sent}");
        conversation.exchange().unwrap();
    }
    assert_eq!(flow.doubled(), 0);
}

/// Waits until a router's counters of what it refused stand still, and returns them.
fn still(mesh: &Mesh, at: usize) -> u64 {
    let sum = || {
        let (replayed, inauthentic) = mesh.node(at).refused();
        replayed + inauthentic
    };
    let mut last = (sum(), Instant::now());
    wait_until(PATIENCE, || {
        let now = sum();
        if now != last.0 {
            last = (now, Instant::now());
        }
        last.1.elapsed() >= 300 * MS
    })
    .expect("the counters never stand still");
    last.0
}

/// Whether a datagram belongs to a session of two members: it carries frames, or asks or answers what their way does. A
/// mesh without talk sends none; its links' heartbeats are another type.
fn is_data(datagram: &Datagram) -> bool {
    Header::decode(&datagram.payload).is_some_and(|head| head.kind == Type::Data)
}

/// Records what every host sends.
fn watch(mesh: &Mesh, hosts: usize) -> Vec<Capture> {
    let links = (0..hosts).map(|at| &mesh.node(at).link);
    links
        .map(|link| Capture::start_incoming(link.port_netns(), &link.port()).unwrap())
        .collect()
}

/// Ends the records, and counts what they hold of sessions, host by host, and of anything on the port.
fn sent(watch: Vec<Capture>) -> (Vec<usize>, usize) {
    let mut heartbeats = 0;
    let data = watch.into_iter().map(|capture| {
        let recording = capture.stop().unwrap();
        assert_eq!(recording.lost(), 0);
        let all = recording.datagrams(PORT);
        heartbeats += all.len();
        all.iter().filter(|datagram| is_data(datagram)).count()
    });
    (data.collect(), heartbeats)
}

#[test]
fn what_a_relay_saw_is_worth_nothing_at_any_node() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let mesh = Mesh::up_shaped("blind", &program, 3, &[(0, 2)]);
    let marker = weft_suites::wire::Dice::new(21).marker();
    let middle = &mesh.node(1).link;
    let capture = Capture::start(middle.port_netns(), &middle.port()).unwrap();
    let namespace = |at: usize| mesh.node(at).container.netns();
    let socket = |at: usize| {
        let bound = namespace(at).run(|| std::net::UdpSocket::bind(mesh.socket(at)));
        bound.unwrap().unwrap()
    };
    let (output, input) = (socket(0), socket(2));
    input.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 100];

    for _ in 0..100 {
        output
            .send_to(&marker, input.local_addr().unwrap())
            .unwrap();
        assert_eq!(receive(&input, &mut buffer), marker.len());
    }
    let recording = capture.stop().unwrap();

    assert_eq!(recording.lost(), 0);
    assert_eq!(recording.search(&marker[..8]), 0);
    assert_eq!(recording.ip_pairs(mesh.address(0), mesh.address(2)), 0);
    // Again: to whom it was sent, and to each of the others as if it had been meant for them.
    let recorded: Vec<Datagram> = recording.datagrams(PORT);
    assert!(recorded.len() >= 200, "{} datagrams", recorded.len());
    input.set_read_timeout(Some(300 * MS)).unwrap();
    let carried = recorded.iter().filter(|one| is_data(one)).count();
    assert!(carried >= 200, "{carried} datagrams of sessions");
    // Ways are probed for a while after the last frame; from then on whatever leaves, leaves because of what is injected.
    let calm = wait_until(PATIENCE, || {
        let watched = watch(&mesh, 3);
        std::thread::sleep(SILENCE);
        sent(watched).0 == [0, 0, 0]
    });
    assert!(calm.is_some(), "the mesh does not come to rest");
    let watched = watch(&mesh, 3);
    for at in 0..3 {
        let node = mesh.node(at);
        let injector = Injector::towards(&node.host, &node.link);
        let before = still(&mesh, at);
        let mut injected = 0;
        for volley in recorded.chunks(48) {
            for datagram in volley {
                // From another one: what a host gets from itself it drops before any program sees it.
                let from = mesh.node((at + 1) % 3).link.v4();
                injector.replay(&Datagram {
                    from: SocketAddr::new(from.into(), PORT),
                    to: SocketAddr::new(node.link.v4().into(), PORT),
                    ..datagram.clone()
                });
                injected += 1;
            }
            let counted = wait_until(PATIENCE, || {
                let (replayed, inauthentic) = node.refused();
                replayed + inauthentic - before >= injected
            });
            assert!(
                counted.is_some(),
                "n{at} let something in: {:?}",
                node.status()
            );
        }
        assert_eq!(still(&mesh, at) - before, injected, "n{at}");
        println!("n{at}: {injected} injected, none taken");
    }
    assert!(
        input.recv(&mut buffer).is_err(),
        "something was delivered again"
    );
    let (data, seen) = sent(watched);
    println!("meanwhile the three sent {data:?} datagrams of sessions, and {seen} of any kind");
    assert_eq!(data, [0, 0, 0], "something was sent on");
    assert!(seen > 0, "heartbeats are seen, so the record works");
}
