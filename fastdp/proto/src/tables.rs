//! Describes the kernel tables of one host as far as they are weft's, and finds that part in what the kernel has.
//!
//! **Ours** are: the bridge's own settings, and every address on it that is not link-local; its static sticky entries
//! that point at the TAP, and those at a container's port that the plan names; every permanent neighbour on it. Ports of
//! ours are the TAP and the devices whose names begin with [`PORT_PREFIX`] and that are no other bridge's. All else,
//! learnt or written by somebody, is left alone: also the entry of a container that was put on its port a moment ago and
//! that the router has not heard of yet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use weft_types::{MacAddr, PortFlags, Segment};

/// How the names of the host's ends of containers' veth pairs begin.
pub const PORT_PREFIX: &str = "wv";

/// The devices that a plan is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// Which network of the mesh the bridge carries.
    pub segment: Segment,
    /// The bridge.
    pub bridge: String,
    /// The sleeve's port.
    pub tap: String,
    /// The ports that exist, the TAP among them.
    pub ports: BTreeSet<String>,
    /// The Ethernet addresses of the ports' own devices: frames to them are for this host, so no entry may send them on.
    pub own: BTreeSet<MacAddr>,
    /// The address families that this kernel has.
    pub families: Families,
}

impl Devices {
    /// Whether the sleeve has its port.
    pub fn has_tap(&self) -> bool {
        self.ports.contains(&self.tap)
    }

    /// Whether a plan for either begins with the same tables: they differ in containers' ports and addresses at most.
    pub(crate) fn is_framed_like(&self, other: &Self) -> bool {
        (self.segment, self.families) == (other.segment, other.families)
            && (&self.bridge, &self.tap) == (&other.bridge, &other.tap)
            && self.has_tap() == other.has_tap()
    }

    /// Whether this is a port that a container may be behind.
    pub fn is_container_port(&self, name: &str) -> bool {
        name != self.tap && self.ports.contains(name)
    }
}

/// The address families that a kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4 and IPv6.
    Both,
    /// IPv4 only.
    V4,
}

impl Families {
    /// Whether the kernel can hold this address.
    pub fn has(self, address: IpAddr) -> bool {
        match self {
            Self::Both => true,
            Self::V4 => address.is_ipv4(),
        }
    }
}

/// What a kernel has, or shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// The bridge itself.
    pub bridge: Bridge,
    /// The bridge's addresses, with the prefix length of their network.
    pub addresses: BTreeSet<IpNet>,
    /// The ports, by name.
    pub ports: BTreeMap<String, Port>,
    /// Behind which port an Ethernet address is.
    pub fdb: BTreeMap<MacAddr, String>,
    /// Which Ethernet address an IP address has.
    pub neighbours: BTreeMap<IpAddr, MacAddr>,
}

/// The bridge itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its Ethernet address; `None` in what is wanted says that any will do.
    pub mac: Option<MacAddr>,
    /// The largest IP packet it takes.
    pub mtu: u32,
    /// Whether it is switched on.
    pub power: Power,
    /// How it works.
    pub manner: Manner,
}

/// How a bridge works: spanning tree, delays, multicast snooping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As weft makes bridges.
    AsMade,
    /// Somebody, or the kernel itself, has changed that.
    Changed,
}

/// Whether a device is switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It is not.
    Off,
    /// It is.
    On,
}

/// A port of the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The largest IP packet it takes.
    pub mtu: u32,
    /// Whether it is switched on.
    pub power: Power,
    /// How the bridge treats it, as far as the kernel knows these switches; `None` while it is no port of the bridge.
    pub flags: Option<PortFlags>,
    /// How many multicast groups may be joined behind it, 0 for any number; `None` where the kernel knows no such limit, and
    /// while it is no port of the bridge.
    pub max_groups: Option<u32>,
}

/// Everything the kernel has on the bridge and its ports, ours or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The bridge itself.
    pub bridge: Bridge,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Devices that are ports of ours, or could be.
    pub ports: BTreeMap<String, Port>,
    /// Its FDB.
    pub fdb: Vec<ObservedFdb>,
    /// Its permanent neighbours.
    pub neighbours: Vec<(IpAddr, MacAddr)>,
}

/// An entry of the bridge's FDB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedFdb {
    /// The address.
    pub mac: MacAddr,
    /// The name of the port.
    pub port: String,
    /// Whether it is static and sticky, as ours are.
    pub sticky: bool,
}

impl Observed {
    /// Leaves out what is not ours, given what is wanted.
    pub fn ours(self, devices: &Devices, want: &Tables) -> Tables {
        let ours = |entry: &ObservedFdb| {
            let named = want.fdb.contains_key(&entry.mac) && devices.ports.contains(&entry.port);
            entry.sticky && (named || entry.port == devices.tap)
        };
        Tables {
            bridge: self.bridge,
            addresses: self
                .addresses
                .into_iter()
                .filter(|net| !is_link_local(net.addr()))
                .collect(),
            ports: self
                .ports
                .into_iter()
                .filter(|(name, _)| devices.ports.contains(name))
                .collect(),
            fdb: self
                .fdb
                .into_iter()
                .filter(ours)
                .map(|entry| (entry.mac, entry.port))
                .collect(),
            neighbours: self.neighbours.into_iter().collect(),
        }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
