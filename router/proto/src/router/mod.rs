//! The machine made of all the others: one whole router, without its sockets, disk and clock.
//!
//! ```text
//!   Starting ──boot counter durable──▶ Joining ──Welcome, saved──▶ Member
//!       │                                                            ▲
//!       └──────────────── a mesh in the store, or created ───────────┘
//! ```
//!
//! Call [`Router::handle_input`] when something happened, then [`Router::poll_output`] until `None`, then sleep until
//! [`Router::poll_timeout`] and call [`Router::handle_timeout`].
//!
//! The parts: `start` (what was saved), `conns` (TCP connections until they are somebody's), `admission` (how nodes get
//! in), `links` (what connects members), `news` (what they gossip), `letters` (what they tell each other in private),
//! `forwarding` (what the data plane is told), `commands` and `report`.
//!
//! **Invariant.** Nothing leaves before the boot counter is durable. Nobody is told of a record, a token or an address
//! before it is durable.

mod admission;
mod commands;
mod conns;
mod forwarding;
#[cfg(feature = "seeded")]
mod inspect;
mod letters;
mod links;
mod mesh;
mod news;
mod paths;
mod report;
mod start;
mod trace;
mod transit;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};
use weft_types::{Boot, BootId, Code, MacAddr, Mtu, Nickname, NodeId, Problem};

use crate::crypto::Crypto;
use crate::dialer::{DialError, Dialer};
use crate::identity::NodeKeys;
use crate::io::{ConnId, Event, Input, Output, RequestId, Target, Ticket};
use crate::session::IndexAllocator;
use crate::status::Switching;
use crate::store::Change;
use crate::token::Token;
use admission::Joining;
use conns::Conn;
use mesh::Mesh;

/// How many inputs wait for the boot counter: a start takes milliseconds.
const MAX_DEFERRED: usize = 256;
/// Twice within this time past one's own footsteps is a clone, and no restored snapshot.
const CLONE_WINDOW: Duration = Duration::from_secs(600);

/// What a router is told once.
pub struct RouterConfig {
    /// Who it is.
    pub keys: NodeKeys,
    /// What people call it.
    pub nickname: Nickname,
    /// The port of control TCP and sleeve UDP.
    pub port: u16,
    /// Addresses to be reached at, beside those of the host's interfaces.
    pub advertise: Vec<SocketAddr>,
    /// What to dial, beside what is remembered.
    pub targets: Vec<Target>,
    /// What to do where the store has no mesh yet.
    pub intent: Intent,
    /// Optional features, as they stand in the node record: `aes` where the hardware has it.
    pub features: Vec<String>,
    /// The release, for people.
    pub release: String,
}

/// What to do where the store has no mesh yet. Where it has one, it is resumed and this is ignored, but for a token of
/// another mesh, which is refused.
pub enum Intent {
    /// Begin a mesh.
    Create {
        /// Its name; made up if `None`.
        name: Option<Nickname>,
        /// Where IPv4 addresses come from.
        range: Ipv4Net,
        /// The largest IP packet.
        mtu: Mtu,
        /// The creator's own address; the first of the range if `None`.
        address: Option<IpNet>,
    },
    /// Join by a token.
    Join {
        /// Admits us.
        token: Token,
        /// The address to ask for; the creator chooses if `None`.
        address: Option<IpNet>,
    },
    /// Only resume.
    Resume,
}

/// What stays as it was told.
struct Settings {
    keys: NodeKeys,
    nickname: Nickname,
    port: u16,
    advertise: Vec<SocketAddr>,
    features: Vec<String>,
    release: String,
}

/// One whole router.
pub struct Router {
    settings: Settings,
    crypto: Box<dyn Crypto>,
    started: Instant,
    boot: Boot,
    /// When this node last stepped past its own footsteps.
    stepped: Option<Instant>,
    life: Life,
    outputs: VecDeque<Output>,
    saves: BTreeMap<Ticket, After>,
    tickets: u64,
    conns: BTreeMap<ConnId, Conn>,
    dialer: Dialer,
    indices: IndexAllocator,
    local_addresses: Vec<IpAddr>,
    joining: Option<Joining>,
    mesh: Option<Mesh>,
    not_saved: Option<Problem>,
    /// Since when others say that another machine uses our identity.
    refused_as_clone: Option<Instant>,
    /// The last word of another machine that uses it.
    clone_seen: Option<Sighting>,
    /// How often frames have left one way for another, over all peers.
    switches: BTreeMap<Switching, u64>,
}

