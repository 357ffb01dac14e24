//! Remembers who inside is known outside by which port, and who outside may answer.
//!
//! ```text
//!   kind                who shares a mapping                who may answer it
//!   full cone           everything from one inside port     anybody
//!   address-restricted  the same                            every port of an address that was sent to
//!   port-restricted     the same                            address and port that were sent to
//!   symmetric           one inside port, one destination    that destination
//! ```
//!
//! The words of RFC 3489 §5; in those of RFC 4787: mapping is endpoint-independent but for the last, filtering is
//! endpoint-independent, address-dependent, and address and port-dependent. TCP is mapped alike, but whoever was not
//! sent to may never answer, as a listener inside is reached through no translator. Of ICMP, echoes have an identifier
//! in place of the inside port and none outside.
//!
//! **Invariant.** Only what goes out keeps a mapping alive (RFC 4787 §4.3 demands no more). Pure: time comes in.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use super::profile::{Kind, NatProfile};
use crate::shaper::Chance;

/// Ports that are given away: those of RFC 6056 §3.2, which no service has by right.
const FIRST_PORT: u16 = 1024;

impl Kind {
    /// All of them, the most open first.
    pub const ALL: [Self; 4] = [
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Symmetric,
    ];
}

/// What is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    Echo,
    Tcp,
    Udp,
}

/// The mappings of one translator.
#[derive(Debug)]
pub(super) struct Table {
    chance: Chance,
    inside: BTreeMap<Inside, u16>,
    outside: BTreeMap<(Protocol, u16), Mapping>,
    profile: NatProfile,
}

/// Who shares a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Inside {
    protocol: Protocol,
    host: SocketAddrV4,
    /// Only where each destination has a mapping of its own.
    remote: Option<SocketAddrV4>,
}

#[derive(Debug)]
struct Mapping {
    inside: Inside,
    /// Whom it was sent to, and until when they may answer.
    sent_to: BTreeMap<SocketAddrV4, Instant>,
}

impl Table {
    pub(super) fn new(seed: u64, profile: NatProfile) -> Self {
        Self {
            chance: Chance(seed),
            inside: BTreeMap::new(),
            outside: BTreeMap::new(),
            profile,
        }
    }

    /// Returns the port by which the outside shall know the sender; nothing if there is none left.
    pub(super) fn out(
        &mut self,
        protocol: Protocol,
        from: SocketAddrV4,
        to: SocketAddrV4,
        now: Instant,
    ) -> Option<u16> {
        let inside = self.key(protocol, from, to);
        let known = self.inside.get(&inside).copied();
        let alive = known.filter(|&port| self.alive((protocol, port), now));
        let port = match alive {
            Some(port) => port,
            None => self.open(inside, now)?,
        };
        let until = now + self.idle(protocol);
        let mapping = self.outside.get_mut(&(protocol, port))?;
        if mapping.sent_to.insert(to, until).is_none() {
            mapping.sent_to.retain(|_, until| *until > now);
        }
        Some(port)
    }

    /// Returns who inside is known by a port, if the sender may answer it.
    pub(super) fn back(
        &self,
        protocol: Protocol,
        port: u16,
        from: SocketAddrV4,
        now: Instant,
    ) -> Option<SocketAddrV4> {
        let mapping = self.outside.get(&(protocol, port))?;
        let mut live = mapping
            .sent_to
            .iter()
            .filter(|&(_, &until)| until > now)
            .map(|(&remote, _)| remote);
        let may = match (protocol, self.profile.kind) {
            (Protocol::Udp, Kind::FullCone) => live.next().is_some(),
            (Protocol::Udp, Kind::AddressRestricted) | (Protocol::Echo, _) => {
                live.any(|remote| remote.ip() == from.ip())
            }
            (Protocol::Udp, Kind::PortRestricted | Kind::Symmetric) | (Protocol::Tcp, _) => {
                live.any(|remote| remote == from)
            }
        };
        may.then_some(mapping.inside.host)
    }

