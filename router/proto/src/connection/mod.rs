//! Lives through one established control link: is the other end there, how far away, and do datagrams pass?
//!
//! ```text
//!                 a datagram answers ours
//!   ByTcp ─────────────────────────────────────▶ ByUdp          heartbeats every 550 ms by the carrier that works
//!     ▲                                            │
//!     └── datagrams silent, connection answers ────┤ 600 ms of silence: 3 to 8 probes, 100 ms apart
//!                                                  ▼
//!   connection closed, or both silent ──────────▶ Down (final)
//! ```
//!
//! A link begins by TCP. Each end tells the other [`LinkKeys`] over the sealed connection and tries datagrams; one that
//! carries an echo of ours proves both directions. What comes back over which carrier is kept apart, so a round trip by UDP
//! is one. Where datagrams are silent they are tried on, every 550 ms at first and every 2 s later.
//!
//! **Invariant.** After `handle_timeout(t)` the next deadline is later than `t`, or there is none (down).
//! **Failure policy.** A datagram that is forged, replayed or strange is counted and draws nothing. Answers are limited to
//! one in 20 ms, so an authentic peer cannot make us send without bound either.

mod estimate;
mod heartbeat;
mod keys;
#[cfg(test)]
mod tests;
mod tie;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use estimate::Arrivals;
pub(crate) use estimate::RoundTrip;
pub use heartbeat::{Beat, Echo, Heartbeat, LinkKeys};
use keys::Keys;
pub use keys::{LinkError, OVERLAP, RENEW};
pub use tie::{Contender, Verdict, settle};

use crate::crypto::Crypto;
use crate::keys::SessionIndex;

/// Between two heartbeats: with 23 neighbours they come to 3 kB a second.
pub const INTERVAL: Duration = Duration::from_millis(550);
/// So much silence is more than a heartbeat that is late: probes follow.
pub const SILENCE: Duration = Duration::from_millis(650);
/// Between two probes.
pub const PROBE_GAP: Duration = Duration::from_millis(100);
/// Three lost in a row are no accident on a link without loss.
const MIN_PROBES: u32 = 3;
/// At 30 % of loss each way all of eight probes and their answers are lost once in two hundred times.
const MAX_PROBES: u32 = 8;
/// The longest wait for the answer to the last probe.
const MAX_PATIENCE: Duration = Duration::from_secs(1);
/// How long a link may be silent at its beginning: the other end may still be saving what it was told.
const GRACE: Duration = Duration::from_millis(1500);
/// How long datagrams are tried at every heartbeat, before they are tried every [`RETRY_UDP`].
pub const EAGER_UDP: Duration = Duration::from_secs(3);
/// How often datagrams are tried while they do not pass.
pub const RETRY_UDP: Duration = Duration::from_secs(2);
/// Three in a row take a second and a half, so a path that fails every second is left alone.
const ECHOES_AFTER_FALL: u8 = 3;
/// An echo older than this proves nothing about the way there.
const FRESH: Duration = Duration::from_secs(2);
/// The least time between two answers by one carrier.
const ANSWER_GAP: Duration = Duration::from_millis(20);
/// How long we send heartbeats by TCP for the sake of a peer that needs them.
const COURTESY: Duration = Duration::from_millis(1500);
/// A round trip beyond this is a clock that leapt.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(10);

/// What heartbeats travel by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// The control connection, since datagrams do not pass, or have not yet.
    ByTcp,
    /// Datagrams, as it should be.
    ByUdp,
}

/// Why a link is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DownReason {
    /// Its connection was closed, by either end.
    Closed,
    /// Nothing was heard, and probes were not answered.
    Silent,
}

