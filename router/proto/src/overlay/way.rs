//! Watches over one way to a peer: does it answer, how soon, and how large a datagram passes?
//!
//! ```text
//!              an answer                    so many probes in a row unanswered
//!   Untried ─────────────▶ Good ─────────────────────────────────────────────▶ Dead
//!                            ▲                                                   │ an answer
//!                            └────── so many answers in a row ──── Proving ◀─────┘
//! ```
//!
//! How many probes must fail grows with the loss that was measured, so that a lossy way is not taken for a dead one; how
//! many must succeed grows with how often the way has failed lately, so that one that comes and goes is not followed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::delivery::Delivery;
use super::search::Search;
use crate::connection::RoundTrip;

/// Between two probes of the way in use while frames travel: with the burst behind it a dead way is left after 0.3 s.
const BUSY: Duration = Duration::from_millis(90);
/// The same while none do, and of a way that proves itself.
const INTERVAL: Duration = Duration::from_millis(250);
/// The least between two probes once one was not answered.
const BURST: Duration = Duration::from_millis(25);
/// Between two probes of a way that would be better than the one in use.
const RETRY: Duration = Duration::from_secs(1);
/// The same while a peer is first looked for: two NATs open when both ends send.
const EAGER: Duration = Duration::from_millis(250);
/// Between two probes of a way that is kept ready.
const STANDBY: Duration = Duration::from_secs(2);
/// Between two probes of full size among the others.
const FULL: Duration = Duration::from_millis(900);
/// The least and most that an answer is waited for.
const MIN_PATIENCE: Duration = Duration::from_millis(90);
const MAX_PATIENCE: Duration = Duration::from_secs(1);
/// What is waited for where no round trip is known.
const UNKNOWN_PATIENCE: Duration = Duration::from_millis(300);
/// Who wakes later than this was not there to see an answer: each probe is excused once.
const STALL: Duration = Duration::from_millis(50);
/// An answer later than this is none.
const FORGET: Duration = Duration::from_secs(4);
/// How many probes may be out.
const MAX_OUT: usize = 64;
/// Falls longer ago than this are forgiven.
const FORGIVE: Duration = Duration::from_secs(60);
/// Who dies so soon after it was taken may have died of that: what floods itself does within a second.
const SOON: Duration = Duration::from_millis(1500);
/// Whoever lives so long in use has not.
const LASTING: Duration = Duration::from_secs(60);
/// So many times are no chance: a way that carries its own frames, over a network that runs over the mesh, passes
/// probes and fails each time it is used.
const EACH_TIME: u32 = 3;
/// How long a way that lost much, or fails each time, is avoided at first, and at most.
const AVOID: Duration = Duration::from_secs(30);
const MAX_AVOID: Duration = Duration::from_secs(600);

/// Whether a way can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It does not answer.
    Dead,
    /// It answers.
    Good,
    /// It answers again: how many times in a row.
    Proving(u32),
    /// Nobody has asked it.
    Untried,
}

/// What a way is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It would be better than what is in use.
    Better,
    /// It is in use.
    Current {
        /// Frames have travelled just now.
        busy: bool,
    },
    /// Nothing is asked of it.
    Idle,
    /// It is as good as the one in use, which does not answer: does this one?
    Rival,
    /// It could take over.
    Standby,
}

/// What a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Alive,
    Full,
    Keep,
    Size,
}

/// What was found out by an answer, beside that the way lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// What became of the frames of the slot in use.
    Frames,
    /// A mapping has outlived a silence.
    Keep,
    /// No more.
    Nothing,
}

/// A probe that is out.
#[derive(Clone, Copy, Debug)]
struct Out {
    id: u64,
    question: Question,
    datagram: u16,
    sent: Instant,
    late_at: Instant,
    late: bool,
    excused: bool,
    /// It asked about the frames of a slot.
    counted: bool,
}

/// A probe to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) id: u64,
    pub(super) datagram: u16,
    /// It asks about the frames of the slot in use.
    pub(super) counted: bool,
}

