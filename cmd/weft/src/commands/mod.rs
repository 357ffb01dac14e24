//! Does what each verb says: a file per noun, with what its verbs take and how their answers read. A verb that talks to
//! the router does so by its socket, and by nothing else.

pub(crate) mod config;
pub(crate) mod containers;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod peers;
pub(crate) mod ping;
pub(crate) mod report;
pub(crate) mod shell;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod targets;
pub(crate) mod tokens;
pub(crate) mod trace;
pub(crate) mod wait;

mod engine;
