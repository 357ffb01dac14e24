//! Says what the kernel's tables shall be, and keeps that up from one snapshot to the next.
//!
//! A remote endpoint has one FDB entry, its Ethernet address behind the TAP, and a permanent neighbour per IP address:
//! with both in place the bridge itself answers who has that address. A container here has one entry, behind its port,
//! which is at once what lets its frames in. This host has its addresses on the bridge.
//!
//! **Invariant.** Whatever led to a [`Plan`], its tables are those of one that is made of its snapshot alone, and its
//! patches lead a kernel from the tables before to the tables after.
//! **Cost.** A plan that follows looks at the parts of the endpoints that the two snapshots do not share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_router_proto::snapshot::{Endpoint, EndpointKind, Snapshot};
use weft_types::{MacAddr, NodeId, PortFlag, PortFlags};

use crate::diff::{Patch, diff};
use crate::tables::{Bridge, Devices, Manner, Port, Power, Tables};

/// Multicast groups that may be joined behind a container's port. Each IPv6 address takes one, and programs seldom more than
/// a few; a thousand containers with as many fit into the bridge's table.
pub const CONTAINER_GROUPS: u32 = 64;
/// Behind the sleeve's port are all other hosts.
const ANY: u32 = 0;

/// What the tables of this host shall be, at one moment.
///
/// Endpoints whose port does not exist have no entry: the container is gone, and its owner will say so. Records that no
/// kernel would take, or that would turn this host's own frames away, are passed over.
#[derive(Clone, Debug)]
pub struct Plan {
    snapshot: Arc<Snapshot>,
    devices: Arc<Devices>,
    tables: Tables,
    /// This host's containers by the port they are behind, whether or not it exists.
    behind: BTreeMap<String, BTreeSet<MacAddr>>,
}

impl Plan {
    /// Plans everything.
    pub fn new(snapshot: Arc<Snapshot>, devices: Arc<Devices>) -> Self {
        let mut plan = Self {
            tables: frame(&snapshot, &devices),
            snapshot: Arc::clone(&snapshot),
            devices,
            behind: BTreeMap::new(),
        };
        let here = |endpoint: &&Endpoint| is_here(endpoint, &plan.devices);
        let here: Vec<&Endpoint> = snapshot.endpoints.iter().filter(here).collect();
        here.into_iter().for_each(|endpoint| plan.put(endpoint));
        for port in plan.behind.keys().cloned().collect::<Vec<_>>() {
            plan.set_up(&port);
        }
        plan
    }

    /// The tables.
    pub const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// What it was made of.
    pub const fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Follows to another moment. Tells what is to be done in a kernel that has what was planned before, and whose ports
    /// stand as `ports` says; those of `seen` may stand otherwise than planned. `None` where more is different than
    /// entries and ports: then nothing changes here, the kernel is to be looked at, and everything planned anew.
    pub fn follow(
        &mut self,
        snapshot: &Arc<Snapshot>,
        devices: &Arc<Devices>,
        ports: &BTreeMap<String, Port>,
        seen: &BTreeSet<String>,
    ) -> Option<Patch> {
        let old = Arc::clone(&self.snapshot);
        let difference = self.difference(&old, snapshot, devices)?;
        let mut touched = difference.touched();
        touched.ports.extend(seen.iter().cloned());
        let mut before = self.part(&touched);
        self.snapshot = Arc::clone(snapshot);
        self.devices = Arc::clone(devices);
        self.replace(&difference);
        touched.ports.iter().for_each(|port| self.set_up(port));
        let after = self.part(&touched);
        before.ports = part(ports, touched.ports.iter().chain(after.fdb.values()));
        Some(diff(&before, &after))
    }

