use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;
use weft_types::{MacAddr, NodeId, Segment};

use super::*;

fn node(n: u8) -> NodeId {
    NodeId::new([n; 32])
}

fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, n])
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

fn attached() -> EndpointKind {
    EndpointKind::Attached {
        port: String::new(),
    }
}

fn largest() -> Option<Arc<Metadata>> {
    let label = |n| (format!("key-of-label-{n:03}"), "v".repeat(16));
    let metadata = Metadata::new(
        Some("n".repeat(MAX_NAME)),
        (0..MAX_LABELS).map(label).collect(),
    );
    metadata.expect("as much as there may be").shared()
}

#[test]
fn a_bucket_is_read_as_it_was_written() {
    let mut local = LocalEndpoints::new(node(1));
    let addresses = [net("10.32.1.1/12"), net("fd00::1/64")];
    let slot = local
        .attach(mac(1), &addresses, "wv1".to_owned(), largest())
        .expect("fits");

    let read = decode(node(1), slot, &local.body(slot)).expect("a bucket");

    let there = local.get(mac(1)).expect("what was attached");
    assert_eq!(
        read,
        [Endpoint {
            kind: attached(),
            ..there.clone()
        }]
    );
}

#[test]
fn what_is_detached_is_in_no_bucket() {
    let mut local = LocalEndpoints::new(node(1));
    let slot = local
        .attach(mac(1), &[], "wv1".to_owned(), None)
        .expect("fits");

    assert_eq!(local.detach(mac(1)), Some(slot));

    assert_eq!(
        decode(node(1), slot, &local.body(slot)).expect("a bucket"),
        []
    );
    assert!(local.is_empty(slot) && local.buckets().next().is_none());
    assert_eq!(local.detach(mac(1)), None);
}

#[test]
fn the_host_itself_cannot_be_detached() {
    let mut local = LocalEndpoints::new(node(1));
    local.host(mac(1), &[net("10.32.0.1/12")]).expect("fits");

    assert_eq!(local.detach(mac(1)), None);
    assert!(local.get(mac(1)).is_some());
}

#[test]
fn addresses_of_nobody_are_refused() {
    let mut local = LocalEndpoints::new(node(1));

    for address in [
        "0.0.0.0/0",
        "224.0.0.1/4",
        "127.0.0.1/8",
        "255.255.255.255/32",
        "::1/128",
        "ff02::1/8",
    ] {
        assert_eq!(
            local.attach(mac(1), &[net(address)], String::new(), None),
            Err(EndpointError::Unfit)
        );
    }
    assert_eq!(
        local.attach(MacAddr::BROADCAST, &[], String::new(), None),
        Err(EndpointError::Unfit)
    );
    assert_eq!(
        local.attach(mac(1), &[net("10.0.0.1/8"); 9], String::new(), None),
        Err(EndpointError::TooManyAddresses)
    );
}

#[test]
fn every_prefix_of_a_bucket_is_refused() {
    let mut local = LocalEndpoints::new(node(1));
    let slot = local
        .attach(mac(1), &[net("10.32.1.1/12")], "wv1".to_owned(), largest())
        .expect("fits");
    let body = local.body(slot);

    assert!((0..body.len()).all(|cut| decode(node(1), slot, &body[..cut]).is_err()));
}

/// An endpoint in bucket 0 with a name and labels as a stranger writes them.
fn announced(name: &str, labels: &[[&str; 2]]) -> Vec<u8> {
    let mut e = minicbor::Encoder::new(Vec::new());
    let start = e.map(1).and_then(|e| e.u8(0)?.array(1)?.map(6));
    start
        .and_then(|e| e.u8(0)?.u8(0)?.u8(1)?.bytes(mac(1).as_bytes()))
        .unwrap();
    e.u8(2).and_then(|e| e.array(0)?.u8(3)?.u8(1)).unwrap();
    e.u8(4).and_then(|e| e.str(name)).unwrap();
    e.u8(5).and_then(|e| e.array(labels.len() as u64)).unwrap();
    for [key, value] in labels {
        e.array(2).and_then(|e| e.str(key)?.str(value)).unwrap();
    }
    e.into_writer()
}

