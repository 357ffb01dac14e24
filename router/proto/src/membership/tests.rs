//! Histories of members, liars and strangers, delivered in every order.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use weft_types::Nickname;

use super::*;
use crate::crypto::seeded::SeededCrypto;
use crate::gossip::laws;
use crate::virtual_time::origin;

const MESH: MeshId = MeshId::new([9; 32]);

fn keys(count: u64) -> Vec<NodeKeys> {
    (0..count)
        .map(|seed| NodeKeys::generate(&mut SeededCrypto::new(seed)))
        .collect()
}

fn admit(keys: &NodeKeys, role: Role) -> Record {
    Record::Admit(Admit {
        node: keys.node(),
        noise_key: keys.noise().public(),
        nickname: Nickname::new(&format!("n-{}", keys.node().short())).unwrap(),
        addresses: vec!["10.32.0.1/12".parse().unwrap()],
        role,
        token: None,
    })
}

fn grant(id: u8) -> Record {
    Record::Token(TokenGrant {
        id: TokenId::new([id; 16]),
        reusable: true,
        ttl: Duration::from_secs(900),
    })
}

/// A mesh of its creator alone, who has admitted itself.
fn created(creator: &NodeKeys) -> Membership {
    let mut membership = Membership::new(MESH, creator.node());
    membership
        .append(admit(creator, Role::Admin), creator)
        .expect("appends");
    membership
}

/// Signs any record at any place, as a liar might.
fn raw(keys: &NodeKeys, number: u64, previous: [u8; 32], record: Record) -> Signed {
    Entry {
        signer: keys.node(),
        number,
        previous,
        record,
    }
    .seal(keys.signing(), &MESH)
    .expect("is short")
}

fn merge(membership: &mut Membership, records: &[Signed]) -> Option<MembershipDelta> {
    membership.merge(MembershipDelta::new(records.to_vec()), origin())
}

#[test]
fn the_creator_is_a_member_once_it_has_admitted_itself() {
    let keys = keys(1);
    assert_eq!(Membership::new(MESH, keys[0].node()).members().len(), 0);

    let membership = created(&keys[0]);

    let member = membership.member(keys[0].node()).expect("is a member");
    assert_eq!(
        (member.role, member.admitted_by),
        (Role::Admin, keys[0].node())
    );
}

#[test]
fn an_introducer_admits_and_a_member_does_not() {
    let keys = keys(4);
    let mut membership = created(&keys[0]);

    membership
        .append(admit(&keys[1], Role::Introducer), &keys[0])
        .expect("appends");
    membership
        .append(admit(&keys[2], Role::Member), &keys[1])
        .expect("appends");
    membership
        .append(admit(&keys[3], Role::Member), &keys[2])
        .expect("appends");

    assert_eq!(membership.standing(keys[2].node()), Standing::Member);
    assert_eq!(membership.standing(keys[3].node()), Standing::Unknown);
}

#[test]
fn nobody_gives_a_role_above_their_own() {
    let keys = keys(3);
    let mut membership = created(&keys[0]);

    membership
        .append(admit(&keys[1], Role::Introducer), &keys[0])
        .expect("appends");
    membership
        .append(admit(&keys[2], Role::Admin), &keys[1])
        .expect("appends");
    membership
        .append(admit(&keys[1], Role::Admin), &keys[1])
        .expect("appends");

    assert_eq!(membership.standing(keys[2].node()), Standing::Unknown);
    assert_eq!(
        membership.member(keys[1].node()).expect("is a member").role,
        Role::Introducer
    );
}

#[test]
fn nobody_admitted_is_nobody_who_appends() {
    let keys = keys(2);

    assert_eq!(
        created(&keys[0]).append(Record::Leave, &keys[1]),
        Err(AppendError::NotAMember)
    );
}

#[test]
fn who_left_stays_away_and_what_it_did_before_stands() {
    let keys = keys(4);
    let mut membership = created(&keys[0]);
    membership
        .append(admit(&keys[1], Role::Introducer), &keys[0])
        .expect("appends");
    membership
        .append(admit(&keys[2], Role::Member), &keys[1])
        .expect("appends");

    membership.append(Record::Leave, &keys[1]).expect("appends");
    membership
        .append(admit(&keys[3], Role::Member), &keys[1])
        .expect("appends");
    membership
        .append(admit(&keys[1], Role::Introducer), &keys[0])
        .expect("appends");

    assert_eq!(
        membership.standing(keys[1].node()),
        Standing::Gone(Gone::Left)
    );
    assert_eq!(membership.standing(keys[2].node()), Standing::Member);
    assert_eq!(membership.standing(keys[3].node()), Standing::Unknown);
    assert_eq!(
        membership.left().collect::<Vec<_>>(),
        [(keys[1].node(), Gone::Left)]
    );
}

