//! Puts this host on the virtual Ethernet: makes the bridge and the TAP, or takes over what a killed process left.
//!
//! **Whose bridge is it?** One that carries our note is ours, and so is one that nobody has used yet: switched off,
//! without ports and addresses, as we leave it when killed between making it and marking it. Any other device of the name
//! is somebody else's and is refused. A TAP cannot outlive its process, so one that exists is in use.
//!
//! **Failure policy.** A start that fails takes back what it made.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};
use weft_fastdp_proto::plan::sleeve_flags;
use weft_kernel::link::{BridgeOptions, Link, LinkChange, LinkKind};
use weft_kernel::netlink::{LinkIndex, Netlink, NetlinkError, Request};
use weft_kernel::probe::{self, Finding};
use weft_kernel::sysctl::{self, Setting};
use weft_kernel::tap::{TUN_DEVICE, Tap, TapOptions};
use weft_router_proto::genesis::Genesis;
use weft_router_proto::snapshot::Snapshot;
use weft_types::{Code, Mtu, PortFlag, Problem};

use crate::apply::{on, to_mtu};
use crate::names::{BRIDGE_ALIAS, DeviceNames};
use crate::{check, fault, follow, observe};

/// What a file that is no TUN device says to an ioctl: a container that masks the device with /dev/null.
const ENOTTY: i32 = 25;

/// This host's place on the virtual Ethernet.
#[derive(Clone, Debug)]
pub struct Host {
    pub(crate) netlink: Netlink,
    pub(crate) names: DeviceNames,
    /// What this kernel lacks: found once, shown for good.
    pub(crate) lacks: Arc<Vec<Problem>>,
    pub(crate) ports: Arc<watch::Sender<BTreeSet<String>>>,
}

impl Host {
    /// Makes the bridge and the TAP, or takes over the bridge that an earlier run left. Until a snapshot says otherwise the
    /// bridge has no address and the default MTU.
    ///
    /// Must be called within a tokio runtime. The devices are made in the calling thread's network namespace.
    pub async fn open(names: &DeviceNames, options: TapOptions) -> Result<(Self, Tap), Problem> {
        let netlink = connect()?;
        let (bridge, made) = take_bridge(&netlink, names).await?;
        let opened = match open_tap(names, options) {
            Ok(tap) => wire(&netlink, names, bridge, &tap)
                .await
                .map(|lacks| (tap, lacks))
                .map_err(|error| fault::refused("set up the bridge and its port", error)),
            Err(problem) => Err(problem),
        };
        match opened {
            Ok((tap, lacks)) => {
                let host = Self {
                    netlink,
                    names: names.clone(),
                    lacks: Arc::new(lacks),
                    ports: Arc::new(watch::Sender::new(BTreeSet::new())),
                };
                Ok((host, tap))
            }
            Err(problem) => {
                if made == Made::Here {
                    // Best effort: the problem at hand is the one to tell.
                    let _ = netlink.change(Request::delete_link(bridge)).await;
                }
                Err(problem)
            }
        }
    }

    /// Keeps the kernel's tables equal to what the snapshots ask for, until there will be no more of them.
    ///
    /// `problems` always holds everything that is wrong with them at the moment.
    pub async fn follow(
        &self,
        snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
        problems: watch::Sender<Vec<Problem>>,
    ) {
        follow::follow(self, snapshots, problems).await;
    }

    /// The names of the container ports on the bridge, kept up to date by [`Self::follow`]. A port vanishes with its
    /// container.
    pub fn ports(&self) -> watch::Receiver<BTreeSet<String>> {
        self.ports.subscribe()
    }

    /// How often the kernel was asked for something.
    pub fn round_trips(&self) -> u64 {
        self.netlink.round_trips()
    }

    /// Compares this host with what a mesh needs: see [`check::genesis`].
    pub async fn check(&self, genesis: &Genesis) -> Result<(), Problem> {
        check::genesis(&self.names, genesis).await
    }

    /// Removes everything of ours from the kernel.
    pub async fn remove(self) -> Result<(), Problem> {
        remove(&self.netlink, &self.names).await
    }

    /// Removes the devices, unless containers are on them: those go on talking to each other, and the next router takes
    /// the bridge over. The kernel is asked, since a container may be younger than what [`Self::ports`] has heard of.
    pub async fn remove_unused(self) -> Result<(), Problem> {
        let refused = |error| fault::refused("remove the devices of this router", error);
        let links = self.netlink.links().await.map_err(refused)?;
        let bridge = links.iter().find(|link| link.name == self.names.bridge);
        let is_container = |link: &Link| {
            bridge.is_some_and(|bridge| {
                link.name != self.names.tap && observe::is_port(link, bridge.index, &self.names)
            })
        };
        if links.iter().any(is_container) {
            return Ok(());
        }
        self.remove().await
    }

    /// Removes everything that a router of these names has left in the kernel. What is not there, or not ours, stays.
    pub async fn remove_leftovers(names: &DeviceNames) -> Result<(), Problem> {
        remove(&connect()?, names).await
    }
}

/// Who made the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Earlier,
    Here,
}

pub(crate) fn connect() -> Result<Netlink, Problem> {
    Netlink::connect().map_err(|error| fault::failed("open a netlink socket", &error))
}