    /// Returns the port by which somebody inside is known to a remote, without keeping the mapping alive.
    pub(super) fn known_as(
        &self,
        protocol: Protocol,
        host: SocketAddrV4,
        remote: SocketAddrV4,
        now: Instant,
    ) -> Option<u16> {
        let port = *self.inside.get(&self.key(protocol, host, remote))?;
        self.alive((protocol, port), now).then_some(port)
    }

    /// Returns how many mappings are alive.
    pub(super) fn len(&self, now: Instant) -> usize {
        let keys = self.outside.keys();
        keys.filter(|&&key| self.alive(key, now)).count()
    }

    /// Forgets everything, as a box does that lost its power.
    pub(super) fn clear(&mut self) {
        self.inside.clear();
        self.outside.clear();
    }

    fn key(&self, protocol: Protocol, host: SocketAddrV4, remote: SocketAddrV4) -> Inside {
        let own = self.profile.kind == Kind::Symmetric;
        Inside {
            protocol,
            host,
            remote: own.then_some(remote),
        }
    }

    fn alive(&self, key: (Protocol, u16), now: Instant) -> bool {
        let mapping = self.outside.get(&key);
        mapping.is_some_and(|mapping| mapping.sent_to.values().any(|&until| until > now))
    }

    fn open(&mut self, inside: Inside, now: Instant) -> Option<u16> {
        let wanted = inside.host.port();
        let span = u64::from(u16::MAX - FIRST_PORT) + 1;
        let start = self.chance.next() % span;
        let free = |port: u16| !self.alive((inside.protocol, port), now);
        let port = if self.profile.preserves_ports && free(wanted) {
            wanted
        } else {
            (0..span)
                .filter_map(|step| u16::try_from((start + step) % span).ok())
                .map(|offset| FIRST_PORT + offset)
                .find(|&port| free(port))?
        };
        // Whoever had the port before is known by it no more.
        let mapping = Mapping {
            inside,
            sent_to: BTreeMap::new(),
        };
        if let Some(before) = self.outside.insert((inside.protocol, port), mapping)
            && self.inside.get(&before.inside) == Some(&port)
        {
            self.inside.remove(&before.inside);
        }
        self.inside.insert(inside, port);
        Some(port)
    }

    fn idle(&self, protocol: Protocol) -> Duration {
        match protocol {
            Protocol::Echo => self.profile.echo_idle,
            Protocol::Tcp => self.profile.tcp_idle,
            Protocol::Udp => self.profile.udp_idle,
        }
    }
}

