//! Takes the port and accepts whoever comes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing::warn;
use weft_types::{Code, Problem};

use super::event::TcpEvent;
use crate::resolve::DEFAULT_PORT;

/// Waiting connections the kernel keeps for us; it cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// How long to wait after a failed accept, which means that descriptors ran out.
const PAUSE: Duration = Duration::from_millis(50);

/// Listens on `port` of each address; of every address of both families if there are none. Port 0 takes a free one,
/// the same everywhere. Returns the port.
pub(crate) fn bind(addresses: &[IpAddr], port: u16) -> Result<(Vec<TcpListener>, u16), Problem> {
    let mut port = port;
    let listeners = on_each(addresses, |address| {
        let wanted = SocketAddr::new(address, port);
        let listener = listen(wanted).map_err(|error| (wanted, error))?;
        if port == 0 {
            port = listener.local_addr().map_or(0, |local| local.port());
        }
        Ok(listener)
    })?;
    Ok((listeners, port))
}

/// Opens a socket on each address; on every address of each family this host has, if there are none.
pub(crate) fn on_each<T>(
    addresses: &[IpAddr],
    mut open: impl FnMut(IpAddr) -> Result<T, (SocketAddr, io::Error)>,
) -> Result<Vec<T>, Problem> {
    let every = [
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
    ];
    let given = !addresses.is_empty();
    let mut sockets = Vec::new();
    for &address in if given { addresses } else { &every } {
        match open(address) {
            Ok(socket) => sockets.push(socket),
            // A host without one of the families serves the other.
            Err((_, error)) if !given && lacks_family(&error) => {}
            Err((wanted, error)) => return Err(problem(wanted, &error)),
        }
    }
    if sockets.is_empty() {
        return Err(Problem::new(
            Code::KernelFeature,
            "this host has neither IPv4 nor IPv6",
        ));
    }
    Ok(sockets)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?; // each family has a socket of its own
    }
    socket.set_reuse_address(true)?; // a restart does not wait for TIME-WAIT
    socket.set_tcp_mss(segment(address))?; // whoever is accepted inherits it
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The longest segment in either direction: what fits into the least that every path must carry (RFC 879 §1, RFC 8200
/// §5). A handshake is longer than one packet, and where the messages about too long ones are dropped it would stand still.
pub(super) const fn segment(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V4(_) => 576 - 40,
        SocketAddr::V6(_) => 1280 - 60,
    }
}

/// The host has no such family: not built in, or switched off.
fn lacks_family(error: &io::Error) -> bool {
    // EAFNOSUPPORT: not built in. EADDRNOTAVAIL: switched off by sysctl.
    matches!(error.raw_os_error(), Some(97)) || error.kind() == io::ErrorKind::AddrNotAvailable
}

/// Names what the system said about taking a port, TCP's or UDP's.
fn problem(address: SocketAddr, error: &io::Error) -> Problem {
    let seen = format!("listening on {address}: {error}");
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the system's open list: every other word is about the address"
    )]
    match error.kind() {
        io::ErrorKind::AddrInUse => in_use(address.port()).why(seen),
        io::ErrorKind::PermissionDenied => forbidden(address.port()).why(seen),
        _ => unfit(address).why(error.to_string()),
    }
}

fn in_use(port: u16) -> Problem {
    let what = format!("port {port} is in use by another program");
    let other = other_port(port);
    Problem::new(Code::PortInUse, what).fix(format!(
        "See who has it: ss -lntup 'sport = :{port}'. Or choose another: --port {other}"
    ))
}

fn forbidden(port: u16) -> Problem {
    Problem::new(Code::Privilege, format!("port {port} may not be used"))
        .fix("Run weft as root, or choose a port above 1023 with --port")
}

fn unfit(address: SocketAddr) -> Problem {
    let what = format!("{address} cannot be listened on");
    Problem::new(Code::Configuration, what)
        .fix("Give an address of this host with --listen, or leave it out: ip address shows them")
}

/// Two away, since the kernel data path takes the port after ours.
fn other_port(port: u16) -> u16 {
    port.checked_add(2).unwrap_or(DEFAULT_PORT)
}

pub(super) async fn run(listener: TcpListener, events: mpsc::Sender<TcpEvent>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                if events
                    .send(TcpEvent::Accepted { stream, from })
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_families_share_a_port() {
        let (listeners, port) = bind(&[], 0).unwrap();

        assert_ne!(port, 0);
        for listener in listeners {
            assert_eq!(listener.local_addr().unwrap().port(), port);
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let (_first, port) = bind(&[Ipv4Addr::LOCALHOST.into()], 0).unwrap();

        let problem = bind(&[Ipv4Addr::LOCALHOST.into()], port).unwrap_err();

        assert_eq!(problem.code, Code::PortInUse);
        assert!(problem.what.contains(&port.to_string()));
        assert!(problem.fix.contains("--port"));
    }

    #[tokio::test]
    async fn an_address_of_another_host_is_named() {
        let problem = bind(&[Ipv4Addr::new(192, 0, 2, 1).into()], 0).unwrap_err();

        assert_eq!(problem.code, Code::Configuration);
    }
}
