//! What the rest of the core tells of a peer's ways.

use std::net::SocketAddr;

/// What the rest of the core knows of a peer's ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// What its control link says about datagrams.
    pub link: LinkState,
    /// Where it says that it can be reached, best first.
    pub addresses: Vec<SocketAddr>,
    /// Whether control connections lead to it.
    pub control: bool,
}

/// What a control link says about datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkState {
    /// There is no link, or no datagram passes.
    #[default]
    Silent,
    /// Too young to tell: datagrams are being tried there.
    Trying(SocketAddr),
    /// Heartbeats pass both ways, to and from there.
    Passes(SocketAddr),
}
