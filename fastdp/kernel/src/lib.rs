//! Typed kernel interfaces: links, bridge, FDB, neighbours, namespaces, TAP, UDP, packet sockets.

pub mod netns;
pub mod packet;
