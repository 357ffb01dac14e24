mod net;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::crypto::seeded::SeededCrypto;
use crate::keys::SessionIndex;
use crate::session::handshake::Initiation;
use net::{LARGE, Net, Node, Records, SMALL, Weather, boot, id, key, local, origin};

#[test]
fn a_wanted_session_comes_up_at_both_ends() {
    let mut net = Net::new(1, Weather::FINE);

    net.want(SMALL);
    net.run(Duration::from_secs(2));

    net.assert_agreed();
    assert_eq!(net.nodes[SMALL].ups, 1);
    assert_eq!(net.nodes[LARGE].ups, 1);
    assert_eq!(net.nodes[LARGE].registers, [vec![b"of 0".to_vec()]]);
    assert_eq!(net.nodes[SMALL].registers, [vec![b"of 1".to_vec()]]);
}

#[test]
fn both_may_begin_at_once() {
    for seed in 0..20 {
        let mut net = Net::new(seed, Weather::FINE);

        net.want(SMALL);
        net.want(LARGE);
        net.run(Duration::from_secs(2));

        net.assert_agreed();
        assert_eq!(net.nodes[SMALL].ups, 1);
        assert_eq!(net.nodes[LARGE].ups, 1);
    }
}

#[test]
fn a_session_that_nobody_uses_dies_silently_and_is_remade_on_demand() {
    let mut net = Net::new(2, Weather::FINE);
    net.want(SMALL);
    net.run(Duration::from_secs(185));

    assert_eq!(net.nodes[SMALL].downs, 1);
    assert_eq!(net.nodes[LARGE].downs, 1);
    assert!(net.nodes.iter().all(|node| node.plane.keys.is_empty()));
    assert!(net.nodes.iter().all(|node| node.indices.in_use() == 0));
    assert!(
        net.nodes
            .iter()
            .all(|node| node.sessions.poll_timeout().is_none())
    );

    net.want(LARGE);
    net.run(Duration::from_secs(2));
    net.assert_agreed();
}

#[test]
fn a_used_session_is_rekeyed_and_no_frame_is_lost() {
    let mut net = Net::new(3, Weather::FINE);
    net.want(SMALL);
    net.run(Duration::from_secs(2));

    net.traffic = true;
    net.run(Duration::from_secs(600));

    net.assert_agreed();
    assert_eq!(net.frames_without_key, 0);
    assert_eq!(net.frames_without_session, 0);
    let rekeys = net.nodes[SMALL].sessions.counters().rekeys;
    assert!((4..=5).contains(&rekeys), "{rekeys} rekeys");
    assert_eq!(net.nodes[SMALL].downs, 0);
    assert!(
        net.unicasts <= 2,
        "only the first handshake went over the control plane"
    );
}

#[test]
fn a_session_that_was_used_for_a_moment_is_not_kept() {
    let mut net = Net::new(9, Weather::FINE);
    net.want(SMALL);
    net.run(Duration::from_secs(2));
    net.traffic = true;
    net.run(Duration::from_secs(50));
    net.traffic = false;

    net.run(Duration::from_secs(140));

    assert_eq!(net.nodes[SMALL].sessions.counters().rekeys, 0);
    assert_eq!(net.nodes[SMALL].downs, 1);
}

#[test]
fn a_session_that_is_used_every_110_seconds_is_kept() {
    let mut net = Net::new(10, Weather::FINE);
    net.want(SMALL);
    for _ in 0..40 {
        net.run(Duration::from_millis(109_500));
        net.traffic = true;
        net.run(Duration::from_millis(500));
        net.traffic = false;
    }

    assert_eq!(net.nodes[SMALL].downs, 0);
    assert_eq!(net.frames_without_session, 0);
}

#[test]
fn a_rekey_falls_back_to_the_control_plane_after_a_second() {
    let mut net = Net::new(4, Weather::FINE);
    net.want(SMALL);
    net.run(Duration::from_secs(2));
    net.traffic = true;
    net.run(Duration::from_secs(100));
    let before = net.unicasts;

    net.block_handshakes_in_session = true;
    net.run(Duration::from_secs(23));

    assert!(net.unicasts > before);
    assert_eq!(net.nodes[SMALL].sessions.counters().rekeys, 1);
    net.assert_agreed();
}

#[test]
fn a_restarted_side_gets_a_new_session() {
    let mut net = Net::new(5, Weather::FINE);
    net.want(SMALL);
    net.run(Duration::from_secs(2));

    net.restart(LARGE);
    net.want(LARGE);
    net.run(Duration::from_secs(2));

    net.assert_agreed();
    assert_eq!(net.nodes[SMALL].downs, 1);
    assert_eq!(net.nodes[SMALL].ups, 2);
    assert_eq!(net.nodes[SMALL].registers.len(), 2);
}

#[test]
fn news_of_a_restart_voids_the_sessions_of_the_earlier_run_only() {
    let mut net = Net::new(6, Weather::FINE);
    net.want(SMALL);
    net.run(Duration::from_secs(2));

    net.nodes[SMALL].peer_restarted(boot(LARGE, 1));
    assert!(net.nodes[SMALL].sessions.is_up(id(LARGE)));
    net.nodes[SMALL].peer_restarted(boot(LARGE, 2));
    assert!(!net.nodes[SMALL].sessions.is_up(id(LARGE)));
}