/// What a link wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkOutput {
    /// Datagrams with this index are for this link.
    AdmitLink(SessionIndex),
    /// The link is over. The last output; its connection is to be closed.
    Down(DownReason),
    /// Datagrams with this index are for nobody any more.
    RetireLink(SessionIndex),
    /// Send a datagram.
    SendDatagram {
        /// Where to.
        to: SocketAddr,
        /// Sealed.
        bytes: Vec<u8>,
    },
    /// Send a heartbeat over the connection.
    SendHeartbeat(Heartbeat),
    /// Send keys over the connection.
    SendKeys(LinkKeys),
    /// Datagrams do not pass, or not any more: heartbeats go by TCP.
    UdpSilent,
    /// Datagrams pass both ways, to and from this address.
    UdpWorks(SocketAddr),
    /// A heartbeat has come back.
    Up {
        /// How long it took.
        rtt: Duration,
    },
}

/// One established control link.
pub struct Link {
    alive: Option<Alive>,
    outputs: VecDeque<LinkOutput>,
    forged: u64,
    replayed: u64,
}

struct Alive {
    /// What our stamps count from.
    origin: Instant,
    up: bool,
    carrier: Carrier,
    keys: Keys,
    to: SocketAddr,
    udp: Way,
    tcp: Way,
    round_trip: RoundTrip,
    arrivals: Arrivals,
    silence: Silence,
    beat_at: Instant,
    /// Until then a peer that hears no datagrams needs heartbeats by TCP.
    tcp_until: Instant,
    udp_trial: Trial,
}

/// What came by one carrier.
#[derive(Default)]
struct Way {
    /// The last stamp, and when it came.
    stamp: Option<(u64, Instant)>,
    answered_at: Option<Instant>,
    /// Something came since the probes began.
    heard_in_probe: bool,
}

enum Silence {
    Probing { left: u32, next_at: Instant },
    Quiet { until: Instant },
}

/// Datagrams being tried, while heartbeats go by TCP.
struct Trial {
    next_at: Instant,
    eager_until: Instant,
    /// When it is said that they do not pass; `None` once it was.
    doubt_at: Option<Instant>,
    /// How many echoes in a row are needed, so that a way that fails now and then is not taken for one that works.
    needed: u8,
    /// How many came in a row.
    came: u8,
    /// The last echo that counted, and when it came.
    echo: u64,
    echo_at: Instant,
}

impl Link {
    /// Begins when the handshake is done. `to` is where the peer says that it listens.
    pub fn new(to: SocketAddr, crypto: &mut dyn Crypto, now: Instant) -> Self {
        let (keys, told) = Keys::new(crypto, now);
        let alive = Alive {
            origin: now,
            up: false,
            carrier: Carrier::ByTcp,
            keys,
            to,
            udp: Way::default(),
            tcp: Way::default(),
            round_trip: RoundTrip::default(),
            arrivals: Arrivals::default(),
            silence: Silence::Quiet { until: now + GRACE },
            beat_at: now + INTERVAL,
            tcp_until: now,
            udp_trial: Trial {
                next_at: now + INTERVAL,
                eager_until: now + EAGER_UDP,
                doubt_at: Some(now + EAGER_UDP),
                needed: 1,
                came: 0,
                echo: 0,
                echo_at: now,
            },
        };
        let heartbeat = alive.heartbeat(true, now);
        let outputs = [
            LinkOutput::AdmitLink(alive.keys.index()),
            LinkOutput::SendKeys(told),
            LinkOutput::SendHeartbeat(heartbeat),
        ];
        Self {
            alive: Some(alive),
            outputs: outputs.into(),
            forged: 0,
            replayed: 0,
        }
    }

    /// The peer told how to send datagrams to it.
    pub fn handle_keys(&mut self, told: &LinkKeys, now: Instant) {
        let Some(alive) = &mut self.alive else {
            return;
        };
        alive.keys.set_sending(told);
        if alive.carrier == Carrier::ByTcp {
            alive.send_datagram(true, &mut self.outputs, now);
        }
    }

