//! Containers of this host, and what all hosts say of theirs.
//!
//! **Invariant.** Nobody is told of a container before it is durably remembered here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_types::{Code, MacAddr, NodeId, Problem, Segment};

use crate::addresses::refuse_unfit;
use crate::endpoints::{
    Announcement, BUCKETS, Dispute, Disputed, EndpointKind, LocalEndpoints, Metadata, View,
    host_mac,
};
use crate::gossip::registers::{ENDPOINTS, RegisterDelta};
use crate::io::{Reply, RequestId, Ticket};
use crate::router::ground::Reach;
use crate::router::ground::mesh::Mesh;
use crate::router::ground::saves::Part;
use crate::snapshot::Endpoints as Shared;
use crate::status::ContainerStatus;
use crate::store::{Change, Saved, Table};
use crate::wire::decode_whole;

/// Containers of this host, and the view of all.
pub(crate) struct Endpoints {
    local: LocalEndpoints,
    /// Buckets of ours that have changed since they were announced.
    unsaid: BTreeSet<u16>,
    /// Containers that are being saved.
    attaching: BTreeMap<Ticket, (RequestId, Attached)>,
    /// What all have on the virtual Ethernet, as far as they can be reached.
    view: View,
    /// Who of them was looked at last.
    viewed: BTreeSet<NodeId>,
    /// To whom each address was given first, as far as this run knows.
    first: BTreeMap<IpAddr, NodeId>,
    /// Who has said something since.
    unread: BTreeSet<NodeId>,
}

/// A container that was put on a port of this host.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) mac: MacAddr,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) port: String,
    /// What it is called, if anything.
    pub(crate) metadata: Option<Arc<Metadata>>,
}

/// What a saved endpoint looks like: port, addresses, and what it is called. Releases before 0.2 wrote the first two.
#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct SavedEndpoint {
    #[n(0)]
    port: String,
    #[cbor(n(1), with = "crate::wire::ip::net_list")]
    addresses: Vec<IpNet>,
    #[n(2)]
    name: Option<String>,
    #[n(3)]
    labels: Option<BTreeMap<String, String>>,
}