/// One way.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) health: Health,
    pub(super) search: Search,
    pub(super) delivery: Delivery,
    /// Share of frames that were lost on it when it was last in use.
    pub(super) loss: f64,
    pub(super) trip: RoundTrip,
    /// When something authentic last came by it.
    pub(super) used: Option<Instant>,
    pub(super) bad_until: Option<Instant>,
    avoid: Duration,
    /// How many times it died soon after it was taken, since it last lived long.
    in_vain: u32,
    out: VecDeque<Out>,
    /// Of the last 32 probes, which were answered; bit 0 is the newest. A way is taken for sound until it shows otherwise.
    history: u32,
    misses: u32,
    full_misses: u32,
    /// Since when it is in doubt: when the first probe was seen to be late that no answer has followed.
    doubted: Option<Instant>,
    /// When the latest probe left that was answered.
    vouched: Option<Instant>,
    /// When it came back to life, until a probe is answered that left later.
    revived: Option<Instant>,
    falls: VecDeque<Instant>,
    probed: Option<Instant>,
    full_probed: Option<Instant>,
}

impl Way {
    pub(super) fn new(search: Search) -> Self {
        Self {
            health: Health::Untried,
            search,
            delivery: Delivery::default(),
            loss: 0.0,
            trip: RoundTrip::default(),
            used: None,
            bad_until: None,
            avoid: AVOID,
            in_vain: 0,
            out: VecDeque::new(),
            history: u32::MAX,
            misses: 0,
            full_misses: 0,
            doubted: None,
            vouched: None,
            revived: None,
            falls: VecDeque::new(),
            probed: None,
            full_probed: None,
        }
    }

    /// Whether it should be left for another (a relay), or not taken while there is another.
    pub(super) fn is_bad(&self, now: Instant) -> bool {
        self.bad_until.is_some_and(|until| now < until)
    }

    /// It loses or holds back what it is given.
    pub(super) fn avoid(&mut self, now: Instant) {
        self.bad_until = Some(now + self.avoid);
        self.avoid = (self.avoid * 2).min(MAX_AVOID);
    }

    /// It has died in use, since `taken`.
    pub(super) fn died_in_use(&mut self, taken: Instant, now: Instant) {
        let lived = now.saturating_duration_since(taken);
        if lived >= LASTING {
            (self.in_vain, self.avoid) = (0, AVOID);
        } else if lived <= SOON {
            self.in_vain += 1;
        }
        if self.in_vain >= EACH_TIME {
            self.avoid(now);
        }
    }

    /// Forgets what is out: nobody could have answered.
    pub(super) fn forget_probes(&mut self) {
        self.out.clear();
        self.misses = 0;
        self.full_misses = 0;
        self.probed = None;
    }

    /// Share of probes that were lost, 0 to 1.
    pub(super) fn probe_loss(&self) -> f64 {
        f64::from(self.history.count_zeros()) / 32.0
    }

    /// How many unanswered probes in a row are death: so many that chance explains it once in five hundred times.
    fn patience_in_probes(&self) -> u32 {
        match self.probe_loss() {
            loss if loss < 0.10 => 3,
            loss if loss < 0.25 => 5,
            loss if loss < 0.45 => 7,
            _ => 10,
        }
    }

    /// How many answers in a row are life.
    fn proof(&self, now: Instant) -> u32 {
        match self.falls.iter().filter(|&&at| at + FORGIVE > now).count() {
            0 => 1,
            1 => 3,
            2 => 6,
            _ => 12,
        }
    }

    /// How long an answer may take.
    pub(super) fn patience(&self) -> Duration {
        match self.trip.smoothed() {
            Some(_) => (self.trip.patience() * 3 / 2).clamp(MIN_PATIENCE, MAX_PATIENCE),
            None => UNKNOWN_PATIENCE,
        }
    }

    /// Whether it works, and the last probe says so too.
    pub(super) const fn is_sound(&self) -> bool {
        matches!(self.health, Health::Good) && self.misses == 0
    }

    /// Since when it is in doubt.
    pub(super) const fn doubted(&self) -> Option<Instant> {
        self.doubted
    }

    /// Whether it has answered a probe that left since then.
    pub(super) fn is_vouched_since(&self, doubt: Option<Instant>) -> bool {
        doubt.is_none_or(|doubt| self.vouched.is_some_and(|at| at >= doubt))
    }

    /// It did not answer when the way in use died, and is thought to have died of the same: the next answer brings it back.
    pub(super) fn die_too(&mut self) {
        self.health = Health::Dead;
        (self.misses, self.full_misses) = (0, 0);
    }

    /// Heartbeats came and went by it: as good as a probe of ours. What was lost before says nothing.
    pub(super) fn handle_heartbeats(&mut self, now: Instant) {
        self.health = Health::Good;
        (self.used, self.vouched) = (Some(now), Some(now));
        (self.misses, self.full_misses, self.doubted) = (0, 0, None);
        self.history = u32::MAX;
        self.loss = 0.0;
        self.search.begin(now);
    }