    /// A heartbeat came over the connection.
    pub fn handle_heartbeat(&mut self, heartbeat: &Heartbeat, now: Instant) {
        let Some(alive) = &mut self.alive else {
            return;
        };
        alive.tcp.stamp = Some((heartbeat.stamp, now));
        if heartbeat.needed {
            alive.tcp_until = now + COURTESY;
        }
        if let Some(sample) = alive.sample(heartbeat.echo, heartbeat.hold, now) {
            if alive.carrier == Carrier::ByTcp {
                alive.round_trip.add(sample);
            }
            alive.rise(sample, &mut self.outputs);
        }
        alive.hear(Carrier::ByTcp, now);
        if heartbeat.wants_answer && alive.tcp.may_answer(now) {
            let answer = alive.heartbeat(false, now);
            self.outputs.push_back(LinkOutput::SendHeartbeat(answer));
        }
    }

    /// Some other message came over the connection: the peer is there.
    pub fn handle_message(&mut self, now: Instant) {
        if let Some(alive) = &mut self.alive {
            alive.hear(Carrier::ByTcp, now);
        }
    }

    /// A datagram with an index of this link came. It is opened in place.
    ///
    /// # Errors
    ///
    /// If it is forged or replayed; it is counted, and nothing else has changed.
    pub fn handle_datagram(
        &mut self,
        from: SocketAddr,
        datagram: &mut [u8],
        now: Instant,
    ) -> Result<(), LinkError> {
        let Some(alive) = &mut self.alive else {
            return Err(LinkError::Inauthentic);
        };
        let opened = alive.keys.open(datagram);
        match opened {
            Err(LinkError::Inauthentic) => self.forged += 1,
            Err(LinkError::Replayed) => self.replayed += 1,
            Ok(_) => {}
        }
        // A body of another kind is a later release's.
        let opened = opened?;
        if let Some(beat) = Beat::decode(opened.body) {
            alive.handle_beat(from, &beat, opened.counter, &mut self.outputs, now);
        }
        Ok(())
    }

    /// The connection was closed.
    pub fn handle_closed(&mut self) {
        self.fall(DownReason::Closed);
    }

    /// Gives out what shall happen, in order.
    pub fn poll_output(&mut self) -> Option<LinkOutput> {
        self.outputs.pop_front()
    }

