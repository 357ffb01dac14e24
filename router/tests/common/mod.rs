//! Namespaces, cables and waiting for the tests of packet workers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::sync::mpsc;
use weft_kernel::netns::NetNs;
use weft_kernel::tap::Tap;
use weft_lab::net;
use weft_router::worker::{Counters, Report, Workers};
use weft_router_proto::crypto::seal::TAG;
use weft_router_proto::sleeve::lane::{OVERHEAD, SendLane};
use weft_types::MacAddr;

/// How long anything may take, or stand still.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Joins two namespaces by a pair of devices.
pub(crate) fn cable(left: (&NetNs, &str), right: (&NetNs, &str)) {
    net::cable(left, right, 1500).unwrap();
}

/// Gives a device an address, with the length of its network.
pub(crate) fn address(netns: &NetNs, device: &str, address: IpAddr, length: u8) {
    let net = IpNet::new(address, length).unwrap();
    net::address(netns, device, net).unwrap();
}

/// Makes of a new TAP the device of a host on the mesh.
pub(crate) fn wire(netns: &NetNs, tap: &Tap, mac: MacAddr, overlay: Ipv4Addr) {
    net::set_mac(netns, tap.name(), mac).unwrap();
    net::set_mtu(netns, tap.name(), 1350).unwrap();
    // What the kernel would say on its own account is counted too.
    let own = format!("net.ipv6.conf.{}.addr_gen_mode", tap.name());
    net::sysctl(netns, &own, "1").unwrap();
    address(netns, tap.name(), overlay.into(), 12);
    net::up(netns, tap.name()).unwrap();
}

/// Sends so many bytes to an address in the second namespace by TCP through the mesh, and checks them all.
pub(crate) fn stream((from, to): (&NetNs, &NetNs), address: Ipv4Addr, bytes: usize) {
    let listener = to
        .run(|| TcpListener::bind((address, 5201)).unwrap())
        .unwrap();
    let mut sender = from
        .run(|| TcpStream::connect((address, 5201)).unwrap())
        .unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let block: Vec<u8> = (0..=250).cycle().take(251 * 1000).collect();
    std::thread::scope(|scope| {
        let sent = block.clone();
        scope.spawn(move || {
            for _ in 0..bytes / sent.len() {
                sender.write_all(&sent).unwrap();
            }
        });
        let mut got = vec![0; block.len()];
        for _ in 0..bytes / block.len() {
            receiver.read_exact(&mut got).unwrap();
            assert!(got == block);
        }
    });
}

/// Opens a socket of somebody in a namespace who waits for an answer.
pub(crate) fn socket(netns: &NetNs, address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = netns
        .run(|| UdpSocket::bind((address, port)).unwrap())
        .unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Receives a datagram, and says how long it is and who sent it. A machine that is put to sleep interrupts calls with a time
/// limit (signal(7)).
pub(crate) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> (usize, SocketAddr) {
    loop {
        match socket.recv_from(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome.unwrap(),
        }
    }
}

/// Waits for a report that `wanted` picks; others are passed over.
pub(crate) fn hear<T>(
    reports: &mut mpsc::Receiver<Report>,
    wanted: impl Fn(Report) -> Option<T>,
) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        match reports.try_recv() {
            Ok(report) => {
                if let Some(found) = wanted(report) {
                    return found;
                }
            }
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
        assert!(Instant::now() < until, "nothing was reported");
    }
}

/// Waits for what is counted.
pub(crate) fn until(workers: &Workers, reached: impl Fn(&Counters) -> bool) -> Counters {
    let until = Instant::now() + PATIENCE;
    loop {
        let counters = workers.counters();
        if reached(&counters) {
            return counters;
        }
        assert!(Instant::now() < until, "{counters:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a lane makes of what a test wrote by hand.
pub(crate) fn sealed(lane: &mut SendLane, plain: &[&[u8]]) -> Vec<u8> {
    let mut datagram = vec![0; OVERHEAD - TAG];
    datagram.extend(plain.concat());
    datagram.extend([0; TAG]);
    lane.seal(&mut datagram).unwrap();
    datagram
}
