//! Carries frames between a bridge and the peers: everything but the calls that do it.
//!
//! ```text
//!                 core: snapshots, orders                              ▲ reports
//!                          ▼                                           │
//!   bridge ─ read ─▶ [`Outbound`] ── sealed ──▶ [`Ports`] ──▶ peers    │
//!                          ▲ promote                                   │
//!   bridge ◀─ deliver ─ [`Inbound`] ◀── received ───────────── peers ──┘
//! ```
//!
//! Packet workers and the simulator drive the same two halves, each half on one thread at a time: [`Outbound`] seals the
//! frames of the bridge, [`Inbound`] opens what peers send and has a sender of its own for what is no frame. They share
//! counters, and an order to one of them never waits for the other. A verb takes a [`Turn`] along: the world as
//! [`Ports`], and the time. Drive a half like every machine: tell it what happened, then sleep until its `poll_timeout`
//! and call its `handle_timeout`.
//!
//! Where each rule stands: `waiting` what waits for a session and how it is asked for, `sending` which session is sent
//! by, `batch` what leaves together and where the next frame is read to, `sender` how frames become datagrams and by
//! what way they leave, `buffers` how long a train may stretch, `relay` what is passed on for whom, `probes` which
//! answers are believed, `said` what is reported how often, `too_big` which hints about sizes are passed on.
//!
//! **Invariant.** No session, no frame: nothing leaves unsealed, nothing enters that its peer may not send.
//! **Failure policy.** Whatever cannot be done at once is dropped and counted in [`Cells`]. A packet allocates nothing,
//! takes no lock, and is not logged.

mod batch;
mod buffers;
mod chatter;
mod counters;
mod framing;
mod inbound;
mod orders;
mod outbound;
mod ports;
mod probes;
mod receiving;
mod relay;
mod report;
mod route;
mod said;
mod sender;
mod sending;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one kind of report"
)]
mod tests;
mod too_big;
mod view;
mod waiting;

use std::sync::Arc;
use std::time::Instant;

pub use batch::{MAX_PAYLOAD, MAX_SEGMENTS};
pub use buffers::BUFFER;
pub use counters::{Cells, Counters, PeerTraffic, Relayed};
pub use inbound::Inbound;
pub use orders::{Order, Orders};
pub use outbound::Outbound;
pub use ports::{Ports, Refusal, TapRefused, Turn};
pub use probes::PathQuestion;
pub use report::Report;
pub use sending::{SendSession, SessionChange};
pub use too_big::{Hints, TooBig};
pub use view::View;

/// Both halves of a host's end of the sleeve.
pub struct Tunnel {
    /// From the bridge to the peers.
    pub outbound: Outbound,
    /// From the peers to the bridge.
    pub inbound: Inbound,
}

impl Tunnel {
    /// Makes both halves, which count in `cells`.
    pub fn new(view: &Arc<View>, cells: &Arc<Cells>, now: Instant) -> Self {
        Self {
            outbound: Outbound::new(Arc::clone(view), Arc::clone(cells), now),
            inbound: Inbound::new(Arc::clone(view), Arc::clone(cells), now),
        }
    }
}
