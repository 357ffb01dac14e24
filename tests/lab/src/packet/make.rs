//! Writes packets by hand: what tests put onto a wire themselves.
//!
//! Checksums of IP headers are right; those of what is carried are zero until [`super::finish`] writes them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use weft_types::MacAddr;

use super::numbers::{IPV4_HEADER, UDP_HEADER, protocol};
use super::sum::checksum;

/// What routers usually write.
const HOPS: u8 = 64;

/// Puts an Ethernet header before a payload.
pub fn ethernet(to: MacAddr, from: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let kind = ethertype.to_be_bytes();
    [&to.as_bytes()[..], from.as_bytes(), &kind, payload].concat()
}

/// Puts a tag into a frame, before those that it has.
pub fn tagged(frame: &[u8], ethertype: u16, vlan: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    let tag = [ethertype.to_be_bytes(), vlan.to_be_bytes()].concat();
    [addresses, &tag, rest].concat()
}

/// Makes an IPv4 packet; `place` is the field of [`super::fragment`].
pub fn ipv4(ends: [Ipv4Addr; 2], protocol: u8, place: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(length(IPV4_HEADER + payload.len()));
    packet.extend([0, 1]);
    packet.extend(place.to_be_bytes());
    packet.extend([HOPS, protocol, 0, 0]);
    packet.extend(ends.map(|end| end.octets()).concat());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// Makes an IPv6 packet; `next` is the protocol, or the first extension header, with which the payload begins.
pub fn ipv6(ends: [Ipv6Addr; 2], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length(payload.len()));
    packet.extend([next, HOPS]);
    packet.extend(ends.map(|end| end.octets()).concat());
    packet.extend(payload);
    packet
}

/// Makes a UDP datagram without checksum, which over IPv4 is allowed (RFC 768).
pub fn udp(ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let mut datagram = ports.map(u16::to_be_bytes).concat();
    datagram.extend(length(UDP_HEADER + payload.len()));
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// Makes an IPv4 packet with a UDP datagram without checksum.
pub fn udp4(ends: [SocketAddrV4; 2], payload: &[u8]) -> Vec<u8> {
    let datagram = udp(ends.map(|end| end.port()), payload);
    ipv4(ends.map(|end| *end.ip()), protocol::UDP, 0, &datagram)
}

fn length(bytes: usize) -> [u8; 2] {
    let length = u16::try_from(bytes).expect("a packet of less than 64 KiB");
    length.to_be_bytes()
}
