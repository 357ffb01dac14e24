//! Finds the addresses at which other hosts may reach this one, and hears when they change.
//!
//! Left out are addresses that mean something else elsewhere: those of this host or this link only, those of bridges that
//! lead to nothing but containers or guests, and the mesh's own. A bridge with a network card behind it is how such a
//! host is connected, and counts. So does the loopback device where it has an address for others: hosts that announce
//! theirs by BGP keep it there.
//!
//! **Failure policy.** Where the kernel does not answer, what was found last holds until it does.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;
use weft_kernel::addr::{Address, Reach};
use weft_kernel::link::{Link, LinkKind};
use weft_kernel::monitor::{Change, Subject};
use weft_kernel::netlink::{LinkIndex, Netlink, NetlinkError};
use weft_types::Problem;

use crate::bridge::connect;
use crate::fault;
use crate::names::DeviceNames;
use crate::notices::{Notices, show};

/// A look without a reason: notices may be lost.
const AUDIT: Duration = Duration::from_secs(30);
/// A look where there are no notices. Short beside the 15 s that a peer waits at most before it dials again.
const BLIND: Duration = Duration::from_secs(5);

/// Finds the addresses at which other hosts may reach this one, in order, and keeps them up to date until the last
/// receiver is gone.
///
/// Must be called within a tokio runtime, in the network namespace of the router.
pub async fn watch(names: &DeviceNames) -> Result<watch::Receiver<Vec<IpAddr>>, Problem> {
    // Before the look: what changes after it is heard.
    let notices = Notices::open(&[Subject::Addresses, Subject::Links]);
    let netlink = connect()?;
    let sight = look(&netlink, names)
        .await
        .map_err(|error| fault::refused("read this host's addresses", error))?;
    let (sender, receiver) = watch::channel(sight.addresses.clone());
    tokio::spawn(keep(netlink, names.clone(), notices, sight, sender));
    Ok(receiver)
}

async fn keep(
    netlink: Netlink,
    names: DeviceNames,
    mut notices: Notices,
    mut sight: Sight,
    found: watch::Sender<Vec<IpAddr>>,
) {
    loop {
        let audit = if notices.are_heard() { AUDIT } else { BLIND };
        tokio::select! {
            () = found.closed() => return,
            () = notices.next(|change| sight.may_change_by(change)) => {}
            () = sleep(audit) => {}
        }
        match look(&netlink, &names).await {
            Ok(next) => sight = next,
            Err(error) => warn!(%error, "cannot read this host's addresses"),
        }
        show(&found, &sight.addresses);
    }
}

/// What was found, and on what it depends.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sight {
    addresses: Vec<IpAddr>,
    /// The devices that have addresses for others, whether these count or not, but for the mesh's bridge.
    bearers: BTreeSet<LinkIndex>,
    /// The ports of those of them that are bridges.
    ports: BTreeSet<LinkIndex>,
}

impl Sight {
    /// Whether a change may concern the addresses. Most do not: containers come and go with every minute of the day.
    fn may_change_by(&self, change: Change) -> bool {
        match change {
            Change::Address(_) | Change::Lost => true,
            Change::Fdb { .. } | Change::Neighbour { .. } => false,
            Change::Link { link, controller } => {
                self.bearers.contains(&link)
                    || self.ports.contains(&link)
                    || controller.is_some_and(|bridge| self.bearers.contains(&bridge))
            }
        }
    }
}

async fn look(netlink: &Netlink, names: &DeviceNames) -> Result<Sight, NetlinkError> {
    let (links, addresses) = (netlink.links().await?, netlink.addresses().await?);
    Ok(select(&links, &addresses, names))
}

fn select(links: &[Link], addresses: &[Address], names: &DeviceNames) -> Sight {
    let mesh = links.iter().find(|link| link.name == names.bridge);
    let mesh = mesh.map(|link| link.index);
    let offered = addresses.iter();
    let offered = offered.filter(|it| Some(it.link) != mesh && is_for_others(it));
    let outward = indices(links, |link| link.up && leads_out(link, links));
    let counts = |address: &&Address| outward.contains(&address.link);
    let found = offered.clone().filter(counts);
    let found: BTreeSet<IpAddr> = found.map(|address| address.net.addr()).collect();
    let bearers: BTreeSet<LinkIndex> = offered.map(|address| address.link).collect();
    let is_port = |link: &Link| link.controller.is_some_and(|it| bearers.contains(&it));
    Sight {
        addresses: found.into_iter().collect(),
        ports: indices(links, is_port),
        bearers,
    }
}

