//! Reads and writes Ethernet, ARP, IP, ICMP, TCP and UDP, as far as tests look at packets: the one place that does.
//!
//! Written by hand: no crate of the dependency tree knows these formats, and what a lab needs of them is less than this
//! page says of them. It does not use the router's own reader (`sleeve::inner`) on purpose: a tester that shares code with
//! what it tests shares its mistakes.
//!
//! **Invariant.** What is in a [`Packet`] was within the bytes that it was read from; what is cut or contradicts itself
//! is no packet. Only [`Packet::said`] is the sender's word.

mod arp;
mod make;
mod numbers;
mod read;
mod sum;

pub use arp::{Arp, Operation};
pub use make::{ethernet, ipv4, ipv6, tagged, udp, udp4};
pub use numbers::{ethertype, fragment, protocol};
pub use read::Packet;
#[cfg(test)]
pub(crate) use read::tests;
pub use sum::{amended, checksum, finish, sum};
