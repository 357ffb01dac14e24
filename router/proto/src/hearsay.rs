//! Judges where others say that they, or we, can be reached: what leads out of this host, and to a host.
//!
//! Any member can tell any address; every other one dials it, and probes it. So nothing is sent where only this host or its
//! own wires would answer: what a person names is not judged here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

/// Whether an address that somebody tells may be sent to; `ranges` are the mesh's own.
pub fn may_be_sent_to(address: SocketAddr, ranges: &[IpNet]) -> bool {
    let ip = address.ip().to_canonical();
    let odd = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast() || is_reserved(ip),
        // Without a scope it names another wire on every host.
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let nobody = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || odd;
    // Into the mesh by the mesh: a way of it that would carry itself.
    let inside = ranges.iter().any(|range| range.contains(&ip));
    address.port() != 0 && !nobody && !inside
}

/// RFC 1122 §3.2.1.3: "this network". RFC 1112 §4: class E.
const fn is_reserved(ip: Ipv4Addr) -> bool {
    let [first, ..] = ip.octets();
    first == 0 || first >= 240
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(address: &str) -> bool {
        let ranges = ["10.32.0.0/12", "fd00:1::/48"].map(|range| range.parse().expect("a range"));
        may_be_sent_to(address.parse().expect("an address"), &ranges)
    }

    #[test]
    fn hosts_of_the_underlay_may_be_sent_to() {
        for address in [
            "192.0.2.1:6783",
            "10.1.2.3:6783",
            "[2001:db8::1]:6783",
            "[fd00:2::1]:1",
        ] {
            assert!(passes(address), "{address}");
        }
    }

    #[test]
    fn this_host_its_wires_everybody_nobody_and_the_mesh_may_not() {
        for address in [
            "127.0.0.1:6783",
            "127.9.9.9:22",
            "[::1]:6783",
            "[::ffff:127.0.0.1]:6783",
            "0.0.0.0:6783",
            "0.1.2.3:6783",
            "[::]:6783",
            "169.254.169.254:80",
            "[fe80::1]:6783",
            "[fe80::1%3]:6783",
            "224.0.0.251:5353",
            "[ff02::1]:6783",
            "255.255.255.255:67",
            "240.0.0.1:6783",
            "10.32.0.1:6783",
            "[::ffff:10.47.255.254]:6783",
            "[fd00:1::9]:6783",
            "192.0.2.1:0",
        ] {
            assert!(!passes(address), "{address}");
        }
    }
}