#[test]
fn an_endpoint_whose_name_or_labels_are_out_of_bounds_is_left_out() {
    let slot = bucket_of(mac(1));
    let read = |body: &[u8]| decode(node(1), slot, body).expect("a bucket").len();
    let long = "n".repeat(MAX_NAME + 1);
    let many = [["k", "v"]; MAX_LABELS + 1];

    assert_eq!(
        read(&announced("web", &[["app", "web"], ["tier", "front"]])),
        1
    );
    assert_eq!(read(&announced(&long, &[])), 0);
    assert_eq!(
        read(&announced("web", &[["tier", "front"], ["app", "web"]])),
        0
    );
    assert_eq!(read(&announced("web", &[["app", "a"], ["app", "b"]])), 0);
    assert_eq!(read(&announced("web", &many)), 0);
    assert!(decode(node(1), slot, &announced("web", &[["k", "v"]; 65])).is_err());
}

/// Puts 1 000 containers with the largest records on one host, the addresses drawn from `seed`.
fn fill(seed: u64, metadata: Option<&Arc<Metadata>>, count: usize) -> Result<(), EndpointError> {
    let mut state = seed;
    let mut draw = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let once = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let twice = (once ^ (once >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        twice ^ (twice >> 31)
    };
    let addresses = [net("10.32.1.1/12"), net("fd00::1/64")];
    let mut local = LocalEndpoints::new(node(1));
    for _ in 0..count {
        let [_, _, bytes @ ..] = draw().to_be_bytes();
        let mac = MacAddr::local(bytes);
        local.attach(mac, &addresses, String::new(), metadata.cloned())?;
    }
    Ok(())
}

#[test]
fn a_thousand_containers_with_the_largest_records_fit_on_one_host() {
    let largest = largest();

    for seed in 0..10 {
        assert_eq!(fill(seed, largest.as_ref(), 1000), Ok(()), "seed {seed}");
        assert_eq!(fill(seed, None, 3000), Ok(()), "seed {seed}");
    }
    assert_eq!(fill(1, largest.as_ref(), 8000), Err(EndpointError::Full));
}

#[test]
#[ignore = "takes minutes: 10 000 fillings, as the room that is promised was found"]
fn ten_thousand_fillings_refuse_nothing() {
    let largest = largest();
    let refused = (0..10_000).filter(|&seed| fill(seed, largest.as_ref(), 1000).is_err());

    assert_eq!(refused.count(), 0);
}

/// What all say, without any sharing and in one go: the law that [`View`] keeps.
fn unite(
    said: &BTreeMap<(NodeId, u16), Vec<Endpoint>>,
    assigned: &BTreeMap<IpAddr, NodeId>,
) -> (Endpoints, BTreeSet<Dispute>) {
    let mut sorted: Vec<Endpoint> = said.values().flatten().cloned().collect();
    sorted.sort_by_key(|endpoint| (endpoint.owner, endpoint.segment, endpoint.mac));
    let mut disputes = BTreeSet::new();
    let mut by_mac: BTreeMap<(Segment, MacAddr), Endpoint> = BTreeMap::new();
    let mut by_address: BTreeMap<(Segment, IpAddr), (NodeId, MacAddr)> = BTreeMap::new();
    for mut endpoint in sorted {
        let refused = endpoint.owner;
        if let Some(first) = by_mac.get(&endpoint.key()) {
            if first.owner != refused {
                disputes.insert(Dispute {
                    what: Disputed::Mac(endpoint.mac),
                    kept: first.owner,
                    refused,
                });
            }
            continue;
        }
        endpoint.addresses.retain(|&address| {
            if assigned
                .get(&address)
                .is_some_and(|&right| right != refused)
            {
                let kept = assigned[&address];
                let what = Disputed::Address(address);
                disputes.insert(Dispute {
                    what,
                    kept,
                    refused,
                });
                return false;
            }
            let who = (refused, endpoint.mac);
            let kept = *by_address.entry((endpoint.segment, address)).or_insert(who);
            if kept.0 != refused {
                disputes.insert(Dispute {
                    what: Disputed::Address(address),
                    kept: kept.0,
                    refused,
                });
            }
            kept == who
        });
        by_mac.insert(endpoint.key(), endpoint);
    }
    (by_mac.into_values().collect(), disputes)
}

/// Announces what stands in `said` for one owner.
fn announce(view: &mut View, owner: NodeId, said: &BTreeMap<(NodeId, u16), Vec<Endpoint>>) {
    let mine = said.range((owner, 0)..=(owner, u16::MAX));
    let texts: Vec<(u16, [u8; 32], Vec<u8>)> = mine
        .map(|(&(_, slot), endpoints)| {
            let body = super::bucket::write(endpoints);
            (slot, crate::crypto::sha256(&body), body)
        })
        .collect();
    let announcements = texts.iter().map(|(slot, hash, body)| Announcement {
        slot: *slot,
        hash,
        body,
    });
    view.set_owner(owner, announcements);
}

/// Whether the second index says what the first does.
fn is_sound(endpoints: &Endpoints) -> bool {
    let claims = |endpoint: &Endpoint| {
        let (segment, owner, mac) = (endpoint.segment, endpoint.owner, endpoint.mac);
        let holds = move |&address: &IpAddr| {
            let holder = endpoints.holder(segment, address);
            holder.is_some_and(|holder| (holder.owner, holder.mac) == (owner, mac))
        };
        endpoint.addresses.iter().all(holds)
    };
    let held: usize = endpoints.by_address().iter().map(|part| part.len()).sum();
    let claimed: usize = endpoints
        .iter()
        .map(|endpoint| endpoint.addresses.len())
        .sum();
    let found =
        |endpoint: &Endpoint| endpoints.get(endpoint.segment, endpoint.mac) == Some(endpoint);
    held == claimed && endpoints.iter().all(claims) && endpoints.iter().all(found)
}

#[test]
fn a_dispute_is_settled_alike_in_every_order_and_costs_nobody_else() {
    let endpoint = |owner, n, address: &str| Endpoint {
        segment: Segment::DEFAULT,
        mac: mac(n),
        addresses: vec![net(address).addr()],
        owner: node(owner),
        kind: EndpointKind::Host,
        metadata: None,
    };
    let all = [
        endpoint(1, 1, "10.0.0.1/8"),
        endpoint(2, 2, "10.0.0.2/8"),
        endpoint(3, 1, "10.0.0.3/8"),
        endpoint(4, 4, "10.0.0.2/8"),
        endpoint(1, 9, "10.0.0.5/8"),
        endpoint(5, 5, "10.0.0.5/8"),
    ];
    let mut said: BTreeMap<(NodeId, u16), Vec<Endpoint>> = BTreeMap::new();
    for endpoint in all {
        let key = (endpoint.owner, bucket_of(endpoint.mac));
        said.entry(key).or_default().push(endpoint);
    }
    let assigned = BTreeMap::from([(net("10.0.0.5/8").addr(), node(5))]);
    let settle = |order: &[u8]| {
        let mut view = View::default();
        for &owner in order {
            announce(&mut view, node(owner), &said);
            view.settle();
        }
        view.set_assigned(assigned.clone());
        (view.settle(), view.disputes())
    };

    let first = settle(&[1, 2, 3, 4, 5]);

    assert_eq!(settle(&[5, 4, 3, 2, 1]), first);
    assert_eq!(unite(&said, &assigned), first);
    let (endpoints, disputes) = first;
    assert_eq!(disputes.len(), 3);
    let holder = |address: &str| {
        let holder = endpoints.holder(Segment::DEFAULT, net(address).addr());
        holder.map(|holder| holder.owner)
    };
    assert_eq!(holder("10.0.0.1/8"), Some(node(1)));
    assert_eq!(holder("10.0.0.2/8"), Some(node(2)));
    assert_eq!(holder("10.0.0.5/8"), Some(node(5)));
    assert_eq!(holder("10.0.0.3/8"), None);
}

#[test]
fn what_does_not_change_is_shared() {
    let mut local = LocalEndpoints::new(node(1));
    for n in 1..=200 {
        let address = IpNet::from(IpAddr::from([10, 32, 0, n]));
        local
            .attach(mac(n), &[address], String::new(), None)
            .expect("fits");
    }
    let mut view = View::default();
    view.set_local(&local);
    let before = view.settle();
    view.set_local(&local);
    assert_eq!(view.settle().changed(&before).count(), 0);

    let address = IpNet::from(IpAddr::from([10, 32, 1, 1]));
    local
        .attach(mac(201), &[address], String::new(), None)
        .expect("fits");
    view.set_local(&local);
    let after = view.settle();

    assert_eq!(after.changed(&before).count(), 1);
    let pairs = before.by_address().iter().zip(after.by_address());
    assert_eq!(pairs.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 1);
    assert_eq!(after.len(), 201);
}

/// An endpoint in brief: segment, last byte of its MAC, last bytes of its addresses, whether it has a name.
type Said = (u8, u8, BTreeSet<u8>, bool);

/// What may happen to a view.
#[derive(Clone, Debug)]
enum Step {
    Announce(u8, Vec<Said>),
    Assign(Vec<(u8, u8)>),
    Leave(u8),
    Settle,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let endpoint = (
        0..2_u8,
        1..9_u8,
        proptest::collection::btree_set(1..6_u8, 0..3),
        any::<bool>(),
    );
    let announce = (1..4_u8, proptest::collection::vec(endpoint, 0..6))
        .prop_map(|(owner, endpoints)| Step::Announce(owner, endpoints));
    let assign = proptest::collection::vec((1..6_u8, 1..4_u8), 0..3).prop_map(Step::Assign);
    let step = prop_oneof![
        6 => announce,
        1 => assign,
        1 => (1..4_u8).prop_map(Step::Leave),
        2 => Just(Step::Settle),
    ];
    proptest::collection::vec(step, 0..24)
}

/// The buckets of one owner; addresses claimed twice are its own affair.
fn buckets(owner: u8, endpoints: &[Said]) -> BTreeMap<u16, Vec<Endpoint>> {
    let mut buckets: BTreeMap<u16, BTreeMap<(Segment, MacAddr), Endpoint>> = BTreeMap::new();
    for (segment, last, addresses, named) in endpoints {
        let endpoint = Endpoint {
            segment: Segment::new(u32::from(*segment)).expect("24 bits"),
            mac: mac(*last),
            addresses: addresses.iter().map(|&n| [10, 0, 0, n].into()).collect(),
            owner: node(owner),
            kind: attached(),
            metadata: named.then(largest).flatten(),
        };
        let bucket = buckets.entry(bucket_of(endpoint.mac)).or_default();
        bucket.insert(endpoint.key(), endpoint);
    }
    let lists = buckets.into_iter();
    lists
        .map(|(slot, bucket)| (slot, bucket.into_values().collect()))
        .collect()
}

proptest! {
    #[test]
    fn what_is_settled_step_by_step_is_what_all_say_together(steps in steps()) {
        let (mut view, mut said, mut assigned) = (View::default(), BTreeMap::new(), BTreeMap::new());
        for step in steps {
            match step {
                Step::Announce(owner, endpoints) => {
                    said.retain(|&(who, _), _| who != node(owner));
                    for (slot, bucket) in buckets(owner, &endpoints) {
                        said.insert((node(owner), slot), bucket);
                    }
                    announce(&mut view, node(owner), &said);
                }
                Step::Assign(given) => {
                    let given = given.into_iter();
                    assigned = given.map(|(n, owner)| ([10, 0, 0, n].into(), node(owner))).collect();
                    view.set_assigned(assigned.clone());
                }
                Step::Leave(owner) => {
                    said.retain(|&(who, _), _| who != node(owner));
                    view.retain_owners(|who| who != node(owner));
                }
                Step::Settle => {
                    view.settle();
                }
            }
        }

        let settled = view.settle();

        prop_assert!(is_sound(&settled));
        prop_assert_eq!((settled, view.disputes()), unite(&said, &assigned));
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), slot in 0..260_u16) {
        let _ = decode(node(1), slot, &bytes);
    }
}
