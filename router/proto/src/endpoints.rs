//! Says which addresses of the virtual Ethernet are on which host.
//!
//! Every owner signs what it has, in [`BUCKETS`] registers: a bucket is the full list of its live endpoints, so what is
//! gone is simply not in the list, and an attach re-signs a sixteenth. Here is the codec of a bucket, this host's own
//! set, and the view of all.
//!
//! **Disputes.** Two owners may claim one address, by mistake or by malice. The node that the membership gave the address
//! to is right; else the smaller node. The loser's claim is left out and reported; nobody else notices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use minicbor::{Decode, Encode};
use weft_types::{MacAddr, NodeId, Segment};

use crate::crypto::sha256;
use crate::snapshot::{Endpoint, EndpointKind};
use crate::wire::{decode_whole, encode};

/// Registers per owner.
pub const BUCKETS: u16 = 16;
/// Endpoints per register: what its owner can keep within one record.
pub const BUCKET_SIZE: usize = 64;
/// Addresses per endpoint.
const MAX_ADDRESSES: usize = 8;

/// Why an endpoint cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Its bucket is full.
    #[error("this host has as many endpoints as it can announce")]
    Full,
    /// A group address, or an address that no host may have.
    #[error("no host may have this address")]
    Unfit,
}

/// An endpoint as its owner announces it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Announced {
    #[n(0)]
    segment: Segment,
    #[n(1)]
    mac: MacAddr,
    #[cbor(n(2), with = "crate::wire::ip::addr_list")]
    addresses: Vec<IpAddr>,
    /// 0 host, 1 attached; what a later release adds is treated as attached.
    #[n(3)]
    kind: u8,
}

const HOST: u8 = 0;
const ATTACHED: u8 = 1;

#[derive(Encode, Decode)]
#[cbor(map)]
struct Bucket {
    #[n(0)]
    endpoints: Vec<Announced>,
}

/// Which bucket an endpoint is in.
pub fn bucket_of(mac: MacAddr) -> u16 {
    u16::from(sha256(mac.as_bytes())[0]) % BUCKETS
}

/// Reads a bucket as `owner` announced it, leaving out what no endpoint may be and what belongs to another bucket.
///
/// # Errors
///
/// If it is no bucket, or holds more than [`BUCKET_SIZE`].
pub fn decode(
    owner: NodeId,
    slot: u16,
    body: &[u8],
) -> Result<Vec<Endpoint>, minicbor::decode::Error> {
    let bucket: Bucket = decode_whole(body)?;
    if bucket.endpoints.len() > BUCKET_SIZE {
        return Err(minicbor::decode::Error::message("a bucket is too full"));
    }
    let fit = |announced: &Announced| {
        bucket_of(announced.mac) == slot
            && is_fit(announced.mac, &announced.addresses)
            && announced.addresses.len() <= MAX_ADDRESSES
    };
    let endpoint = |announced: Announced| Endpoint {
        segment: announced.segment,
        mac: announced.mac,
        addresses: announced.addresses,
        owner,
        kind: match announced.kind {
            HOST => EndpointKind::Host,
            _ => EndpointKind::Attached {
                port: String::new(),
            },
        },
    };
    Ok(bucket
        .endpoints
        .into_iter()
        .filter(fit)
        .map(endpoint)
        .collect())
}

/// Whether a host may have these: no group address, nothing that names no host.
fn is_fit(mac: MacAddr, addresses: &[IpAddr]) -> bool {
    let unfit = |address: &IpAddr| {
        address.is_unspecified()
            || address.is_multicast()
            || address.is_loopback()
            || matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
            || matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
    };
    !mac.is_group() && mac != MacAddr::new([0; 6]) && !addresses.iter().any(unfit)
}

/// What is on this host.
#[derive(Clone, Debug)]
pub struct LocalEndpoints {
    owner: NodeId,
    by_mac: BTreeMap<(Segment, MacAddr), Endpoint>,
}

impl LocalEndpoints {
    /// Nothing is, yet.
    pub const fn new(owner: NodeId) -> Self {
        Self {
            owner,
            by_mac: BTreeMap::new(),
        }
    }

