//! Tells whoever started a router how far it has come.

use ipnet::IpNet;
use weft_router_proto::io::Pong;
use weft_types::{Mtu, Nickname, NodeId, Problem};

/// How far a router has come. Everything that was reached stays: a reader that looks late has missed nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// This node is a member of a mesh.
    pub joined: Option<Membership>,
    /// Forwarding has been decided: there is a snapshot.
    pub ready: bool,
    /// Why the last attempt to join or to reach somebody failed. The router goes on trying.
    pub failure: Option<Problem>,
    /// What has failed so far, each failure once, oldest first: what a person sees who waits.
    pub tried: Vec<Problem>,
    /// What became of the full-size ping over the first link, or of the last one while none has passed.
    pub verified: Option<Result<Verified, Problem>>,
    /// The router has ended: as it was asked to, or because it could not go on.
    pub ended: Option<Result<(), Problem>>,
}

/// Membership, as it began or was resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The mesh's name.
    pub mesh: Nickname,
    /// This host's addresses on it.
    pub addresses: Vec<IpNet>,
    /// The largest IP packet.
    pub mtu: Mtu,
}

/// An encrypted full-size ping that went both ways.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// To whom.
    pub node: NodeId,
    /// What people call it.
    pub nickname: Nickname,
    /// How.
    pub pong: Pong,
}