impl Endpoints {
    /// Takes what was saved.
    ///
    /// # Errors
    ///
    /// Tells what cannot be read.
    pub(crate) fn load(ourself: NodeId, saved: &Saved) -> Result<Self, &'static str> {
        let mut local = LocalEndpoints::new(ourself);
        for (mac, value) in saved.table(Table::Endpoints) {
            let mac = <[u8; 6]>::try_from(mac).map_err(|_| "an endpoint")?;
            let saved: SavedEndpoint = decode_whole(value).map_err(|_| "an endpoint")?;
            let metadata = Metadata::new(saved.name, saved.labels.unwrap_or_default());
            let metadata = metadata.map_err(|_| "an endpoint")?.shared();
            local
                .attach(MacAddr::new(mac), &saved.addresses, saved.port, metadata)
                .map_err(|_| "an endpoint")?;
        }
        Ok(Self {
            local,
            unsaid: BTreeSet::new(),
            attaching: BTreeMap::new(),
            view: View::default(),
            viewed: BTreeSet::new(),
            first: BTreeMap::new(),
            unread: BTreeSet::new(),
        })
    }

    /// A new run begins: everything is said anew.
    pub(crate) fn say_all(&mut self) {
        self.unsaid = (0..BUCKETS).collect();
    }

    /// The membership says which addresses this host has.
    pub(crate) fn handle_membership(&mut self, mesh: &Mesh) {
        let own = mesh.own_addresses();
        // Addresses of a member are fit: the creator gave them.
        if !own.is_empty()
            && let Ok(bucket) = self.local.host(host_mac(mesh.ourself), &own)
        {
            self.unsaid.insert(bucket);
        }
        self.note_first(mesh);
    }

    /// Remembers who had each address first; of several that are met at once this node, or any.
    fn note_first(&mut self, mesh: &Mesh) {
        let has = |node: NodeId, address: &IpAddr| {
            let member = mesh.membership.member(node);
            member.is_some_and(|it| it.addresses.iter().any(|net| net.addr() == *address))
        };
        self.first.retain(|address, node| has(*node, address));
        let ourself = mesh.membership.member(mesh.ourself).into_iter();
        for member in ourself.chain(mesh.membership.members()) {
            for net in &member.addresses {
                self.first.entry(net.addr()).or_insert(member.node);
            }
        }
    }

    /// A container was put on a port of this host.
    ///
    /// # Errors
    ///
    /// [`Code::AddressOutsideRange`], [`Code::AddressInUse`], or [`Code::AttachTarget`] for what cannot be announced.
    pub(crate) fn attach(
        &mut self,
        id: RequestId,
        attached: Attached,
        reach: &mut Reach<'_>,
    ) -> Result<(), Problem> {
        let ranges = reach.mesh.genesis.genesis().ranges();
        for address in &attached.addresses {
            refuse_unfit(*address, &ranges)?;
            refuse_if_taken(address, attached.mac, reach.mesh)?;
        }
        let fits = self
            .local
            .check(attached.mac, &attached.addresses, attached.metadata.clone());
        fits.map_err(|error| {
            Problem::new(
                Code::AttachTarget,
                format!("the container cannot be announced: {error}"),
            )
        })?;
        let remember = remember(&attached);
        let ticket = reach.ground.save_for(Part::Endpoints, vec![remember]);
        self.attaching.insert(ticket, (id, attached));
        Ok(())
    }

    /// A container is remembered, so the mesh is told; or it cannot be.
    pub(crate) fn handle_saved(
        &mut self,
        ticket: Ticket,
        saved: Result<(), Problem>,
        reach: &mut Reach<'_>,
    ) {
        let Some((id, attached)) = self.attaching.remove(&ticket) else {
            return;
        };
        if let Err(problem) = saved {
            // The driver owes what it could not do: for a container that is not attached this takes it back.
            if self.local.get(attached.mac).is_none() {
                reach.ground.save(vec![forget(attached.mac)]);
            }
            return reach.ground.reply(id, Reply::Failed(problem));
        }
        let Attached {
            mac,
            addresses,
            port,
            metadata,
        } = attached;
        if let Ok(bucket) = self.local.attach(mac, &addresses, port, metadata) {
            self.unsaid.insert(bucket);
            reach.mesh.dirty.forwarding = true;
        }
        reach.ground.reply(id, Reply::Done);
    }

    /// A container is gone.
    pub(crate) fn detach(&mut self, id: RequestId, mac: MacAddr, reach: &mut Reach<'_>) {
        if let Some(bucket) = self.local.detach(mac) {
            self.unsaid.insert(bucket);
            reach.mesh.dirty.forwarding = true;
        }
        reach
            .ground
            .save_then_reply(vec![forget(mac)], id, Reply::Done);
    }

    /// Announces the buckets of ours that have changed.
    pub(crate) fn write(&mut self, reach: &mut Reach<'_>) -> Vec<RegisterDelta> {
        let unsaid = std::mem::take(&mut self.unsaid);
        let write = |slot| {
            // One that was never filled in this run is not announced as empty: a run's first word voids the last one's.
            if self.local.is_empty(slot) && !is_announced(slot, reach) {
                return None;
            }
            let key = reach.ground.settings.keys.signing();
            let registers = &mut reach.mesh.registers;
            registers.write(ENDPOINTS, slot, self.local.body(slot), key)
        };
        unsaid.into_iter().filter_map(write).collect()
    }

    /// An owner says something anew: it is read when all are looked at.
    pub(crate) fn handle_news(&mut self, owner: NodeId) {
        self.unread.insert(owner);
    }

    /// Every endpoint of those who are present, and ours: what has not changed is shared with the last answer.
    pub(crate) fn unite(&mut self, mesh: &Mesh) -> Shared {
        let mut present = mesh.present();
        present.retain(|&node| mesh.membership.member(node).is_some());
        let said = std::mem::take(&mut self.unread);
        let is_news = |node: &&NodeId| said.contains(node) || !self.viewed.contains(node);
        for &owner in present.iter().filter(is_news) {
            let registers = mesh.registers.owned(owner, ENDPOINTS);
            let announced = registers.map(|signed| Announcement {
                slot: signed.register().slot,
                hash: signed.hash(),
                body: &signed.register().body,
            });
            self.view.set_owner(owner, announced);
        }
        for &gone in self.viewed.difference(&present) {
            self.view.remove_owner(gone);
        }
        self.viewed = present;
        self.view.set_local(&self.local);
        self.view.set_assigned(mesh.assigned());
        self.view.settle()
    }

    /// The containers of this host, by address.
    pub(crate) fn containers(&self) -> Vec<ContainerStatus> {
        let containers = self
            .local
            .iter()
            .filter_map(|endpoint| match &endpoint.kind {
                EndpointKind::Attached { port } => Some(ContainerStatus {
                    mac: endpoint.mac,
                    addresses: endpoint.addresses.clone(),
                    port: port.clone(),
                }),
                EndpointKind::Host => None,
            });
        let mut containers: Vec<ContainerStatus> = containers.collect();
        containers.sort_by(|a, b| (&a.addresses, a.mac).cmp(&(&b.addresses, b.mac)));
        containers
    }

    /// Addresses that two owners claim, in words.
    pub(crate) fn problems(&self, mesh: &Mesh) -> Vec<Problem> {
        let given_twice = self.given_twice(mesh);
        let disputes = self.view.disputes();
        let others = disputes.iter().filter(|dispute| match dispute.what {
            Disputed::Address(address) => !given_twice.contains_key(&address),
            Disputed::Mac(_) => true,
        });
        let others = others.map(|it| explain(it, mesh));
        let twice = given_twice.iter().flat_map(|(address, newcomers)| {
            let first = self.first.get(address).copied();
            let each = newcomers.iter();
            each.filter_map(move |&newcomer| Some(explain_twice(*address, first?, newcomer, mesh)))
        });
        twice.chain(others).collect()
    }

    /// Addresses that were given to somebody who is not the first to have them, and to whom.
    fn given_twice(&self, mesh: &Mesh) -> BTreeMap<IpAddr, Vec<NodeId>> {
        let mut twice: BTreeMap<IpAddr, Vec<NodeId>> = BTreeMap::new();
        for member in mesh.membership.members() {
            for address in member.addresses.iter().map(IpNet::addr) {
                if self
                    .first
                    .get(&address)
                    .is_some_and(|&first| first != member.node)
                {
                    twice.entry(address).or_default().push(member.node);
                }
            }
        }
        twice
    }
}

