//! Hands out one mesh address per node, at the creator, until the address ring takes over.
//!
//! An address is bound to a node before the node is admitted and stays bound to it for good: an introducer may crash
//! between asking and admitting, and a node that comes back must find the address it had. Nothing is ever taken back,
//! so no address has two owners, whatever crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weft_types::{Code, NodeId, Problem};

use crate::store::{Change, Table};

/// Who has which address.
#[derive(Clone, Debug)]
pub struct Addresses {
    range: Ipv4Net,
    range6: Ipv6Net,
    by_node: BTreeMap<NodeId, Ipv4Addr>,
    taken: BTreeSet<Ipv4Addr>,
}

impl Addresses {
    /// Begins with what was saved; values that do not parse are somebody else's and are skipped.
    pub fn new<'a>(
        range: Ipv4Net,
        range6: Ipv6Net,
        saved: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Self {
        let mut addresses = Self {
            range,
            range6,
            by_node: BTreeMap::new(),
            taken: BTreeSet::new(),
        };
        for (key, value) in saved {
            if let (Ok(node), Ok(octets)) = (<[u8; 32]>::try_from(key), <[u8; 4]>::try_from(value))
            {
                addresses.bind(NodeId::new(node), octets.into());
            }
        }
        addresses
    }

    /// Marks an address as a node's, because the membership says so.
    pub fn bind(&mut self, node: NodeId, address: Ipv4Addr) {
        self.by_node.insert(node, address);
        self.taken.insert(address);
    }

    /// Gives a node its address: the one it has, the one it wants, or the lowest free one that is not `used` by a
    /// container. The change must be durable before anybody is told.
    ///
    /// # Errors
    ///
    /// [`Code::AddressOutsideRange`], [`Code::AddressInUse`] or [`Code::RangeExhausted`]; nothing changes then.
    pub fn assign(
        &mut self,
        node: NodeId,
        wanted: Option<IpNet>,
        used: &BTreeSet<IpAddr>,
    ) -> Result<(Vec<IpNet>, Option<Change>), Code> {
        let address = match (self.by_node.get(&node), wanted) {
            (Some(&has), None) => return Ok((self.networks(has), None)),
            (Some(&has), Some(wanted)) if wanted.addr() == IpAddr::V4(has) => {
                return Ok((self.networks(has), None));
            }
            (_, Some(wanted)) => self.check(wanted, used)?,
            (None, None) => self.free(used).ok_or(Code::RangeExhausted)?,
        };
        if let Some(old) = self.by_node.insert(node, address) {
            self.taken.remove(&old);
        }
        self.taken.insert(address);
        let change = Change::Put {
            table: Table::Addresses,
            key: node.as_bytes().to_vec(),
            value: address.octets().to_vec(),
        };
        Ok((self.networks(address), Some(change)))
    }

    fn check(&self, wanted: IpNet, used: &BTreeSet<IpAddr>) -> Result<Ipv4Addr, Code> {
        let IpAddr::V4(address) = wanted.addr() else {
            return Err(Code::AddressOutsideRange);
        };
        if !self.range.contains(&address)
            || address == self.range.network()
            || address == self.range.broadcast()
        {
            return Err(Code::AddressOutsideRange);
        }
        if self.taken.contains(&address) || used.contains(&IpAddr::V4(address)) {
            return Err(Code::AddressInUse);
        }
        Ok(address)
    }

    fn free(&self, used: &BTreeSet<IpAddr>) -> Option<Ipv4Addr> {
        // Taken addresses ascend, so the first gap is found after as many steps as there are nodes.
        self.range
            .hosts()
            .find(|address| !self.taken.contains(address) && !used.contains(&IpAddr::V4(*address)))
    }

