//! Everything that exists only for a member.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weft_types::{Boot, Code, MacAddr, MeshId, NodeId, Problem, TokenId};

use super::Settings;
use super::links::Link;
use super::start::host_mac;
use super::trace::Trace;
use super::transit::Transit;
use crate::addresses::Addresses;
use crate::crypto::Secret32;
use crate::endpoints::{LocalEndpoints, Metadata, View};
use crate::genesis::SignedGenesis;
use crate::gossip::registers::{RegisterDelta, Registers, SignedRegister, TOPOLOGY};
use crate::handshake::Keyring;
use crate::io::{Command, ConnId, RequestId};
use crate::letter::Mail;
use crate::membership::{DoorKey, Membership, MembershipDelta, Role, Standing, TokenSecret};
use crate::overlay::{Overlay, Switch};
use crate::session::Sessions;
use crate::session::handshake::Local;
use crate::snapshot::Snapshot;
use crate::store::{Change, Saved, Table};
use crate::token::TokenBook;
use crate::topology::{RECORD, Topology};
use crate::wire::decode_whole;
use crate::wire::envelope::Signed;
use crate::wire::preface::DoorKeyId;

/// How many members this release carries.
const MAX_MEMBERS: usize = 24;
/// How many door keys are kept: a member that makes up more of them is not followed.
const MAX_DOOR_KEYS: usize = 16;
/// How long a node that was started waits to hear from others how far its own log goes.
const OWN_LOG: Duration = Duration::from_secs(2);
/// How many commands wait for that.
const MAX_WAITING: usize = 64;

/// How long a ping may take over a short way.
pub(super) const PING: Duration = Duration::from_secs(3);

/// How much longer over a long one: a session is made first, over the control plane, and one probe may be lost.
pub(super) const PING_ROUND_TRIPS: u32 = 4;

/// Everything that exists only for a member.
pub(super) struct Mesh {
    pub(super) ourself: NodeId,
    pub(super) id: MeshId,
    pub(super) genesis: SignedGenesis,
    pub(super) membership: Membership,
    pub(super) registers: Registers,
    pub(super) topology: Topology,
    pub(super) local: LocalEndpoints,
    pub(super) tokens: TokenBook,
    pub(super) keyring: Keyring,
    /// By generation: the last is dialled with, all are opened to.
    door_keys: BTreeMap<(u64, DoorKeyId), Secret32>,
    /// At the creator: who has which address.
    pub(super) addresses: Option<Addresses>,
    pub(super) links: BTreeMap<NodeId, Link>,
    pub(super) sessions: Sessions,
    pub(super) mail: Mail,
    /// Address requests that we sent.
    pub(super) requests: u64,
    /// Control messages of members that could not be read, or came again.
    pub(super) bad_payloads: u64,
    /// What is passed on over control connections.
    pub(super) transit: Transit,
    /// Link datagrams that did not open.
    pub(super) forged_datagrams: u64,
    /// Records of ours that are being saved and nobody was told of.
    pub(super) fresh_records: Vec<Signed>,
    pub(super) own_log: OwnLog,
    pub(super) dirty: Dirty,
    /// Reusable tokens whose secrets the others do not have yet.
    pub(super) unshared: BTreeSet<TokenId>,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// What all have on the virtual Ethernet, as far as they can be reached.
    pub(super) endpoints: View,
    /// Who of them was looked at when the last snapshot was made.
    pub(super) viewed: BTreeSet<NodeId>,
    /// Who has said something since.
    pub(super) unread: BTreeSet<NodeId>,
    /// Members that an event was made for.
    pub(super) greeted: BTreeSet<NodeId>,
    pub(super) pings: BTreeMap<RequestId, Ping>,
    pub(super) probe_ids: u64,
    /// Traces under way, by the number of their letters.
    pub(super) traces: BTreeMap<u64, Trace>,
    /// How each present member is reached.
    pub(super) overlays: BTreeMap<NodeId, Overlay>,
    /// How the ways to members changed that are not present, oldest first.
    pub(super) past: BTreeMap<NodeId, VecDeque<Switch>>,
    /// Where our datagrams come from, as neighbours see it.
    pub(super) observed: BTreeMap<NodeId, SocketAddr>,
    /// Members that are down, since when and why.
    pub(super) down: BTreeMap<NodeId, (Instant, String)>,
}

