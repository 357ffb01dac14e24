//! Finds the steps from the tables that are to the tables that shall be, in an order in which nothing goes astray.
//!
//! ```text
//!   take away ─▶ ports ─▶ bridge ─▶ FDB ─▶ neighbours ─▶ addresses
//! ```
//!
//! Entries that lead to a wrong place go first. A port is set up before it is switched on, and before an entry points at
//! it. Neighbours come after the FDB: the bridge answers for an address as soon as both are there. An entry that moves is
//! replaced in one step. Where the bridge changes its own address, or was off, the kernel forgets every neighbour on it,
//! so all are written again.
//!
//! **Invariant.** `diff(t, t)` is empty, whatever switches the kernel does not know.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_types::{MacAddr, PortFlags};

use crate::tables::{Manner, Port, Power, Tables};

/// What to do, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// The steps.
    pub steps: Vec<Step>,
}

/// One change of a kernel table. Each may be done twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Give the bridge an address.
    AddAddress(IpNet),
    /// Make a device a port of the bridge.
    Enslave(String),
    /// Remove an entry of the FDB.
    RemoveFdb {
        /// The address.
        mac: MacAddr,
        /// Where it is.
        port: String,
    },
    /// Take an address from the bridge.
    RemoveAddress(IpNet),
    /// Remove a neighbour.
    RemoveNeighbour(IpAddr),
    /// Give the bridge the settings that bridges of ours are made with.
    ResetBridge,
    /// Set the bridge's Ethernet address.
    SetBridgeMac(MacAddr),
    /// Set the bridge's MTU.
    SetBridgeMtu(u32),
    /// Write an entry of the FDB, replacing the one the address has.
    SetFdb {
        /// The address.
        mac: MacAddr,
        /// Where it shall be.
        port: String,
    },
    /// Write a neighbour, replacing the one the address has.
    SetNeighbour {
        /// The IP address.
        address: IpAddr,
        /// Its Ethernet address.
        mac: MacAddr,
    },
    /// Set switches of a port.
    SetPortFlags {
        /// Which port.
        port: String,
        /// Which switches, and how.
        flags: PortFlags,
    },
    /// Limit the multicast groups behind a port.
    SetPortGroups {
        /// Which port.
        port: String,
        /// How many; 0 for any number.
        limit: u32,
    },
    /// Set a port's MTU.
    SetPortMtu {
        /// Which port.
        port: String,
        /// The largest IP packet.
        mtu: u32,
    },
    /// Switch the bridge on.
    StartBridge,
    /// Switch a port on.
    StartPort(String),
}

impl Patch {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// The steps from `have` to `want`.
///
/// Ports are neither made nor removed: those that only `want` names are passed over with the entries behind them, and
/// those that only `have` names are left as they are.
pub fn diff(have: &Tables, want: &Tables) -> Patch {
    let mut steps = Vec::new();
    let forgets = bridge_forgets(have, want);
    take_away(have, want, forgets, &mut steps);
    for (name, port) in &want.ports {
        if let Some(had) = have.ports.get(name) {
            set_up_port(name, had, port, &mut steps);
        }
    }
    set_up_bridge(have, want, &mut steps);
    for (mac, port) in &want.fdb {
        if have.fdb.get(mac) != Some(port) && have.ports.contains_key(port) {
            let port = port.clone();
            steps.push(Step::SetFdb { mac: *mac, port });
        }
    }
    for (address, mac) in &want.neighbours {
        if forgets || have.neighbours.get(address) != Some(mac) {
            let (address, mac) = (*address, *mac);
            steps.push(Step::SetNeighbour { address, mac });
        }
    }
    let added = want.addresses.difference(&have.addresses);
    steps.extend(added.map(|net| Step::AddAddress(*net)));
    Patch { steps }
}

/// Whether the kernel forgets the bridge's neighbours on the way.
fn bridge_forgets(have: &Tables, want: &Tables) -> bool {
    let renamed = want.bridge.mac.is_some() && want.bridge.mac != have.bridge.mac;
    renamed || have.bridge.power == Power::Off
}

fn take_away(have: &Tables, want: &Tables, forgets: bool, steps: &mut Vec<Step>) {
    if !forgets {
        let gone = have
            .neighbours
            .keys()
            .filter(|address| !want.neighbours.contains_key(address));
        steps.extend(gone.map(|address| Step::RemoveNeighbour(*address)));
    }
    for (mac, port) in &have.fdb {
        if !want.fdb.contains_key(mac) {
            let port = port.clone();
            steps.push(Step::RemoveFdb { mac: *mac, port });
        }
    }
    let gone = have.addresses.difference(&want.addresses);
    steps.extend(gone.map(|net| Step::RemoveAddress(*net)));
}

fn set_up_port(name: &str, have: &Port, want: &Port, steps: &mut Vec<Step>) {
    let port = || name.to_owned();
    if have.mtu != want.mtu {
        let mtu = want.mtu;
        steps.push(Step::SetPortMtu { port: port(), mtu });
    }
    if let Some(wanted) = &want.flags {
        if have.flags.is_none() {
            steps.push(Step::Enslave(port()));
        }
        let flags = to_be_set(have.flags.as_ref(), wanted);
        if !flags.is_empty() {
            let port = port();
            steps.push(Step::SetPortFlags { port, flags });
        }
        // A limit that the kernel does not show is one that it does not know, but for a device that is no port yet.
        let known = have.flags.is_none() || have.max_groups.is_some();
        if let Some(limit) = want.max_groups
            && known
            && have.max_groups != want.max_groups
        {
            let port = port();
            steps.push(Step::SetPortGroups { port, limit });
        }
    }
    if have.power == Power::Off && want.power == Power::On {
        steps.push(Step::StartPort(port()));
    }
}

/// The switches that stand otherwise than wanted; all of a device that is no port yet.
fn to_be_set(had: Option<&PortFlags>, wanted: &PortFlags) -> PortFlags {
    // A switch that the kernel does not show is one that it does not know.
    let stands_otherwise =
        |flag, on| had.is_none_or(|had| had.get(flag).is_some_and(|was| was != on));
    let switches = wanted
        .iter()
        .filter(|(flag, on)| stands_otherwise(*flag, *on));
    switches.map(|(flag, on)| (*flag, *on)).collect()
}

fn set_up_bridge(have: &Tables, want: &Tables, steps: &mut Vec<Step>) {
    if have.bridge.mtu != want.bridge.mtu {
        steps.push(Step::SetBridgeMtu(want.bridge.mtu));
    }
    if let Some(mac) = want.bridge.mac.filter(|mac| have.bridge.mac != Some(*mac)) {
        steps.push(Step::SetBridgeMac(mac));
    }
    if have.bridge.manner != want.bridge.manner && want.bridge.manner == Manner::AsMade {
        steps.push(Step::ResetBridge);
    }
    if have.bridge.power == Power::Off && want.bridge.power == Power::On {
        steps.push(Step::StartBridge);
    }
}
