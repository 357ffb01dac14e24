//! Finds the addresses at which other hosts may reach this one.
//!
//! Left out are addresses that mean something else elsewhere: the loopback's, link-local ones, those of bridges that
//! lead to nothing but containers or guests, and the mesh's own. A bridge with a network card behind it is how such a
//! host is connected, and counts.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_kernel::addr::{Address, Reach};
use weft_kernel::link::{Link, LinkKind};
use weft_types::Problem;

use crate::fault;
use crate::host::connect;
use crate::names::DeviceNames;

/// The addresses at which other hosts may reach this one, in order.
///
/// Must be called within a tokio runtime, in the network namespace of the router.
pub async fn underlay_addresses(names: &DeviceNames) -> Result<Vec<IpAddr>, Problem> {
    let netlink = connect()?;
    let refused = |error| fault::refused("read this host's addresses", error);
    let links = netlink.links().await.map_err(refused)?;
    let addresses = netlink.addresses().await.map_err(refused)?;
    Ok(select(&links, &addresses, names))
}

fn select(links: &[Link], addresses: &[Address], names: &DeviceNames) -> Vec<IpAddr> {
    let outward: BTreeSet<_> = links
        .iter()
        .filter(|link| link.up && link.name != names.bridge && leads_out(link, links))
        .map(|link| link.index)
        .collect();
    let found: BTreeSet<IpAddr> = addresses
        .iter()
        .filter(|address| address.usable && address.reach == Reach::Global)
        .filter(|address| outward.contains(&address.link))
        .map(|address| address.net.addr())
        .filter(|address| !matches!(address, IpAddr::V4(v4) if v4.is_link_local()))
        .collect();
    found.into_iter().collect()
}

fn leads_out(link: &Link, links: &[Link]) -> bool {
    match link.kind {
        LinkKind::Loopback => false,
        LinkKind::Bridge => links
            .iter()
            .filter(|port| port.controller == Some(link.index))
            .any(|port| !matches!(port.kind, LinkKind::Tun | LinkKind::Veth)),
        LinkKind::Other(_) | LinkKind::Physical | LinkKind::Tun | LinkKind::Veth => true,
    }
}

#[cfg(test)]
mod tests {
    use weft_kernel::netlink::LinkIndex;

    use super::*;

    fn link(index: u32, kind: LinkKind, controller: Option<u32>) -> Link {
        Link {
            index: LinkIndex::new(index),
            name: format!("link{index}"),
            kind,
            mac: None,
            mtu: 1500,
            up: true,
            controller: controller.map(LinkIndex::new),
            port: None,
            alias: None,
        }
    }

    fn address(link: u32, net: &str) -> Address {
        Address {
            link: LinkIndex::new(link),
            net: net.parse().unwrap(),
            reach: Reach::Global,
            usable: true,
        }
    }

    #[test]
    fn bridges_count_where_a_network_card_is_behind_them() {
        let links = [
            link(1, LinkKind::Loopback, None),
            link(2, LinkKind::Physical, Some(3)),
            link(3, LinkKind::Bridge, None),
            link(4, LinkKind::Bridge, None),
            link(5, LinkKind::Veth, Some(4)),
            link(6, LinkKind::Veth, None),
        ];
        let addresses = [
            address(1, "192.0.2.1/32"),
            address(3, "192.0.2.3/24"),
            address(4, "172.17.0.1/16"),
            address(6, "2001:db8::6/64"),
            address(6, "169.254.0.6/16"),
        ];

        let found = select(&links, &addresses, &DeviceNames::default());

        let expected: [IpAddr; 2] = ["192.0.2.3", "2001:db8::6"].map(|ip| ip.parse().unwrap());
        assert_eq!(found, expected);
    }
}
