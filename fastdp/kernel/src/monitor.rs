//! Hears of changes to devices, addresses, neighbours and FDB entries, whoever makes them.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's vocabulary is open: what is not named here is not ours"
)]

use std::io;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::LinkIndex;

/// Something changed. What it is now is read from the tables: notices may be lost, tables are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// A device gained or lost an address.
    Address(LinkIndex),
    /// An address moved to or from a port of a bridge.
    Fdb(LinkIndex),
    /// A device appeared, changed or vanished.
    Link(LinkIndex),
    /// More changed than could be told.
    Lost,
    /// A device gained, changed or lost a neighbour.
    Neighbour(LinkIndex),
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
    pub fn open() -> io::Result<Self> {
        let (connection, _, notices) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ])?;
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
            Some(Change::Link(LinkIndex::new(link.header.index)))
        }
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            Some(Change::Address(LinkIndex::new(address.header.index)))
        }
        RouteNetlinkMessage::NewNeighbour(entry) | RouteNetlinkMessage::DelNeighbour(entry) => {
            let link = LinkIndex::new(entry.header.ifindex);
            if entry.header.family == AddressFamily::Bridge {
                Some(Change::Fdb(link))
            } else {
                Some(Change::Neighbour(link))
            }
        }
        _ => None,
    }
}