    /// Adds the host itself: its bridge device.
    ///
    /// # Errors
    ///
    /// [`EndpointError::Unfit`] for addresses that no host may have.
    pub fn host(&mut self, mac: MacAddr, addresses: &[IpNet]) -> Result<u16, EndpointError> {
        self.add(mac, addresses, EndpointKind::Host)
    }

    /// Adds a container behind `port`, or replaces what was said of it. Gives the bucket that changed.
    ///
    /// # Errors
    ///
    /// [`EndpointError`]; nothing changes then.
    pub fn attach(
        &mut self,
        mac: MacAddr,
        addresses: &[IpNet],
        port: String,
    ) -> Result<u16, EndpointError> {
        self.add(mac, addresses, EndpointKind::Attached { port })
    }

    /// Removes a container. Gives the bucket that changed, `None` if it was not here.
    pub fn detach(&mut self, mac: MacAddr) -> Option<u16> {
        self.by_mac
            .remove(&(Segment::DEFAULT, mac))
            .map(|_| bucket_of(mac))
    }

    /// Everything on this host.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.by_mac.values()
    }

    /// Whether nothing on this host is in a bucket.
    pub fn is_empty(&self, slot: u16) -> bool {
        self.iter().all(|endpoint| bucket_of(endpoint.mac) != slot)
    }

    /// A bucket as it is announced.
    pub fn body(&self, slot: u16) -> Vec<u8> {
        let announced = |endpoint: &Endpoint| Announced {
            segment: endpoint.segment,
            mac: endpoint.mac,
            addresses: endpoint.addresses.clone(),
            kind: match endpoint.kind {
                EndpointKind::Host => HOST,
                EndpointKind::Attached { .. } => ATTACHED,
            },
        };
        let inside = self
            .iter()
            .filter(|endpoint| bucket_of(endpoint.mac) == slot);
        encode(&Bucket {
            endpoints: inside.map(announced).collect(),
        })
    }

    fn add(
        &mut self,
        mac: MacAddr,
        addresses: &[IpNet],
        kind: EndpointKind,
    ) -> Result<u16, EndpointError> {
        let addresses: Vec<IpAddr> = addresses.iter().map(IpNet::addr).collect();
        if !is_fit(mac, &addresses) || addresses.len() > MAX_ADDRESSES {
            return Err(EndpointError::Unfit);
        }
        let slot = bucket_of(mac);
        let key = (Segment::DEFAULT, mac);
        let full = self
            .iter()
            .filter(|endpoint| bucket_of(endpoint.mac) == slot)
            .count()
            >= BUCKET_SIZE;
        if full && !self.by_mac.contains_key(&key) {
            return Err(EndpointError::Full);
        }
        let endpoint = Endpoint {
            segment: Segment::DEFAULT,
            mac,
            addresses,
            owner: self.owner,
            kind,
        };
        self.by_mac.insert(key, endpoint);
        Ok(slot)
    }
}

/// One address that two owners claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dispute {
    /// What is claimed.
    pub what: Disputed,
    /// Who keeps it.
    pub kept: NodeId,
    /// Whose claim is left out.
    pub refused: NodeId,
}

/// What a dispute is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disputed {
    /// An IP address.
    Address(IpAddr),
    /// An Ethernet address.
    Mac(MacAddr),
}

