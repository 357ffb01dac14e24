//! Watches what is around the mesh's tables on this host and can undo them: routes, other uses of its ranges, the packet
//! filter.
//!
//! A route of the mesh that somebody has removed is written again. What is another's is left alone and told: a network of
//! this host within the mesh's ranges that came after the mesh, and a filter that drops what the bridge passes on.
//!
//! **Failure policy.** What cannot be read is not judged; what was found last holds until it can.

use std::net::IpAddr;

use ipnet::IpNet;
use tracing::{debug, info};
use weft_kernel::addr::Address;
use weft_kernel::filter::{self, DroppingChain};
use weft_kernel::netlink::{LinkIndex, Netlink, NetlinkError, Request};
use weft_router_proto::snapshot::Snapshot;
use weft_types::{Code, Problem};

use crate::check::{Overlap, Uses};
use crate::fault;

/// What was found around the mesh's tables.
#[derive(Debug, Default)]
pub(crate) struct Around {
    uses: Vec<Problem>,
    filter: Option<Problem>,
}

impl Around {
    /// Looks at routes and addresses, and mends the mesh's own routes.
    pub(crate) async fn look(&mut self, netlink: &Netlink, bridge: LinkIndex, mesh: &Snapshot) {
        match Uses::read(netlink).await {
            Ok(uses) => {
                let overlap = uses.overlap(Some(bridge), &mesh.ranges);
                self.uses = overlap.iter().map(Overlap::came_later).collect();
                let refused = mend(netlink, bridge, mesh, &uses).await;
                self.uses.extend(refused);
            }
            Err(error) => debug!(%error, "cannot read this host's routes"),
        }
    }

    /// Looks at the packet filter, of which no notice tells.
    pub(crate) fn look_at_filter(&mut self, bridge: &str) {
        match filter::dropping(bridge) {
            Ok(chains) => self.filter = chains.first().map(|chain| filtered(bridge, chain)),
            Err(error) => debug!(%error, "cannot read this host's packet filter"),
        }
    }

    /// What is wrong.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.uses.iter().chain(&self.filter)
    }
}

/// Writes the routes again that came with this host's addresses and are gone; tells what the kernel refuses.
async fn mend(
    netlink: &Netlink,
    bridge: LinkIndex,
    mesh: &Snapshot,
    uses: &Uses,
) -> Option<Problem> {
    let has = |net: &IpNet| has_address(&uses.addresses, bridge, net.addr());
    let routed = |net: &IpNet| {
        let mut routes = uses.routes.iter();
        routes.any(|route| route.link == Some(bridge) && route.net == net.trunc())
    };
    let missing = mesh.host_addresses.iter().filter(|net| {
        let alone = net.prefix_len() == net.max_prefix_len();
        !alone && has(net) && !routed(net)
    });
    let mut refused = None;
    for &net in missing {
        info!(%net, "a route of the mesh is gone: writing it again");
        let done = netlink.change(Request::add_connected_route(bridge, net));
        match done.await {
            Ok(()) | Err(NetlinkError::Exists) => {}
            Err(error) => refused = Some(fault::refused("write the mesh's route again", error)),
        }
    }
    refused
}

fn has_address(addresses: &[Address], bridge: LinkIndex, wanted: IpAddr) -> bool {
    let mut addresses = addresses.iter();
    addresses.any(|address| address.link == bridge && address.net.addr() == wanted)
}

fn filtered(bridge: &str, chain: &DroppingChain) -> Problem {
    let DroppingChain {
        family,
        table,
        name,
    } = chain;
    let (switch, program) = match *family {
        "ip6" => ("bridge-nf-call-ip6tables", "ip6tables"),
        _ => ("bridge-nf-call-iptables", "iptables"),
    };
    let accept = if *family == "inet" {
        format!("nft insert rule inet {table} {name} iifname {bridge} oifname {bridge} accept")
    } else {
        format!("{program} -I {name} -i {bridge} -o {bridge} -j ACCEPT")
    };
    Problem::new(
        Code::BridgeFiltered,
        format!("this host's packet filter drops what containers send: {family} {table} {name}"),
    )
    .why(format!(
        "its policy is to drop, no rule of it names {bridge}, and net.bridge.{switch} hands it what bridges pass on"
    ))
    .fix(format!("{accept}; or: sysctl net.bridge.{switch}=0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cure_of_a_filter_names_its_own_chain() {
        let of = |family| {
            let chain = DroppingChain {
                family,
                table: "filter".into(),
                name: "FORWARD".into(),
            };
            filtered("weft", &chain).fix
        };

        assert!(of("ip").starts_with("iptables -I FORWARD -i weft -o weft -j ACCEPT; "));
        assert!(of("ip6").starts_with("ip6tables -I FORWARD -i weft "));
        assert!(of("inet").starts_with("nft insert rule inet filter FORWARD iifname weft "));
    }
}
