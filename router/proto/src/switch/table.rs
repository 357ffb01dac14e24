//! Compiles a snapshot into what one frame needs to know, in constant time.
//!
//! ```text
//!   address ─mix─▶ part (8 bits) ─▶ slots of that part ─▶ number of the owner ─▶ this host, a peer, or nobody present
//! ```
//!
//! Parts are those of [`Endpoints`]: one that a snapshot shares with the one before is compiled once. Owners are numbered
//! as they come and keep their numbers, so a peer that appears changes one short list and no part. Of this host every
//! endpoint has a number of its own, so that of two look-ups it is known whether they are about the same container.
//!
//! **Cost.** Two loads that wait for each other, as in a map of one piece. Who makes addresses collide on purpose is a
//! member, and makes a look-up take [`PROBES`] steps and a search by halves, no more.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_types::{MacAddr, NodeId, Segment};

use crate::endpoints::place::{mac_mix, mac_number, top, v4_mix, v6_mix};
use crate::endpoints::{BUCKETS, Endpoint, EndpointKind, Endpoints, Holder};
use crate::snapshot::{Peer, Snapshot};

/// Steps from where an entry should be to where it is, at most.
const PROBES: usize = 16;
/// What an empty slot has for an owner.
const NOBODY: OwnerNumber = OwnerNumber::MAX;
/// Owners beyond twice as many as there were first that a table remembers before it is compiled anew.
const FORGOTTEN: usize = 64;

/// Whose an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A member that is away.
    Absent,
    /// This host.
    Ourself,
    /// A peer, by its position in [`Snapshot::peers`].
    Peer(usize),
}

/// A [`Snapshot`] as the packet workers use it. Peers are numbered by their position in [`Snapshot::peers`].
#[derive(Clone, Debug)]
pub struct ForwardingTable {
    macs: Parts<MacKey>,
    v4: Parts<u32>,
    v6: Parts<u128>,
    /// The node that this is the table of.
    node: NodeId,
    /// By their numbers.
    owners: Vec<Owner>,
    ranges: Vec<IpNet>,
    /// This host's own, where no endpoint has them.
    host: Vec<IpAddr>,
    /// The number of this host's own endpoint: its bridge.
    host_number: OwnerNumber,
    /// Who has which number.
    numbers: BTreeMap<Numbered, OwnerNumber>,
    /// How many had one when this was compiled.
    compiled: usize,
    source: Endpoints,
}

/// An Ethernet address as a number, so that comparing it is one step.
type MacKey = u64;
/// An owner as entries have it.
pub(super) type OwnerNumber = u32;
/// What has a number: another node with all that it has, or one endpoint of this host.
type Numbered = (NodeId, Option<MacAddr>);
/// One piece of a table, per part of the endpoints.
type Parts<K> = Vec<Slots<K>>;

impl ForwardingTable {
    /// Makes the table of one moment.
    pub fn compile(snapshot: &Snapshot) -> Self {
        let mut table = Self {
            macs: vec![Slots::default(); usize::from(BUCKETS)],
            v4: vec![Slots::default(); usize::from(BUCKETS)],
            v6: vec![Slots::default(); usize::from(BUCKETS)],
            node: snapshot.node,
            owners: Vec::new(),
            ranges: Vec::new(),
            host: Vec::new(),
            host_number: NOBODY,
            numbers: BTreeMap::new(),
            compiled: 0,
            source: Endpoints::default(),
        }
        .followed(snapshot);
        table.compiled = table.numbers.len();
        table
    }

    /// Makes the table of a later moment; what is as it was is taken over.
    pub fn follow(&self, snapshot: &Snapshot) -> Self {
        if self.node != snapshot.node || self.numbers.len() > 2 * self.compiled + FORGOTTEN {
            return Self::compile(snapshot);
        }
        self.clone().followed(snapshot)
    }

