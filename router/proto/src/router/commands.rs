//! What people ask for.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weft_types::{Code, MacAddr, NodeId, Problem, Segment, TokenId};

use super::mesh::{Came, PING, PING_ROUND_TRIPS, Ping, endpoint_change, membership_changes};
use super::start::target_change;
use super::{After, Router};
use crate::io::{
    Command, DataPlane, MAX_PINGS, MAX_PROBES, Output, Pong, Reply, RequestId, Target,
};
use crate::membership::{MembershipDelta, Record, TokenGrant};
use crate::status::PathKind;
use crate::store::{Change, Table};
use crate::token::{Issuer, Token};

/// How often an unanswered probe is sent again: the first may have waited for its session in vain.
const PROBE_AGAIN: Duration = Duration::from_millis(250);
/// An Ethernet header and one VLAN tag: what a full-size frame has beyond the MTU.
const FRAME_OVERHEAD: u16 = 18;

impl Router {
    pub(super) fn command(&mut self, id: RequestId, command: Command, now: Instant) {
        let signs = match &command {
            Command::Leave | Command::TokenRevoke { .. } => true,
            Command::TokenCreate { reusable, .. } => *reusable,
            Command::Attach { .. }
            | Command::Connect { .. }
            | Command::Detach { .. }
            | Command::Forget { .. }
            | Command::Ping { .. }
            | Command::Trace { .. } => false,
        };
        if let Some(mesh) = &mut self.mesh
            && signs
            && mesh.own_log.until.is_some()
            && mesh.own_log.has_room()
        {
            return mesh.own_log.commands.push((id, command));
        }
        let done = match command {
            Command::Attach {
                mac,
                addresses,
                port,
            } => self.attach(id, mac, &addresses, port),
            Command::Connect { targets } => self.connect(id, targets, now),
            Command::Detach { mac } => self.detach(id, mac),
            Command::Forget { targets } => self.forget(id, &targets),
            Command::Leave => self.leave(id),
            Command::Ping { node } => self.ping(id, node, now),
            Command::Trace { node } => self.trace(id, node, now),
            Command::TokenCreate { reusable, ttl } => self.create_token(id, reusable, ttl, now),
            Command::TokenRevoke { token } => self.revoke_token(id, token, now),
        };
        if let Err(problem) = done {
            self.outputs.push_back(Output::Reply {
                id,
                reply: Reply::Failed(problem),
            });
        }
    }

    fn connect(
        &mut self,
        id: RequestId,
        targets: Vec<Target>,
        now: Instant,
    ) -> Result<(), Problem> {
        let changes = targets
            .iter()
            .map(|target| target_change(target, true))
            .collect();
        for target in targets {
            self.dialer.add_target(target, now);
        }
        self.save(changes, After::Reply(id, Reply::Done));
        Ok(())
    }

    fn forget(&mut self, id: RequestId, targets: &[Target]) -> Result<(), Problem> {
        let unknown: Vec<&str> = targets
            .iter()
            .filter(|target| !self.dialer.remove_target(target))
            .map(|target| target.0.as_str())
            .collect();
        let changes = targets
            .iter()
            .map(|target| target_change(target, false))
            .collect();
        self.save(
            changes,
            if unknown.is_empty() {
                After::Reply(id, Reply::Done)
            } else {
                After::Nothing
            },
        );
        if unknown.is_empty() {
            return Ok(());
        }
        Err(Problem::new(
            Code::UnknownNode,
            format!("no such target: {}", unknown.join(", ")),
        )
        .fix("`weft status targets` lists them"))
    }

