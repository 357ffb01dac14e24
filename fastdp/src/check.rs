//! Compares this machine with what a mesh needs, before anything is spent or changed.

use std::fmt;
use std::fs::File;

use ipnet::{IpNet, Ipv4Net};
use weft_kernel::addr::{Address, Reach};
use weft_kernel::link::Link;
use weft_kernel::netlink::{LinkIndex, Netlink, NetlinkError};
use weft_kernel::probe;
use weft_kernel::route::Route;
use weft_kernel::tap::TUN_DEVICE;
use weft_router_proto::genesis::Genesis;
use weft_types::{Code, Problem};

use crate::bridge::connect;
use crate::fault;
use crate::names::DeviceNames;

/// Ranges to suggest where the one at hand is taken: private (RFC 1918) and little used, the default first.
const SUGGESTIONS: [[u8; 2]; 6] = [[10, 32], [10, 64], [10, 128], [10, 192], [172, 16], [10, 0]];

/// Routes shorter than this are ways to everywhere: the default route, or the two halves that some VPNs make of it.
const EVERYWHERE: u8 = 1;

/// A network that this host reaches without the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Taken {
    net: IpNet,
    link: Option<LinkIndex>,
}

/// Whether this process may do, and this machine has, what every router needs.
pub fn machine() -> Result<(), Problem> {
    privilege()?;
    tun()
}

/// Whether this process may change network devices.
pub fn privilege() -> Result<(), Problem> {
    if probe::may_administer() {
        return Ok(());
    }
    Err(fault::unprivileged("make or remove network devices"))
}

/// Whether this machine hands out TAP devices.
pub(crate) fn tun() -> Result<(), Problem> {
    let opened = File::options().read(true).write(true).open(TUN_DEVICE);
    opened.map(drop).map_err(|error| fault::no_tun(&error))
}

/// Whether this machine can be on the mesh that begins with `genesis`: [`machine`], and no other use of its ranges.
///
/// Must be called within a tokio runtime, in the network namespace of the router.
pub async fn genesis(names: &DeviceNames, genesis: &Genesis) -> Result<(), Problem> {
    machine()?;
    ranges(names, &[genesis.range.into(), genesis.range6.into()]).await
}

/// [`genesis`] for a caller that is no future: works on a thread of its own and waits for it.
pub fn genesis_blocking(names: &DeviceNames, record: &Genesis) -> Result<(), Problem> {
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| fault::failed("start a runtime", &error))?;
        runtime.block_on(genesis(names, record))
    };
    let done = std::thread::scope(|scope| scope.spawn(work).join());
    done.unwrap_or_else(|_| {
        Err(Problem::new(
            Code::Internal,
            "the check of this machine failed",
        ))
    })
}

/// Whether this host has no other use for addresses of `ranges`.
pub async fn ranges(names: &DeviceNames, ranges: &[IpNet]) -> Result<(), Problem> {
    let (uses, overlap) = other_use(names, ranges).await?;
    match overlap {
        None => Ok(()),
        Some(overlap) => Err(Problem::new(Code::RangeOverlap, overlap.to_string())
            .why("a packet for an address of both could only go one way")
            .fix(another_range(&uses.taken()))),
    }
}

/// The same of the ranges of a mesh that this host is on already: they are the mesh's for good.
pub async fn ranges_of_mesh(names: &DeviceNames, ranges: &[IpNet]) -> Result<(), Problem> {
    let (_, overlap) = other_use(names, ranges).await?;
    overlap.map_or(Ok(()), |overlap| Err(overlap.came_later()))
}

async fn other_use(
    names: &DeviceNames,
    ranges: &[IpNet],
) -> Result<(Uses, Option<Overlap>), Problem> {
    let netlink = connect()?;
    let refused = |error| fault::refused("read this host's routes", error);
    let uses = Uses::read(&netlink).await.map_err(refused)?;
    let mut links = uses.links.iter();
    let bridge = links.find(|link| link.name == names.bridge);
    let overlap = uses.overlap(bridge.map(|link| link.index), ranges);
    Ok((uses, overlap))
}

/// What this host uses addresses for.
pub(crate) struct Uses {
    links: Vec<Link>,
    pub(crate) routes: Vec<Route>,
    pub(crate) addresses: Vec<Address>,
}

/// A network of this host that has addresses of the mesh.
pub(crate) struct Overlap {
    range: IpNet,
    net: IpNet,
    device: String,
}

