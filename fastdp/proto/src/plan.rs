//! Says what the kernel's tables shall be.
//!
//! A remote endpoint has one FDB entry, its Ethernet address behind the TAP, and a permanent neighbour per IP address:
//! with both in place the bridge itself answers who has that address. A container here has one entry, behind its port,
//! which is at once what lets its frames in. This host has its addresses on the bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weft_router_proto::snapshot::{Endpoint, EndpointKind, Snapshot};
use weft_types::{MacAddr, PortFlag, PortFlags};

use crate::tables::{Bridge, Devices, Port, Power, Tables};

/// What the tables of this host shall be.
///
/// Endpoints whose port does not exist have no entry: the container is gone, and its owner will say so. Records that no
/// kernel would take, or that would turn this host's own frames away, are passed over.
pub fn desired(snapshot: &Snapshot, devices: &Devices) -> Tables {
    let mtu = u32::from(snapshot.mtu.get());
    let mut tables = Tables {
        bridge: Bridge {
            mac: None,
            mtu,
            power: Power::On,
        },
        addresses: snapshot
            .host_addresses
            .iter()
            .copied()
            .filter(|net| devices.families.has(net.addr()))
            .collect(),
        ports: BTreeMap::new(),
        fdb: BTreeMap::new(),
        neighbours: BTreeMap::new(),
    };
    for name in &devices.ports {
        if *name == devices.tap {
            tables.ports.insert(name.clone(), port(mtu, sleeve_flags()));
        }
    }
    let here = snapshot
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.segment == devices.segment && is_station(endpoint.mac));
    for endpoint in here {
        if endpoint.owner == snapshot.node {
            plan_local(&mut tables, endpoint, devices, mtu);
        } else {
            plan_remote(&mut tables, endpoint, devices);
        }
    }
    let own: BTreeSet<IpAddr> = tables.addresses.iter().map(ipnet::IpNet::addr).collect();
    tables
        .neighbours
        .retain(|address, _| !own.contains(address));
    tables
}

fn plan_local(tables: &mut Tables, endpoint: &Endpoint, devices: &Devices, mtu: u32) {
    match &endpoint.kind {
        EndpointKind::Host => tables.bridge.mac = Some(endpoint.mac),
        EndpointKind::Attached { port: name } => {
            if *name == devices.tap || !devices.ports.contains(name) {
                return;
            }
            tables
                .ports
                .insert(name.clone(), port(mtu, container_flags()));
            if !devices.own.contains(&endpoint.mac) {
                tables.fdb.insert(endpoint.mac, name.clone());
            }
        }
    }
}

fn plan_remote(tables: &mut Tables, endpoint: &Endpoint, devices: &Devices) {
    if devices.own.contains(&endpoint.mac) || !devices.ports.contains(&devices.tap) {
        return;
    }
    tables.fdb.insert(endpoint.mac, devices.tap.clone());
    for address in &endpoint.addresses {
        if is_host(*address) && devices.families.has(*address) {
            tables.neighbours.insert(*address, endpoint.mac);
        }
    }
}

/// The sleeve's port takes everything that the kernel does not know, and all floods.
pub fn sleeve_flags() -> PortFlags {
    BTreeMap::from([
        (PortFlag::BroadcastFlood, true),
        (PortFlag::Isolated, true),
        (PortFlag::Learning, false),
        (PortFlag::Locked, false),
        (PortFlag::MulticastFlood, true),
        (PortFlag::MulticastRouter, true),
        (PortFlag::NeighSuppress, true),
        (PortFlag::UnicastFlood, true),
    ])
}

/// A container's port lets in what comes from the container's own address, and is not told what is for others.
pub fn container_flags() -> PortFlags {
    BTreeMap::from([
        (PortFlag::BroadcastFlood, true),
        (PortFlag::Isolated, false),
        (PortFlag::Learning, false),
        (PortFlag::Locked, true),
        (PortFlag::MulticastFlood, true),
        (PortFlag::MulticastRouter, false),
        (PortFlag::NeighSuppress, false),
        (PortFlag::UnicastFlood, false),
    ])
}

fn port(mtu: u32, flags: PortFlags) -> Port {
    Port {
        mtu,
        power: Power::On,
        flags: Some(flags),
    }
}

/// The kernel takes no other address into an FDB (`is_valid_ether_addr`).
fn is_station(mac: MacAddr) -> bool {
    !mac.is_group() && *mac.as_bytes() != [0; 6]
}

/// Whether a neighbour can have it.
fn is_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast)
}

#[cfg(test)]
mod tests {
    use weft_types::{Mtu, NodeId, Segment};

    use super::*;
    use crate::tables::Families;

