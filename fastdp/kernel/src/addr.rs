//! Reads and writes the IP addresses of devices.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's vocabulary is open: what is not named here is not ours"
)]

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::{LinkIndex, Netlink, NetlinkError, Request};

/// How far an address is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// Everywhere, or at least beyond the link.
    Global,
    /// This host.
    Host,
    /// This link.
    Link,
}

/// An address on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The device.
    pub link: LinkIndex,
    /// The address, with the prefix length of its network.
    pub net: IpNet,
    /// How far it is good.
    pub reach: Reach,
    /// Whether it may be used: it is neither being checked for duplicates, nor known to be one, nor past its time.
    pub usable: bool,
}

impl Netlink {
    /// Reads every address of the namespace.
    pub async fn addresses(&self) -> Result<Vec<Address>, NetlinkError> {
        let answers = self
            .dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))
            .await?;
        Ok(answers.iter().filter_map(of_answer).collect())
    }
}

impl Request {
    /// Gives a device an address, and the route that comes with it. It is usable at once: nobody is asked whether it is
    /// taken (RFC 4862 §5.4), since its owner is known.
    pub fn add_address(link: LinkIndex, net: IpNet) -> Self {
        let message = RouteNetlinkMessage::NewAddress(to_message(link, net));
        Self::new(message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes an address from a device.
    pub fn delete_address(link: LinkIndex, net: IpNet) -> Self {
        Self::new(RouteNetlinkMessage::DelAddress(to_message(link, net)), 0)
    }
}

fn to_message(link: LinkIndex, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = link.get();
    message.header.prefix_len = net.prefix_len();
    message.attributes = vec![
        AddressAttribute::Local(net.addr()),
        AddressAttribute::Address(net.addr()),
    ];
    match net {
        IpNet::V4(v4) => {
            message.header.family = AddressFamily::Inet;
            if v4.prefix_len() < 31 {
                let broadcast: Ipv4Addr = v4.broadcast();
                message
                    .attributes
                    .push(AddressAttribute::Broadcast(broadcast));
            }
        }
        IpNet::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    message
}

fn of_answer(answer: &RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = answer else {
        return None;
    };
    let (mut address, mut local) = (None::<IpAddr>, None);
    let mut flags = AddressFlags::empty();
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Flags(bits) => flags = *bits,
            _ => {}
        }
    }
    // On a point-to-point link `Address` is the other end.
    let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated;
    Some(Address {
        link: LinkIndex::new(message.header.index),
        net,
        reach: match message.header.scope {
            AddressScope::Host | AddressScope::Nowhere => Reach::Host,
            AddressScope::Link => Reach::Link,
            _ => Reach::Global,
        },
        usable: !flags.intersects(unusable),
    })
}
