use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use weft_types::{Boot, BootId, Delta, MeshId, NodeId, Replica, Version};

use super::channels::row;
use super::exchange::{Exchange, GossipMessage, MAX_MESSAGE, PERIOD, SETTLE, Topic};
use super::registers::{
    ENDPOINTS, Finding, Register, RegisterDelta, RegisterSummary, Registers, SignedRegister,
    TOPOLOGY,
};
use super::sender::Outbox;
use super::{Gossiped, Piece, laws};
use crate::crypto::seeded::SeededCrypto;
use crate::crypto::{Label, Secret32, SigningKey};
use crate::virtual_time::origin;
use crate::wire::encode;
use crate::wire::envelope::Signed;

const MESH: MeshId = MeshId::new([9; 32]);

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(Secret32::new([n; 32]))
}

fn boot(counter: u64, id: u8) -> Boot {
    Boot {
        counter,
        id: BootId::new([id; 8]),
    }
}

fn signed(owner: u8, boot: Boot, sequence: u64, slot: u16, body: &[u8]) -> RegisterDelta {
    let key = key(owner);
    let register = Register {
        channel: TOPOLOGY,
        owner: key.node(),
        slot,
        version: Version { boot, sequence },
        body: body.to_vec(),
    };
    let signed = Signed::seal(&key, Label::Register, &MESH, encode(&register));
    let signed = SignedRegister::new(signed).expect("a register");
    std::iter::once(std::sync::Arc::new(signed)).collect()
}

/// Somebody who knows that nodes 0 to 3 are members.
fn observer() -> Registers {
    let mut registers = Registers::new(MESH, key(100).node(), boot(1, 1));
    registers.set_members((0..4).map(|n| key(n).node()));
    registers
}

fn findings(registers: &mut Registers) -> Vec<Finding> {
    std::iter::from_fn(|| registers.poll_finding()).collect()
}

fn body(registers: &Registers, owner: u8, slot: u16) -> Option<&[u8]> {
    let register = registers.get(TOPOLOGY, key(owner).node(), slot)?;
    Some(&register.body)
}

#[test]
fn the_later_register_counts_whatever_comes_first() {
    let now = origin();
    let (old, new) = (
        signed(0, boot(1, 1), 1, 0, b"old"),
        signed(0, boot(1, 1), 2, 0, b"new"),
    );
    let mut registers = observer();

    assert!(registers.merge(new.clone(), now).is_some());
    assert_eq!(registers.merge(old, now), None);
    assert_eq!(registers.merge(new, now), None);

    assert_eq!(body(&registers, 0, 0), Some(&b"new"[..]));
}

#[test]
fn a_restart_voids_everything_that_was_said_before_it() {
    let now = origin();
    let mut registers = observer();
    registers.merge(signed(0, boot(1, 1), 7, 0, b"a"), now);
    registers.merge(signed(0, boot(1, 1), 8, 1, b"b"), now);

    let news = registers.merge(signed(0, boot(2, 9), 1, 0, b"c"), now);

    assert!(news.is_some());
    assert_eq!(body(&registers, 0, 0), Some(&b"c"[..]));
    assert_eq!(body(&registers, 0, 1), None);
    assert_eq!(registers.boot(key(0).node()), Some(boot(2, 9)));
    assert_eq!(findings(&mut registers), []);
}

#[test]
fn a_clone_is_reported_once_and_everybody_keeps_the_same_one() {
    let now = origin();
    let pieces = [
        signed(0, boot(1, 1), 5, 0, b"one"),
        signed(0, boot(1, 2), 1, 0, b"two"),
        signed(0, boot(1, 1), 6, 1, b"three"),
    ];
    let (mut a, mut b) = (observer(), observer());
    for piece in &pieces {
        a.merge(piece.clone(), now);
    }
    for piece in pieces.iter().rev() {
        b.merge(piece.clone(), now);
    }

    let owner = key(0).node();
    assert_eq!(a.digest(), b.digest());
    assert_eq!(body(&a, 0, 0), Some(&b"two"[..]));
    assert_eq!(findings(&mut a), [Finding::Clone { owner }]);
    assert_eq!(findings(&mut b), [Finding::Clone { owner }]);
}

