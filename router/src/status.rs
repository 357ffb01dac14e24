//! Puts together how things stand: what the core knows, what was counted, and what the driver met.

use weft_router_proto::status::RouterStatus;
use weft_types::Problem;

use crate::api::{Report, Traffic};
use crate::tcp::TcpCounters;

/// Adds to the core's view what only the driver knows.
pub(crate) fn report(
    mut core: RouterStatus,
    mut traffic: Traffic,
    tcp: TcpCounters,
    met: &[Problem],
) -> Report {
    core.problems.extend_from_slice(met);
    // Link datagrams are opened by the core, those of sessions by the workers: on the wire they are one kind.
    traffic.auth_drops += core.auth_drops;
    // What is passed on is passed on, whatever carries it.
    for (&pair, &(datagrams, bytes)) in &core.transit.carried {
        let carried = traffic.relayed.entry(pair).or_default();
        carried.datagrams += datagrams;
        carried.bytes += bytes;
    }
    for (reason, &count) in &core.transit.drops {
        *traffic.drops.entry(reason.label()).or_default() += count;
    }
    let dropped = [
        ("connection_evicted", tcp.evicted),
        ("connection_overflowed", tcp.overflowed),
    ];
    traffic
        .drops
        .extend(dropped.into_iter().filter(|&(_, count)| count > 0));
    Report { core, traffic }
}
