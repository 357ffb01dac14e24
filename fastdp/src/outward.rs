//! Finds the address by which this host speaks to hosts it knows nothing of: that of its default route. It is the one to
//! tell a person who has to type one: what a bridge of containers, another mesh or a VPN has added leads others nowhere.

use std::cmp::Reverse;
use std::net::IpAddr;

use weft_kernel::addr::{Address, Reach};
use weft_kernel::route::Route;
use weft_types::Problem;

use crate::bridge::connect;
use crate::fault;

/// The sources of this host's default routes: the one that is used first comes first, IPv4 before IPv6, which is longer to
/// type. Empty where there is no default route.
///
/// Must be called within a tokio runtime, in the network namespace of the router.
pub async fn sources() -> Result<Vec<IpAddr>, Problem> {
    let refused = |error| fault::refused("read this host's routes", error);
    let netlink = connect()?;
    let routes = netlink.routes().await.map_err(refused)?;
    let addresses = netlink.addresses().await.map_err(refused)?;
    Ok(select(&routes, &addresses))
}

fn select(routes: &[Route], addresses: &[Address]) -> Vec<IpAddr> {
    let leads_out = |route: &&Route| route.main && route.net.prefix_len() == 0;
    let mut routes: Vec<&Route> = routes.iter().filter(leads_out).collect();
    routes.sort_by_key(|route| (Reverse(route.net.addr().is_ipv4()), route.metric));
    let sources = routes
        .into_iter()
        .filter_map(|route| source(route, addresses));
    sources.collect()
}

/// The address that a route names, or that the kernel takes: the first of its device, one in the gateway's network before
/// others.
fn source(route: &Route, addresses: &[Address]) -> Option<IpAddr> {
    let fits = |address: &&Address| {
        Some(address.link) == route.link
            && address.net.addr().is_ipv4() == route.net.addr().is_ipv4()
            && address.usable
            && address.reach == Reach::Global
    };
    let beside = |address: &&Address| route.gateway.is_some_and(|by| address.net.contains(&by));
    let candidates = || addresses.iter().filter(fits);
    let chosen = candidates().find(beside).or_else(|| candidates().next());
    route
        .source
        .or_else(|| chosen.map(|address| address.net.addr()))
}

#[cfg(test)]
mod tests {
    use weft_kernel::netlink::LinkIndex;

    use super::*;

    fn address(link: u32, net: &str) -> Address {
        Address {
            link: LinkIndex::new(link),
            net: net.parse().unwrap(),
            reach: Reach::Global,
            usable: true,
        }
    }

    fn route(net: &str, link: u32, gateway: Option<&str>, metric: u32) -> Route {
        Route {
            net: net.parse().unwrap(),
            link: Some(LinkIndex::new(link)),
            gateway: gateway.map(|text| text.parse().unwrap()),
            source: None,
            metric,
            main: true,
        }
    }

    fn found(routes: &[Route], addresses: &[Address]) -> Vec<String> {
        let found = select(routes, addresses).into_iter();
        found.map(|address| address.to_string()).collect()
    }

    /// A card, the bridge of lxc, another mesh, a VPN that takes everything by halves, and one by a table of its own.
    #[test]
    fn others_reach_this_host_at_the_source_of_its_default_route() {
        let addresses = [
            address(5, "10.0.3.1/24"),
            address(6, "10.40.0.1/16"),
            address(7, "10.8.0.2/24"),
            address(2, "192.168.122.50/24"),
            address(2, "10.11.0.4/24"),
            address(2, "2001:db8::4/64"),
        ];
        let mut table = route("0.0.0.0/0", 7, None, 0);
        table.main = false;
        let routes = [
            route("10.0.3.0/24", 5, None, 0),
            route("0.0.0.0/1", 7, Some("10.8.0.1"), 0),
            route("128.0.0.0/1", 7, Some("10.8.0.1"), 0),
            table,
            route("::/0", 2, Some("fe80::1"), 1024),
            route("0.0.0.0/0", 7, Some("10.8.0.1"), 600),
            route("0.0.0.0/0", 2, Some("10.11.0.1"), 100),
        ];

        assert_eq!(
            found(&routes, &addresses),
            ["10.11.0.4", "10.8.0.2", "2001:db8::4"]
        );
        assert_eq!(found(&routes[..1], &addresses), [""; 0]);
    }

    #[test]
    fn a_route_may_name_its_source() {
        let mut named = route("0.0.0.0/0", 2, Some("192.0.2.1"), 0);
        named.source = Some("198.51.100.7".parse().unwrap());
        let addresses = [address(2, "192.0.2.5/24")];

        assert_eq!(found(&[named], &addresses), ["198.51.100.7"]);
    }
}
