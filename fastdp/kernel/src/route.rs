//! Reads where this host sends packets.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's vocabulary is open: what is not named here is not ours"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_core::NLM_F_CREATE;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::{LinkIndex, Netlink, NetlinkError, Request};

/// Where the kernel keeps the routes to its own addresses (`RT_TABLE_LOCAL`).
const LOCAL_TABLE: u8 = 255;
/// Where it looks for the routes of everything else, unless a rule says otherwise (`RT_TABLE_MAIN`).
const MAIN_TABLE: u8 = 254;
/// The metric that those have in IPv6 (`IP6_RT_PRIO_ADDRCONF`).
const CONNECTED: u32 = 256;

/// Where packets for a network go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// The network; the default route has prefix length 0.
    pub net: IpNet,
    /// By which device, where it is one only.
    pub link: Option<LinkIndex>,
    /// By which router, where there is one.
    pub gateway: Option<IpAddr>,
    /// From which address, where the route says so.
    pub source: Option<IpAddr>,
    /// Its place among routes to one network: the lowest is taken.
    pub metric: u32,
    /// Whether it is one of the main table, and not of one that a rule of a VPN leads to.
    pub main: bool,
}

impl Netlink {
    /// Reads the routes to other hosts, of every table.
    pub async fn routes(&self) -> Result<Vec<Route>, NetlinkError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let answers = match self.dump(RouteNetlinkMessage::GetRoute(message)).await {
                // A kernel without IPv6 has no such routes.
                Err(NetlinkError::Unsupported) => continue,
                answers => answers?,
            };
            found.extend(answers.iter().filter_map(of_answer));
        }
        Ok(found)
    }
}

impl Request {
    /// Writes the route that comes with an address, where somebody has removed it.
    pub fn add_connected_route(link: LinkIndex, net: IpNet) -> Self {
        let mut message = RouteMessage::default();
        message.header.destination_prefix_length = net.prefix_len();
        message.header.table = MAIN_TABLE;
        message.header.protocol = RouteProtocol::Kernel;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![RouteAttribute::Oif(link.get())];
        match net {
            IpNet::V4(v4) => {
                message.header.address_family = AddressFamily::Inet;
                message.header.scope = RouteScope::Link;
                message.attributes.extend([
                    RouteAttribute::Destination(RouteAddress::Inet(v4.network())),
                    RouteAttribute::PrefSource(RouteAddress::Inet(v4.addr())),
                ]);
            }
            IpNet::V6(v6) => {
                message.header.address_family = AddressFamily::Inet6;
                message.attributes.extend([
                    RouteAttribute::Destination(RouteAddress::Inet6(v6.network())),
                    RouteAttribute::Priority(CONNECTED),
                ]);
            }
        }
        Self::new(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE)
    }
}

fn of_answer(answer: &RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = answer else {
        return None;
    };
    of_message(message)
}

/// `None` for what leads to no other host.
pub(crate) fn of_message(message: &RouteMessage) -> Option<Route> {
    let mut address = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let elsewhere =
        message.header.kind == RouteType::Unicast && message.header.table != LOCAL_TABLE;
    let (mut link, mut gateway, mut source, mut metric) = (None, None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => address = ip_of(to)?,
            RouteAttribute::Gateway(by) => gateway = ip_of(by),
            RouteAttribute::Oif(index) => link = Some(LinkIndex::new(*index)),
            RouteAttribute::PrefSource(from) => source = ip_of(from),
            RouteAttribute::Priority(place) => metric = *place,
            _ => {}
        }
    }
    let route = Route {
        net: IpNet::new(address, message.header.destination_prefix_length).ok()?,
        link,
        gateway,
        source,
        metric,
        main: message.header.table == MAIN_TABLE,
    };
    elsewhere.then_some(route)
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}
