//! Connects the hub to where packets are handled.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::debug;
use weft_kernel::tap::Tap;
use weft_kernel::udp::{UdpOptions, UdpSocket};
use weft_router_proto::io::DataPlane;
use weft_router_proto::snapshot::{Endpoints, Snapshot};
use weft_router_proto::switch::Announcer;
use weft_types::{Code, Mtu, NodeId, Problem};

use crate::api::{Carried, Traffic};
use crate::tcp;
use crate::worker::{Backends, Counters, Report, Wiring, Workers};

/// Where packets are handled. What it has to tell comes as [`Report`]s.
pub(crate) trait DataPath: Send {
    /// Does as it is told.
    fn apply(&mut self, command: DataPlane);
    /// Forwards by this from here on.
    fn forward_by(&mut self, snapshot: Arc<Snapshot>);
    /// Sends a sealed link datagram.
    fn send_link(&mut self, to: SocketAddr, bytes: Vec<u8>);
    /// What has been counted.
    fn traffic(&self) -> Traffic;
}

/// Takes the UDP port and starts the packet workers; without a TAP device they carry no frames of this host.
pub(crate) fn start(
    node: NodeId,
    tap: Option<Tap>,
    listen: &[IpAddr],
    port: u16,
) -> Result<(Box<dyn DataPath>, mpsc::Receiver<Report>), Problem> {
    let (udp4, udp6) = bind(listen, port)?;
    let wiring = Wiring {
        tap,
        udp4,
        udp6,
        snapshot: Arc::new(nobody_yet(node)),
        backends: Backends::fastest(),
    };
    let (workers, reports) = Workers::start(wiring).map_err(|error| {
        Problem::new(Code::Internal, "the packet workers cannot be started").why(error.to_string())
    })?;
    let sleeve = Sleeve {
        workers,
        announcer: Announcer::default(),
    };
    Ok((Box::new(sleeve), reports))
}

/// Takes the port in each family of the host.
fn bind(listen: &[IpAddr], port: u16) -> Result<(Option<UdpSocket>, Option<UdpSocket>), Problem> {
    let sockets = tcp::on_each(listen, |address| {
        let address = SocketAddr::new(address, port);
        UdpSocket::bind(address, UdpOptions::default()).map_err(|error| (address, error))
    })?;
    let is_v4 = |socket: &UdpSocket| socket.local_addr().is_ipv4();
    let (v4, v6): (Vec<_>, Vec<_>) = sockets.into_iter().partition(is_v4);
    Ok((only(v4)?, only(v6)?))
}

/// Workers have one socket per family: its address is where peers find this host.
fn only(mut sockets: Vec<UdpSocket>) -> Result<Option<UdpSocket>, Problem> {
    let socket = sockets.pop();
    if sockets.is_empty() {
        return Ok(socket);
    }
    Err(Problem::new(
        Code::Configuration,
        "several addresses of one family are given to listen on",
    )
    .fix("Give --listen one IPv4 and one IPv6 address at most, or leave it out to listen on all"))
}

/// What is forwarded before this node is a member: nothing.
fn nobody_yet(node: NodeId) -> Snapshot {
    Snapshot {
        generation: 0,
        node,
        mtu: Mtu::MESH,
        ranges: Vec::new(),
        host_addresses: Vec::new(),
        peers: Vec::new(),
        endpoints: Endpoints::default(),
    }
}

/// The packet workers, and what this host's containers were told of addresses.
struct Sleeve {
    workers: Workers,
    announcer: Announcer,
}

impl DataPath for Sleeve {
    fn apply(&mut self, command: DataPlane) {
        self.workers.command(command);
    }

    fn forward_by(&mut self, snapshot: Arc<Snapshot>) {
        let frames = self.announcer.follow(&snapshot);
        self.workers.snapshot(snapshot);
        for frame in frames {
            // Lost like any frame: then a container finds out by itself, later.
            if let Err(error) = self.workers.announce(&frame) {
                debug!(%error, "an announcement is lost");
            }
        }
    }

    fn send_link(&mut self, to: SocketAddr, bytes: Vec<u8>) {
        // Lost like any datagram: heartbeats then go by TCP.
        if let Err(error) = self.workers.send_link_datagram(to, &bytes) {
            debug!(%to, %error, "link datagram lost");
        }
    }

    fn traffic(&self) -> Traffic {
        traffic(self.workers.counters())
    }
}

fn traffic(counters: Counters) -> Traffic {
    let mut drops: BTreeMap<&'static str, u64> = counters
        .drops
        .into_iter()
        .filter(|&(_, count)| count > 0)
        .map(|(reason, count)| (reason.label(), count))
        .collect();
    if counters.reports_lost > 0 {
        drops.insert("report_lost", counters.reports_lost);
    }
    let relayed = counters.relayed.into_iter().map(|relayed| {
        let carried = Carried {
            datagrams: relayed.datagrams,
            bytes: relayed.bytes,
        };
        ((relayed.from, relayed.to), carried)
    });
    Traffic {
        peers: counters.peers.into_iter().collect(),
        relayed: relayed.collect(),
        drops,
        replay_drops: counters.replay_drops,
        auth_drops: counters.auth_drops,
    }
}
