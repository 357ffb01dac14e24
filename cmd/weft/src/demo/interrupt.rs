//! Hears Ctrl-C, so that the demo ends by the same way as always: its values are dropped and take everything along.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use weft_types::{Code, Problem};

use crate::fault::broken;

/// Whether somebody asked to end.
pub(super) struct Interrupt {
    came: Arc<AtomicBool>,
    // Dropping it ends the listener.
    _runtime: tokio::runtime::Runtime,
}

impl Interrupt {
    /// Starts to listen for SIGINT, SIGTERM and SIGHUP.
    pub(super) fn listen() -> Result<Self, Problem> {
        Self::try_listen().map_err(broken("the demo cannot listen for signals"))
    }

    fn try_listen() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let came = Arc::new(AtomicBool::new(false));
        for kind in [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ] {
            let _guard = runtime.enter();
            runtime.spawn(note(signal(kind)?, Arc::clone(&came)));
        }
        Ok(Self {
            came,
            _runtime: runtime,
        })
    }

    /// Says whether somebody asked to end.
    pub(super) fn came(&self) -> bool {
        self.came.load(Ordering::Relaxed)
    }

    /// Ends the step if somebody asked to end.
    pub(super) fn check(&self) -> Result<(), Problem> {
        if self.came() {
            Err(Problem::new(Code::Internal, "interrupted"))
        } else {
            Ok(())
        }
    }
}

/// Notes the first signal of a kind.
async fn note(mut signals: Signal, came: Arc<AtomicBool>) {
    if signals.recv().await.is_some() {
        came.store(true, Ordering::Relaxed);
    }
}
