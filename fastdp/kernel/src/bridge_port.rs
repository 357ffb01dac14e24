//! Tells a bridge how to treat the device behind one of its ports.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's vocabulary is open: what is not named here is not ours"
)]

use std::collections::BTreeMap;

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    BridgeMulticastRouterType, InfoBridgePort, InfoPortData, InfoPortKind, LinkAttribute, LinkInfo,
};

use crate::link::{LinkIndex, at};
use crate::netlink::{Netlink, NetlinkError};

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

    fn attribute(self, on: bool) -> InfoBridgePort {
        match self {
            Self::BroadcastFlood => InfoBridgePort::BroadcastFlood(on),
            Self::Isolated => InfoBridgePort::Isolated(on),
            Self::Learning => InfoBridgePort::Learning(on),
            Self::Locked => InfoBridgePort::Locked(on),
            Self::MulticastFlood => InfoBridgePort::MulticastFlood(on),
            Self::MulticastRouter => InfoBridgePort::MulticastRouter(if on {
                BridgeMulticastRouterType::Permanent
            } else {
                BridgeMulticastRouterType::TempQuery
            }),
            // The crate's spelling.
            Self::NeighSuppress => InfoBridgePort::NeighSupress(on),
            Self::UnicastFlood => InfoBridgePort::UnicastFlood(on),
        }
    }
}

/// The switches of a port as they stand. One that is missing is one that the kernel does not know.
pub type PortFlags = BTreeMap<PortFlag, bool>;

impl Netlink {
    /// Sets switches of a port. A switch that the kernel does not know is passed over in silence: whether it took is
    /// seen by reading the port again.
    pub async fn set_port_flags(
        &self,
        port: LinkIndex,
        flags: &PortFlags,
    ) -> Result<(), NetlinkError> {
        let attributes = flags.iter().map(|(flag, on)| flag.attribute(*on)).collect();
        let mut message = at(port);
        message.attributes = vec![LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(attributes)),
        ])];
        self.change(RouteNetlinkMessage::NewLink(message), 0).await
    }
}

pub(crate) fn flags_of(data: &InfoPortData) -> Option<PortFlags> {
    let InfoPortData::BridgePort(attributes) = data else {
        return None;
    };
    Some(attributes.iter().filter_map(flag_of).collect())
}

fn flag_of(attribute: &InfoBridgePort) -> Option<(PortFlag, bool)> {
    match attribute {
        InfoBridgePort::BroadcastFlood(on) => Some((PortFlag::BroadcastFlood, *on)),
        InfoBridgePort::Isolated(on) => Some((PortFlag::Isolated, *on)),
        InfoBridgePort::Learning(on) => Some((PortFlag::Learning, *on)),
        InfoBridgePort::Locked(on) => Some((PortFlag::Locked, *on)),
        InfoBridgePort::MulticastFlood(on) => Some((PortFlag::MulticastFlood, *on)),
        InfoBridgePort::MulticastRouter(kind) => Some((
            PortFlag::MulticastRouter,
            *kind == BridgeMulticastRouterType::Permanent,
        )),
        InfoBridgePort::NeighSupress(on) => Some((PortFlag::NeighSuppress, *on)),
        InfoBridgePort::UnicastFlood(on) => Some((PortFlag::UnicastFlood, *on)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_what_is_read() {
        for flag in PortFlag::ALL {
            for on in [false, true] {
                assert_eq!(flag_of(&flag.attribute(on)), Some((flag, on)));
            }
        }
    }
}