/// The devices that something is true of.
fn indices(links: &[Link], is: impl Fn(&Link) -> bool) -> BTreeSet<LinkIndex> {
    let which = links.iter().filter(|link| is(link));
    which.map(|link| link.index).collect()
}

fn is_for_others(address: &Address) -> bool {
    let only_here = match address.net.addr() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    };
    address.usable && address.reach == Reach::Global && !only_here
}

fn leads_out(link: &Link, links: &[Link]) -> bool {
    match link.kind {
        LinkKind::Bridge => bridges_out(link.index, links),
        LinkKind::Loopback
        | LinkKind::Other(_)
        | LinkKind::Physical
        | LinkKind::Tun
        | LinkKind::Veth => true,
    }
}

/// Whether a bridge has other ports than those of containers and virtual machines.
fn bridges_out(bridge: LinkIndex, links: &[Link]) -> bool {
    let mut ports = links.iter().filter(|port| port.controller == Some(bridge));
    ports.any(|port| !matches!(port.kind, LinkKind::Tun | LinkKind::Veth))
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

    fn found(links: &[Link], addresses: &[Address]) -> Vec<String> {
        let sight = select(links, addresses, &DeviceNames::default());
        sight.addresses.iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn bridges_count_where_a_network_card_is_behind_them() {
        let links = [
            link(2, LinkKind::Physical, Some(3)),
            link(3, LinkKind::Bridge, None),
            link(4, LinkKind::Bridge, None),
            link(5, LinkKind::Veth, Some(4)),
            link(6, LinkKind::Bridge, None),
        ];
        let addresses = [
            address(3, "192.0.2.3/24"),
            address(4, "172.17.0.1/16"),
            address(6, "172.18.0.1/16"),
        ];

        assert_eq!(found(&links, &addresses), ["192.0.2.3"]);
    }

    #[test]
    fn what_nobody_else_can_dial_is_left_out() {
        let links = [
            link(1, LinkKind::Loopback, None),
            link(6, LinkKind::Veth, None),
        ];
        let mut here = address(1, "198.51.100.2/32");
        here.reach = Reach::Host;
        let mut taken = address(6, "2001:db8::5/64");
        taken.usable = false;
        let addresses = [
            address(1, "127.0.0.2/8"),
            address(1, "198.51.100.1/32"),
            here,
            address(6, "169.254.0.6/16"),
            address(6, "fe80::6/64"),
            address(6, "2001:db8::6/64"),
            taken,
        ];

        assert_eq!(found(&links, &addresses), ["198.51.100.1", "2001:db8::6"]);
    }

    #[test]
    fn a_device_that_is_off_and_the_mesh_s_own_bridge_have_no_addresses_for_others() {
        let mut off = link(2, LinkKind::Physical, None);
        off.up = false;
        let mut mesh = link(3, LinkKind::Bridge, None);
        mesh.name = "weft".into();
        let card = link(4, LinkKind::Physical, Some(3));
        let addresses = [address(2, "192.0.2.2/24"), address(3, "10.32.0.1/12")];

        assert_eq!(found(&[off, mesh, card], &addresses), [""; 0]);
    }

    #[test]
    fn containers_that_come_to_the_mesh_are_no_reason_to_look() {
        let mut mesh = link(3, LinkKind::Bridge, None);
        mesh.name = "weft".into();
        let links = [
            mesh,
            link(4, LinkKind::Veth, Some(3)),
            link(5, LinkKind::Bridge, None),
            link(6, LinkKind::Veth, Some(5)),
        ];
        let addresses = [address(3, "10.32.0.1/12"), address(5, "172.17.0.1/16")];
        let sight = select(&links, &addresses, &DeviceNames::default());
        let by = |link, controller: Option<u32>| {
            sight.may_change_by(Change::Link {
                link: LinkIndex::new(link),
                controller: controller.map(LinkIndex::new),
            })
        };

        assert!(!by(4, Some(3)));
        assert!(!by(9, None));
        // A bridge may lead out from now on, or no more.
        assert!(by(9, Some(5)));
        assert!(by(6, None));
        assert!(by(5, None));
    }
}
