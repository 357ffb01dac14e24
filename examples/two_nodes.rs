//! Two router cores join each other on a virtual network, in virtual time: no root, no sockets, no waiting.
//!
//! ```sh
//! cargo run -p weft-suites --example two_nodes
//! ```
//!
//! A core ([`weft_router_proto::router::Router`]) is a value: inputs go in, outputs come out, and `now` is an argument.
//! [`weft_sim::Sim`] plays the part that sockets, disks and clocks play in the daemon.

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::time::Duration;

use weft_sim::Sim;

fn main() {
    let mut sim = Sim::new(42);

    // `weft up`: a mesh of one.
    let first = sim.create();
    // `weft token create`: admits one node within a quarter of an hour.
    let token = sim.token(first, false, Duration::from_secs(900));
    // `weft join`: the second node dials the first, proves that it holds the token, and is admitted.
    let second = sim.join(first, token);
    let joined = sim.run_until(Duration::from_secs(1), |sim| {
        sim.node(first).peers().len() == 1 && sim.node(second).peers().len() == 1
    });
    println!(
        "joined: {joined}, after {:?} of virtual time",
        sim.elapsed()
    );

    // The first frame waits for an end-to-end session, which is made for it.
    let (a, b) = (sim.id(first), sim.id(second));
    sim.frame(first, second);
    sim.run_until(Duration::from_secs(1), |sim| {
        sim.node(second).delivered.contains_key(&a)
    });
    let delivered = sim
        .node(second)
        .delivered
        .get(&a)
        .copied()
        .unwrap_or_default();
    println!("frames from {} to {}: {delivered}", a.short(), b.short());

    // And by whose word: each knows the other's addresses on the mesh.
    for node in [first, second] {
        let status = sim.core(node).status(sim.now(node));
        for peer in status.peers {
            let addresses: Vec<_> = peer.addresses.iter().map(ToString::to_string).collect();
            println!(
                "{} sees {} at {}: {:?}",
                status.node.nickname,
                peer.nickname,
                addresses.join(", "),
                peer.state
            );
        }
    }
    assert!(joined && delivered == 1, "two nodes and nobody in the way");
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_nodes_join_and_a_frame_arrives() {
        super::main();
    }
}
