//! Says who is present, how to reach them, and over which links.
//!
//! ```text
//!   channel 1, slot 0   NodeRecord   what a node says of itself: name, key, addresses, features
//!   channel 1, slot 1   Links        the nodes it holds an established link to, ascending
//! ```
//!
//! A node is present while a path of links reaches it from here, each claimed by both of its ends; of our own links we know
//! ourselves. One that was present stays so while it is *held*: frames pass to it and back, though no link leads there any
//! more. What it says of itself stays when it is away: it is how it is found again.
//!
//! **Failure policy.** A record or a list that does not decode counts as not said.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use minicbor::{Decode, Decoder, Encode, decode};
use weft_types::{Boot, MeshId, Mtu, Nickname, NodeId};

use crate::gossip::registers::{Registers, SignedRegister, TOPOLOGY};
use crate::identity::NoiseCert;
use crate::routes::Routes;
use crate::wire::{decode_whole, encode};

/// The slot of a node's record.
pub const RECORD: u16 = 0;
/// The slot of a node's links.
pub const LINKS: u16 = 1;

/// How many features a record names, and how many bytes each has.
const MAX_FEATURES: u64 = 32;
const MAX_FEATURE: usize = 32;
/// How many bytes the text of a release has.
const MAX_RELEASE: usize = 64;
/// How many links a node names: beyond what any release has carried.
const MAX_LINKS: u64 = 400;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NodeRecord {
    /// What people call it.
    #[n(0)]
    pub nickname: Nickname,
    /// Its X25519 key, and the proof that it is its own. Worth nothing until [`Self::is_of`] said so.
    #[n(1)]
    pub cert: NoiseCert,
    /// Where it may be reached, TCP and UDP.
    #[cbor(n(2), with = "crate::wire::ip::socket_list")]
    pub addresses: Vec<SocketAddr>,
    /// Optional features, by name.
    #[cbor(n(3), decode_with = "decode_features")]
    pub features: Vec<String>,
    /// Its release, for people.
    #[cbor(n(4), decode_with = "decode_release")]
    pub release: String,
    /// The largest IP packet of its underlay, as far as it knows.
    #[n(5)]
    pub mtu: Option<Mtu>,
    /// Where others have seen its datagrams come from: candidates for datagrams, not for connections.
    #[cbor(n(6), with = "crate::wire::ip::socket_list", default)]
    pub observed: Vec<SocketAddr>,
}

impl NodeRecord {
    /// Reads one, with nothing behind it.
    ///
    /// # Errors
    ///
    /// If it is none, or exceeds a bound.
    pub fn decode(bytes: &[u8]) -> Result<Self, decode::Error> {
        decode_whole(bytes)
    }

    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Whether the key in it is that of `owner`.
    pub fn is_of(&self, owner: NodeId, mesh: &MeshId) -> bool {
        self.cert.node == owner && self.cert.verify(mesh).is_ok()
    }

    /// Whether it has a feature.
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|had| had == feature)
    }
}

fn decode_features<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<String>, decode::Error> {
    let len = d
        .array()?
        .filter(|&len| len <= MAX_FEATURES)
        .ok_or_else(|| decode::Error::message("too many features, or of no number"))?;
    (0..len).map(|_| text(d, MAX_FEATURE)).collect()
}

fn decode_release<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<String, decode::Error> {
    text(d, MAX_RELEASE)
}

/// Reads what may be shown to a person: bounded, and nothing that moves a cursor.
fn text(d: &mut Decoder<'_>, max: usize) -> Result<String, decode::Error> {
    let text = d.str()?;
    if text.len() > max || text.chars().any(char::is_control) {
        return Err(decode::Error::message(
            "a text is too long or not printable",
        ));
    }
    Ok(text.to_owned())
}

/// The nodes that one node holds an established link to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Links {
    #[cbor(n(0), decode_with = "decode_links")]
    nodes: Vec<NodeId>,
}

impl Links {
    /// Takes the nodes.
    pub fn new(nodes: &BTreeSet<NodeId>) -> Self {
        Self {
            nodes: nodes.iter().copied().collect(),
        }
    }

    /// The nodes, ascending.
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// Reads one, with nothing behind it.
    ///
    /// # Errors
    ///
    /// If it is none, does not ascend, or is too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, decode::Error> {
        decode_whole(bytes)
    }

    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

