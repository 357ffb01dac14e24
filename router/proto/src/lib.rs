//! The mesh as pure state: membership, handshake, gossip, sessions, forwarding.
//!
//! Nothing here does I/O. Inputs, the time and a `crypto::Crypto` provider come in; what shall happen comes out as
//! data. `router::Router` is the machine made of all the others, and the only one a driver talks to.

pub mod addresses;
pub mod budget;
pub mod connection;
pub mod control;
pub mod crypto;
pub mod dialer;
pub mod endpoints;
pub mod genesis;
pub mod gossip;
pub mod handshake;
pub mod hearsay;
pub mod identity;
pub mod io;
pub mod keys;
pub mod lanes;
pub mod letter;
pub mod membership;
pub mod overlay;
pub mod router;
pub mod routes;
pub mod session;
pub mod sleeve;
pub mod snapshot;
pub mod status;
pub mod store;
pub mod switch;
pub mod token;
pub mod topology;
pub mod tunnel;
pub mod unicast;
#[cfg(test)]
mod virtual_time;
pub mod wire;