    /// Between two probes once one was not answered; where answers take long, more would say no more.
    fn burst(&self) -> Duration {
        BURST.max(self.patience() / 8)
    }

    fn interval(&self, role: Role, eager: bool) -> Option<Duration> {
        let in_doubt = self.misses > 0 || self.full_misses > 0;
        match (role, self.health) {
            (Role::Idle, _) => None,
            (Role::Current { .. }, Health::Good | Health::Untried) if in_doubt => {
                Some(self.burst())
            }
            (Role::Rival, _) => Some(self.burst()),
            (Role::Current { busy: true }, _) => Some(BUSY),
            (Role::Current { busy: false }, _) | (_, Health::Proving(_)) => Some(INTERVAL),
            (Role::Better | Role::Standby, _) if eager => Some(EAGER),
            (Role::Better, _) => Some(RETRY),
            (Role::Standby, _) => Some(STANDBY),
        }
    }

    /// When [`Self::poll`] has something to do.
    pub(super) fn poll_timeout(&self, role: Role, eager: bool, told: Instant) -> Option<Instant> {
        let interval = self.interval(role, eager)?;
        let probe = self.probed.map_or(told, |at| at + interval);
        let late = self
            .out
            .iter()
            .filter(|out| !out.late)
            .map(|out| out.late_at);
        let size = self.searches(role).then(|| self.search.poll_timeout());
        late.chain(size.flatten()).chain([probe]).min()
    }

    fn searches(&self, role: Role) -> bool {
        self.health == Health::Good && matches!(role, Role::Current { .. } | Role::Better)
    }

    /// Sees what is late and gives the next probe that is due.
    pub(super) fn poll(
        &mut self,
        role: Role,
        eager: bool,
        ids: &mut u64,
        now: Instant,
    ) -> Option<Probe> {
        let interval = self.interval(role, eager)?;
        if self.probed.is_none_or(|at| at + interval <= now) {
            self.probed = Some(now);
            let current = matches!(role, Role::Current { .. });
            let full = current
                && self.health == Health::Good
                && self.misses == 0
                && self.full_probed.is_none_or(|at| at + FULL <= now);
            return Some(if full {
                self.full_probed = Some(now);
                self.ask(Question::Full, self.search.confirmed(), current, ids, now)
            } else {
                self.ask(Question::Alive, 0, current, ids, now)
            });
        }
        if self.searches(role) {
            let patience = self.patience();
            if let Some(size) = self.search.poll(patience, now) {
                return Some(self.ask(Question::Size, size, false, ids, now));
            }
        }
        None
    }

    fn ask(
        &mut self,
        question: Question,
        datagram: u16,
        counted: bool,
        ids: &mut u64,
        now: Instant,
    ) -> Probe {
        *ids += 1;
        if self.out.len() == MAX_OUT {
            self.out.pop_front();
        }
        self.out.push_back(Out {
            id: *ids,
            question,
            datagram,
            sent: now,
            late_at: now + self.patience(),
            late: false,
            excused: false,
            counted,
        });
        Probe {
            id: *ids,
            datagram,
            counted,
        }
    }

