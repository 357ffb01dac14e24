//! Drives the mesh: hub, TCP, UDP, packet workers, persistence, the local API.
//!
//! [`start`] is the way in.

pub mod api;
pub mod ask;
pub mod config;
pub mod crypto;
mod datapath;
pub mod hub;
pub mod keyfile;
pub mod persist;
pub mod private;
pub mod progress;
pub mod resolve;
mod running;
mod status;
pub mod tcp;
mod underlay;
pub mod worker;

pub use running::{Running, start};
