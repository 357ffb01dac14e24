//! One member that we hold a connection to.

use std::net::SocketAddr;
use std::time::Instant;

use weft_types::Boot;

use crate::connection::{self, Carrier};
use crate::gossip::exchange::Exchange;
use crate::gossip::registers::RegisterDelta;
use crate::io::ConnId;
use crate::membership::MembershipDelta;

/// One member that we hold a connection to.
pub(crate) struct Link {
    pub(crate) conn: ConnId,
    pub(crate) boot: Boot,
    pub(crate) since: Instant,
    pub(crate) machine: connection::Link,
    /// Datagrams do not pass, so its frames cannot either.
    pub(crate) udp_silent: bool,
    pub(crate) membership: Exchange<MembershipDelta>,
    pub(crate) registers: Exchange<RegisterDelta>,
    /// Where datagrams go until the machine knows better.
    pub(super) announced: SocketAddr,
    /// Where the member sees our datagrams come from.
    pub(super) observed: Option<SocketAddr>,
}

impl Link {
    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let exchanges = [
            self.membership.poll_timeout(),
            self.registers.poll_timeout(),
        ];
        exchanges
            .into_iter()
            .chain(self.machine.poll_timeout())
            .min()
    }

    /// Where the member's datagrams go to and come from.
    pub(crate) fn endpoint(&self) -> SocketAddr {
        self.machine.endpoint().unwrap_or(self.announced)
    }

    /// Whether heartbeats travel over TCP, for want of datagrams that pass.
    pub(crate) fn is_by_tcp(&self) -> bool {
        self.udp_silent && self.passes_no_datagrams()
    }

    /// Whether no datagram is known to pass at this moment. Said of a young link it is no news yet, so nobody is warned; of
    /// one whose probe was lost it is the reason.
    pub(crate) fn passes_no_datagrams(&self) -> bool {
        self.machine.carrier() == Some(Carrier::ByTcp)
    }

    /// Whether heartbeats travel by datagrams.
    pub(crate) fn is_by_udp(&self) -> bool {
        self.machine.carrier() == Some(Carrier::ByUdp)
    }
}
