//! Makes the bridge, or finds out that one of its name is ours to take over.
//!
//! **Whose bridge is it?** One that carries our note is ours, and so is one that nobody has used yet: switched off,
//! without ports and addresses, as we leave it when killed between making it and marking it. Any other device of the name
//! is somebody else's and is refused.

use tracing::{info, warn};
use weft_kernel::addr::Address;
use weft_kernel::link::{BridgeOptions, Link, LinkChange, LinkKind};
use weft_kernel::netlink::{LinkIndex, Netlink, NetlinkError, Request};
use weft_kernel::sysctl::{self, Setting};
use weft_types::{Code, Mtu, Problem};

use crate::apply::on;
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
    if !is_ours(netlink, &link).await.map_err(refused)? {
        return Err(in_use(&names.bridge));
    }
    info!(bridge = %names.bridge, "taking over the bridge of an earlier run");
    take_over(netlink, link.index).await.map_err(refused)?;
    Ok((link.index, Made::Earlier))
}

async fn take_over(netlink: &Netlink, bridge: LinkIndex) -> Result<(), NetlinkError> {
    netlink.reset_bridge(bridge).await?;
    let mark = LinkChange {
        alias: Some(BRIDGE_ALIAS.to_owned()),
        ..LinkChange::default()
    };
    netlink.change(Request::change_link(bridge, &mark)).await
}

pub(crate) async fn create_bridge(
    netlink: &Netlink,
    names: &DeviceNames,
) -> Result<LinkIndex, NetlinkError> {
    let options = BridgeOptions {
        name: names.bridge.clone(),
        // Known with the first snapshot.
        mac: None,
        mtu: u32::from(Mtu::MESH.get()),
        alias: BRIDGE_ALIAS.to_owned(),
    };
    netlink.create_bridge(&options).await?;
    let bridge = netlink.index_of(&names.bridge).await?;
    start_bridge(netlink, names, bridge).await?;
    Ok(bridge)
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

/// Whether a device of the bridge's name is the bridge of an earlier run.
pub(crate) async fn is_ours(netlink: &Netlink, link: &Link) -> Result<bool, NetlinkError> {
    match claim(link) {
        Claim::Ours => Ok(true),
        Claim::Theirs => Ok(false),
        Claim::Unmarked => {
            let (links, addresses) = (netlink.links().await?, netlink.addresses().await?);
            Ok(is_unused(link.index, &links, &addresses))
        }
    }
}

/// What a device of the bridge's name says by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Ours,
    Theirs,
    /// Ours if nobody uses it.
    Unmarked,
}

fn claim(link: &Link) -> Claim {
    if link.kind != LinkKind::Bridge {
        return Claim::Theirs;
    }
    match link.alias.as_deref() {
        Some(BRIDGE_ALIAS) => Claim::Ours,
        None if !link.up => Claim::Unmarked,
        Some(_) | None => Claim::Theirs,
    }
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
    .fix(format!(
        "Remove it (ip link delete {name}), or choose other names for weft's devices"
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
            alias: alias.map(str::to_owned),
            under: Under::default(),
        }
    }

    #[test]
    fn a_bridge_is_ours_by_its_note_and_may_be_where_it_has_none_and_is_off() {
        let of = |kind, alias, up| claim(&link(kind, alias, up));

        assert_eq!(of(LinkKind::Bridge, Some(BRIDGE_ALIAS), true), Claim::Ours);
        assert_eq!(of(LinkKind::Bridge, None, false), Claim::Unmarked);
        assert_eq!(of(LinkKind::Bridge, None, true), Claim::Theirs);
        assert_eq!(of(LinkKind::Bridge, Some("a lab"), false), Claim::Theirs);
        assert_eq!(of(LinkKind::Veth, Some(BRIDGE_ALIAS), true), Claim::Theirs);
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
