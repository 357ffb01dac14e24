//! Links to neighbours: made of their connections, watched over by heartbeats, ended.
//!
//! A link is one authenticated TCP connection to one member, with a [`connection::Link`] that watches over it and an
//! exchange for everything gossiped (see `news`). Two connections to one member come about when both dial at once, or when
//! one end lost the old one first: then [`connection::settle`] decides, alike at both ends. A second run of a member beside
//! a link that is alive is a clone.

use std::net::SocketAddr;
use std::time::Instant;

use weft_types::{Boot, Code, NodeId};

use super::Router;
use super::conns::Stage;
use super::mesh::Mesh;
use crate::connection::{self, Carrier, Contender, DownReason, LinkOutput, Verdict};
use crate::control::{ControlMessage, Observed};
use crate::dialer::{DialError, LetGo};
use crate::gossip::exchange::{Exchange, Topic};
use crate::gossip::registers::{Finding, RegisterDelta};
use crate::handshake::Other;
use crate::io::{ConnId, DataPlane, Event, Output};
use crate::letter::{CloneSeen, Letter};
use crate::membership::{MembershipDelta, TokenSecret};
use crate::sleeve::header::Header;
use crate::store::Change;

/// One member that we hold a connection to.
pub(super) struct Link {
    pub(super) conn: ConnId,
    pub(super) boot: Boot,
    pub(super) since: Instant,
    pub(super) machine: connection::Link,
    /// Datagrams do not pass, so its frames cannot either.
    pub(super) udp_silent: bool,
    pub(super) membership: Exchange<MembershipDelta>,
    pub(super) registers: Exchange<RegisterDelta>,
    /// Where datagrams go until the machine knows better.
    announced: SocketAddr,
}

impl Link {
    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
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
    pub(super) fn endpoint(&self) -> SocketAddr {
        self.machine.endpoint().unwrap_or(self.announced)
    }

    /// Whether heartbeats travel over TCP, for want of datagrams that pass.
    pub(super) fn is_by_tcp(&self) -> bool {
        self.udp_silent && self.passes_no_datagrams()
    }

    /// Whether no datagram is known to pass at this moment. Said of a young link it is no news yet, so nobody is warned; of
    /// one whose probe was lost it is the reason.
    pub(super) fn passes_no_datagrams(&self) -> bool {
        self.machine.carrier() == Some(Carrier::ByTcp)
    }
}

impl Mesh {
    /// The link to `node`, if `conn` is what it runs over: another connection to the same node says nothing about it.
    fn link(&mut self, node: NodeId, conn: ConnId) -> Option<&mut Link> {
        self.links.get_mut(&node).filter(|link| link.conn == conn)
    }
}

impl Router {
    /// A member is authenticated on a connection: make it its link, or decide between it and the one that is there.
    pub(super) fn link_up(&mut self, conn: ConnId, now: Instant) {
        let ourself = self.node();
        let Some(other) = self.conns.get(&conn).and_then(|conn| conn.other.clone()) else {
            return;
        };
        self.tell_authenticated(conn);
        let Some(mesh) = &mut self.mesh else { return };
        let Some(link) = mesh.links.get(&other.node) else {
            return self.make_link(conn, &other, now);
        };
        let (existing, silent) = (link.conn, link.machine.is_silent());
        if other.boot != link.boot && !silent {
            // A run beside a link that is alive: two machines with one identity, or a restart that we learn of a moment
            // too early. Whoever it is comes again, and is refused again only if the link is still alive.
            return if conn.dialled {
                self.give_up(conn, DialError::LetGo(LetGo::OtherRun), now);
            } else {
                self.found(Finding::Clone { owner: other.node }, now);
                self.tell_original(conn, &other, now);
                self.refuse(conn, Code::Clone, now);
            };
        }
        let old = Contender {
            dialled: existing.dialled,
            boot: link.boot,
            silent,
        };
        let new = Contender {
            dialled: conn.dialled,
            boot: other.boot,
            silent: false,
        };
        match connection::settle(ourself, other.node, &old, &new) {
            Verdict::TakeNew => self.make_link(conn, &other, now),
            Verdict::KeepOld => {
                if conn.dialled {
                    self.dialer.handle_linked(other.node, Some(conn));
                }
                self.close(conn);
            }
        }
    }

