//! Tells a bridge how to treat the device behind one of its ports.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's vocabulary is open: what is not named here is not ours"
)]

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    BridgeMulticastRouterType, InfoBridgePort, InfoPortData, InfoPortKind, LinkAttribute, LinkInfo,
};

use weft_types::{PortFlag, PortFlags};

use crate::netlink::{LinkIndex, Request, at};

fn attribute(flag: PortFlag, on: bool) -> InfoBridgePort {
    match flag {
        PortFlag::BroadcastFlood => InfoBridgePort::BroadcastFlood(on),
        PortFlag::Isolated => InfoBridgePort::Isolated(on),
        PortFlag::Learning => InfoBridgePort::Learning(on),
        PortFlag::Locked => InfoBridgePort::Locked(on),
        PortFlag::MulticastFlood => InfoBridgePort::MulticastFlood(on),
        PortFlag::MulticastRouter => InfoBridgePort::MulticastRouter(if on {
            BridgeMulticastRouterType::Permanent
        } else {
            BridgeMulticastRouterType::TempQuery
        }),
        // The crate's spelling.
        PortFlag::NeighSuppress => InfoBridgePort::NeighSupress(on),
        PortFlag::UnicastFlood => InfoBridgePort::UnicastFlood(on),
    }
}

impl Request {
    /// Sets switches of a port. A switch that the kernel does not know is passed over in silence: whether it took is
    /// seen by reading the port again.
    pub fn set_port_flags(port: LinkIndex, flags: &PortFlags) -> Self {
        let attributes = flags
            .iter()
            .map(|(flag, on)| attribute(*flag, *on))
            .collect();
        let mut message = at(port);
        message.attributes = vec![LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(attributes)),
        ])];
        Self::new(RouteNetlinkMessage::NewLink(message), 0)
    }
}

impl Request {
    /// Limits how many multicast groups may be joined behind a port. Passed over in silence where the kernel knows no limit.
    pub fn set_max_groups(port: LinkIndex, limit: u32) -> Self {
        let mut message = at(port);
        let limit = vec![InfoBridgePort::MulticastMaxGroups(limit)];
        message.attributes = vec![LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(limit)),
        ])];
        Self::new(RouteNetlinkMessage::NewLink(message), 0)
    }
}

pub(crate) fn max_groups_of(data: &InfoPortData) -> Option<u32> {
    let InfoPortData::BridgePort(attributes) = data else {
        return None;
    };
    attributes.iter().find_map(|attribute| match attribute {
        InfoBridgePort::MulticastMaxGroups(limit) => Some(*limit),
        _ => None,
    })
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
                assert_eq!(flag_of(&attribute(flag, on)), Some((flag, on)));
            }
        }
    }
}