/// Another machine with our identity was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sighting {
    at: Instant,
    /// Where it was.
    from: SocketAddr,
    /// Who met it; `None` where it came to us.
    by: Option<NodeId>,
}

enum Life {
    /// The boot counter is not durable yet.
    Starting(VecDeque<Input>),
    Running,
    /// Final.
    Halted,
}

/// What waits for a save.
enum After {
    /// The boot counter is durable: go on.
    Awake,
    /// So is the later one that we step to.
    Stepped(Boot),
    /// A node was admitted: welcome it.
    Admitted(ConnId),
    /// An address was bound: tell the introducer.
    AddressBound {
        to: NodeId,
        request: u64,
        addresses: Vec<IpNet>,
    },
    /// A container is remembered: announce it.
    Attached {
        id: RequestId,
        mac: MacAddr,
        addresses: Vec<IpNet>,
        port: String,
    },
    /// We are in: begin as a member.
    Joined(ConnId),
    /// Records of ours are durable: pass them on, then reply.
    Announce {
        delta: crate::membership::MembershipDelta,
        reply: Option<(RequestId, crate::io::Reply)>,
    },
    /// Only the reply waits.
    Reply(RequestId, crate::io::Reply),
    /// We left: say so, then stop.
    Left {
        delta: crate::membership::MembershipDelta,
        id: RequestId,
    },
    Nothing,
}