impl Overlap {
    /// Tells of a use of the mesh's addresses that began after the mesh.
    pub(crate) fn came_later(&self) -> Problem {
        let Self { net, device, .. } = self;
        Problem::new(Code::RangeOverlap, self.to_string())
            .why("it came after the mesh, and a packet for an address of both can only go one way")
            .fix(format!(
                "Give {device} another network, or take {net} off it"
            ))
    }
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { range, net, device } = self;
        write!(
            f,
            "the mesh's range {range} overlaps {net}, which this host reaches by {device}"
        )
    }
}

impl Uses {
    pub(crate) async fn read(netlink: &Netlink) -> Result<Self, NetlinkError> {
        Ok(Self {
            links: netlink.links().await?,
            routes: netlink.routes().await?,
            addresses: netlink.addresses().await?,
        })
    }

    /// Finds a network with addresses of `ranges` that is not on the mesh's own bridge.
    pub(crate) fn overlap(&self, bridge: Option<LinkIndex>, ranges: &[IpNet]) -> Option<Overlap> {
        let taken = self.taken();
        let others = taken
            .iter()
            .filter(|taken| bridge.is_none() || taken.link != bridge);
        let pairs = ranges
            .iter()
            .flat_map(|range| others.clone().map(move |it| (*range, it)));
        let (range, by) = pairs
            .into_iter()
            .find(|(range, by)| overlap(&by.net, range))?;
        let mut links = self.links.iter();
        let device = links.find(|link| Some(link.index) == by.link);
        Some(Overlap {
            range,
            net: by.net.trunc(),
            device: device.map_or_else(|| "another host".to_owned(), |link| link.name.clone()),
        })
    }

    /// The networks that this host has routes to, or addresses of.
    fn taken(&self) -> Vec<Taken> {
        let routes = self.routes.iter().map(of_route);
        let addresses = self.addresses.iter();
        let addresses = addresses.filter(|address| address.reach == Reach::Global);
        let all = routes.chain(addresses.map(of_address));
        all.filter(|taken| taken.net.prefix_len() > EVERYWHERE)
            .collect()
    }
}

fn of_route(route: &Route) -> Taken {
    Taken {
        net: route.net,
        link: route.link,
    }
}

fn of_address(address: &Address) -> Taken {
    Taken {
        net: address.net,
        link: Some(address.link),
    }
}

/// Whether a network says anything of addresses of a range: a way to everywhere does not.
pub(crate) fn concerns(net: &IpNet, range: &IpNet) -> bool {
    net.prefix_len() > EVERYWHERE && overlap(net, range)
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn another_range(taken: &[Taken]) -> String {
    let advice = "Create the mesh with another range";
    match suggest(taken) {
        Some(free) => format!("{advice}, for example: weft up --range {free}"),
        None => format!("{advice}: weft up --range CIDR"),
    }
}

/// A range that this host has no other use for.
fn suggest(taken: &[Taken]) -> Option<Ipv4Net> {
    SUGGESTIONS
        .into_iter()
        .filter_map(|[a, b]| Ipv4Net::new([a, b, 0, 0].into(), 12).ok())
        .find(|range| {
            let range = IpNet::V4(*range);
            !taken.iter().any(|taken| overlap(&taken.net, &range))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(net: &str) -> Taken {
        Taken {
            net: net.parse().unwrap(),
            link: None,
        }
    }

    #[test]
    fn networks_overlap_whichever_is_the_larger() {
        let overlapping = |a: &str, b: &str| overlap(&a.parse().unwrap(), &b.parse().unwrap());

        assert!(overlapping("10.0.0.0/8", "10.32.0.0/12"));
        assert!(overlapping("10.40.1.0/24", "10.32.0.0/12"));
        assert!(!overlapping("10.48.0.0/12", "10.32.0.0/12"));
        assert!(!overlapping("fd00::/8", "10.32.0.0/12"));
    }

    #[test]
    fn what_is_suggested_is_free() {
        assert_eq!(suggest(&[]), Some("10.32.0.0/12".parse().unwrap()));
        assert_eq!(
            suggest(&[taken("10.0.0.0/8")]),
            Some("172.16.0.0/12".parse().unwrap())
        );
        assert_eq!(
            suggest(&[taken("10.0.0.0/8"), taken("172.16.0.0/12")]),
            None
        );
    }
}
