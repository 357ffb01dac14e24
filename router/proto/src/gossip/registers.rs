//! Holds what every member says of itself: registers that only their owner writes, of which the last one counts.
//!
//! ```text
//!   owner ─▶ boot ─▶ (channel, slot) ─▶ register          a later boot of the owner voids all of its older ones at once
//! ```
//!
//! **Who was never there.** Any member can admit others that nobody has met, and sign for them. Of a member that no chain of
//! links leads to only the node record is kept, by which it is found; what else it says waits with what non-members say,
//! in a few bytes for all of them, until it is [seen](Registers::set_seen). One that was seen keeps its registers, and
//! while it is away they are compared with nobody's. Each owner has its room, and all have theirs together.
//!
//! **Invariant.** What is kept, and so the digest, depends on which registers were merged and on who is a member, not on
//! the order or the repetition of either, as long as what waits, and what each owner says, stays within its bound.
//! **Failure policy.** A register that is forged or of another mesh is dropped and counted. Two boots with one counter are
//! two machines with one key, two texts with one number a lie: both are reported once, and all nodes keep the same one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use minicbor::{Decode, Decoder, Encode, decode};
use weft_types::{Boot, Delta, MeshId, NodeId, Replica, Version};

use super::Gossiped;
pub use super::channels::{ENDPOINTS, TOPOLOGY};
pub use super::register::{MAX_REGISTERS, Register, RegisterDelta, RegisterKey, SignedRegister};
use crate::crypto::{Label, SigningKey, sha256};
use crate::wire::envelope::Signed;
use crate::wire::{decode_whole, encode};

/// How many registers wait for their owner's admission, which may arrive after them, and how many bytes.
const MAX_HELD: usize = 512;
const MAX_HELD_BYTES: usize = 1024 * 1024;
/// What one owner may say in all: twice what an honest one with 1 000 endpoints does.
pub const MAX_OWNER_BYTES: usize = 2 * 1024 * 1024;
/// What all owners may say together: beyond what any mesh of 24 does.
pub const MAX_BYTES: usize = 32 * 1024 * 1024;
/// What a node record may have whose owner was never seen: more than any of ours has.
const MAX_RECORD: usize = 4096;
/// How many findings wait to be fetched. Each owner gives cause for few; what exceeds this is not reported.
const MAX_FINDINGS: usize = 64;
/// The most owners in a summary, and the most registers of one.
const MAX_SUMMARY: u64 = 1024;

/// Something a member has done wrong, or that was done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// Two machines use one identity: both wrote under one boot counter.
    Clone {
        /// Whose identity.
        owner: NodeId,
    },
    /// Two texts under one number.
    Equivocation {
        /// Who signed both.
        key: RegisterKey,
    },
    /// The mesh has heard from a later run of this node: it was restored from a copy, or is cloned.
    Superseded {
        /// The later run.
        by: Boot,
    },
}

/// Everybody's registers.
#[derive(Clone, Debug)]
pub struct Registers {
    mesh: MeshId,
    ourself: NodeId,
    boot: Boot,
    /// The last number this run has written.
    sequence: u64,
    members: BTreeSet<NodeId>,
    /// Those to whom a chain of links leads; `None` where nobody asks for that.
    seen: Option<BTreeSet<NodeId>>,
    owners: BTreeMap<NodeId, Owner>,
    /// Bytes of all owners' registers.
    bytes: usize,
    /// What was left out of owners that say too much, by owner.
    excess: BTreeMap<NodeId, u64>,
    held: RegisterDelta,
    held_bytes: usize,
    findings: VecDeque<Finding>,
    rejected: u64,
}

#[derive(Clone, Debug)]
struct Owner {
    boot: Boot,
    registers: BTreeMap<(u8, u16), Arc<SignedRegister>>,
    bytes: usize,
    /// Names the registers; empty since they changed.
    digest: OnceLock<[u8; 32]>,
    clone_reported: bool,
    lie_reported: bool,
}

impl Owner {
    /// One attach changes one owner: the others' are not hashed again.
    fn digest(&self) -> [u8; 32] {
        let hashes = || self.registers.values().map(|register| register.hash);
        let make = || sha256(&hashes().collect::<Vec<_>>().concat());
        *self.digest.get_or_init(make)
    }

