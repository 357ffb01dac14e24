//! Reads what the kernel has.

use std::collections::BTreeMap;

use weft_fastdp_proto::tables::{
    Bridge, Devices, Families, Observed, ObservedFdb, PORT_PREFIX, Port, Power,
};
use weft_kernel::fdb::Hold;
use weft_kernel::link::{Link, LinkKind};
use weft_kernel::netlink::{LinkIndex, Netlink, NetlinkError};
use weft_kernel::probe;
use weft_types::{MacAddr, Segment};

use crate::names::DeviceNames;

/// What the kernel has, and what it calls the devices.
pub(crate) struct Sight {
    pub(crate) devices: Devices,
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

/// Reads everything that a plan needs; `None` where the bridge is not there.
pub(crate) async fn look(
    netlink: &Netlink,
    names: &DeviceNames,
) -> Result<Option<Sight>, NetlinkError> {
    let links = netlink.links().await?;
    let Some(bridge) = links.iter().find(|link| link.name == names.bridge) else {
        return Ok(None);
    };
    let ports: Vec<&Link> = links
        .iter()
        .filter(|link| is_port(link, bridge.index, names))
        .collect();
    let addresses = netlink.addresses().await?;
    let fdb = netlink.fdb(bridge.index).await?;
    let neighbours = netlink.neighbours(bridge.index).await?;
    let name_of: BTreeMap<LinkIndex, &str> = links
        .iter()
        .map(|link| (link.index, link.name.as_str()))
        .collect();
    let observed = Observed {
        bridge: Bridge {
            mac: bridge.mac,
            mtu: bridge.mtu,
            power: power(bridge),
        },
        addresses: addresses
            .iter()
            .filter(|address| address.link == bridge.index)
            .map(|address| address.net)
            .collect(),
        ports: ports
            .iter()
            .map(|link| (link.name.clone(), port(link)))
            .collect(),
        fdb: fdb
            .iter()
            .filter_map(|entry| {
                Some(ObservedFdb {
                    mac: entry.mac,
                    port: (*name_of.get(&entry.port)?).to_owned(),
                    sticky: entry.hold == Hold::Sticky,
                })
            })
            .collect(),
        neighbours: neighbours
            .iter()
            .map(|neighbour| (neighbour.address, neighbour.mac))
            .collect(),
    };
    Ok(Some(Sight {
        devices: Devices {
            segment: Segment::DEFAULT,
            bridge: names.bridge.clone(),
            tap: names.tap.clone(),
            ports: ports.iter().map(|link| link.name.clone()).collect(),
            own: ports.iter().filter_map(|link| link.mac).collect(),
            families: families(),
        },
        observed,
        bridge: bridge.index,
        ports: ports
            .iter()
            .map(|link| (link.name.clone(), device(link)))
            .collect(),
    }))
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
    }
}
