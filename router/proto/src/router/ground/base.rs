//! What is there in every life of a router, and what a part may use of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use weft_types::{Boot, NodeId, Problem};

use super::answers::Answers;
use super::clones::Clones;
use super::conn::{Conn, ConnEvent};
use super::mesh::Mesh;
use super::saves::{Part, Saves, Undo, Waiter};
use super::settings::Settings;
use crate::crypto::Crypto;
use crate::dialer::Dialer;
use crate::handshake::Ourself;
use crate::io::{ConnId, DataPlane, Event, Output, Reply, RequestId, Ticket};
use crate::session::IndexAllocator;
use crate::store::Change;

/// Addresses of one node that others try: a host has few that lead anywhere.
const MAX_REACHABLE: usize = 16;

/// What is there in every life of a router.
pub(crate) struct Ground {
    pub(crate) settings: Settings,
    pub(crate) crypto: Box<dyn Crypto>,
    pub(crate) started: Instant,
    pub(crate) boot: Boot,
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    pub(crate) dialer: Dialer,
    pub(crate) indices: IndexAllocator,
    /// The most useful first, as far as the host can tell.
    local_addresses: Vec<IpAddr>,
    /// Those that a neighbour has seen our datagrams come from, the first of them first.
    proven: Vec<IpAddr>,
    pub(super) outputs: VecDeque<Output>,
    /// What connections have brought and nobody has looked at.
    pub(super) events: VecDeque<(ConnId, ConnEvent)>,
    saves: Saves,
    pub(super) clones: Clones,
    pub(super) answers: Answers,
    /// It cannot go on.
    halted: bool,
}

/// What a part may use, for the time of one call.
pub(crate) struct Reach<'a> {
    pub(crate) ground: &'a mut Ground,
    pub(crate) mesh: &'a mut Mesh,
}

impl Ground {
    pub(crate) fn new(
        settings: Settings,
        boot: Boot,
        dialer: Dialer,
        crypto: Box<dyn Crypto>,
        now: Instant,
    ) -> Self {
        Self {
            settings,
            crypto,
            started: now,
            boot,
            conns: BTreeMap::new(),
            dialer,
            indices: IndexAllocator::default(),
            local_addresses: Vec::new(),
            proven: Vec::new(),
            outputs: VecDeque::new(),
            events: VecDeque::new(),
            saves: Saves::default(),
            clones: Clones::default(),
            answers: Answers::default(),
            halted: false,
        }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.settings.keys.node()
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.push(Output::Event(event));
    }

    pub(crate) fn data_plane(&mut self, told: DataPlane) {
        self.push(Output::DataPlane(told));
    }

    pub(crate) fn reply(&mut self, id: RequestId, reply: Reply) {
        self.push(Output::Reply { id, reply });
    }

    /// Stops for good: closes everything and says why. Final.
    pub(crate) fn halt(&mut self, problem: Problem) {
        self.halted = true;
        let open: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in open {
            self.push(Output::Close { conn });
        }
        self.push(Output::Halt(problem));
    }

    pub(crate) const fn is_halted(&self) -> bool {
        self.halted
    }

    /// Takes the host's addresses; whether they have changed.
    pub(crate) fn set_local_addresses(&mut self, addresses: Vec<IpAddr>) -> bool {
        let changed = self.local_addresses != addresses;
        self.proven.retain(|it| addresses.contains(it));
        self.local_addresses = addresses;
        changed
    }

    /// A neighbour has seen a datagram of ours come from an address; whether that one is ours, and it is news.
    pub(crate) fn note_proven(&mut self, address: IpAddr) -> bool {
        let news = self.local_addresses.contains(&address) && !self.proven.contains(&address);
        if news {
            self.proven.push(address);
        }
        news
    }

    /// Where this node says that it can be reached: what a person said first, then what others have seen it come from, then
    /// its other addresses. Only so many are told: those that lead nowhere are not to push out those that do.
    pub(crate) fn reachable_at(&self) -> Vec<SocketAddr> {
        let usable = |address: &&IpAddr| {
            !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
        };
        let local = self.proven.iter().chain(&self.local_addresses);
        let local = local.filter(usable);
        let local = local.map(|&ip| SocketAddr::new(ip, self.settings.port));
        let mut seen = BTreeSet::new();
        let all = self.settings.advertise.iter().copied().chain(local);
        all.filter(|address| seen.insert(*address))
            .take(MAX_REACHABLE)
            .collect()
    }