    /// The registers that are compared with others' while the owner is away.
    fn record(&self) -> impl Iterator<Item = &Arc<SignedRegister>> {
        let registers = self.registers.values();
        registers.filter(|kept| is_record(kept))
    }

    fn insert(&mut self, register: &Arc<SignedRegister>) {
        let key = register.register.key();
        let key = (key.channel, key.slot);
        self.bytes += register.signed.encoded_len();
        if let Some(old) = self.registers.insert(key, Arc::clone(register)) {
            self.bytes -= old.signed.encoded_len();
        }
        self.digest = OnceLock::new();
    }

    fn bytes_below(&self, key: (u8, u16)) -> usize {
        let below = self.registers.range(..key);
        below.map(|(_, kept)| kept.signed.encoded_len()).sum()
    }

    /// Leaves the highest keys where it is too much; says how many.
    fn trim(&mut self) -> u64 {
        let mut left = 0;
        while self.bytes > MAX_OWNER_BYTES
            && let Some((_, last)) = self.registers.pop_last()
        {
            self.bytes -= last.signed.encoded_len();
            left += 1;
        }
        left
    }

    fn clear(&mut self) {
        self.registers.clear();
        self.bytes = 0;
        self.digest = OnceLock::new();
    }
}

/// Whether a register says how its owner is found, in few bytes.
fn is_record(register: &SignedRegister) -> bool {
    let RegisterKey { channel, slot, .. } = register.register.key();
    (channel, slot) == (TOPOLOGY, 0) && register.signed.encoded_len() <= MAX_RECORD
}

/// What became of a register that was offered.
enum Offer {
    /// It is kept.
    News,
    /// It was here, or a later one is.
    Old,
}

impl Registers {
    /// Holds nothing yet. `boot` is this run of `ourself`.
    pub const fn new(mesh: MeshId, ourself: NodeId, boot: Boot) -> Self {
        Self {
            mesh,
            ourself,
            boot,
            sequence: 0,
            members: BTreeSet::new(),
            seen: None,
            owners: BTreeMap::new(),
            bytes: 0,
            excess: BTreeMap::new(),
            held: RegisterDelta {
                registers: BTreeMap::new(),
            },
            held_bytes: 0,
            findings: VecDeque::new(),
            rejected: 0,
        }
    }

    /// Steps to another run of this node, after [`Finding::Superseded`]. Everything is to be written again. What this run
    /// has said already keeps its numbers.
    pub fn set_boot(&mut self, boot: Boot) {
        if self.boot != boot {
            self.boot = boot;
            self.sequence = 0;
        }
    }

    /// Tells who is a member. Drops the registers of who is none, and returns as news what waited for who has become one.
    pub fn set_members(
        &mut self,
        members: impl IntoIterator<Item = NodeId>,
    ) -> Option<RegisterDelta> {
        self.members = members.into_iter().collect();
        let (members, ourself) = (&self.members, self.ourself);
        self.owners
            .retain(|owner, _| *owner == ourself || members.contains(owner));
        self.excess.retain(|owner, _| members.contains(owner));
        self.bytes = self.owners.values().map(|owner| owner.bytes).sum();
        self.release()
    }

    /// Tells to whom a chain of links leads from here. Returns as news what waited for who has come.
    pub fn set_seen(&mut self, seen: BTreeSet<NodeId>) -> Option<RegisterDelta> {
        if self.seen.as_ref() == Some(&seen) {
            return None;
        }
        self.seen = Some(seen);
        self.release()
    }

    /// Takes in what waited for who has come.
    fn release(&mut self) -> Option<RegisterDelta> {
        let held = std::mem::take(&mut self.held.registers);
        self.held_bytes = 0;
        let (come, held): (Vec<_>, Vec<_>) = held
            .into_values()
            .partition(|register| self.belongs(register));
        held.into_iter().for_each(|register| self.hold(register));
        // Their signatures were checked before they were held.
        let mut news = RegisterDelta::default();
        for register in come {
            if matches!(self.offer(&register), Offer::News) {
                news.insert(register);
            }
        }
        self.only_kept(news)
    }

