//! A private network behind a translator of addresses: hosts that see each other, and the outside through a gateway.

use std::net::Ipv4Addr;

use crate::nat::{Nat, NatCounters, NatProfile, Wall};
use crate::underlay::{OWN, Subnet};
use crate::{Host, LabError, Link, Underlay, net};

/// The gateway's devices: to the outside, and the two ends of the cable to its own switch.
const WAN: &str = "wan";
const GATE: &str = "gate";
const PORT: &str = "lan";

/// A switch with private addresses and a gateway in userspace. Hosts have no IPv6 there but link-local.
#[derive(Debug)]
pub struct Lan {
    // The thread goes first: it holds the devices of the others.
    nat: Nat,
    outside: Link,
    inside: Underlay,
}

impl Lan {
    pub(crate) fn create(
        gateway: Host,
        outside: &Underlay,
        profile: NatProfile,
    ) -> Result<Self, LabError> {
        // The kernel must do none of this on its own.
        gateway.sysctl("net.ipv4.ip_forward", "0")?;
        let uplink = outside.plug_in(&gateway, WAN)?;
        let inside = Underlay::create(gateway, Subnet::Private(profile.subnet))?;
        let host = inside.switch();
        net::cable((host.netns(), GATE), (host.netns(), PORT), 1500)?;
        net::plug(host.netns(), PORT, Some(inside.device()))?;
        for device in [WAN, GATE] {
            // Its own packets would appear on the link as a stranger's.
            let _ = host.sysctl(&format!("net.ipv6.conf.{device}.disable_ipv6"), "1");
        }
        // The gateway takes single packets only.
        net::forbid_long_frames(uplink.port_netns(), &uplink.port())?;
        net::forbid_long_frames(host.netns(), PORT)?;
        let nat = Nat::start(
            host,
            Wall {
                device: GATE,
                address: inside.subnet().v4(OWN),
                gateway: None,
            },
            Wall {
                device: WAN,
                address: uplink.v4(),
                gateway: outside.subnet().gateway(),
            },
            profile,
        )?;
        Ok(Self {
            nat,
            outside: uplink,
            inside,
        })
    }

    /// Connects a host by its device `eth0`, with the next free private address.
    pub fn join(&self, host: &Host) -> Result<Link, LabError> {
        self.inside.join(host)
    }

    /// Returns the network inside, in which there may be another gateway.
    pub fn inside(&self) -> &Underlay {
        &self.inside
    }

    /// Returns the gateway's own cable to the outside: its quality is that of all hosts inside.
    pub fn outside(&self) -> &Link {
        &self.outside
    }

    /// Returns the address by which the outside knows every host inside.
    pub fn public(&self) -> Ipv4Addr {
        self.outside.v4()
    }

    /// Returns what became of the packets so far.
    pub fn counters(&self) -> NatCounters {
        self.nat.counters()
    }

    /// Returns how many mappings are alive.
    pub fn mappings(&self) -> usize {
        self.nat.mappings()
    }

    /// Forgets every mapping, as a box does that lost its power.
    pub fn forget(&self) {
        self.nat.forget();
    }
}