    fn followed(mut self, snapshot: &Snapshot) -> Self {
        let (was, is) = (self.source.clone(), &snapshot.endpoints);
        let parts = was.by_mac().iter().zip(is.by_mac()).enumerate();
        for (n, (_, part)) in parts.filter(|(_, (was, is))| !Arc::ptr_eq(was, is)) {
            self.macs[n] = self.mac_slots(part);
        }
        let parts = was.by_address().iter().zip(is.by_address()).enumerate();
        for (n, (_, part)) in parts.filter(|(_, (was, is))| !Arc::ptr_eq(was, is)) {
            (self.v4[n], self.v6[n]) = self.address_slots(part);
        }
        self.owners = vec![Owner::Absent; self.numbers.len()];
        for (&(node, _), &number) in &self.numbers {
            self.owners[number as usize] = owner_of(node, snapshot.node, &snapshot.peers);
        }
        self.ranges.clone_from(&snapshot.ranges);
        self.host = snapshot.host_addresses.iter().map(IpNet::addr).collect();
        self.source = is.clone();
        self
    }

    fn mac_slots(&mut self, part: &[Endpoint]) -> Slots<MacKey> {
        let entry = |endpoint: &Endpoint| Entry {
            key: (endpoint.segment, mac_number(endpoint.mac)),
            mixed: mac_mix(endpoint.mac),
            owner: self.number(endpoint.owner, endpoint.mac),
        };
        let slots = Slots::fill(part.iter().map(entry).collect());
        let mut own = part.iter().filter(|endpoint| endpoint.owner == self.node);
        if let Some(host) = own.find(|endpoint| endpoint.kind == EndpointKind::Host) {
            self.host_number = self.number(host.owner, host.mac);
        }
        slots
    }

    fn address_slots(&mut self, part: &[Holder]) -> (Slots<u32>, Slots<u128>) {
        let (mut v4s, mut v6s) = (Vec::new(), Vec::new());
        for holder in part {
            let owner = self.number(holder.owner, holder.mac);
            match holder.address {
                IpAddr::V4(v4) => v4s.push(Entry {
                    key: (holder.segment, v4.to_bits()),
                    mixed: v4_mix(v4.to_bits()),
                    owner,
                }),
                IpAddr::V6(v6) => v6s.push(Entry {
                    key: (holder.segment, v6.to_bits()),
                    mixed: v6_mix(v6.to_bits()),
                    owner,
                }),
            }
        }
        (Slots::fill(v4s), Slots::fill(v6s))
    }

    /// The number of an owner, a new one where it has none.
    fn number(&mut self, node: NodeId, mac: MacAddr) -> OwnerNumber {
        let next = OwnerNumber::try_from(self.numbers.len()).unwrap_or(NOBODY);
        let numbered = (node, (node == self.node).then_some(mac));
        *self.numbers.entry(numbered).or_insert(next)
    }

    /// Who has an Ethernet address.
    pub fn mac_owner(&self, segment: Segment, mac: MacAddr) -> Option<Owner> {
        self.owner(self.number_of_mac(segment, mac)?)
    }

    /// Who has an IP address.
    pub fn address_owner(&self, segment: Segment, address: IpAddr) -> Option<Owner> {
        self.owner(self.number_of_address(segment, address)?)
    }

    pub(super) fn number_of_mac(&self, segment: Segment, mac: MacAddr) -> Option<OwnerNumber> {
        look_up(&self.macs, (segment, mac_number(mac)), mac_mix(mac))
    }

    pub(super) fn number_of_address(
        &self,
        segment: Segment,
        address: IpAddr,
    ) -> Option<OwnerNumber> {
        let number = match address {
            IpAddr::V4(v4) => {
                let bits = v4.to_bits();
                look_up(&self.v4, (segment, bits), v4_mix(bits))
            }
            IpAddr::V6(v6) => {
                let bits = v6.to_bits();
                look_up(&self.v6, (segment, bits), v6_mix(bits))
            }
        };
        number.or_else(|| self.number_of_host(segment, address))
    }

    /// Whose a number is.
    pub(super) fn owner(&self, number: OwnerNumber) -> Option<Owner> {
        self.owners.get(number as usize).copied()
    }

    /// Whether the mesh hands this address out.
    pub fn in_range(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(&address))
    }

    fn number_of_host(&self, segment: Segment, address: IpAddr) -> Option<OwnerNumber> {
        let ours = segment == Segment::DEFAULT && self.host.contains(&address);
        (ours && self.host_number != NOBODY).then_some(self.host_number)
    }
}

fn look_up<K: Copy + Ord>(parts: &Parts<K>, key: (Segment, K), mixed: u64) -> Option<OwnerNumber> {
    parts.get(usize::from(top(mixed)))?.get(key, mixed)
}

