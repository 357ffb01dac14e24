//! Waits for something to become true, and no longer than it takes.

use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at: fine enough to measure tens of milliseconds, coarse enough to disturb nothing.
const PACE: Duration = Duration::from_millis(5);

/// Looks until `condition` holds, at most for `limit`. Returns how long it took, or nothing if it never held.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> Option<Duration> {
    wait_for(limit, || condition().then_some(())).map(|(took, ())| took)
}

/// Looks until `find` finds something, at most for `limit`. Returns it and how long it took.
pub fn wait_for<T>(limit: Duration, mut find: impl FnMut() -> Option<T>) -> Option<(Duration, T)> {
    let start = Instant::now();
    loop {
        if let Some(found) = find() {
            return Some((start.elapsed(), found));
        }
        if start.elapsed() >= limit {
            return None;
        }
        thread::sleep(PACE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_holds_costs_no_wait() {
        assert!(wait_until(Duration::from_secs(60), || true).is_some());
    }

    #[test]
    fn a_condition_is_looked_at_once_even_without_time() {
        assert_eq!(
            wait_for(Duration::ZERO, || Some(7)).map(|(_, found)| found),
            Some(7)
        );
        assert!(wait_until(Duration::ZERO, || false).is_none());
    }
}