/// Finds the bridge, or makes it.
async fn take_bridge(netlink: &Netlink, names: &DeviceNames) -> Result<(LinkIndex, Made), Problem> {
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
    netlink.reset_bridge(link.index).await.map_err(refused)?;
    let mark = LinkChange {
        alias: Some(BRIDGE_ALIAS.to_owned()),
        ..LinkChange::default()
    };
    netlink
        .change(Request::change_link(link.index, &mark))
        .await
        .map_err(refused)?;
    Ok((link.index, Made::Earlier))
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
    let link = netlink.link(&names.bridge).await?;
    let bridge = link.ok_or(NetlinkError::NoDevice)?.index;
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

async fn is_ours(netlink: &Netlink, link: &Link) -> Result<bool, NetlinkError> {
    if link.kind != LinkKind::Bridge {
        return Ok(false);
    }
    if link.alias.as_deref() == Some(BRIDGE_ALIAS) {
        return Ok(true);
    }
    if link.up || link.alias.is_some() {
        return Ok(false);
    }
    let links = netlink.links().await?;
    let addresses = netlink.addresses().await?;
    let port = |other: &Link| other.controller == Some(link.index);
    Ok(!links.iter().any(port) && !addresses.iter().any(|address| address.link == link.index))
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

fn open_tap(names: &DeviceNames, options: TapOptions) -> Result<Tap, Problem> {
    if let Err(error) = File::options().read(true).write(true).open(TUN_DEVICE) {
        return Err(fault::no_tun(&error));
    }
    Tap::open(&names.tap, options).map_err(|error| {
        if error.kind() == io::ErrorKind::ResourceBusy {
            return Problem::new(
                Code::DeviceInUse,
                format!("there is a network device {} already", names.tap),
            )
            .why("a TAP lives no longer than its process")
            .fix("Stop the weft router that has it, or choose other names for this one's devices");
        }
        if error.raw_os_error() == Some(ENOTTY) {
            return fault::no_tun(&error);
        }
        fault::failed(&format!("create the TAP device {}", names.tap), &error)
    })
}

/// Makes the TAP a port of the bridge; tells what this kernel lacks.
async fn wire(
    netlink: &Netlink,
    names: &DeviceNames,
    bridge: LinkIndex,
    tap: &Tap,
) -> Result<Vec<Problem>, NetlinkError> {
    let port = netlink.link(tap.name()).await?;
    let port = port.ok_or(NetlinkError::NoDevice)?.index;
    netlink.without_link_local(port).await?;
    let mtu = u32::from(Mtu::MESH.get());
    netlink
        .change(Request::change_link(port, &to_mtu(mtu)))
        .await?;
    let enslave = LinkChange {
        controller: Some(bridge),
        ..LinkChange::default()
    };
    netlink.change(Request::change_link(port, &enslave)).await?;
    netlink
        .change(Request::set_port_flags(port, &sleeve_flags()))
        .await?;
    netlink.change(Request::change_link(port, &on())).await?;
    start_bridge(netlink, names, bridge).await?;

    let known = netlink.link_at(port).await?.and_then(|link| link.port);
    let known = known.unwrap_or_default();
    let mut lacks: Vec<Problem> = [
        (PortFlag::Isolated, "isolated bridge ports (Linux 4.18)"),
        (PortFlag::Locked, "locked bridge ports (Linux 5.18)"),
        (
            PortFlag::NeighSuppress,
            "neighbour suppression on bridge ports (Linux 4.15)",
        ),
    ]
    .into_iter()
    .filter(|(flag, _)| !known.contains_key(flag))
    .map(|(_, feature)| lacking(feature))
    .collect();
    if probe::sticky(netlink, bridge, port).await? != Finding::Present {
        lacks.push(lacking("sticky FDB entries (Linux 4.20)"));
    }
    if let Err(error) = sysctl::switch_off(&names.bridge, Setting::AcceptRouterAdvertisements) {
        lacks.push(gullible(&names.bridge, &error));
    }
    Ok(lacks)
}

/// A container could make itself this host's default router.
pub(crate) fn gullible(bridge: &str, error: &io::Error) -> Problem {
    Problem::new(
        Code::KernelFeatureMissing,
        format!("router advertisements cannot be switched off on {bridge}"),
    )
    .why(format!("/proc/sys/net/ipv6/conf/{bridge}/accept_ra: {error}"))
    .fix(format!(
        "Let the service write /proc/sys/net, or set it by hand: sysctl net.ipv6.conf.{bridge}.accept_ra=0"
    ))
}

pub(crate) fn lacking(feature: &str) -> Problem {
    let problem = Problem::new(
        Code::KernelFeatureMissing,
        format!("the kernel has no {feature}"),
    );
    problem.fix("Everything works; a later kernel keeps containers better apart")
}

async fn remove(netlink: &Netlink, names: &DeviceNames) -> Result<(), Problem> {
    let refused = |error| fault::refused("remove the devices of this router", error);
    let links = netlink.links().await.map_err(refused)?;
    let Some(bridge) = links.iter().find(|link| link.name == names.bridge) else {
        return Ok(());
    };
    if !is_ours(netlink, bridge).await.map_err(refused)? {
        return Ok(());
    }
    let ports = links
        .iter()
        .filter(|link| observe::is_port(link, bridge.index, names));
    for link in ports.chain([bridge]) {
        let gone = netlink.change(Request::delete_link(link.index)).await;
        crate::apply::absent_is_fine(gone).map_err(refused)?;
    }
    Ok(())
}
