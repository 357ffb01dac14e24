//! Links to neighbours: made of their connections, watched over by heartbeats, ended.
//!
//! A link is one authenticated TCP connection to one member, with a [`connection::Link`] that watches over it and an
//! exchange for everything gossiped (see `news`). Two connections to one member come about when both dial at once, or when
//! one end lost the old one first: then [`connection::settle`] decides, alike at both ends. A second run of a member beside
//! a link that is alive is a clone.

use std::net::SocketAddr;
use std::time::Instant;

use weft_types::{Boot, Code, NodeId};

use super::Reach;
use super::conn::Stage;
use super::link::Link;
use super::mesh::Mesh;
use crate::connection::{self, Contender, DownReason, LinkOutput, Verdict};
use crate::control::{ControlMessage, Observed};
use crate::dialer::LetGo;
use crate::gossip::exchange::{Exchange, Topic};
use crate::gossip::registers::Finding;
use crate::handshake::Other;
use crate::io::{ConnId, DataPlane, Event, Output};
use crate::letter::{CloneSeen, Letter};
use crate::sleeve::header::Header;

/// How many addresses that others saw are told on: a host behind a NAT that gives each peer another port has no use for any.
const MAX_OBSERVED: usize = 4;

impl Reach<'_> {
    /// A neighbour says where our datagrams come from.
    pub(crate) fn note_observed(&mut self, by: NodeId, address: SocketAddr) {
        self.mesh.note_observed(by, address);
        self.mesh.dirty.record |= self.ground.note_proven(address.ip());
    }
}

impl Mesh {
    /// The link to `node`, if `conn` is what it runs over: another connection to the same node says nothing about it.
    pub(crate) fn link_over(&mut self, node: NodeId, conn: ConnId) -> Option<&mut Link> {
        self.links.get_mut(&node).filter(|link| link.conn == conn)
    }

    /// The same, for what is told on.
    fn note_observed(&mut self, by: NodeId, address: SocketAddr) {
        if !self.may_be_sent_to(address) {
            return;
        }
        if let Some(link) = self.links.get_mut(&by)
            && link.observed.replace(address) != Some(address)
        {
            self.dirty.record = true;
        }
    }

    /// Where others see our datagrams come from, as far as it is news beside our `own` addresses.
    pub(crate) fn observed_addresses(&self, own: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut seen = std::collections::BTreeSet::new();
        let all = self.links.values().filter_map(|link| link.observed);
        all.filter(|address| !own.contains(address) && seen.insert(*address))
            .take(MAX_OBSERVED)
            .collect()
    }

    /// A heartbeat came as a datagram. A forged one is counted by its link, and changes nothing.
    pub(crate) fn link_datagram(&mut self, from: SocketAddr, mut bytes: Vec<u8>, now: Instant) {
        let owner = Header::decode(&bytes).and_then(|header| {
            let mut links = self.links.values_mut();
            links.find(|link| link.machine.owns(header.index))
        });
        let forged = match owner {
            Some(link) => link.machine.handle_datagram(from, &mut bytes, now).is_err(),
            None => true,
        };
        self.forged_datagrams += u64::from(forged);
    }

    /// When a link wants to be woken.
    pub(crate) fn links_timeout(&self) -> Option<(Instant, &'static str)> {
        self.links.values().filter_map(Link::poll_timeout).min()
    }

    fn set_udp_silent(&mut self, node: NodeId, silent: bool) {
        self.dirty.forwarding = true;
        if let Some(link) = self.links.get_mut(&node) {
            link.udp_silent = silent;
        }
    }
}

