//! The network beneath the mesh: one switch, one subnet, a cable to each host.
//!
//! ```text
//!   host a: eth0 ══ p1 ┐                            host b: eth0 ══ p2
//!                      ├ switch (br0)       or, shaped:            │ packet sockets, one thread
//!                  pN ┘                                      s2 ═══ t2 ─ br0
//! ```
//!
//! A link is a plain cable, as fast as the kernel, until something is asked of it that a cable cannot do; then a
//! [`Shaper`] is put into it, and stays. What concerns two hosts only, such as [`Link::cut_off`], is a rule at the sender's
//! cable that names the other one's address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weft_kernel::netns::NetNs;

use crate::shaper::{self, Counters, Harm, Match, Profile, Shaper, Way};
use crate::{Host, LabError, net};

/// The device by which the switch itself is a station in its subnet.
const SWITCH: &str = "br0";

/// Addresses for documentation: RFC 5737 and RFC 3849.
const SUBNET_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 0);
const SUBNET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);

/// The switch's own place in the subnet, out of the way of hosts, which count up from 1. In a [`crate::Lan`] it is the
/// gateway's.
pub(crate) const OWN: u8 = 254;

/// What an Ethernet carries.
const MTU: u32 = 1500;

/// What one carries whose cards and switches are set up for jumbo frames.
const JUMBO: u32 = 9000;

/// A switch with a subnet. It can itself be a station: a router, a stranger, a listener.
#[derive(Debug)]
pub struct Underlay {
    switch: Arc<Host>,
    next: AtomicU8,
    subnet: Subnet,
    mtu: u32,
}

/// The addresses that hosts of an underlay get, and how they get out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subnet {
    /// 256 addresses of IPv4 behind a gateway, and none of IPv6.
    Private(Ipv4Addr),
    /// Both families, and nothing beyond.
    Public,
    /// The same without IPv4.
    PublicV6,
}

impl Subnet {
    pub(crate) fn v4(self, number: u8) -> Ipv4Addr {
        let base = match self {
            Self::Private(base) => base,
            Self::Public | Self::PublicV6 => SUBNET_V4,
        };
        let [a, b, c, _] = base.octets();
        Ipv4Addr::from([a, b, c, number])
    }

    fn v6(self, number: u8) -> Option<Ipv6Addr> {
        match self {
            Self::Private(_) => None,
            Self::Public | Self::PublicV6 => {
                let mut octets = SUBNET_V6.octets();
                octets[15] = number;
                Some(Ipv6Addr::from(octets))
            }
        }
    }

    pub(crate) fn gateway(self) -> Option<Ipv4Addr> {
        match self {
            Self::Private(_) => Some(self.v4(OWN)),
            Self::Public | Self::PublicV6 => None,
        }
    }

    fn addresses(self, number: u8) -> impl Iterator<Item = IpNet> {
        let v4 = (self != Self::PublicV6).then(|| Ipv4Net::new_assert(self.v4(number), 24));
        let v6 = self.v6(number).map(|v6| Ipv6Net::new_assert(v6, 64));
        v4.map(IpNet::from).into_iter().chain(v6.map(IpNet::from))
    }
}

/// A host's place in the underlay. The cable goes with the value.
#[derive(Debug)]
pub struct Link {
    device: String,
    host: NetNs,
    number: u8,
    mtu: u32,
    /// The rules that concern one other host, by its address.
    pairs: Mutex<BTreeMap<Ipv4Addr, Vec<u32>>>,
    shaper: Mutex<Option<Shaper>>,
    subnet: Subnet,
    switch: Arc<Host>,
}

impl Underlay {
    pub(crate) fn create(switch: Host, subnet: Subnet) -> Result<Self, LabError> {
        net::switch(switch.netns(), SWITCH)?;
        // In a private subnet that place is the gateway's.
        if subnet.gateway().is_none() {
            for address in subnet.addresses(OWN) {
                net::address(switch.netns(), SWITCH, address)?;
            }
        }
        Ok(Self {
            switch: Arc::new(switch),
            next: AtomicU8::new(1),
            subnet,
            mtu: MTU,
        })
    }

    /// Carries jumbo frames of 9000 bytes on every cable that is laid from here on.
    #[must_use]
    pub fn jumbo(self) -> Self {
        Self { mtu: JUMBO, ..self }
    }

    /// Connects a host by its device `eth0`, with the next free address of each family.
    pub fn join(&self, host: &Host) -> Result<Link, LabError> {
        self.join_as(host, "eth0")
    }

    /// Connects a host by a device of another name.
    pub fn join_as(&self, host: &Host, device: &str) -> Result<Link, LabError> {
        let link = self.plug_in(host, device)?;
        for address in self.subnet.addresses(link.number) {
            net::address(host.netns(), device, address)?;
        }
        if let Some(gateway) = self.subnet.gateway() {
            host.route_through(gateway.into())?;
            // A gateway in userspace takes single packets only.
            net::forbid_long_frames(host.netns(), device)?;
        }
        Ok(link)
    }

