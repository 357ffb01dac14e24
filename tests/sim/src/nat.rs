//! Translates addresses between a site and what is around it, as routers at homes, offices and carriers do.
//!
//! ```text
//!   host ── site ──[NAT]── carrier ──[NAT]── the open network ──[NAT]── site ── host
//! ```
//!
//! A [`Realm`] is what shares one set of addresses: the open network, or the inside of one NAT. A packet climbs from realm
//! to realm until it is where its destination is, and descends from there. Kinds are those of RFC 3489 §5, which are
//! combinations of RFC 4787's mapping and filtering.
//!
//! **Invariant.** What comes from outside gets in only by a mapping that something from inside has made and kept alive.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::dice::Dice;

/// Names a NAT of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NatIndex(pub usize);

/// What shares one set of addresses: the inside of a NAT, or the open network.
pub type Realm = Option<NatIndex>;

/// How a NAT maps and filters datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NatKind {
    /// One mapping per inner address; anybody may use it.
    FullCone,
    /// One mapping per inner address; addresses that were sent to may use it.
    Restricted,
    /// One mapping per inner address; addresses and ports that were sent to may use it.
    PortRestricted,
    /// One mapping per inner address and destination; only that may use it.
    Symmetric,
}

impl NatKind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::FullCone,
        Self::Restricted,
        Self::PortRestricted,
        Self::Symmetric,
    ];
}

/// A NAT, as one buys it.
#[derive(Clone, Copy, Debug)]
pub struct NatSpec {
    /// How it maps and filters.
    pub kind: NatKind,
    /// Whether a host inside reaches another one inside by its outer address.
    pub hairpin: bool,
    /// How long a mapping lives that nothing is sent by.
    pub idle: Duration,
    /// What it stands in: behind another one it is one of two.
    pub around: Realm,
}

impl NatSpec {
    /// One in the open network that forgets after half a minute and turns nothing around: a plain home router.
    pub const fn home(kind: NatKind) -> Self {
        Self {
            kind,
            hairpin: false,
            idle: Duration::from_secs(30),
            around: None,
        }
    }
}

/// A NAT at work.
#[derive(Debug)]
pub(crate) struct Nat {
    pub(crate) spec: NatSpec,
    /// Its address in what is around it.
    pub(crate) outer: IpAddr,
    mappings: Vec<Mapping>,
}

#[derive(Debug)]
struct Mapping {
    inner: SocketAddr,
    /// For a symmetric NAT: whom it is for.
    only: Option<SocketAddr>,
    port: u16,
    /// When something was last sent to whom.
    sent: BTreeMap<SocketAddr, Duration>,
}

impl Mapping {
    fn is_alive(&self, idle: Duration, now: Duration) -> bool {
        self.sent.values().any(|&at| now <= at + idle)
    }
}

impl Nat {
    pub(crate) const fn new(spec: NatSpec, outer: IpAddr) -> Self {
        Self {
            spec,
            outer,
            mappings: Vec::new(),
        }
    }

    pub(crate) fn forget(&mut self) {
        self.mappings.clear();
    }

    /// What a datagram's source becomes on its way out.
    pub(crate) fn outward(
        &mut self,
        inner: SocketAddr,
        to: SocketAddr,
        dice: &mut Dice,
        now: Duration,
    ) -> SocketAddr {
        let (idle, outer) = (self.spec.idle, self.outer);
        self.mappings.retain(|mapping| mapping.is_alive(idle, now));
        let only = (self.spec.kind == NatKind::Symmetric).then_some(to);
        let found = self
            .mappings
            .iter()
            .position(|mapping| (mapping.inner, mapping.only) == (inner, only));
        let at = found.unwrap_or_else(|| {
            let port = self.free_port(inner.port(), only.is_some(), dice);
            self.mappings.push(Mapping {
                inner,
                only,
                port,
                sent: BTreeMap::new(),
            });
            self.mappings.len() - 1
        });
        let mapping = &mut self.mappings[at];
        mapping.sent.insert(to, now);
        SocketAddr::new(outer, mapping.port)
    }

    /// A symmetric NAT's ports cannot be guessed; others keep a host's own where they can.
    fn free_port(&self, wanted: u16, random: bool, dice: &mut Dice) -> u16 {
        let taken = |port| self.mappings.iter().any(|mapping| mapping.port == port);
        let mut port = wanted;
        while taken(port) || (random && port == wanted) {
            port = 20_000 + u16::try_from(dice.below(40_000)).unwrap_or_default();
        }
        port
    }

    /// What a datagram's destination becomes on its way in; `None` where nothing may get in.
    pub(crate) fn inward(&self, from: SocketAddr, port: u16, now: Duration) -> Option<SocketAddr> {
        let mapping = self.mapping(port, now)?;
        let fresh = |&at: &Duration| now <= at + self.spec.idle;
        let may = match self.spec.kind {
            NatKind::FullCone => true,
            NatKind::Restricted => mapping
                .sent
                .iter()
                .any(|(to, at)| to.ip() == from.ip() && fresh(at)),
            NatKind::PortRestricted => mapping.sent.get(&from).is_some_and(fresh),
            NatKind::Symmetric => mapping.only == Some(from),
        };
        may.then_some(mapping.inner)
    }

    /// Whose a port is, whoever may send there.
    pub(crate) fn owner(&self, port: u16, now: Duration) -> Option<SocketAddr> {
        self.mapping(port, now).map(|mapping| mapping.inner)
    }

    fn mapping(&self, port: u16, now: Duration) -> Option<&Mapping> {
        self.mappings
            .iter()
            .find(|mapping| mapping.port == port && mapping.is_alive(self.spec.idle, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// A NAT by which the host inside has sent to one other, and by which address.
    fn sent(kind: NatKind) -> (Nat, SocketAddr) {
        let mut nat = Nat::new(NatSpec::home(kind), address("198.51.100.1:0").ip());
        let outer = nat.outward(
            address("10.0.0.2:6783"),
            address("203.0.113.1:6783"),
            &mut Dice::new(1),
            Duration::ZERO,
        );
        (nat, outer)
    }

    #[test]
    fn each_kind_lets_in_whom_it_says() {
        let others = ["203.0.113.1:6783", "203.0.113.1:9", "203.0.113.9:6783"].map(address);

        let let_in = NatKind::ALL.map(|kind| {
            let (nat, outer) = sent(kind);
            others.map(|from| nat.inward(from, outer.port(), SECOND).is_some())
        });

        assert_eq!(
            let_in,
            [
                [true, true, true],
                [true, true, false],
                [true, false, false],
                [true, false, false]
            ]
        );
    }

    #[test]
    fn only_a_symmetric_one_has_another_port_for_each_destination() {
        for kind in NatKind::ALL {
            let (mut nat, first) = sent(kind);

            let second = nat.outward(
                address("10.0.0.2:6783"),
                address("203.0.113.9:6783"),
                &mut Dice::new(2),
                SECOND,
            );

            assert_eq!(first == second, kind != NatKind::Symmetric, "{kind:?}");
        }
    }

    #[test]
    fn a_mapping_that_nothing_is_sent_by_is_forgotten() {
        for kind in NatKind::ALL {
            let (nat, outer) = sent(kind);
            let from = address("203.0.113.1:6783");

            assert!(nat.inward(from, outer.port(), 30 * SECOND).is_some());
            assert!(nat.inward(from, outer.port(), 31 * SECOND).is_none());
        }
    }
}
