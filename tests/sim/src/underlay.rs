//! Carries datagrams and connections from host to host, through the NATs between them.
//!
//! A datagram's source is translated when it is sent, its destination when it arrives: two that cross each other on the
//! way find the mappings that the other one's sending has made. Connections are made outward only.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use weft_router_proto::sleeve::header::{Header, Type};
use weft_router_proto::tunnel::TooBig;

use crate::dice::Purpose;
use crate::nat::{Nat, NatIndex, NatSpec, Realm};
use crate::node::{Node, NodeIndex};
use crate::world::{Sim, What};

/// Headers of IPv4 and UDP.
const UDP_HEADERS: usize = 28;
/// Headers of IPv4 and TCP, with the time stamps that every kernel puts there.
const TCP_HEADERS: u64 = 52;
/// What a TCP segment carries on Ethernet.
const SEGMENT: u64 = 1448;

/// Which dice decide what becomes of a datagram: those of links, of frames, of a session's other ways each have their own.
fn kind(datagram: &[u8]) -> usize {
    match Header::decode(datagram) {
        Some(Header {
            kind: Type::Data,
            lane,
            ..
        }) => match lane {
            // Frames and control of whatever slot.
            0..12 => 1 + usize::from(lane % 2),
            lane => usize::from(lane) - 9,
        },
        Some(_) | None => 0,
    }
}

/// What becomes of a dial.
pub(crate) enum Reach {
    /// It gets to a host, which sees this address.
    Host(NodeIndex, IpAddr),
    /// A NAT drops it.
    Nat,
    /// There is no such address.
    Nowhere,
}

impl Sim {
    /// Builds a NAT.
    pub fn add_nat(&mut self, spec: NatSpec) -> NatIndex {
        let [.., number] = (self.nats.len() + 1).to_be_bytes();
        let outer = match spec.around {
            None => Ipv4Addr::new(198, 51, 100, number),
            Some(_) => Ipv4Addr::new(100, 64, 0, number), // RFC 6598
        };
        self.nats.push(Nat::new(spec, outer.into()));
        NatIndex(self.nats.len() - 1)
    }

    /// Changes how long a NAT remembers, as with another firmware; what it has lives on by the new rule.
    pub fn set_nat_idle(&mut self, NatIndex(number): NatIndex, idle: Duration) {
        self.nats[number].spec.idle = idle;
    }

    /// Makes a NAT forget every mapping, as a box does that lost its power.
    pub fn forget_nat(&mut self, NatIndex(number): NatIndex) {
        self.nats[number].forget();
    }

    /// Sends a datagram.
    pub(crate) fn udp(&mut self, from: NodeIndex, to: SocketAddr, datagram: Vec<u8>) {
        let size = datagram.len() + UDP_HEADERS;
        let node = &mut self.nodes[from.0];
        node.sent.udp += size as u64;
        let (realm, source) = (node.realm, node.address);
        let Some((realm, source)) = self.climb(realm, source, to) else {
            return;
        };
        let copies = match self.owner(realm, to) {
            Some(target) => {
                let line = self.weather.between(from, target);
                if size > usize::from(line.mtu) {
                    let hint = What::TooBig(TooBig {
                        to,
                        mtu: line.mtu.into(),
                        refused: None,
                    });
                    return if line.icmp && !self.weather.is_udp_blocked(from, target) {
                        let took = line.delay;
                        self.later(took, from, hint);
                    };
                }
                let mut dice = self.throw(Purpose::Datagram, [from.0, target.0, kind(&datagram)]);
                self.weather.datagram(from, target, &mut dice)
            }
            None => vec![(self.weather.common.delay, true)],
        };
        for (took, intact) in copies {
            let mut datagram = datagram.clone();
            if !intact && let Some(last) = datagram.last_mut() {
                *last ^= 1;
            }
            self.later_to_nobody(
                took,
                What::Packet {
                    realm,
                    from: source,
                    to,
                    datagram,
                },
            );
        }
    }

