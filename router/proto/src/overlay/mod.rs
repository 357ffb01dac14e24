//! Decides by which way the frames for one peer travel.
//!
//! *Via* names a way, *way* is what is known of one, *path* is the way in use with its lanes and its size. Better ways first
//! (`choice` has the order in full):
//!
//! ```text
//!   direct, answers │ over a member, answers │ direct, its link is up │ over a member, not asked │ one in doubt │ control │ none
//! ```
//!
//! Every way that is known is a candidate: addresses of the peer, other members that reach it, the control connections.
//! While frames travel the way in use is probed by sealed datagrams that come back by the same way; what would be better
//! is probed as well, and what could take over when the way in use is none of the best. Ways are judged by their answers
//! (`way`), by what the peer counts of the frames (`delivery`), and where no frames travel by the heartbeats of the
//! control link. `search` finds how large a datagram each way carries.
//!
//! **Invariant.** There is a path while any way is known, however hopeless: frames that may be lost are better than frames
//! that are not sent. A way that works is left only for one that has answered, or when it does not work any more.
//! **Failure policy.** Answers that nobody asked for, or that come too late, change nothing.
//!
//! Each switch takes the next [`Slot`], so that lanes tell ways apart.

mod choice;
mod delivery;
mod keep;
mod known;
mod path;
mod search;
mod switch;
#[cfg(test)]
mod tests;
mod unproved;
mod way;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use choice::{Choice, Decision};
use keep::Keep;
pub use keep::Turn;
pub use known::{Known, LinkState};
pub use path::{Path, PathAnswer, Via};
use search::Search;
pub use switch::{Reason, Switch};
pub use unproved::Unproved;
use way::{Asked, Health, Role, Way};

pub use crate::lanes::{ANSWER_LANE, RELAY_CONTROL_LANE, RELAY_FRAMES_LANE, Slot, TRIAL_LANE};
use crate::routes::Detour;
pub use crate::sleeve::relayed::RELAY_OVERHEAD;

/// How long after the last frame a peer's ways are probed.
const ACTIVE: Duration = Duration::from_secs(10);
/// How long after frames were last said to travel some are taken to travel still: it is said once a second.
const BUSY: Duration = Duration::from_millis(1500);
/// How long all addresses are tried often after it was seen that none answers: NATs on both sides open by that.
const EAGER: Duration = Duration::from_secs(4);
/// Between two letters that ask the peer to try our addresses.
const PUNCH: Duration = Duration::from_secs(5);
/// How long the peer's heartbeats are waited for before frames go elsewhere: datagrams of a young link are under way.
const YOUNG: Duration = Duration::from_millis(1500);
/// How many addresses of a peer are tried.
const MAX_ADDRESSES: usize = 12;
/// How many of them were learnt from datagrams.
const MAX_LEARNT: usize = 4;
/// How many members are tried as relays.
const MAX_RELAYS: usize = 3;
/// How many switches are remembered for people.
pub const HISTORY: usize = 8;

/// What an overlay is told.
#[derive(Clone, Debug, PartialEq)]
pub enum OverlayInput<'a> {
    /// A probe came back.
    Answer(&'a PathAnswer),
    /// Frames travel to or from the peer that everybody gets, few and small.
    Chatter,
    /// An authentic datagram of the peer came directly from an address.
    Heard(SocketAddr),
    /// What the rest of the core knows by now.
    Known(Known),
    /// A direct way works: the relays would be out of date by the time they are needed.
    NoRelays,
    /// The peer asks us to try these addresses, as it tries ours.
    Punch(&'a [SocketAddr]),
    /// The members that could relay, best first.
    Relays(&'a [Detour]),
    /// Whether there is a session with the peer: without one nothing can be asked.
    Session(bool),
    /// Somebody says that a datagram of more than this size does not get there: a hint.
    TooBig {
        /// Where it was sent to.
        to: SocketAddr,
        /// The largest UDP payload that is said to pass.
        datagram: u16,
    },
    /// Frames travel to or from the peer.
    Traffic,
}

/// What an overlay wants done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OverlayOutput {
    /// Send a probe by one way.
    Probe {
        /// Which.
        via: Via,
        /// By whose lanes.
        slot: Option<Slot>,
        /// Comes back.
        id: u64,
        /// How large a datagram.
        datagram: u16,
    },
    /// Ask the peer to try our addresses: no way is direct, and both ends must send to open a NAT.
    Punch,
    /// Another way is in use.
    Switched(Switch),
}

/// What people are shown of the way in use.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Which.
    pub path: Path,
    /// Whether it answers, as far as is known.
    pub works: bool,
    /// Since when and why.
    pub switch: Switch,
    /// The largest IP packet of the underlay that is known to pass; `None` where nothing is cut.
    pub mtu: Option<u16>,
    /// Smoothed round trip of probes.
    pub rtt: Option<Duration>,
    /// Share of frames or probes lost, 0 to 1; `None` where nothing measures it: no frames travel.
    pub loss: Option<f64>,
}

