//! Hears Ctrl-C, so that the demo ends by the same way as always: its values are dropped and take everything along.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use weft_types::{Code, Problem};

/// Whether somebody asked to end.
pub(super) struct Interrupt {
    came: Arc<AtomicBool>,
    // Dropping it ends the listener.
    _runtime: tokio::runtime::Runtime,
}

impl Interrupt {
    /// Starts to listen for SIGINT, SIGTERM and SIGHUP.
    pub(super) fn listen() -> Result<Self, Problem> {
        let broken = |error: std::io::Error| {
            Problem::new(Code::Internal, "the demo cannot listen for signals")
                .why(error.to_string())
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(broken)?;
        let came = Arc::new(AtomicBool::new(false));
        for kind in [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ] {
            let _guard = runtime.enter();
            let mut signals = signal(kind).map_err(broken)?;
            let came = Arc::clone(&came);
            runtime.spawn(async move {
                if signals.recv().await.is_some() {
                    came.store(true, Ordering::Relaxed);
                }
            });
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