    /// Writes one of our own registers. `None` if it says this already, if its channel does not take it, or if a later
    /// run of this node has been heard of.
    pub fn write(
        &mut self,
        channel: u8,
        slot: u16,
        body: Vec<u8>,
        key: &SigningKey,
    ) -> Option<RegisterDelta> {
        debug_assert_eq!(key.node(), self.ourself, "nobody writes for another");
        let same = |kept: &Register| kept.version.boot == self.boot && kept.body == body;
        if self.get(channel, self.ourself, slot).is_some_and(same) {
            return None;
        }
        let version = Version {
            boot: self.boot,
            sequence: self.sequence + 1,
        };
        let register = Register {
            channel,
            owner: self.ourself,
            slot,
            version,
            body,
        };
        if !register.is_allowed() {
            debug_assert!(false, "nobody would keep this");
            return None;
        }
        self.sequence += 1;
        let signed = Signed::seal(key, Label::Register, &self.mesh, encode(&register));
        let signed = Arc::new(SignedRegister {
            register,
            hash: signed.hash(),
            signed,
        });
        match self.offer(&signed) {
            Offer::News => Some(std::iter::once(signed).collect()),
            Offer::Old => None,
        }
    }

    /// One register.
    pub fn get(&self, channel: u8, owner: NodeId, slot: u16) -> Option<&Register> {
        let owner = self.owners.get(&owner)?;
        let kept = owner.registers.get(&(channel, slot))?;
        Some(&kept.register)
    }

    /// All registers of one channel, by owner and slot.
    pub fn channel(&self, channel: u8) -> impl Iterator<Item = &SignedRegister> {
        self.owners.values().flat_map(move |owner| {
            owner
                .registers
                .range((channel, 0)..=(channel, u16::MAX))
                .map(|(_, register)| &**register)
        })
    }

    /// All registers of one owner on one channel, by slot.
    pub fn owned(&self, owner: NodeId, channel: u8) -> impl Iterator<Item = &SignedRegister> {
        let owner = self.owners.get(&owner).into_iter();
        let there =
            owner.flat_map(move |owner| owner.registers.range((channel, 0)..=(channel, u16::MAX)));
        there.map(|(_, register)| &**register)
    }

    /// The latest run of a member that has been heard of.
    pub fn boot(&self, owner: NodeId) -> Option<Boot> {
        self.owners.get(&owner).map(|owner| owner.boot)
    }

    /// What has been found wrong since it was last asked.
    pub fn poll_finding(&mut self) -> Option<Finding> {
        self.findings.pop_front()
    }

    /// How many registers were dropped as forged.
    pub const fn rejected(&self) -> u64 {
        self.rejected
    }

    /// How many bytes are held in all, and how many of them wait for their owners.
    pub const fn bytes(&self) -> (usize, usize) {
        (self.bytes + self.held_bytes, self.held_bytes)
    }

    /// Whose registers were left out because they say too much, and how many.
    pub fn excess(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.excess.iter().map(|(&owner, &count)| (owner, count))
    }

    fn belongs(&self, register: &SignedRegister) -> bool {
        let owner = register.register.owner;
        let member = owner == self.ourself || self.members.contains(&owner);
        member && (is_record(register) || self.is_seen(owner))
    }

    fn is_seen(&self, owner: NodeId) -> bool {
        let seen = self.seen.as_ref();
        owner == self.ourself || seen.is_none_or(|seen| seen.contains(&owner))
    }

    /// An owner's registers that are compared with others'.
    fn compared(&self, node: NodeId, owner: &Owner) -> Vec<Arc<SignedRegister>> {
        if self.is_seen(node) {
            owner.registers.values().cloned().collect()
        } else {
            owner.record().cloned().collect()
        }
    }

    /// Whether there is room for a register, in place of the one that it replaces. Of an owner that says too much the lower
    /// keys are kept, so that everybody keeps the same; of owners that do so together, whoever came first.
    fn has_room(&self, register: &SignedRegister) -> bool {
        let key = register.register.key();
        let Some(owner) = self.owners.get(&key.owner) else {
            return true;
        };
        let key = (key.channel, key.slot);
        let old = owner.registers.get(&key);
        let old = old.map_or(0, |old| old.signed.encoded_len());
        let len = register.signed.encoded_len();
        let room = len <= old || self.bytes + len - old <= MAX_BYTES;
        room && (owner.bytes + len - old <= MAX_OWNER_BYTES
            || owner.bytes_below(key) + len <= MAX_OWNER_BYTES)
    }

