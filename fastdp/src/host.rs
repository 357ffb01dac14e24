//! Puts this host on the virtual Ethernet: makes the bridge, or takes over the one that a killed process left, and the TAP.
//!
//! Which bridge may be taken over stands in `bridge`. A TAP never is: ours is not persistent, so the kernel removes it with
//! the process that has it, however that ends. One that exists is another router's, or somebody else's.
//!
//! **Failure policy.** A start that fails takes back what it made.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use weft_fastdp_proto::plan::sleeve_flags;
use weft_kernel::link::{Link, LinkChange};
use weft_kernel::netlink::{LinkIndex, Netlink, NetlinkError, Request};
use weft_kernel::probe::{self, Finding};
use weft_kernel::sysctl::{self, Setting};
use weft_kernel::tap::{Tap, TapOptions};
use weft_types::{Code, Mtu, PortFlag, PortFlags, Problem};

use crate::apply::{absent_is_fine, on, under};
use crate::bridge::{Made, connect, is_ours, remove_unborn, start_bridge, take_bridge};
use crate::fault::{gullible, lacking};
use crate::names::DeviceNames;
use crate::{check, fault, observe};

/// What a file that is no TUN device says to an ioctl: a container that masks the device with /dev/null.
const ENOTTY: i32 = 25;

/// This host's place on the virtual Ethernet.
#[derive(Clone, Debug)]
pub struct Host {
    pub(crate) netlink: Netlink,
    pub(crate) names: DeviceNames,
    /// What this kernel lacks: found once, shown for good.
    pub(crate) lacks: Arc<Vec<Problem>>,
    pub(crate) ports: Arc<watch::Sender<Option<BTreeSet<String>>>>,
}

impl Host {
    /// Makes the bridge and the TAP, or takes over the bridge that an earlier run left. Until a snapshot says otherwise the
    /// bridge has no address and the default MTU.
    ///
    /// Must be called within a tokio runtime. The devices are made in the calling thread's network namespace.
    pub async fn open(names: &DeviceNames, options: TapOptions) -> Result<(Self, Tap), Problem> {
        let netlink = connect()?;
        // First: only one process has it, so the bridge of a router that runs is never touched.
        let tap = open_tap(names, options)?;
        let (bridge, made) = take_bridge(&netlink, names).await?;
        match furnish(&netlink, names, bridge, tap).await {
            Ok((tap, lacks)) => {
                let host = Self {
                    netlink,
                    names: names.clone(),
                    lacks: Arc::new(lacks),
                    ports: Arc::new(watch::Sender::new(None)),
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

    /// The names of the container ports on the bridge, kept up to date by [`crate::follow::follow`]; `None` until the kernel
    /// was looked at. A port vanishes with its container.
    pub fn ports(&self) -> watch::Receiver<Option<BTreeSet<String>>> {
        self.ports.subscribe()
    }

    /// How often the kernel was asked for something.
    pub fn round_trips(&self) -> u64 {
        self.netlink.round_trips()
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

/// Puts the TAP on the bridge; tells what this kernel lacks.
async fn furnish(
    netlink: &Netlink,
    names: &DeviceNames,
    bridge: LinkIndex,
    tap: Tap,
) -> Result<(Tap, Vec<Problem>), Problem> {
    let work = async {
        let port = wire(netlink, names, bridge, &tap).await?;
        lacks(netlink, names, bridge, port).await
    };
    let lacks = work
        .await
        .map_err(|error| fault::refused("set up the bridge and its port", error))?;
    Ok((tap, lacks))
}

fn open_tap(names: &DeviceNames, options: TapOptions) -> Result<Tap, Problem> {
    check::tun()?;
    Tap::open(&names.tap, options).map_err(|error| no_tap(&names.tap, &error))
}

fn no_tap(name: &str, error: &io::Error) -> Problem {
    if error.kind() == io::ErrorKind::ResourceBusy {
        let what = format!("there is a network device {name} already");
        return Problem::new(Code::DeviceInUse, what)
            .why("weft's own goes with its process, so a running one has it, or weft did not make it")
            .fix("Where a weft router runs, see how it is: weft status. A second one beside it needs devices of its own: --bridge NAME");
    }
    if error.raw_os_error() == Some(ENOTTY) {
        return fault::no_tun(error);
    }
    fault::failed(&format!("create the TAP device {name}"), error)
}

/// Makes the TAP a port of the bridge, and switches both on.
async fn wire(
    netlink: &Netlink,
    names: &DeviceNames,
    bridge: LinkIndex,
    tap: &Tap,
) -> Result<LinkIndex, NetlinkError> {
    let port = netlink.index_of(tap.name()).await?;
    netlink.without_link_local(port).await?;
    let enslave = LinkChange {
        mtu: Some(u32::from(Mtu::MESH.get())),
        ..under(bridge)
    };
    for request in [
        Request::change_link(port, &enslave),
        Request::set_port_flags(port, &sleeve_flags()),
        Request::change_link(port, &on()),
    ] {
        netlink.change(request).await?;
    }
    start_bridge(netlink, names, bridge).await?;
    Ok(port)
}

/// Port flags that older kernels do not know, in words.
const FLAGS: [(PortFlag, &str); 3] = [
    (PortFlag::Isolated, "isolated bridge ports (Linux 4.18)"),
    (PortFlag::Locked, "locked bridge ports (Linux 5.18)"),
    (
        PortFlag::NeighSuppress,
        "neighbour suppression on bridge ports (Linux 4.15)",
    ),
];

/// Tells what this kernel lacks: found out by trying, not by its version.
async fn lacks(
    netlink: &Netlink,
    names: &DeviceNames,
    bridge: LinkIndex,
    port: LinkIndex,
) -> Result<Vec<Problem>, NetlinkError> {
    let known = netlink.link_at(port).await?.and_then(|link| link.port);
    let mut lacks = missing_flags(&known.unwrap_or_default());
    if probe::sticky(netlink, bridge, port).await? != Finding::Present {
        lacks.push(lacking("sticky FDB entries (Linux 4.20)"));
    }
    if let Err(error) = sysctl::switch_off(&names.bridge, Setting::AcceptRouterAdvertisements) {
        lacks.push(gullible(&names.bridge, &error));
    }
    Ok(lacks)
}

fn missing_flags(known: &PortFlags) -> Vec<Problem> {
    FLAGS
        .iter()
        .filter(|(flag, _)| !known.contains_key(flag))
        .map(|(_, feature)| lacking(feature))
        .collect()
}

async fn remove(netlink: &Netlink, names: &DeviceNames) -> Result<(), Problem> {
    let refused = |error| fault::refused("remove the devices of this router", error);
    let links = netlink.links().await.map_err(refused)?;
    remove_unborn(netlink, names).await.map_err(refused)?;
    let of_name = |link: &&Link| link.name == names.bridge && is_ours(link);
    let Some(bridge) = links.iter().find(of_name) else {
        return Ok(());
    };
    let ports = links
        .iter()
        .filter(|link| observe::is_port(link, bridge.index, names));
    for link in ports.chain([bridge]) {
        let gone = netlink.change(Request::delete_link(link.index)).await;
        absent_is_fine(gone).map_err(refused)?;
    }
    Ok(())
}