#[test]
fn a_peer_that_is_gone_leaves_no_key_and_no_deadline() {
    let mut net = Net::new(7, Weather::FINE);
    net.want(SMALL);
    net.run(Duration::from_secs(2));

    let node = &mut net.nodes[SMALL];
    let mut around = Surroundings {
        crypto: &mut node.crypto,
        indices: &mut node.indices,
        directory: &Records,
    };
    node.sessions.peer_gone(id(LARGE), &mut around);
    node.drain_ignoring_messages();

    assert!(node.plane.keys.is_empty());
    assert_eq!(node.indices.in_use(), 0);
    assert_eq!(node.sessions.poll_timeout(), None);
}

#[test]
fn a_peer_that_did_not_notice_an_absence_gets_a_session_it_can_send_in() {
    let mut net = Net::new(11, Weather::FINE);
    net.want(SMALL);
    net.run(Duration::from_secs(2));

    net.peer_gone(SMALL);
    net.peer_back(SMALL);
    net.run(Duration::from_secs(2));

    net.assert_agreed();
    assert_eq!(net.nodes[SMALL].ups, 2);
    assert_eq!(net.nodes[LARGE].downs, 0);
}

#[test]
fn workers_that_lost_their_session_get_another() {
    let mut net = Net::new(12, Weather::FINE);
    net.want(SMALL);
    net.run(Duration::from_secs(2));

    net.nodes[SMALL].plane.current = None;
    net.want(SMALL);
    net.run(Duration::from_secs(3));

    net.assert_agreed();
}

#[test]
fn nobody_answering_is_given_up() {
    let mut net = Net::new(
        8,
        Weather {
            loss: 100,
            ..Weather::FINE
        },
    );

    net.want(SMALL);
    net.run(Duration::from_secs(60));

    assert_eq!(net.nodes[SMALL].sessions.poll_timeout(), None);
    assert_eq!(net.nodes[SMALL].sessions.counters().failures, 1);
    assert_eq!(net.nodes[SMALL].indices.in_use(), 0);
}

#[test]
fn an_old_first_message_is_refused() {
    let mut net = Net::new(9, Weather::FINE);
    net.want(SMALL);
    net.run(Duration::from_secs(2));
    let recorded = net.seen.clone();

    for (to, bytes) in recorded.into_iter().filter(|(_, bytes)| bytes[0] == 1) {
        let now = net.now;
        net.nodes[to].receive(id(1 - to), &bytes, Via::Unicast, now);
        let outputs = net.nodes[to].drain();
        assert!(outputs.is_empty(), "{outputs:?}");
        assert_eq!(net.nodes[to].sessions.counters().replays, 1);
    }
    net.assert_agreed();
}

#[test]
fn a_first_message_in_anothers_name_is_refused() {
    let now = origin();
    let mut node = Node::new(SMALL, 1, 1);
    let mut crypto = SeededCrypto::new(77);
    // A member, with a key of its own, that calls itself LARGE.
    let liar = Local {
        key: key(7),
        ..local(LARGE, 1)
    };
    let (_, noise) = Initiation::begin(
        &liar,
        &key(SMALL).public(),
        1,
        SessionIndex(1),
        Cipher::ChaCha20Poly1305,
        Vec::new(),
        &mut crypto,
    )
    .expect("begins");

    node.receive(
        id(LARGE),
        &Message::Initiate(&noise).encode(),
        Via::Unicast,
        now,
    );

    assert_eq!(node.sessions.counters().failures, 1);
    assert!(node.drain().is_empty());
}

#[test]
fn strangers_cost_no_memory() {
    let mut node = Node::new(SMALL, 1, 1);

    node.receive(NodeId::new([99; 32]), &[1; 200], Via::Unicast, origin());
    node.want(NodeId::new([99; 32]), origin());

    assert!(node.sessions.peers.is_empty());
}

#[test]
fn what_is_said_about_a_session_counts_only_inside_it() {
    let mut net = Net::new(10, Weather::FINE);
    net.want(SMALL);
    // Up to the answer, not to the confirmation.
    net.run(Duration::from_millis(9));
    while net.nodes[LARGE].plane.keys.is_empty() {
        net.run(Duration::from_millis(1));
    }
    let index = *net.nodes[LARGE].plane.keys.keys().next().expect("pending");
    let now = net.now;

    net.nodes[LARGE].receive(
        id(SMALL),
        &Message::Confirm(index).encode(),
        Via::Unicast,
        now,
    );

    assert!(!net.nodes[LARGE].sessions.is_up(id(SMALL)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_the_network_does_both_ends_agree_in_the_end(seed: u64, both: bool) {
        let mut net = Net::new(seed, Weather::FOUL);
        net.want(SMALL);
        if both {
            net.want(LARGE);
        }
        net.traffic = true;
        net.run(Duration::from_secs(40));
        if seed % 3 == 0 {
            net.restart(usize::from(both));
        }
        net.run(Duration::from_secs(300));

        net.weather = Weather::FINE;
        net.run(Duration::from_secs(15));
        net.assert_agreed();
    }

    #[test]
    fn a_rekey_in_foul_weather_loses_no_overlap(seed: u64) {
        let mut net = Net::new(seed, Weather::FINE);
        net.want(SMALL);
        net.run(Duration::from_secs(2));
        net.weather = Weather::FOUL;
        net.traffic = true;

        net.run(Duration::from_secs(500));

        prop_assert_eq!(net.frames_without_key, 0);
    }

    #[test]
    fn random_messages_do_not_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        inside: bool,
    ) {
        let mut node = Node::new(SMALL, 1, 1);
        let via = if inside { Via::Session } else { Via::Unicast };
        node.receive(id(LARGE), &bytes, via, origin());
    }
}
