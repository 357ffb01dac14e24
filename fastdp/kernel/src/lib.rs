//! Typed kernel interfaces: links, bridge, FDB, neighbours, namespaces, TAP, UDP, packet sockets.

pub mod addr;
pub mod bridge_port;
pub mod event;
pub mod fdb;
pub mod filter;
pub mod link;
pub mod monitor;
pub mod neigh;
pub mod netlink;
pub mod netns;
pub mod packet;
pub mod privilege;
pub mod probe;
pub mod route;
pub mod sysctl;
pub mod tap;
pub mod udp;

mod wire;
