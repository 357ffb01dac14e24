//! Compares this machine with what a mesh needs, before anything is spent or changed.

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
    let netlink = connect()?;
    let refused = |error| fault::refused("read this host's routes", error);
    let links = netlink.links().await.map_err(refused)?;
    let mut taken = taken(&netlink).await.map_err(refused)?;
    let bridge = links.iter().find(|link| link.name == names.bridge);
    if let Some(bridge) = bridge {
        taken.retain(|taken| taken.link != Some(bridge.index));
    }
    for range in ranges {
        if let Some(taken_by) = taken.iter().find(|taken| overlap(&taken.net, range)) {
            return Err(overlaps(range, taken_by, &links, &taken));
        }
    }
    Ok(())
}

/// The networks that this host has routes to, or addresses of.
async fn taken(netlink: &Netlink) -> Result<Vec<Taken>, NetlinkError> {
    let routes = netlink.routes().await?.into_iter().map(of_route);
    let addresses = netlink.addresses().await?.into_iter();
    let addresses = addresses.filter(|address| address.reach == Reach::Global);
    let all = routes.chain(addresses.map(of_address));
    let all = all.filter(|taken| taken.net.prefix_len() > EVERYWHERE);
    Ok(all.collect())
}

fn of_route(route: Route) -> Taken {
    Taken {
        net: route.net,
        link: route.link,
    }
}

fn of_address(address: Address) -> Taken {
    Taken {
        net: address.net,
        link: Some(address.link),
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn overlaps(range: &IpNet, by: &Taken, links: &[Link], taken: &[Taken]) -> Problem {
    let net = by.net.trunc();
    let device = links.iter().find(|link| Some(link.index) == by.link);
    let device = device.map_or("another host", |link| link.name.as_str());
    let what =
        format!("the mesh's range {range} overlaps {net}, which this host reaches by {device}");
    Problem::new(Code::RangeOverlap, what)
        .why("a packet for an address of both could only go one way")
        .fix(another_range(taken))
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
