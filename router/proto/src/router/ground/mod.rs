//! What everything in a router stands on: who it is, its connections, its outputs and its saves; and, for a member, the
//! mesh as all know it.
//!
//! ```text
//!             Member (composes)      report (tells people)
//!                │      │
//!             parts: pings, traces, transit, endpoints, tokens, addresses, ways, …      none knows another
//!                │
//!             Reach = Ground + Mesh ──▶ membership, registers, topology, connections, links, mail
//! ```
//!
//! [`Ground`] is there in every life, [`Mesh`] for a member. A part gets both as [`Reach`] for the time of one call: it
//! reads what it likes, and changes them by verbs only.
//!
//! **Invariant.** Nothing here knows a part.

mod answers;
mod base;
pub(crate) mod clones;
pub(crate) mod conn;
pub(crate) mod conns;
pub(crate) mod door;
pub(crate) mod facts;
pub(crate) mod forwarding;
pub(crate) mod identity;
pub(crate) mod letters;
pub(crate) mod link;
pub(crate) mod links;
pub(crate) mod mesh;
pub(crate) mod news;
pub(crate) mod offences;
pub(crate) mod own_log;
pub(crate) mod records;
pub(crate) mod saves;
mod settings;
pub(crate) mod targets;

pub(crate) use base::{Ground, Reach};
pub(crate) use settings::Settings;