impl Reach<'_> {
    /// A member is authenticated on a connection: make it its link, or decide between it and the one that is there. Gives
    /// who is linked by it.
    pub(crate) fn link_up(&mut self, conn: ConnId, now: Instant) -> Option<(NodeId, Boot)> {
        let other = self.ground.other(conn).cloned()?;
        self.ground.tell_authenticated(conn);
        let Some(link) = self.mesh.links.get(&other.node) else {
            return self.make_link(conn, &other, now);
        };
        let silent = link.machine.is_silent();
        if other.boot != link.boot && !silent {
            self.second_run(conn, &other, now);
            return None;
        }
        let old = Contender {
            dialled: link.conn.dialled,
            boot: link.boot,
            silent,
        };
        let new = Contender {
            dialled: conn.dialled,
            boot: other.boot,
            silent: false,
        };
        match connection::settle(self.mesh.ourself, other.node, &old, &new) {
            Verdict::TakeNew => self.make_link(conn, &other, now),
            Verdict::KeepOld => {
                if conn.dialled {
                    self.ground.dialer.handle_linked(other.node, Some(conn));
                }
                self.ground.close(conn);
                None
            }
        }
    }

    /// Whoever has a link already lets a second connection go: it has led there all the same.
    pub(crate) fn second_closed(&mut self, conn: ConnId) {
        let Some(other) = self.ground.other(conn).filter(|_| conn.dialled) else {
            return;
        };
        let (node, boot) = (other.node, other.boot);
        let link = self.mesh.links.get(&node);
        if link.is_some_and(|link| link.boot == boot && link.conn != conn) {
            self.ground.dialer.handle_linked(node, Some(conn));
        }
    }

    /// A run beside a link that is alive: two machines with one identity, or a restart that we learn of a moment too early.
    /// Whoever it is comes again, and is refused again only if the link is still alive.
    fn second_run(&mut self, conn: ConnId, other: &Other, now: Instant) {
        if conn.dialled {
            return self.ground.give_up(conn, LetGo::OtherRun.into(), now);
        }
        self.report(Finding::Clone { owner: other.node });
        self.tell_original(conn, other);
        self.ground.refuse(conn, Code::Clone);
    }

    /// Tells the run that is linked of the one that has just come with the same identity.
    fn tell_original(&mut self, conn: ConnId, other: &Other) {
        if let Some(conn) = self.ground.conns.get(&conn) {
            let from = conn.remote;
            let boot = other.boot;
            self.send_sealed(other.node, &Letter::CloneSeen(CloneSeen { boot, from }));
        }
    }

    /// Makes a connection a member's link, in place of the one that may be there.
    fn make_link(&mut self, conn: ConnId, other: &Other, now: Instant) -> Option<(NodeId, Boot)> {
        let node = other.node;
        let remote = self.ground.conns.get(&conn)?.remote;
        let replaced = self.mesh.links.remove(&node);
        let announced = SocketAddr::new(remote.ip(), other.port);
        let machine = connection::Link::new(announced, &mut *self.ground.crypto, now);
        let observed = replaced.as_ref().and_then(|old| old.observed);
        let same_run = replaced.as_ref().filter(|old| old.boot == other.boot);
        let since = same_run.map_or(now, |old| old.since);
        if let Some(old) = replaced {
            self.end_link(old);
        }
        let link = Link {
            conn,
            boot: other.boot,
            since,
            machine,
            udp_silent: false,
            membership: self.exchange(Topic::Membership, node, now),
            registers: self.exchange(Topic::Registers, node, now),
            announced,
            observed,
        };
        self.mesh.links.insert(node, link);
        self.mesh.dirty.links = true;
        self.mesh.dirty.forwarding = true;
        self.mesh.down.remove(&node);
        self.ground.clones.forgive(node);
        if let Some(conn) = self.ground.conns.get_mut(&conn) {
            conn.stage = Stage::Linked;
            conn.proof = None;
        }
        let dialled = conn.dialled.then_some(conn);
        self.ground.dialer.handle_linked(node, dialled);
        if since == now {
            self.ground.event(Event::LinkUp {
                node,
                nickname: other.nickname.clone(),
                endpoint: announced,
            });
        }
        Some((node, other.boot))
    }

    /// An exchange with a neighbour that has not heard from us yet.
    fn exchange<D: crate::gossip::Piece + Clone>(
        &self,
        topic: Topic,
        node: NodeId,
        now: Instant,
    ) -> Exchange<D> {
        let mut exchange = Exchange::new(topic, self.mesh.ourself, node, now);
        exchange.note_news(now);
        exchange
    }

    /// The connection under a link is gone.
    pub(crate) fn link_closed(&mut self, node: NodeId, conn: ConnId, now: Instant) {
        if self.mesh.link_over(node, conn).is_some() {
            self.link_down(node, "its connection was closed", now);
        }
    }

    pub(crate) fn link_down(&mut self, node: NodeId, reason: &str, now: Instant) {
        let Some(link) = self.mesh.links.remove(&node) else {
            return;
        };
        self.mesh.dirty.links = true;
        self.mesh.dirty.forwarding = true;
        self.mesh.down.insert(node, (now, reason.to_owned()));
        self.ground.dialer.handle_lost(node, now);
        let reason = reason.to_owned();
        self.ground.event(Event::LinkDown { node, reason });
        self.end_link(link);
    }

    /// Ends a link that is no member's any more, and the connection under it.
    fn end_link(&mut self, mut link: Link) {
        link.machine.handle_closed();
        while let Some(output) = link.machine.poll_output() {
            if let LinkOutput::RetireLink(index) = output {
                self.ground.data_plane(DataPlane::RetireLink(index));
            }
        }
        if let Some(conn) = self.ground.conns.get_mut(&link.conn) {
            conn.stage = Stage::Handshaking;
            conn.other = None;
            self.ground.close(link.conn);
        }
    }

    /// Does what the links want done; whether they wanted anything.
    pub(crate) fn pump_links(&mut self, now: Instant) -> bool {
        let mut wanted = Vec::new();
        for (&node, link) in &mut self.mesh.links {
            while let Some(output) = link.machine.poll_output() {
                wanted.push((node, link.conn, output));
            }
        }
        let busy = !wanted.is_empty();
        for (node, conn, output) in wanted {
            self.link_wants(node, conn, output, now);
        }
        busy
    }

    fn link_wants(&mut self, node: NodeId, conn: ConnId, output: LinkOutput, now: Instant) {
        match output {
            LinkOutput::AdmitLink(index) => self.ground.data_plane(DataPlane::AdmitLink(index)),
            LinkOutput::Down(DownReason::Closed) => {
                self.link_down(node, "its connection was closed", now)
            }
            LinkOutput::Down(DownReason::Silent) => self.link_down(node, "it fell silent", now),
            LinkOutput::RetireLink(index) => self.ground.data_plane(DataPlane::RetireLink(index)),
            LinkOutput::SendDatagram { to, bytes } => {
                self.ground.push(Output::SendDatagram { to, bytes })
            }
            LinkOutput::SendHeartbeat(heartbeat) => self
                .ground
                .tell(conn, &ControlMessage::Heartbeat(heartbeat)),
            LinkOutput::SendKeys(keys) => self.ground.tell(conn, &ControlMessage::LinkKeys(keys)),
            LinkOutput::UdpSilent => self.mesh.set_udp_silent(node, true),
            LinkOutput::UdpWorks(address) => {
                self.mesh.set_udp_silent(node, false);
                let observed = ControlMessage::Observed(Observed { address });
                self.ground.tell(conn, &observed);
            }
            LinkOutput::Up { .. } => {}
        }
    }

    /// Wakes all links.
    pub(crate) fn wake_links(&mut self, now: Instant) {
        for link in self.mesh.links.values_mut() {
            let crypto = &mut *self.ground.crypto;
            link.machine.handle_timeout(crypto, now);
            link.membership.handle_timeout(crypto, now);
            link.registers.handle_timeout(crypto, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::router::ground::mesh::Dirty;
    use crate::router::testing::{AS_MEMBER, Fixture, boot};

    #[test]
    fn a_link_ends_with_its_own_connection_and_with_no_other() {
        let mut fixture = Fixture::new();
        let (node, conn) = fixture.link_to("b", &[]);
        let (stray, now) = (fixture.open(false), fixture.now);
        let up = fixture.events();

        fixture.reach().link_closed(node, stray, now);
        let stays = fixture.mesh.links.contains_key(&node);
        fixture.reach().link_closed(node, conn, now);

        assert!(matches!(up.as_slice(), [Event::LinkUp { .. }]), "{up:?}");
        assert!(stays);
        let down = fixture.events();
        assert!(
            matches!(down.as_slice(), [Event::LinkDown { .. }]),
            "{down:?}"
        );
        assert!(fixture.mesh.down.contains_key(&node));
    }

    #[test]
    fn a_second_run_beside_a_link_that_is_alive_is_a_clone_and_refused() {
        let mut fixture = Fixture::new();
        let (node, conn) = fixture.link_to("b", &[]);
        let (second, now) = (fixture.knock(node, AS_MEMBER), fixture.now);
        let open = fixture.ground.conns.get_mut(&second);
        let other = open.and_then(|open| open.other.as_mut());
        other.expect("it has proved it").boot = boot(2);
        fixture.outputs();

        let linked = fixture.reach().link_up(second, now);

        assert_eq!(linked, None);
        assert!(!fixture.ground.is_open(second));
        assert!(fixture.mesh.link_over(node, conn).is_some());
        let events = fixture.events();
        assert!(
            matches!(events.as_slice(), [Event::Problem(problem)] if problem.code == Code::Clone),
            "{events:?}"
        );
    }

    #[test]
    fn an_address_that_others_see_is_told_where_it_is_news() {
        let mut fixture = Fixture::new();
        let (node, _) = fixture.link_to("b", &[]);
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let outside = address("198.51.100.7:40000");
        let clean = !std::mem::take(&mut fixture.mesh.dirty).record;

        fixture.mesh.note_observed(node, address("127.0.0.1:6783"));
        let loopback = fixture.mesh.dirty.record;
        fixture.mesh.note_observed(node, outside);

        assert!(clean && !loopback);
        assert!(fixture.mesh.dirty.record);
        assert_eq!(fixture.mesh.observed_addresses(&[]), [outside]);
        assert_eq!(fixture.mesh.observed_addresses(&[outside]), []);
    }

    #[test]
    fn a_datagram_of_no_link_is_forged() {
        let mut fixture = Fixture::new();
        let from = SocketAddr::from(([192, 0, 2, 9], 6783));

        fixture.mesh.link_datagram(from, vec![0; 64], fixture.now);

        assert_eq!(fixture.mesh.forged_datagrams, 1);
    }

    #[test]
    fn of_many_addresses_the_one_that_a_neighbour_sees_is_told_first() {
        let mut fixture = Fixture::new();
        let (node, _) = fixture.link_to("b", &[]);
        let useless = (0..20).map(|last| IpAddr::from([10, 99, 0, last]));
        let useful = IpAddr::from([192, 0, 2, 50]);
        let all: Vec<IpAddr> = useless.chain([useful]).collect();
        fixture.ground.set_local_addresses(all);
        let told = |fixture: &Fixture| {
            let all = fixture.ground.reachable_at();
            all.iter().map(SocketAddr::ip).collect::<Vec<_>>()
        };
        assert!(!told(&fixture).contains(&useful), "there are too many");

        fixture.mesh.dirty = Dirty::default();
        let port = fixture.ground.settings.port;
        let seen = SocketAddr::new(useful, port);
        fixture.reach().note_observed(node, seen);

        assert_eq!(told(&fixture).first(), Some(&useful));
        assert!(fixture.mesh.dirty.record, "it is told anew");
        // One that has gone is told no more.
        fixture
            .ground
            .set_local_addresses(vec![IpAddr::from([10, 99, 0, 1])]);
        assert!(!told(&fixture).contains(&useful));
    }
}
