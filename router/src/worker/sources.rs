//! Answers peers from the address of this host that they ask, where the routing table likes another.
//!
//! A host with several providers has an address of each. A firewall or a translator before a peer lets an answer through
//! that comes from where the question went, and a provider may drop what carries an address of another.
//!
//! **Invariant.** While several addresses are asked by one peer the one in use stays. Where the routing table agrees nothing is
//! kept: a host with one address pays one load for each send.
//! **Failure policy.** An address that this host has lost is forgotten, and so is one at which nobody has asked for [`KEEP`]: then
//! the routing table decides.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use weft_kernel::udp::UdpSocket;

/// How long an address is answered from at which nobody asks any more: a peer is heard each second, or its heartbeats are.
const KEEP: Duration = Duration::from_secs(4);
/// How long what the routing table said is believed.
const BELIEVE: Duration = Duration::from_secs(1);
/// Of how many addresses that is kept: more than a large mesh has.
const MAX_USUAL: usize = 4096;

/// From which addresses of this host peers are spoken to.
#[derive(Default)]
pub(super) struct Sources {
    /// Those that the routing table would choose others for.
    pinned: ArcSwap<BTreeMap<SocketAddr, IpAddr>>,
    are_pinned: AtomicBool,
    /// Locked once a second for each peer, never for what is sent.
    asked: Mutex<BTreeMap<SocketAddr, Asked>>,
    usual: Mutex<BTreeMap<SocketAddr, (Instant, Option<IpAddr>)>>,
}

/// Where a peer asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    at: IpAddr,
    last: Instant,
    pinned: bool,
}

impl Sources {
    /// An authentic datagram of a peer came to an address of this host.
    pub(super) fn note(&self, peer: SocketAddr, at: IpAddr, now: Instant) {
        let pinned = self.usual(peer, now) != Some(at);
        self.take(
            peer,
            Asked {
                at,
                last: now,
                pinned,
            },
        );
    }

    fn take(&self, peer: SocketAddr, asked: Asked) {
        let mut all = lock(&self.asked);
        let before = all.get(&peer).copied();
        let other = before.filter(|it| it.at != asked.at);
        if asked.at.is_multicast() || other.is_some_and(|it| it.last + KEEP > asked.last) {
            return;
        }
        all.insert(peer, asked);
        if before.map(|it| (it.at, it.pinned)) != Some((asked.at, asked.pinned)) {
            self.publish(&all);
        }
    }

    /// Forgets the addresses at which nobody asks any more.
    pub(super) fn forget(&self, now: Instant) {
        self.forget_if(|_, asked| asked.last + KEEP <= now);
    }

    fn forget_if(&self, is_gone: impl Fn(&SocketAddr, &Asked) -> bool) {
        let mut all = lock(&self.asked);
        let gone = all.extract_if(.., |peer, asked| is_gone(peer, asked));
        if gone.filter(|(_, asked)| asked.pinned).count() > 0 {
            self.publish(&all);
        }
    }

    fn publish(&self, all: &BTreeMap<SocketAddr, Asked>) {
        let pinned = all.iter().filter(|(_, asked)| asked.pinned);
        let pinned: BTreeMap<SocketAddr, IpAddr> =
            pinned.map(|(&peer, asked)| (peer, asked.at)).collect();
        self.are_pinned.store(!pinned.is_empty(), Ordering::Release);
        self.pinned.store(pinned.into());
    }

    /// From which address to speak to a peer; `None` leaves it to the routing table.
    fn towards(&self, peer: SocketAddr) -> Option<IpAddr> {
        if !self.are_pinned.load(Ordering::Acquire) {
            return None;
        }
        self.pinned.load().get(&peer).copied()
    }

    /// Sends from an address of this host: the one that was asked just now, or of late.
    pub(super) fn send(
        &self,
        (socket, asked): (&UdpSocket, Option<IpAddr>),
        to: SocketAddr,
        datagrams: &[IoSlice<'_>],
        size: Option<u16>,
    ) -> io::Result<()> {
        let Some(from) = asked.or_else(|| self.towards(to)) else {
            return socket.send_segments(to, datagrams, size);
        };
        match socket.send_segments_from(Some(from), to, datagrams, size) {
            Err(error) if is_about_source(&error) => {
                self.forget_if(|&peer, it| (peer, it.at) == (to, from));
                socket.send_segments(to, datagrams, size)
            }
            sent => sent,
        }
    }

    /// From which address of this host the routing table sends to another.
    pub(super) fn usual(&self, to: SocketAddr, now: Instant) -> Option<IpAddr> {
        let mut known = lock(&self.usual);
        if let Some(&(asked, from)) = known.get(&to)
            && now < asked + BELIEVE
        {
            return from;
        }
        if known.len() == MAX_USUAL {
            known.clear();
        }
        let from = look_up(to);
        known.insert(to, (now, from));
        from
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a call may have failed for the address that it named: the host has it no more, or no route from it.
fn is_about_source(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EADDRNOTAVAIL | libc::ENETUNREACH | libc::EHOSTUNREACH)
    )
}

/// Asks the kernel from where it would send to an address. Nothing is sent.
fn look_up(to: SocketAddr) -> Option<IpAddr> {
    let any = match to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = std::net::UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use weft_kernel::udp::UdpOptions;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn peer() -> SocketAddr {
        "127.0.0.1:6783".parse().unwrap()
    }

    #[test]
    fn an_address_that_the_routing_table_would_not_choose_is_answered_from_while_it_is_asked() {
        let (sources, now) = (Sources::default(), Instant::now());

        sources.note(peer(), ip("127.0.0.1"), now);
        assert_eq!(sources.towards(peer()), None, "the routing table agrees");

        let later = now + KEEP;
        sources.note(peer(), ip("127.0.0.7"), later);
        assert_eq!(sources.towards(peer()), Some(ip("127.0.0.7")));
        sources.note(peer(), ip("127.0.0.8"), later + KEEP / 2);
        assert_eq!(sources.towards(peer()), Some(ip("127.0.0.7")), "it stays");

        sources.forget(later + KEEP);
        assert_eq!(sources.towards(peer()), None);
    }

    #[test]
    fn an_address_that_this_host_has_lost_is_not_insisted_on() {
        let any = "127.0.0.1:0".parse().unwrap();
        let open = || UdpSocket::bind(any, UdpOptions::default()).unwrap();
        let (socket, other) = (open(), open());
        let (sources, to) = (Sources::default(), other.local_addr());
        sources.note(to, ip("192.0.2.77"), Instant::now());
        assert_eq!(sources.towards(to), Some(ip("192.0.2.77")));

        let sent = sources.send((&socket, None), to, &[IoSlice::new(b"!")], None);

        assert!(sent.is_ok(), "{sent:?}");
        assert_eq!(sources.towards(to), None);
    }
}