/// The ways to one peer.
#[derive(Debug)]
pub struct Overlay {
    /// The longest datagram that the mesh's frames could fill.
    largest: u16,
    known: Known,
    /// Members that could relay; `None` where nobody has looked since they were last of use.
    relays: Option<Vec<Detour>>,
    ways: BTreeMap<Via, Way>,
    /// Addresses that authentic datagrams came from, oldest first.
    learnt: VecDeque<SocketAddr>,
    /// Addresses that the peer asked us to try.
    asked: Vec<SocketAddr>,
    current: Option<Current>,
    session: bool,
    active_until: Option<Instant>,
    busy_until: Option<Instant>,
    eager_until: Option<Instant>,
    punch_at: Option<Instant>,
    young_until: Option<Instant>,
    keep: Keep,
    ids: u64,
    history: VecDeque<Switch>,
    outputs: VecDeque<OverlayOutput>,
    /// When it was last told something: what is due at once is due since then.
    told: Instant,
}

/// The way in use.
#[derive(Clone, Copy, Debug)]
struct Current {
    via: Via,
    slot: Slot,
    switch: Switch,
}

impl Overlay {
    /// Knows nothing yet. `largest` is the MTU that would carry any frame of the mesh in one datagram; the peer's end has
    /// the other turn.
    pub fn new(largest: u16, turn: Turn, now: Instant) -> Self {
        Self {
            largest,
            known: Known::default(),
            relays: None,
            ways: BTreeMap::new(),
            learnt: VecDeque::new(),
            asked: Vec::new(),
            current: None,
            session: false,
            active_until: None,
            busy_until: None,
            eager_until: None,
            punch_at: None,
            young_until: None,
            keep: Keep::new(turn),
            ids: 0,
            history: VecDeque::new(),
            outputs: VecDeque::new(),
            told: now,
        }
    }

    /// Remembers the switches of a peer that was away meanwhile, oldest first.
    #[must_use]
    pub fn after(mut self, past: VecDeque<Switch>) -> Self {
        self.history = past;
        self
    }

    /// Takes what happened or has become known.
    pub fn handle_input(&mut self, input: OverlayInput<'_>, now: Instant) {
        self.told = now;
        match input {
            OverlayInput::Answer(answer) => self.handle_answer(answer, now),
            OverlayInput::Chatter => self.handle_chatter(now),
            OverlayInput::Heard(from) => self.handle_heard(from, now),
            OverlayInput::Known(known) => self.set_known(known, now),
            OverlayInput::NoRelays => self.forget_relays(now),
            OverlayInput::Punch(addresses) => self.handle_punch(addresses, now),
            OverlayInput::Relays(relays) => self.set_relays(relays, now),
            OverlayInput::Session(session) => self.set_session(session, now),
            OverlayInput::TooBig { to, datagram } => {
                if let Some(way) = self.ways.get_mut(&Via::Direct(to)) {
                    way.handle_hint(datagram, now);
                }
            }
            OverlayInput::Traffic => self.handle_traffic(now),
        }
    }

