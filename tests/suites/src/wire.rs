//! Puts onto the wire what a router did not send: datagrams again, datagrams of chance, frames made by hand.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use weft_kernel::netns::NetNs;
use weft_kernel::packet::{Options, PacketSocket};
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
        let mut frame = self.to.as_bytes().to_vec();
        // Whose frame it is says the IP address; a station that is nobody's keeps the switch from learning.
        frame.extend([2, 0xff, 0, 0, 0, 1, 0x08, 0x00]);
        frame.extend(udp4(datagram.from, datagram.to, &datagram.payload));
        frame
    }
}

/// Opens a device of a namespace for frames made by hand.
pub fn packet_socket(namespace: &NetNs, device: &str) -> PacketSocket {
    let opened = namespace.run(|| PacketSocket::open(device, &Options::forward()));
    opened.unwrap().unwrap()
}

/// Makes an IPv4 packet with a UDP datagram, without the optional checksum (RFC 768).
pub fn udp4(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut udp = from.port().to_be_bytes().to_vec();
    udp.extend(to.port().to_be_bytes());
    udp.extend(length(8 + payload.len()));
    udp.extend([0, 0]);
    udp.extend(payload);
    ipv4(from.ip(), to.ip(), 17, 0, &udp)
}

/// Makes an IPv4 packet. `fragment` is the field of flags and offset.
pub fn ipv4(from: IpAddr, to: IpAddr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else {
        panic!("an IPv4 packet goes from an IPv4 address to another");
    };
    let mut packet = vec![0x45, 0];
    packet.extend(length(20 + payload.len()));
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum: u32 = packet
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = !((folded & 0xffff) + (folded >> 16));
    packet[10..12].copy_from_slice(&folded.to_be_bytes()[2..]);
    packet.extend(payload);
    packet
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap().to_be_bytes()
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
