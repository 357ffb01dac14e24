//! Finds out what this kernel, and this process, can do. Nothing is assumed from a version number: each feature is tried.
//!
//! Bridge features are tried on a bridge and a TAP made for the purpose, which are gone when the answer is there.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use weft_types::{MacAddr, PortFlag};

use crate::fdb::{FdbEntry, Hold};
use crate::link::{BridgeOptions, LinkChange};
use crate::netlink::{LinkIndex, Netlink, NetlinkError, Request};
use crate::tap::{Offload, TUN_DEVICE, Tap, TapOptions};
use crate::udp::{UdpOptions, UdpSocket};

/// Something that a kernel or a process can do, or cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Make software bridges.
    Bridge,
    /// Change devices, addresses and tables: CAP_NET_ADMIN.
    CapNetAdmin,
    /// Read and write raw frames: CAP_NET_RAW.
    CapNetRaw,
    /// Hold IPv6 addresses.
    Ipv6,
    /// Keep bridge ports apart.
    Isolated,
    /// Let in by a bridge port only frames of known sources.
    Locked,
    /// Answer address resolution in the bridge.
    NeighSuppress,
    /// Keep FDB entries where they were put.
    Sticky,
    /// Open /dev/net/tun.
    Tun,
    /// Hand over TCP super-frames by a TAP.
    TunTcp,
    /// Hand over UDP super-frames by a TAP.
    TunUdp,
    /// Join received datagrams (UDP_GRO).
    UdpJoin,
    /// Cut sent datagrams (UDP_SEGMENT).
    UdpSegment,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "software bridges",
            Self::CapNetAdmin => "CAP_NET_ADMIN",
            Self::CapNetRaw => "CAP_NET_RAW",
            Self::Ipv6 => "IPv6",
            Self::Isolated => "isolated bridge ports",
            Self::Locked => "locked bridge ports",
            Self::NeighSuppress => "neighbour suppression on bridge ports",
            Self::Sticky => "sticky FDB entries",
            Self::Tun => "TUN/TAP devices",
            Self::TunTcp => "TCP segmentation on TAP devices",
            Self::TunUdp => "UDP segmentation on TAP devices",
            Self::UdpJoin => "UDP receive offload",
            Self::UdpSegment => "UDP segmentation offload",
        })
    }
}

/// Whether a feature is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is.
    Present,
    /// It is not, for this reason.
    Absent(String),
    /// It could not be tried, for this reason.
    Unknown(String),
}

/// What was found, one finding per feature, in a fixed order.
pub type Findings = Vec<(Feature, Finding)>;

/// Tries every feature.
pub async fn probe(netlink: &Netlink) -> Findings {
    let mut findings = vec![
        (Feature::CapNetAdmin, capability(CAP_NET_ADMIN)),
        (Feature::CapNetRaw, capability(CAP_NET_RAW)),
        (Feature::Ipv6, ipv6()),
        (Feature::Tun, tun()),
    ];
    findings.extend(udp());
    findings.extend(bridge(netlink).await);
    findings
}

/// Whether this thread may change devices, addresses and tables.
pub fn may_administer() -> bool {
    capability(CAP_NET_ADMIN) == Finding::Present
}

/// Whether this kernel, in this namespace, can hold IPv6 addresses.
pub fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// Bits of a capability set: capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;

fn capability(bit: u32) -> Finding {
    let status = match fs::read_to_string("/proc/thread-self/status") {
        Ok(status) => status,
        Err(error) => return Finding::Unknown(error.to_string()),
    };
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    match effective {
        Some(set) if set >> bit & 1 == 1 => Finding::Present,
        Some(_) => Finding::Absent("this process runs without it".into()),
        None => Finding::Unknown("/proc tells no capabilities".into()),
    }
}

fn ipv6() -> Finding {
    if has_ipv6() {
        Finding::Present
    } else {
        Finding::Absent("the kernel was built or started without IPv6".into())
    }
}

fn tun() -> Finding {
    match fs::File::options().read(true).write(true).open(TUN_DEVICE) {
        Ok(_) => Finding::Present,
        Err(error) => Finding::Absent(format!("{TUN_DEVICE}: {error}")),
    }
}

fn udp() -> Findings {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let socket = match UdpSocket::bind(any, UdpOptions::default()) {
        Ok(socket) => socket,
        Err(error) => {
            let unknown = Finding::Unknown(error.to_string());
            return vec![
                (Feature::UdpJoin, unknown.clone()),
                (Feature::UdpSegment, unknown),
            ];
        }
    };
    vec![
        (Feature::UdpJoin, since(socket.joins(), "5.0")),
        (Feature::UdpSegment, since(socket.cuts(), "4.18")),
    ]
}

