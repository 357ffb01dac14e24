//! Says in which bucket an Ethernet address is, and where in a table an address is looked for.
//!
//! ```text
//!   x = address as a number × G mod 2^64        G = 0x9e3779b97f4a7c15, the fraction of the golden ratio: odd, and its
//!   x = (x xor x >> 32) × G mod 2^64            bits follow no pattern (Knuth, TAOCP vol. 3 §6.4)
//!   bucket = x >> 56
//! ```
//!
//! The bucket of an Ethernet address is part of the protocol; where IP addresses lie is each node's own affair. Who makes
//! addresses meet on purpose fills buckets of its own.

use std::net::IpAddr;

use weft_types::{MacAddr, NodeId};

use crate::crypto::sha256;

/// Registers per owner, and parts of what all say.
pub const BUCKETS: u16 = 256;

/// Which bucket an endpoint is in.
pub const fn bucket_of(mac: MacAddr) -> u16 {
    top(mac_mix(mac))
}

/// Which part of the index an IP address is in.
pub(crate) const fn address_shard(address: IpAddr) -> usize {
    top(address_mix(address)) as usize
}

/// The Ethernet address of a node's bridge: made from its identity, so that it is the same after every restart, and nobody
/// else's.
pub fn host_mac(node: NodeId) -> MacAddr {
    let [a, b, c, d, e, f, ..] = sha256(&[&b"weft-bridge"[..], node.as_bytes()].concat());
    MacAddr::local([a, b, c, d, e, f])
}

/// An Ethernet address, mixed.
pub(crate) const fn mac_mix(mac: MacAddr) -> u64 {
    mix(mac_number(mac))
}

/// An Ethernet address as a number, so that comparing and hashing it is one step.
pub(crate) const fn mac_number(mac: MacAddr) -> u64 {
    let [a, b, c, d, e, f] = *mac.as_bytes();
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// An IP address, mixed.
pub(crate) const fn address_mix(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => v4_mix(v4.to_bits()),
        IpAddr::V6(v6) => v6_mix(v6.to_bits()),
    }
}

pub(crate) const fn v4_mix(address: u32) -> u64 {
    mix(address as u64)
}

pub(crate) const fn v6_mix(address: u128) -> u64 {
    let [a, b, c, d, e, f, g, h, rest @ ..] = address.to_be_bytes();
    let high = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    mix(mix(high) ^ u64::from_be_bytes(rest))
}

/// The bits that name a bucket.
pub(crate) const fn top(mixed: u64) -> u16 {
    let [bucket, ..] = mixed.to_be_bytes();
    bucket as u16
}

const fn mix(number: u64) -> u64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let once = number.wrapping_mul(GOLDEN);
    (once ^ (once >> 32)).wrapping_mul(GOLDEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fullest bucket of 1 000 addresses `first`, `first + step`, ….
    fn fullest(first: u64, step: u64) -> usize {
        let mut filled = [0; BUCKETS as usize];
        for n in 0..1000_u64 {
            let [_, _, bytes @ ..] = (first + n * step).to_be_bytes();
            filled[usize::from(bucket_of(MacAddr::new(bytes)))] += 1;
        }
        filled.into_iter().max().unwrap()
    }

    #[test]
    fn addresses_that_follow_a_pattern_fill_buckets_as_random_ones_do() {
        for shift in 0..38 {
            for factor in [1, 3, 5, 7, 255] {
                let most = fullest(0x0200_0000_0000, factor << (shift.min(28)));
                // Thrown at random, 1 000 balls leave 15 in the fullest of 256 bins one time in a hundred.
                assert!(most < 20, "{most} in one bucket at {factor} << {shift}");
            }
        }
    }

    #[test]
    fn the_bucket_of_an_address_is_as_the_protocol_has_it() {
        let bucket = |last| bucket_of(MacAddr::new([2, 0, 0, 0, 0, last]));

        assert_eq!([bucket(1), bucket(2), bucket(3)], [24, 205, 98]);
    }
}
