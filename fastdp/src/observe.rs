//! Reads what the kernel has.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_fastdp_proto::tables::{
    Bridge, Devices, Families, Manner, Observed, ObservedFdb, PORT_PREFIX, Port, Power,
};
use weft_kernel::addr::Address;
use weft_kernel::fdb::{FdbEntry, Hold};
use weft_kernel::link::{Link, LinkKind};
use weft_kernel::neigh::Neighbour;
use weft_kernel::netlink::{LinkIndex, Netlink, NetlinkError};
use weft_kernel::probe;
use weft_types::{MacAddr, Segment};

use crate::names::DeviceNames;

/// What the kernel has, and what it calls the devices.
pub(crate) struct Sight {
    pub(crate) devices: Arc<Devices>,
    pub(crate) observed: Observed,
    pub(crate) bridge: LinkIndex,
    pub(crate) ports: BTreeMap<String, PortDevice>,
}

/// The device of a port of ours.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortDevice {
    pub(crate) index: LinkIndex,
    pub(crate) mac: Option<MacAddr>,
}

/// What stands in the tables of a bridge.
struct Entries {
    addresses: Vec<Address>,
    fdb: Vec<FdbEntry>,
    neighbours: Vec<Neighbour>,
}

/// Reads everything that a plan needs; `None` where the bridge is not there.
pub(crate) async fn look(
    netlink: &Netlink,
    names: &DeviceNames,
) -> Result<Option<Sight>, NetlinkError> {
    let links = netlink.links().await?;
    let Some(bridge) = links.iter().find(|link| link.name == names.bridge) else {
        return Ok(None);
    };
    let entries = read_entries(netlink, bridge.index).await?;
    let ports = links.iter();
    let ports = ports.filter(|link| is_port(link, bridge.index, names));
    let ports: Vec<&Link> = ports.collect();
    Ok(Some(Sight {
        devices: Arc::new(devices(names, &ports)),
        observed: observed(bridge, &ports, &entries, &links),
        bridge: bridge.index,
        ports: by_name(&ports, device),
    }))
}

async fn read_entries(netlink: &Netlink, bridge: LinkIndex) -> Result<Entries, NetlinkError> {
    Ok(Entries {
        addresses: netlink.addresses().await?,
        fdb: netlink.fdb(bridge).await?,
        neighbours: netlink.neighbours(bridge).await?,
    })
}

fn devices(names: &DeviceNames, ports: &[&Link]) -> Devices {
    Devices {
        segment: Segment::DEFAULT,
        bridge: names.bridge.clone(),
        tap: names.tap.clone(),
        ports: ports.iter().map(|link| link.name.clone()).collect(),
        own: ports.iter().filter_map(|link| link.mac).collect(),
        families: families(),
    }
}

fn observed(bridge: &Link, ports: &[&Link], entries: &Entries, links: &[Link]) -> Observed {
    let addresses = entries.addresses.iter();
    let neighbours = entries.neighbours.iter();
    Observed {
        bridge: self::bridge(bridge),
        addresses: addresses
            .filter(|address| address.link == bridge.index)
            .map(|address| address.net)
            .collect(),
        ports: by_name(ports, port),
        fdb: fdb(&entries.fdb, links),
        neighbours: neighbours.map(|it| (it.address, it.mac)).collect(),
    }
}

fn bridge(link: &Link) -> Bridge {
    Bridge {
        mac: link.mac,
        mtu: link.mtu,
        power: power(link),
        manner: if link.as_made {
            Manner::AsMade
        } else {
            Manner::Changed
        },
    }
}

/// The entries, with the names of the ports; those of a port that is no more are left out.
fn fdb(entries: &[FdbEntry], links: &[Link]) -> Vec<ObservedFdb> {
    let names = links.iter().map(|link| (link.index, link.name.as_str()));
    let names: BTreeMap<LinkIndex, &str> = names.collect();
    let observed = |entry: &FdbEntry| {
        let port = (*names.get(&entry.port)?).to_owned();
        let (mac, sticky) = (entry.mac, entry.hold == Hold::Sticky);
        Some(ObservedFdb { mac, port, sticky })
    };
    entries.iter().filter_map(observed).collect()
}

fn by_name<T>(links: &[&Link], read: fn(&Link) -> T) -> BTreeMap<String, T> {
    let named = links.iter().map(|link| (link.name.clone(), read(link)));
    named.collect()
}

pub(crate) const fn device(link: &Link) -> PortDevice {
    PortDevice {
        index: link.index,
        mac: link.mac,
    }
}

/// Whether a device is a port of ours, or one that fell off the bridge.
pub(crate) fn is_port(link: &Link, bridge: LinkIndex, names: &DeviceNames) -> bool {
    let ours = match link.kind {
        LinkKind::Tun => link.name == names.tap,
        LinkKind::Veth => link.name.starts_with(PORT_PREFIX),
        LinkKind::Bridge | LinkKind::Loopback | LinkKind::Other(_) | LinkKind::Physical => false,
    };
    ours && link
        .controller
        .is_none_or(|controller| controller == bridge)
}

fn families() -> Families {
    if probe::has_ipv6() {
        Families::Both
    } else {
        Families::V4
    }
}

fn power(link: &Link) -> Power {
    if link.up { Power::On } else { Power::Off }
}

pub(crate) fn port(link: &Link) -> Port {
    Port {
        mtu: link.mtu,
        power: power(link),
        flags: link.port.clone().filter(|_| link.controller.is_some()),
        max_groups: link.max_groups.filter(|_| link.controller.is_some()),
    }
}
