//! Reads what was saved, without waking a router: for a start, and for commands that find none running.

use std::time::Instant;

use ipnet::IpNet;
use weft_types::{Code, Mtu, Nickname, NodeId, Problem};

use super::ground::identity::{BOOT, GENESIS, boot_change};
use super::ground::mesh::read_membership;
use crate::genesis::SignedGenesis;
use crate::membership::Membership;
use crate::store::{Change, Saved, Table};

/// Who saved the state: a key that is another node's is noticed.
const NODE: &[u8] = b"node";

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

/// The node that saved this state, as far as it says so.
pub fn saved_node(saved: &Saved) -> Option<NodeId> {
    let value = saved.value(Table::Node, NODE)?;
    value.try_into().ok().map(NodeId::new)
}

pub(super) fn node_change(node: NodeId) -> Change {
    Change::Put {
        table: Table::Node,
        key: NODE.to_vec(),
        value: node.as_bytes().to_vec(),
    }
}

/// What any node saves before it does anything.
pub fn first_changes(node: NodeId) -> [Change; 2] {
    [boot_change(1), node_change(node)]
}

/// How often the node that saved this state was started.
pub fn last_boot(saved: &Saved) -> Result<u64, Problem> {
    let Some(value) = saved.value(Table::Node, BOOT) else {
        return Ok(0);
    };
    let octets = value.try_into().map_err(|_| damaged("the boot counter"))?;
    Ok(u64::from_be_bytes(octets))
}

pub(super) fn damaged(what: &str) -> Problem {
    Problem::new(
        Code::StateDamaged,
        format!("{what} in the state directory cannot be read"),
    )
    .fix("Restore the state directory from a backup, or run `weft reset --force` and join again")
}