/// A full-size probe that is out.
pub(super) struct Ping {
    pub(super) node: NodeId,
    pub(super) size: u16,
    pub(super) again_at: Instant,
    pub(super) begun: Instant,
    pub(super) until: Instant,
    /// Each probe that left has a number of its own, so that an answer tells which of them came back.
    pub(super) probes: Vec<u64>,
    /// It has come back, and the way that it took is not proved yet.
    pub(super) came: Option<Came>,
}

/// A probe of a ping came back.
#[derive(Clone, Copy)]
pub(super) struct Came {
    pub(super) rtt: Duration,
    /// How many left before it.
    pub(super) lost: u32,
}

/// Whether this node knows how far its own log goes. A disk that was restored from a copy lacks the end of it, and a
/// record added then would fork it: so after a start nothing is added until a member has told, or nobody is there to.
#[derive(Default)]
pub(super) struct OwnLog {
    /// Until when a member's word is waited for.
    pub(super) until: Option<Instant>,
    /// Commands that add records.
    pub(super) commands: Vec<(RequestId, Command)>,
    /// Nodes that wait to be admitted.
    pub(super) admissions: Vec<ConnId>,
}

impl OwnLog {
    /// Waits, if there is anybody to tell.
    pub(super) fn ask(&mut self, others: bool, now: Instant) {
        self.until = others.then(|| now + OWN_LOG);
    }

    /// Whether there is room for one more that waits.
    pub(super) fn has_room(&self) -> bool {
        self.commands.len() + self.admissions.len() < MAX_WAITING
    }
}

/// What has to be made anew before the next input.
#[derive(Default)]
pub(super) struct Dirty {
    /// Our node record.
    pub(super) record: bool,
    /// Our list of links.
    pub(super) links: bool,
    /// When that is announced: links come and go together, and each announcement costs every member a signature.
    pub(super) links_at: Option<Instant>,
    /// Buckets of our endpoints.
    pub(super) buckets: BTreeSet<u16>,
    /// What frames are forwarded by.
    pub(super) snapshot: bool,
}

impl Dirty {
    /// After a start everything is.
    pub(super) fn everything(&mut self) {
        (self.record, self.links, self.snapshot) = (true, true, true);
        self.buckets = (0..crate::endpoints::BUCKETS).collect();
    }
}

