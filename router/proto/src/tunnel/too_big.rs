//! Judges what hosts and routers say of datagrams that were too large for them (RFC 792, RFC 4443).
//!
//! **Invariant.** What a router says is heard of addresses in use only: anybody may have written it. The same is said
//! once a second, and few things at all.

use std::net::SocketAddr;
use std::time::Instant;

use arrayvec::ArrayVec;

use super::said::is_due;
use super::view::View;
use crate::overlay::Via;

/// How many hints about sizes are given in a second: of as many peers.
const MAX_HINTS: usize = 16;

/// What was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooBig {
    /// Where the datagram was sent to; the port is zero where that is not known.
    pub to: SocketAddr,
    /// The largest IP packet that passes.
    pub mtu: u32,
    /// Where a datagram was sent to just now that was too large for this host's own device, which says so.
    pub refused: Option<SocketAddr>,
}

impl TooBig {
    /// The address that this is about, and the largest UDP payload that is said to pass there; nothing if it is not to be
    /// believed.
    pub fn believed(self, view: &View) -> Option<(SocketAddr, u16)> {
        let Self { to, mtu, refused } = self;
        let in_use = view.snapshot.peers.iter().filter_map(|peer| {
            let path = peer.path?;
            match path.via {
                Via::Direct(to) => Some(to),
                Via::Control | Via::Relay(_) => None,
            }
        });
        let to = refused
            .filter(|refused| refused.ip() == to.ip())
            .into_iter()
            .chain(in_use)
            .find(|known| known.ip() == to.ip() && (to.port() == 0 || to.port() == known.port()))?;
        let (headers, least) = match to {
            SocketAddr::V4(_) => (28, 68),   // RFC 791 §3.2
            SocketAddr::V6(_) => (48, 1280), // RFC 8200 §5
        };
        let datagram = u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX);
        (mtu >= least).then_some((to, datagram))
    }
}

/// The largest datagrams that were reported of late.
#[derive(Default)]
pub struct Hints {
    said: ArrayVec<(SocketAddr, u16, Instant), MAX_HINTS>,
}

impl Hints {
    /// Whether this is to be reported.
    pub fn are_news(&mut self, to: SocketAddr, datagram: u16, now: Instant) -> bool {
        self.said.retain(|(_, _, at)| !is_due(Some(*at), now));
        let said = |(whom, what, _): &(SocketAddr, u16, Instant)| (*whom, *what) == (to, datagram);
        !self.said.iter().any(said) && self.said.try_push((to, datagram, now)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use weft_types::NodeId;

    use super::*;
    use crate::tunnel::testing::{origin, snapshot};

    const PEER: SocketAddr = SocketAddr::new(
        std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
        6783,
    );

    fn at(port: u16) -> SocketAddr {
        SocketAddr::new(PEER.ip(), port)
    }

    fn believed(
        to: SocketAddr,
        mtu: u32,
        refused: Option<SocketAddr>,
    ) -> Option<(SocketAddr, u16)> {
        let us = NodeId::new([1; 32]);
        let path = (NodeId::new([2; 32]), Via::Direct(PEER));
        let view = View::new(Arc::new(snapshot(us, &[path], 1472)));
        TooBig { to, mtu, refused }.believed(&view)
    }

    #[test]
    fn a_router_is_heard_of_addresses_in_use_only() {
        assert_eq!(believed(PEER, 1400, None), Some((PEER, 1372)));
        assert_eq!(believed(at(0), 1400, None), Some((PEER, 1372)));
        assert_eq!(believed(at(7), 1400, None), None);
        assert_eq!(believed(([192, 0, 2, 9], 6783).into(), 1400, None), None);
        assert_eq!(believed(PEER, 67, None), None, "no IPv4 link has it");
    }

    #[test]
    fn this_host_is_heard_of_whatever_it_refused() {
        let other = SocketAddr::from(([192, 0, 2, 9], 9));

        assert_eq!(believed(other, 1400, Some(other)), Some((other, 1372)));
        assert_eq!(believed(other, 1400, Some(PEER)), None);
    }

    #[test]
    fn the_same_is_said_once_a_second_and_few_things_at_all() {
        let start = origin();
        let mut hints = Hints::default();
        let second = Duration::from_secs(1);

        assert!(hints.are_news(PEER, 1372, start));
        assert!(!hints.are_news(PEER, 1372, start + second / 2));
        assert!(hints.are_news(PEER, 1300, start + second / 2));
        assert!(hints.are_news(PEER, 1372, start + second));
        let news = (0..100).filter(|&port| hints.are_news(at(port), 1372, start + second));
        assert_eq!(news.count(), MAX_HINTS - 2);
    }
}