/// Puts everybody's endpoints together: sorted, no MAC and no address twice. `assigned` is what the membership gave to
/// whom.
pub fn unite(
    endpoints: impl IntoIterator<Item = Endpoint>,
    assigned: &BTreeMap<IpAddr, NodeId>,
) -> (Vec<Endpoint>, BTreeSet<Dispute>) {
    let mut sorted: Vec<Endpoint> = endpoints.into_iter().collect();
    sorted.sort_by_key(|endpoint| (endpoint.owner, endpoint.segment, endpoint.mac));
    let mut disputes = BTreeSet::new();
    let mut by_mac: BTreeMap<(Segment, MacAddr), Endpoint> = BTreeMap::new();
    let mut by_address: BTreeMap<(Segment, IpAddr), NodeId> = BTreeMap::new();
    for mut endpoint in sorted {
        let refused = endpoint.owner;
        if let Some(first) = by_mac.get(&(endpoint.segment, endpoint.mac)) {
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
            let key = (endpoint.segment, address);
            let kept = match assigned.get(&address) {
                Some(&owner) => owner,
                None => *by_address.entry(key).or_insert(refused),
            };
            if kept != refused {
                disputes.insert(Dispute {
                    what: Disputed::Address(address),
                    kept,
                    refused,
                });
            }
            kept == refused
        });
        by_mac.insert((endpoint.segment, endpoint.mac), endpoint);
    }
    (by_mac.into_values().collect(), disputes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(n: u8) -> NodeId {
        NodeId::new([n; 32])
    }

    fn mac(n: u8) -> MacAddr {
        MacAddr::new([2, 0, 0, 0, 0, n])
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    #[test]
    fn a_bucket_is_read_as_it_was_written() {
        let mut local = LocalEndpoints::new(node(1));
        let slot = local
            .attach(
                mac(1),
                &[net("10.32.1.1/12"), net("fd00::1/64")],
                "wv1".to_owned(),
            )
            .expect("fits");

        let read = decode(node(1), slot, &local.body(slot)).expect("a bucket");

        assert_eq!(read.len(), 1);
        assert_eq!(
            (read[0].mac, read[0].owner, read[0].addresses.len()),
            (mac(1), node(1), 2)
        );
        assert_eq!(
            read[0].kind,
            EndpointKind::Attached {
                port: String::new()
            }
        );
    }

    #[test]
    fn what_is_detached_is_in_no_bucket() {
        let mut local = LocalEndpoints::new(node(1));
        let slot = local.attach(mac(1), &[], "wv1".to_owned()).expect("fits");

        assert_eq!(local.detach(mac(1)), Some(slot));

        assert_eq!(
            decode(node(1), slot, &local.body(slot)).expect("a bucket"),
            []
        );
        assert_eq!(local.detach(mac(1)), None);
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
                local.attach(mac(1), &[net(address)], String::new()),
                Err(EndpointError::Unfit)
            );
        }
        assert_eq!(
            local.attach(MacAddr::BROADCAST, &[], String::new()),
            Err(EndpointError::Unfit)
        );
    }

    #[test]
    fn every_prefix_of_a_bucket_is_refused() {
        let mut local = LocalEndpoints::new(node(1));
        let slot = local
            .attach(mac(1), &[net("10.32.1.1/12")], "wv1".to_owned())
            .expect("fits");
        let body = local.body(slot);

        assert!((0..body.len()).all(|cut| decode(node(1), slot, &body[..cut]).is_err()));
    }

    #[test]
    fn a_dispute_is_settled_alike_in_every_order_and_costs_nobody_else() {
        let endpoint = |owner, n, address: &str| Endpoint {
            segment: Segment::DEFAULT,
            mac: mac(n),
            addresses: vec![net(address).addr()],
            owner: node(owner),
            kind: EndpointKind::Host,
        };
        let mut all = vec![
            endpoint(1, 1, "10.0.0.1/8"),
            endpoint(2, 2, "10.0.0.2/8"),
            endpoint(3, 1, "10.0.0.3/8"),
            endpoint(4, 4, "10.0.0.2/8"),
            endpoint(1, 9, "10.0.0.5/8"),
            endpoint(5, 5, "10.0.0.5/8"),
        ];
        let assigned = BTreeMap::from([(net("10.0.0.5/8").addr(), node(5))]);
        let first = unite(all.clone(), &assigned);
        all.reverse();

        assert_eq!(unite(all, &assigned), first);
        let (endpoints, disputes) = first;
        assert_eq!(disputes.len(), 3);
        let has = |n: u8, address: &str| {
            endpoints
                .iter()
                .any(|e| e.owner == node(n) && e.addresses.contains(&net(address).addr()))
        };
        assert!(has(1, "10.0.0.1/8") && has(2, "10.0.0.2/8") && has(5, "10.0.0.5/8"));
        assert!(!has(4, "10.0.0.2/8") && !has(1, "10.0.0.5/8"));
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), slot in 0..20u16) {
            let _ = decode(node(1), slot, &bytes);
        }
    }
}
