//! Typed kernel interfaces: links, bridge, FDB, neighbours, namespaces, TAP, UDP, packet sockets.

pub mod event;
pub mod netns;
pub mod packet;
pub mod tap;
pub mod udp;
