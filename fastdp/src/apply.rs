//! Does what a patch says.

use std::collections::BTreeMap;

use weft_fastdp_proto::diff::Step;
use weft_kernel::fdb::{FdbEntry, Hold};
use weft_kernel::link::{LinkChange, LinkIndex};
use weft_kernel::neigh::Neighbour;
use weft_kernel::netlink::{Netlink, NetlinkError};

/// Does one step. What is to be removed and is not there is removed.
pub(crate) async fn apply(
    netlink: &Netlink,
    bridge: LinkIndex,
    index: &BTreeMap<String, LinkIndex>,
    step: &Step,
) -> Result<(), NetlinkError> {
    let at = |port: &String| index.get(port).copied().ok_or(NetlinkError::NoDevice);
    match step {
        Step::AddAddress(net) => netlink.add_address(bridge, *net).await,
        Step::Enslave(port) => {
            let port = at(port)?;
            netlink.without_link_local(port).await?;
            let enslave = LinkChange {
                controller: Some(bridge),
                ..LinkChange::default()
            };
            netlink.change_link(port, &enslave).await
        }
        Step::RemoveAddress(net) => absent_is_fine(netlink.delete_address(bridge, *net).await),
        Step::RemoveFdb { mac, port } => absent_is_fine(netlink.delete_fdb(*mac, at(port)?).await),
        Step::RemoveNeighbour(address) => {
            absent_is_fine(netlink.delete_neighbour(bridge, *address).await)
        }
        Step::SetBridgeMac(mac) => {
            let change = LinkChange {
                mac: Some(*mac),
                ..LinkChange::default()
            };
            netlink.change_link(bridge, &change).await
        }
        Step::SetBridgeMtu(mtu) => netlink.change_link(bridge, &to_mtu(*mtu)).await,
        Step::SetFdb { mac, port } => {
            let entry = FdbEntry {
                mac: *mac,
                port: at(port)?,
                hold: Hold::Sticky,
            };
            netlink.set_fdb(&entry).await
        }
        Step::SetNeighbour { address, mac } => {
            let neighbour = Neighbour {
                address: *address,
                mac: *mac,
            };
            netlink.set_neighbour(bridge, &neighbour).await
        }
        Step::SetPortFlags { port, flags } => netlink.set_port_flags(at(port)?, flags).await,
        Step::SetPortMtu { port, mtu } => netlink.change_link(at(port)?, &to_mtu(*mtu)).await,
        Step::StartBridge => netlink.change_link(bridge, &on()).await,
        Step::StartPort(port) => netlink.change_link(at(port)?, &on()).await,
    }
}

pub(crate) fn on() -> LinkChange {
    LinkChange {
        up: Some(true),
        ..LinkChange::default()
    }
}

pub(crate) fn to_mtu(mtu: u32) -> LinkChange {
    LinkChange {
        mtu: Some(mtu),
        ..LinkChange::default()
    }
}

pub(crate) fn absent_is_fine(done: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match done {
        Err(error) if error.is_absent() => Ok(()),
        done => done,
    }
}