    fn set_known(&mut self, known: Known, now: Instant) {
        if self.known == known {
            return;
        }
        let before = std::mem::replace(&mut self.known, known);
        if let LinkState::Trying(_) = self.known.link
            && !matches!(before.link, LinkState::Trying(_))
        {
            self.young_until = Some(now + YOUNG);
        }
        self.gather();
        if before.control && self.is_alone() {
            // What lay between has gone: whether frames still pass is found out at once.
            self.be_active(now);
        }
        if before.link != self.known.link {
            self.trust_heartbeats(now);
        }
        if let LinkState::Passes(address) | LinkState::Trying(address) = before.link
            && self.known.link == LinkState::Silent
            && !self.is_active(now)
            && let Some(way) = self.ways.get_mut(&Via::Direct(address))
        {
            way.health = Health::Untried;
        }
        self.choose(now);
    }

    /// Takes authentic heartbeats that went by a way and came back for an answer of it, where nobody asks more closely.
    fn trust_heartbeats(&mut self, now: Instant) {
        let active = self.is_active(now);
        if let LinkState::Passes(address) = self.known.link
            && let Some(way) = self.ways.get_mut(&Via::Direct(address))
            && (way.health == Health::Untried || (!active && way.health != Health::Good))
        {
            way.handle_heartbeats(now);
        }
    }

    fn set_relays(&mut self, relays: &[Detour], now: Instant) {
        let relays = &relays[..relays.len().min(MAX_RELAYS)];
        if self.relays.as_deref() != Some(relays) {
            self.relays = Some(relays.to_vec());
            self.gather();
            self.choose(now);
        }
    }

    fn forget_relays(&mut self, now: Instant) {
        if self.relays.take().is_some_and(|relays| !relays.is_empty()) {
            self.gather();
            self.choose(now);
        }
    }

    /// Whether [`OverlayInput::Relays`] would be of use: no direct way is known to work, or the last probe of each that did
    /// was not answered.
    pub fn wants_relays(&self) -> bool {
        !self.is_sound()
    }

    /// Whether they are wanted and nobody has looked for them.
    pub fn lacks_relays(&self) -> bool {
        self.relays.is_none() && self.wants_relays()
    }

    fn set_session(&mut self, session: bool, now: Instant) {
        if self.session == session {
            return;
        }
        self.session = session;
        for way in self.ways.values_mut() {
            way.forget_probes();
        }
        self.choose(now);
    }

    fn handle_traffic(&mut self, now: Instant) {
        self.keep.handle_traffic(now);
        self.busy_until = Some(now + BUSY);
        self.be_active(now);
    }

    /// Where heartbeats go by the way in use they tell when it dies, and a frame so small passes where a heartbeat does. Any
    /// other way is looked after as after a frame.
    fn handle_chatter(&mut self, now: Instant) {
        self.keep.handle_traffic(now);
        let vouched = match (self.known.link, self.current) {
            (LinkState::Passes(address), Some(current)) => current.via == Via::Direct(address),
            (LinkState::Passes(_) | LinkState::Silent | LinkState::Trying(_), _) => false,
        };
        if !vouched {
            self.be_active(now);
        }
    }

    fn handle_heard(&mut self, from: SocketAddr, now: Instant) {
        let via = Via::Direct(from);
        if let Some(way) = self.ways.get_mut(&via) {
            way.used = Some(now);
            return;
        }
        if self.learnt.len() == MAX_LEARNT {
            self.learnt.pop_front();
        }
        self.learnt.push_back(from);
        self.gather();
        self.be_eager(now);
    }

    fn handle_punch(&mut self, addresses: &[SocketAddr], now: Instant) {
        self.asked = addresses.iter().copied().take(MAX_LEARNT).collect();
        self.gather();
        self.be_eager(now);
    }

    fn handle_answer(&mut self, answer: &PathAnswer, now: Instant) {
        let answered = self.ways.iter_mut().find_map(|(&via, way)| {
            let question = way.handle_answer(answer.id, answer.rtt, now)?;
            Some((via, question))
        });
        let Some((via, question)) = answered else {
            return;
        };
        if question == Asked::Keep {
            self.keep.handle_answer(now);
        }
        let counted = question == Asked::Frames;
        let current = self.current.filter(|current| counted && current.via == via);
        if let (Some(current), Some(way)) = (current, self.ways.get_mut(&via))
            && current.switch.at + way.patience() <= now
        {
            let verdict = way.delivery.add(answer, now);
            way.loss = verdict.loss;
            if verdict.is_bad && matches!(via, Via::Relay(_)) && !way.is_bad(now) {
                way.avoid(now);
            }
        }
        self.choose(now);
    }

