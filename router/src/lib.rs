//! Drives the mesh: hub, TCP, UDP, packet workers, persistence, the local API.

pub mod api;
pub mod crypto;
mod datapath;
pub mod hub;
pub mod keyfile;
mod links;
pub mod persist;
pub mod progress;
pub mod resolve;
mod status;
pub mod tcp;
mod underlay;
pub mod worker;
