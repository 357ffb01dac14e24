//! What containers send each other arrives: every byte over bad links, and once at each where it is for all.

#![expect(clippy::print_stdout, reason = "a test says what it measured")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use weft_lab::traffic::{GroupTest, group_receipts, tcp_transfer};
use weft_lab::{Profile, Reorder, Way, requires_root, requires_weft};
use weft_suites::mesh::{Mesh, PATIENCE};

#[test]
fn a_hundred_mebibytes_arrive_through_loss_and_reordering() {
    requires_root!();
    let program = requires_weft!();
    let mesh = Mesh::up("lossy", &program, 3);
    let link = &mesh.node(1).link;
    link.shape(Profile {
        loss: 0.01,
        reorder: Some(Reorder {
            by: Duration::from_millis(1),
            chance: 0.25,
        }),
        ..Profile::default()
    })
    .unwrap();

    let inside = |at: usize| mesh.node(at).container.netns();
    let there = tcp_transfer(inside(0), inside(1), mesh.socket(1), 80 << 20).unwrap();
    let back = tcp_transfer(inside(1), inside(2), mesh.socket(2), 20 << 20).unwrap();

    println!("80 MiB to the bad link in {there:?}, 20 MiB from it in {back:?}");
    assert!(link.counters(Way::In).lost > 100 && link.counters(Way::Out).lost > 100);
    for at in 0..3 {
        assert_eq!(mesh.node(at).refused(), (0, 0), "n{at}");
    }
}

#[test]
fn a_hundred_mebibytes_cross_a_good_link_whole() {
    requires_root!();
    let program = requires_weft!();
    let mesh = Mesh::up("good", &program, 3);

    let inside = |at: usize| mesh.node(at).container.netns();
    let took = tcp_transfer(inside(2), inside(1), mesh.socket(1), 100 << 20).unwrap();

    println!("100 MiB in {took:?}");
    assert_eq!(mesh.node(1).refused(), (0, 0));
}

#[test]
fn what_is_for_all_reaches_the_container_of_every_other_host_once() {
    requires_root!();
    let program = requires_weft!();
    let mesh = Mesh::up("groups", &program, 4);
    let IpNet::V4(range) = mesh.network(0) else {
        panic!("containers have IPv4 addresses");
    };
    let groups: [IpAddr; 3] = [
        range.broadcast().into(),
        Ipv4Addr::new(239, 1, 2, 3).into(),
        Ipv4Addr::new(224, 0, 0, 251).into(),
    ];
    let station = |at: usize| (mesh.node(at).container.netns(), mesh.address(at));

    for (number, group) in (0..).zip(groups) {
        for from in 0..4 {
            let others: Vec<_> = (0..4).filter(|&at| at != from).map(station).collect();
            let test = GroupTest {
                count: 20,
                group: SocketAddr::new(group, 4000 + number),
                patience: PATIENCE,
                payload: b"to whom it may concern",
            };

            let receipts = group_receipts(station(from), &others, test).unwrap();

            assert_eq!(receipts, [20, 20, 20], "from c{from} to {group}");
        }
    }
}
