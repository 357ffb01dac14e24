//! The mesh as every member knows it: who belongs to it, what they say of themselves, and who is linked to us.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use weft_types::{Boot, Code, Delta, MeshId, Nickname, NodeId, Problem, Replica};

use super::link::Link;
use super::offences::{Offence, Offences};
use super::own_log::OwnLog;
use super::settings::Settings;
use crate::genesis::SignedGenesis;
use crate::gossip::registers::{RegisterDelta, Registers, SignedRegister, TOPOLOGY};
use crate::hearsay;
use crate::letter::Mail;
use crate::membership::{Member, Membership, MembershipDelta, Role, Standing};
use crate::session::handshake::Local;
use crate::snapshot::Snapshot;
use crate::store::{Change, Saved, Table};
use crate::topology::{NodeRecord, RECORD, Topology, TopologyChange};
use crate::wire::envelope::Signed;

/// How many members this release carries.
const MAX_MEMBERS: usize = 24;
/// How many records are merged at once: what a delta may hold.
const RECORDS: usize = 512;

/// The mesh as every member knows it.
pub(crate) struct Mesh {
    pub(crate) ourself: NodeId,
    pub(crate) id: MeshId,
    pub(crate) genesis: SignedGenesis,
    pub(crate) membership: Membership,
    pub(crate) own_log: OwnLog,
    pub(crate) registers: Registers,
    pub(crate) topology: Topology,
    pub(crate) links: BTreeMap<NodeId, Link>,
    pub(crate) mail: Mail,
    /// What frames are forwarded by; nothing before the first.
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    pub(crate) dirty: Dirty,
    /// Members that are down, since when and why.
    pub(crate) down: BTreeMap<NodeId, (Instant, String)>,
    /// Letters that ask for something and wait for an answer.
    requests: u64,
    /// What members sent that none may.
    pub(crate) offences: Offences,
    /// Control messages of members that could not be read, or came again.
    pub(crate) bad_payloads: u64,
    /// Link datagrams that did not open.
    pub(crate) forged_datagrams: u64,
}

/// What has changed since it was last looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dirty {
    /// Where this node can be reached, or what else its record says.
    pub(crate) record: bool,
    /// Which links there are.
    pub(crate) links: bool,
    /// Something that bears on forwarding.
    pub(crate) forwarding: bool,
}

impl Dirty {
    /// After a start everything is.
    pub(crate) const EVERYTHING: Self = Self {
        record: true,
        links: true,
        forwarding: true,
    };
}

impl Mesh {
    pub(crate) fn new(settings: &Settings, boot: Boot, genesis: SignedGenesis) -> Self {
        let node = settings.keys.node();
        let id = genesis.mesh_id();
        let creator = genesis.genesis().creator;
        Self {
            ourself: node,
            id,
            membership: Membership::new(id, creator),
            own_log: OwnLog::default(),
            registers: Registers::new(id, node, boot),
            topology: Topology::new(node, id),
            links: BTreeMap::new(),
            mail: Mail::new(local(settings, boot, id)),
            snapshot: None,
            dirty: Dirty::default(),
            down: BTreeMap::new(),
            requests: 0,
            offences: Offences::default(),
            bad_payloads: 0,
            forged_datagrams: 0,
            genesis,
        }
    }

