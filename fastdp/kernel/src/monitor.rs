//! Hears of changes to devices, addresses, neighbours and FDB entries, whoever makes them.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's vocabulary is open: what is not named here is not ours"
)]

use std::io;
use std::net::IpAddr;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use weft_types::MacAddr;

use crate::fdb::{self, FdbEntry};
use crate::neigh;
use crate::netlink::LinkIndex;
use crate::route::{self, Route};

/// Something changed. Of devices and addresses, what they are now is read from the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// A device gained or lost an address.
    Address(LinkIndex),
    /// An entry of a bridge was written or removed.
    Fdb {
        /// The bridge.
        bridge: LinkIndex,
        /// The entry as it is, or was.
        entry: FdbEntry,
        /// Whether it is there.
        there: bool,
    },
    /// A device appeared, changed or vanished.
    Link {
        /// The device.
        link: LinkIndex,
        /// The bridge (or bond) it is a port of.
        controller: Option<LinkIndex>,
    },
    /// More changed than could be told.
    Lost,
    /// A device gained, changed or lost a neighbour.
    Neighbour {
        /// The device.
        link: LinkIndex,
        /// The neighbour's address.
        address: IpAddr,
        /// The Ethernet address that it has for good; `None` where it has none, or is gone.
        mac: Option<MacAddr>,
    },
    /// A route to other hosts was written or removed.
    Route(Route),
}

/// What may be listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// [`Change::Address`].
    Addresses,
    /// [`Change::Link`].
    Links,
    /// [`Change::Fdb`] and [`Change::Neighbour`].
    Neighbours,
    /// [`Change::Route`].
    Routes,
}

impl Subject {
    fn groups(self) -> &'static [MulticastGroup] {
        match self {
            Self::Addresses => &[MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr],
            Self::Links => &[MulticastGroup::Link],
            Self::Neighbours => &[MulticastGroup::Neigh],
            Self::Routes => &[MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route],
        }
    }
}

/// Notices of one network namespace.
pub struct Monitor {
    notices: BoxStream<'static, NetlinkPayload<RouteNetlinkMessage>>,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").finish_non_exhaustive()
    }
}

impl Monitor {
    /// Listens, in the calling thread's network namespace. Must be called within a tokio runtime, which carries it.
    pub fn open(subjects: &[Subject]) -> io::Result<Self> {
        let groups: Vec<_> = subjects
            .iter()
            .flat_map(|subject| subject.groups())
            .copied()
            .collect();
        let (connection, _, notices) = rtnetlink::new_multicast_connection(&groups)?;
        tokio::spawn(connection);
        Ok(Self {
            notices: notices.map(|(message, _)| message.payload).boxed(),
        })
    }

    /// Waits for the next change; `None` when no more will be heard. Safe to cancel.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = of_notice(&self.notices.next().await?) {
                return Some(change);
            }
        }
    }
}

fn of_notice(notice: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Change> {
    let message = match notice {
        NetlinkPayload::InnerMessage(message) => message,
        NetlinkPayload::Overrun(_) => return Some(Change::Lost),
        _ => return None,
    };
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
            Some(Change::Link {
                link: LinkIndex::new(link.header.index),
                controller: controller(link),
            })
        }
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            Some(Change::Address(LinkIndex::new(address.header.index)))
        }
        RouteNetlinkMessage::NewNeighbour(entry) => of_neighbour(entry, true),
        RouteNetlinkMessage::DelNeighbour(entry) => of_neighbour(entry, false),
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            route::of_message(route).map(Change::Route)
        }
        _ => None,
    }
}

fn controller(link: &LinkMessage) -> Option<LinkIndex> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Controller(index) => Some(LinkIndex::new(*index)),
            _ => None,
        })
}

fn of_neighbour(message: &NeighbourMessage, there: bool) -> Option<Change> {
    if message.header.family == AddressFamily::Bridge {
        let (bridge, entry) = fdb::of_message(message)?;
        return Some(Change::Fdb {
            bridge,
            entry,
            there,
        });
    }
    let (address, mac) = neigh::of_message(message)?;
    Some(Change::Neighbour {
        link: LinkIndex::new(message.header.ifindex),
        address,
        mac: mac.filter(|_| there),
    })
}