    /// What leaves the plan and what enters it; `None` where its frame is another.
    fn difference<'a>(
        &self,
        old: &'a Snapshot,
        new: &'a Snapshot,
        devices: &Devices,
    ) -> Option<Difference<'a>> {
        if !is_framed_alike(old, new) || !self.devices.is_framed_like(devices) {
            return None;
        }
        let mut difference = Difference::default();
        for (before, after) in new.endpoints.changed(&old.endpoints) {
            difference.add(before, after, devices);
        }
        for mac in self.affected(devices) {
            let find = |snapshot: &'a Snapshot| snapshot.endpoints.get(devices.segment, mac);
            difference.gone.extend(find(old).map(|there| (mac, there)));
            difference.come.extend(find(new).map(|there| (mac, there)));
        }
        (!difference.has_host(new.node)).then_some(difference)
    }

    /// What leaves goes first: an address may leave by one record and enter by another.
    fn replace(&mut self, difference: &Difference<'_>) {
        let Difference { gone, come } = difference;
        gone.values().for_each(|endpoint| self.take(endpoint));
        come.values().for_each(|endpoint| self.put(endpoint));
    }

    /// Endpoints whose entries depend on what is different about the devices.
    fn affected(&self, devices: &Devices) -> BTreeSet<MacAddr> {
        let was = &*self.devices;
        let ports = was.ports.symmetric_difference(&devices.ports);
        let behind = ports.filter_map(|port| self.behind.get(port)).flatten();
        let own = was.own.symmetric_difference(&devices.own);
        behind.chain(own).copied().filter(is_station).collect()
    }

    fn put(&mut self, endpoint: &Endpoint) {
        let mac = endpoint.mac;
        if endpoint.owner != self.snapshot.node {
            self.put_remote(endpoint);
            return;
        }
        match &endpoint.kind {
            EndpointKind::Host => self.tables.bridge.mac = Some(mac),
            EndpointKind::Attached { port } => self.put_behind(port, mac),
        }
    }

    fn put_remote(&mut self, endpoint: &Endpoint) {
        let mac = endpoint.mac;
        if self.devices.own.contains(&mac) || !self.devices.has_tap() {
            return;
        }
        self.tables.fdb.insert(mac, self.devices.tap.clone());
        for &address in &endpoint.addresses {
            if self.may_be_neighbour(address) {
                self.tables.neighbours.insert(address, mac);
            }
        }
    }

    fn may_be_neighbour(&self, address: IpAddr) -> bool {
        let mut own = self.tables.addresses.iter().map(IpNet::addr);
        is_host(address) && self.devices.families.has(address) && !own.any(|own| own == address)
    }

    /// A container is remembered also while its port does not exist, or cannot have its entry.
    fn put_behind(&mut self, port: &str, mac: MacAddr) {
        let behind = self.behind.entry(port.to_owned()).or_default();
        behind.insert(mac);
        if !self.devices.own.contains(&mac) && self.devices.is_container_port(port) {
            self.tables.fdb.insert(mac, port.to_owned());
        }
    }

    /// Undoes [`Self::put`].
    fn take(&mut self, endpoint: &Endpoint) {
        let mac = endpoint.mac;
        self.tables.fdb.remove(&mac);
        for address in &endpoint.addresses {
            if self.tables.neighbours.get(address) == Some(&mac) {
                self.tables.neighbours.remove(address);
            }
        }
        if let Some(port) = self.port_of(endpoint)
            && let Some(behind) = self.behind.get_mut(port)
        {
            behind.remove(&mac);
            if behind.is_empty() {
                self.behind.remove(port);
            }
        }
    }

    fn port_of<'a>(&self, endpoint: &'a Endpoint) -> Option<&'a String> {
        match &endpoint.kind {
            EndpointKind::Attached { port } => {
                (endpoint.owner == self.snapshot.node).then_some(port)
            }
            EndpointKind::Host => None,
        }
    }

    /// Plans a container's port, or leaves it out where it does not exist or has no container.
    fn set_up(&mut self, name: &str) {
        if name == self.devices.tap {
            return;
        }
        if self.behind.contains_key(name) && self.devices.is_container_port(name) {
            let mtu = u32::from(self.snapshot.mtu.get());
            let port = port(mtu, container_flags(), CONTAINER_GROUPS);
            self.tables.ports.insert(name.to_owned(), port);
        } else {
            self.tables.ports.remove(name);
        }
    }

    /// The tables, as far as they are about what is touched.
    fn part(&self, touched: &Touched) -> Tables {
        let Tables {
            bridge,
            fdb,
            neighbours,
            ports,
            addresses: _,
        } = &self.tables;
        Tables {
            bridge: bridge.clone(),
            addresses: BTreeSet::new(),
            ports: part(ports, &touched.ports),
            fdb: part(fdb, &touched.macs),
            neighbours: part(neighbours, &touched.addresses),
        }
    }
}

/// What of the endpoints differs between two moments, by Ethernet address.
#[derive(Default)]
struct Difference<'a> {
    gone: BTreeMap<MacAddr, &'a Endpoint>,
    come: BTreeMap<MacAddr, &'a Endpoint>,
}

/// The keys of entries that may differ.
#[derive(Default)]
struct Touched {
    macs: BTreeSet<MacAddr>,
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<String>,
}

impl<'a> Difference<'a> {
    /// Adds what differs within one part of the endpoints. Both lists are sorted.
    fn add(&mut self, before: &'a [Endpoint], after: &'a [Endpoint], devices: &Devices) {
        let without = |these: &'a [Endpoint], others: &'a [Endpoint]| {
            let there = move |endpoint: &Endpoint| {
                let at = others.binary_search_by_key(&endpoint.key(), Endpoint::key);
                at.is_ok_and(|at| others[at].forwards_like(endpoint))
            };
            let left = these.iter().filter(move |endpoint| !there(endpoint));
            left.filter(|endpoint| is_here(endpoint, devices))
                .map(|endpoint| (endpoint.mac, endpoint))
        };
        self.gone.extend(without(before, after));
        self.come.extend(without(after, before));
    }