#[test]
fn a_revocation_leaves_what_its_victim_did_up_to_the_number_it_names() {
    let keys = keys(4);
    let mut membership = created(&keys[0]);
    membership
        .append(admit(&keys[1], Role::Introducer), &keys[0])
        .expect("appends");
    membership
        .append(admit(&keys[2], Role::Member), &keys[1])
        .expect("appends");
    membership
        .append(admit(&keys[3], Role::Member), &keys[1])
        .expect("appends");

    let revoke = Revoke {
        victim: keys[1].node(),
        last_valid: 1,
    };
    membership
        .append(Record::Revoke(revoke), &keys[0])
        .expect("appends");

    assert_eq!(
        membership.standing(keys[1].node()),
        Standing::Gone(Gone::Revoked)
    );
    assert_eq!(membership.standing(keys[2].node()), Standing::Member);
    assert_eq!(membership.standing(keys[3].node()), Standing::Unknown);
}

#[test]
fn a_token_is_voided_by_its_issuer_or_an_admin_and_by_nobody_else() {
    let keys = keys(3);
    let mut membership = created(&keys[0]);
    membership
        .append(admit(&keys[1], Role::Introducer), &keys[0])
        .expect("appends");
    membership
        .append(admit(&keys[2], Role::Introducer), &keys[0])
        .expect("appends");
    membership.append(grant(1), &keys[1]).expect("appends");
    membership.append(grant(2), &keys[1]).expect("appends");
    membership.append(grant(3), &keys[1]).expect("appends");

    membership
        .append(Record::Void(TokenId::new([1; 16])), &keys[1])
        .expect("appends");
    membership
        .append(Record::Void(TokenId::new([2; 16])), &keys[0])
        .expect("appends");
    membership
        .append(Record::Void(TokenId::new([3; 16])), &keys[2])
        .expect("appends");
    membership.append(grant(3), &keys[2]).expect("appends");

    let voided = [1, 2, 3].map(|id| {
        membership
            .token(TokenId::new([id; 16]))
            .expect("is known")
            .voided
    });
    assert_eq!(voided, [true, true, false]);
    assert_eq!(membership.tokens().count(), 3);
}

#[test]
fn a_record_waits_for_its_predecessor_and_its_signer() {
    let keys = keys(2);
    let mut membership = created(&keys[0]);
    membership
        .append(admit(&keys[1], Role::Introducer), &keys[0])
        .expect("appends");
    membership.append(grant(1), &keys[1]).expect("appends");
    membership.append(grant(2), &keys[1]).expect("appends");
    let records = membership.snapshot().into_records();
    let mut other = Membership::new(MESH, keys[0].node());

    assert_eq!(merge(&mut other, &records[3..]), None);
    assert_eq!(merge(&mut other, &records[2..3]), None);
    assert_eq!(merge(&mut other, &records[1..2]), None);
    let news = merge(&mut other, &records[..1]).expect("all of it is news");

    assert_eq!(news.records().len(), 4);
    assert_eq!(other.digest(), membership.digest());
}

#[test]
fn two_records_with_one_number_void_the_log_from_there() {
    let keys = keys(4);
    let mut membership = created(&keys[0]);
    membership
        .append(admit(&keys[1], Role::Introducer), &keys[0])
        .expect("appends");
    let first = membership
        .append(admit(&keys[2], Role::Member), &keys[1])
        .expect("appends");
    membership
        .append(admit(&keys[3], Role::Member), &keys[1])
        .expect("appends");
    let lie = raw(&keys[1], 2, first.hash(), grant(1));

    let news = merge(&mut membership, std::slice::from_ref(&lie)).expect("is news");

    assert_eq!(news.records(), [lie]);
    assert_eq!(
        membership.forks().collect::<Vec<_>>(),
        [(keys[1].node(), 2)]
    );
    assert_eq!(membership.standing(keys[2].node()), Standing::Member);
    assert_eq!(membership.standing(keys[3].node()), Standing::Unknown);
    assert_eq!(
        membership.append(Record::Leave, &keys[1]),
        Err(AppendError::Forked)
    );
}

