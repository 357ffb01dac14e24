//! Finds the addresses at which other hosts may reach this one, and hears when they change.
//!
//! Left out are addresses that mean something else elsewhere: those of this host or this link only, those of bridges that
//! lead to nothing but containers or guests, and the mesh's own. A bridge with a network card behind it is how such a
//! host is connected, and counts. So does the loopback device where it has an address for others: hosts that announce
//! theirs by BGP keep it there. What runs over the mesh itself, as a VXLAN between addresses of the mesh, is no way to build it:
//! each datagram that went by it would cause another.
//!
//! They come in the order of their use: those that packets to anywhere leave from, those of the same devices, the others.
//!
//! **Failure policy.** Where the kernel does not answer, what was found last holds until it does.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::time::Duration;

use ipnet::IpNet;
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

/// Addresses far away, of documentation (RFC 5737, RFC 3849): only a default route leads there.
const ANYWHERE: [SocketAddr; 2] = [
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9)),
    SocketAddr::V6(SocketAddrV6::new(
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        9,
        0,
        0,
    )),
];

/// Finds the addresses at which other hosts may reach this one, the most useful first, and keeps them up to date until the last
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
            Change::Fdb { .. } | Change::Neighbour { .. } | Change::Route(_) => false,
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
    Ok(select(&links, &addresses, &usual_sources(), names))
}

/// Where packets to hosts far away leave from, one address of each family that has a way there.
fn usual_sources() -> Vec<IpAddr> {
    ANYWHERE.iter().filter_map(|to| source(*to)).collect()
}

/// Where packets to an address leave from. Nothing is sent: the kernel looks its routes up.
fn source(to: SocketAddr) -> Option<IpAddr> {
    let any = match to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn select(links: &[Link], addresses: &[Address], usual: &[IpAddr], names: &DeviceNames) -> Sight {
    let mesh = links.iter().find(|link| link.name == names.bridge);
    let mesh = mesh.map(|link| link.index);
    let inside = over_the_mesh(links, addresses, mesh);
    let offered = addresses.iter();
    let offered = offered.filter(|it| Some(it.link) != mesh && is_for_others(it));
    let others: Vec<Link> = links
        .iter()
        .filter(|link| !inside.contains(&link.index))
        .cloned()
        .collect();
    let outward = indices(&others, |link| link.up && leads_out(link, &others));
    let counts = |address: &&Address| outward.contains(&address.link);
    let found: Vec<&Address> = offered.clone().filter(counts).collect();
    let bearers: BTreeSet<LinkIndex> = offered.map(|address| address.link).collect();
    let is_port = |link: &Link| link.controller.is_some_and(|it| bearers.contains(&it));
    Sight {
        addresses: in_order_of_use(&found, usual),
        ports: indices(links, is_port),
        bearers,
    }
}

fn in_order_of_use(found: &[&Address], usual: &[IpAddr]) -> Vec<IpAddr> {
    let place = |ip: IpAddr| usual.iter().position(|&it| it == ip).unwrap_or(usual.len());
    let mains = found.iter().filter(|it| usual.contains(&it.net.addr()));
    let mains: BTreeSet<LinkIndex> = mains.map(|it| it.link).collect();
    let rank = |it: &&Address| {
        let ip = it.net.addr();
        (place(ip), !mains.contains(&it.link), ip)
    };
    let ranked: BTreeSet<(usize, bool, IpAddr)> = found.iter().map(rank).collect();
    let mut seen = BTreeSet::new();
    let all = ranked.into_iter().map(|(_, _, ip)| ip);
    all.filter(|&ip| seen.insert(ip)).collect()
}

/// The devices whose packets leave by the mesh's bridge, packed into others.
fn over_the_mesh(
    links: &[Link],
    addresses: &[Address],
    mesh: Option<LinkIndex>,
) -> BTreeSet<LinkIndex> {
    let Some(mesh) = mesh else {
        return BTreeSet::new();
    };
    let mut nets: Vec<IpNet> = nets_of(mesh, addresses).collect();
    let mut inside = BTreeSet::from([mesh]);
    // Each round finds one storey more.
    loop {
        let stands_on = |link: &&Link| {
            let on = link.under.link.is_some_and(|it| inside.contains(&it));
            let ends = &link.under.ends;
            let through = ends
                .iter()
                .any(|end| nets.iter().any(|net| net.contains(end)));
            !inside.contains(&link.index) && (on || through)
        };
        let more: Vec<LinkIndex> = links.iter().filter(stands_on).map(|it| it.index).collect();
        if more.is_empty() {
            inside.remove(&mesh);
            return inside;
        }
        nets.extend(more.iter().flat_map(|&link| nets_of(link, addresses)));
        inside.extend(more);
    }
}

fn nets_of(link: LinkIndex, addresses: &[Address]) -> impl Iterator<Item = IpNet> {
    let on = addresses.iter().filter(move |it| it.link == link);
    on.filter(|it| is_for_others(it)).map(|it| it.net)
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
    use weft_kernel::link::Under;
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
            max_groups: None,
            as_made: true,
            alias: None,
            under: Under::default(),
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
        let sight = select(links, addresses, &[], &DeviceNames::default());
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
    fn what_runs_over_the_mesh_leads_to_no_other_host() {
        let mut mesh = link(3, LinkKind::Bridge, None);
        mesh.name = "weft".into();
        let tunnel = |index, ends: &[&str], controller| {
            let mut tunnel = link(index, LinkKind::Other("vxlan".into()), controller);
            tunnel.under.ends = ends.iter().map(|end| end.parse().unwrap()).collect();
            tunnel
        };
        let mut vlan = link(6, LinkKind::Other("vlan".into()), None);
        vlan.under.link = Some(LinkIndex::new(4));
        let links = [
            link(2, LinkKind::Physical, None),
            mesh,
            tunnel(4, &["10.32.0.2"], None),
            tunnel(5, &["192.0.2.7"], None),
            vlan,
            tunnel(7, &["172.20.0.9"], Some(8)),
            link(8, LinkKind::Bridge, None),
        ];
        let addresses = [
            address(2, "192.0.2.2/24"),
            address(3, "10.32.0.1/12"),
            address(4, "172.20.0.1/24"),
            address(5, "172.21.0.1/24"),
            address(6, "172.22.0.1/24"),
            address(8, "172.23.0.1/24"),
        ];

        // The last tunnel goes through the first, and nothing else is behind its bridge.
        assert_eq!(found(&links, &addresses), ["172.21.0.1", "192.0.2.2"]);
    }

    #[test]
    fn the_addresses_that_packets_leave_from_come_first() {
        let links = [
            link(2, LinkKind::Physical, None),
            link(3, LinkKind::Other("dummy".into()), None),
        ];
        let addresses = [
            address(3, "10.0.0.1/24"),
            address(2, "198.51.100.9/24"),
            address(2, "192.0.2.200/24"),
            address(2, "2001:db8:5::2/64"),
        ];
        let usual = [
            "198.51.100.9".parse().unwrap(),
            "2001:db8:5::2".parse().unwrap(),
        ];
        let sight = select(&links, &addresses, &usual, &DeviceNames::default());
        let found: Vec<String> = sight.addresses.iter().map(IpAddr::to_string).collect();

        let order = ["198.51.100.9", "2001:db8:5::2", "192.0.2.200", "10.0.0.1"];
        assert_eq!(found, order);
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
        let sight = select(&links, &addresses, &[], &DeviceNames::default());
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