/// Whether we have announced a bucket in this run.
fn is_announced(slot: u16, reach: &Reach<'_>) -> bool {
    let said = reach
        .mesh
        .registers
        .get(ENDPOINTS, reach.mesh.ourself, slot);
    said.is_some_and(|said| said.version.boot == reach.ground.boot)
}

/// An address that another endpoint or node has, in words.
fn refuse_if_taken(address: &IpNet, mac: MacAddr, mesh: &Mesh) -> Result<(), Problem> {
    let address = address.addr();
    let assigned = mesh.membership.members();
    let mut assigned =
        assigned.filter(|member| member.addresses.iter().any(|it| it.addr() == address));
    let snapshot = mesh.snapshot.as_ref();
    let holder = snapshot.and_then(|it| it.endpoints.holder(Segment::DEFAULT, address));
    let other = holder.filter(|it| it.mac != mac || it.owner != mesh.ourself);
    let owner = other
        .map(|holder| holder.owner)
        .or_else(|| assigned.next().map(|member| member.node));
    let Some(owner) = owner else { return Ok(()) };
    Err(Problem::new(
        Code::AddressInUse,
        format!("{address} is in use in the mesh"),
    )
    .why(format!("it belongs to node {}", mesh.name_of(owner)))
    .fix("Choose another --address"))
}

/// An address that somebody was admitted with who found another there, in words.
fn explain_twice(address: IpAddr, first: NodeId, newcomer: NodeId, mesh: &Mesh) -> Problem {
    let (first, name) = (mesh.name_of(first), mesh.name_of(newcomer));
    let member = mesh.membership.member(newcomer);
    let by = member.map_or_else(String::new, |it| mesh.name_of(it.admitted_by));
    Problem::new(
        Code::AddressInUse,
        format!("{name} was given {address}, which {first} has"),
    )
    .why(format!("{by} admitted {name} with an address that was in use"))
    .fix(format!(
        "Take {name} out of the mesh: `weft leave` there. Look at {by}: an honest host gives no address twice"
    ))
}

fn explain(dispute: &Dispute, mesh: &Mesh) -> Problem {
    let (kept, refused) = (mesh.name_of(dispute.kept), mesh.name_of(dispute.refused));
    let what = match dispute.what {
        Disputed::Address(address) => address.to_string(),
        Disputed::Mac(mac) => mac.to_string(),
    };
    Problem::new(
        Code::AddressInUse,
        format!("{what} is claimed by {kept} and by {refused}"),
    )
    .why(format!("{kept} keeps it"))
    .fix(format!(
        "Detach the container on {refused} and attach it with another address"
    ))
}

/// A container, to be forgotten.
fn forget(mac: MacAddr) -> Change {
    Change::Delete {
        table: Table::Endpoints,
        key: mac.as_bytes().to_vec(),
    }
}