    /// The IPv6 address carries the IPv4 one in its low bits: one allocation serves both.
    fn networks(&self, address: Ipv4Addr) -> Vec<IpNet> {
        let v6 =
            Ipv6Addr::from_bits(self.range6.network().to_bits() | u128::from(address.to_bits()));
        [
            IpNet::new(IpAddr::V4(address), self.range.prefix_len()),
            IpNet::new(IpAddr::V6(v6), self.range6.prefix_len()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Refuses what nobody can have in a mesh of these ranges: an address outside them, one that means the network itself or
/// all in it, and a prefix length of another network.
///
/// # Errors
///
/// [`Code::AddressOutsideRange`].
pub fn refuse_unfit(wanted: IpNet, ranges: &[IpNet]) -> Result<(), Problem> {
    let address = wanted.addr();
    let Some(range) = ranges.iter().find(|range| range.contains(&address)) else {
        let names: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        let what = format!("{address} lies outside the mesh's range");
        let problem = Problem::new(Code::AddressOutsideRange, what);
        return Err(problem
            .why(format!("that is {}", names.join(" and ")))
            .fix(choose(ranges)));
    };
    let network = range.prefix_len();
    // Of an IPv6 network the last address is one like others (RFC 4291 §2.6.1 has the first one).
    let what = if address == range.network() {
        format!("{address} is the address of the network itself")
    } else if address.is_ipv4() && address == range.broadcast() {
        format!("{address} is the broadcast address of the network")
    } else if wanted.prefix_len() != network {
        format!("{wanted} has the prefix length of another network than the mesh's")
    } else {
        return Ok(());
    };
    let problem = Problem::new(Code::AddressOutsideRange, what);
    Err(problem.why(format!("the mesh's range is {range}")).fix(
        if wanted.prefix_len() == network {
            choose(ranges)
        } else {
            format!("Write an address with the range's prefix length: --address ADDRESS/{network}")
        },
    ))
}

fn choose(ranges: &[IpNet]) -> String {
    let prefixes = ranges
        .iter()
        .map(|range| format!("/{}", range.prefix_len()));
    let prefixes: Vec<String> = prefixes.collect();
    format!(
        "Choose another within the range, with its prefix length ({}): --address",
        prefixes.join(", IPv6 ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        let range = "10.32.0.0/29".parse().expect("a network");
        Addresses::new(
            range,
            "fd00:1:2:3::/64".parse().expect("a network"),
            std::iter::empty(),
        )
    }

    fn node(n: u8) -> NodeId {
        NodeId::new([n; 32])
    }

    #[test]
    fn a_node_keeps_its_address_across_restarts() {
        let mut first = addresses();
        let (given, change) = first.assign(node(1), None, &BTreeSet::new()).expect("free");
        let Some(Change::Put { key, value, .. }) = change else {
            panic!("durable")
        };

        let range = "10.32.0.0/29".parse().expect("a network");
        let saved = [(key.as_slice(), value.as_slice())];
        let mut second = Addresses::new(
            range,
            "fd00:1:2:3::/64".parse().expect("a network"),
            saved.into_iter(),
        );

        assert_eq!(
            second.assign(node(1), None, &BTreeSet::new()),
            Ok((given.clone(), None))
        );
        assert_eq!(given[0].to_string(), "10.32.0.1/29");
        assert_eq!(given[1].to_string(), "fd00:1:2:3::a20:1/64");
    }

    #[test]
    fn no_address_has_two_owners() {
        let mut addresses = addresses();

        let all: BTreeSet<_> = (0..6)
            .map(|n| {
                addresses
                    .assign(node(n), None, &BTreeSet::new())
                    .expect("free")
                    .0
            })
            .collect();

        assert_eq!(all.len(), 6);
        assert_eq!(
            addresses.assign(node(9), None, &BTreeSet::new()),
            Err(Code::RangeExhausted)
        );
    }

    #[test]
    fn what_nobody_can_have_is_refused_in_words() {
        let ranges = ["10.32.0.0/12", "fd00:1:2:3::/64"].map(|range| range.parse().expect("one"));
        let said = |wanted: &str| {
            let refused = refuse_unfit(wanted.parse().expect("a network"), &ranges);
            refused.map_err(|problem| (problem.code, problem.what))
        };

        for fit in ["10.32.0.1/12", "10.47.255.254/12", "fd00:1:2:3::1/64"] {
            assert_eq!(said(fit), Ok(()));
        }
        for (unfit, what) in [
            ("192.0.2.1/12", "192.0.2.1 lies outside the mesh's range"),
            ("224.0.0.1/12", "224.0.0.1 lies outside the mesh's range"),
            ("127.0.0.1/8", "127.0.0.1 lies outside the mesh's range"),
            ("fe80::1/64", "fe80::1 lies outside the mesh's range"),
            (
                "10.32.0.0/12",
                "10.32.0.0 is the address of the network itself",
            ),
            (
                "fd00:1:2:3::/64",
                "fd00:1:2:3:: is the address of the network itself",
            ),
            (
                "10.47.255.255/12",
                "10.47.255.255 is the broadcast address of the network",
            ),
            (
                "10.32.0.1/24",
                "10.32.0.1/24 has the prefix length of another network than the mesh's",
            ),
            (
                "fd00:1:2:3::1/128",
                "fd00:1:2:3::1/128 has the prefix length of another network than the mesh's",
            ),
        ] {
            let refused = (Code::AddressOutsideRange, what.to_owned());
            assert_eq!(said(unfit), Err(refused));
        }
    }

    #[test]
    fn a_wish_is_granted_or_refused_by_name() {
        let mut addresses = addresses();
        let wish = |text: &str| Some(text.parse().expect("a network"));

        assert!(
            addresses
                .assign(node(1), wish("10.32.0.5/29"), &BTreeSet::new())
                .is_ok()
        );

        assert_eq!(
            addresses.assign(node(2), wish("10.32.0.5/29"), &BTreeSet::new()),
            Err(Code::AddressInUse)
        );
        assert_eq!(
            addresses.assign(node(2), wish("10.32.0.7/29"), &BTreeSet::new()),
            Err(Code::AddressOutsideRange)
        );
        assert_eq!(
            addresses.assign(node(2), wish("10.33.0.1/29"), &BTreeSet::new()),
            Err(Code::AddressOutsideRange)
        );
    }
}