    /// Takes the membership that was saved.
    ///
    /// # Errors
    ///
    /// Tells what cannot be read.
    pub(crate) fn load_membership(
        &mut self,
        saved: &Saved,
        now: Instant,
    ) -> Result<(), &'static str> {
        read_membership(&mut self.membership, saved, now)
    }

    /// Takes what others were heard to say of themselves: a hint where to dial, so what cannot be read is left out.
    pub(crate) fn load_peers(&mut self, saved: &Saved, now: Instant) {
        let peers = saved.table(Table::Peers);
        let remembered: RegisterDelta = peers
            .filter_map(|(_, value)| SignedRegister::decode(value).ok())
            .map(Arc::new)
            .collect();
        self.registers.merge(remembered, now);
    }

    /// Looks at the topology anew: gives what is different there, and registers that waited for who has come by that.
    pub(crate) fn look(&mut self, now: Instant) -> (Vec<TopologyChange>, RegisterDelta) {
        let up = self.links.keys().copied().collect();
        let (mut changes, mut admitted) = (Vec::new(), RegisterDelta::default());
        loop {
            changes.extend(self.topology.update(&self.registers, &up, now));
            let Some(come) = self.registers.set_seen(self.topology.seen(&up)) else {
                return (changes, admitted);
            };
            admitted.absorb(come);
        }
    }

    /// Numbers a letter that waits for an answer.
    pub(crate) const fn next_request(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    /// Whether a node that is no member yet finds no place.
    pub(crate) fn is_full_for(&self, node: NodeId) -> bool {
        let members = &self.membership;
        members.member(node).is_none() && members.members().len() >= MAX_MEMBERS
    }

    pub(crate) fn may_introduce(&self, node: NodeId) -> bool {
        self.membership
            .member(node)
            .is_some_and(|member| member.role >= Role::Introducer)
    }

    pub(crate) fn is_gone(&self, node: NodeId) -> bool {
        matches!(self.membership.standing(node), Standing::Gone(_))
    }

    /// Every member but ourself.
    pub(crate) fn others(&self) -> impl Iterator<Item = &Member> {
        let members = self.membership.members();
        members.filter(|member| member.node != self.ourself)
    }

    /// Whether an address is one of the mesh's own: what is sent there travels by what it would have to build.
    pub(crate) fn is_inside(&self, address: IpAddr) -> bool {
        let ranges = self.genesis.genesis().ranges();
        ranges.iter().any(|range| range.contains(&address))
    }

    /// The addresses that the membership gave us.
    pub(crate) fn own_addresses(&self) -> Vec<IpNet> {
        self.membership
            .member(self.ourself)
            .map(|member| member.addresses.clone())
            .unwrap_or_default()
    }

    /// Who was given which address.
    pub(crate) fn assigned(&self) -> BTreeMap<IpAddr, NodeId> {
        let members = self.membership.members();
        let each = members.flat_map(|member| {
            let addresses = member.addresses.iter();
            addresses.map(|address| (address.addr(), member.node))
        });
        each.collect()
    }

    /// Whether an address that somebody tells may be sent to.
    pub(crate) fn may_be_sent_to(&self, address: SocketAddr) -> bool {
        let ranges = self.genesis.genesis().ranges();
        hearsay::may_be_sent_to(address, &ranges)
    }

    /// Where each member says that it can be reached, as far as that may be sent to.
    pub(crate) fn dialable(&self) -> BTreeMap<NodeId, Vec<SocketAddr>> {
        let addresses = |node| {
            let record = self.topology.record(node).into_iter();
            let told = record.flat_map(|record| record.addresses.iter().copied());
            told.filter(|&address| self.may_be_sent_to(address))
                .collect()
        };
        let members = self.membership.members();
        members
            .map(|member| (member.node, addresses(member.node)))
            .collect()
    }

    /// Whether frames are forwarded to `node`.
    pub(crate) fn forwards_to(&self, node: NodeId) -> bool {
        self.snapshot
            .as_ref()
            .is_some_and(|snapshot| snapshot.peer(node).is_some())
    }

    /// What members say of themselves.
    pub(crate) fn node_records(&self) -> impl Iterator<Item = Signed> {
        let said = self.registers.channel(TOPOLOGY);
        said.filter(|register| is_node_record(register))
            .map(|register| register.signed().clone())
    }

    /// What of a welcome's records can be kept. What does not belong there is left out.
    pub(crate) fn sift_records(&self, records: Vec<Signed>) -> RegisterDelta {
        let records = records
            .into_iter()
            .filter_map(|signed| SignedRegister::new(signed).ok());
        let known = |register: &SignedRegister| {
            let owner = register.register().owner;
            is_node_record(register) && self.membership.member(owner).is_some()
        };
        records.filter(known).map(Arc::new).collect()
    }

    /// What is remembered of others: what they said of themselves, so that they are found again.
    pub(crate) fn peer_changes(&self, news: &RegisterDelta) -> Vec<Change> {
        let of_others = |register: &&Arc<SignedRegister>| {
            is_node_record(register) && register.register().owner != self.ourself
        };
        let records = news.iter().filter(of_others);
        records
            .map(|register| Change::Put {
                table: Table::Peers,
                key: register.register().owner.as_bytes().to_vec(),
                value: register.signed().encode(),
            })
            .collect()
    }

    /// What people call a node, with the first characters of its id.
    pub(crate) fn name_of(&self, node: NodeId) -> String {
        match self.membership.member(node) {
            Some(member) => format!("{} ({})", self.nickname_of(member), node.short()),
            None => node.short(),
        }
    }

    /// What a member calls itself today; what it was admitted as, until it is heard.
    pub(crate) fn nickname_of(&self, member: &Member) -> Nickname {
        let today = self.topology.record(member.node);
        today.map_or_else(|| member.nickname.clone(), |record| record.nickname.clone())
    }

    /// What `node` may be called: what it wishes, or that with the first number that makes it a name of nobody else's.
    pub(crate) fn free_name(&self, wanted: &Nickname, node: NodeId) -> Nickname {
        let taken = self.names_beside(node);
        let mut numbered = (2..).map(|number| wanted.numbered(number));
        if taken.contains(wanted) {
            let free = numbered.find(|name| !taken.contains(name));
            return free.unwrap_or_else(|| wanted.clone());
        }
        wanted.clone()
    }

    /// What the members beside `node` are called, those too that have not been heard since the start.
    fn names_beside(&self, node: NodeId) -> BTreeSet<Nickname> {
        let members = self.membership.members();
        let others = members.filter(|member| member.node != node);
        let mut names: BTreeMap<NodeId, Nickname> = others
            .map(|member| (member.node, member.nickname.clone()))
            .collect();
        let said = self.registers.channel(TOPOLOGY);
        for register in said.filter(|register| is_node_record(register)) {
            let register = register.register();
            if let Some(name) = names.get_mut(&register.owner)
                && let Ok(record) = NodeRecord::decode(&register.body)
            {
                *name = record.nickname;
            }
        }
        names.into_values().collect()
    }

    /// A member that was asked for and cannot be reached, in words.
    pub(crate) fn not_reachable(&self, node: NodeId) -> Problem {
        let name = self.name_of(node);
        Problem::new(
            Code::PeerUnreachable,
            format!("{name} is not reachable at the moment"),
        )
        .fix("`weft status` says since when and why")
    }

    /// Those to whom frames are forwarded.
    pub(crate) fn forwarded(&self) -> BTreeSet<NodeId> {
        let peers = self.snapshot.iter().flat_map(|snapshot| &snapshot.peers);
        peers.map(|peer| peer.node).collect()
    }

    /// Every address that a host or a container has.
    pub(crate) fn addresses_in_use(&self) -> BTreeSet<IpAddr> {
        let endpoints = self.snapshot.iter().flat_map(|it| it.endpoints.iter());
        endpoints
            .flat_map(|endpoint| endpoint.addresses.iter().copied())
            .collect()
    }

    /// A member sent something that cannot be read.
    pub(crate) fn note_unreadable(&mut self, by: Option<NodeId>, now: Instant) {
        self.bad_payloads += 1;
        if let Some(by) = by {
            self.offences.note(by, 1, Offence::Unreadable, now);
        }
    }

    /// Members that send what none may, in words.
    pub(crate) fn misbehaviour(&self, now: Instant) -> impl Iterator<Item = Problem> {
        let offences = self.offences.recent(now).map(|(node, count, last)| {
            let what = last.in_words();
            (
                node,
                format!("{count} times since the start; the last was {what}"),
            )
        });
        let excess = self.registers.excess().map(|(node, count)| {
            let why = format!(
                "it says more of itself than a node may: {count} times something was left out"
            );
            (node, why)
        });
        offences.chain(excess).map(|(node, why)| {
            let name = self.name_of(node);
            let problem = Problem::new(Code::Misbehaviour, format!("{name} sends what no member may"));
            problem.why(why).fix("Look at that host: it is hostile, broken into or damaged. What it sent was left out")
        })
    }

    /// A log that forks, in words.
    pub(crate) fn forks(&self) -> impl Iterator<Item = Problem> {
        self.membership.forks().map(|(signer, number)| {
            let signer = signer.short();
            Problem::new(Code::Equivocation, format!("node {signer} signed two records under number {number}"))
                .why("its disk was restored from a copy, or it lies")
                .fix("Run `weft leave` there and join it again with a new identity: `weft reset --force`")
        })
    }

    /// Those whose frames we might forward, or send to.
    pub(crate) fn present(&self) -> BTreeSet<NodeId> {
        self.topology.present().collect()
    }
}

