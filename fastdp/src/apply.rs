//! Does what a patch says.

use std::collections::BTreeMap;

use weft_fastdp_proto::diff::Step;
use weft_kernel::link::LinkChange;
use weft_kernel::neigh::Neighbour;
use weft_kernel::netlink::{LinkIndex, Netlink, NetlinkError, Request};

/// Does one step. What is to be removed and is not there is removed.
pub(crate) async fn apply(
    netlink: &Netlink,
    bridge: LinkIndex,
    index: &BTreeMap<String, LinkIndex>,
    step: &Step,
) -> Result<(), NetlinkError> {
    let at = |port: &String| index.get(port).copied().ok_or(NetlinkError::NoDevice);
    match step {
        Step::AddAddress(net) => netlink.change(Request::add_address(bridge, *net)).await,
        Step::Enslave(port) => {
            let port = at(port)?;
            netlink.without_link_local(port).await?;
            let enslave = LinkChange {
                controller: Some(bridge),
                ..LinkChange::default()
            };
            netlink.change(Request::change_link(port, &enslave)).await
        }
        Step::RemoveAddress(net) => {
            absent_is_fine(netlink.change(Request::delete_address(bridge, *net)).await)
        }
        Step::RemoveFdb { mac, port } => {
            absent_is_fine(netlink.change(Request::delete_fdb(*mac, at(port)?)).await)
        }
        Step::RemoveNeighbour(address) => absent_is_fine(
            netlink
                .change(Request::delete_neighbour(bridge, *address))
                .await,
        ),
        Step::SetBridgeMac(mac) => {
            let change = LinkChange {
                mac: Some(*mac),
                ..LinkChange::default()
            };
            netlink.change(Request::change_link(bridge, &change)).await
        }
        Step::SetBridgeMtu(mtu) => {
            netlink
                .change(Request::change_link(bridge, &to_mtu(*mtu)))
                .await
        }
        Step::SetFdb { mac, port } => netlink.change(Request::set_fdb(*mac, at(port)?)).await,
        Step::SetNeighbour { address, mac } => {
            let neighbour = Neighbour {
                address: *address,
                mac: *mac,
            };
            netlink
                .change(Request::set_neighbour(bridge, &neighbour))
                .await
        }
        Step::SetPortFlags { port, flags } => {
            netlink
                .change(Request::set_port_flags(at(port)?, flags))
                .await
        }
        Step::SetPortMtu { port, mtu } => {
            netlink
                .change(Request::change_link(at(port)?, &to_mtu(*mtu)))
                .await
        }
        Step::StartBridge => netlink.change(Request::change_link(bridge, &on())).await,
        Step::StartPort(port) => netlink.change(Request::change_link(at(port)?, &on())).await,
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
