//! Lets programs on this host see and steer the router.
//!
//! ```text
//!   weft CLI ──HTTP+JSON──▶ Unix socket ─┐
//!                                        ├─▶ Api ──ApiRequest──▶ hub      hub ──Event──▶ /v1/events
//!   browser, Prometheus ──▶ TCP 6782 ────┘
//!                           (read only)
//! ```
//!
//! [`Api`] is the way to ask a router from within its process; the [`server`] puts HTTP before it. What is asked and
//! answered is named in `weft-api`, and there is a file here for each resource that has one there.
//!
//! The hub is asked one [`ApiRequest`] at a time over a bounded channel and answers through the request's own oneshot;
//! it knows nothing of HTTP. **Failure policy.** A hub that does not answer within [`weft_api::PATIENCE`] is reported as
//! an internal error; nothing here waits for ever, and nothing that changes state is reachable by TCP.

pub mod server;

mod access;
mod connections;
mod containers;
mod events;
mod handle;
mod listen;
mod metrics;
mod peers;
mod ping;
mod process;
mod reading;
mod report;
mod routes;
mod settings;
mod status;
mod targets;
mod tokens;
mod trace;
mod wire;

pub use events::stamped;
pub(crate) use events::told;
pub use handle::{Api, ApiRequest, HubEnds, QUEUE};
pub use listen::socket_group;
pub use ping::answer as ping_answer;
pub use report::{Carried, Report, SwitchTimes, Traffic};