impl Router {
    /// Takes in what happened.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        match &mut self.life {
            Life::Halted => {}
            Life::Running => self.dispatch(input, now),
            Life::Starting(deferred) => {
                if matches!(input, Input::Saved { .. } | Input::SaveFailed { .. }) {
                    self.dispatch(input, now);
                } else if deferred.len() < MAX_DEFERRED {
                    deferred.push_back(input);
                } else if let Input::Accepted { conn, .. } = input {
                    // A driver that has so much to say before it saved eight bytes has a dead disk.
                    self.outputs.push_back(Output::Close { conn });
                }
            }
        }
        self.settle(now);
    }

    /// Gives out what shall happen, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Says when it wants to be woken, and for what.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if !matches!(self.life, Life::Running) {
            return None;
        }
        let parts = [
            self.dialer.poll_timeout(),
            self.conns.values().filter_map(Conn::poll_timeout).min(),
            self.mesh.as_ref().and_then(Mesh::poll_timeout),
        ];
        parts.into_iter().flatten().min()
    }

    /// Wakes it.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !matches!(self.life, Life::Running) {
            return;
        }
        self.dialer.handle_timeout(&mut *self.crypto, now);
        self.wake_conns(now);
        self.wake_mesh(now);
        self.wake_overlays(now);
        self.settle(now);
    }

    fn dispatch(&mut self, input: Input, now: Instant) {
        match input {
            Input::Accepted { conn, from } => self.accept(conn, from, now),
            Input::ByControl { peer, datagrams } => self.by_control(peer, datagrams, now),
            Input::Closed { conn } => self.closed(conn, now),
            Input::Command { id, command } => self.command(id, command, now),
            Input::ConnectFailed { conn, why } => self.connect_failed(conn, why, now),
            Input::Connected { conn } => self.connected(conn, now),
            Input::GenesisChecked { conn, verdict } => self.genesis_checked(conn, verdict, now),
            Input::Heard { peer, from } => self.heard(peer, from, now),
            Input::LinkDatagram { from, bytes } => self.link_datagram(from, bytes, now),
            Input::LocalAddresses(addresses) => self.set_local_addresses(addresses),
            Input::PathAnswered(answer) => self.path_answered(&answer, now),
            Input::ProbeAnswered { peer, id, rtt } => self.probe_answered(peer, id, rtt),
            Input::Received { conn, bytes } => self.received(conn, &bytes, now),
            Input::Resolved { target, addresses } => {
                self.dialer
                    .handle_resolved(&target, addresses, &mut *self.crypto, now);
            }
            Input::SaveFailed { ticket, problem } => self.save_failed(ticket, problem, now),
            Input::Saved { ticket } => self.saved(ticket, now),
            Input::Sent { conn, bytes } => self.sent(conn, bytes),
            Input::SessionMessage { peer, bytes } => self.session_message(peer, &bytes, now),
            Input::SessionWanted { peer } => self.session_wanted(peer, now),
            Input::TooBig { to, datagram } => self.too_big(to, datagram, now),
            Input::Chatter { peer } => self.chatter(peer, now),
            Input::Traffic { peer, direction: _ } => self.traffic(peer, now),
        }
    }

    /// Lets the parts say what they want until none wants anything.
    fn settle(&mut self, now: Instant) {
        if !matches!(self.life, Life::Running) {
            return;
        }
        loop {
            let mut busy = self.pump_dialer();
            busy |= self.pump_links(now);
            busy |= self.pump_sessions(now);
            busy |= self.pump_overlays(now);
            if !busy {
                break;
            }
        }
        self.refresh(now);
        // What is known of the ways may have changed with that.
        while self.pump_overlays(now) | self.pump_sessions(now) {}
        self.answer_pings();
        self.repath();
        self.feed_links(now);
    }

    fn save(&mut self, changes: Vec<Change>, after: After) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.saves.insert(ticket, after);
        self.outputs.push_back(Output::Save { ticket, changes });
    }

    fn saved(&mut self, ticket: Ticket, now: Instant) {
        self.not_saved = None;
        match self.saves.remove(&ticket) {
            None | Some(After::Nothing) => {}
            Some(After::AddressBound {
                to,
                request,
                addresses,
            }) => self.tell_address(to, request, Ok(addresses), now),
            Some(After::Admitted(conn)) => self.welcome(conn, now),
            Some(After::Announce { delta, reply }) => {
                self.announce_membership(delta, now);
                if let Some((id, reply)) = reply {
                    self.outputs.push_back(Output::Reply { id, reply });
                }
            }
            Some(After::Attached {
                id,
                mac,
                addresses,
                port,
            }) => self.attached(id, mac, &addresses, port),
            Some(After::Awake) => self.awake(now),
            Some(After::Stepped(boot)) => self.step(boot, now),
            Some(After::Joined(conn)) => self.joined(conn, now),
            Some(After::Left { delta, id }) => self.left(delta, id, now),
            Some(After::Reply(id, reply)) => self.outputs.push_back(Output::Reply { id, reply }),
        }
    }

    fn save_failed(&mut self, ticket: Ticket, problem: Problem, now: Instant) {
        match self.saves.remove(&ticket) {
            None | Some(After::Nothing) => self.note_not_saved(problem),
            Some(After::AddressBound { to, request, .. }) => {
                self.tell_address(to, request, Err(problem.code), now);
                self.note_not_saved(problem);
            }
            Some(After::Admitted(conn)) => {
                self.refuse(conn, problem.code, now);
                self.note_not_saved(problem);
            }
            Some(
                After::Announce {
                    reply: Some((id, _)),
                    ..
                }
                | After::Attached { id, .. }
                | After::Left { id, .. }
                | After::Reply(id, _),
            ) => {
                self.outputs.push_back(Output::Reply {
                    id,
                    reply: crate::io::Reply::Failed(problem),
                });
            }
            Some(After::Announce { reply: None, .. }) => self.note_not_saved(problem),
            // Without a boot counter or a membership on disk there is nothing to run on.
            Some(After::Awake | After::Joined(_) | After::Stepped(_)) => self.halt(problem),
        }
    }

    fn note_not_saved(&mut self, problem: Problem) {
        if self.not_saved.as_ref() != Some(&problem) {
            self.outputs
                .push_back(Output::Event(Event::Problem(problem.clone())));
        }
        self.not_saved = Some(problem);
    }

    fn awake(&mut self, now: Instant) {
        let deferred = match std::mem::replace(&mut self.life, Life::Running) {
            Life::Starting(deferred) => deferred,
            life @ (Life::Halted | Life::Running) => {
                self.life = life;
                return;
            }
        };
        self.begin(now);
        for input in deferred {
            self.dispatch(input, now);
        }
    }

    fn halt(&mut self, problem: Problem) {
        self.life = Life::Halted;
        let open: Vec<ConnId> = self.conns.keys().copied().collect();
        self.outputs
            .extend(open.into_iter().map(|conn| Output::Close { conn }));
        self.outputs.push_back(Output::Halt(problem));
    }

    fn node(&self) -> NodeId {
        self.settings.keys.node()
    }

    /// Another machine has our key: it came to us, or somebody tells that it came there.
    fn clone_seen(&mut self, theirs: Boot, from: SocketAddr, by: Option<NodeId>, now: Instant) {
        if theirs.id == self.boot.id {
            return; // the restart that made this run, or this run as seen by who still knows the last
        }
        let known = self.clone_around(now).is_some();
        self.clone_seen = Some(Sighting { at: now, from, by });
        if let Some(problem) = self.clone_around(now).filter(|_| !known) {
            self.outputs
                .push_back(Output::Event(Event::Problem(problem)));
        }
    }

    /// What the original says of a clone, for as long as it may be about.
    fn clone_around(&self, now: Instant) -> Option<Problem> {
        let fresh = |seen: &&Sighting| now < seen.at + CLONE_WINDOW;
        let Sighting { from, by, .. } = self.clone_seen.as_ref().filter(fresh)?;
        let mesh = self.mesh.as_ref()?;
        let whom = by.map_or_else(|| "this node".to_owned(), |by| mesh.name_of(by));
        Some(
            Problem::new(Code::Clone, CLONE)
                .why(format!("it came to {whom} from {from} and was refused: a copied disk or virtual machine"))
                .fix(CLONE_CURE),
        )
    }

    /// Somebody writes in our name with a boot not below ours: a restored snapshot of ourselves, or a clone.
    fn meet_ourself(&mut self, theirs: Boot, now: Instant) {
        if theirs.counter < self.boot.counter || theirs.id == self.boot.id {
            return;
        }
        if self
            .stepped
            .is_some_and(|stepped| now < stepped + CLONE_WINDOW)
        {
            return self.halt(clone_problem());
        }
        self.stepped = Some(now);
        let boot = Boot {
            counter: theirs.counter + 1,
            id: BootId::new(self.crypto.array()),
        };
        let change = start::boot_change(boot.counter);
        self.save(vec![change], After::Stepped(boot));
    }

    /// The later boot is durable. To everybody else it is a restart: what they agreed on with the last run is void, so it
    /// is void here too, and every connection is made anew.
    fn step(&mut self, boot: Boot, now: Instant) {
        let linked: Vec<NodeId> = self
            .mesh
            .iter()
            .flat_map(|mesh| mesh.links.keys().copied())
            .collect();
        for node in linked {
            self.link_down(node, "this node steps past an earlier run of itself", now);
        }
        let open: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| !conn.closing)
            .map(|(&id, _)| id)
            .collect();
        for conn in open {
            self.give_up(conn, DialError::Handshake(None), now);
        }
        self.with_sessions(|sessions, around| sessions.set_boot(boot, around));
        self.boot = boot;
        self.announce_boot(now);
        self.ask_for_own_log(now);
    }

    /// After a start, or where a copy of our disk is in use: others may know more of our own log than we do.
    fn ask_for_own_log(&mut self, now: Instant) {
        if let Some(mesh) = &mut self.mesh {
            let others = mesh.membership.members().len() > 1;
            mesh.own_log.ask(others, now);
        }
    }
}

const CLONE: &str = "another machine uses this node's identity";
const CLONE_CURE: &str =
    "On the copy run `weft reset --force`, then join it with a token of its own";

fn clone_problem() -> Problem {
    Problem::new(Code::Clone, CLONE)
        .why("two routers with one key are running: a copied disk or virtual machine")
        .fix(CLONE_CURE)
}
