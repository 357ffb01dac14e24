//! The network beneath the mesh: one switch, one subnet, a cable to each host.
//!
//! ```text
//!   host a: eth0 ══ p1 ┐                            host b: eth0 ══ p2
//!                      ├ switch (br0)       or, shaped:            │ packet sockets, one thread
//!                  pN ┘                                      s2 ═══ t2 ─ br0
//! ```
//!
//! A link is a plain cable, as fast as the kernel, until something is asked of it that a cable cannot do; then a
//! [`Shaper`] is put into it, and stays.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weft_kernel::netns::NetNs;

use crate::shaper::{Counters, Match, Profile, Shaper, Way};
use crate::{Host, LabError, net};

/// The device by which the switch itself is a station in its subnet.
const SWITCH: &str = "br0";

/// Addresses for documentation: RFC 5737 and RFC 3849.
const SUBNET_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 0);
const SUBNET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);

/// The switch's own place in the subnet, out of the way of hosts, which count up from 1.
const OWN: u8 = 254;

/// What an Ethernet carries.
const MTU: u32 = 1500;

/// A switch with a subnet. It can itself be a station: a router, a stranger, a listener.
#[derive(Debug)]
pub struct Underlay {
    switch: Arc<Host>,
    next: AtomicU8,
}

/// A host's place in the underlay. The cable goes with the value.
#[derive(Debug)]
pub struct Link {
    device: String,
    host: NetNs,
    number: u8,
    shaper: Mutex<Option<Shaper>>,
    switch: Arc<Host>,
}

impl Underlay {
    pub(crate) fn create(switch: Host) -> Result<Self, LabError> {
        net::switch(switch.netns(), SWITCH)?;
        for address in addresses(OWN) {
            net::address(switch.netns(), SWITCH, address)?;
        }
        Ok(Self {
            switch: Arc::new(switch),
            next: AtomicU8::new(1),
        })
    }

    /// Connects a host by its device `eth0`, with the next free address of each family.
    pub fn join(&self, host: &Host) -> Result<Link, LabError> {
        self.join_as(host, "eth0")
    }

    /// Connects a host by a device of another name.
    pub fn join_as(&self, host: &Host, device: &str) -> Result<Link, LabError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let inside = host
            .netns()
            .try_clone()
            .map_err(LabError::io("keep a namespace open"))?;
        let link = Link {
            device: device.to_owned(),
            host: inside,
            number,
            shaper: Mutex::new(None),
            switch: Arc::clone(&self.switch),
        };
        net::cable(
            (host.netns(), device),
            (self.switch.netns(), &link.port()),
            MTU,
        )?;
        net::plug(self.switch.netns(), &link.port(), Some(SWITCH))?;
        for address in addresses(number) {
            net::address(host.netns(), device, address)?;
        }
        Ok(link)
    }

    /// Returns the switch as a host: who runs something inside is a station that all others see.
    pub fn switch(&self) -> &Host {
        &self.switch
    }

    /// Returns the device of [`Self::switch`] that sees floods and frames to the switch itself.
    pub fn device(&self) -> &str {
        SWITCH
    }

    /// Returns the switch's own IPv4 address.
    pub fn v4(&self) -> Ipv4Addr {
        v4(OWN)
    }

    /// Returns the switch's own IPv6 address.
    pub fn v6(&self) -> Ipv6Addr {
        v6(OWN)
    }
}

impl Link {
    /// Returns the host's IPv4 address.
    pub fn v4(&self) -> Ipv4Addr {
        v4(self.number)
    }

    /// Returns the host's IPv6 address.
    pub fn v6(&self) -> Ipv6Addr {
        v6(self.number)
    }

    /// Returns the host's device.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Returns the device at the switch's end of the cable. A capture there sees what is really on the wire.
    pub fn port(&self) -> String {
        format!("p{}", self.number)
    }

    /// Returns the namespace that [`Self::port`] is in.
    pub fn port_netns(&self) -> &NetNs {
        self.switch.netns()
    }

    /// Loses every frame both ways, in silence, until [`Self::heal`].
    pub fn cut(&self) -> Result<(), LabError> {
        self.block(Match::All)
    }

    /// Takes every block back. The profile stays.
    pub fn heal(&self) -> Result<(), LabError> {
        self.with_shaper(Shaper::unblock_all)
    }