#[test]
fn two_texts_under_one_number_are_reported_once_and_everybody_keeps_the_same_one() {
    let now = origin();
    let (x, y) = (
        signed(0, boot(1, 1), 1, 0, b"x"),
        signed(0, boot(1, 1), 1, 0, b"y"),
    );
    let (mut a, mut b) = (observer(), observer());
    for piece in [&x, &y, &x, &y] {
        a.merge(piece.clone(), now);
    }
    for piece in [&y, &x, &y] {
        b.merge(piece.clone(), now);
    }

    assert_eq!(a.digest(), b.digest());
    assert_eq!(findings(&mut a).len(), 1);
    assert_eq!(findings(&mut b).len(), 1);
}

#[test]
fn what_is_forged_or_of_another_mesh_is_dropped_and_counted() {
    let (now, mut registers) = (origin(), observer());
    let register = Register {
        channel: TOPOLOGY,
        owner: key(0).node(),
        slot: 0,
        version: Version {
            boot: boot(1, 1),
            sequence: 1,
        },
        body: Vec::new(),
    };
    let elsewhere = MeshId::new([8; 32]);
    let forgeries = [
        Signed::seal(&key(1), Label::Register, &MESH, encode(&register)),
        Signed::seal(&key(0), Label::MemberLog, &MESH, encode(&register)),
        Signed::seal(&key(0), Label::Register, &elsewhere, encode(&register)),
    ];

    for forgery in forgeries {
        let forgery = std::sync::Arc::new(SignedRegister::new(forgery).expect("a register"));
        assert_eq!(
            registers.merge(std::iter::once(forgery).collect(), now),
            None
        );
    }

    assert_eq!(registers.rejected(), 3);
}

#[test]
fn what_no_channel_takes_is_not_even_read() {
    let version = Version {
        boot: boot(1, 1),
        sequence: 1,
    };
    let register = |channel, slot, len| {
        let register = Register {
            channel,
            owner: key(0).node(),
            slot,
            version,
            body: vec![0; len],
        };
        Register::decode(&encode(&register)).is_ok()
    };

    for channel in 0..=u8::MAX {
        let Some(limit) = row(channel) else {
            assert!(!register(channel, 0, 0));
            continue;
        };
        assert!(register(channel, limit.slots - 1, limit.bytes));
        assert!(!register(channel, limit.slots, 0));
        assert!(!register(channel, 0, limit.bytes + 1));
    }
    let whole: usize = (0..=u8::MAX)
        .filter_map(row)
        .map(|limit| usize::from(limit.slots) * limit.bytes)
        .sum();
    assert!(whole < 6 << 20, "one owner fills {whole} bytes");
}

#[test]
fn the_largest_register_that_a_channel_takes_can_be_signed() {
    let mut registers = Registers::new(MESH, key(0).node(), boot(u64::MAX, 0xff));
    let limit = row(ENDPOINTS).expect("known");

    assert!(
        registers
            .write(ENDPOINTS, 15, vec![0; limit.bytes], &key(0))
            .is_some()
    );
    let bytes = registers.snapshot().encode();
    assert_eq!(
        RegisterDelta::decode(&bytes)
            .expect("decodes")
            .iter()
            .count(),
        1
    );
}

#[test]
fn what_waits_for_its_owners_admission_is_news_then() {
    let (now, mut registers) = (origin(), observer());
    let early = signed(7, boot(1, 1), 1, 0, b"early");
    assert_eq!(registers.merge(early.clone(), now), None);
    let before = registers.digest();

    let news = registers.set_members((0..8).map(|n| key(n).node()));

    assert_eq!(news, Some(early));
    assert_ne!(registers.digest(), before);
}

