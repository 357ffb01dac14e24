//! Waits for the kernel's word that something has changed. Where it cannot be had, only the callers' audits find changes.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::warn;
use weft_kernel::monitor::{Change, Monitor, Subject};

/// How long a burst of notices is left to settle: our own changes come back as notices too.
const SETTLE: Duration = Duration::from_millis(100);

/// Shows what is so by now; nobody is woken by what was shown before.
pub(crate) fn show<T: Clone + PartialEq>(shown: &watch::Sender<T>, now: &T) {
    shown.send_if_modified(|shown| {
        let news = shown != now;
        shown.clone_from(now);
        news
    });
}

/// Listens to the kernel, in the calling thread's network namespace; says so where that cannot be.
pub(crate) fn open_monitor(subjects: &[Subject]) -> Option<Monitor> {
    Monitor::open(subjects)
        .inspect_err(
            |error| warn!(%error, "no notices from the kernel: changes are found by looking"),
        )
        .ok()
}

/// Notices about some subjects.
pub(crate) struct Notices {
    subjects: &'static [Subject],
    monitor: Option<Monitor>,
}

impl Notices {
    /// Listens, in the calling thread's network namespace.
    pub(crate) fn open(subjects: &'static [Subject]) -> Self {
        Self {
            subjects,
            monitor: open_monitor(subjects),
        }
    }

    /// Whether changes are heard.
    pub(crate) fn are_heard(&self) -> bool {
        self.monitor.is_some()
    }

    /// Waits for a notice that `concerns` the caller and for the burst it begins to pass; for ever where there are none to
    /// come. Safe to cancel.
    pub(crate) async fn next(&mut self, concerns: impl Fn(Change) -> bool) {
        if self.monitor.is_none() {
            self.reopen();
        }
        while let Some(monitor) = &mut self.monitor {
            match monitor.next().await {
                Some(change) if concerns(change) => return self.settle().await,
                Some(_) => {}
                None => self.monitor = None,
            }
        }
        std::future::pending().await
    }

    fn reopen(&mut self) {
        self.monitor = open_monitor(self.subjects);
    }

    async fn settle(&mut self) {
        let end = Instant::now() + SETTLE;
        if let Some(monitor) = &mut self.monitor {
            let drain = async { while monitor.next().await.is_some() {} };
            // Silence ends it early only where no more notices will come.
            let _ = timeout_at(end, drain).await;
        }
        sleep_until(end).await;
    }
}