    /// Makes a connection a member's link, in place of the one that may be there.
    pub(super) fn make_link(&mut self, conn: ConnId, other: &Other, now: Instant) {
        let ourself = self.node();
        let node = other.node;
        let Some(remote) = self.conns.get(&conn).map(|conn| conn.remote) else {
            return;
        };
        let Some(mesh) = &mut self.mesh else { return };
        let replaced = mesh.links.remove(&node);
        let announced = SocketAddr::new(remote.ip(), other.port);
        let machine = connection::Link::new(announced, &mut *self.crypto, now);
        let mut since = now;
        if let Some(old) = replaced {
            if old.boot == other.boot {
                since = old.since;
            }
            self.end_link(old);
        }
        let Some(mesh) = &mut self.mesh else { return };
        let mut membership = Exchange::new(Topic::Membership, ourself, node, now);
        let mut registers = Exchange::new(Topic::Registers, ourself, node, now);
        membership.note_news(now);
        registers.note_news(now);
        mesh.links.insert(
            node,
            Link {
                conn,
                boot: other.boot,
                since,
                machine,
                udp_silent: false,
                membership,
                registers,
                announced,
            },
        );
        mesh.dirty.links = true;
        mesh.dirty.snapshot = true;
        mesh.down.remove(&node);
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.stage = Stage::Linked;
            conn.proof = None;
        }
        self.dialer
            .handle_linked(node, conn.dialled.then_some(conn));
        if since == now {
            let up = Event::LinkUp {
                node,
                nickname: other.nickname.clone(),
                endpoint: announced,
            };
            self.outputs.push_back(Output::Event(up));
        }
        self.with_sessions(|sessions, around| sessions.peer_restarted(node, other.boot, around));
        if self
            .mesh
            .as_ref()
            .is_some_and(|mesh| mesh.own_log.until.is_some())
        {
            // Its answer tells how far our own log goes, after all that is missing here.
            self.offer_membership(conn, now);
        }
        let tokens = self
            .mesh
            .as_ref()
            .map(|mesh| mesh.shared_tokens(now))
            .unwrap_or_default();
        for token in tokens {
            self.tell(conn, &ControlMessage::TokenSecret(token), now);
        }
        self.replay_early(conn, now);
    }

    /// The connection under a link is gone.
    pub(super) fn link_closed(&mut self, node: NodeId, conn: ConnId, now: Instant) {
        let is_its = |link: &Link| link.conn == conn;
        if self
            .mesh
            .as_ref()
            .and_then(|mesh| mesh.links.get(&node))
            .is_some_and(is_its)
        {
            self.link_down(node, "its connection was closed", now);
        }
    }

    pub(super) fn link_down(&mut self, node: NodeId, reason: &str, now: Instant) {
        let Some(mesh) = &mut self.mesh else { return };
        let Some(link) = mesh.links.remove(&node) else {
            return;
        };
        mesh.dirty.links = true;
        mesh.dirty.snapshot = true;
        mesh.observed.remove(&node);
        mesh.down.insert(node, (now, reason.to_owned()));
        self.dialer.handle_lost(node, now);
        self.outputs.push_back(Output::Event(Event::LinkDown {
            node,
            reason: reason.to_owned(),
        }));
        self.end_link(link);
    }

    /// Ends a link that is no member's any more, and the connection under it.
    fn end_link(&mut self, mut link: Link) {
        link.machine.handle_closed();
        while let Some(output) = link.machine.poll_output() {
            if let LinkOutput::RetireLink(index) = output {
                self.outputs
                    .push_back(Output::DataPlane(DataPlane::RetireLink(index)));
            }
        }
        if let Some(conn) = self.conns.get_mut(&link.conn) {
            conn.stage = Stage::Handshaking;
            conn.other = None;
            self.close(link.conn);
        }
    }

    /// Does what the links want done; whether they wanted anything.
    pub(super) fn pump_links(&mut self, now: Instant) -> bool {
        let Some(mesh) = &mut self.mesh else {
            return false;
        };
        let mut wanted = Vec::new();
        for (&node, link) in &mut mesh.links {
            while let Some(output) = link.machine.poll_output() {
                wanted.push((node, link.conn, output));
            }
        }
        let busy = !wanted.is_empty();
        for (node, conn, output) in wanted {
            match output {
                LinkOutput::AdmitLink(index) => {
                    self.outputs
                        .push_back(Output::DataPlane(DataPlane::AdmitLink(index)));
                }
                LinkOutput::Down(DownReason::Closed) => {
                    self.link_down(node, "its connection was closed", now)
                }
                LinkOutput::Down(DownReason::Silent) => self.link_down(node, "it fell silent", now),
                LinkOutput::RetireLink(index) => {
                    self.outputs
                        .push_back(Output::DataPlane(DataPlane::RetireLink(index)));
                }
                LinkOutput::SendDatagram { to, bytes } => {
                    self.outputs.push_back(Output::SendDatagram { to, bytes });
                }
                LinkOutput::SendHeartbeat(heartbeat) => {
                    self.tell(conn, &ControlMessage::Heartbeat(heartbeat), now)
                }
                LinkOutput::SendKeys(keys) => self.tell(conn, &ControlMessage::LinkKeys(keys), now),
                LinkOutput::UdpSilent => self.set_udp_silent(node, true),
                LinkOutput::UdpWorks(address) => {
                    self.set_udp_silent(node, false);
                    self.tell(conn, &ControlMessage::Observed(Observed { address }), now);
                }
                LinkOutput::Up { .. } => {}
            }
        }
        busy
    }

    fn set_udp_silent(&mut self, node: NodeId, silent: bool) {
        let Some(mesh) = &mut self.mesh else { return };
        mesh.dirty.snapshot = true;
        if let Some(link) = mesh.links.get_mut(&node) {
            link.udp_silent = silent;
        }
    }

    pub(super) fn wake_mesh(&mut self, now: Instant) {
        let Some(mesh) = &mut self.mesh else { return };
        for link in mesh.links.values_mut() {
            link.machine.handle_timeout(&mut *self.crypto, now);
            link.membership.handle_timeout(&mut *self.crypto, now);
            link.registers.handle_timeout(&mut *self.crypto, now);
        }
        let own_log_due = mesh.own_log.until.is_some_and(|until| until <= now);
        let ended = mesh.tokens.handle_timeout(now);
        let changes: Vec<Change> = ended
            .into_iter()
            .map(|id| mesh.token_change_or_removal(id, now))
            .collect();
        if !changes.is_empty() {
            mesh.refresh_keyring();
            self.save(changes, super::After::Nothing);
        }
        if own_log_due {
            self.own_log_known(now);
        }
        self.wake_pings(now);
        self.wake_traces(now);
        self.with_sessions(|sessions, around| sessions.handle_timeout(around, now));
    }

    /// A heartbeat. A forged one is counted by its link, and changes nothing.
    pub(super) fn link_datagram(&mut self, from: SocketAddr, mut bytes: Vec<u8>, now: Instant) {
        let Some(mesh) = &mut self.mesh else { return };
        let owner = Header::decode(&bytes).and_then(|header| {
            mesh.links
                .values_mut()
                .find(|link| link.machine.owns(header.index))
        });
        let forged = match owner {
            Some(link) => link.machine.handle_datagram(from, &mut bytes, now).is_err(),
            None => true,
        };
        mesh.forged_datagrams += u64::from(forged);
    }

    /// A control message on a link, or of one who proves that it should be.
    pub(super) fn link_message(&mut self, conn: ConnId, message: ControlMessage, now: Instant) {
        let Some(node) = self
            .conns
            .get(&conn)
            .and_then(|conn| conn.other.as_ref())
            .map(|other| other.node)
        else {
            return;
        };
        if let Some(link) = self.mesh.as_mut().and_then(|mesh| mesh.link(node, conn)) {
            link.machine.handle_message(now);
        }
        match message {
            ControlMessage::Delta(delta) => self.delta(node, &delta, now),
            ControlMessage::Digest(digest) => self.digest(conn, node, &digest, now),
            ControlMessage::Summary(summary) => self.summary(conn, node, &summary, now),
            ControlMessage::DoorKey(door) => {
                if let Some(mesh) = &mut self.mesh
                    && let Some(change) = mesh.receive_door_key(door)
                {
                    self.save(vec![change], super::After::Nothing);
                }
            }
            ControlMessage::TokenSecret(TokenSecret {
                id,
                secret,
                remaining,
            }) => {
                if let Some(mesh) = &mut self.mesh
                    && let Some(change) = mesh.receive_token(id, secret, remaining, now)
                {
                    self.save(vec![change], super::After::Nothing);
                }
            }
            ControlMessage::Heartbeat(heartbeat) => {
                if let Some(link) = self.mesh.as_mut().and_then(|mesh| mesh.link(node, conn)) {
                    link.machine.handle_heartbeat(&heartbeat, now);
                }
            }
            ControlMessage::LinkKeys(keys) => {
                if let Some(link) = self.mesh.as_mut().and_then(|mesh| mesh.link(node, conn)) {
                    link.machine.handle_keys(&keys, now);
                }
            }
            ControlMessage::Observed(Observed { address }) => self.observed(node, address),
            ControlMessage::Unicast(unicast) => self.unicast(node, unicast, now),
            // A refusal is handled before; a welcome is for joiners.
            ControlMessage::Refused(_)
            | ControlMessage::Unknown(_)
            | ControlMessage::Welcome(_) => {}
        }
    }

    /// Tells the run that is linked of the one that has just come with the same identity.
    fn tell_original(&mut self, conn: ConnId, other: &Other, now: Instant) {
        let Some(conn) = self.conns.get(&conn) else {
            return;
        };
        let letter = Letter::CloneSeen(CloneSeen {
            boot: other.boot,
            from: conn.remote,
        });
        self.send_sealed(other.node, &letter, now);
    }
}