#[test]
fn the_proof_of_a_lie_travels() {
    let keys = keys(2);
    let mut honest = created(&keys[0]);
    honest
        .append(admit(&keys[1], Role::Introducer), &keys[0])
        .expect("appends");
    let mut other = honest.clone();
    honest.append(grant(1), &keys[1]).expect("appends");
    other.append(grant(2), &keys[1]).expect("appends");
    other.append(grant(3), &keys[1]).expect("appends");

    exchange(&mut honest, &mut other);

    assert_eq!(honest.forks().collect::<Vec<_>>(), [(keys[1].node(), 1)]);
    assert_eq!(honest.digest(), other.digest());
}

#[test]
fn a_copy_that_was_restored_does_not_fork_its_log() {
    let keys = keys(2);
    let mut membership = created(&keys[0]);
    membership
        .append(admit(&keys[1], Role::Introducer), &keys[0])
        .expect("appends");
    let mut restored = membership.clone();
    membership.append(grant(1), &keys[1]).expect("appends");
    let second = membership.append(grant(2), &keys[1]).expect("appends");

    merge(&mut restored, &[second]);

    assert_eq!(
        restored.append(grant(3), &keys[1]),
        Err(AppendError::Behind)
    );
}

#[test]
fn forged_and_foreign_records_are_dropped_and_counted() {
    let keys = keys(2);
    let mut membership = created(&keys[0]);
    let digest = membership.digest();
    let foreign = Entry {
        signer: keys[0].node(),
        number: 2,
        previous: [0; 32],
        record: Record::Leave,
    }
    .seal(keys[0].signing(), &MeshId::new([8; 32]))
    .expect("is short");
    let forged = Entry {
        signer: keys[0].node(),
        number: 2,
        previous: [0; 32],
        record: Record::Leave,
    }
    .seal(keys[1].signing(), &MESH)
    .expect("is short");

    assert_eq!(merge(&mut membership, &[foreign, forged]), None);

    assert_eq!(membership.rejected(), 2);
    assert_eq!(membership.digest(), digest);
}

#[test]
fn what_strangers_sign_is_bounded() {
    let mut crypto = SeededCrypto::new(77);
    let creator = keys(1);
    let mut membership = created(&creator[0]);
    let stranger = NodeKeys::generate(&mut crypto);
    let junk: Vec<Signed> = (1..1000)
        .map(|number| raw(&stranger, number, [0; 32], Record::Leave))
        .collect();

    assert_eq!(merge(&mut membership, &junk), None);

    assert_eq!(membership.held.len(), MAX_HELD);
    assert_eq!(membership.members().len(), 1);
}

#[test]
fn a_stores_keys_are_as_many_as_its_records() {
    let keys = keys(1);
    let mut membership = created(&keys[0]);
    let lie = raw(&keys[0], 1, *MESH.as_bytes(), Record::Leave);
    merge(&mut membership, &[lie]);

    let snapshot = membership.snapshot();
    let places: BTreeSet<_> = snapshot
        .records()
        .iter()
        .map(Membership::store_key)
        .collect();

    assert_eq!((snapshot.records().len(), places.len()), (2, 2));
}

/// What one signer does next in a made-up history.
#[derive(Clone, Debug)]
enum Deed {
    Admit(Index, Role),
    Grant(u8),
    Leave,
    Lie(Index, u8),
    Revoke(Index, u64),
    Unknown,
    Void(u8),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => (any::<Index>(), prop_oneof![Just(Role::Member), Just(Role::Introducer), Just(Role::Admin)])
            .prop_map(|(who, role)| Deed::Admit(who, role)),
        2 => (0..3u8).prop_map(Deed::Grant),
        1 => Just(Deed::Leave),
        1 => (any::<Index>(), 0..9u8).prop_map(|(number, id)| Deed::Lie(number, id)),
        1 => (any::<Index>(), 0..4u64).prop_map(|(who, last)| Deed::Revoke(who, last)),
        1 => Just(Deed::Unknown),
        1 => (0..3u8).prop_map(Deed::Void),
    ]
}

