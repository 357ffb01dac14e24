//! Begins a mesh: one signed record that never changes, whose hash is the mesh's name for ever.

use ipnet::{Ipv4Net, Ipv6Net};
use weft_types::{Mtu, Nickname, NodeId};

/// How a mesh treats its payload. Fixed for the mesh's life: there is no mode in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Every frame is sealed.
    On,
}

/// What a mesh is, from its first to its last day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// What people call it.
    pub name: Nickname,
    /// Makes two meshes of equal settings different.
    pub nonce: [u8; 32],
    /// Where IPv4 addresses come from.
    pub range: Ipv4Net,
    /// A random unique local prefix (RFC 4193): where IPv6 addresses come from.
    pub range6: Ipv6Net,
    /// Whether payload is sealed.
    pub encryption: Encryption,
    /// The largest IP packet.
    pub mtu: Mtu,
    /// The first admin, who signs this.
    pub creator: NodeId,
}
