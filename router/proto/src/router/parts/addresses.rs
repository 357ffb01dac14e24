//! The creator's book of addresses, asked by introducers until the address ring takes over.
//!
//! **Invariant.** An introducer is told an address when it is durably bound, not before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use weft_types::{Code, NodeId};

use crate::addresses::Addresses;
use crate::genesis::Genesis;
use crate::io::Ticket;
use crate::letter::{AddressReply, AddressRequest, Letter};
use crate::membership::Membership;
use crate::router::ground::Reach;
use crate::router::ground::saves::Part;
use crate::store::{Change, Saved, Table};

/// Who has which address: kept by the mesh's creator alone.
#[derive(Default)]
pub(crate) struct AddressBook {
    /// `None` on every other node.
    book: Option<Addresses>,
    /// Introducers that wait for an address to be durable.
    binding: BTreeMap<Ticket, Bound>,
}

struct Bound {
    to: NodeId,
    request: u64,
    addresses: Vec<IpNet>,
}

impl AddressBook {
    /// Begins with what was saved.
    pub(crate) fn new(ourself: NodeId, genesis: &Genesis, saved: &Saved) -> Self {
        let (range, range6) = (genesis.range, genesis.range6);
        let table = || saved.table(Table::Addresses);
        Self {
            book: (genesis.creator == ourself).then(|| Addresses::new(range, range6, table())),
            binding: BTreeMap::new(),
        }
    }

    /// Whether addresses are to be had here.
    pub(crate) const fn is_here(&self) -> bool {
        self.book.is_some()
    }

    /// What the membership says of addresses is so.
    pub(crate) fn handle_membership(&mut self, membership: &Membership) {
        let Some(book) = &mut self.book else { return };
        for member in membership.members() {
            for address in &member.addresses {
                if let IpAddr::V4(v4) = address.addr() {
                    book.bind(member.node, v4);
                }
            }
        }
    }

    /// Binds an address to a node, past those that are `taken` by containers. What is to be saved comes with it.
    ///
    /// # Errors
    ///
    /// [`Code::CreatorUnreachable`] where the book is elsewhere; what [`Addresses::assign`] says.
    pub(crate) fn assign(
        &mut self,
        node: NodeId,
        wanted: Option<IpNet>,
        taken: &BTreeSet<IpAddr>,
    ) -> Result<(Vec<IpNet>, Option<Change>), Code> {
        let book = self.book.as_mut().ok_or(Code::CreatorUnreachable)?;
        book.assign(node, wanted, taken)
    }

    /// An introducer asks for an address.
    pub(crate) fn handle_request(
        &mut self,
        from: NodeId,
        asked: &AddressRequest,
        taken: &BTreeSet<IpAddr>,
        reach: &mut Reach<'_>,
    ) {
        let verdict = if !self.is_here() || !reach.mesh.may_introduce(from) {
            Err(Code::NotAuthorised)
        } else if reach.mesh.is_full_for(asked.node) {
            Err(Code::MeshFull)
        } else {
            self.assign(asked.node, asked.wanted, taken)
        };
        match verdict {
            Err(code) => tell(from, asked.request, Err(code), reach),
            Ok((addresses, change)) => {
                let changes = change.into_iter().collect();
                let ticket = reach.ground.save_for(Part::Addresses, changes);
                let bound = Bound {
                    to: from,
                    request: asked.request,
                    addresses,
                };
                self.binding.insert(ticket, bound);
            }
        }
    }

    /// An address is durably bound, or cannot be.
    pub(crate) fn handle_saved(
        &mut self,
        ticket: Ticket,
        saved: Result<(), Code>,
        reach: &mut Reach<'_>,
    ) {
        if let Some(bound) = self.binding.remove(&ticket) {
            let told = saved.map(|()| bound.addresses);
            tell(bound.to, bound.request, told, reach);
        }
    }
}

fn tell(to: NodeId, request: u64, result: Result<Vec<IpNet>, Code>, reach: &mut Reach<'_>) {
    reach.send_sealed(to, &Letter::AddressReply(AddressReply { request, result }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Output;
    use crate::router::testing::Fixture;

    #[test]
    fn an_address_is_bound_on_disk_before_anybody_is_told() {
        let mut fixture = Fixture::new();
        let introducer = fixture.admit("b");
        let genesis = fixture.mesh.genesis.genesis();
        let mut book = AddressBook::new(fixture.mesh.ourself, genesis, &Saved::default());
        let asked = AddressRequest {
            request: 1,
            node: NodeId::new([9; 32]),
            nickname: "c".parse().expect("a short name"),
            wanted: None,
        };

        book.handle_request(introducer, &asked, &BTreeSet::new(), &mut fixture.reach());

        let outputs = fixture.outputs();
        let [Output::Save { ticket, changes }] = outputs.as_slice() else {
            panic!("{outputs:?}");
        };
        assert_eq!(changes.len(), 1);
        assert!(book.binding.contains_key(ticket));
        book.handle_saved(*ticket, Ok(()), &mut fixture.reach());
        assert!(book.binding.is_empty());
    }

    #[test]
    fn on_other_nodes_there_is_no_book() {
        let fixture = Fixture::new();
        let genesis = fixture.mesh.genesis.genesis();

        let book = AddressBook::new(NodeId::new([1; 32]), genesis, &Saved::default());

        assert!(!book.is_here());
    }
}