    /// Says when it wants to be woken, and for what.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let alive = self.alive.as_ref()?;
        let silence = match alive.silence {
            Silence::Probing { next_at, .. } => (next_at, "a probe of a link is due"),
            Silence::Quiet { until } => (until, "a link is silent"),
        };
        let trial = (alive.carrier == Carrier::ByTcp)
            .then_some((alive.udp_trial.next_at, "datagrams are tried"));
        let doubt = alive.udp_trial.doubt_at;
        [
            (alive.beat_at, "a heartbeat is due"),
            (alive.keys.deadline(), "keys of a link are old"),
            silence,
        ]
        .into_iter()
        .chain(trial)
        .chain(doubt.map(|at| (at, "datagrams do not pass")))
        .min_by_key(|&(at, _)| at)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, crypto: &mut dyn Crypto, now: Instant) {
        let Some(alive) = &mut self.alive else {
            return;
        };
        let outputs = &mut self.outputs;
        if let Some(index) = alive.keys.retire(now) {
            outputs.push_back(LinkOutput::RetireLink(index));
        }
        if let Some(told) = alive.keys.renew(crypto, now) {
            outputs.push_back(LinkOutput::AdmitLink(alive.keys.index()));
            outputs.push_back(LinkOutput::SendKeys(told));
        }
        if alive.udp_trial.doubt_at.take_if(|at| *at <= now).is_some() {
            outputs.push_back(LinkOutput::UdpSilent);
        }
        if alive.handle_silence(outputs, now).is_break() {
            self.fall(DownReason::Silent);
            return;
        }
        if alive.beat_at <= now {
            alive.beat_at = now + INTERVAL;
            if alive.carrier == Carrier::ByUdp {
                alive.send_datagram(false, outputs, now);
            }
            if alive.carrier == Carrier::ByTcp || now < alive.tcp_until {
                let heartbeat = alive.heartbeat(false, now);
                outputs.push_back(LinkOutput::SendHeartbeat(heartbeat));
            }
        }
        if alive.carrier == Carrier::ByTcp && alive.udp_trial.next_at <= now {
            let eager = now < alive.udp_trial.eager_until;
            alive.udp_trial.next_at = now + if eager { INTERVAL } else { RETRY_UDP };
            alive.send_datagram(true, outputs, now);
        }
    }

    /// Whether datagrams with this index are for this link.
    pub fn owns(&self, index: SessionIndex) -> bool {
        self.alive
            .as_ref()
            .is_some_and(|alive| alive.keys.indexes().any(|own| own == index))
    }

    /// Whether a heartbeat has come back, and the link is not down.
    pub fn is_up(&self) -> bool {
        self.alive.as_ref().is_some_and(|alive| alive.up)
    }

    /// Whether the peer is overdue, or the link down: then another connection may take its place.
    pub fn is_silent(&self) -> bool {
        self.alive
            .as_ref()
            .is_none_or(|alive| matches!(alive.silence, Silence::Probing { .. }))
    }

    /// What heartbeats travel by; `None` when the link is down.
    pub fn carrier(&self) -> Option<Carrier> {
        self.alive.as_ref().map(|alive| alive.carrier)
    }

    /// Where datagrams go: where the peer said it listens, or where it was heard from.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        self.alive.as_ref().map(|alive| alive.to)
    }

    /// Smoothed round trip.
    pub fn rtt(&self) -> Option<Duration> {
        self.alive.as_ref()?.round_trip.smoothed()
    }

    /// The share of the peer's last 64 datagrams that did not come, 0 to 1.
    pub fn loss(&self) -> f64 {
        self.alive
            .as_ref()
            .map_or(0.0, |alive| alive.arrivals.loss())
    }

    /// How many datagrams were dropped as forged.
    pub const fn forged(&self) -> u64 {
        self.forged
    }

    /// How many datagrams were dropped as seen before.
    pub const fn replayed(&self) -> u64 {
        self.replayed
    }

    fn fall(&mut self, reason: DownReason) {
        if let Some(alive) = self.alive.take() {
            let indexes = alive.keys.indexes().map(LinkOutput::RetireLink);
            self.outputs.extend(indexes);
            self.outputs.push_back(LinkOutput::Down(reason));
        }
    }
}

impl Alive {
    fn handle_beat(
        &mut self,
        from: SocketAddr,
        beat: &Beat,
        sequence: u64,
        outputs: &mut VecDeque<LinkOutput>,
        now: Instant,
    ) {
        let newest = self.arrivals.add(sequence);
        if newest {
            self.udp.stamp = Some((beat.stamp.into(), now));
            let moved = std::mem::replace(&mut self.to, from) != from;
            if moved && self.carrier == Carrier::ByUdp {
                outputs.push_back(LinkOutput::UdpWorks(from));
            }
        }
        self.hear(Carrier::ByUdp, now);
        if let Some(echo) = beat.echo {
            let stamp = self.stamp_of(echo.stamp, now);
            if let Some(sample) = self.sample(stamp, echo.hold(), now) {
                self.round_trip.add(sample);
                self.rise(sample, outputs);
                if self.carrier == Carrier::ByTcp {
                    self.handle_echo(stamp, sequence, outputs, now);
                }
            }
        }
        if beat.wants_answer && self.udp.may_answer(now) {
            self.send_datagram(false, outputs, now);
        }
    }

