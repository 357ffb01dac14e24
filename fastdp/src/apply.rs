//! Does what a patch says.

use std::collections::BTreeMap;

use weft_fastdp_proto::diff::Step;
use weft_kernel::link::LinkChange;
use weft_kernel::neigh::Neighbour;
use weft_kernel::netlink::{LinkIndex, Netlink, NetlinkError, Request};

/// A request, and the refusal that is as good as its being done.
struct Attempt {
    request: Request,
    fine: fn(NetlinkError) -> bool,
}

/// Where the devices are that steps name.
struct Places<'a> {
    bridge: LinkIndex,
    ports: &'a BTreeMap<String, LinkIndex>,
}

impl Places<'_> {
    fn of(&self, port: &str) -> Result<LinkIndex, NetlinkError> {
        self.ports.get(port).copied().ok_or(NetlinkError::NoDevice)
    }
}

/// Does all steps, in order, in as few calls as they fit in; tells which of them the kernel refuses, and why.
pub(crate) async fn apply<'a>(
    netlink: &Netlink,
    bridge: LinkIndex,
    index: &BTreeMap<String, LinkIndex>,
    steps: &'a [Step],
) -> Vec<(&'a Step, NetlinkError)> {
    let places = Places {
        bridge,
        ports: index,
    };
    let (mut asked, mut requests, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for step in steps {
        match attempts(&places, step) {
            Ok(attempts) => {
                asked.extend(attempts.iter().map(|attempt| (step, attempt.fine)));
                requests.extend(attempts.into_iter().map(|attempt| attempt.request));
            }
            Err(error) => refused.push((step, error)),
        }
    }
    let ends = netlink.change_all(requests).await;
    for ((step, fine), end) in asked.into_iter().zip(ends) {
        let error = end.err().filter(|error| !fine(*error));
        refused.extend(error.map(|error| (step, error)));
    }
    refused
}

/// What is to be asked for a step.
fn attempts(places: &Places<'_>, step: &Step) -> Result<Vec<Attempt>, NetlinkError> {
    let bridge = places.bridge;
    let at = |port: &String| places.of(port);
    let one = match step {
        Step::AddAddress(net) => must(Request::add_address(bridge, *net)),
        Step::Enslave(port) => return Ok(enslave(at(port)?, bridge).into()),
        Step::RemoveAddress(net) => may_be_absent(Request::delete_address(bridge, *net)),
        Step::RemoveFdb { mac, port } => {
            // Without the port there is nothing to ask for: the entry went with it.
            let entry = at(port).map(|port| Request::delete_fdb(*mac, port));
            return Ok(entry.map(may_be_absent).into_iter().collect());
        }
        Step::RemoveNeighbour(address) => {
            may_be_absent(Request::delete_neighbour(bridge, *address))
        }
        Step::ResetBridge => return Ok(Request::reset_bridge(bridge).map(must).into()),
        Step::SetBridgeMac(mac) => must(Request::change_link(bridge, &to_mac(*mac))),
        Step::SetBridgeMtu(mtu) => must(Request::change_link(bridge, &to_mtu(*mtu))),
        Step::SetFdb { mac, port } => must(Request::set_fdb(*mac, at(port)?)),
        Step::SetNeighbour { address, mac } => {
            let (address, mac) = (*address, *mac);
            must(Request::set_neighbour(bridge, &Neighbour { address, mac }))
        }
        Step::SetPortFlags { port, flags } => must(Request::set_port_flags(at(port)?, flags)),
        Step::SetPortGroups { port, limit } => must(Request::set_max_groups(at(port)?, *limit)),
        Step::SetPortMtu { port, mtu } => must(Request::change_link(at(port)?, &to_mtu(*mtu))),
        Step::StartBridge => must(Request::change_link(bridge, &on())),
        Step::StartPort(port) => must(Request::change_link(at(port)?, &on())),
    };
    Ok(vec![one])
}

fn enslave(port: LinkIndex, bridge: LinkIndex) -> [Attempt; 2] {
    let quiet = Attempt {
        request: Request::without_link_local(port),
        // No IPv6, no address.
        fine: |error| error == NetlinkError::Unsupported,
    };
    [quiet, must(Request::change_link(port, &under(bridge)))]
}

fn must(request: Request) -> Attempt {
    Attempt {
        request,
        fine: |_| false,
    }
}

/// What is to be removed and is not there is removed.
fn may_be_absent(request: Request) -> Attempt {
    Attempt {
        request,
        fine: NetlinkError::is_absent,
    }
}

pub(crate) fn on() -> LinkChange {
    LinkChange {
        up: Some(true),
        ..LinkChange::default()
    }
}

/// Makes a device a port of `bridge`.
pub(crate) fn under(bridge: LinkIndex) -> LinkChange {
    LinkChange {
        controller: Some(bridge),
        ..LinkChange::default()
    }
}

pub(crate) fn to_mtu(mtu: u32) -> LinkChange {
    LinkChange {
        mtu: Some(mtu),
        ..LinkChange::default()
    }
}

fn to_mac(mac: weft_types::MacAddr) -> LinkChange {
    LinkChange {
        mac: Some(mac),
        ..LinkChange::default()
    }
}

pub(crate) fn absent_is_fine(done: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match done {
        Err(error) if error.is_absent() => Ok(()),
        done => done,
    }
}
