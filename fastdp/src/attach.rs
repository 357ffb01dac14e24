//! Puts a container on the bridge: what `weft attach` does on the host's side.
//!
//! ```text
//!   host's namespace                          container's namespace
//!   bridge ── wv020000000001 (locked) ═════════ weft0, addresses, MTU, accept_ra=0
//! ```
//!
//! The command does this, not the router, which never enters another namespace. The container's device is born in the
//! container, so there is no moment at which half a pair has its name on the host.
//!
//! **Failure policy.** All or nothing: a pair that cannot be set up is removed.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;

use ipnet::IpNet;
use weft_fastdp_proto::plan::{CONTAINER_GROUPS, container_flags};
use weft_kernel::addr::Reach;
use weft_kernel::link::{Link, LinkKind, VethEnd};
use weft_kernel::netlink::{LinkIndex, Netlink, NetlinkError, Request};
use weft_kernel::netns::{NetNs, NetNsError};
use weft_kernel::sysctl::{self, Setting};
use weft_types::{Code, MacAddr, PortFlag, Problem};

use crate::apply::{absent_is_fine, on, under};
use crate::bridge::connect;
use crate::fault::{self, gullible, lacking};
use crate::names::port_name;
use crate::target::Target;

/// What to attach, and how.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// Which container.
    pub target: Target,
    /// The bridge it is put on.
    pub bridge: String,
    /// What the container will call its device.
    pub device: String,
    /// Its Ethernet address; a random one where none is given.
    pub mac: Option<MacAddr>,
    /// Its addresses, with the prefix length of their network.
    pub addresses: Vec<IpNet>,
}

/// What was attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The container's Ethernet address.
    pub mac: MacAddr,
    /// The host's end of the veth pair.
    pub port: String,
    /// What works less well than it might.
    pub problems: Vec<Problem>,
}

/// Attaches a container. It can talk at once to containers of this host, and to the mesh once the router knows of it.
///
/// Must be called within a tokio runtime, in the network namespace of the router.
pub async fn attach(attachment: &Attachment) -> Result<Attached, Problem> {
    let netns = open(&attachment.target)?;
    let netlink = connect()?;
    let bridge = bridge(&netlink, &attachment.bridge).await?;
    let mac = match attachment.mac {
        Some(mac) => mac,
        None => random_mac().map_err(|error| fault::failed("draw an address", &error))?,
    };
    let port = create(&netlink, &netns, attachment, mac, bridge.mtu).await?;
    let done = set_up(&netlink, netns, attachment, (bridge.index, port, mac)).await;
    if done.is_err() {
        // Best effort: the problem at hand is the one to tell.
        let _ = netlink.change(Request::delete_link(port)).await;
    }
    Ok(Attached {
        mac,
        port: port_name(mac),
        problems: done?,
    })
}

/// Sets up both ends of a pair and switches them on; tells what works less well than it might.
async fn set_up(
    netlink: &Netlink,
    netns: NetNs,
    attachment: &Attachment,
    (bridge, port, mac): (LinkIndex, LinkIndex, MacAddr),
) -> Result<Vec<Problem>, Problem> {
    let locked = join(netlink, bridge, port, mac).await;
    let locked =
        locked.map_err(|error| fault::refused("put the container on the bridge", error))?;
    let mut problems = Vec::new();
    if !locked {
        problems.push(unlocked());
    }
    problems.extend(furnish(netns, attachment).await?);
    // Last: from here on frames pass.
    let started = netlink.change(Request::change_link(port, &on())).await;
    started.map_err(|error| fault::refused("switch the port on", error))?;
    Ok(problems)
}

/// What a container has on the bridge under that name already, with its addresses there; `None` where it has nothing.
///
/// Must be called within a tokio runtime, in the network namespace of the router.
pub async fn find(attachment: &Attachment) -> Result<Option<(Attached, Vec<IpNet>)>, Problem> {
    let netns = open(&attachment.target)?;
    let Some((mac, addresses)) = device_inside(netns, &attachment.device).await? else {
        return Ok(None);
    };
    let netlink = connect()?;
    let bridge = bridge(&netlink, &attachment.bridge).await?;
    let port = port_name(mac);
    let found = netlink.link(&port).await;
    let found = found.map_err(|error| fault::refused("find the container's port", error))?;
    let on_bridge = found.is_some_and(|link| link.controller == Some(bridge.index));
    let attached = Attached {
        mac,
        port,
        problems: Vec::new(),
    };
    Ok(on_bridge.then_some((attached, addresses)))
}