    /// Gives out what shall happen, in order.
    pub fn poll_output(&mut self) -> Option<OverlayOutput> {
        self.outputs.pop_front()
    }

    /// Says when it wants to be woken, and for what.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let now = self.told;
        let young = self
            .young_until
            .map(|at| (at, "a young link has had its time"));
        if !self.session {
            return young;
        }
        let eager = self.is_eager(now);
        let ways = self.ways.iter().filter_map(|(via, way)| {
            way.poll_timeout(self.role(*via, now), eager, now)
                .map(|at| (at, "a way is probed"))
        });
        let active = self.active_until.map(|at| (at, "a peer has gone quiet"));
        let punch = self
            .wants_punch(now)
            .then(|| (self.punch_at.unwrap_or(now), "a peer is asked to try"));
        let keep = self.keep_at(now).map(|at| (at, "a mapping is kept"));
        ways.chain(young)
            .chain(active)
            .chain(punch)
            .chain(keep)
            .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.told = now;
        self.young_until.take_if(|at| *at <= now);
        if self.is_alone() && self.is_held() {
            // Nothing else tells whether the peer is there.
            self.active_until = Some(now + ACTIVE);
        }
        if self.active_until.take_if(|at| *at <= now).is_some() {
            for way in self.ways.values_mut() {
                way.forget_probes();
            }
            self.trust_heartbeats(now);
        }
        if self.session {
            let mut lost = false;
            for (&via, way) in &mut self.ways {
                let used = self.current.filter(|current| current.via == via);
                if way.handle_timeout(now)
                    && let Some(used) = used
                {
                    lost |= self.active_until.is_none();
                    way.died_in_use(used.switch.at, now);
                }
            }
            if lost {
                // It was quiet for longer than the mapping lived. It is made anew before a frame needs it.
                self.keep.handle_loss(now);
                self.be_active(now);
            }
        }
        self.choose(now);
        if !self.session {
            return;
        }
        if !self.wants_punch(now) {
            self.punch_at = None;
        } else if self.punch_at.is_none_or(|at| at <= now) {
            if self.punch_at.is_none() {
                self.be_eager(now);
            }
            self.punch_at = Some(now + PUNCH);
            self.outputs.push_back(OverlayOutput::Punch);
        }
        self.probe(now);
    }

    /// The way in use.
    pub fn path(&self) -> Option<Path> {
        let current = self.current?;
        let way = self.ways.get(&current.via)?;
        Some(Path {
            via: current.via,
            slot: current.slot,
            datagram: way.search.confirmed(),
        })
    }

    /// Every way that is tried.
    #[cfg(test)]
    pub(crate) fn candidates(&self) -> impl Iterator<Item = Via> {
        self.ways.keys().copied()
    }

    /// What people are shown.
    pub fn report(&self) -> Option<Report> {
        let current = self.current?;
        let way = self.ways.get(&current.via)?;
        Some(Report {
            path: self.path()?,
            works: matches!(way.health, Health::Good) || current.via == Via::Control,
            switch: current.switch,
            mtu: way.search.mtu(),
            rtt: way.trip.smoothed(),
            loss: (self.active_until.is_some()).then(|| way.loss.max(way.probe_loss())),
        })
    }

    /// Whether frames pass to the peer and back, straight and without a link: it is there, whatever becomes of those between.
    pub fn is_held(&self) -> bool {
        let way = self.current.and_then(|current| {
            let direct = matches!(current.via, Via::Direct(_));
            self.ways.get(&current.via).filter(|_| direct)
        });
        let answers = way.is_some_and(|way| way.health == Health::Good);
        answers && self.session && self.known.link == LinkState::Silent
    }

    /// Whether no control connection leads to the peer.
    pub const fn is_alone(&self) -> bool {
        !self.known.control
    }

    /// The last switches, oldest first.
    pub fn history(&self) -> impl Iterator<Item = &Switch> {
        self.history.iter()
    }

    /// Makes the candidates what is known.
    fn gather(&mut self) {
        let link = match self.known.link {
            LinkState::Passes(address) | LinkState::Trying(address) => Some(address),
            LinkState::Silent => None,
        };
        let mut wanted: Vec<Via> = Vec::new();
        let addresses = link
            .into_iter()
            .chain(self.learnt.iter().rev().copied())
            .chain(self.asked.iter().copied())
            .chain(self.known.addresses.iter().copied())
            .map(Via::Direct);
        for via in addresses {
            if !wanted.contains(&via) && wanted.len() < MAX_ADDRESSES {
                wanted.push(via);
            }
        }
        wanted.extend(self.detours().map(|detour| Via::Relay(detour.by)));
        if self.known.control {
            wanted.push(Via::Control);
        }
        // What is in use stays until something else is chosen.
        let current = self.current.map(|current| current.via);
        let stays = |via: &Via| {
            wanted.contains(via) || (Some(*via) == current && matches!(via, Via::Direct(_)))
        };
        self.ways.retain(|via, _| stays(via));
        for via in wanted {
            let largest = self.largest;
            self.ways
                .entry(via)
                .or_insert_with(|| Way::new(Search::new(via, largest)));
        }
    }

    fn is_active(&self, now: Instant) -> bool {
        self.active_until.is_some_and(|until| now < until)
    }

    /// Looks after the ways as long as after a frame.
    fn be_active(&mut self, now: Instant) {
        let was = self.is_active(now);
        self.active_until = Some(now + ACTIVE);
        if !was {
            for way in self.ways.values_mut() {
                way.forget_probes();
            }
            self.choose(now);
        }
    }

    fn is_eager(&self, now: Instant) -> bool {
        self.eager_until.is_some_and(|until| now < until)
    }

    fn be_eager(&mut self, now: Instant) {
        self.eager_until = Some(now + EAGER);
    }

    /// Whether a direct way is known to work, and also when it is used.
    fn has_direct(&self, now: Instant) -> bool {
        self.ways.iter().any(|(via, way)| {
            matches!(via, Via::Direct(_)) && way.health == Health::Good && !way.is_bad(now)
        })
    }

    /// Whether a direct way works, and its last probe says so too; since the one in use is in doubt no older one counts.
    fn is_sound(&self) -> bool {
        let doubt = self.doubt();
        self.ways.iter().any(|(via, way)| {
            let works = way.is_sound() && !way.is_bad(self.told);
            matches!(via, Via::Direct(_)) && works && way.is_vouched_since(doubt)
        })
    }

    /// Since when the way in use is in doubt, if it is direct.
    fn doubt(&self) -> Option<Instant> {
        let via = self.current?.via;
        let way = self.ways.get(&via)?;
        way.doubted().filter(|_| matches!(via, Via::Direct(_)))
    }

    fn wants_punch(&self, now: Instant) -> bool {
        self.session
            && self.is_active(now)
            && !self.has_direct(now)
            && !matches!(self.known.link, LinkState::Trying(_))
    }

    fn role(&self, via: Via, now: Instant) -> Role {
        let current = self.current.map(|current| current.via);
        let active = self.is_active(now);
        if via == Via::Control || !(active || self.is_eager(now)) {
            return Role::Idle;
        }
        if active && current == Some(via) {
            let busy = self.busy_until.is_some_and(|until| now < until);
            return Role::Current { busy };
        }
        let works = |via: &Via| {
            let way = self.ways.get(via);
            way.is_some_and(|way| way.health == Health::Good)
        };
        let sound = |via: &Via| self.ways.get(via).is_some_and(Way::is_sound);
        match via {
            // One that works is enough; those that are nearer are tried while all are.
            Via::Direct(_) if self.is_eager(now) || !self.has_direct(now) => Role::Better,
            // That it worked once says little: whatever broke the other may have broken it too.
            Via::Direct(_) if works(&via) && !current.as_ref().is_some_and(sound) => Role::Rival,
            Via::Direct(_) | Via::Control => Role::Idle,
            Via::Relay(_) if active && !self.is_sound() => Role::Standby,
            Via::Relay(_) => Role::Idle,
        }
    }

    fn keep_at(&self, now: Instant) -> Option<Instant> {
        let interval = self.keep.interval(now)?;
        let via = self.current.map(|current| current.via)?;
        // Heartbeats keep the mapping of a linked peer. Whether there is one, no address tells: a firewall forgets as a
        // translator does.
        let linked = matches!(self.known.link, LinkState::Passes(_));
        if linked || self.is_active(now) || !matches!(via, Via::Direct(_)) {
            return None;
        }
        self.ways.get(&via)?.keep_at(interval)
    }

    fn probe(&mut self, now: Instant) {
        let eager = self.is_eager(now);
        let current = self.current;
        let roles: Vec<(Via, Role)> = self
            .ways
            .keys()
            .map(|&via| (via, self.role(via, now)))
            .collect();
        // One that was just left is probed as closely as the one that took over, if it could be mistaken.
        let in_doubt = current
            .and_then(|current| self.ways.get(&current.via))
            .is_some_and(|way| !way.is_sound() || way.is_bad(now));
        for (via, role) in roles {
            let Some(way) = self.ways.get_mut(&via) else {
                continue;
            };
            let eager = eager || (in_doubt && role == Role::Standby);
            let slot = current
                .filter(|current| current.via == via)
                .map(|current| current.slot);
            while let Some(probe) = way.poll(role, eager, &mut self.ids, now) {
                self.outputs.push_back(OverlayOutput::Probe {
                    via,
                    slot: slot.filter(|_| probe.counted),
                    id: probe.id,
                    datagram: probe.datagram,
                });
            }
        }
        if let Some(at) = self.keep_at(now)
            && at <= now
            && let Some(current) = current
            && let Some(way) = self.ways.get_mut(&current.via)
        {
            let probe = way.keep(&mut self.ids, now);
            self.outputs.push_back(OverlayOutput::Probe {
                via: current.via,
                slot: None,
                id: probe.id,
                datagram: probe.datagram,
            });
        }
    }

    /// Takes the best way, if it is better than the one in use.
    fn choose(&mut self, now: Instant) {
        if self.current.is_some() && self.lacks_relays() {
            return; // they are being looked for
        }
        let choice = Choice {
            ways: &self.ways,
            current: self.current.map(|current| current.via),
            doubt: self.doubt(),
            link: self.known.link,
            young: self.young_until.is_some_and(|until| now < until),
            addresses: &self.known.addresses,
            detours: self.relays.as_deref().unwrap_or_default(),
        };
        match choice.decide(now) {
            Decision::Nothing => self.current = None,
            Decision::Stay => {}
            Decision::Take(via, reason) => self.switch(via, reason, now),
        }
    }

    /// Where the way in use has died and none that is direct takes over: those that answer no more are dead as well, though
    /// they had longer to answer.
    fn leave_together(&mut self, to: Via) {
        let doubt = self.doubt();
        if matches!(to, Via::Direct(_)) || doubt.is_none() {
            return;
        }
        for (via, way) in &mut self.ways {
            let lives = way.health != Health::Good || way.is_vouched_since(doubt);
            if matches!(via, Via::Direct(_)) && !lives {
                way.die_too();
            }
        }
    }

    fn detours(&self) -> impl Iterator<Item = &Detour> {
        self.relays.iter().flatten()
    }

    fn switch(&mut self, to: Via, reason: Reason, now: Instant) {
        self.leave_together(to);
        let switch = Switch {
            at: now,
            from: self.current.map(|current| current.via),
            to,
            reason,
        };
        let slot = self
            .current
            .map(|current| current.slot.next())
            .unwrap_or_default();
        self.current = Some(Current {
            via: to,
            slot,
            switch,
        });
        if let Some(way) = self.ways.get_mut(&to) {
            way.begin_use();
        }
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(switch);
        self.outputs.push_back(OverlayOutput::Switched(switch));
        self.gather();
    }
}