    /// Loses a set of frames both ways, in silence.
    pub fn block(&self, rule: Match) -> Result<(), LabError> {
        self.with_shaper(|shaper| {
            shaper.block(Way::Out, rule.clone());
            shaper.block(Way::In, rule);
        })
    }

    /// Loses a set of frames one way, in silence.
    pub fn block_way(&self, way: Way, rule: Match) -> Result<(), LabError> {
        self.with_shaper(|shaper| {
            shaper.block(way, rule);
        })
    }

    /// Changes the quality of the link in both directions.
    pub fn shape(&self, profile: Profile) -> Result<(), LabError> {
        self.with_shaper(|shaper| {
            shaper.set_profile(Way::Out, profile);
            shaper.set_profile(Way::In, profile);
        })
    }

    /// Changes the quality of the link in one direction.
    pub fn shape_way(&self, way: Way, profile: Profile) -> Result<(), LabError> {
        self.with_shaper(|shaper| shaper.set_profile(way, profile))
    }

    /// Returns what the shaper did so far; all zero while the link is a plain cable.
    pub fn counters(&self, way: Way) -> Counters {
        let shaper = self.shaper.lock().unwrap_or_else(PoisonError::into_inner);
        shaper
            .as_ref()
            .map(|shaper| shaper.counters(way))
            .unwrap_or_default()
    }

    /// Pulls the plug: the host's device loses its carrier.
    pub fn down(&self) -> Result<(), LabError> {
        net::down(self.switch.netns(), &self.port())
    }

    /// Puts the plug back in.
    pub fn up(&self) -> Result<(), LabError> {
        net::up(self.switch.netns(), &self.port())
    }

    /// Sets the MTU of the host's device, as its administrator would.
    pub fn set_mtu(&self, mtu: u32) -> Result<(), LabError> {
        net::set_mtu(&self.host, &self.device, mtu)
    }

    /// Puts the shaper in if it is not there, so that frames are cut to wire size from here on.
    pub fn insert_shaper(&self) -> Result<(), LabError> {
        self.with_shaper(|_| ())
    }

    fn with_shaper<T>(&self, work: impl FnOnce(&Shaper) -> T) -> Result<T, LabError> {
        let mut shaper = self.shaper.lock().unwrap_or_else(PoisonError::into_inner);
        let shaper = match &mut *shaper {
            Some(shaper) => shaper,
            empty => empty.insert(self.start_shaper()?),
        };
        Ok(work(shaper))
    }

    fn start_shaper(&self) -> Result<Shaper, LabError> {
        let inside = self.switch.netns();
        let (socket_side, switch_side) = (format!("s{}", self.number), format!("t{}", self.number));
        net::cable((inside, &socket_side), (inside, &switch_side), MTU)?;
        // Between virtual devices packets travel in bundles; a link that loses single ones must see single ones.
        net::forbid_long_frames(&self.host, &self.device)?;
        net::forbid_long_frames(inside, &switch_side)?;
        // The device's own packets would appear on the link as a stranger's.
        for device in [self.port(), socket_side.clone()] {
            let _ = net::sysctl(inside, &format!("net.ipv6.conf.{device}.disable_ipv6"), "1");
        }
        let shaper = Shaper::start(inside, &self.port(), &socket_side, u64::from(self.number))?;
        net::plug(inside, &self.port(), None)?;
        net::plug(inside, &switch_side, Some(SWITCH))?;
        Ok(shaper)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        *self.shaper.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // The other end goes along, and so does a host's end when the host went first.
        let _ = net::remove(self.switch.netns(), &self.port());
        let _ = net::remove(self.switch.netns(), &format!("s{}", self.number));
    }
}

fn addresses(number: u8) -> [IpNet; 2] {
    let v4 = Ipv4Net::new_assert(v4(number), 24);
    let v6 = Ipv6Net::new_assert(v6(number), 64);
    [v4.into(), v6.into()]
}

fn v4(number: u8) -> Ipv4Addr {
    let [a, b, c, _] = SUBNET_V4.octets();
    Ipv4Addr::from([a, b, c, number])
}

fn v6(number: u8) -> Ipv6Addr {
    let mut octets = SUBNET_V6.octets();
    octets[15] = number;
    Ipv6Addr::from(octets)
}

/// Says which of a host's addresses to use: tests are often written for both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Link {
    /// Returns the host's address of one family.
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4().into(),
            Family::V6 => self.v6().into(),
        }
    }
}
