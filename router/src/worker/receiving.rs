//! Receives from the sleeve's port and gives what came to the tunnel's half that opens it.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::Instant;

use weft_kernel::udp::UdpSocket;
use weft_router_proto::tunnel::{Inbound, Order, SessionChange, Turn};

use super::outside::{Came, Outside};
use super::shared::{Mailbox, Shared};

/// The way from the peers to the TAP.
pub(super) struct Receiving {
    shared: Arc<Shared>,
    orders: Arc<Mailbox<Order>>,
    /// To whoever reads the TAP.
    changes: Arc<Mailbox<SessionChange>>,
    tunnel: Inbound,
    /// How what is looked at came.
    came: Option<Came>,
    seen: u64,
}

impl Receiving {
    pub(super) const fn new(
        shared: Arc<Shared>,
        orders: Arc<Mailbox<Order>>,
        changes: Arc<Mailbox<SessionChange>>,
        tunnel: Inbound,
    ) -> Self {
        Self {
            shared,
            orders,
            changes,
            tunnel,
            came: None,
            seen: 0,
        }
    }

    /// Lets the tunnel do something to the world.
    fn drive<T>(&mut self, now: Instant, act: impl FnOnce(&mut Inbound, &mut Turn<'_>) -> T) -> T {
        let mut outside = Outside::new(&self.shared, &self.changes).after(self.came);
        let ports = &mut outside;
        act(&mut self.tunnel, &mut Turn { ports, now })
    }

    /// Follows commands and snapshots.
    pub(super) fn catch_up(&mut self, now: Instant) {
        if let Some(view) = self.shared.news(&mut self.seen) {
            self.drive(now, |tunnel, turn| tunnel.set_view(view, turn));
        }
        for order in self.orders.collect() {
            self.drive(now, |tunnel, turn| tunnel.obey(order, turn));
        }
    }

    /// Takes what came over control connections.
    pub(super) fn take_arrived(&mut self, now: Instant) {
        let arrived = self.shared.arrivals.collect();
        if arrived.is_empty() {
            return;
        }
        // Judged by every order given before it came.
        self.catch_up(now);
        self.drive(now, |tunnel, turn| {
            tunnel.obey(Order::Arrived(arrived), turn);
        });
    }

    /// Takes what one receive yields: how many datagrams, or `None` if nothing was there.
    pub(super) fn receive(&mut self, socket: &UdpSocket, now: Instant) -> Option<usize> {
        let received = self.drive(now, |tunnel, turn| {
            let mut room = [IoSliceMut::new(tunnel.room(turn))];
            // An error is of one datagram that is gone, or of a socket that the next poll tells about.
            socket.recv(&mut room).ok()
        })?;
        // A peer that was told of a session may use it before this burst is over: what came is judged by every order
        // given before it came.
        self.catch_up(now);
        let (from, len, size) = (received.from, received.len, received.segment);
        self.came = received.to.map(|to| Came { from, to });
        let count = self.drive(now, |tunnel, turn| tunnel.received(from, len, size, turn));
        self.came = None;
        Some(count)
    }

    /// Whether a train misses cars that may be on their way.
    pub(super) const fn is_mid_train(&self) -> bool {
        self.tunnel.is_mid_train()
    }

    /// When to call [`Self::handle_timeout`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.tunnel.poll_timeout().map(|(at, _)| at)
    }

    /// Gives up on what did not come, and looks after what waits.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.drive(now, Inbound::handle_timeout);
    }
}