    /// A datagram of ours came back while heartbeats go by TCP.
    fn handle_echo(
        &mut self,
        echo: u64,
        sequence: u64,
        outputs: &mut VecDeque<LinkOutput>,
        now: Instant,
    ) {
        let age = Duration::from_micros(self.stamp(now).saturating_sub(echo));
        if age > FRESH || echo <= self.udp_trial.echo {
            return;
        }
        let trial = &mut self.udp_trial;
        let pause = now.saturating_duration_since(trial.echo_at);
        if pause > INTERVAL + 2 * PROBE_GAP {
            trial.came = 0;
        } else if trial.came > 0 && pause < INTERVAL - PROBE_GAP {
            return; // a burst of probes is one proof
        }
        (trial.echo, trial.echo_at) = (echo, now);
        trial.came += 1;
        if trial.came < trial.needed {
            trial.next_at = trial.next_at.min(now + INTERVAL);
            return;
        }
        self.carrier = Carrier::ByUdp;
        self.udp_trial.doubt_at = None;
        self.arrivals = Arrivals::default(); // what was lost while nothing passed says nothing about the way as it is
        self.arrivals.add(sequence);
        self.silence = Silence::Quiet {
            until: now + SILENCE,
        };
        outputs.push_back(LinkOutput::UdpWorks(self.to));
    }

    /// Something authentic came by a carrier.
    fn hear(&mut self, by: Carrier, now: Instant) {
        match by {
            Carrier::ByTcp => self.tcp.heard_in_probe = true,
            Carrier::ByUdp => self.udp.heard_in_probe = true,
        }
        // While heartbeats go by datagram, the connection's sign of life decides only what silence means.
        if self.carrier == Carrier::ByTcp || by == Carrier::ByUdp {
            let until = now + SILENCE;
            match &mut self.silence {
                // The beginning's grace is not cut short.
                Silence::Quiet { until: later } => *later = until.max(*later),
                Silence::Probing { .. } => self.silence = Silence::Quiet { until },
            }
        }
    }

    /// Probes while the link is silent. Breaks when it is to be given up.
    fn handle_silence(
        &mut self,
        outputs: &mut VecDeque<LinkOutput>,
        now: Instant,
    ) -> std::ops::ControlFlow<()> {
        let left = match self.silence {
            Silence::Quiet { until } if until <= now => {
                (self.udp.heard_in_probe, self.tcp.heard_in_probe) = (false, false);
                if self.carrier == Carrier::ByUdp {
                    let heartbeat = self.heartbeat(true, now);
                    outputs.push_back(LinkOutput::SendHeartbeat(heartbeat));
                }
                self.probes()
            }
            Silence::Probing { left, next_at } if next_at <= now => left,
            Silence::Quiet { .. } | Silence::Probing { .. } => {
                return std::ops::ControlFlow::Continue(());
            }
        };
        let Some(left) = left.checked_sub(1) else {
            return self.give_up(outputs, now);
        };
        let patience = if left == 0 {
            self.round_trip.patience().clamp(PROBE_GAP, MAX_PATIENCE)
        } else {
            PROBE_GAP
        };
        self.silence = Silence::Probing {
            left,
            next_at: now + patience,
        };
        match self.carrier {
            Carrier::ByTcp => {
                let heartbeat = self.heartbeat(true, now);
                outputs.push_back(LinkOutput::SendHeartbeat(heartbeat));
            }
            Carrier::ByUdp => self.send_datagram(true, outputs, now),
        }
        std::ops::ControlFlow::Continue(())
    }

    /// No probe was answered by the carrier in use.
    fn give_up(
        &mut self,
        outputs: &mut VecDeque<LinkOutput>,
        now: Instant,
    ) -> std::ops::ControlFlow<()> {
        if self.carrier == Carrier::ByTcp || !self.tcp.heard_in_probe {
            return std::ops::ControlFlow::Break(());
        }
        self.carrier = Carrier::ByTcp;
        self.silence = Silence::Quiet {
            until: now + SILENCE,
        };
        self.udp_trial = Trial {
            next_at: now + INTERVAL,
            eager_until: now + EAGER_UDP,
            doubt_at: None,
            needed: ECHOES_AFTER_FALL,
            came: 0,
            echo: self.udp_trial.echo,
            echo_at: now,
        };
        outputs.push_back(LinkOutput::UdpSilent);
        let heartbeat = self.heartbeat(true, now);
        outputs.push_back(LinkOutput::SendHeartbeat(heartbeat));
        std::ops::ControlFlow::Continue(())
    }