    /// What this node says of itself in every handshake.
    pub(crate) fn ourself(&self, mesh: weft_types::MeshId) -> Ourself {
        Ourself {
            keys: self.settings.keys.clone(),
            mesh,
            boot: self.boot,
            nickname: self.settings.nickname.clone(),
            features: self.settings.features.clone(),
            port: self.settings.port,
            wanted: None,
            genesis: None,
        }
    }

    /// When something of it is due.
    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let conns = self.conns.values().filter_map(Conn::poll_timeout).min();
        [self.dialer.poll_timeout(), conns]
            .into_iter()
            .flatten()
            .min()
    }
}

/// What has to be durable before something else happens.
impl Ground {
    /// Makes changes durable; nobody waits.
    pub(crate) fn save(&mut self, changes: Vec<Change>) {
        self.begin_save(changes, Waiter::Nobody);
    }

    /// The same where there is anything to save.
    pub(crate) fn save_if_any(&mut self, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.save(changes);
        }
    }

    /// Makes changes durable, then answers a command.
    pub(crate) fn save_then_reply(&mut self, changes: Vec<Change>, id: RequestId, reply: Reply) {
        self.begin_save(changes, Waiter::Reply(id, reply));
    }

    /// Makes changes durable, then tells a part: it finds by the ticket what it wanted to do.
    pub(crate) fn save_for(&mut self, part: Part, changes: Vec<Change>) -> Ticket {
        self.begin_save(changes, Waiter::Part(part))
    }

    fn begin_save(&mut self, changes: Vec<Change>, waiter: Waiter) -> Ticket {
        let ticket = self.saves.begin(waiter);
        self.push(Output::Save { ticket, changes });
        ticket
    }

    /// Makes changes durable, then answers a command and tells a part.
    pub(crate) fn save_then_reply_for(
        &mut self,
        part: Part,
        changes: Vec<Change>,
        (id, reply): (RequestId, Reply),
    ) -> Ticket {
        self.begin_save(changes, Waiter::ReplyAndPart(id, reply, part))
    }

    /// Makes targets durable, then answers a command.
    pub(super) fn save_targets(&mut self, changes: Vec<Change>, id: RequestId, undo: Undo) {
        self.begin_save(changes, Waiter::Targets(id, undo));
    }

    /// A save is durable. Gives the part that waits.
    pub(crate) fn saved(&mut self, ticket: Ticket) -> Option<Part> {
        match self.saves.done(ticket)? {
            Waiter::Nobody => None,
            Waiter::Part(part) => Some(part),
            Waiter::Reply(id, reply) => {
                self.reply(id, reply);
                None
            }
            Waiter::ReplyAndPart(id, reply, part) => {
                self.reply(id, reply);
                Some(part)
            }
            Waiter::Targets(id, _) => {
                self.reply(id, Reply::Done);
                None
            }
        }
    }

    /// A save failed. Gives the part that waits.
    pub(crate) fn save_failed(
        &mut self,
        ticket: Ticket,
        problem: &Problem,
        now: Instant,
    ) -> Option<Part> {
        let told = match self.saves.failed(ticket) {
            Waiter::Nobody => None,
            Waiter::Part(part) => Some(part),
            Waiter::Reply(id, _) => {
                self.reply(id, Reply::Failed(problem.clone()));
                None
            }
            Waiter::ReplyAndPart(id, _, part) => {
                self.reply(id, Reply::Failed(problem.clone()));
                Some(part)
            }
            Waiter::Targets(id, undo) => {
                self.undo_targets(undo, now);
                self.reply(id, Reply::Failed(problem.clone()));
                None
            }
        };
        self.note_not_saved(problem);
        told
    }

    /// Shows that something is not durable, once for each cause.
    fn note_not_saved(&mut self, problem: &Problem) {
        if let Some(news) = self.saves.note(problem).cloned() {
            self.event(Event::Problem(news));
        }
    }

    /// Why the last save failed, until one succeeds.
    pub(crate) const fn not_saved(&self) -> Option<&Problem> {
        self.saves.failing()
    }
}
