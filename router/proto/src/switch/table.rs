//! Compiles a snapshot into what one frame needs to know, in constant time.
//!
//! The maps are for looking up only: nothing here ever iterates over them, so their order cannot matter. Their hash is
//! a fixed one. Who makes addresses collide on purpose is a member, has at most 1024 endpoints to do it with, and slows
//! down little but frames of its own.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use weft_types::{MacAddr, NodeId, Segment};

use crate::snapshot::{Peer, Snapshot};

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
    macs: HashMap<(Segment, MacKey), Owner, BuildHasherDefault<Fold>>,
    v4: HashMap<(Segment, u32), Owner, BuildHasherDefault<Fold>>,
    v6: HashMap<(Segment, u128), Owner, BuildHasherDefault<Fold>>,
    ranges: Vec<IpNet>,
}

/// An Ethernet address as a number, so that hashing it is one step.
type MacKey = u64;

impl ForwardingTable {
    /// Makes the table of one moment.
    pub fn compile(snapshot: &Snapshot) -> Self {
        let mut table = Self {
            macs: HashMap::default(),
            v4: HashMap::default(),
            v6: HashMap::default(),
            ranges: snapshot.ranges.clone(),
        };
        for endpoint in &snapshot.endpoints {
            let owner = owner_of(endpoint.owner, snapshot.node, &snapshot.peers);
            let segment = endpoint.segment;
            table.macs.insert((segment, mac_key(endpoint.mac)), owner);
            for address in &endpoint.addresses {
                match address {
                    IpAddr::V4(v4) => table.v4.insert((segment, v4.to_bits()), owner),
                    IpAddr::V6(v6) => table.v6.insert((segment, v6.to_bits()), owner),
                };
            }
        }
        for address in &snapshot.host_addresses {
            match address.addr() {
                IpAddr::V4(v4) => table
                    .v4
                    .entry((Segment::DEFAULT, v4.to_bits()))
                    .or_insert(Owner::Ourself),
                IpAddr::V6(v6) => table
                    .v6
                    .entry((Segment::DEFAULT, v6.to_bits()))
                    .or_insert(Owner::Ourself),
            };
        }
        table
    }

    /// Who has an Ethernet address.
    pub fn mac_owner(&self, segment: Segment, mac: MacAddr) -> Option<Owner> {
        self.macs.get(&(segment, mac_key(mac))).copied()
    }

    /// Who has an IP address.
    pub fn address_owner(&self, segment: Segment, address: IpAddr) -> Option<Owner> {
        match address {
            IpAddr::V4(v4) => self.v4_owner(segment, v4),
            IpAddr::V6(v6) => self.v6_owner(segment, v6),
        }
    }

    pub(super) fn v4_owner(&self, segment: Segment, address: Ipv4Addr) -> Option<Owner> {
        self.v4.get(&(segment, address.to_bits())).copied()
    }

    pub(super) fn v6_owner(&self, segment: Segment, address: Ipv6Addr) -> Option<Owner> {
        self.v6.get(&(segment, address.to_bits())).copied()
    }

    /// Whether the mesh hands this address out.
    pub fn in_range(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(&address))
    }
}

fn owner_of(node: NodeId, ourself: NodeId, peers: &[Peer]) -> Owner {
    if node == ourself {
        return Owner::Ourself;
    }
    peers
        .binary_search_by_key(&node, |peer| peer.node)
        .map_or(Owner::Absent, Owner::Peer)
}

fn mac_key(mac: MacAddr) -> MacKey {
    let [a, b, c, d, e, f] = *mac.as_bytes();
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// Multiplies to twice the width and folds the halves together: a few cycles for a whole key.
#[derive(Clone, Copy, Debug, Default)]
struct Fold(u64);

impl Fold {
    fn mix(&mut self, word: u64) {
        // The fraction of the golden ratio: odd, and its bits follow no pattern (Knuth, TAOCP vol. 3 §6.4).
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let product = u128::from(self.0.rotate_left(23) ^ word ^ GOLDEN) * u128::from(GOLDEN);
        let [low, high] = [product & u128::from(u64::MAX), product >> 64];
        self.0 = u64::try_from(low ^ high).unwrap_or_default();
    }
}

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u32(&mut self, word: u32) {
        self.mix(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn neighbouring_addresses_do_not_share_a_bucket() {
        let hash = BuildHasherDefault::<Fold>::default();
        let mut buckets: Vec<u64> = (0..1024_u64)
            .map(|mac| hash.hash_one((Segment::DEFAULT, 0x0200_0000_0000 | mac << 8)) % 4096)
            .collect();
        buckets.sort_unstable();
        buckets.dedup();

        // 1024 balls in 4096 bins hit about 906 of them when thrown at random.
        assert!(buckets.len() > 850, "{} buckets", buckets.len());
    }
}