/// Six nodes, the first of which creates the mesh; what they sign, liars' second versions included.
fn history() -> impl Strategy<Value = Vec<Signed>> {
    proptest::collection::vec((0..6usize, deed()), 1..24).prop_map(|deeds| {
        let keys = keys(6);
        let mut chains = vec![vec![*MESH.as_bytes()]; keys.len()];
        let mut records = Vec::new();
        let mut sign = |who: usize, at: usize, extend: bool, record| {
            let signed = raw(&keys[who], at as u64 + 1, chains[who][at], record);
            if extend {
                chains[who].push(signed.hash());
            }
            records.push(signed);
            chains[who].len() - 1
        };
        let mut lengths = [
            sign(0, 0, true, admit(&keys[0], Role::Admin)),
            0,
            0,
            0,
            0,
            0,
        ];
        for (who, deed) in deeds {
            let (at, extend, record) = match deed {
                Deed::Admit(whom, role) => (lengths[who], true, admit(whom.get(&keys), role)),
                Deed::Grant(id) => (lengths[who], true, grant(id)),
                Deed::Leave => (lengths[who], true, Record::Leave),
                Deed::Lie(_, id) if lengths[who] == 0 => (0, true, grant(id)),
                Deed::Lie(at, id) => (at.index(lengths[who]), false, grant(100 + id)),
                Deed::Revoke(whom, last_valid) => {
                    let victim = whom.get(&keys).node();
                    (
                        lengths[who],
                        true,
                        Record::Revoke(Revoke { victim, last_valid }),
                    )
                }
                Deed::Unknown => (
                    lengths[who],
                    true,
                    Record::Unknown {
                        kind: 99,
                        body: vec![1],
                    },
                ),
                Deed::Void(id) => (lengths[who], true, Record::Void(TokenId::new([id; 16]))),
            };
            lengths[who] = sign(who, at, extend, record);
        }
        records
    })
}

fn empty() -> Membership {
    Membership::new(MESH, keys(1)[0].node())
}

/// Rounds of anti-entropy until the digests agree. Several, since a log may make known whose records were not wanted
/// before, and a fork may show an earlier one.
fn exchange(a: &mut Membership, b: &mut Membership) {
    for _ in 0..12 {
        if a.digest() == b.digest() {
            break;
        }
        let (to_a, to_b) = (b.missing(&a.summary()), a.missing(&b.summary()));
        a.merge(to_a, origin());
        b.merge(to_b, origin());
    }
}

fn assert_same(a: &Membership, b: &Membership) -> Result<(), TestCaseError> {
    prop_assert_eq!(a.snapshot(), b.snapshot());
    prop_assert_eq!(a.digest(), b.digest());
    prop_assert_eq!(&a.view, &b.view);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn order_and_repetition_of_deliveries_do_not_matter(
        records in history(),
        order in proptest::collection::vec(any::<Index>(), 0..40),
    ) {
        let mut at_once = empty();
        merge(&mut at_once, &records);

        let mut piecemeal = empty();
        let shuffled: Vec<Signed> = order.iter().map(|index| index.get(&records).clone()).collect();
        for signed in shuffled.iter().chain(records.iter().rev()) {
            merge(&mut piecemeal, std::slice::from_ref(signed));
        }

        assert_same(&at_once, &piecemeal)?;
    }

    #[test]
    fn the_laws_of_a_replica_hold(records in history(), cuts in any::<[Index; 4]>()) {
        let mut cuts = cuts.map(|cut| cut.index(records.len()));
        cuts.sort_unstable();
        // The second piece repeats some of the others'.
        let pieces = [&records[..cuts[1]], &records[cuts[0]..cuts[3]], &records[cuts[2]..]];

        laws::hold(&empty(), pieces.map(|part| MembershipDelta::new(part.to_vec())), origin())?;
    }

    #[test]
    fn two_that_exchange_what_is_missing_agree(records in history(), sides in any::<[u64; 2]>()) {
        let part = |side: u64| -> Vec<Signed> {
            let chosen = |i: usize| side >> (i % 64) & 1 == 1;
            records.iter().enumerate().filter(|(i, _)| chosen(*i)).map(|(_, signed)| signed.clone()).collect()
        };
        let (mut a, mut b) = (empty(), empty());
        merge(&mut a, &part(sides[0]));
        merge(&mut b, &part(sides[1]));

        exchange(&mut a, &mut b);

        prop_assert_eq!(a.digest(), b.digest());
        prop_assert_eq!(&a.view, &b.view);
    }
}