    /// What leaves, and what enters.
    fn endpoints(&self) -> impl Iterator<Item = &'a Endpoint> {
        self.gone.values().chain(self.come.values()).copied()
    }

    /// Whether this host itself leaves or enters: its address is the bridge's.
    fn has_host(&self, node: NodeId) -> bool {
        let mut own = self.endpoints().filter(|endpoint| endpoint.owner == node);
        own.any(|endpoint| endpoint.kind == EndpointKind::Host)
    }

    fn touched(&self) -> Touched {
        let mut touched = Touched::default();
        for endpoint in self.endpoints() {
            touched.macs.insert(endpoint.mac);
            touched.addresses.extend(&endpoint.addresses);
            if let EndpointKind::Attached { port } = &endpoint.kind
                && !port.is_empty()
            {
                touched.ports.insert(port.clone());
            }
        }
        touched
    }
}

/// The entries of a table under some keys.
fn part<'a, K: Ord + Clone + 'a, V: Clone>(
    table: &BTreeMap<K, V>,
    keys: impl IntoIterator<Item = &'a K>,
) -> BTreeMap<K, V> {
    let entry = |key: &K| Some((key.clone(), table.get(key)?.clone()));
    keys.into_iter().filter_map(entry).collect()
}

/// Whether two snapshots ask for the same tables, endpoints aside, of the same devices.
fn is_framed_alike(old: &Snapshot, new: &Snapshot) -> bool {
    (old.node, old.mtu) == (new.node, new.mtu) && old.host_addresses == new.host_addresses
}

/// The tables without any endpoint.
fn frame(snapshot: &Snapshot, devices: &Devices) -> Tables {
    let mtu = u32::from(snapshot.mtu.get());
    let addresses = snapshot.host_addresses.iter().copied();
    let tap = devices.has_tap().then(|| devices.tap.clone());
    Tables {
        bridge: Bridge {
            mac: None,
            mtu,
            power: Power::On,
            manner: Manner::AsMade,
        },
        addresses: addresses
            .filter(|net| devices.families.has(net.addr()))
            .collect(),
        ports: tap
            .into_iter()
            .map(|tap| (tap, port(mtu, sleeve_flags(), ANY)))
            .collect(),
        fdb: BTreeMap::new(),
        neighbours: BTreeMap::new(),
    }
}

/// Whether an endpoint is on this network of the mesh, under an address that the kernel takes into an FDB.
fn is_here(endpoint: &Endpoint, devices: &Devices) -> bool {
    endpoint.segment == devices.segment && is_station(&endpoint.mac)
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

fn port(mtu: u32, flags: PortFlags, max_groups: u32) -> Port {
    Port {
        mtu,
        power: Power::On,
        flags: Some(flags),
        max_groups: Some(max_groups),
    }
}

/// The kernel takes no other address into an FDB (`is_valid_ether_addr`).
fn is_station(mac: &MacAddr) -> bool {
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
            metadata: None,
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
            endpoints: endpoints.into_iter().collect(),
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

    fn tables(snapshot: Snapshot, devices: Devices) -> Tables {
        Plan::new(Arc::new(snapshot), Arc::new(devices)).tables
    }

    #[test]
    fn a_remote_endpoint_is_behind_the_tap_and_a_neighbour_by_every_address() {
        let tables = tables(snapshot(vec![endpoint(THEIRS, 2, attached(""))]), devices());

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
        let tables = tables(
            snapshot(vec![endpoint(OURS, 3, attached("wv1"))]),
            devices(),
        );

        assert_eq!(tables.fdb, [(mac(3), "wv1".into())].into());
        assert!(tables.neighbours.is_empty());
        assert_eq!(tables.ports["wv1"].flags, Some(container_flags()));
    }

    #[test]
    fn a_container_whose_port_is_gone_has_no_entry() {
        let tables = tables(
            snapshot(vec![endpoint(OURS, 3, attached("wv9"))]),
            devices(),
        );

        assert!(tables.fdb.is_empty());
        assert!(!tables.ports.contains_key("wv9"));
    }

    #[test]
    fn the_host_itself_is_the_bridge() {
        let tables = tables(
            snapshot(vec![endpoint(OURS, 1, EndpointKind::Host)]),
            devices(),
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

        let tables = tables(snapshot(vec![liar, group, other]), devices());

        assert_eq!(tables.fdb, [(mac(6), "weft-tap".into())].into());
        assert!(tables.neighbours.is_empty());
    }

    #[test]
    fn a_kernel_without_ipv6_is_asked_for_none() {
        let devices = Devices {
            families: Families::V4,
            ..devices()
        };

        let tables = tables(snapshot(vec![endpoint(THEIRS, 2, attached(""))]), devices);

        assert_eq!(tables.addresses.len(), 1);
        assert_eq!(tables.neighbours.len(), 1);
    }

    #[test]
    fn another_network_of_the_mesh_is_not_on_this_bridge() {
        let mut elsewhere = endpoint(THEIRS, 2, attached(""));
        elsewhere.segment = Segment::new(7).unwrap();

        let tables = tables(snapshot(vec![elsewhere]), devices());

        assert!(tables.fdb.is_empty() && tables.neighbours.is_empty());
    }
}