fn decode_links<C>(d: &mut Decoder<'_>, ctx: &mut C) -> Result<Vec<NodeId>, decode::Error> {
    let len = d
        .array()?
        .filter(|&len| len <= MAX_LINKS)
        .ok_or_else(|| decode::Error::message("too many links, or of no number"))?;
    let nodes: Vec<NodeId> = (0..len)
        .map(|_| Decode::decode(d, ctx))
        .collect::<Result<_, _>>()?;
    if !nodes.is_sorted_by(|a, b| a < b) {
        return Err(decode::Error::message("links ascend"));
    }
    Ok(nodes)
}

/// What has become different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopologyChange {
    /// A node is present.
    Appeared(NodeId),
    /// What a node says of itself, or its links, differs.
    Changed(NodeId),
    /// A node that was known runs anew.
    Restarted(NodeId),
    /// A node is not present any more.
    Vanished(NodeId),
}

/// Who is present, and where.
#[derive(Clone, Debug)]
pub struct Topology {
    ourself: NodeId,
    mesh: MeshId,
    nodes: BTreeMap<NodeId, Node>,
    present: BTreeMap<NodeId, Instant>,
    /// Those whose datagrams pass, links or none.
    held: BTreeSet<NodeId>,
    routes: Routes,
}

#[derive(Clone, Debug)]
struct Node {
    boot: Boot,
    /// Hashes of the registers that the rest was read from: an unchanged one is not read again.
    record_hash: Option<[u8; 32]>,
    links_hash: Option<[u8; 32]>,
    record: Option<NodeRecord>,
    links: BTreeSet<NodeId>,
}

impl Topology {
    /// Knows nobody yet.
    pub fn new(ourself: NodeId, mesh: MeshId) -> Self {
        Self {
            ourself,
            mesh,
            nodes: BTreeMap::new(),
            present: BTreeMap::new(),
            held: BTreeSet::new(),
            routes: Routes::new(ourself, &BTreeMap::new(), BTreeSet::new()),
        }
    }

    /// Takes note of whose datagrams pass, for the next [`Self::update`].
    pub fn hold(&mut self, held: BTreeSet<NodeId>) {
        self.held = held;
    }

    /// Reads the registers anew, and takes note of which links of ours are up. To be called whenever either changed.
    pub fn update(
        &mut self,
        registers: &Registers,
        up: &BTreeSet<NodeId>,
        now: Instant,
    ) -> Vec<TopologyChange> {
        let mut nodes = BTreeMap::new();
        for signed in registers.channel(TOPOLOGY) {
            self.read(signed, &mut nodes);
        }
        let mut changes = Vec::new();
        for (&id, node) in &nodes {
            match self.nodes.get(&id) {
                Some(old) if old.boot != node.boot => changes.push(TopologyChange::Restarted(id)),
                Some(old) if (&old.record, &old.links) == (&node.record, &node.links) => {}
                Some(_) | None => changes.push(TopologyChange::Changed(id)),
            }
        }
        let forgotten = self.nodes.keys().filter(|id| !nodes.contains_key(id));
        changes.extend(forgotten.map(|&id| TopologyChange::Changed(id)));
        let claims = nodes
            .iter()
            .map(|(&id, node)| (id, node.links.clone()))
            .collect();
        self.routes = Routes::new(self.ourself, &claims, up.clone());
        self.nodes = nodes;
        let stays = |id: &NodeId| self.present.contains_key(id) && self.nodes.contains_key(id);
        let present: BTreeMap<NodeId, Instant> = self
            .routes
            .reached()
            .chain(self.held.iter().copied().filter(stays))
            .map(|id| (id, self.present.get(&id).copied().unwrap_or(now)))
            .collect();
        let vanished = self.present.keys().filter(|id| !present.contains_key(id));
        changes.extend(vanished.map(|&id| TopologyChange::Vanished(id)));
        let appeared = present.keys().filter(|id| !self.present.contains_key(id));
        changes.extend(appeared.map(|&id| TopologyChange::Appeared(id)));
        self.present = present;
        changes
    }