/// What saved membership records look like.
pub(super) fn membership_changes(records: &[Signed]) -> Vec<Change> {
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

/// What is remembered of others: what they said of themselves, so that they are found again.
pub(super) fn peer_changes(news: &RegisterDelta, ourself: NodeId) -> impl Iterator<Item = Change> {
    let records = news
        .iter()
        .filter(move |register| is_node_record(register) && register.register().owner != ourself);
    records.map(|register| Change::Put {
        table: Table::Peers,
        key: register.register().owner.as_bytes().to_vec(),
        value: register.signed().encode(),
    })
}

fn is_node_record(register: &SignedRegister) -> bool {
    let register = register.register();
    register.channel == TOPOLOGY && register.slot == RECORD
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

/// An attached endpoint, to be remembered.
pub(super) fn endpoint_change(
    mac: MacAddr,
    addresses: &[IpNet],
    port: &str,
    metadata: Option<&Metadata>,
) -> Change {
    let labels = metadata.map(Metadata::labels).filter(|all| !all.is_empty());
    let value = crate::wire::encode(&SavedEndpoint {
        port: port.to_owned(),
        addresses: addresses.to_vec(),
        name: metadata.and_then(Metadata::name).map(str::to_owned),
        labels: labels.cloned(),
    });
    Change::Put {
        table: Table::Endpoints,
        key: mac.as_bytes().to_vec(),
        value,
    }
}

impl Mesh {
    pub(super) fn new(settings: &Settings, boot: Boot, genesis: SignedGenesis) -> Self {
        let node = settings.keys.node();
        let id = genesis.mesh_id();
        let creator = genesis.genesis().creator;
        let local = Local {
            node,
            key: settings.keys.noise().clone(),
            mesh: id,
            boot,
        };
        let addresses = (creator == node).then(|| {
            Addresses::new(
                genesis.genesis().range,
                genesis.genesis().range6,
                std::iter::empty(),
            )
        });
        Self {
            ourself: node,
            id,
            membership: Membership::new(id, creator),
            registers: Registers::new(id, node, boot),
            topology: Topology::new(node, id),
            unshared: BTreeSet::new(),
            local: LocalEndpoints::new(node),
            tokens: TokenBook::default(),
            keyring: Keyring::default(),
            door_keys: BTreeMap::new(),
            addresses,
            links: BTreeMap::new(),
            sessions: Sessions::new(local.clone()),
            mail: Mail::new(local),
            requests: 0,
            bad_payloads: 0,
            transit: Transit::default(),
            forged_datagrams: 0,
            fresh_records: Vec::new(),
            own_log: OwnLog::default(),
            dirty: Dirty::default(),
            snapshot: None,
            endpoints: View::default(),
            viewed: BTreeSet::new(),
            unread: BTreeSet::new(),
            greeted: BTreeSet::new(),
            pings: BTreeMap::new(),
            probe_ids: 0,
            traces: BTreeMap::new(),
            overlays: BTreeMap::new(),
            past: BTreeMap::new(),
            observed: BTreeMap::new(),
            down: BTreeMap::new(),
            genesis,
        }
    }

    /// Takes what was saved. Tells what cannot be read.
    pub(super) fn load(
        &mut self,
        settings: &Settings,
        saved: &Saved,
        now: Instant,
    ) -> Result<(), &'static str> {
        let records: Result<Vec<Signed>, _> = saved
            .table(Table::Membership)
            .map(|(_, value)| Signed::decode(value))
            .collect();
        let records = records.map_err(|_| "the membership")?;
        // In pieces of what a delta may hold; the order does not matter.
        for piece in records.chunks(512) {
            weft_types::Replica::merge(
                &mut self.membership,
                MembershipDelta::new(piece.to_vec()),
                now,
            );
        }
        for (_, value) in saved.table(Table::DoorKeys) {
            self.add_door_key(DoorKey::decode(value).map_err(|_| "a door key")?);
        }
        for (id, value) in saved.table(Table::Tokens) {
            let id = <[u8; 16]>::try_from(id).map_err(|_| "a token")?;
            self.tokens
                .restore(TokenId::new(id), value, now)
                .map_err(|_| "a token")?;
        }
        if let Some(addresses) = &mut self.addresses {
            let genesis = self.genesis.genesis();
            *addresses =
                Addresses::new(genesis.range, genesis.range6, saved.table(Table::Addresses));
        }
        for (mac, value) in saved.table(Table::Endpoints) {
            let mac = <[u8; 6]>::try_from(mac).map_err(|_| "an endpoint")?;
            let saved: SavedEndpoint = decode_whole(value).map_err(|_| "an endpoint")?;
            let metadata = Metadata::new(saved.name, saved.labels.unwrap_or_default())
                .map_err(|_| "an endpoint")?;
            self.local
                .attach(
                    MacAddr::new(mac),
                    &saved.addresses,
                    saved.port,
                    metadata.shared(),
                )
                .map_err(|_| "an endpoint")?;
        }
        let mut remembered = RegisterDelta::default();
        for (_, value) in saved.table(Table::Peers) {
            // Only a hint where to dial: what cannot be read is left out.
            if let Ok(register) = SignedRegister::decode(value) {
                remembered.insert(Arc::new(register));
            }
        }
        self.members_changed(settings.keys.node(), now);
        weft_types::Replica::merge(&mut self.registers, remembered, now);
        self.dirty.snapshot = true;
        Ok(())
    }

    /// What follows from a change of the membership. Gives registers that waited for their owner's admission.
    pub(super) fn members_changed(&mut self, node: NodeId, now: Instant) -> Option<RegisterDelta> {
        let admitted = self
            .registers
            .set_members(self.membership.members().map(|member| member.node));
        if let Some(addresses) = &mut self.addresses {
            for member in self.membership.members() {
                for address in &member.addresses {
                    if let IpAddr::V4(v4) = address.addr() {
                        addresses.bind(member.node, v4);
                    }
                }
            }
        }
        let own = self.own_addresses_of(node);
        if !own.is_empty() {
            // Addresses of a member are fit: the creator gave them.
            if let Ok(bucket) = self.local.host(host_mac(node), &own) {
                self.dirty.buckets.insert(bucket);
            }
        }
        let voided: Vec<TokenId> = self
            .membership
            .tokens()
            .filter(|(_, token)| token.voided)
            .map(|(id, _)| id)
            .collect();
        for id in voided {
            self.tokens.void(id, now);
        }
        // A disk that was restored from a copy may have forgotten that a token is spent: our own log has not.
        let redeemed: Vec<(TokenId, NodeId)> = self
            .membership
            .members()
            .filter_map(|member| Some((member.token?, member.node)))
            .collect();
        for (token, by) in redeemed {
            let _ = self.tokens.redeem(token, by, now);
        }
        self.refresh_keyring();
        self.dirty.snapshot = true;
        admitted
    }

    /// Whether a node that is no member yet finds no place.
    pub(super) fn is_full_for(&self, node: NodeId) -> bool {
        let members = &self.membership;
        members.member(node).is_none() && members.members().len() >= MAX_MEMBERS
    }

    /// Takes a door key of another member in; gives what is to be saved, `None` where it is known or one too many.
    pub(super) fn receive_door_key(&mut self, door: DoorKey) -> Option<Change> {
        let known = self.door_keys.contains_key(&(door.generation, door.id));
        (!known && self.door_keys.len() < MAX_DOOR_KEYS).then(|| self.add_door_key(door))
    }

    pub(super) fn refresh_keyring(&mut self) {
        self.keyring.clear_tokens();
        for (id, secret) in self.tokens.secrets() {
            self.keyring.add_token(id, secret.clone());
        }
    }

    /// Takes a door key in; gives what is to be saved.
    pub(super) fn add_door_key(&mut self, door: DoorKey) -> Change {
        let change = Change::Put {
            table: Table::DoorKeys,
            key: door.id.as_bytes().to_vec(),
            value: crate::wire::encode(&door),
        };
        self.keyring.add_door(door.id, door.key.clone());
        self.door_keys.insert((door.generation, door.id), door.key);
        change
    }

    pub(super) fn newest_door_key(&self) -> Option<(DoorKeyId, &Secret32)> {
        self.door_keys
            .last_key_value()
            .map(|((_, id), key)| (*id, key))
    }

    pub(super) fn door_keys(&self) -> impl Iterator<Item = DoorKey> {
        self.door_keys
            .iter()
            .map(|(&(generation, id), key)| DoorKey {
                id,
                key: key.clone(),
                generation,
            })
    }

    /// Binds an address, past those that containers have.
    pub(super) fn assign(
        &mut self,
        node: NodeId,
        wanted: Option<IpNet>,
    ) -> Result<(Vec<IpNet>, Option<Change>), Code> {
        let known = self.snapshot.iter();
        let taken: BTreeSet<IpAddr> = known
            .flat_map(|snapshot| snapshot.endpoints.iter())
            .flat_map(|endpoint| endpoint.addresses.iter().copied())
            .collect();
        let addresses = self.addresses.as_mut().ok_or(Code::CreatorUnreachable)?;
        addresses.assign(node, wanted, &taken)
    }

    /// What a saved token looks like.
    pub(super) fn token_change(&self, id: TokenId, now: Instant) -> Option<Change> {
        let value = self.tokens.encode(id, now)?;
        Some(Change::Put {
            table: Table::Tokens,
            key: id.as_bytes().to_vec(),
            value,
        })
    }

    /// The same for one that may have been forgotten.
    pub(super) fn token_change_or_removal(&self, id: TokenId, now: Instant) -> Change {
        let removal = Change::Delete {
            table: Table::Tokens,
            key: id.as_bytes().to_vec(),
        };
        self.token_change(id, now).unwrap_or(removal)
    }

    /// Takes a reusable token's secret in, which another introducer made.
    pub(super) fn receive_token(
        &mut self,
        id: TokenId,
        secret: Secret32,
        left: Duration,
        now: Instant,
    ) -> Option<Change> {
        let known = self.tokens.secrets().any(|(known, _)| known == id);
        if known || self.tokens.receive(id, secret, left, now).is_err() {
            return None;
        }
        if self.membership.token(id).is_some_and(|token| token.voided) {
            self.tokens.void(id, now);
        }
        self.refresh_keyring();
        self.token_change(id, now)
    }

    /// Reusable tokens that others may admit by.
    pub(super) fn shared_tokens(&self, now: Instant) -> Vec<TokenSecret> {
        let share = |(id, _)| {
            self.tokens
                .share(id, now)
                .map(|(secret, remaining)| TokenSecret {
                    id,
                    secret,
                    remaining,
                })
        };
        self.tokens.secrets().filter_map(share).collect()
    }

    /// What members say of themselves.
    pub(super) fn node_records(&self) -> impl Iterator<Item = Signed> {
        let said = self.registers.channel(TOPOLOGY);
        said.filter(|register| is_node_record(register))
            .map(|register| register.signed().clone())
    }

    /// What of a welcome's records can be kept. What does not belong there is left out.
    pub(super) fn sift_records(&self, records: Vec<Signed>) -> RegisterDelta {
        let records = records
            .into_iter()
            .filter_map(|signed| SignedRegister::new(signed).ok());
        let known = |register: &SignedRegister| {
            let owner = register.register().owner;
            is_node_record(register) && self.membership.member(owner).is_some()
        };
        records.filter(known).map(Arc::new).collect()
    }

    pub(super) fn may_introduce(&self, node: NodeId) -> bool {
        self.membership
            .member(node)
            .is_some_and(|member| member.role >= Role::Introducer)
    }

    pub(super) fn is_gone(&self, node: NodeId) -> bool {
        matches!(self.membership.standing(node), Standing::Gone(_))
    }

    pub(super) fn has_links(&self) -> bool {
        !self.links.is_empty()
    }

    pub(super) fn own_addresses(&self) -> Vec<IpNet> {
        self.own_addresses_of(self.ourself)
    }

    fn own_addresses_of(&self, node: NodeId) -> Vec<IpNet> {
        self.membership
            .member(node)
            .map(|member| member.addresses.clone())
            .unwrap_or_default()
    }

    /// Who was given which address.
    pub(super) fn assigned(&self) -> BTreeMap<IpAddr, NodeId> {
        let each = self.membership.members();
        each.flat_map(|member| {
            member
                .addresses
                .iter()
                .map(|address| (address.addr(), member.node))
        })
        .collect()
    }

    /// Where each member says that it can be reached.
    pub(super) fn dialable(&self) -> BTreeMap<NodeId, Vec<SocketAddr>> {
        let record = |node| {
            self.topology
                .record(node)
                .map(|record| record.addresses.clone())
                .unwrap_or_default()
        };
        self.membership
            .members()
            .map(|member| (member.node, record(member.node)))
            .collect()
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let links = self.links.values().filter_map(Link::poll_timeout).min();
        let pings = self
            .pings
            .values()
            .map(|ping| match ping.came {
                Some(_) => (ping.until, "a ping's way is not proved"),
                None => (ping.again_at.min(ping.until), "a ping is out"),
            })
            .min();
        let overlays = self.overlays.values().filter_map(Overlay::poll_timeout);
        let own_log = self.own_log.until.map(|at| (at, "nobody tells of our log"));
        let own_links = self
            .dirty
            .links_at
            .map(|at| (at, "our links are announced"));
        [
            links,
            pings,
            overlays.min(),
            self.traces.values().map(Trace::poll_timeout).min(),
            own_log,
            own_links,
            self.sessions.poll_timeout(),
            self.tokens.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// A log that forks, in words.
    pub(super) fn forks(&self) -> impl Iterator<Item = Problem> {
        self.membership.forks().map(|(signer, number)| {
            Problem::new(Code::Equivocation, format!("node {} signed two records under number {number}", signer.short()))
                .why("its disk was restored from a copy, or it lies")
                .fix("Run `weft leave` there and join it again with a new identity: `weft reset --force`")
        })
    }
}