    fn attach(
        &mut self,
        id: RequestId,
        mac: MacAddr,
        addresses: &[IpNet],
        port: String,
    ) -> Result<(), Problem> {
        let node = self.node();
        let mesh = self.mesh.as_mut().ok_or_else(not_joined)?;
        let assigned = mesh.assigned();
        for address in addresses.iter().map(IpNet::addr) {
            let holder = mesh
                .snapshot
                .as_ref()
                .and_then(|snapshot| snapshot.endpoints.holder(Segment::DEFAULT, address));
            let taken = holder
                .filter(|holder| holder.mac != mac || holder.owner != node)
                .map(|holder| holder.owner);
            if let Some(owner) = taken.or_else(|| assigned.get(&address).copied()) {
                return Err(Problem::new(
                    Code::AddressInUse,
                    format!("{address} is in use in the mesh"),
                )
                .why(format!("it belongs to node {}", mesh.name_of(owner)))
                .fix("Choose another --address"));
            }
        }
        mesh.local.check(mac, addresses, None).map_err(|error| {
            Problem::new(
                Code::AttachTarget,
                format!("the container cannot be announced: {error}"),
            )
        })?;
        let change = endpoint_change(mac, addresses, &port, None);
        self.save(
            vec![change],
            After::Attached {
                id,
                mac,
                addresses: addresses.to_vec(),
                port,
            },
        );
        Ok(())
    }

    /// The container is remembered: tell the mesh.
    pub(super) fn attached(
        &mut self,
        id: RequestId,
        mac: MacAddr,
        addresses: &[IpNet],
        port: String,
    ) {
        let Some(mesh) = &mut self.mesh else { return };
        if let Ok(bucket) = mesh.local.attach(mac, addresses, port, None) {
            mesh.dirty.buckets.insert(bucket);
            mesh.dirty.snapshot = true;
        }
        self.outputs.push_back(Output::Reply {
            id,
            reply: Reply::Done,
        });
    }

    fn detach(&mut self, id: RequestId, mac: MacAddr) -> Result<(), Problem> {
        let mesh = self.mesh.as_mut().ok_or_else(not_joined)?;
        if let Some(bucket) = mesh.local.detach(mac) {
            mesh.dirty.buckets.insert(bucket);
            mesh.dirty.snapshot = true;
        }
        let forget = Change::Delete {
            table: Table::Endpoints,
            key: mac.as_bytes().to_vec(),
        };
        self.save(vec![forget], After::Reply(id, Reply::Done));
        Ok(())
    }

    fn leave(&mut self, id: RequestId) -> Result<(), Problem> {
        let mesh = self.mesh.as_mut().ok_or_else(not_joined)?;
        let record = mesh
            .membership
            .append(Record::Leave, &self.settings.keys)
            .map_err(cannot_sign)?;
        let changes = membership_changes(std::slice::from_ref(&record));
        self.save(
            changes,
            After::Left {
                delta: MembershipDelta::new(vec![record]),
                id,
            },
        );
        Ok(())
    }

    /// Our leave is durable: the last thing that we say.
    pub(super) fn left(&mut self, delta: MembershipDelta, id: RequestId, now: Instant) {
        self.announce_membership(delta, now);
        self.outputs.push_back(Output::Reply {
            id,
            reply: Reply::Done,
        });
    }

    fn ping(&mut self, id: RequestId, node: NodeId, now: Instant) -> Result<(), Problem> {
        let mesh = self.mesh.as_mut().ok_or_else(not_joined)?;
        let name = mesh.name_of(node);
        if mesh
            .snapshot
            .as_ref()
            .is_none_or(|snapshot| snapshot.peer(node).is_none())
        {
            return Err(Problem::new(
                Code::PeerUnreachable,
                format!("{name} is not reachable at the moment"),
            )
            .fix("`weft status` says since when and why"));
        }
        if mesh.pings.len() >= MAX_PINGS {
            return Err(
                Problem::new(Code::Internal, format!("{name} cannot be pinged now"))
                    .why(format!("{MAX_PINGS} pings of this host are under way"))
                    .fix("Try again in a few seconds, or ping less at once"),
            );
        }
        let size = mesh.genesis.genesis().mtu.get() + FRAME_OVERHEAD;
        let ping = Ping {
            node,
            size,
            again_at: now,
            begun: now,
            until: now + PING,
            probes: Vec::new(),
            came: None,
        };
        // A way that is asked about is probed, as one that frames take.
        if let Some(overlay) = mesh.overlays.get_mut(&node) {
            overlay.handle_traffic(now);
        }
        mesh.pings.insert(id, ping);
        self.probe_again(now);
        self.session_wanted(node, now);
        Ok(())
    }

