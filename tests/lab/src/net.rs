//! Devices, addresses and switches inside namespaces: the few requests a lab is built from.
//!
//! For labs, and for tests of single crates that need no more than a few devices. Every function enters its namespace for one request and leaves nothing running there. They do not go through
//! `weft_kernel::link` on purpose: a tester that shares code with what it tests shares its mistakes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use ipnet::{IpNet, Ipv4Net};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, MacVlanMode, State};
use rtnetlink::{
    Handle, LinkBridge, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};
use weft_kernel::netns::NetNs;
use weft_types::MacAddr;

use crate::LabError;

/// A worker of the kernel that runs in milliseconds, or later on a busy machine.
const CARRIER: Duration = Duration::from_secs(3);

/// What a device has that nobody has touched: the kernel's own.
const GSO_MAX_SEGS: u32 = 65535;

/// Makes a new namespace ready: its loopback device is up, and an address answers as soon as it is given.
pub fn prepare(namespace: &NetNs) -> Result<(), LabError> {
    up(namespace, "lo")?;
    // Duplicate address detection makes an address wait a second or two before it answers (RFC 4862 §5.4).
    for of in ["all", "default"] {
        match sysctl(namespace, &format!("net.ipv6.conf.{of}.accept_dad"), "0") {
            // A kernel without IPv6 has no such switch.
            Err(LabError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Makes a cable: `near` in one namespace, `far` in another, both up.
pub fn cable(near: (&NetNs, &str), far: (&NetNs, &str), mtu: u32) -> Result<(), LabError> {
    let peer = LinkUnspec::new_with_name(far.1)
        .mtu(mtu)
        .setns_by_fd(far.0.as_fd().as_raw_fd())
        .build();
    let message = LinkMessageBuilder::<LinkVeth>::new(near.1, far.1)
        .mtu(mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    request(
        near.0,
        format!("make the cable {} - {}", near.1, far.1),
        async |handle| handle.link().add(message).execute().await,
    )?;
    up(near.0, near.1)?;
    up(far.0, far.1)?;
    carries(near.0, near.1)?;
    carries(far.0, far.1)
}

/// Waits until the kernel has seen a device's carrier: before, it drops in silence what is sent there.
fn carries(namespace: &NetNs, device: &str) -> Result<(), LabError> {
    let end = Instant::now() + CARRIER;
    request(
        namespace,
        format!("wait for the carrier of {device}"),
        async |handle| {
            loop {
                let mut found = handle.link().get().match_name(device.to_owned()).execute();
                let link = found.try_next().await?;
                let up = LinkAttribute::OperState(State::Up);
                // Without it the first frames are lost, as on any network.
                if link.is_none_or(|link| link.attributes.contains(&up)) || Instant::now() >= end {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        },
    )
}

/// Makes a switch that forwards at once and keeps nothing to itself but frames to itself.
pub fn switch(namespace: &NetNs, name: &str) -> Result<(), LabError> {
    let message = LinkBridge::new(name)
        .forward_delay(0)
        .mcast_snooping(false)
        .up()
        .build();
    request(
        namespace,
        format!("make the switch {name}"),
        async |handle| handle.link().add(message).execute().await,
    )
}

/// Makes a device that poses as another network card of the wire that `device` is on.
pub fn card(namespace: &NetNs, name: &str, device: &str) -> Result<(), LabError> {
    let below = index(namespace, device)?;
    let message = LinkMacVlan::new(name, below, MacVlanMode::Bridge)
        .up()
        .build();
    request(namespace, format!("make the card {name}"), async |handle| {
        handle.link().add(message).execute().await
    })
}

/// Plugs a device into a switch, or out of any.
pub fn plug(namespace: &NetNs, device: &str, switch: Option<&str>) -> Result<(), LabError> {
    let master = match switch {
        Some(name) => index(namespace, name)?,
        None => 0,
    };
    set(namespace, device, format!("plug {device}"), |link| {
        link.controller(master)
    })
}

/// Brings a device up.
pub fn up(namespace: &NetNs, device: &str) -> Result<(), LabError> {
    set(
        namespace,
        device,
        format!("bring {device} up"),
        LinkMessageBuilder::up,
    )
}

/// Takes a device down. Its peer loses carrier.
pub fn down(namespace: &NetNs, device: &str) -> Result<(), LabError> {
    set(
        namespace,
        device,
        format!("take {device} down"),
        LinkMessageBuilder::down,
    )
}

/// Sets the largest packet a device passes.
pub fn set_mtu(namespace: &NetNs, device: &str, mtu: u32) -> Result<(), LabError> {
    set(
        namespace,
        device,
        format!("set the MTU of {device}"),
        |link| link.mtu(mtu),
    )
}

/// Gives a device another hardware address.
pub fn set_mac(namespace: &NetNs, device: &str, mac: MacAddr) -> Result<(), LabError> {
    let doing = format!("give {device} the hardware address {mac}");
    set(namespace, device, doing, |link| {
        link.address(mac.as_bytes().to_vec())
    })
}

/// Makes the kernel finish every packet before this device, as a real card puts it on the wire: none longer than the MTU.
pub fn forbid_long_frames(namespace: &NetNs, device: &str) -> Result<(), LabError> {
    set(
        namespace,
        device,
        format!("forbid long frames on {device}"),
        |link| link.append_extra_attribute(LinkAttribute::GsoMaxSegs(1)),
    )
}

/// Takes that back.
pub fn allow_long_frames(namespace: &NetNs, device: &str) -> Result<(), LabError> {
    set(
        namespace,
        device,
        format!("allow long frames on {device}"),
        |link| link.append_extra_attribute(LinkAttribute::GsoMaxSegs(GSO_MAX_SEGS)),
    )
}

/// Removes a device, and with it the other end if it is a cable.
pub fn remove(namespace: &NetNs, device: &str) -> Result<(), LabError> {
    let at = index(namespace, device)?;
    request(namespace, format!("remove {device}"), async |handle| {
        handle.link().del(at).execute().await
    })
}

/// Gives a device an address.
pub fn address(namespace: &NetNs, device: &str, address: IpNet) -> Result<(), LabError> {
    let at = index(namespace, device)?;
    request(
        namespace,
        format!("give {device} the address {address}"),
        async |handle| {
            handle
                .address()
                .add(at, address.addr(), address.prefix_len())
                .execute()
                .await
        },
    )
}

/// Sends what is for a network of IPv4 through `gateway`.
pub fn route(namespace: &NetNs, to: Ipv4Net, gateway: Ipv4Addr) -> Result<(), LabError> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(to.network(), to.prefix_len())
        .gateway(gateway)
        .build();
    let doing = format!("route {to} through {gateway}");
    request(namespace, doing, async |handle| {
        handle.route().add(route).execute().await
    })
}

/// Sends everything that has no better way through `gateway`.
pub fn default_route(namespace: &NetNs, gateway: IpAddr) -> Result<(), LabError> {
    let doing = format!("route through {gateway}");
    let route = match gateway {
        IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(gateway)
            .build(),
        IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new()
            .gateway(gateway)
            .build(),
    };
    request(namespace, doing, async |handle| {
        handle.route().add(route).execute().await
    })
}

/// Writes a switch of the namespace's network stack, such as `net.ipv4.ip_forward`.
pub fn sysctl(namespace: &NetNs, key: &str, value: &str) -> Result<(), LabError> {
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    namespace
        .run(|| std::fs::write(path, value))?
        .map_err(LabError::io(format!("set {key} to {value}")))
}

fn index(namespace: &NetNs, device: &str) -> Result<u32, LabError> {
    namespace
        .run(|| nix::net::if_::if_nametoindex(device))?
        .map_err(|errno| LabError::io(format!("find the device {device}"))(errno.into()))
}

fn set(
    namespace: &NetNs,
    device: &str,
    doing: String,
    change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec> + Send,
) -> Result<(), LabError> {
    let at = index(namespace, device)?;
    let message = change(LinkUnspec::new_with_index(at)).build();
    request(namespace, doing, async |handle| {
        handle.link().set(message).execute().await
    })
}

fn request(
    namespace: &NetNs,
    doing: String,
    work: impl AsyncFnOnce(&Handle) -> Result<(), rtnetlink::Error> + Send,
) -> Result<(), LabError> {
    namespace.block_on(|| async move {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(LabError::io("talk to the kernel"))?;
        let driver = tokio::spawn(connection);
        let outcome = work(&handle).await.map_err(LabError::link(doing));
        driver.abort();
        outcome
    })?
}