#[test]
fn the_registers_of_who_is_no_member_any_more_are_gone() {
    let (now, mut registers) = (origin(), observer());
    let before = registers.digest();
    registers.merge(signed(3, boot(1, 1), 1, 0, b"x"), now);

    registers.set_members((0..3).map(|n| key(n).node()));

    assert_eq!(body(&registers, 3, 0), None);
    assert_eq!(registers.digest(), before);
}

#[test]
fn strangers_fill_no_more_than_the_bound() {
    let (now, mut registers) = (origin(), Registers::new(MESH, key(0).node(), boot(1, 1)));
    for slot in 0..8 {
        for owner in 10..210 {
            registers.merge(signed(owner, boot(1, 1), 1, slot, &[0; 1000]), now);
        }
    }

    let news = registers.set_members((10..210).map(|n| key(n).node()));

    let waited = news.map_or(0, |news| news.iter().count());
    assert!((1..=512).contains(&waited), "{waited} waited");
}

#[test]
fn writing_the_same_again_is_no_news() {
    let mut registers = Registers::new(MESH, key(0).node(), boot(1, 1));

    assert!(registers.write(TOPOLOGY, 0, vec![1], &key(0)).is_some());
    assert_eq!(registers.write(TOPOLOGY, 0, vec![1], &key(0)), None);
    assert!(registers.write(TOPOLOGY, 0, vec![2], &key(0)).is_some());
    assert!(registers.write(TOPOLOGY, 0, vec![1], &key(0)).is_some());
}

#[test]
fn a_run_that_is_named_again_counts_on() {
    let mut registers = Registers::new(MESH, key(0).node(), boot(1, 1));
    for text in ["first", "second"] {
        registers.write(TOPOLOGY, 0, text.into(), &key(0));
    }

    registers.set_boot(boot(1, 1));

    assert!(
        registers
            .write(TOPOLOGY, 0, b"third".to_vec(), &key(0))
            .is_some()
    );
}

#[test]
fn a_node_that_meets_a_later_run_of_itself_learns_of_it_and_steps_past_it() {
    let now = origin();
    let mut registers = Registers::new(MESH, key(0).node(), boot(3, 1));
    registers.write(TOPOLOGY, 0, vec![1], &key(0));

    registers.merge(signed(0, boot(8, 1), 5, 0, b"later"), now);

    assert_eq!(
        findings(&mut registers),
        [Finding::Superseded { by: boot(8, 1) }]
    );
    assert_eq!(registers.write(TOPOLOGY, 1, vec![1], &key(0)), None);

    registers.set_boot(boot(9, 2));

    assert!(registers.write(TOPOLOGY, 1, vec![1], &key(0)).is_some());
    assert_eq!(body(&registers, 0, 0), None);
}