/// What seals letters and sessions.
pub(crate) fn local(settings: &Settings, boot: Boot, mesh: MeshId) -> Local {
    Local {
        node: settings.keys.node(),
        key: settings.keys.noise().clone(),
        mesh,
        boot,
    }
}

/// What saved membership records look like.
pub(crate) fn membership_changes(records: &[Signed]) -> Vec<Change> {
    let put = |signed: &Signed| {
        let key = Membership::store_key(signed)?;
        Some(Change::Put {
            table: Table::Membership,
            key,
            value: signed.encode(),
        })
    };
    records.iter().filter_map(put).collect()
}

fn is_node_record(register: &SignedRegister) -> bool {
    let register = register.register();
    register.channel == TOPOLOGY && register.slot == RECORD
}
/// Takes the membership that was saved.
///
/// # Errors
///
/// Tells what cannot be read.
pub(crate) fn read_membership(
    membership: &mut Membership,
    saved: &Saved,
    now: Instant,
) -> Result<(), &'static str> {
    let records: Result<Vec<Signed>, _> = saved
        .table(Table::Membership)
        .map(|(_, value)| Signed::decode(value))
        .collect();
    let records = records.map_err(|_| "the membership")?;
    // In pieces of what a delta may hold; the order does not matter.
    for piece in records.chunks(RECORDS) {
        membership.merge(MembershipDelta::new(piece.to_vec()), now);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::testing::Fixture;

    fn name(text: &str) -> Nickname {
        text.parse().expect("a short name")
    }

    #[test]
    fn a_name_that_another_member_has_gets_the_first_free_number() {
        let mut fixture = Fixture::new();
        let first = fixture.admit("b");
        let stranger = NodeId::new([9; 32]);

        let alone = fixture.mesh.free_name(&name("b"), first);
        let second = fixture.mesh.free_name(&name("b"), stranger);
        fixture.admit("b-2");
        let third = fixture.mesh.free_name(&name("b"), stranger);

        assert_eq!(alone, name("b"), "a node has its own name");
        assert_eq!(second, name("b-2"));
        assert_eq!(third, name("b-3"));
        assert_eq!(fixture.mesh.free_name(&name("c"), stranger), name("c"));
    }

    #[test]
    fn what_a_member_calls_itself_today_is_taken_and_what_it_was_admitted_as_is_free() {
        let mut fixture = Fixture::new();
        fixture.link_to("b", &[]);
        let stranger = NodeId::new([9; 32]);

        let free = ["b", "other"].map(|text| fixture.mesh.free_name(&name(text), stranger));

        assert_eq!(free, [name("b"), name("other-2")]);
    }
}
