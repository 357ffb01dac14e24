//! Carries control connections: listens, dials, reads and writes, and bounds what each may cost.
//!
//! ```text
//!   listener ─┐                                        ┌─▶ Input::{Accepted, Connected, ConnectFailed,
//!   dial ─────┼─▶ events (bounded) ─▶ hub ─ absorb() ──┤          Received, Sent, Closed}
//!   reader ───┤                        │               └─▶ strangers: who has to go
//!   writer ───┘ ◀── queue (by bytes) ──┴─ send(), close(), connect()
//! ```
//!
//! Each connection is one task with a reader and a writer. A reader has one chunk under way at a time: it reads on when
//! the hub has taken that in, so a busy hub slows peers down by TCP's own window instead of storing what they send.
//! A writer reports what it handed to the kernel, so that the core keeps little unsent; `UNSENT_MAX` is the wall
//! behind that, and running into it ends the connection.
//!
//! **Invariant.** `Closed` or `ConnectFailed` is the last input about a connection, and comes once.
//! **Failure policy.** Every error of a connection ends that connection; an accept that fails is tried again.

mod connection;
mod dial;
mod event;
mod listen;
mod strangers;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use weft_router_proto::io::{ConnId, Input};

use connection::Connection;
pub(crate) use event::TcpEvent;
pub(crate) use listen::{bind, on_each};
use strangers::Strangers;

/// What waits for the hub: small, since each connection adds one chunk at most.
const EVENTS: usize = 256;

/// Counts of what happened to connections, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpCounters {
    /// Connections that came in.
    pub accepted: u64,
    /// Strangers dropped in favour of later ones.
    pub evicted: u64,
    /// Connections closed because too much was unsent.
    pub overflowed: u64,
}

/// Every control connection of this router.
pub(crate) struct Tcp {
    events: mpsc::Sender<TcpEvent>,
    connections: BTreeMap<ConnId, Connection>,
    /// Dials under way.
    dials: BTreeMap<ConnId, tokio::task::AbortHandle>,
    strangers: Strangers,
    accepted: u64,
    counters: TcpCounters,
}

impl Tcp {
    /// Begins to accept on `listeners`. What happens comes out of the receiver and belongs into [`Self::absorb`].
    pub(crate) fn start(
        listeners: Vec<tokio::net::TcpListener>,
    ) -> (Self, mpsc::Receiver<TcpEvent>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        for listener in listeners {
            tokio::spawn(listen::run(listener, events.clone()));
        }
        let tcp = Self {
            events,
            connections: BTreeMap::new(),
            dials: BTreeMap::new(),
            strangers: Strangers::new(weft_kernel::privilege::descriptors()),
            accepted: 0,
            counters: TcpCounters::default(),
        };
        (tcp, receiver)
    }

    /// Turns what happened into inputs for the core, in order.
    pub(crate) fn absorb(&mut self, event: TcpEvent) -> Vec<Input> {
        let input = match event {
            TcpEvent::Accepted { stream, from } => return self.accept(stream, from),
            TcpEvent::Connected { conn, stream } => self.connected(conn, stream),
            TcpEvent::ConnectFailed { conn, why } => {
                let known = self.dials.remove(&conn).is_some();
                known.then_some(Input::ConnectFailed { conn, why })
            }
            TcpEvent::Ended { conn } => self.end(conn),
            TcpEvent::Received {
                conn,
                bytes,
                credit,
            } => {
                drop(credit);
                self.is_open(conn)
                    .then_some(Input::Received { conn, bytes })
            }
            TcpEvent::Sent { conn, bytes } => {
                self.is_open(conn).then_some(Input::Sent { conn, bytes })
            }
        };
        input.into_iter().collect()
    }

    /// Opens a connection; the answer comes as an event within [`dial::LIMIT`].
    pub(crate) fn connect(&mut self, conn: ConnId, to: SocketAddr) {
        let task = tokio::spawn(dial::run(conn, to, self.events.clone()));
        self.dials.insert(conn, task.abort_handle());
    }

    /// Queues bytes. One that owes too much is ended: the returned input says so.
    pub(crate) fn send(&mut self, conn: ConnId, bytes: Vec<u8>) -> Option<Input> {
        let connection = self.connections.get_mut(&conn)?;
        if connection.send(bytes) {
            return None;
        }
        self.counters.overflowed += 1;
        self.end(conn)
    }

    /// Closes a connection after what was sent on it has left. `Closed` follows, here or as an event.
    pub(crate) fn close(&mut self, conn: ConnId) -> Option<Input> {
        if let Some(dial) = self.dials.remove(&conn) {
            dial.abort();
            return Some(Input::Closed { conn });
        }
        if self.connections.get_mut(&conn)?.close() {
            return None;
        }
        self.end(conn)
    }

    /// The other end has proved who it is.
    pub(crate) fn trust(&mut self, conn: ConnId) {
        self.strangers.forget(conn.number);
        if let Some(connection) = self.connections.get(&conn) {
            connection.trust();
        }
    }

    /// Closes every connection and waits until what was sent has left, or `limit` is over.
    pub(crate) async fn shut_down(
        mut self,
        events: &mut mpsc::Receiver<TcpEvent>,
        limit: std::time::Duration,
    ) {
        let all: Vec<ConnId> = self.connections.keys().copied().collect();
        for conn in all {
            self.close(conn);
        }
        let flushed = async {
            while !self.connections.is_empty()
                && let Some(event) = events.recv().await
            {
                if let TcpEvent::Ended { conn } = event {
                    self.end(conn);
                }
            }
        };
        // Whoever does not take the last words in time does without them.
        let _ = tokio::time::timeout(limit, flushed).await;
    }

    pub(crate) fn counters(&self) -> TcpCounters {
        TcpCounters {
            accepted: self.accepted,
            ..self.counters
        }
    }

    fn is_open(&self, conn: ConnId) -> bool {
        self.connections.get(&conn).is_some_and(Connection::is_open)
    }

    fn accept(&mut self, stream: TcpStream, from: SocketAddr) -> Vec<Input> {
        let conn = accepted(self.accepted);
        self.accepted += 1;
        let mut inputs = Vec::new();
        if let Some(number) = self.strangers.admit(conn.number, from.ip()) {
            self.counters.evicted += 1;
            inputs.extend(self.end(accepted(number)));
        }
        self.open(conn, stream, false);
        inputs.push(Input::Accepted { conn, from });
        inputs
    }

    /// A dial came through. Unknown: it was closed while it was dialled, and reported then.
    fn connected(&mut self, conn: ConnId, stream: TcpStream) -> Option<Input> {
        self.dials.remove(&conn)?;
        self.open(conn, stream, true);
        Some(Input::Connected { conn })
    }

    fn open(&mut self, conn: ConnId, stream: TcpStream, trusted: bool) {
        let connection = Connection::start(conn, stream, self.events.clone(), trusted);
        self.connections.insert(conn, connection);
    }

    /// Drops a connection at once, whatever is unsent.
    fn end(&mut self, conn: ConnId) -> Option<Input> {
        if !conn.dialled {
            self.strangers.forget(conn.number);
        }
        self.connections.remove(&conn)?;
        Some(Input::Closed { conn })
    }
}

/// The name of a connection that came in.
const fn accepted(number: u64) -> ConnId {
    ConnId {
        dialled: false,
        number,
    }
}

#[cfg(test)]
mod tests;