    /// Sends the probes that are due.
    fn probe_again(&mut self, now: Instant) {
        let Some(mesh) = &mut self.mesh else { return };
        for ping in mesh.pings.values_mut() {
            if ping.came.is_some() || ping.again_at > now {
                continue;
            }
            if ping.probes.len() == MAX_PROBES {
                ping.again_at = ping.until;
                continue;
            }
            mesh.probe_ids += 1;
            ping.again_at = now + PROBE_AGAIN;
            ping.probes.push(mesh.probe_ids);
            let probe = DataPlane::Probe {
                peer: ping.node,
                id: mesh.probe_ids,
                size: ping.size,
            };
            self.outputs.push_back(Output::DataPlane(probe));
        }
    }

    pub(super) fn probe_answered(&mut self, peer: NodeId, id: u64, rtt: Duration) {
        let Some(mesh) = &mut self.mesh else { return };
        for ping in mesh.pings.values_mut().filter(|ping| ping.node == peer) {
            let at = ping.probes.iter().position(|&probe| probe == id);
            if let Some(lost) = at.and_then(|at| u32::try_from(at).ok()) {
                ping.came.get_or_insert(Came { rtt, lost });
            }
        }
        self.answer_pings();
    }

    /// Answers the pings that have come back by a way that is known: which of several the answer took shows only when the
    /// way in use has answered probes of its own.
    pub(super) fn answer_pings(&mut self) {
        let Some(mesh) = &mut self.mesh else { return };
        let known = mesh.pings.iter().filter_map(|(&id, ping)| {
            let way = mesh.overlays.get(&ping.node)?.report()?;
            Some((id, ping.came.filter(|_| way.works)?))
        });
        for (id, came) in known.collect::<Vec<_>>() {
            self.pong(id, came);
        }
    }

    fn pong(&mut self, id: RequestId, Came { rtt, lost }: Came) {
        let Some(mesh) = &mut self.mesh else { return };
        let Some(Ping { node, size, .. }) = mesh.pings.remove(&id) else {
            return;
        };
        let way = mesh.own_way(node);
        let pong = Pong {
            rtt,
            size,
            lost,
            path: way.path.unwrap_or(PathKind::Sleeve),
            via: way.via,
            loss: way.loss,
            mtu: way.mtu,
        };
        let reply = Reply::Pong(pong);
        self.outputs.push_back(Output::Reply { id, reply });
    }

    pub(super) fn wake_pings(&mut self, now: Instant) {
        let Some(mesh) = &mut self.mesh else { return };
        for ping in mesh.pings.values_mut().filter(|ping| ping.until <= now) {
            let link = mesh.links.get(&ping.node);
            let way = link.and_then(|link| link.machine.rtt()).unwrap_or_default();
            ping.until = ping.begun + PING + PING_ROUND_TRIPS * way;
        }
        let over: Vec<RequestId> = mesh
            .pings
            .iter()
            .filter(|(_, ping)| ping.until <= now)
            .map(|(&id, _)| id)
            .collect();
        for id in over {
            let Some(mesh) = &mut self.mesh else { return };
            let Some(ping) = mesh.pings.get(&id) else {
                continue;
            };
            if let Some(came) = ping.came {
                self.pong(id, came);
                continue;
            }
            let Some(ping) = mesh.pings.remove(&id) else {
                continue;
            };
            let problem = mesh.explain_lost_ping(ping.node, ping.size);
            let reply = Reply::Failed(problem);
            self.outputs.push_back(Output::Reply { id, reply });
        }
        self.probe_again(now);
    }

