//! Puts onto the wire what a router did not send: datagrams again, datagrams of chance, frames made by hand.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use weft_kernel::netns::NetNs;
use weft_kernel::packet::{Options, PacketSocket};
use weft_lab::packet::{self, ethernet, ethertype};
use weft_lab::{Datagram, Host, Link};
use weft_types::MacAddr;

/// Numbers that look like chance and are the same on every run (splitmix64, Steele, Lea and Flood 2014).
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Begins a sequence.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `end`, which fits in memory.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % (end as u64)).unwrap()
    }

    /// Fills a slice.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.roll().to_be_bytes()[..chunk.len()]);
        }
    }

    /// Puts a slice into another order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for at in (1..things.len()).rev() {
            things.swap(at, self.below(at + 1));
        }
    }

    /// Returns 32 bytes that are nowhere by accident.
    pub fn marker(&mut self) -> [u8; 32] {
        let mut marker = [0; 32];
        self.fill(&mut marker);
        marker
    }
}

/// Sends frames over the cable of a host as if the switch passed them on: in whose name is the caller's choice.
#[derive(Debug)]
pub struct Injector {
    socket: PacketSocket,
    to: MacAddr,
}

impl Injector {
    /// Stands behind the switch's end of a host's cable.
    pub fn towards(host: &Host, link: &Link) -> Self {
        Self {
            socket: packet_socket(link.port_netns(), &link.port()),
            to: host.mac(link.device()).unwrap().unwrap(),
        }
    }

    /// Sends a recorded datagram from the address it came from.
    pub fn replay(&self, datagram: &Datagram) {
        self.socket.send(&self.frame(datagram)).unwrap();
    }

    fn frame(&self, datagram: &Datagram) -> Vec<u8> {
        // Whose frame it is says the IP address; a station that is nobody's keeps the switch from learning.
        let nobody = MacAddr::new([2, 0xff, 0, 0, 0, 1]);
        let packet = udp4(datagram.from, datagram.to, &datagram.payload);
        ethernet(self.to, nobody, ethertype::IPV4, &packet)
    }
}

/// Opens a device of a namespace for frames made by hand.
pub fn packet_socket(namespace: &NetNs, device: &str) -> PacketSocket {
    let opened = namespace.run(|| PacketSocket::open(device, &Options::forward()));
    opened.unwrap().unwrap()
}

/// Makes an IPv4 packet with a UDP datagram, without the optional checksum (RFC 768).
pub fn udp4(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let ends = [from, to].map(|end| SocketAddrV4::new(v4(end.ip()), end.port()));
    packet::udp4(ends, payload)
}

/// Makes an IPv4 packet. `place` is the field of flags and offset.
pub fn ipv4(from: IpAddr, to: IpAddr, protocol: u8, place: u16, payload: &[u8]) -> Vec<u8> {
    packet::ipv4([v4(from), v4(to)], protocol, place, payload)
}

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => panic!("an IPv4 packet goes from an IPv4 address to another"),
    }
}

/// Receives a datagram, and says how long it is. A machine that is put to sleep interrupts calls with a time limit (signal(7)).
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> usize {
    loop {
        match socket.recv(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome.unwrap(),
        }
    }
}

/// Gives a socket room for what comes in a burst.
pub fn room(socket: &UdpSocket, bytes: usize) {
    let _ = socket2::SockRef::from(socket).set_recv_buffer_size(bytes);
}