    /// Adds what one register says to what its owner says.
    fn read(&self, signed: &SignedRegister, nodes: &mut BTreeMap<NodeId, Node>) {
        let (register, hash) = (signed.register(), Some(*signed.hash()));
        let owner = register.owner;
        let known = self.nodes.get(&owner);
        let node = nodes.entry(owner).or_insert_with(|| Node {
            boot: register.version.boot,
            record_hash: None,
            links_hash: None,
            record: None,
            links: BTreeSet::new(),
        });
        match register.slot {
            RECORD => {
                node.record_hash = hash;
                node.record = match known {
                    Some(known) if known.record_hash == hash => known.record.clone(),
                    Some(_) | None => {
                        let known = known.and_then(|node| node.record.as_ref());
                        // The certificate of an unchanged key needs no second check.
                        NodeRecord::decode(&register.body).ok().filter(|record| {
                            known.is_some_and(|known| known.cert == record.cert)
                                || record.is_of(owner, &self.mesh)
                        })
                    }
                };
            }
            LINKS => {
                node.links_hash = hash;
                node.links = match known {
                    Some(known) if known.links_hash == hash => known.links.clone(),
                    Some(_) | None => Links::decode(&register.body)
                        .map(|links| links.nodes.into_iter().collect())
                        .unwrap_or_default(),
                };
            }
            _ => {} // a later release's
        }
    }

    /// What a node says of itself, present or not; its key is checked.
    pub fn record(&self, node: NodeId) -> Option<&NodeRecord> {
        self.nodes.get(&node)?.record.as_ref()
    }

    /// Everybody who has said something of themselves, by id.
    pub fn records(&self) -> impl Iterator<Item = (NodeId, &NodeRecord)> {
        self.nodes
            .iter()
            .filter_map(|(&id, node)| Some((id, node.record.as_ref()?)))
    }

    /// The latest run of a node that it has told of.
    pub fn boot(&self, node: NodeId) -> Option<Boot> {
        self.nodes.get(&node).map(|node| node.boot)
    }

    /// Since when a node has been present; `None` where it is not.
    pub fn present_since(&self, node: NodeId) -> Option<Instant> {
        self.present.get(&node).copied()
    }

    /// Everybody else who is present, by id.
    pub fn present(&self) -> impl Iterator<Item = NodeId> {
        self.present.keys().copied()
    }

    /// Everybody to whom a chain of links leads from here, each claimed by the end that is nearer: whoever is not among them
    /// has been met by nobody who is.
    pub fn seen(&self, up: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let mut seen = BTreeSet::from([self.ourself]);
        // Whoever is held counts, though no link leads there.
        let mut next: Vec<NodeId> = up.iter().chain(self.present.keys()).copied().collect();
        while let Some(node) = next.pop() {
            if seen.insert(node) {
                let links = self.nodes.get(&node).map(|node| &node.links);
                next.extend(links.into_iter().flatten());
            }
        }
        seen
    }