/// A container, to be remembered.
fn remember(attached: &Attached) -> Change {
    let metadata = attached.metadata.as_deref();
    let labels = metadata.map(Metadata::labels).filter(|all| !all.is_empty());
    let value = crate::wire::encode(&SavedEndpoint {
        port: attached.port.clone(),
        addresses: attached.addresses.clone(),
        name: metadata.and_then(Metadata::name).map(str::to_owned),
        labels: labels.cloned(),
    });
    Change::Put {
        table: Table::Endpoints,
        key: attached.mac.as_bytes().to_vec(),
        value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Output;
    use crate::router::testing::{Fixture, ID};

    const MAC: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);

    fn nothing(fixture: &Fixture) -> Endpoints {
        load(fixture, &Saved::default())
    }

    fn load(fixture: &Fixture, saved: &Saved) -> Endpoints {
        Endpoints::load(fixture.mesh.ourself, saved).expect("it can be read")
    }

    fn container(address: IpNet) -> Attached {
        Attached {
            mac: MAC,
            addresses: vec![address],
            port: "veth1".to_owned(),
            metadata: None,
        }
    }

    fn free() -> IpNet {
        "10.32.200.1/12".parse().expect("an address")
    }

    /// Attaches a container; gives the save that it waits for.
    fn attach(endpoints: &mut Endpoints, fixture: &mut Fixture) -> (Ticket, Vec<Change>) {
        let attached = endpoints.attach(ID, container(free()), &mut fixture.reach());
        attached.expect("it is free");
        let mut outputs = fixture.outputs();
        match (outputs.pop(), outputs.pop()) {
            (Some(Output::Save { ticket, changes }), None) => (ticket, changes),
            (last, before) => panic!("{before:?}, {last:?}"),
        }
    }

    #[test]
    fn nobody_is_told_of_a_container_before_it_is_remembered() {
        let mut fixture = Fixture::new();
        let mut endpoints = nothing(&fixture);

        let (ticket, _) = attach(&mut endpoints, &mut fixture);
        let early = endpoints.write(&mut fixture.reach());
        endpoints.handle_saved(ticket, Ok(()), &mut fixture.reach());

        assert_eq!(early.len(), 0);
        assert_eq!(fixture.replies(), [Reply::Done]);
        assert_eq!(endpoints.write(&mut fixture.reach()).len(), 1);
    }

    #[test]
    fn a_container_that_cannot_be_remembered_is_not_there() {
        let mut fixture = Fixture::new();
        let mut endpoints = nothing(&fixture);
        let full = Problem::new(Code::NotSaved, "the disk is full");

        let (ticket, _) = attach(&mut endpoints, &mut fixture);
        endpoints.handle_saved(ticket, Err(full.clone()), &mut fixture.reach());

        assert_eq!(fixture.replies(), [Reply::Failed(full)]);
        assert_eq!(endpoints.write(&mut fixture.reach()).len(), 0);
    }

    #[test]
    fn a_container_that_is_remembered_is_announced_after_a_restart_and_one_that_is_gone_is_taken_back()
     {
        let mut fixture = Fixture::new();
        let (_, changes) = attach(&mut nothing(&fixture), &mut fixture);
        let mut saved = Saved::default();
        changes.into_iter().for_each(|change| saved.apply(change));

        let mut endpoints = load(&fixture, &saved);
        endpoints.say_all();
        let after = endpoints.write(&mut fixture.reach());
        endpoints.detach(ID, MAC, &mut fixture.reach());
        let gone = endpoints.write(&mut fixture.reach());

        let slots = |deltas: &[RegisterDelta]| -> BTreeSet<u16> {
            let all = deltas.iter().flat_map(|delta| delta.iter());
            all.map(|it| it.register().slot).collect()
        };
        let (after, gone) = (slots(&after), slots(&gone));
        assert_eq!(gone.len(), 1);
        assert!(gone.is_subset(&after), "{gone:?} of {after:?}");
        assert!(gone.iter().all(|&slot| endpoints.local.is_empty(slot)));
    }

    #[test]
    fn an_address_of_a_node_is_no_containers() {
        let mut fixture = Fixture::new();
        let own = fixture.mesh.own_addresses()[0];
        let mut endpoints = nothing(&fixture);

        let attached = endpoints.attach(ID, container(own), &mut fixture.reach());

        let problem = attached.expect_err("it is ours");
        assert_eq!(problem.code, Code::AddressInUse);
        assert!(fixture.outputs().is_empty());
    }
}
