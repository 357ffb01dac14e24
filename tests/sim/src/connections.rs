//! Connections between hosts: a dial, a knock on the other side, segments in order, and kernels that give up.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use weft_router_proto::io::{ConnId, ConnectError, Input};

use crate::dice::Purpose;
use crate::node::{Connection, NodeIndex, Parcel};
use crate::underlay::Reach;
use crate::world::{Sim, What};

/// How long a kernel keeps trying to deliver before it gives a connection up (TCP_USER_TIMEOUT of the driver).
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a held-back segment is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// How long a dial gets.
const DIAL: Duration = Duration::from_secs(5);

impl Sim {
    pub(crate) fn dial(&mut self, index: NodeIndex, conn: ConnId, to: SocketAddr) {
        self.nodes[index.0].dials.push((self.elapsed, to));
        let failed = |why| What::Input(Input::ConnectFailed { conn, why });
        let common = &self.weather.common;
        let round_trip = 2 * (common.delay + common.jitter);
        let (target, seen) = match self.reach(index, to) {
            Reach::Host(target, seen) => (target, seen),
            Reach::Nat => return self.later(DIAL, index, failed(ConnectError::TimedOut)),
            Reach::Nowhere => {
                return self.later(round_trip, index, failed(ConnectError::Unreachable));
            }
        };
        if self.weather.is_tcp_blocked(index, target) || self.weather.is_tcp_blocked(target, index)
        {
            return self.later(DIAL, index, failed(ConnectError::TimedOut));
        }
        if self.node(target).is_down() {
            return self.later(round_trip, index, failed(ConnectError::Refused));
        }
        let took = self.segment(index, target);
        let knock = What::Knock {
            from: index,
            life: self.node(index).life,
            seen,
            conn,
        };
        self.later(took, target, knock);
        // The listener may die before it hears the knock: the dialler's kernel then gets a reset.
        self.later(DIAL, index, What::Retry { conn });
    }

    pub(crate) fn knock(
        &mut self,
        index: NodeIndex,
        from: NodeIndex,
        seen: IpAddr,
        remote: ConnId,
    ) {
        self.nodes[index.0].accepted += 1;
        let conn = ConnId {
            dialled: false,
            number: self.node(index).accepted,
        };
        let lives = [index, from].map(|n| self.node(n).life);
        let link = |peer, life, remote| Connection {
            peer,
            life,
            remote,
            last: Duration::ZERO,
            stalled: VecDeque::new(),
            stalled_since: None,
        };
        let [theirs, ours] = [link(from, lives[1], remote), link(index, lives[0], conn)];
        self.nodes[index.0].connections.insert(conn, theirs);
        self.nodes[from.0].connections.insert(remote, ours);
        let port = 40_000 + u16::try_from(remote.number % 20_000).unwrap_or_default();
        let address = SocketAddr::from((seen, port));
        self.input(
            index,
            Input::Accepted {
                conn,
                from: address,
            },
        );
        self.later(
            self.weather.between(index, from).delay,
            from,
            What::Input(Input::Connected { conn: remote }),
        );
    }

    pub(crate) fn send(&mut self, index: NodeIndex, conn: ConnId, bytes: Vec<u8>) {
        let sent = bytes.len();
        let Some(connection) = self.nodes[index.0].connections.get(&conn) else {
            return;
        };
        let took = self.segment(index, connection.peer);
        let Some(connection) = self.nodes[index.0].connections.get_mut(&conn) else {
            return;
        };
        let arrival = self.elapsed + took;
        connection.last = connection.last.max(arrival);
        let after = connection.last - self.elapsed;
        let (peer, life) = (connection.peer, connection.life);
        let what = What::Parcel {
            conn: connection.remote,
            parcel: Parcel::Bytes(bytes),
        };
        self.count_tcp(index, peer, sent);
        self.later_in(life, after, peer, what);
        self.later(after, index, What::Input(Input::Sent { conn, bytes: sent }));
    }

    /// Sends the last word on a connection that this end has forgotten.
    pub(crate) fn ship(&mut self, connection: &Connection, parcel: Parcel, after: Duration) {
        let took = after.max(self.weather.common.delay);
        let what = What::Parcel {
            conn: connection.remote,
            parcel,
        };
        self.later_in(connection.life, took, connection.peer, what);
    }

    pub(crate) fn parcel(&mut self, index: NodeIndex, conn: ConnId, parcel: Parcel) {
        let elapsed = self.elapsed;
        let Some(connection) = self.nodes[index.0].connections.get_mut(&conn) else {
            return;
        };
        let blocked = self.weather.is_tcp_blocked(connection.peer, index);
        if blocked || !connection.stalled.is_empty() {
            if connection.stalled_since.is_none() {
                connection.stalled_since = Some(elapsed);
                self.later(RETRY, index, What::Retry { conn });
            }
            if let Some(connection) = self.nodes[index.0].connections.get_mut(&conn) {
                connection.stalled.push_back(parcel);
            }
            return;
        }
        self.unpack(index, conn, parcel);
    }

    fn unpack(&mut self, index: NodeIndex, conn: ConnId, parcel: Parcel) {
        match parcel {
            Parcel::Bytes(bytes) => self.input(index, Input::Received { conn, bytes }),
            Parcel::Close => {
                self.nodes[index.0].connections.remove(&conn);
                self.input(index, Input::Closed { conn });
            }
        }
    }

    pub(crate) fn retry(&mut self, index: NodeIndex, conn: ConnId) {
        let elapsed = self.elapsed;
        let Some(connection) = self.nodes[index.0].connections.get_mut(&conn) else {
            // The dial that this was to watch: no connection came of it.
            return self.input(
                index,
                Input::ConnectFailed {
                    conn,
                    why: ConnectError::TimedOut,
                },
            );
        };
        let Some(since) = connection.stalled_since else {
            return;
        };
        if self.weather.is_tcp_blocked(connection.peer, index) {
            if elapsed - since < USER_TIMEOUT {
                return self.later(RETRY, index, What::Retry { conn });
            }
            // Both kernels give up.
            let (peer, life, remote) = (connection.peer, connection.life, connection.remote);
            self.nodes[index.0].connections.remove(&conn);
            self.input(index, Input::Closed { conn });
            if self.node(peer).life == life
                && self.nodes[peer.0].connections.remove(&remote).is_some()
            {
                self.input(peer, Input::Closed { conn: remote });
            }
            return;
        }
        connection.stalled_since = None;
        let stalled = std::mem::take(&mut connection.stalled);
        for parcel in stalled {
            if self.nodes[index.0].connections.contains_key(&conn) {
                self.unpack(index, conn, parcel);
            }
        }
    }

    /// How long a TCP segment takes that leaves now.
    fn segment(&mut self, from: NodeIndex, to: NodeIndex) -> Duration {
        let mut dice = self.throw(Purpose::Segment, [from.0, to.0, 0]);
        self.weather.segment(from, to, &mut dice)
    }
}
