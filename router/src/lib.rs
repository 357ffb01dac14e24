//! Drives the mesh: hub, TCP, UDP, packet workers, persistence, the local API.

pub mod api;
pub mod persist;
pub mod resolve;
pub mod tcp;
