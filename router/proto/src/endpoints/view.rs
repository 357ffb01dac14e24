//! Puts together what all owners say, and settles what two of them claim.
//!
//! ```text
//!   set_owner, set_local ─▶ said: bucket, owner ─▶ who keeps each MAC ─▶ who keeps each address ─▶ Endpoints
//!                                                     ▲ one bucket           ▲ over all buckets
//! ```
//!
//! **Disputes.** Two owners may claim one address, by mistake or by malice. The node that the membership gave the address
//! to is right, and the node whose bridge has the Ethernet address by its identity; else the smaller node. The loser's claim is left out and reported; nobody else notices. An owner that
//! claims an address for two of its own has it behind the smaller Ethernet address.
//!
//! **Invariant.** What is settled follows from what is said and assigned, whatever came first and in what steps.
//! **Cost.** [`View::settle`] looks at the buckets that changed, and at those that an address moves from or to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use weft_types::{MacAddr, NodeId, Segment};

use super::bucket::decode;
use super::endpoint::Endpoint;
use super::local::LocalEndpoints;
use super::place::{BUCKETS, address_shard, bucket_of, host_mac};
use super::shards::{Endpoints, Holder};

/// The last of the mesh's networks.
const LAST_SEGMENT: [u8; 3] = [0xff; 3];

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

/// A bucket as its owner announced it.
#[derive(Clone, Copy, Debug)]
pub struct Announcement<'a> {
    /// Which bucket.
    pub slot: u16,
    /// Names the text: it is read again only if this is another.
    pub hash: &'a [u8; 32],
    /// The text. One that cannot be read counts as empty.
    pub body: &'a [u8],
}

/// What all owners say, and what is made of it.
#[derive(Clone, Debug)]
pub struct View {
    /// By bucket, then by owner.
    said: Vec<BTreeMap<NodeId, Said>>,
    /// Whom the membership gave an address to.
    assigned: BTreeMap<IpAddr, NodeId>,
    /// Who keeps its Ethernet address, with all IP addresses that it claims.
    keepers: Vec<Arc<[Endpoint]>>,
    /// Who of them claims an address.
    claims: Vec<BTreeMap<Claimed, Vec<Claimant>>>,
    /// Buckets that are to be looked at.
    stale: BTreeSet<u16>,
    /// Addresses that are to be looked at.
    moving: BTreeSet<Claimed>,
    settled: Endpoints,
    disputed_macs: BTreeMap<u16, BTreeSet<Dispute>>,
    disputed_addresses: BTreeMap<Claimed, BTreeSet<Dispute>>,
}

type Claimed = (IpAddr, Segment);
type Claimant = (NodeId, MacAddr);

#[derive(Clone, Debug)]
struct Said {
    /// What was read; `None` for this host's own.
    hash: Option<[u8; 32]>,
    endpoints: Arc<[Endpoint]>,
}