    fn create_token(
        &mut self,
        id: RequestId,
        reusable: bool,
        ttl: Duration,
        now: Instant,
    ) -> Result<(), Problem> {
        let node = self.node();
        let addresses = self.reachable_at();
        let mesh = self.mesh.as_mut().ok_or_else(not_joined)?;
        if !mesh.may_introduce(node) {
            return Err(Problem::new(
                Code::NotAuthorised,
                "this node may not admit others",
            ));
        }
        let (token, secret) = mesh
            .tokens
            .issue(reusable, ttl, &mut *self.crypto, now)
            .map_err(|error| {
                Problem::new(Code::NotAuthorised, error.to_string()).fix("`weft token revoke` some")
            })?;
        mesh.refresh_keyring();
        let text = Token {
            mesh: mesh.id,
            id: token,
            secret,
            issuer: (!reusable).then_some(Issuer { node, addresses }),
        };
        let reply = Reply::Token(text.reveal());
        let mut changes: Vec<Change> = mesh.token_change(token, now).into_iter().collect();
        if !reusable {
            self.save(changes, After::Reply(id, reply));
            return Ok(());
        }
        let grant = Record::Token(TokenGrant {
            id: token,
            reusable,
            ttl,
        });
        let record = mesh
            .membership
            .append(grant, &self.settings.keys)
            .map_err(cannot_sign)?;
        changes.extend(membership_changes(std::slice::from_ref(&record)));
        mesh.unshared.insert(token);
        self.save(
            changes,
            After::Announce {
                delta: MembershipDelta::new(vec![record]),
                reply: Some((id, reply)),
            },
        );
        Ok(())
    }

    fn revoke_token(&mut self, id: RequestId, token: TokenId, now: Instant) -> Result<(), Problem> {
        let mesh = self.mesh.as_mut().ok_or_else(not_joined)?;
        let logged = mesh.membership.token(token).is_some();
        let known = mesh.tokens.list(now).any(|info| info.id == token);
        if !logged && !known {
            return Err(
                Problem::new(Code::TokenNotAccepted, "no such token is known here")
                    .why("a single-use token is known only to the host that made it")
                    .fix("`weft token list` on that host shows it"),
            );
        }
        mesh.tokens.void(token, now);
        let mut changes: Vec<Change> = mesh.token_change(token, now).into_iter().collect();
        if !logged {
            self.save(changes, After::Reply(id, Reply::Done));
            return Ok(());
        }
        let record = mesh
            .membership
            .append(Record::Void(token), &self.settings.keys)
            .map_err(cannot_sign)?;
        changes.extend(membership_changes(std::slice::from_ref(&record)));
        let delta = MembershipDelta::new(vec![record]);
        self.save(
            changes,
            After::Announce {
                delta,
                reply: Some((id, Reply::Done)),
            },
        );
        Ok(())
    }

    /// Where this node says that it can be reached: what a person said first, then its interfaces.
    pub(super) fn reachable_at(&self) -> Vec<SocketAddr> {
        let usable = |address: &&IpAddr| {
            !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
        };
        let local = self
            .local_addresses
            .iter()
            .filter(usable)
            .map(|&ip| SocketAddr::new(ip, self.settings.port));
        let mut seen = BTreeSet::new();
        let all = self.settings.advertise.iter().copied().chain(local);
        all.filter(|address| seen.insert(*address))
            .take(MAX_REACHABLE)
            .collect()
    }
}

/// Addresses of one node that others try: a host has few that lead anywhere.
const MAX_REACHABLE: usize = 16;

pub(super) fn not_joined() -> Problem {
    Problem::new(Code::NotJoined, "this node is in no mesh yet")
        .fix("`weft up` begins one, `weft join` joins one")
}

fn cannot_sign(error: crate::membership::AppendError) -> Problem {
    Problem::new(
        Code::NotAuthorised,
        format!("the membership log takes no record: {error}"),
    )
}