    /// The ways to everybody.
    pub const fn routes(&self) -> &Routes {
        &self.routes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_types::{BootId, Replica};

    use super::*;
    use crate::crypto::seeded::SeededCrypto;
    use crate::gossip::registers::RegisterDelta;
    use crate::identity::NodeKeys;
    use crate::virtual_time::origin;

    const MESH: MeshId = MeshId::new([9; 32]);

    fn boot(counter: u64) -> Boot {
        Boot {
            counter,
            id: BootId::new([1; 8]),
        }
    }

    /// Three nodes, in order of their ids.
    fn keys() -> Vec<NodeKeys> {
        let mut keys: Vec<NodeKeys> = (1..=3)
            .map(|seed| NodeKeys::generate(&mut SeededCrypto::new(seed)))
            .collect();
        keys.sort_by_key(NodeKeys::node);
        keys
    }

    fn record(keys: &NodeKeys) -> NodeRecord {
        NodeRecord {
            nickname: Nickname::new("käfer").unwrap(),
            cert: keys.certify(&MESH),
            addresses: vec!["192.0.2.1:6783".parse().unwrap()],
            features: vec!["aes".to_owned()],
            release: "0.1.0".to_owned(),
            mtu: Mtu::new(1500),
            observed: Vec::new(),
        }
    }

    /// What a run of a node says.
    fn said(keys: &NodeKeys, run: u64, links: &[NodeId]) -> RegisterDelta {
        let mut registers = Registers::new(MESH, keys.node(), boot(run));
        let links = Links::new(&links.iter().copied().collect());
        let signing = keys.signing();
        registers.write(TOPOLOGY, RECORD, record(keys).encode(), signing);
        registers.write(TOPOLOGY, LINKS, links.encode(), signing);
        registers.snapshot()
    }

    #[test]
    fn what_is_written_is_read_back_and_no_prefix_is() {
        let keys = keys();
        let record = record(&keys[0]);
        let links = Links::new(&keys.iter().map(NodeKeys::node).collect());
        let (a, b) = (record.encode(), links.encode());

        assert_eq!(NodeRecord::decode(&a).expect("decodes"), record);
        assert_eq!(Links::decode(&b).expect("decodes"), links);
        assert!((0..a.len()).all(|len| NodeRecord::decode(&a[..len]).is_err()));
        assert!((0..b.len()).all(|len| Links::decode(&b[..len]).is_err()));
        assert!(record.is_of(keys[0].node(), &MESH));
        assert!(!record.is_of(keys[1].node(), &MESH));
    }

    #[test]
    fn links_that_do_not_ascend_are_refused() {
        let node = NodeId::new([1; 32]);
        let twice = encode(&Links {
            nodes: vec![node, node],
        });

        assert!(Links::decode(&twice).is_err());
    }

    #[test]
    fn text_that_moves_a_cursor_is_refused() {
        let mut record = record(&keys()[0]);
        record.release = "\u{1b}[2J".to_owned();

        assert!(NodeRecord::decode(&record.encode()).is_err());
    }

    #[test]
    fn a_node_is_present_while_links_that_both_ends_claim_reach_it() {
        let keys = keys();
        let [a, b, c] = [0, 1, 2].map(|i: usize| keys[i].node());
        let (mut registers, now) = (Registers::new(MESH, a, boot(1)), origin());
        registers.set_members([a, b, c]);
        let mut topology = Topology::new(a, MESH);
        registers.merge(said(&keys[1], 1, &[a, c]), now);
        topology.update(&registers, &[b].into(), now);
        assert_eq!(topology.present().collect::<Vec<_>>(), [b]);

        registers.merge(said(&keys[2], 1, &[b]), now);
        let changes = topology.update(&registers, &[b].into(), now);

        assert_eq!(
            changes,
            [TopologyChange::Changed(c), TopologyChange::Appeared(c)]
        );
        assert_eq!(topology.routes().next_hop(c), Some(b));

        let changes = topology.update(&registers, &BTreeSet::new(), now);

        assert_eq!(
            changes,
            [TopologyChange::Vanished(b), TopologyChange::Vanished(c)]
        );
        assert_eq!(
            topology.record(c).map(|record| record.has("aes")),
            Some(true)
        );
    }

    #[test]
    fn who_was_present_stays_while_it_is_held_and_nobody_appears_by_that() {
        let keys = keys();
        let [a, b, c] = [0, 1, 2].map(|i: usize| keys[i].node());
        let (mut registers, now) = (Registers::new(MESH, a, boot(1)), origin());
        registers.set_members([a, b, c]);
        let mut topology = Topology::new(a, MESH);
        registers.merge(said(&keys[1], 1, &[a]), now);
        registers.merge(said(&keys[2], 1, &[]), now);
        topology.update(&registers, &[b].into(), now);

        topology.hold([b, c].into());
        let changes = topology.update(&registers, &BTreeSet::new(), now);
        assert_eq!(changes, []);
        assert_eq!(topology.present().collect::<Vec<_>>(), [b]);

        topology.hold(BTreeSet::new());
        let changes = topology.update(&registers, &BTreeSet::new(), now);
        assert_eq!(changes, [TopologyChange::Vanished(b)]);
    }

    #[test]
    fn a_node_that_restarts_is_recognised() {
        let keys = keys();
        let [a, b] = [0, 1].map(|i: usize| keys[i].node());
        let (mut registers, now) = (Registers::new(MESH, a, boot(1)), origin());
        registers.set_members([a, b]);
        let mut topology = Topology::new(a, MESH);
        registers.merge(said(&keys[1], 1, &[a]), now);
        topology.update(&registers, &[b].into(), now);

        registers.merge(said(&keys[1], 2, &[]), now);

        assert_eq!(
            topology.update(&registers, &[b].into(), now),
            [TopologyChange::Restarted(b)]
        );
        assert_eq!(topology.boot(b), Some(boot(2)));
    }

    #[test]
    fn a_record_with_anothers_key_is_not_said() {
        let keys = keys();
        let [a, b] = [0, 1].map(|i: usize| keys[i].node());
        let (mut registers, now) = (Registers::new(MESH, a, boot(1)), origin());
        registers.set_members([a, b]);
        let mut liar = Registers::new(MESH, b, boot(1));
        let stolen = record(&keys[0]).encode();
        let news = liar
            .write(TOPOLOGY, RECORD, stolen, keys[1].signing())
            .unwrap();
        registers.merge(news, now);
        let mut topology = Topology::new(a, MESH);

        topology.update(&registers, &BTreeSet::new(), now);

        assert_eq!(topology.record(b), None);
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = NodeRecord::decode(&bytes);
            let _ = Links::decode(&bytes);
        }
    }
}
