//! What becomes of the kernel's tables, in network namespaces that the tests make and that are gone with them.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails its test"
)]

mod around;
mod host;
mod underlay;
