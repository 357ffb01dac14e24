//! What a translator is asked to be, and what it counts.

use std::net::Ipv4Addr;
use std::time::Duration;

/// How a translator of addresses treats UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Who was sent to at all may be answered by anybody.
    FullCone,
    /// Who was sent to may answer from any port.
    AddressRestricted,
    /// Who was sent to may answer from the port it was sent to.
    PortRestricted,
    /// As port-restricted, and every destination sees another port.
    Symmetric,
}

/// How a translator behaves. The default is a port-restricted one, as at home, with the usual times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatProfile {
    /// How long an echo may be answered.
    pub echo_idle: Duration,
    /// Hosts inside reach each other by their outer addresses.
    pub hairpin: bool,
    /// Who is mapped to what, and who may answer.
    pub kind: Kind,
    /// The port outside is the one inside while it is free; otherwise it cannot be guessed.
    pub preserves_ports: bool,
    /// The private network: its first 254 addresses are used.
    pub subnet: Ipv4Addr,
    /// How long a stream may be silent outwards.
    pub tcp_idle: Duration,
    /// How long datagrams may be silent outwards.
    pub udp_idle: Duration,
}

impl NatProfile {
    /// Makes a profile of one kind.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            ..Self::default()
        }
    }
}

impl Default for NatProfile {
    fn default() -> Self {
        Self {
            // RFC 5508 §3.2.
            echo_idle: Duration::from_secs(60),
            hairpin: false,
            kind: Kind::PortRestricted,
            preserves_ports: false,
            subnet: Ipv4Addr::new(192, 168, 1, 0),
            // RFC 5382 §5.
            tcp_idle: Duration::from_secs(7440),
            // RFC 4787 §4.3: the least that is allowed.
            udp_idle: Duration::from_secs(120),
        }
    }
}

/// What became of the packets that a translator saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NatCounters {
    /// Came from somebody who may not answer.
    pub filtered: u64,
    /// Of a protocol that is not translated, or a fragment.
    pub foreign: u64,
    /// Went through.
    pub translated: u64,
    /// To an address that nobody outside has.
    pub unroutable: u64,
}