/// What is tried on a bridge of its own.
const ON_BRIDGE: [Feature; 7] = [
    Feature::Bridge,
    Feature::Isolated,
    Feature::Locked,
    Feature::NeighSuppress,
    Feature::Sticky,
    Feature::TunTcp,
    Feature::TunUdp,
];

async fn bridge(netlink: &Netlink) -> Findings {
    // The name tells whose it is if this process dies in between.
    let name = format!("wvp{}", std::process::id());
    let made = make(netlink, &name).await;
    let findings = match &made {
        Ok(_) => try_bridge(netlink, &name).await,
        Err(error) => Err(*error),
    };
    if let Ok(index) = made {
        // A bridge that was just made goes, or its namespace is going.
        let _ = netlink.change(Request::delete_link(index)).await;
    }
    findings.unwrap_or_else(|error| {
        let finding = if error == NetlinkError::Unsupported {
            Finding::Absent(error.to_string())
        } else {
            Finding::Unknown(error.to_string())
        };
        ON_BRIDGE.map(|feature| (feature, finding.clone())).into()
    })
}

async fn make(netlink: &Netlink, name: &str) -> Result<LinkIndex, NetlinkError> {
    let options = BridgeOptions {
        name: name.to_owned(),
        mac: None,
        alias: "weft looks what the kernel can do".into(),
        mtu: 1500,
    };
    netlink.create_bridge(&options).await?;
    netlink.index_of(name).await
}

async fn try_bridge(netlink: &Netlink, name: &str) -> Result<Findings, NetlinkError> {
    let bridge = netlink.index_of(name).await?;
    let tap = match Tap::open(&format!("{name}t"), TapOptions::default()) {
        Ok(tap) => tap,
        Err(error) => return Ok(without_tap(&error)),
    };
    let port = put_on(netlink, bridge, &tap).await?;
    let flags = netlink
        .link_at(port)
        .await?
        .and_then(|link| link.port)
        .unwrap_or_default();
    let flag = |flag, version| since(flags.contains_key(&flag), version);
    let offload = |least, version| since(tap.offload() >= least, version);
    Ok(vec![
        (Feature::Bridge, Finding::Present),
        (Feature::Isolated, flag(PortFlag::Isolated, "4.18")),
        (Feature::Locked, flag(PortFlag::Locked, "5.18")),
        (
            Feature::NeighSuppress,
            flag(PortFlag::NeighSuppress, "4.15"),
        ),
        (Feature::Sticky, sticky(netlink, bridge, port).await?),
        (Feature::TunTcp, offload(Offload::Tcp, "2.6.27")),
        (Feature::TunUdp, offload(Offload::TcpAndUdp, "6.2")),
    ])
}

async fn put_on(
    netlink: &Netlink,
    bridge: LinkIndex,
    tap: &Tap,
) -> Result<LinkIndex, NetlinkError> {
    let port = netlink.index_of(tap.name()).await?;
    let enslave = LinkChange {
        controller: Some(bridge),
        ..LinkChange::default()
    };
    netlink.change(Request::change_link(port, &enslave)).await?;
    Ok(port)
}

/// Tries whether an entry of `bridge` that points at `port` stays where it is put.
pub async fn sticky(
    netlink: &Netlink,
    bridge: LinkIndex,
    port: LinkIndex,
) -> Result<Finding, NetlinkError> {
    let entry = FdbEntry {
        mac: MacAddr::local([0, 0, 0, 0, 0, 1]),
        port,
        hold: Hold::Sticky,
    };
    netlink.change(Request::set_fdb(entry.mac, port)).await?;
    let kept = netlink.fdb(bridge).await?.contains(&entry);
    netlink.change(Request::delete_fdb(entry.mac, port)).await?;
    Ok(since(kept, "4.20"))
}

fn since(present: bool, version: &str) -> Finding {
    if present {
        Finding::Present
    } else {
        Finding::Absent(format!("the kernel is older than {version}"))
    }
}

fn without_tap(error: &io::Error) -> Findings {
    let unknown = |feature| {
        (
            feature,
            Finding::Unknown(format!("no TAP to try it on: {error}")),
        )
    };
    let mut findings: Findings = ON_BRIDGE.map(unknown).into();
    findings[0].1 = Finding::Present;
    findings
}
