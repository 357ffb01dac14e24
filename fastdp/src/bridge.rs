//! Makes the bridge, or finds out that one of its name is ours to take over.
//!
//! **Whose bridge is it?** The one that carries our note, and no other: a bridge is born under another name, is given the
//! note, and then its name. What a process that was killed in between leaves under that other name goes with the next
//! start, or with a reset. A device of the bridge's name without the note is somebody else's and is refused.

use tracing::{info, warn};
use weft_kernel::addr::Address;
use weft_kernel::link::{BridgeOptions, Link, LinkChange, LinkKind};
use weft_kernel::netlink::{LinkIndex, Netlink, NetlinkError, Request};
use weft_kernel::sysctl::{self, Setting};
use weft_types::{Code, Mtu, Problem};

use crate::apply::{absent_is_fine, on};
use crate::fault;
use crate::names::{BRIDGE_ALIAS, DeviceNames};

/// Who made the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    Earlier,
    Here,
}

/// Opens a netlink socket in the calling thread's network namespace.
pub(crate) fn connect() -> Result<Netlink, Problem> {
    Netlink::connect().map_err(|error| fault::failed("open a netlink socket", &error))
}

/// Finds the bridge, or makes it.
pub(crate) async fn take_bridge(
    netlink: &Netlink,
    names: &DeviceNames,
) -> Result<(LinkIndex, Made), Problem> {
    let doing = format!("create the bridge {}", names.bridge);
    let refused = |error| fault::refused(&doing, error);
    let Some(link) = netlink.link(&names.bridge).await.map_err(refused)? else {
        let bridge = create_bridge(netlink, names).await.map_err(refused)?;
        return Ok((bridge, Made::Here));
    };
    if !is_ours(&link) {
        return Err(in_use(&names.bridge));
    }
    info!(bridge = %names.bridge, "taking over the bridge of an earlier run");
    netlink.reset_bridge(link.index).await.map_err(refused)?;
    Ok((link.index, Made::Earlier))
}

pub(crate) async fn create_bridge(
    netlink: &Netlink,
    names: &DeviceNames,
) -> Result<LinkIndex, NetlinkError> {
    remove_unborn(netlink, names).await?;
    let unborn = names.unborn();
    let options = BridgeOptions {
        name: unborn.clone(),
        // Known with the first snapshot.
        mac: None,
        mtu: u32::from(Mtu::MESH.get()),
        alias: BRIDGE_ALIAS.to_owned(),
    };
    netlink.create_bridge(&options).await?;
    let bridge = netlink.index_of(&unborn).await?;
    let named = LinkChange {
        name: Some(names.bridge.clone()),
        ..LinkChange::default()
    };
    if let Err(error) = netlink.change(Request::change_link(bridge, &named)).await {
        // Best effort: the next start removes it else.
        let _ = netlink.change(Request::delete_link(bridge)).await;
        return Err(error);
    }
    start_bridge(netlink, names, bridge).await?;
    Ok(bridge)
}

/// Removes a bridge that never got its name. Nobody but a router that was killed makes an unused one that is called so.
pub(crate) async fn remove_unborn(
    netlink: &Netlink,
    names: &DeviceNames,
) -> Result<(), NetlinkError> {
    let Some(link) = netlink.link(&names.unborn()).await? else {
        return Ok(());
    };
    let (links, addresses) = (netlink.links().await?, netlink.addresses().await?);
    let unused = link.kind == LinkKind::Bridge && !link.up;
    if unused && is_unused(link.index, &links, &addresses) {
        absent_is_fine(netlink.change(Request::delete_link(link.index)).await)?;
    }
    Ok(())
}

/// Switches the bridge on, deaf to whoever poses as a router on the mesh.
pub(crate) async fn start_bridge(
    netlink: &Netlink,
    names: &DeviceNames,
    bridge: LinkIndex,
) -> Result<(), NetlinkError> {
    for setting in [
        Setting::Ipv6Disabled,
        Setting::AcceptRouterAdvertisements,
        Setting::DuplicateAddressDetection,
    ] {
        if let Err(error) = sysctl::switch_off(&names.bridge, setting) {
            warn!(bridge = %names.bridge, ?setting, %error, "a kernel setting cannot be changed");
        }
    }
    netlink.change(Request::change_link(bridge, &on())).await
}

/// Whether a device of the bridge's name is a bridge of ours.
pub(crate) fn is_ours(link: &Link) -> bool {
    link.kind == LinkKind::Bridge && link.alias.as_deref() == Some(BRIDGE_ALIAS)
}

fn is_unused(bridge: LinkIndex, links: &[Link], addresses: &[Address]) -> bool {
    let port = |link: &Link| link.controller == Some(bridge);
    !links.iter().any(port) && !addresses.iter().any(|address| address.link == bridge)
}

fn in_use(name: &str) -> Problem {
    Problem::new(
        Code::DeviceInUse,
        format!("there is a network device {name} that weft did not make"),
    )
    .why("it is left alone")
    .fix(format!(
        "Choose another name for weft's own: --bridge NAME. What it is: ip -d link show {name}"
    ))
}

#[cfg(test)]
mod tests {
    use weft_kernel::link::Under;

    use super::*;

    fn link(kind: LinkKind, alias: Option<&str>, up: bool) -> Link {
        Link {
            index: LinkIndex::new(7),
            name: "weft".into(),
            kind,
            mac: None,
            mtu: 1500,
            up,
            controller: None,
            port: None,
            max_groups: None,
            as_made: true,
            alias: alias.map(str::to_owned),
            under: Under::default(),
        }
    }

    #[test]
    fn a_bridge_is_ours_by_its_note_alone() {
        let of = |kind, alias, up| is_ours(&link(kind, alias, up));

        assert!(of(LinkKind::Bridge, Some(BRIDGE_ALIAS), true));
        for up in [false, true] {
            assert!(!of(LinkKind::Bridge, None, up));
            assert!(!of(LinkKind::Bridge, Some("a lab"), up));
            assert!(!of(LinkKind::Veth, Some(BRIDGE_ALIAS), up));
        }
    }

    #[test]
    fn a_bridge_with_a_port_or_an_address_is_in_use() {
        let bridge = LinkIndex::new(7);
        let port = Link {
            index: LinkIndex::new(8),
            controller: Some(bridge),
            ..link(LinkKind::Veth, None, true)
        };
        let address = Address {
            link: bridge,
            net: "192.0.2.1/24".parse().unwrap(),
            reach: weft_kernel::addr::Reach::Global,
            usable: true,
        };

        assert!(is_unused(bridge, &[], &[]));
        assert!(!is_unused(bridge, &[port], &[]));
        assert!(!is_unused(bridge, &[], &[address]));
    }
}