fn owner_of(node: NodeId, ourself: NodeId, peers: &[Peer]) -> Owner {
    if node == ourself {
        return Owner::Ourself;
    }
    peers
        .binary_search_by_key(&node, |peer| peer.node)
        .map_or(Owner::Absent, Owner::Peer)
}

/// What is put into a table.
#[derive(Clone, Copy)]
struct Entry<K> {
    key: (Segment, K),
    mixed: u64,
    owner: OwnerNumber,
}

/// A table with open addressing: an entry is at most [`PROBES`] slots behind where it should be, or in the overflow.
#[derive(Clone, Debug)]
struct Slots<K> {
    /// As many as a power of two, a fifth of them empty at least: with more room, fewer fit the cache.
    slots: Arc<[Slot<K>]>,
    /// What found no place, by key; nearly always nothing.
    overflow: Option<Arc<[Slot<K>]>>,
}

#[derive(Clone, Copy, Debug)]
struct Slot<K> {
    key: (Segment, K),
    owner: OwnerNumber,
}

impl<K: Copy + Ord + Default> Slots<K> {
    fn fill(entries: Vec<Entry<K>>) -> Self {
        let len = (entries.len() + entries.len() / 4 + 1).next_power_of_two();
        let empty = Slot {
            key: (Segment::DEFAULT, K::default()),
            owner: NOBODY,
        };
        let mut slots = vec![empty; len];
        let mut overflow = Vec::new();
        for Entry { key, mixed, owner } in entries {
            let full = Slot { key, owner };
            let mut places = places(key.0, mixed, len);
            match places.find(|&place| slots[place].owner == NOBODY) {
                Some(place) => slots[place] = full,
                None => overflow.push(full),
            }
        }
        overflow.sort_unstable_by_key(|slot| slot.key);
        Self {
            slots: slots.into(),
            overflow: (!overflow.is_empty()).then(|| overflow.into()),
        }
    }
}

impl<K: Copy + Ord> Slots<K> {
    fn get(&self, key: (Segment, K), mixed: u64) -> Option<OwnerNumber> {
        for place in places(key.0, mixed, self.slots.len()) {
            let slot = self.slots[place];
            if slot.owner == NOBODY {
                return None;
            }
            if slot.key == key {
                return Some(slot.owner);
            }
        }
        let overflow = self.overflow.as_deref()?;
        let at = overflow.binary_search_by_key(&key, |slot| slot.key).ok()?;
        Some(overflow[at].owner)
    }
}

impl<K: Copy + Ord + Default> Default for Slots<K> {
    fn default() -> Self {
        Self::fill(Vec::new())
    }
}

/// Where an entry may be, best first, in a table of `len` slots.
fn places(segment: Segment, mixed: u64, len: usize) -> impl Iterator<Item = usize> {
    // The upper bits have found the part.
    let [_, _, a, b, c, d, ..] = mixed.to_be_bytes();
    let first = u32::from_be_bytes([a, b, c, d]) ^ segment.get();
    let mask = len - 1;
    (0..PROBES).map(move |step| (first as usize + step) & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u32, mixed: u64) -> Entry<u32> {
        Entry {
            key: (Segment::DEFAULT, number),
            mixed,
            owner: number,
        }
    }

    #[test]
    fn neighbouring_addresses_do_not_share_a_place() {
        let place = |n: u32| {
            let mixed = v4_mix(0x0a20_0000 + n);
            (top(mixed), places(Segment::DEFAULT, mixed, 16).next())
        };
        let mut places: Vec<_> = (0..1024).map(place).collect();
        places.sort_unstable();
        places.dedup();

        // 1024 balls in 4096 bins hit about 906 of them when thrown at random.
        assert!(places.len() > 850, "{} places", places.len());
    }

    #[test]
    fn entries_that_all_collide_are_found_and_others_are_not() {
        let slots = Slots::fill((0..1000).map(|n| entry(n, 7 << 16)).collect());

        assert!((0..1000).all(|n| slots.get((Segment::DEFAULT, n), 7 << 16) == Some(n)));
        assert_eq!(slots.get((Segment::DEFAULT, 1000), 7 << 16), None);
        assert_eq!(
            slots.overflow.map(|overflow| overflow.len()),
            Some(1000 - PROBES)
        );
    }

    #[test]
    fn an_empty_table_knows_nobody() {
        let slots: Slots<u32> = Slots::default();

        assert_eq!(slots.get((Segment::DEFAULT, 0), 0), None);
    }
}