    const OURS: NodeId = NodeId::new([1; 32]);
    const THEIRS: NodeId = NodeId::new([2; 32]);

    fn mac(last: u8) -> MacAddr {
        MacAddr::new([2, 0, 0, 0, 0, last])
    }

    fn endpoint(owner: NodeId, last: u8, kind: EndpointKind) -> Endpoint {
        Endpoint {
            segment: Segment::DEFAULT,
            mac: mac(last),
            addresses: vec![
                IpAddr::from([10, 32, 0, last]),
                format!("fd00::{last}").parse().unwrap(),
            ],
            owner,
            kind,
        }
    }

    fn attached(port: &str) -> EndpointKind {
        EndpointKind::Attached { port: port.into() }
    }

    fn snapshot(endpoints: Vec<Endpoint>) -> Snapshot {
        Snapshot {
            generation: 1,
            node: OURS,
            mtu: Mtu::MESH,
            ranges: vec!["10.32.0.0/12".parse().unwrap()],
            host_addresses: vec![
                "10.32.0.1/12".parse().unwrap(),
                "fd00::1/64".parse().unwrap(),
            ],
            peers: Vec::new(),
            endpoints,
        }
    }

    fn devices() -> Devices {
        Devices {
            segment: Segment::DEFAULT,
            bridge: "weft".into(),
            tap: "weft-tap".into(),
            ports: ["weft-tap", "wv1"].map(String::from).into(),
            own: [mac(99)].into(),
            families: Families::Both,
        }
    }

    #[test]
    fn a_remote_endpoint_is_behind_the_tap_and_a_neighbour_by_every_address() {
        let tables = desired(
            &snapshot(vec![endpoint(THEIRS, 2, attached(""))]),
            &devices(),
        );

        assert_eq!(tables.fdb, [(mac(2), "weft-tap".into())].into());
        assert_eq!(
            tables.neighbours,
            [
                ("10.32.0.2".parse().unwrap(), mac(2)),
                ("fd00::2".parse().unwrap(), mac(2))
            ]
            .into()
        );
    }

    #[test]
    fn a_container_here_is_behind_its_locked_port_and_nobody_answers_for_it() {
        let tables = desired(
            &snapshot(vec![endpoint(OURS, 3, attached("wv1"))]),
            &devices(),
        );

        assert_eq!(tables.fdb, [(mac(3), "wv1".into())].into());
        assert!(tables.neighbours.is_empty());
        assert_eq!(tables.ports["wv1"].flags, Some(container_flags()));
    }

    #[test]
    fn a_container_whose_port_is_gone_has_no_entry() {
        let tables = desired(
            &snapshot(vec![endpoint(OURS, 3, attached("wv9"))]),
            &devices(),
        );

        assert!(tables.fdb.is_empty());
        assert!(!tables.ports.contains_key("wv9"));
    }

    #[test]
    fn the_host_itself_is_the_bridge() {
        let tables = desired(
            &snapshot(vec![endpoint(OURS, 1, EndpointKind::Host)]),
            &devices(),
        );

        assert_eq!(tables.bridge.mac, Some(mac(1)));
        assert_eq!(tables.addresses.len(), 2);
        assert!(tables.fdb.is_empty());
    }

    #[test]
    fn a_stranger_that_claims_this_host_s_addresses_is_passed_over() {
        let mut liar = endpoint(THEIRS, 99, attached(""));
        liar.addresses = vec!["10.32.0.1".parse().unwrap()];
        let mut group = endpoint(THEIRS, 5, attached(""));
        group.mac = MacAddr::new([1, 0, 0x5e, 0, 0, 1]);
        let mut other = endpoint(THEIRS, 6, attached(""));
        other.addresses = vec!["10.32.0.1".parse().unwrap(), "ff02::1".parse().unwrap()];

        let tables = desired(&snapshot(vec![liar, group, other]), &devices());

        assert_eq!(tables.fdb, [(mac(6), "weft-tap".into())].into());
        assert!(tables.neighbours.is_empty());
    }

    #[test]
    fn a_kernel_without_ipv6_is_asked_for_none() {
        let devices = Devices {
            families: Families::V4,
            ..devices()
        };

        let tables = desired(&snapshot(vec![endpoint(THEIRS, 2, attached(""))]), &devices);

        assert_eq!(tables.addresses.len(), 1);
        assert_eq!(tables.neighbours.len(), 1);
    }

    #[test]
    fn another_network_of_the_mesh_is_not_on_this_bridge() {
        let mut elsewhere = endpoint(THEIRS, 2, attached(""));
        elsewhere.segment = Segment::new(7).unwrap();

        let tables = desired(&snapshot(vec![elsewhere]), &devices());

        assert!(tables.fdb.is_empty() && tables.neighbours.is_empty());
    }
}