    /// Whether a register could change anything: asked before its signature is checked, which costs more.
    fn matters(&self, register: &SignedRegister) -> bool {
        let Some(owner) = self.owners.get(&register.register.owner) else {
            return true;
        };
        let Version { boot, sequence } = register.register.version;
        if boot.counter != owner.boot.counter {
            return boot.counter > owner.boot.counter;
        }
        if boot.id != owner.boot.id {
            return boot.id > owner.boot.id || !owner.clone_reported;
        }
        let RegisterKey { channel, slot, .. } = register.register.key();
        owner.registers.get(&(channel, slot)).is_none_or(|kept| {
            let same_number = sequence == kept.register.version.sequence;
            sequence > kept.register.version.sequence
                || same_number
                    && register.hash != kept.hash
                    && (register.hash > kept.hash || !owner.lie_reported)
        })
    }

    /// Keeps a register that is authentic, if it is the later one.
    fn offer(&mut self, register: &Arc<SignedRegister>) -> Offer {
        let key = register.register.key();
        let boot = register.register.version.boot;
        let owner = self.owners.entry(key.owner).or_insert_with(|| Owner {
            boot,
            registers: BTreeMap::new(),
            bytes: 0,
            digest: OnceLock::new(),
            clone_reported: false,
            lie_reported: false,
        });
        if boot != owner.boot {
            let cloned = boot.counter == owner.boot.counter;
            if cloned && !std::mem::replace(&mut owner.clone_reported, true) {
                report(&mut self.findings, Finding::Clone { owner: key.owner });
            }
            if boot < owner.boot {
                return Offer::Old;
            }
            self.bytes -= owner.bytes;
            owner.clear();
            owner.boot = boot;
            owner.clone_reported = cloned;
            owner.lie_reported = false;
        }
        if owner.registers.is_empty() && key.owner == self.ourself && boot > self.boot {
            report(&mut self.findings, Finding::Superseded { by: boot });
        }
        if let Some(kept) = owner.registers.get(&(key.channel, key.slot)) {
            let same_number = kept.register.version == register.register.version;
            let lied = same_number && kept.hash != register.hash;
            if lied && !std::mem::replace(&mut owner.lie_reported, true) {
                report(&mut self.findings, Finding::Equivocation { key });
            }
            if kept.order() >= register.order() {
                return Offer::Old;
            }
        }
        if key.owner == self.ourself && boot == self.boot {
            // What this run has said counts, also where it does not remember.
            self.sequence = self.sequence.max(register.register.version.sequence);
        }
        let has_room = key.owner == self.ourself || self.has_room(register);
        let Some(owner) = self.owners.get_mut(&key.owner).filter(|_| has_room) else {
            *self.excess.entry(key.owner).or_default() += 1;
            return Offer::Old;
        };
        self.bytes -= owner.bytes;
        owner.insert(register);
        let left = if key.owner == self.ourself {
            0
        } else {
            owner.trim()
        };
        self.bytes += owner.bytes;
        if left > 0 {
            *self.excess.entry(key.owner).or_default() += left;
        }
        Offer::News
    }

    /// Keeps a register of somebody who may become a member; drops it where too many wait.
    fn hold(&mut self, register: Arc<SignedRegister>) {
        let len = register.signed.encoded_len();
        if self.held.registers.len() < MAX_HELD && self.held_bytes + len <= MAX_HELD_BYTES {
            // Counts a replaced one twice: it only makes the bound narrower.
            self.held_bytes += len;
            self.held.insert(register);
        }
    }

    /// Leaves out what the same delta has voided again.
    fn only_kept(&self, news: RegisterDelta) -> Option<RegisterDelta> {
        let kept = |register: &Arc<SignedRegister>| {
            let key = register.register.key();
            let owner = self.owners.get(&key.owner);
            owner
                .and_then(|owner| owner.registers.get(&(key.channel, key.slot)))
                .is_some_and(|kept| kept.hash == register.hash)
        };
        let news: RegisterDelta = news.registers.into_values().filter(kept).collect();
        (!news.is_empty()).then_some(news)
    }
}

fn report(findings: &mut VecDeque<Finding>, finding: Finding) {
    if findings.len() < MAX_FINDINGS {
        findings.push_back(finding);
    }
}

impl Replica for Registers {
    type Delta = RegisterDelta;