    /// Lays a cable and gives its number away, but no address: whoever is at its end speaks for itself.
    pub(crate) fn plug_in(&self, host: &Host, device: &str) -> Result<Link, LabError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let inside = host
            .netns()
            .try_clone()
            .map_err(LabError::io("keep a namespace open"))?;
        let link = Link {
            device: device.to_owned(),
            host: inside,
            number,
            mtu: self.mtu,
            pairs: Mutex::default(),
            shaper: Mutex::new(None),
            subnet: self.subnet,
            switch: Arc::clone(&self.switch),
        };
        net::cable(
            (host.netns(), device),
            (self.switch.netns(), &link.port()),
            self.mtu,
        )?;
        net::plug(self.switch.netns(), &link.port(), Some(SWITCH))?;
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
        self.subnet.v4(OWN)
    }

    /// Returns the switch's own IPv6 address.
    pub fn v6(&self) -> Ipv6Addr {
        self.subnet.v6(OWN).unwrap_or(Ipv6Addr::UNSPECIFIED)
    }

    pub(crate) fn subnet(&self) -> Subnet {
        self.subnet
    }
}

impl Link {
    /// Returns the address by which others are told of the host: that of IPv4 where there is one.
    pub fn name(&self) -> IpAddr {
        self.addresses().next().unwrap_or(self.v4().into())
    }

    /// Returns the host's IPv4 address; on an underlay without IPv4 nobody has it.
    pub fn v4(&self) -> Ipv4Addr {
        self.subnet.v4(self.number)
    }

    /// Returns the host's IPv6 address; the unspecified one in a [`crate::Lan`], which has none.
    pub fn v6(&self) -> Ipv6Addr {
        self.subnet.v6(self.number).unwrap_or(Ipv6Addr::UNSPECIFIED)
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

    /// Takes every rule back. The profile stays.
    pub fn heal(&self) -> Result<(), LabError> {
        self.pairs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
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

    /// Harms a set of frames one way.
    pub fn harm_way(&self, way: Way, frames: Match, harm: Harm) -> Result<(), LabError> {
        self.with_shaper(|shaper| {
            shaper.harm(way, frames, harm);
        })
    }

    /// Harms what this host sends to another, of a set of frames; what goes elsewhere and what comes back is as before.
    pub fn harm_towards(&self, other: &Self, frames: Match, harm: Harm) -> Result<(), LabError> {
        let theirs = other.addresses().map(Match::Host).collect();
        let frames = Match::AllOf(vec![Match::AnyOf(theirs), frames]);
        let number = self.with_shaper(|shaper| shaper.harm(Way::Out, frames, harm))?;
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        pairs.entry(other.v4()).or_default().push(number);
        Ok(())
    }

    /// Loses a set of frames from this host to another, in silence.
    pub fn block_towards(&self, other: &Self, frames: Match) -> Result<(), LabError> {
        self.harm_towards(other, frames, Harm::LOSE)
    }

    /// Loses everything from this host to another, in silence.
    pub fn cut_towards(&self, other: &Self) -> Result<(), LabError> {
        self.block_towards(other, Match::All)
    }

    /// Loses everything between this host and another, both ways, in silence.
    pub fn cut_off(&self, other: &Self) -> Result<(), LabError> {
        self.cut_towards(other)?;
        other.cut_towards(self)
    }

    /// Takes back what concerns only frames from this host to another.
    pub fn heal_towards(&self, other: &Self) -> Result<(), LabError> {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let numbers = pairs.remove(&other.v4()).unwrap_or_default();
        self.with_shaper(|shaper| {
            for number in numbers {
                shaper.unblock(Way::Out, number);
            }
        })
    }

    /// Takes back what concerns only frames between this host and another.
    pub fn reunite(&self, other: &Self) -> Result<(), LabError> {
        self.heal_towards(other)?;
        other.heal_towards(self)
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

    /// Puts the host behind a firewall that lets in what answers only, and forgets what nothing goes out for so long.
    pub fn guard(&self, idle: Duration) -> Result<(), LabError> {
        let (out, stays_out) = shaper::firewall(idle);
        self.block_way(Way::Out, out)?;
        self.block_way(Way::In, stays_out)
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

    /// Takes the shaper out, and what it did to the link with it: a plain cable needs nobody to carry its frames, so it
    /// outlives this process.
    pub fn remove_shaper(&self) -> Result<(), LabError> {
        let mut shaper = self.shaper.lock().unwrap_or_else(PoisonError::into_inner);
        if shaper.take().is_none() {
            return Ok(());
        }
        let inside = self.switch.netns();
        net::remove(inside, &format!("s{}", self.number))?;
        net::plug(inside, &self.port(), Some(SWITCH))?;
        net::allow_long_frames(&self.host, &self.device)
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
        net::cable((inside, &socket_side), (inside, &switch_side), self.mtu)?;
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

/// Says which of a host's addresses to use: tests are often written for both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Link {
    /// Returns all addresses of the host.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.subnet.addresses(self.number).map(|net| net.addr())
    }

    /// Returns the host's address of one family.
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4().into(),
            Family::V6 => self.v6().into(),
        }
    }
}
