//! Reads and writes a bridge's forwarding database: behind which port an Ethernet address is.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's vocabulary is open: what is not named here is not ours"
)]

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use rtnetlink::packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use weft_types::MacAddr;

use crate::netlink::{LinkIndex, Netlink, NetlinkError, Request};

/// How firmly an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hold {
    /// Learnt from a frame: ages, and follows the address.
    Learnt,
    /// The address of the port itself: frames to it are for this host.
    Local,
    /// Written by hand. Follows the address to whatever port sends from it.
    Static,
    /// Written by hand, and stays where it is (Linux 4.20).
    Sticky,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdbEntry {
    /// The address.
    pub mac: MacAddr,
    /// The port it is behind.
    pub port: LinkIndex,
    /// Whether it may move.
    pub hold: Hold,
}

impl Netlink {
    /// Reads the entries of `bridge` that belong to no VLAN.
    pub async fn fdb(&self, bridge: LinkIndex) -> Result<Vec<FdbEntry>, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        let answers = self
            .dump(RouteNetlinkMessage::GetNeighbour(message))
            .await?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| of_answer(&answer, bridge))
            .collect())
    }
}

impl Request {
    /// Writes the sticky entry that `mac` is behind `port`, replacing the one that the address has.
    pub fn set_fdb(mac: MacAddr, port: LinkIndex) -> Self {
        let message = to_message(mac, port, NeighbourFlags::Sticky);
        let message = RouteNetlinkMessage::NewNeighbour(message);
        Self::new(message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Removes the entry that `mac` has on `port`.
    pub fn delete_fdb(mac: MacAddr, port: LinkIndex) -> Self {
        let message = to_message(mac, port, NeighbourFlags::empty());
        Self::new(RouteNetlinkMessage::DelNeighbour(message), 0)
    }
}

fn to_message(mac: MacAddr, port: LinkIndex, extra: NeighbourFlags) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = port.get();
    message.header.state = NeighbourState::Noarp;
    // The table of the bridge, not of the port's device.
    message.header.flags = NeighbourFlags::Controller | extra;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(
        mac.as_bytes().to_vec(),
    )];
    message
}

fn of_answer(answer: &RouteNetlinkMessage, bridge: LinkIndex) -> Option<FdbEntry> {
    let RouteNetlinkMessage::NewNeighbour(message) = answer else {
        return None;
    };
    of_message(message)
        .filter(|(controller, _)| *controller == bridge)
        .map(|(_, entry)| entry)
}

/// The entry, and the bridge it is of.
pub(crate) fn of_message(message: &NeighbourMessage) -> Option<(LinkIndex, FdbEntry)> {
    let (mut mac, mut controller) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok();
            }
            NeighbourAttribute::Controller(index) => controller = Some(LinkIndex::new(*index)),
            NeighbourAttribute::Vlan(_) => return None,
            _ => {}
        }
    }
    let hold = match message.header.state {
        NeighbourState::Permanent => Hold::Local,
        NeighbourState::Noarp if message.header.flags.contains(NeighbourFlags::Sticky) => {
            Hold::Sticky
        }
        NeighbourState::Noarp => Hold::Static,
        _ => Hold::Learnt,
    };
    let entry = FdbEntry {
        mac: MacAddr::new(mac?),
        port: LinkIndex::new(message.header.ifindex),
        hold,
    };
    Some((controller?, entry))
}