/// Takes a container off the bridge; returns the Ethernet address it had.
///
/// Must be called within a tokio runtime, in the network namespace of the router.
pub async fn detach(target: &Target, device: &str) -> Result<MacAddr, Problem> {
    let netns = open(target)?;
    let nothing = || not_attached(target, device);
    let (mac, _) = device_inside(netns, device).await?.ok_or_else(nothing)?;
    let netlink = connect()?;
    let refused = |error| fault::refused("remove the container's port", error);
    let port = netlink.link(&port_name(mac)).await.map_err(refused)?;
    let port = port.ok_or_else(nothing)?;
    absent_is_fine(netlink.change(Request::delete_link(port.index)).await).map_err(refused)?;
    Ok(mac)
}

/// The Ethernet address and the addresses of a container's device, if it has that device.
async fn device_inside(
    netns: NetNs,
    device: &str,
) -> Result<Option<(MacAddr, Vec<IpNet>)>, Problem> {
    let name = device.to_owned();
    let read = move |netlink: Netlink| async move {
        let Some(link) = netlink.link(&name).await? else {
            return Ok(None);
        };
        let all = netlink.addresses().await?.into_iter();
        let own = all.filter(|one| one.link == link.index && one.reach == Reach::Global);
        let addresses = own.map(|one| one.net).collect();
        Ok(link.mac.map(|mac| (mac, addresses)))
    };
    inside(netns, "read the container's devices", read).await
}

fn open(target: &Target) -> Result<NetNs, Problem> {
    let netns = target.open()?;
    let own = NetNs::current().ok().and_then(|own| own.inode().ok());
    if own.is_some() && own == netns.inode().ok() {
        return Err(on_the_host(target));
    }
    match netns.run(|| ()) {
        Ok(()) => Ok(netns),
        Err(NetNsError::Enter(error)) if error.kind() == io::ErrorKind::InvalidInput => {
            Err(no_namespace(target))
        }
        Err(error) => Err(may_not_enter(&error)),
    }
}

async fn bridge(netlink: &Netlink, name: &str) -> Result<Link, Problem> {
    let found = netlink.link(name).await;
    let found = found.map_err(|error| fault::refused("find the bridge", error))?;
    let bridge = found.filter(|link| link.kind == LinkKind::Bridge);
    bridge.ok_or_else(|| no_bridge(name))
}

/// Makes the pair, both ends switched off.
async fn create(
    netlink: &Netlink,
    netns: &NetNs,
    attachment: &Attachment,
    mac: MacAddr,
    mtu: u32,
) -> Result<LinkIndex, Problem> {
    let name = port_name(mac);
    let doing = format!("make the container's device {}", attachment.device);
    let refused = |error| fault::refused(&doing, error);
    if netlink.link(&name).await.map_err(refused)?.is_some() {
        return Err(attached_already(mac));
    }
    let host = VethEnd {
        name: &name,
        mac: None,
        mtu,
        netns: None,
    };
    let container = VethEnd {
        name: &attachment.device,
        mac: Some(mac),
        mtu,
        netns: Some(netns.as_fd()),
    };
    let made = netlink.create_veth(&host, &container).await;
    made.map_err(|error| {
        if error == NetlinkError::Exists {
            return device_exists(attachment);
        }
        refused(error)
    })?;
    netlink.index_of(&name).await.map_err(refused)
}

