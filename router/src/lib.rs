//! Drives the mesh: hub, TCP, UDP, packet workers, persistence, the local API.

pub mod api;
