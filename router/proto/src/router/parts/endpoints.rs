//! Containers of this host, and what all hosts say of theirs.
//!
//! **Invariant.** Nobody is told of a container before it is durably remembered here.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use weft_types::{Code, MacAddr, NodeId, Problem};

use crate::crypto::sha256;
use crate::endpoints::{self, BUCKETS, Dispute, Disputed, LocalEndpoints};
use crate::gossip::registers::{ENDPOINTS, RegisterDelta};
use crate::io::{Reply, RequestId, Ticket};
use crate::router::ground::Reach;
use crate::router::ground::mesh::Mesh;
use crate::router::ground::saves::Part;
use crate::snapshot::{Endpoint, EndpointKind};
use crate::store::{Change, Saved, Table};
use crate::wire::decode_whole;

/// Containers of this host, and the view of all.
pub(crate) struct Endpoints {
    local: LocalEndpoints,
    /// Buckets of ours that have changed since they were announced.
    unsaid: BTreeSet<u16>,
    /// Containers that are being saved.
    attaching: BTreeMap<Ticket, (RequestId, Attached)>,
    /// What the buckets of others hold, read once, by the hash of the register that it was read from.
    buckets: BTreeMap<(NodeId, u16), ([u8; 32], Vec<Endpoint>)>,
    disputes: BTreeSet<Dispute>,
}

/// A container that was put on a port of this host.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) mac: MacAddr,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) port: String,
}

/// What a saved endpoint looks like: port, then addresses.
#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct SavedEndpoint {
    #[n(0)]
    port: String,
    #[cbor(n(1), with = "crate::wire::ip::net_list")]
    addresses: Vec<IpNet>,
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
            let SavedEndpoint { port, addresses } =
                decode_whole(value).map_err(|_| "an endpoint")?;
            local
                .attach(MacAddr::new(mac), &addresses, port)
                .map_err(|_| "an endpoint")?;
        }
        Ok(Self {
            local,
            unsaid: BTreeSet::new(),
            attaching: BTreeMap::new(),
            buckets: BTreeMap::new(),
            disputes: BTreeSet::new(),
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
    }

    /// A container was put on a port of this host.
    ///
    /// # Errors
    ///
    /// [`Code::AddressInUse`], or [`Code::AttachTarget`] for what cannot be announced.
    pub(crate) fn attach(
        &mut self,
        id: RequestId,
        attached: Attached,
        reach: &mut Reach<'_>,
    ) -> Result<(), Problem> {
        for address in &attached.addresses {
            refuse_if_taken(address, attached.mac, reach.mesh)?;
        }
        let Attached {
            mac,
            addresses,
            port,
        } = &attached;
        let mut trial = self.local.clone();
        let fits = trial.attach(*mac, addresses, port.clone());
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
            return reach.ground.reply(id, Reply::Failed(problem));
        }
        let Attached {
            mac,
            addresses,
            port,
        } = attached;
        if let Ok(bucket) = self.local.attach(mac, &addresses, port) {
            self.unsaid.insert(bucket);
            reach.mesh.dirty.forwarding = true;
        }
        reach.ground.reply(id, Reply::Done);
    }

    /// A container is gone.
    pub(crate) fn detach(&mut self, id: RequestId, mac: MacAddr, reach: &mut Reach<'_>) {
        let its = |it: &Endpoint| it.mac == mac && it.kind != EndpointKind::Host;
        let attached = self.local.iter().any(its);
        if let Some(bucket) = attached.then(|| self.local.detach(mac)).flatten() {
            self.unsaid.insert(bucket);
            reach.mesh.dirty.forwarding = true;
        }
        let forget = Change::Delete {
            table: Table::Endpoints,
            key: mac.as_bytes().to_vec(),
        };
        reach.ground.save_then_reply(vec![forget], id, Reply::Done);
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

    /// Every endpoint of those who are present, and ours.
    pub(crate) fn unite(&mut self, mesh: &Mesh) -> Vec<Endpoint> {
        self.read_buckets(mesh);
        let others = self.buckets.values().flat_map(|(_, bucket)| bucket);
        let all = others.chain(self.local.iter()).cloned();
        let (endpoints, disputes) = endpoints::unite(all, &mesh.assigned());
        self.disputes = disputes;
        endpoints
    }

    /// Reads what those who can be reached have announced, as far as it is not read yet.
    fn read_buckets(&mut self, mesh: &Mesh) {
        let present = mesh.present();
        let reachable =
            |owner: NodeId| present.contains(&owner) && mesh.membership.member(owner).is_some();
        let mut known = std::mem::take(&mut self.buckets);
        for signed in mesh.registers.channel(ENDPOINTS) {
            let register = signed.register();
            if !reachable(register.owner) {
                continue;
            }
            let key = (register.owner, register.slot);
            let bucket = match known.remove(&key) {
                Some((hash, bucket)) if hash == *signed.hash() => Ok(bucket),
                Some(_) | None => endpoints::decode(register.owner, register.slot, &register.body),
            };
            // A bucket that cannot be read counts as empty.
            self.buckets
                .insert(key, (*signed.hash(), bucket.unwrap_or_default()));
        }
    }

    /// Addresses that two owners claim, in words.
    pub(crate) fn problems(&self, mesh: &Mesh) -> Vec<Problem> {
        let each = self.disputes.iter();
        each.map(|dispute| explain(dispute, mesh)).collect()
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
    let endpoints = mesh.snapshot.iter().flat_map(|it| &it.endpoints);
    let mut others = endpoints.filter(|it| it.mac != mac || it.owner != mesh.ourself);
    let owner = others
        .find(|endpoint| endpoint.addresses.contains(&address))
        .map(|endpoint| endpoint.owner)
        .or_else(|| assigned.next().map(|member| member.node));
    let Some(owner) = owner else { return Ok(()) };
    Err(Problem::new(
        Code::AddressInUse,
        format!("{address} is in use in the mesh"),
    )
    .why(format!("it belongs to node {}", mesh.name_of(owner)))
    .fix("Choose another --address"))
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

/// A container, to be remembered.
fn remember(attached: &Attached) -> Change {
    let value = crate::wire::encode(&SavedEndpoint {
        port: attached.port.clone(),
        addresses: attached.addresses.clone(),
    });
    Change::Put {
        table: Table::Endpoints,
        key: attached.mac.as_bytes().to_vec(),
        value,
    }
}

/// The Ethernet address of a node's bridge: made from its identity, so that it is the same after every restart.
fn host_mac(node: NodeId) -> MacAddr {
    let [a, b, c, d, e, f, ..] = sha256(&[&b"weft-bridge"[..], node.as_bytes()].concat());
    MacAddr::local([a, b, c, d, e, f])
}