impl View {
    /// Takes all that an owner announces; what it announced before and is not there is gone.
    pub fn set_owner<'a>(
        &mut self,
        owner: NodeId,
        announced: impl IntoIterator<Item = Announcement<'a>>,
    ) {
        let mut gone = self.slots_of(owner);
        for Announcement { slot, hash, body } in announced {
            gone.remove(&slot);
            let known = self
                .said
                .get(usize::from(slot))
                .and_then(|said| said.get(&owner));
            if known.is_some_and(|said| said.hash == Some(*hash)) {
                continue;
            }
            let endpoints = decode(owner, slot, body).unwrap_or_default().into();
            let hash = Some(*hash);
            self.say(owner, slot, Said { hash, endpoints });
        }
        self.forget(owner, gone);
    }

    /// Takes what is on this host.
    pub fn set_local(&mut self, local: &LocalEndpoints) {
        let owner = local.owner();
        let mut gone = self.slots_of(owner);
        for (slot, bucket) in local.buckets() {
            gone.remove(&slot);
            let known = self
                .said
                .get(usize::from(slot))
                .and_then(|said| said.get(&owner));
            if known.is_some_and(|said| Arc::ptr_eq(&said.endpoints, bucket)) {
                continue;
            }
            let endpoints = Arc::clone(bucket);
            self.say(
                owner,
                slot,
                Said {
                    hash: None,
                    endpoints,
                },
            );
        }
        self.forget(owner, gone);
    }

    /// Leaves out whatever an owner says.
    pub fn remove_owner(&mut self, owner: NodeId) {
        let gone = self.slots_of(owner);
        self.forget(owner, gone);
    }

    /// Leaves out whatever others than these say.
    pub fn retain_owners(&mut self, stays: impl Fn(NodeId) -> bool) {
        let all = self.said.iter().flat_map(BTreeMap::keys).copied();
        let gone: BTreeSet<NodeId> = all.filter(|&owner| !stays(owner)).collect();
        gone.into_iter().for_each(|owner| self.remove_owner(owner));
    }

    /// Takes what the membership gave to whom.
    pub fn set_assigned(&mut self, assigned: BTreeMap<IpAddr, NodeId>) {
        let before = std::mem::replace(&mut self.assigned, assigned);
        let addresses = before.keys().chain(self.assigned.keys());
        let other = |address: &&IpAddr| before.get(address) != self.assigned.get(address);
        for &address in addresses.filter(other) {
            let last = Segment::from_bytes(LAST_SEGMENT);
            let claimed = self.claims[address_shard(address)]
                .range((address, Segment::DEFAULT)..=(address, last));
            self.moving.extend(claimed.map(|(&claimed, _)| claimed));
        }
    }

    /// Every endpoint of the mesh, as it follows from what is said.
    pub fn settle(&mut self) -> Endpoints {
        let mut stale = std::mem::take(&mut self.stale);
        for &slot in &stale {
            self.contest(slot);
        }
        let moving = std::mem::take(&mut self.moving);
        for &claimed in &moving {
            stale.extend(self.arbitrate(claimed));
        }
        let parts: BTreeSet<usize> = moving.iter().map(|(ip, _)| address_shard(*ip)).collect();
        let by_mac: Vec<_> = stale.iter().map(|&n| (n, self.part_by_mac(n))).collect();
        let by_address: Vec<_> = parts
            .iter()
            .map(|&n| (n, self.part_by_address(n)))
            .collect();
        if !(by_mac.is_empty() && by_address.is_empty()) {
            self.settled.replace(by_mac, by_address);
        }
        self.settled.clone()
    }

    /// What was found claimed twice when it was last settled.
    pub fn disputes(&self) -> BTreeSet<Dispute> {
        let macs = self.disputed_macs.values();
        let all = macs.chain(self.disputed_addresses.values());
        all.flatten().copied().collect()
    }

    fn slots_of(&self, owner: NodeId) -> BTreeSet<u16> {
        (0..BUCKETS)
            .zip(&self.said)
            .filter(|(_, said)| said.contains_key(&owner))
            .map(|(slot, _)| slot)
            .collect()
    }

    fn say(&mut self, owner: NodeId, slot: u16, said: Said) {
        let Some(all) = self.said.get_mut(usize::from(slot)) else {
            return;
        };
        let endpoints = Arc::clone(&said.endpoints);
        let before = all.insert(owner, said);
        if before.is_none_or(|before| before.endpoints != endpoints) {
            self.stale.insert(slot);
        }
    }

    fn forget(&mut self, owner: NodeId, slots: BTreeSet<u16>) {
        for slot in slots {
            self.said[usize::from(slot)].remove(&owner);
            self.stale.insert(slot);
        }
    }

    /// Finds who keeps each Ethernet address of a bucket; notes the addresses that are claimed otherwise than before.
    fn contest(&mut self, slot: u16) {
        let mut keepers: BTreeMap<(Segment, MacAddr), &Endpoint> = BTreeMap::new();
        let mut contested = Vec::new();
        let said = self.said[usize::from(slot)].values();
        for endpoint in said.flat_map(|said| &*said.endpoints) {
            let kept = keepers.entry(endpoint.key()).or_insert(endpoint);
            if kept.owner == endpoint.owner {
                continue;
            }
            contested.extend([*kept, endpoint]);
            // The smaller node comes first.
            if endpoint.mac == host_mac(endpoint.owner) {
                *kept = endpoint;
            }
        }
        let dispute = |refused: &Endpoint| Dispute {
            what: Disputed::Mac(refused.mac),
            kept: keepers[&refused.key()].owner,
            refused: refused.owner,
        };
        let disputes = contested.into_iter().map(dispute);
        let disputes = disputes.filter(|it| it.kept != it.refused).collect();
        let keepers: Arc<[Endpoint]> = keepers.into_values().cloned().collect();
        let before = std::mem::replace(&mut self.keepers[usize::from(slot)], Arc::clone(&keepers));
        note(&mut self.disputed_macs, slot, disputes);
        for endpoint in missing(&before, &keepers) {
            self.claim(endpoint, |claimants, who| {
                claimants.retain(|there| *there != who)
            });
        }
        for endpoint in missing(&keepers, &before) {
            self.claim(endpoint, |claimants, who| claimants.push(who));
        }
    }

    /// Changes who claims the addresses of an endpoint.
    fn claim(&mut self, endpoint: &Endpoint, change: impl Fn(&mut Vec<Claimant>, Claimant)) {
        for &address in &endpoint.addresses {
            let claimed = (address, endpoint.segment);
            let shard = &mut self.claims[address_shard(address)];
            let claimants = shard.entry(claimed).or_default();
            change(claimants, (endpoint.owner, endpoint.mac));
            claimants.sort_unstable();
            claimants.dedup();
            if claimants.is_empty() {
                shard.remove(&claimed);
            }
            self.moving.insert(claimed);
        }
    }

    /// Finds who keeps an address; tells the buckets in which it is not where it was.
    fn arbitrate(&mut self, claimed: Claimed) -> impl Iterator<Item = u16> + use<> {
        let (address, segment) = claimed;
        let before = self.settled.holder(segment, address);
        let before = before.map(|holder| (holder.owner, holder.mac));
        let after = self.keeper(claimed);
        let disputes = self.refused(claimed);
        note(&mut self.disputed_addresses, claimed, disputes);
        let moved = [before, after].into_iter().flatten();
        moved
            .filter(move |_| before != after)
            .map(|(_, mac)| bucket_of(mac))
    }

    fn claimants(&self, (address, segment): Claimed) -> &[Claimant] {
        let shard = &self.claims[address_shard(address)];
        shard.get(&(address, segment)).map_or(&[], Vec::as_slice)
    }

    fn keeper(&self, claimed: Claimed) -> Option<Claimant> {
        self.keeper_among(claimed.0, self.claimants(claimed))
    }

    fn keeper_among(&self, address: IpAddr, claimants: &[Claimant]) -> Option<Claimant> {
        let mut claimants = claimants.iter().copied();
        match self.assigned.get(&address) {
            Some(&right) => claimants.find(|&(owner, _)| owner == right),
            None => claimants.next(),
        }
    }

    fn refused(&self, claimed: Claimed) -> BTreeSet<Dispute> {
        let claimants = self.claimants(claimed);
        let first = claimants.first().map(|&(owner, _)| owner);
        let Some(kept) = self.assigned.get(&claimed.0).copied().or(first) else {
            return BTreeSet::new();
        };
        let owners = claimants.iter().map(|&(owner, _)| owner);
        let what = Disputed::Address(claimed.0);
        owners
            .filter(|&refused| refused != kept)
            .map(|refused| Dispute {
                what,
                kept,
                refused,
            })
            .collect()
    }

    fn part_by_mac(&self, slot: u16) -> Arc<[Endpoint]> {
        let keepers = self.keepers[usize::from(slot)].iter().cloned();
        keepers
            .map(|mut endpoint| {
                let (segment, who) = (endpoint.segment, (endpoint.owner, endpoint.mac));
                let keeps = |address: &IpAddr| self.keeper((*address, segment)) == Some(who);
                endpoint.addresses.retain(keeps);
                endpoint
            })
            .collect()
    }

    fn part_by_address(&self, shard: usize) -> Arc<[Holder]> {
        let claims = self.claims[shard].iter();
        let mut holders: Vec<Holder> = claims
            .filter_map(|(&(address, segment), claimants)| {
                let (owner, mac) = self.keeper_among(address, claimants)?;
                Some(Holder {
                    segment,
                    address,
                    owner,
                    mac,
                })
            })
            .collect();
        holders.sort_unstable_by_key(|holder| (holder.segment, holder.address));
        holders.into()
    }
}

