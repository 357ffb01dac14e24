//! The signals a daemon heeds.

use tokio::signal::unix::{Signal, SignalKind, signal};
use weft_types::Problem;

use crate::fault::broken;

/// The signals a daemon heeds.
pub(super) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Problem> {
        let on = |kind| signal(kind).map_err(broken("signals cannot be received"));
        Ok(Self {
            hangup: on(SignalKind::hangup())?,
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
        })
    }

    /// Waits for one that means stop, and names it.
    pub(super) async fn stop(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP: the configuration is read at start; restart to apply it");
                }
            }
        }
    }
}