#[test]
fn what_somebody_lacks_is_found_by_its_summary() {
    let now = origin();
    let (mut a, mut b) = (observer(), observer());
    for piece in [
        signed(0, boot(1, 1), 1, 0, b"both"),
        signed(1, boot(1, 1), 1, 0, b"older"),
        signed(2, boot(1, 1), 9, 0, b"older run"),
    ] {
        a.merge(piece.clone(), now);
        b.merge(piece, now);
    }
    let news = [
        signed(1, boot(1, 1), 2, 0, b"later"),
        signed(2, boot(2, 1), 1, 0, b"later run"),
        signed(3, boot(1, 1), 1, 0, b"unheard"),
    ];
    for piece in &news {
        a.merge(piece.clone(), now);
    }

    let missing = a.missing(&b.summary()).expect("a summary");

    assert_eq!(missing.iter().count(), 3);
    assert_eq!(
        b.missing(&a.summary()).expect("a summary").iter().count(),
        0
    );
    assert!(b.merge(missing, now).is_some());
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn no_prefix_of_what_travels_is_read() {
    let (now, mut registers) = (origin(), observer());
    registers.merge(signed(0, boot(1, 1), 1, 0, b"x"), now);
    registers.merge(signed(1, boot(1, 1), 1, 0, b"y"), now);
    let (delta, summary) = (registers.snapshot().encode(), registers.summary());

    assert_eq!(
        RegisterDelta::decode(&delta).expect("decodes"),
        registers.snapshot()
    );
    assert!(RegisterSummary::decode(&summary).is_ok());
    assert!((0..delta.len()).all(|len| RegisterDelta::decode(&delta[..len]).is_err()));
    assert!((0..summary.len()).all(|len| RegisterSummary::decode(&summary[..len]).is_err()));
}

/// One piece of the story of a few nodes that restart, repeat themselves, are cloned and lie.
fn piece() -> impl Strategy<Value = RegisterDelta> {
    let one = (0..3_u8, 1..4_u64, 0..2_u8, 1..4_u64, 0..3_u16, 0..2_u8).prop_map(
        |(owner, run, id, number, slot, text)| signed(owner, boot(run, id), number, slot, &[text]),
    );
    prop::collection::vec(one, 1..4).prop_map(|pieces| {
        let mut whole = RegisterDelta::default();
        pieces.into_iter().for_each(|piece| whole.absorb(piece));
        whole
    })
}

fn story() -> impl Strategy<Value = (Vec<RegisterDelta>, Vec<RegisterDelta>)> {
    prop::collection::vec(piece(), 1..12).prop_flat_map(|story| {
        // Another order, with some of it told twice.
        let again = prop::sample::subsequence(story.clone(), 0..=story.len());
        let other = again.prop_map({
            let story = story.clone();
            move |again| [story.clone(), again].concat()
        });
        (Just(story), other.prop_shuffle())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn order_and_repetition_do_not_matter((story, other) in story()) {
        let now = origin();
        let (mut a, mut b) = (observer(), observer());
        for piece in story {
            if let Some(news) = a.merge(piece, now) {
                prop_assert_eq!(a.merge(news, now), None, "news is news once");
            }
        }
        other.into_iter().for_each(|piece| { b.merge(piece, now); });

        prop_assert_eq!(a.snapshot(), b.snapshot());
        prop_assert_eq!(a.digest(), b.digest());
        prop_assert_eq!(a.merge(b.snapshot(), now), None);
        prop_assert_eq!(a.missing(&b.summary()).expect("a summary").iter().count(), 0);
    }

    #[test]
    fn the_laws_of_a_replica_hold(story in prop::collection::vec(piece(), 3..9)) {
        let mut pieces = [(); 3].map(|()| RegisterDelta::default());
        for (i, piece) in story.into_iter().enumerate() {
            pieces[i % 3].absorb(piece);
        }

        laws::hold(&observer(), pieces, origin())?;
    }

    #[test]
    fn merging_snapshots_is_commutative_and_associative(
        story in prop::collection::vec(piece(), 3..9),
    ) {
        let now = origin();
        let mut parts = [observer(), observer(), observer()];
        for (i, piece) in story.into_iter().enumerate() {
            parts[i % 3].merge(piece, now);
        }
        let join = |a: &Registers, b: &Registers| {
            let mut joined = a.clone();
            joined.merge(b.snapshot(), now);
            joined
        };
        let [a, b, c] = &parts;

        prop_assert_eq!(join(a, b).snapshot(), join(b, a).snapshot());
        prop_assert_eq!(
            join(&join(a, b), c).snapshot(),
            join(a, &join(b, c)).snapshot()
        );
        prop_assert_eq!(join(a, a).snapshot(), a.snapshot());
    }

    #[test]
    fn a_split_loses_nothing_and_keeps_the_bound(
        story in prop::collection::vec(piece(), 1..12), bytes in 0..2000_usize,
    ) {
        let mut whole = RegisterDelta::default();
        story.into_iter().for_each(|piece| whole.absorb(piece));
        let (expected, mut joined) = (whole.clone(), RegisterDelta::default());
        while !whole.is_empty() {
            let part = whole.split(bytes);
            prop_assert!(part.iter().count() == 1 || part.encode().len() <= bytes);
            joined.absorb(part);
        }

        prop_assert_eq!(joined, expected);
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = RegisterDelta::decode(&bytes);
        let _ = RegisterSummary::decode(&bytes);
        let _ = Register::decode(&bytes);
        let _ = SignedRegister::decode(&bytes);
        let _ = super::exchange::DigestMessage::decode(&bytes);
        let _ = super::exchange::SummaryMessage::decode(&bytes);
        let _ = super::exchange::DeltaMessage::decode(&bytes);
    }
}

#[test]
fn a_slow_link_is_owed_the_state_and_not_its_history() {
    let mut outbox = Outbox::default();
    let root = Some(key(0).node());
    for number in 1..=500 {
        outbox.push(root, signed(0, boot(1, 1), number, 0, b"again"));
    }

    let (from, part) = outbox.poll(1000).expect("owed");

    assert_eq!(from, root);
    assert_eq!(part.iter().count(), 1);
    assert!(outbox.is_empty());
}

#[test]
fn a_liar_who_names_a_new_root_each_time_fills_no_queue() {
    let mut outbox = Outbox::default();
    for number in 1..=1000_u64 {
        let mut root = [0; 32];
        root[..8].copy_from_slice(&number.to_be_bytes());
        let news = signed(0, boot(1, 1), number, 0, b"again");
        outbox.push(Some(NodeId::new(root)), news);
    }

    let owed: Vec<_> = std::iter::from_fn(|| outbox.poll(MAX_MESSAGE)).collect();

    assert_eq!(owed.len(), 65);
    let last = |(_, part): &(_, RegisterDelta)| {
        part.iter()
            .any(|kept| kept.register().version.sequence == 1000)
    };
    assert!(owed.iter().any(last), "the last one is owed");
}

#[test]
fn roots_take_turns() {
    let mut outbox = Outbox::default();
    let roots: Vec<NodeId> = BTreeSet::from([key(0).node(), key(1).node()])
        .into_iter()
        .collect();
    for &root in &roots {
        for slot in 0..3 {
            outbox.push(Some(root), signed(0, boot(1, 1), 1, slot, b"x"));
        }
    }

    let order: Vec<Option<NodeId>> = std::iter::from_fn(|| outbox.poll(1))
        .map(|(root, _)| root)
        .collect();

    let (a, b) = (Some(roots[0]), Some(roots[1]));
    assert_eq!(order, [a, b, a, b, a, b]);
}

/// Two ends of a link and what flies between them at once, in order.
struct Pair {
    now: Instant,
    crypto: SeededCrypto,
    ends: [(Registers, Exchange<RegisterDelta>); 2],
    messages: usize,
    largest: usize,
}

impl Pair {
    fn new(left: Registers, right: Registers) -> Self {
        let now = origin();
        let nodes = [key(0).node(), key(1).node()];
        let exchange = |i: usize| Exchange::new(Topic::Registers, nodes[i], nodes[1 - i], now);
        Self {
            now,
            crypto: SeededCrypto::new(5),
            ends: [(left, exchange(0)), (right, exchange(1))],
            messages: 0,
            largest: 0,
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            while (0..2).any(|from| self.pass(from)) {}
            let (at, _) = self
                .ends
                .iter()
                .map(|end| end.1.poll_timeout())
                .min()
                .expect("two");
            if at > end {
                break;
            }
            self.now = at;
            for (_, exchange) in &mut self.ends {
                exchange.handle_timeout(&mut self.crypto, at);
                assert!(
                    exchange.poll_timeout().0 > at,
                    "a wake-up leaves a deadline behind"
                );
            }
        }
        self.now = end;
    }

    fn pass(&mut self, from: usize) -> bool {
        let (registers, exchange) = &mut self.ends[from];
        let Some(message) = exchange.poll_message(registers) else {
            return false;
        };
        self.messages += 1;
        let (registers, exchange) = &mut self.ends[1 - from];
        match message {
            GossipMessage::Delta(delta) => {
                self.largest = self.largest.max(delta.encode().len());
                let delta = RegisterDelta::decode(&delta.delta).expect("a delta");
                if registers.merge(delta, self.now).is_some() {
                    exchange.note_news(self.now);
                }
            }
            GossipMessage::Digest(digest) => {
                exchange.handle_digest(&digest, registers, &mut self.crypto, self.now);
            }
            GossipMessage::Summary(summary) => {
                self.largest = self.largest.max(summary.encode().len());
                exchange
                    .handle_summary(&summary, registers)
                    .expect("a summary");
            }
        }
        true
    }

    fn is_equal(&self) -> bool {
        self.ends[0].0.digest() == self.ends[1].0.digest()
    }
}

#[test]
fn two_ends_are_equal_at_once_when_a_link_comes_up_whoever_knew_what() {
    let now = origin();
    let (mut left, mut right) = (observer(), observer());
    left.merge(signed(0, boot(1, 1), 1, 0, b"left"), now);
    right.merge(signed(1, boot(1, 1), 1, 0, b"right"), now);
    let mut pair = Pair::new(left, right);

    pair.run(Duration::ZERO);

    assert!(pair.is_equal());
    assert_eq!(pair.messages, 5, "a digest, two summaries, two deltas");
}

#[test]
fn a_quiet_link_says_one_digest_in_30_seconds() {
    let mut pair = Pair::new(observer(), observer());
    pair.run(PERIOD);
    pair.messages = 0;

    pair.run(20 * PERIOD);

    assert!(
        (15..=20).contains(&pair.messages),
        "{} messages",
        pair.messages
    );
}

#[test]
fn what_the_tree_lost_is_found_within_a_second() {
    let mut pair = Pair::new(observer(), observer());
    pair.run(PERIOD);
    for end in 0..2 {
        let now = pair.now;
        let owner = u8::try_from(end).expect("small");
        let news = pair.ends[end]
            .0
            .merge(signed(owner, boot(1, 1), 1, 0, b"news"), now);
        assert!(news.is_some());
        pair.ends[end].1.note_news(now);

        pair.run(2 * SETTLE);

        assert!(pair.is_equal());
    }
}

#[test]
fn news_passes_as_soon_as_there_is_room() {
    let mut pair = Pair::new(observer(), observer());
    pair.run(PERIOD);
    let (now, news) = (pair.now, signed(0, boot(1, 1), 1, 0, b"news"));
    pair.ends[0].0.merge(news.clone(), now);
    pair.ends[0].1.push(key(0).node(), news, now);

    pair.run(Duration::ZERO);

    assert!(pair.is_equal());
    assert!(pair.ends.iter().all(|end| end.1.is_idle()));
}

#[test]
fn ends_that_cannot_agree_do_not_talk_about_it_all_day() {
    let now = origin();
    let mut left = observer();
    left.merge(signed(3, boot(1, 1), 1, 0, b"x"), now);
    let mut right = Registers::new(MESH, key(100).node(), boot(1, 1));
    right.set_members([key(0).node()]);
    let mut pair = Pair::new(left, right);
    pair.run(Duration::from_secs(300));
    pair.messages = 0;

    pair.run(Duration::from_secs(3600));

    assert!(!pair.is_equal());
    assert!(
        pair.messages < 1500,
        "{} messages in an hour",
        pair.messages
    );
}

#[test]
fn the_fullest_state_travels_in_messages_within_the_bound() {
    let owners = 4;
    let mut left = observer();
    for owner in 0..owners {
        let mut own = Registers::new(MESH, key(owner).node(), boot(u64::MAX, 0xff));
        for channel in 0..=u8::MAX {
            let Some(limit) = row(channel) else {
                continue;
            };
            for slot in 0..limit.slots {
                own.write(channel, slot, vec![0; limit.bytes], &key(owner));
            }
        }
        left.merge(own.snapshot(), origin());
    }
    let summary = left.summary().len();
    let mut pair = Pair::new(left, observer());

    pair.run(Duration::ZERO);

    assert!(pair.is_equal());
    assert!(pair.largest <= MAX_MESSAGE);
    assert!(
        summary / usize::from(owners) * 24 <= MAX_MESSAGE,
        "24 owners have a summary"
    );
}
