//! Feeds systemd's watchdog.

use sd_notify::NotifyState;
use weft_router::api::Api;

/// Tells systemd that the hub answers, twice per interval. Never returns.
pub(super) async fn feed(api: &Api) {
    let Some(interval) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut ticks = tokio::time::interval(interval / 2);
    loop {
        ticks.tick().await;
        match api.status().await {
            Ok(_) => drop(sd_notify::notify(&[NotifyState::Watchdog])),
            Err(problem) => {
                tracing::warn!(code = %problem.code, %problem, "the hub does not answer")
            }
        }
    }
}
