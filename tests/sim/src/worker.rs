//! What one host's packet workers hold: sessions with their lanes, what waits for a session, what was asked.
//!
//! Datagrams are not sealed here: who holds the session's index opens them, so a relay, which never does, cannot. Lanes,
//! counters, replay windows and everything that is reported to the core are those of the real workers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use weft_router_proto::overlay::Slot;
use weft_router_proto::session::SessionKeys;
use weft_router_proto::sleeve::SessionIndex;
use weft_router_proto::sleeve::window::Window;
use weft_types::NodeId;

use crate::datagram::{Content, Datagram, Parcel};

/// How many wait for a session.
const MAX_WAITING: usize = 64;
/// How long.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a session is asked for.
pub(crate) const ASK_AGAIN: Duration = Duration::from_millis(250);
/// How often the core is told what it knows already.
pub(crate) const SAY_AGAIN: Duration = Duration::from_secs(1);
/// How many split things are put together at once.
const MAX_WHOLES: usize = 256;

/// What a host's packet workers hold.
#[derive(Default)]
pub(crate) struct Workers {
    pub(crate) sessions: BTreeMap<SessionIndex, Session>,
    pub(crate) routes: BTreeMap<NodeId, Route>,
    pub(crate) links: BTreeSet<SessionIndex>,
    pub(crate) asked: BTreeMap<(NodeId, u64), Asked>,
    /// When full-size probes left.
    pub(crate) pings: BTreeMap<(NodeId, u64), Duration>,
    wholes: BTreeMap<(SessionIndex, u64), usize>,
    split: u64,
}

/// One session, by our index of it.
pub(crate) struct Session {
    pub(crate) peer: NodeId,
    pub(crate) keys: SessionKeys,
    /// Not sent by until something came in under it.
    pub(crate) held: bool,
    sealed: BTreeMap<u16, u64>,
    opened: BTreeMap<u16, Lane>,
    /// The last address that something came straight from, and when it was reported.
    pub(crate) heard: Option<(SocketAddr, Duration)>,
    pub(crate) said: Option<Duration>,
}

#[derive(Default)]
struct Lane {
    window: Window,
    highest: u64,
    received: u64,
}

/// What is sent to one peer.
#[derive(Default)]
pub(crate) struct Route {
    /// The session that is sent by.
    pub(crate) session: Option<SessionIndex>,
    waiting: VecDeque<(Duration, Parcel)>,
    pub(crate) asked: Option<Duration>,
    pub(crate) said: Option<Duration>,
    /// Datagrams of frames that left, by slot.
    pub(crate) sent: [u64; Slot::COUNT as usize],
}

/// A probe of a way that is out.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) session: SessionIndex,
    pub(crate) sent: u64,
    pub(crate) at: Duration,
}

/// Why a datagram yields nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Inauthentic,
    Replayed,
}

impl Workers {
    pub(crate) fn install(&mut self, peer: NodeId, keys: SessionKeys, held: bool) {
        let session = Session {
            peer,
            held,
            sealed: BTreeMap::new(),
            opened: BTreeMap::new(),
            heard: None,
            said: None,
            keys,
        };
        let local = session.keys.local;
        self.sessions.insert(local, session);
        if !held {
            self.begin(peer, local);
        }
    }

    /// Sends by a session from here on.
    pub(crate) fn begin(&mut self, peer: NodeId, local: SessionIndex) {
        let route = self.routes.entry(peer).or_default();
        route.session = Some(local);
        route.asked = None;
    }

    pub(crate) fn retire(&mut self, local: SessionIndex) {
        self.sessions.remove(&local);
        for route in self.routes.values_mut() {
            route.session.take_if(|session| *session == local);
        }
    }

    /// Puts something by until there is a session; whether one must be asked for.
    pub(crate) fn wait(&mut self, peer: NodeId, parcel: Parcel, now: Duration) -> bool {
        let route = self.routes.entry(peer).or_default();
        if route.waiting.len() < MAX_WAITING {
            route.waiting.push_back((now, parcel));
        }
        self.ask(peer, now)
    }

    /// Whether a session must be asked for.
    pub(crate) fn ask(&mut self, peer: NodeId, now: Duration) -> bool {
        let route = self.routes.entry(peer).or_default();
        let due = route.asked.is_none_or(|at| at + ASK_AGAIN <= now);
        if due {
            route.asked = Some(now);
        }
        due
    }

    /// Drops what has waited too long; whether anything is left.
    pub(crate) fn still_waits(&mut self, peer: NodeId, now: Duration) -> bool {
        let route = self.routes.entry(peer).or_default();
        route.waiting.retain(|(since, _)| now <= *since + PATIENCE);
        !route.waiting.is_empty()
    }

    /// What waited for a session, and may go.
    pub(crate) fn waited(&mut self, peer: NodeId, now: Duration) -> Vec<Parcel> {
        self.still_waits(peer, now);
        let route = self.routes.entry(peer).or_default();
        route.waiting.drain(..).map(|(_, parcel)| parcel).collect()
    }

    /// Whether something said now and then is to be said again.
    pub(crate) fn say(said: &mut Option<Duration>, now: Duration) -> bool {
        let due = said.is_none_or(|at| at + SAY_AGAIN <= now);
        if due {
            *said = Some(now);
        }
        due
    }

    /// Seals something for a peer; `None` without a session.
    pub(crate) fn seal(
        &mut self,
        peer: NodeId,
        lane: u16,
        content: Content,
        size: usize,
    ) -> Option<Datagram> {
        let local = self.routes.get(&peer)?.session?;
        let session = self.sessions.get_mut(&local)?;
        let next = session.sealed.entry(lane).or_default();
        let counter = *next;
        *next += 1;
        Some(Datagram {
            session: session.keys.remote,
            lane,
            counter,
            size,
            intact: true,
            content,
        })
    }

    /// Opens a datagram: whose it is.
    pub(crate) fn open(&mut self, datagram: &Datagram) -> Result<&mut Session, Refused> {
        let session = self
            .sessions
            .get_mut(&datagram.session)
            .filter(|_| datagram.intact)
            .ok_or(Refused::Inauthentic)?;
        let lane = session.opened.entry(datagram.lane).or_default();
        if !lane.window.accept(datagram.counter) {
            return Err(Refused::Replayed);
        }
        lane.highest = lane.highest.max(datagram.counter + 1);
        lane.received += 1;
        Ok(session)
    }

    /// What a lane of a session has opened: one more than the highest counter, and how many.
    pub(crate) fn arrivals(&self, session: SessionIndex, lane: u16) -> (u64, u64) {
        let lane = self
            .sessions
            .get(&session)
            .and_then(|session| session.opened.get(&lane));
        lane.map_or((0, 0), |lane| (lane.highest, lane.received))
    }

    /// The number of the next thing that is split.
    pub(crate) const fn next_whole(&mut self) -> u64 {
        self.split += 1;
        self.split
    }

    /// Takes a piece; whether it was the last that was missing.
    pub(crate) fn join(&mut self, session: SessionIndex, whole: u64, of: usize) -> bool {
        let there = self.wholes.entry((session, whole)).or_default();
        *there += 1;
        if *there >= of {
            self.wholes.remove(&(session, whole));
            return true;
        }
        if self.wholes.len() > MAX_WHOLES {
            self.wholes.pop_first();
        }
        false
    }
}