/// Makes the host's end a locked port of the bridge; tells whether this kernel locks it.
async fn join(
    netlink: &Netlink,
    bridge: LinkIndex,
    port: LinkIndex,
    mac: MacAddr,
) -> Result<bool, NetlinkError> {
    netlink.without_link_local(port).await?;
    for request in [
        Request::change_link(port, &under(bridge)),
        Request::set_port_flags(port, &container_flags()),
        Request::set_max_groups(port, CONTAINER_GROUPS),
        Request::set_fdb(mac, port),
    ] {
        netlink.change(request).await?;
    }
    let flags = netlink.link_at(port).await?.and_then(|link| link.port);
    Ok(flags.unwrap_or_default().contains_key(&PortFlag::Locked))
}

/// Gives the container's end its addresses and switches it on; tells what could not be made safe.
async fn furnish(netns: NetNs, attachment: &Attachment) -> Result<Option<Problem>, Problem> {
    let device = attachment.device.clone();
    let addresses = attachment.addresses.clone();
    let work = move |netlink: Netlink| async move {
        let link = netlink.index_of(&device).await?;
        // Before it is switched on, when it would ask for routers.
        let gullible = sysctl::switch_off(&device, Setting::AcceptRouterAdvertisements)
            .err()
            .map(|error| gullible(&device, &error));
        if addresses.iter().any(|net| net.addr().is_ipv6()) {
            // Where this fails and matters, the kernel refuses the address below.
            let _ = sysctl::switch_off(&device, Setting::Ipv6Disabled);
        }
        netlink.change(Request::change_link(link, &on())).await?;
        for net in addresses {
            netlink.change(Request::add_address(link, net)).await?;
        }
        Ok(gullible)
    };
    inside(netns, "give the container its addresses", work).await
}

/// Does something with netlink in another namespace, on a thread of its own.
async fn inside<T, F>(
    netns: NetNs,
    doing: &'static str,
    work: impl FnOnce(Netlink) -> F + Send + 'static,
) -> Result<T, Problem>
where
    T: Send + 'static,
    F: Future<Output = Result<T, NetlinkError>>,
{
    let ask = move || async move {
        let done = work(connect()?).await;
        done.map_err(|error| fault::refused(doing, error))
    };
    let entered = tokio::task::spawn_blocking(move || netns.block_on(ask)).await;
    match entered {
        Ok(done) => done.unwrap_or_else(|error| Err(may_not_enter(&error))),
        Err(error) => {
            Err(Problem::new(Code::Internal, format!("cannot {doing}")).why(error.to_string()))
        }
    }
}

fn random_mac() -> io::Result<MacAddr> {
    let mut bytes = [0; 6];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(MacAddr::local(bytes))
}

fn attached_already(mac: MacAddr) -> Problem {
    Problem::new(
        Code::AttachTarget,
        format!("a container with the address {mac} is attached already"),
    )
}

fn device_exists(attachment: &Attachment) -> Problem {
    let (target, device) = (&attachment.target, &attachment.device);
    let what = format!("{target} has a device {device} already");
    Problem::new(Code::AttachTarget, what).fix("Detach it first, or choose another name")
}

fn may_not_enter(error: &NetNsError) -> Problem {
    let what = "this process may not enter the container's network namespace";
    let problem = Problem::new(Code::Privilege, what);
    problem.why(error.to_string()).fix("Run it as root")
}

fn no_bridge(name: &str) -> Problem {
    let what = format!("there is no bridge {name} on this host");
    Problem::new(Code::DaemonNotRunning, what).fix("Start the router first: weft up")
}

/// A folder, a file, or a namespace of another kind.
fn no_namespace(target: &Target) -> Problem {
    let what = format!("{target} is no network namespace");
    Problem::new(Code::AttachTarget, what)
        .fix("Name a container, a process by its number, or a path such as /proc/PID/ns/net")
}

fn not_attached(target: &Target, device: &str) -> Problem {
    let what = format!("{target} is not attached: it has no device {device} of weft");
    Problem::new(Code::AttachTarget, what)
}

fn on_the_host(target: &Target) -> Problem {
    let what =
        format!("{target} has no network namespace of its own: it is on the mesh with this host");
    Problem::new(Code::AttachTarget, what)
}

/// What this kernel cannot keep a container from.
fn unlocked() -> Problem {
    let problem = lacking("locked bridge ports (Linux 5.18)");
    problem.why("a container could send frames in another's name to containers of this host")
}