    /// How many probes decide: more where loss was measured, and most by TCP, which retransmits on its own time.
    fn probes(&self) -> u32 {
        match self.carrier {
            Carrier::ByTcp => MAX_PROBES,
            Carrier::ByUdp => (MIN_PROBES + self.arrivals.lost() / 4).min(MAX_PROBES),
        }
    }

    /// A heartbeat has come back: the first time, the link is up.
    fn rise(&mut self, rtt: Duration, outputs: &mut VecDeque<LinkOutput>) {
        if !std::mem::replace(&mut self.up, true) {
            if self.round_trip.smoothed().is_none() {
                self.round_trip.add(rtt);
            }
            outputs.push_back(LinkOutput::Up { rtt });
        }
    }

    /// The round trip that an echo tells; `None` where it tells none, or nonsense.
    fn sample(&self, echo: u64, hold: u32, now: Instant) -> Option<Duration> {
        if echo == 0 {
            return None;
        }
        let sample = self
            .stamp(now)
            .checked_sub(echo)?
            .checked_sub(hold.into())?;
        Some(Duration::from_micros(sample)).filter(|&sample| sample <= MAX_ROUND_TRIP)
    }

    /// Microseconds since the link began, and one: 0 is no stamp.
    fn stamp(&self, now: Instant) -> u64 {
        micros(now.saturating_duration_since(self.origin)).saturating_add(1)
    }

    /// Which of our stamps has these lower bits: the last one, an hour being older than any echo.
    fn stamp_of(&self, lower: u32, now: Instant) -> u64 {
        let clock = self.stamp(now);
        clock.saturating_sub(lower_bits(clock).wrapping_sub(lower).into())
    }

    fn heartbeat(&self, wants_answer: bool, now: Instant) -> Heartbeat {
        let (echo, hold) = self.tcp.echo(now);
        Heartbeat {
            wants_answer,
            stamp: self.stamp(now),
            echo,
            hold,
            needed: self.carrier == Carrier::ByTcp,
        }
    }

    fn send_datagram(
        &mut self,
        wants_answer: bool,
        outputs: &mut VecDeque<LinkOutput>,
        now: Instant,
    ) {
        let (echo, hold) = self.udp.echo(now);
        let echo = (echo != 0).then(|| Echo::new(lower_bits(echo), hold));
        let beat = Beat {
            wants_answer,
            stamp: lower_bits(self.stamp(now)),
            echo: echo.flatten(),
        };
        if let Some(bytes) = self.keys.seal(&beat.encode()) {
            outputs.push_back(LinkOutput::SendDatagram { to: self.to, bytes });
        }
    }
}

impl Way {
    /// What to echo: the last stamp and how long it has been held.
    fn echo(&self, now: Instant) -> (u64, u32) {
        self.stamp.map_or((0, 0), |(stamp, at)| {
            let hold = micros(now.saturating_duration_since(at));
            match u32::try_from(hold) {
                Ok(hold) => (stamp, hold),
                Err(_) => (0, 0), // an hour old: worth nothing
            }
        })
    }

    fn may_answer(&mut self, now: Instant) -> bool {
        let due = self
            .answered_at
            .is_none_or(|at| now.saturating_duration_since(at) >= ANSWER_GAP);
        if due {
            self.answered_at = Some(now);
        }
        due
    }
}

/// As much of a stamp as a datagram carries.
#[expect(clippy::cast_possible_truncation, reason = "the lower bits are meant")]
const fn lower_bits(stamp: u64) -> u32 {
    stamp as u32
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