    /// A datagram is where its destination is.
    pub(crate) fn packet(
        &mut self,
        realm: Realm,
        from: SocketAddr,
        to: SocketAddr,
        datagram: &[u8],
    ) {
        if let Some(index) = self.descend(realm, from, to) {
            self.arrive(index, from, datagram);
        }
    }

    /// Where a dial leads.
    pub(crate) fn reach(&self, from: NodeIndex, to: SocketAddr) -> Reach {
        let (mut realm, mut source) = (self.node(from).realm, self.node(from).address.ip());
        while !self.is_in(realm, to.ip()) {
            let Some(NatIndex(number)) = realm else {
                return Reach::Nowhere;
            };
            let nat = &self.nats[number];
            (realm, source) = (nat.spec.around, nat.outer);
        }
        let host = |node: &Node| node.realm == realm && node.address == to;
        match self.nodes.iter().position(host) {
            Some(number) => Reach::Host(NodeIndex(number), source),
            None if self.nat_at(realm, to.ip()).is_some() => Reach::Nat,
            None => Reach::Nowhere,
        }
    }

    /// Counts what a connection carries.
    pub(crate) fn count_tcp(&mut self, from: NodeIndex, to: NodeIndex, bytes: usize) {
        let bytes = bytes as u64;
        self.nodes[from.0].sent.tcp += bytes + bytes.div_ceil(SEGMENT) * TCP_HEADERS;
        // Every second segment is acknowledged, one alone is too.
        self.nodes[to.0].sent.tcp += bytes.div_ceil(2 * SEGMENT) * TCP_HEADERS;
    }

    /// Takes a datagram out to where its destination is: there, and what its source has become.
    fn climb(
        &mut self,
        mut realm: Realm,
        mut source: SocketAddr,
        to: SocketAddr,
    ) -> Option<(Realm, SocketAddr)> {
        let mut left = None;
        while !self.is_in(realm, to.ip()) {
            let NatIndex(number) = realm?;
            let now = self.elapsed();
            let mut dice = self.throw(Purpose::Port, [number, 0, 0]);
            let nat = &mut self.nats[number];
            source = nat.outward(source, to, &mut dice, now);
            (left, realm) = (Some(number), nat.spec.around);
        }
        let turned = left.filter(|&number| self.nats[number].outer == to.ip());
        let passes = turned.is_none_or(|number| self.nats[number].spec.hairpin);
        passes.then_some((realm, source))
    }

    fn descend(&self, mut realm: Realm, from: SocketAddr, mut to: SocketAddr) -> Option<NodeIndex> {
        loop {
            if let Some(host) = self.host_at(realm, to) {
                return Some(host);
            }
            let inside = self.nat_at(realm, to.ip())?;
            to = self.nats[inside.0].inward(from, to.port(), self.elapsed())?;
            realm = Some(inside);
        }
    }

    /// Whose an address is, whoever may send there.
    fn owner(&self, mut realm: Realm, mut to: SocketAddr) -> Option<NodeIndex> {
        loop {
            if let Some(host) = self.host_at(realm, to) {
                return Some(host);
            }
            let inside = self.nat_at(realm, to.ip())?;
            to = self.nats[inside.0].owner(to.port(), self.elapsed())?;
            realm = Some(inside);
        }
    }

    fn is_in(&self, realm: Realm, ip: IpAddr) -> bool {
        self.nodes
            .iter()
            .any(|node| node.realm == realm && node.address.ip() == ip)
            || self.nat_at(realm, ip).is_some()
    }

    fn host_at(&self, realm: Realm, to: SocketAddr) -> Option<NodeIndex> {
        let host = |node: &Node| node.realm == realm && node.address == to;
        self.nodes.iter().position(host).map(NodeIndex)
    }

    fn nat_at(&self, realm: Realm, ip: IpAddr) -> Option<NatIndex> {
        let here = |nat: &Nat| nat.spec.around == realm && nat.outer == ip;
        self.nats.iter().position(here).map(NatIndex)
    }
}
