//! Where the time of every test begins.

use std::sync::LazyLock;
use std::time::Instant;

/// The instant that tests count from, the same for all.
pub(crate) fn origin() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one clock that tests look at, once"
    )]
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    *ORIGIN
}