/// Makes an address with a port shorter to write.
pub(super) const fn socket(ip: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(ip, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: SocketAddrV4 = socket(Ipv4Addr::new(192, 168, 1, 1), 4000);
    const NEIGHBOUR: SocketAddrV4 = socket(Ipv4Addr::new(192, 168, 1, 2), 4000);

    fn remote(number: u8, port: u16) -> SocketAddrV4 {
        socket(Ipv4Addr::new(192, 0, 2, number), port)
    }

    fn table(profile: NatProfile) -> (Table, Instant) {
        (Table::new(1, profile), Instant::now())
    }

    #[test]
    fn each_kind_lets_those_answer_whom_it_names() {
        let expected = [
            (Kind::FullCone, [true, true, true]),
            (Kind::AddressRestricted, [true, true, false]),
            (Kind::PortRestricted, [true, false, false]),
            (Kind::Symmetric, [true, false, false]),
        ];
        for (kind, expected) in expected {
            let (mut table, now) = table(NatProfile::new(kind));
            let udp = Protocol::Udp;

            let port = table.out(udp, HOST, remote(7, 5000), now).unwrap();

            let answers = [remote(7, 5000), remote(7, 5001), remote(8, 5000)]
                .map(|from| table.back(udp, port, from, now) == Some(HOST));
            assert_eq!(answers, expected, "{kind:?}");
            assert_eq!(table.back(udp, port + 1, remote(7, 5000), now), None);
        }
    }

    #[test]
    fn only_a_symmetric_one_shows_every_destination_another_port() {
        for kind in Kind::ALL {
            let (mut table, now) = table(NatProfile::new(kind));
            let mut out = |to| table.out(Protocol::Udp, HOST, to, now).unwrap();

            let (one, again) = (out(remote(7, 5000)), out(remote(7, 5000)));
            let others = [out(remote(7, 5001)), out(remote(8, 5000))];

            assert_eq!(one, again);
            let differ = others.iter().all(|&other| other != one);
            assert_eq!(differ, kind == Kind::Symmetric, "{kind:?}");
        }
    }

    #[test]
    fn a_stranger_never_opens_a_stream_inwards() {
        for kind in Kind::ALL {
            let (mut table, now) = table(NatProfile::new(kind));

            let port = table.out(Protocol::Tcp, HOST, remote(7, 80), now).unwrap();

            let back = |from| table.back(Protocol::Tcp, port, from, now);
            assert_eq!(back(remote(7, 80)), Some(HOST));
            assert_eq!((back(remote(7, 81)), back(remote(8, 80))), (None, None));
            assert_eq!(table.back(Protocol::Udp, port, remote(7, 80), now), None);
        }
    }

    #[test]
    fn only_what_goes_out_keeps_a_mapping_alive() {
        let (mut table, now) = table(NatProfile::default());
        let idle = NatProfile::default().udp_idle;
        let udp = Protocol::Udp;
        let port = table.out(udp, HOST, remote(7, 5000), now).unwrap();

        let again = now + idle / 2;
        assert_eq!(table.back(udp, port, remote(7, 5000), again), Some(HOST));
        table.out(udp, HOST, remote(8, 5000), again).unwrap();

        // The second destination was refreshed later than the first.
        let late = now + idle;
        assert_eq!(table.back(udp, port, remote(7, 5000), late), None);
        assert_eq!(table.back(udp, port, remote(8, 5000), late), Some(HOST));
        assert_eq!((table.len(late), table.len(again + idle)), (1, 0));
        let other = table.out(udp, HOST, remote(7, 5000), again + idle).unwrap();
        assert_ne!(other, port);
    }

    #[test]
    fn a_kept_port_is_the_hosts_own_while_it_is_free() {
        let (mut table, now) = table(NatProfile {
            preserves_ports: true,
            ..NatProfile::default()
        });
        let mut out = |host, now| table.out(Protocol::Udp, host, remote(7, 5000), now);

        let first = out(HOST, now).unwrap();
        let second = out(NEIGHBOUR, now).unwrap();
        let later = now + NatProfile::default().udp_idle;
        let third = out(NEIGHBOUR, later).unwrap();

        assert_eq!(first, 4000);
        assert_ne!(second, 4000);
        assert_eq!(third, 4000);
        let udp = Protocol::Udp;
        assert_eq!(
            table.back(udp, 4000, remote(7, 5000), later),
            Some(NEIGHBOUR)
        );
        assert_eq!(table.known_as(udp, HOST, remote(7, 5000), later), None);
    }

    #[test]
    fn no_port_is_given_twice() {
        const MANY: u16 = 20_000;
        let (mut table, now) = table(NatProfile::new(Kind::Symmetric));
        let mut ports: Vec<u16> = (0..MANY)
            .map(|n| table.out(Protocol::Udp, HOST, remote(7, n), now).unwrap())
            .collect();

        ports.sort_unstable();
        ports.dedup();

        assert_eq!((ports.len(), table.len(now)), (MANY.into(), MANY.into()));
        assert!(ports[0] >= FIRST_PORT);
        table.clear();
        assert_eq!(table.len(now), 0);
    }
}
