//! Looks at the mesh that was saved, without waking a router: for commands that find none running.

use std::time::Instant;

use ipnet::IpNet;
use weft_types::{Mtu, Nickname, NodeId};

use super::ground::mesh::read_membership;
use super::start::GENESIS;
use crate::genesis::SignedGenesis;
use crate::membership::Membership;
use crate::store::{Saved, Table};

/// A mesh as it was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedMesh {
    /// What people call it.
    pub name: Nickname,
    /// The largest IP packet.
    pub mtu: Mtu,
    /// Where addresses come from.
    pub ranges: [IpNet; 2],
    /// How many members there are besides the node.
    pub others: usize,
    /// The node's addresses; `None` where it is a member no more.
    pub addresses: Option<Vec<IpNet>>,
}

impl SavedMesh {
    /// Reads the mesh of a node; `None` where it was in none.
    ///
    /// # Errors
    ///
    /// Tells what cannot be read.
    pub fn read(saved: &Saved, node: NodeId, now: Instant) -> Result<Option<Self>, &'static str> {
        let Some(genesis) = saved.value(Table::Node, GENESIS) else {
            return Ok(None);
        };
        let signed = SignedGenesis::decode(genesis).map_err(|_| "the mesh's genesis")?;
        let genesis = signed.genesis();
        let mut membership = Membership::new(signed.mesh_id(), genesis.creator);
        read_membership(&mut membership, saved, now)?;
        Ok(Some(Self {
            name: genesis.name.clone(),
            mtu: genesis.mtu,
            ranges: genesis.ranges(),
            others: membership.members().filter(|one| one.node != node).count(),
            addresses: membership.member(node).map(|own| own.addresses.clone()),
        }))
    }
}
