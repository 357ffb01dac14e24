//! The router's local API: what travels over its Unix socket as JSON, and the client that asks.
//!
//! ```text
//!   weft, CNI plugin, … ──▶ Client ──HTTP──▶ /run/weft/weft.sock ──▶ weft-router: the same routes, answered
//! ```
//!
//! There is a file per resource: its [`Route`]s, what travels on them, and what [`Client`] calls them. The router serves
//! by the same routes, so the two cannot disagree about a path or a type. The schema under `docs/schema/` is made from
//! these types.
//!
//! **Invariant.** Within one major version a field is added, never renamed, moved or given another meaning. Readers
//! ignore fields they do not know. Times of day are RFC 3339 in UTC; durations carry their unit in the name.
//! **Failure policy.** Whatever fails is a [`weft_types::Problem`]: the router's own, word for word, or what kept it from
//! answering.

pub mod connections;
pub mod containers;
pub mod events;
pub mod http;
pub mod peers;
pub mod ping;
pub mod process;
pub mod settings;
pub mod status;
pub mod targets;
pub mod tokens;
pub mod trace;
pub mod wire;

mod client;
mod route;

pub use client::{Client, PATIENCE};
pub use route::{Done, Method, Route};

/// The port of status and metrics on loopback.
pub const STATUS_PORT: u16 = 6782;