    fn merge(&mut self, delta: RegisterDelta, _: Instant) -> Option<RegisterDelta> {
        let mut news = RegisterDelta::default();
        for register in delta.registers.into_values() {
            let owner = register.register.owner;
            if !self.matters(&register) {
                continue;
            }
            if register
                .signed
                .open(owner, Label::Register, &self.mesh)
                .is_err()
            {
                self.rejected += 1;
                continue;
            }
            if !self.belongs(&register) {
                self.hold(register);
                continue;
            }
            if matches!(self.offer(&register), Offer::News) {
                news.insert(register);
            }
        }
        self.only_kept(news)
    }

    fn snapshot(&self) -> RegisterDelta {
        self.owners
            .values()
            .flat_map(|owner| owner.registers.values())
            .map(Arc::clone)
            .collect()
    }
}

/// How far one owner's registers go.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct OwnerSummary {
    #[n(0)]
    owner: NodeId,
    #[n(1)]
    boot: Boot,
    #[cbor(n(2), decode_with = "bounded")]
    registers: Vec<Head>,
}

/// One register in a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
struct Head {
    #[n(0)]
    channel: u8,
    #[n(1)]
    slot: u16,
    #[n(2)]
    sequence: u64,
    /// The first eight bytes of the payload's hash: enough to see that two texts with one number differ.
    #[n(3)]
    hash: u64,
}

/// Which registers somebody has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RegisterSummary {
    #[cbor(n(0), decode_with = "bounded")]
    owners: Vec<OwnerSummary>,
}

impl RegisterSummary {
    /// Reads one, with nothing behind it.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, decode::Error> {
        decode_whole(bytes)
    }
}

fn bounded<'b, C, T: Decode<'b, C>>(
    d: &mut Decoder<'b>,
    ctx: &mut C,
) -> Result<Vec<T>, decode::Error> {
    let len = d
        .array()?
        .filter(|&len| len <= MAX_SUMMARY)
        .ok_or_else(|| decode::Error::message("a list is too long or of no length"))?;
    (0..len).map(|_| T::decode(d, ctx)).collect()
}

fn head(register: &SignedRegister) -> Head {
    let [a, b, c, d, e, f, g, h, ..] = register.hash;
    Head {
        channel: register.register.channel,
        slot: register.register.slot,
        sequence: register.register.version.sequence,
        hash: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
    }
}

impl Gossiped for Registers {
    fn digest(&self) -> [u8; 32] {
        let digest = |(&node, owner): (&NodeId, &Owner)| {
            if self.is_seen(node) {
                return Some(owner.digest());
            }
            let records: Vec<_> = owner.record().map(|register| register.hash).collect();
            (!records.is_empty()).then(|| sha256(&records.concat()))
        };
        let owners = self.owners.iter().filter_map(digest);
        sha256(&owners.collect::<Vec<_>>().concat())
    }

    fn summary(&self) -> Vec<u8> {
        let summary = |(&node, owner): (&NodeId, &Owner)| {
            let compared = self.compared(node, owner);
            (!compared.is_empty()).then(|| OwnerSummary {
                owner: node,
                boot: owner.boot,
                registers: compared.iter().map(|kept| head(kept)).collect(),
            })
        };
        encode(&RegisterSummary {
            owners: self.owners.iter().filter_map(summary).collect(),
        })
    }

    fn missing(&self, summary: &[u8]) -> Result<RegisterDelta, decode::Error> {
        let summary = RegisterSummary::decode(summary)?;
        let theirs: BTreeMap<NodeId, OwnerSummary> = summary
            .owners
            .into_iter()
            .map(|theirs| (theirs.owner, theirs))
            .collect();
        let mut missing = RegisterDelta::default();
        for (node, owner) in &self.owners {
            let theirs = theirs.get(node);
            if theirs.is_some_and(|theirs| theirs.boot > owner.boot) {
                continue;
            }
            let known: BTreeMap<(u8, u16), (u64, u64)> = theirs
                .filter(|theirs| theirs.boot == owner.boot)
                .into_iter()
                .flat_map(|theirs| &theirs.registers)
                .map(|head| ((head.channel, head.slot), (head.sequence, head.hash)))
                .collect();
            for register in self.compared(*node, owner) {
                let ours = head(&register);
                let lacks = |&theirs: &(u64, u64)| theirs < (ours.sequence, ours.hash);
                if known.get(&(ours.channel, ours.slot)).is_none_or(lacks) {
                    missing.insert(register);
                }
            }
        }
        Ok(missing)
    }
}
