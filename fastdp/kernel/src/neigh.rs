//! Reads and writes permanent neighbours: which Ethernet address an IP address has, without asking the network.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's vocabulary is open: what is not named here is not ours"
)]

use std::net::IpAddr;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::RouteType;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use weft_types::MacAddr;

use crate::netlink::{LinkIndex, Netlink, NetlinkError, Request};

/// An IP address and the Ethernet address it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// The IP address.
    pub address: IpAddr,
    /// The Ethernet address.
    pub mac: MacAddr,
}

impl Netlink {
    /// Reads the permanent neighbours on a device, IPv4 and IPv6.
    pub async fn neighbours(&self, link: LinkIndex) -> Result<Vec<Neighbour>, NetlinkError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = NeighbourMessage::default();
            message.header.family = family;
            let answers = self
                .dump(RouteNetlinkMessage::GetNeighbour(message))
                .await?;
            found.extend(answers.iter().filter_map(|answer| of_answer(answer, link)));
        }
        Ok(found)
    }
}

impl Request {
    /// Writes a permanent neighbour, replacing what the address has on this device.
    pub fn set_neighbour(link: LinkIndex, neighbour: &Neighbour) -> Self {
        let mut message = to_message(link, neighbour.address);
        message.header.state = NeighbourState::Permanent;
        let mac = neighbour.mac.as_bytes().to_vec();
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac));
        let message = RouteNetlinkMessage::NewNeighbour(message);
        Self::new(message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Removes the neighbour that `address` has on a device.
    pub fn delete_neighbour(link: LinkIndex, address: IpAddr) -> Self {
        let message = to_message(link, address);
        Self::new(RouteNetlinkMessage::DelNeighbour(message), 0)
    }
}

fn to_message(link: LinkIndex, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = link.get();
    message.header.kind = RouteType::Unspec;
    let (family, address) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
    };
    message.header.family = family;
    message.attributes = vec![NeighbourAttribute::Destination(address)];
    message
}

fn of_answer(answer: &RouteNetlinkMessage, link: LinkIndex) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = answer else {
        return None;
    };
    if message.header.ifindex != link.get() {
        return None;
    }
    let (address, mac) = of_message(message)?;
    Some(Neighbour { address, mac: mac? })
}

/// The address, and the Ethernet address that it has for good.
pub(crate) fn of_message(message: &NeighbourMessage) -> Option<(IpAddr, Option<MacAddr>)> {
    let permanent = message.header.state == NeighbourState::Permanent;
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok();
            }
            _ => {}
        }
    }
    let mac = mac.map(MacAddr::new).filter(|_| permanent);
    Some((address?, mac))
}
