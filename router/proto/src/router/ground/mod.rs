//! What everything in a router stands on: who it is, its connections, its outputs and its saves; and, for a member, the
//! mesh as all know it.
//!
//! ```text
//!             Member (composes)      report (tells people)
//!                │      │
//!             parts: pings, traces, transit, endpoints, tokens, addresses, ways, …      none knows another
//!                │
//!             Reach = Ground + Mesh ──▶ membership, registers, topology, connections, links, mail
//! ```
//!
//! [`Ground`] is there in every life, [`Mesh`] for a member. A part gets both as [`Reach`] for the time of one call: it
//! reads what it likes, and changes them by verbs only.
//!
//! **Invariant.** Nothing here knows a part.

pub(crate) mod clones;
pub(crate) mod conns;
pub(crate) mod door;
pub(crate) mod facts;
pub(crate) mod forwarding;
pub(crate) mod letters;
pub(crate) mod links;
pub(crate) mod mesh;
pub(crate) mod news;
pub(crate) mod own_log;
pub(crate) mod saves;
pub(crate) mod targets;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use weft_types::{Boot, Nickname, NodeId, Problem};

use crate::crypto::Crypto;
use crate::dialer::Dialer;
use crate::handshake::Ourself;
use crate::identity::NodeKeys;
use crate::io::{ConnId, DataPlane, Event, Output, Reply, RequestId};
use crate::session::IndexAllocator;
use clones::Clones;
use conns::{Conn, ConnEvent};
use mesh::Mesh;
use saves::Saves;

/// Addresses of one node that others try: a host has few that lead anywhere.
const MAX_REACHABLE: usize = 16;

/// What stays as it was told.
pub(crate) struct Settings {
    pub(crate) keys: NodeKeys,
    pub(crate) nickname: Nickname,
    pub(crate) port: u16,
    pub(crate) advertise: Vec<SocketAddr>,
    pub(crate) features: Vec<String>,
    pub(crate) release: String,
}

/// What is there in every life of a router.
pub(crate) struct Ground {
    pub(crate) settings: Settings,
    pub(crate) crypto: Box<dyn Crypto>,
    pub(crate) started: Instant,
    pub(crate) boot: Boot,
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    pub(crate) dialer: Dialer,
    pub(crate) indices: IndexAllocator,
    local_addresses: Vec<IpAddr>,
    outputs: VecDeque<Output>,
    /// What connections have brought and nobody has looked at.
    events: VecDeque<(ConnId, ConnEvent)>,
    saves: Saves,
    clones: Clones,
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
            outputs: VecDeque::new(),
            events: VecDeque::new(),
            saves: Saves::default(),
            clones: Clones::default(),
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
        self.local_addresses = addresses;
        changed
    }

    /// Where this node says that it can be reached: what a person said first, then its interfaces.
    pub(crate) fn reachable_at(&self) -> Vec<SocketAddr> {
        let usable = |address: &&IpAddr| {
            !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
        };
        let local = self.local_addresses.iter().filter(usable);
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
