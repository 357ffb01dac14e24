//! Broadcast and multicast: one sends, and each receiver counts exactly what it got.

use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use weft_kernel::netns::NetNs;

use super::udp::is_timeout;
use crate::LabError;

/// How long a receiver that has everything listens on: a copy comes by the same way as the first, and right behind it.
const COPIES: Duration = Duration::from_millis(200);

/// What to send.
#[derive(Debug, Clone, Copy)]
pub struct GroupTest<'a> {
    /// How many times.
    pub count: usize,
    /// A broadcast address of the subnet, or a multicast group, with the port.
    pub group: SocketAddr,
    /// How long receivers wait for stragglers after the last one was sent. Who has everything waits for copies only.
    pub patience: Duration,
    /// What it carries.
    pub payload: &'a [u8],
}

/// Sends to a group from one station and returns how many copies each receiver got, in their order. A station is a
/// namespace and the address of its device there.
pub fn group_receipts(
    sender: (&NetNs, IpAddr),
    receivers: &[(&NetNs, IpAddr)],
    test: GroupTest<'_>,
) -> Result<Vec<usize>, LabError> {
    let doing = |what: &str| LabError::io(format!("{what} {}", test.group));
    let inputs = receivers
        .iter()
        .map(|&(namespace, own)| {
            namespace
                .run(|| listen(test.group, own))?
                .map_err(doing("listen to"))
        })
        .collect::<Result<Vec<UdpSocket>, LabError>>()?;
    let output = sender
        .0
        .run(|| speak(test.group, sender.1))?
        .map_err(doing("speak to"))?;

    for _ in 0..test.count {
        output
            .send_to(test.payload, test.group)
            .map_err(doing("send to"))?;
    }

    let end = Instant::now() + test.patience;
    inputs
        .iter()
        .map(|input| count(input, test, end).map_err(doing("receive from")))
        .collect()
}

fn listen(group: SocketAddr, own: IpAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    // Bound to the group itself: what was sent to the station alone does not count.
    socket.bind(&scoped(group, own)?.into())?;
    match (group.ip(), own) {
        (IpAddr::V4(group), IpAddr::V4(own)) if group.is_multicast() => {
            socket.join_multicast_v4(&group, &own)?
        }
        (IpAddr::V6(group), _) => socket.join_multicast_v6(&group, device_of(own)?)?,
        _ => {}
    }
    Ok(socket.into())
}

fn speak(group: SocketAddr, own: IpAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(own, 0))?;
    let options = SockRef::from(&socket);
    match (group.ip(), own) {
        (IpAddr::V4(group), IpAddr::V4(own)) if group.is_multicast() => {
            options.set_multicast_if_v4(&own)?;
            options.set_multicast_ttl_v4(4)?;
        }
        (IpAddr::V4(_), _) => options.set_broadcast(true)?,
        (IpAddr::V6(_), _) => options.set_multicast_if_v6(device_of(own)?)?,
    }
    Ok(socket)
}

/// A link-local group means nothing without the device (RFC 4007 §6).
fn scoped(group: SocketAddr, own: IpAddr) -> std::io::Result<SocketAddr> {
    Ok(match group {
        SocketAddr::V4(_) => group,
        SocketAddr::V6(group) => {
            let (port, flow) = (group.port(), group.flowinfo());
            SocketAddrV6::new(*group.ip(), port, flow, device_of(own)?).into()
        }
    })
}

/// Finds the number of the device that holds an address, in the calling thread's namespace.
fn device_of(address: IpAddr) -> std::io::Result<u32> {
    let holder = nix::ifaddrs::getifaddrs()?.find(|entry| {
        entry.address.as_ref().is_some_and(|found| match address {
            IpAddr::V4(address) => found
                .as_sockaddr_in()
                .is_some_and(|found| found.ip() == address),
            IpAddr::V6(address) => found
                .as_sockaddr_in6()
                .is_some_and(|found| found.ip() == address),
        })
    });
    let name = holder
        .ok_or(std::io::ErrorKind::AddrNotAvailable)?
        .interface_name;
    Ok(nix::net::if_::if_nametoindex(name.as_str())?)
}

fn count(input: &UdpSocket, test: GroupTest<'_>, mut end: Instant) -> std::io::Result<usize> {
    let mut buffer = vec![0; 65_536];
    let mut found = 0;
    loop {
        // What has already arrived is read even when the time is over.
        let left = end
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        input.set_read_timeout(Some(left))?;
        match input.recv(&mut buffer) {
            Ok(length) if &buffer[..length] == test.payload => {
                found += 1;
                if found == test.count {
                    end = end.min(Instant::now() + COPIES);
                }
            }
            Ok(_) => {}
            Err(error) if is_timeout(&error) => return Ok(found),
            Err(error) => return Err(error),
        }
    }
}
