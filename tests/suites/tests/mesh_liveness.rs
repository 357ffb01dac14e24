//! How soon the others know that a router is gone, and how soon it is back.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;
use std::time::{Duration, Instant};

use weft_lab::bar::{Bar, judge};
use weft_lab::{requires_root, requires_weft, wait_until};
use weft_suites::mesh::{Mesh, PATIENCE, alone};

const MS: Duration = Duration::from_millis(1);

/// Waits until every other router says that a peer is not connected; returns how long the slowest took.
fn known_gone(mesh: &Mesh, others: &[usize], nickname: &str) -> Duration {
    thread::scope(|scope| {
        let watches: Vec<_> = others
            .iter()
            .map(|&at| {
                let node = mesh.node(at);
                scope.spawn(move || {
                    let gone = wait_until(PATIENCE, || {
                        node.peer_state(nickname)
                            .is_some_and(|state| state != "connected")
                    });
                    gone.unwrap_or_else(|| {
                        let status = node.status();
                        panic!("n{at} never knows:\n{status:?}\n{}", node.output())
                    })
                })
            })
            .collect();
        watches
            .into_iter()
            .map(|watch| watch.join().unwrap())
            .max()
            .unwrap_or_default()
    })
}

#[test]
fn a_killed_router_is_missed_in_1500_ms_and_back_a_second_after_it_starts() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let mut mesh = Mesh::up("kill", &program, 3);

    let bars = [Bar::new("missed", 1500 * MS), Bar::new("back", 1000 * MS)];
    judge(bars, |round| {
        mesh.daemon(2).kill9().unwrap();
        let missed = known_gone(&mesh, &[0, 1], "n2");

        let start = Instant::now();
        mesh.daemon(2).restart().unwrap();
        for from in [0, 1] {
            assert!(
                wait_until(PATIENCE, || mesh.pings(from, 2)).is_some(),
                "round {round}: c{from} does not reach c2:\n{}\n{}",
                mesh.node(from).output(),
                mesh.node(2).output()
            );
        }
        let back = start.elapsed();
        mesh.settle();
        [missed, back]
    });
}

#[test]
fn a_silent_host_is_missed_in_2500_ms_and_back_when_its_cable_is() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let mesh = Mesh::up("silent", &program, 3);
    mesh.node(2).link.insert_shaper().unwrap();
    mesh.settle();

    // There is no bar for the way back but that there is one.
    let bars = [Bar::new("missed", 2500 * MS), Bar::new("back", PATIENCE)];
    judge(bars, |_| {
        mesh.node(2).link.cut().unwrap();
        let missed = known_gone(&mesh, &[0, 1], "n2");
        mesh.node(2).link.heal().unwrap();
        let start = Instant::now();
        mesh.settle();
        [missed, start.elapsed()]
    });
}