impl Default for View {
    fn default() -> Self {
        let count = usize::from(BUCKETS);
        Self {
            said: vec![BTreeMap::new(); count],
            assigned: BTreeMap::new(),
            keepers: vec![Arc::from([]); count],
            claims: vec![BTreeMap::new(); count],
            stale: BTreeSet::new(),
            moving: BTreeSet::new(),
            settled: Endpoints::default(),
            disputed_macs: BTreeMap::new(),
            disputed_addresses: BTreeMap::new(),
        }
    }
}

/// The endpoints of `these` whose claims are not among those of `others`. Both are sorted.
fn missing<'a>(
    these: &'a [Endpoint],
    others: &'a [Endpoint],
) -> impl Iterator<Item = &'a Endpoint> {
    these.iter().filter(|endpoint| {
        let at = others.binary_search_by_key(&endpoint.key(), Endpoint::key);
        !at.is_ok_and(|at| {
            let other = &others[at];
            other.owner == endpoint.owner && other.addresses == endpoint.addresses
        })
    })
}

fn note<K: Ord>(
    disputed: &mut BTreeMap<K, BTreeSet<Dispute>>,
    key: K,
    disputes: BTreeSet<Dispute>,
) {
    if disputes.is_empty() {
        disputed.remove(&key);
    } else {
        disputed.insert(key, disputes);
    }
}