    /// Finds out which answers are late; whether the way has died of it.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        self.out.retain(|out| out.sent + FORGET > now);
        let (mut missed, mut full) = (0, 0);
        for out in self
            .out
            .iter_mut()
            .filter(|out| !out.late && out.late_at <= now)
        {
            if !out.excused && out.late_at + STALL < now {
                (out.excused, out.late_at) = (true, now + STALL);
                continue;
            }
            out.late = true;
            match out.question {
                Question::Alive | Question::Keep => missed += 1,
                Question::Full => full += 1,
                Question::Size => {}
            }
        }
        for _ in 0..missed + full {
            self.note(false);
        }
        if self.health == Health::Dead {
            return false;
        }
        if let Health::Proving(n) = &mut self.health {
            *n = n.saturating_sub(missed);
        }
        // A full-size probe may be lost for its size: only small ones tell of life. The next one follows at once.
        self.misses += missed;
        self.full_misses += full;
        if full > 0 {
            self.misses += u32::from(self.misses == 0);
            self.full_probed = None;
        }
        if self.misses > 0 {
            self.doubted.get_or_insert(now);
        }
        if self.full_misses >= self.patience_in_probes() {
            self.full_misses = 0;
            self.search.black_hole(now);
        }
        if self.misses < self.patience_in_probes() {
            return false;
        }
        if self.health == Health::Good {
            self.falls.push_back(now);
            if self.falls.len() > 8 {
                self.falls.pop_front();
            }
        }
        self.health = Health::Dead;
        self.misses = 0;
        self.full_misses = 0;
        true
    }

    /// Takes the answer to a probe, and says what it was about; `None` if it was not ours, or came too late.
    pub(super) fn handle_answer(&mut self, id: u64, rtt: Duration, now: Instant) -> Option<Asked> {
        let at = self.out.iter().position(|out| out.id == id)?;
        let out = self.out.remove(at)?;
        self.measure(out.sent, rtt, now);
        self.used = Some(now);
        self.vouched = self.vouched.max(Some(out.sent));
        self.misses = 0;
        self.doubted = None;
        match out.question {
            Question::Alive | Question::Keep => self.note(true),
            Question::Full => {
                self.note(true);
                self.full_misses = 0;
            }
            Question::Size => {}
        }
        if out.datagram > 0 {
            self.search.handle_answer(out.datagram, now);
        }
        let was = self.health;
        self.health = match was {
            Health::Good => Health::Good,
            Health::Dead | Health::Untried if self.proof(now) <= 1 => Health::Good,
            Health::Dead | Health::Untried => Health::Proving(1),
            Health::Proving(n) if n + 1 >= self.proof(now) => Health::Good,
            Health::Proving(n) => Health::Proving(n + 1),
        };
        if was == Health::Dead || (self.health == Health::Good && was != Health::Good) {
            // What was lost while it was dead is no measure of a way that lives.
            self.history = u32::MAX;
            self.loss = 0.0;
        }
        if self.health == Health::Good && was != Health::Good {
            self.full_misses = 0;
            if self.search.is_unknown() {
                self.search.begin(now);
            }
        }
        Some(match out.question {
            Question::Keep => Asked::Keep,
            Question::Alive | Question::Full | Question::Size if out.counted => Asked::Frames,
            Question::Alive | Question::Full | Question::Size => Asked::Nothing,
        })
    }

    /// What left while the way was dead may have waited for what brought it back, such as a neighbour's address that had to
    /// be found out anew: how long that took is what is known until something tells better, and no longer.
    fn measure(&mut self, sent: Instant, rtt: Duration, now: Instant) {
        if self.health == Health::Dead {
            self.revived = Some(now);
        } else if self.revived.take_if(|at| *at <= sent).is_some() {
            self.trip = RoundTrip::default();
        }
        self.trip.add(rtt);
    }

    fn note(&mut self, answered: bool) {
        self.history = self.history << 1 | u32::from(answered);
    }
}

impl Way {
    /// Frames are about to travel by it: what came of earlier ones says nothing.
    pub(super) fn begin_use(&mut self) {
        self.delivery = Delivery::default();
        self.loss = 0.0;
        self.probed = None;
        self.full_probed = None;
    }

    /// When a mapping on the way wants to be used that outlives a silence of `interval`, or is to be looked after since
    /// an answer is late; never where the way is dead.
    pub(super) fn keep_at(&self, interval: Duration) -> Option<Instant> {
        let waits = self.out.iter().filter(|out| !out.late);
        match waits.map(|out| out.late_at).min() {
            _ if self.health != Health::Good => None,
            Some(late_at) => Some(late_at),
            None if self.misses > 0 => self.probed.map(|at| at + self.burst()),
            None => self.used.map(|at| at + interval),
        }
    }

    /// A probe for the sake of a mapping on the way.
    pub(super) fn keep(&mut self, ids: &mut u64, now: Instant) -> Probe {
        self.probed = Some(now);
        self.ask(Question::Keep, 0, false, ids, now)
    }

    /// Somebody says that no more than `datagram` passes: if more is in use, that is proved at once. A proof that is out is
    /// enough, and the word that it draws in its turn says nothing.
    pub(super) fn handle_hint(&mut self, datagram: u16, now: Instant) {
        let proving = |out: &Out| out.question == Question::Full && !out.late;
        let soon = self.probed.is_some_and(|at| now < at + self.burst());
        if self.search.is_doubted_by(datagram) && !soon && !self.out.iter().any(proving) {
            (self.probed, self.full_probed) = (None, None);
        }
    }
}
