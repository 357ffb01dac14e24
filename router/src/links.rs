//! Carries heartbeats where there are no packet workers: a router without a TAP device is a full member of the control
//! plane that takes no part in the traffic.
//!
//! **Failure policy.** A datagram that cannot be sent is lost, like any datagram; heartbeats then go by TCP.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tracing::debug;
use weft_router_proto::io::DataPlane;
use weft_router_proto::sleeve::SessionIndex;
use weft_router_proto::snapshot::Snapshot;
use weft_types::Problem;

use crate::api::Traffic;
use crate::datapath::DataPath;
use crate::tcp;
use crate::worker::Report;

/// More than a heartbeat has; longer datagrams are cut, and then fail to open.
const LARGEST: usize = 2048;
/// Type of a link datagram, first byte of the header.
const LINK: u8 = 2;

/// One socket per family, and the indices that are for us.
pub(crate) struct Links {
    sockets: Vec<std::net::UdpSocket>,
    admitted: Arc<Mutex<BTreeSet<SessionIndex>>>,
}

impl Links {
    /// Takes the UDP port. What comes in for an admitted link goes to `reports`.
    pub(crate) fn start(
        listen: &[IpAddr],
        port: u16,
        reports: &mpsc::Sender<Report>,
    ) -> Result<Self, Problem> {
        let admitted = Arc::new(Mutex::new(BTreeSet::new()));
        let sockets = tcp::on_each(listen, |address| {
            let address = SocketAddr::new(address, port);
            // Two handles: sending asks the kernel itself, which knows better than a runtime that has not looked yet.
            let open = || {
                let socket = bind(address)?;
                let receiving = UdpSocket::from_std(socket.try_clone()?)?;
                tokio::spawn(receive(receiving, Arc::clone(&admitted), reports.clone()));
                Ok(socket)
            };
            open().map_err(|error| (address, error))
        })?;
        Ok(Self { sockets, admitted })
    }
}

impl DataPath for Links {
    fn apply(&mut self, command: DataPlane) {
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        match command {
            DataPlane::AdmitLink(index) => {
                admitted.insert(index);
            }
            DataPlane::RetireLink(index) => {
                admitted.remove(&index);
            }
            // Nothing is carried, so there is nothing to seal, to probe or to wipe.
            DataPlane::Datagrams { .. }
            | DataPlane::Install { .. }
            | DataPlane::InstallReceiving { .. }
            | DataPlane::PathProbe { .. }
            | DataPlane::Probe { .. }
            | DataPlane::Retire { .. }
            | DataPlane::SessionMessage { .. } => {}
        }
    }

    fn forward_by(&mut self, _: Arc<Snapshot>) {}

    fn send_link(&mut self, to: SocketAddr, bytes: Vec<u8>) {
        let towards = |socket: &&std::net::UdpSocket| {
            socket
                .local_addr()
                .is_ok_and(|local| local.is_ipv4() == to.is_ipv4())
        };
        let sent = self
            .sockets
            .iter()
            .find(towards)
            .map(|socket| socket.send_to(&bytes, to));
        if let Some(Err(error)) = sent {
            debug!(%to, %error, "link datagram lost");
        }
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }
}

fn bind(address: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM.nonblocking().cloexec(),
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Hands on what is for an admitted link, until the hub is gone.
async fn receive(
    socket: UdpSocket,
    admitted: Arc<Mutex<BTreeSet<SessionIndex>>>,
    reports: mpsc::Sender<Report>,
) {
    let mut buffer = [0; LARGEST];
    loop {
        // An error here is what an earlier datagram of ours met on its way (ICMP): nothing to act on.
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = reports.closed() => return,
        };
        let Ok((len, from)) = received else { continue };
        let bytes = &buffer[..len];
        let known = index(bytes).is_some_and(|index| {
            let admitted = admitted.lock().unwrap_or_else(PoisonError::into_inner);
            admitted.contains(&index)
        });
        if known {
            let bytes = bytes.to_vec();
            // A full queue drops: the next heartbeat is half a second away.
            let _ = reports.try_send(Report::LinkDatagram { from, bytes });
        }
    }
}

/// The receiver's index in a link datagram: type ‖ flags ‖ lane (2) ‖ index (4) ‖ counter (8).
fn index(bytes: &[u8]) -> Option<SessionIndex> {
    match bytes {
        [LINK, _, _, _, a, b, c, d, ..] if bytes.len() >= 16 + 16 => {
            Some(SessionIndex(u32::from_be_bytes([*a, *b, *c, *d])))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOOPBACK: [IpAddr; 1] = [IpAddr::V4(Ipv4Addr::LOCALHOST)];

    fn datagram(index: u32) -> Vec<u8> {
        let mut bytes = vec![0; 40];
        bytes[0] = LINK;
        bytes[4..8].copy_from_slice(&index.to_be_bytes());
        bytes
    }

    #[tokio::test]
    async fn only_what_is_for_an_admitted_link_comes_in() {
        let (reports, mut received) = mpsc::channel(8);
        let mut there = Links::start(&LOOPBACK, 0, &reports).unwrap();
        let to = there.sockets[0].local_addr().unwrap();
        let (unused, _) = mpsc::channel(1);
        let mut here = Links::start(&LOOPBACK, 0, &unused).unwrap();
        there.apply(DataPlane::AdmitLink(SessionIndex(7)));

        here.send_link(to, datagram(8));
        here.send_link(to, vec![LINK, 0, 0]);
        here.send_link(to, datagram(7));

        let Some(Report::LinkDatagram { bytes, .. }) = received.recv().await else {
            panic!("nothing came");
        };
        assert_eq!(bytes, datagram(7));
        assert!(received.try_recv().is_err());
    }
}
