//! Holds every endpoint of the mesh, in parts that one moment shares with the next.
//!
//! ```text
//!   by MAC      256 × [endpoint…]   part n is bucket n of all owners together, so two claims on one MAC meet in one part
//!   by address  256 × [holder…]     whose an address is, by a hash of the address
//! ```
//!
//! **Invariant.** A part is sorted by its key. No two endpoints have one (segment, MAC), no two one address of a segment;
//! the second index says of every address what the first says. **Cost.** A container that comes or goes makes one part by
//! MAC anew, and one by address for each of its addresses; whoever compares two moments compares pointers first.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use weft_types::{MacAddr, NodeId, Segment};

use super::endpoint::Endpoint;
use super::place::{BUCKETS, address_shard, bucket_of};

/// Every endpoint of the mesh. Cloning is one step.
#[derive(Clone, Debug)]
pub struct Endpoints(Arc<Shards>);

#[derive(Clone, Debug)]
struct Shards {
    by_mac: Vec<Arc<[Endpoint]>>,
    by_address: Vec<Arc<[Holder]>>,
}

/// Whose an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// In which network of the mesh.
    pub segment: Segment,
    /// The address.
    pub address: IpAddr,
    /// On whose host it is.
    pub owner: NodeId,
    /// The Ethernet address it is behind.
    pub mac: MacAddr,
}

impl Holder {
    const fn key(&self) -> (Segment, IpAddr) {
        (self.segment, self.address)
    }
}

impl Endpoints {
    /// All of them. Those of one part come in order of (segment, MAC); parts are numbered by no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.0.by_mac.iter().flat_map(|shard| &**shard)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.by_mac.iter().map(|shard| shard.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Who has an Ethernet address.
    pub fn get(&self, segment: Segment, mac: MacAddr) -> Option<&Endpoint> {
        let shard = self.0.by_mac.get(usize::from(bucket_of(mac)))?;
        let at = shard.binary_search_by_key(&(segment, mac), Endpoint::key);
        at.ok().map(|at| &shard[at])
    }

    /// Who has an IP address.
    pub fn holder(&self, segment: Segment, address: IpAddr) -> Option<&Holder> {
        let shard = self.0.by_address.get(address_shard(address))?;
        let at = shard.binary_search_by_key(&(segment, address), Holder::key);
        at.ok().map(|at| &shard[at])
    }

    /// The parts by MAC.
    pub fn by_mac(&self) -> &[Arc<[Endpoint]>] {
        &self.0.by_mac
    }

    /// The parts by address.
    pub fn by_address(&self) -> &[Arc<[Holder]>] {
        &self.0.by_address
    }

    /// The parts by MAC that are not those of `before`: what they were, and what they are.
    pub fn changed<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (&'a [Endpoint], &'a [Endpoint])> {
        let same = Arc::ptr_eq(&self.0, &before.0);
        let pairs = before.0.by_mac.iter().zip(&self.0.by_mac);
        pairs
            .filter(move |(was, is)| !same && !Arc::ptr_eq(was, is))
            .map(|(was, is)| (&**was, &**is))
    }

    /// Puts other parts in the place of some.
    pub(super) fn replace(
        &mut self,
        by_mac: impl IntoIterator<Item = (u16, Arc<[Endpoint]>)>,
        by_address: impl IntoIterator<Item = (usize, Arc<[Holder]>)>,
    ) {
        let shards = Arc::make_mut(&mut self.0);
        for (slot, shard) in by_mac {
            shards.by_mac[usize::from(slot)] = shard;
        }
        for (slot, shard) in by_address {
            shards.by_address[slot] = shard;
        }
    }
}

impl Default for Endpoints {
    fn default() -> Self {
        let count = usize::from(BUCKETS);
        Self(Arc::new(Shards {
            by_mac: vec![Arc::from([]); count],
            by_address: vec![Arc::from([]); count],
        }))
    }
}

impl PartialEq for Endpoints {
    fn eq(&self, other: &Self) -> bool {
        fn same<T: PartialEq>(ours: &[Arc<[T]>], theirs: &[Arc<[T]>]) -> bool {
            let mut pairs = ours.iter().zip(theirs);
            pairs.all(|(ours, theirs)| Arc::ptr_eq(ours, theirs) || ours == theirs)
        }
        // The second index follows from the first.
        Arc::ptr_eq(&self.0, &other.0) || same(&self.0.by_mac, &other.0.by_mac)
    }
}

impl Eq for Endpoints {}

impl<'a> IntoIterator for &'a Endpoints {
    type Item = &'a Endpoint;
    type IntoIter = Box<dyn Iterator<Item = &'a Endpoint> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

/// Of what claims one Ethernet or IP address the first keeps it.
impl FromIterator<Endpoint> for Endpoints {
    fn from_iter<I: IntoIterator<Item = Endpoint>>(endpoints: I) -> Self {
        let mut by_mac: BTreeMap<u16, BTreeMap<(Segment, MacAddr), Endpoint>> = BTreeMap::new();
        let mut by_address: BTreeMap<usize, BTreeMap<(Segment, IpAddr), Holder>> = BTreeMap::new();
        for mut endpoint in endpoints {
            let (key, owner) = (endpoint.key(), endpoint.owner);
            let shard = by_mac.entry(bucket_of(endpoint.mac)).or_default();
            if shard.contains_key(&key) {
                continue;
            }
            endpoint.addresses.retain(|&address| {
                let shard = by_address.entry(address_shard(address)).or_default();
                let holder = Holder {
                    segment: endpoint.segment,
                    address,
                    owner,
                    mac: endpoint.mac,
                };
                *shard.entry(holder.key()).or_insert(holder) == holder
            });
            shard.insert(key, endpoint);
        }
        let mut all = Self::default();
        let by_mac = by_mac.into_iter();
        let by_address = by_address.into_iter();
        all.replace(
            by_mac.map(|(slot, shard)| (slot, shard.into_values().collect())),
            by_address.map(|(slot, shard)| (slot, shard.into_values().collect())),
        );
        all
    }
}
