//! How a bridge treats one of its ports.

use std::collections::BTreeMap;

/// One switch of a bridge port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortFlag {
    /// Broadcasts leave by it.
    BroadcastFlood,
    /// Nothing passes between it and another such port (Linux 4.18).
    Isolated,
    /// Sources of what comes in by it enter the FDB.
    Learning,
    /// Only frames whose source the FDB has on this port come in by it (Linux 5.18).
    Locked,
    /// Multicast that nobody has asked for leaves by it.
    MulticastFlood,
    /// All multicast leaves by it, asked for or not.
    MulticastRouter,
    /// Address resolution that the bridge's neighbour table can answer is answered and does not leave by it (Linux 4.15).
    NeighSuppress,
    /// Unicast to unknown destinations leaves by it.
    UnicastFlood,
}

impl PortFlag {
    /// Every switch.
    pub const ALL: [Self; 8] = [
        Self::BroadcastFlood,
        Self::Isolated,
        Self::Learning,
        Self::Locked,
        Self::MulticastFlood,
        Self::MulticastRouter,
        Self::NeighSuppress,
        Self::UnicastFlood,
    ];
}

/// The switches of a port as they stand, or as they shall. One that is missing is one that the kernel does not know, or
/// that is left as it is.
pub type PortFlags = BTreeMap<PortFlag, bool>;
