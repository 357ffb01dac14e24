//! One register: what one owner says under one key, signed, and when it is the later of two.
//!
//! ```text
//!   payload = { 0: channel, 1: owner, 2: slot, 3: [[boot counter, boot id], sequence], 4: body }    label "register"
//!
//!   later =  boot counter, then boot id, then sequence, then SHA-256 of the payload
//! ```
//!
//! The boot id and the hash decide only where somebody is at fault (two machines with one key, one number for two
//! texts): every node must choose alike, and none of the choices is right.

use std::collections::BTreeMap;
use std::sync::Arc;

use minicbor::{Decode, Decoder, Encode, Encoder, decode};
use weft_types::{Boot, Delta, NodeId, Version};

use super::Piece;
use super::channels::row;
use crate::wire::decode_whole;
use crate::wire::envelope::Signed;

/// The most registers in one delta.
pub const MAX_REGISTERS: u64 = 8192;

/// What a register is found by. In this order they travel: who is there, before what that is worth knowing for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegisterKey {
    /// What it is about.
    pub channel: u8,
    /// Who writes it; nobody else can.
    pub owner: NodeId,
    /// Which of the owner's registers on that channel.
    pub slot: u16,
}

/// What an owner says under one key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Register {
    /// What it is about.
    #[n(0)]
    pub channel: u8,
    /// Who says it.
    #[n(1)]
    pub owner: NodeId,
    /// Which of the owner's registers on that channel.
    #[n(2)]
    pub slot: u16,
    /// Which is the later of two.
    #[n(3)]
    pub version: Version,
    /// What is said; its format is the channel's.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub body: Vec<u8>,
}

impl Register {
    /// What it is found by.
    pub const fn key(&self) -> RegisterKey {
        RegisterKey {
            owner: self.owner,
            channel: self.channel,
            slot: self.slot,
        }
    }

    /// Reads a payload, and refuses what its channel does not allow.
    ///
    /// # Errors
    ///
    /// If it is no register, or one that nobody keeps.
    pub fn decode(payload: &[u8]) -> Result<Self, decode::Error> {
        let register: Self = decode_whole(payload)?;
        if !register.is_allowed() {
            return Err(decode::Error::message("no channel takes this register"));
        }
        Ok(register)
    }

    /// Whether its channel takes it.
    pub fn is_allowed(&self) -> bool {
        row(self.channel).is_some_and(|row| self.slot < row.slots && self.body.len() <= row.bytes)
    }
}

/// A register with the bytes that its owner signed.
#[derive(Debug, PartialEq, Eq)]
pub struct SignedRegister {
    pub(super) register: Register,
    pub(super) hash: [u8; 32],
    pub(super) signed: Signed,
}

impl SignedRegister {
    /// Reads what was signed, on nobody's word: [`super::registers::Registers`] checks the signature.
    ///
    /// # Errors
    ///
    /// If the payload is no register.
    pub fn new(signed: Signed) -> Result<Self, decode::Error> {
        let register = Register::decode(signed.unverified())?;
        let hash = signed.hash();
        Ok(Self {
            register,
            hash,
            signed,
        })
    }

    /// Reads one as it travels, or as it was saved.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, decode::Error> {
        Self::new(Signed::decode(bytes)?)
    }

    /// What is said.
    pub const fn register(&self) -> &Register {
        &self.register
    }

    /// Names what is said: another hash, another text.
    pub const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The bytes that travel, and that are saved.
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }

    /// What decides which of two is the later.
    pub(super) const fn order(&self) -> (Boot, u64, [u8; 32]) {
        let Version { boot, sequence } = self.register.version;
        (boot, sequence, self.hash)
    }
}

/// Signed registers, one for each key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegisterDelta {
    pub(super) registers: BTreeMap<RegisterKey, Arc<SignedRegister>>,
}

impl RegisterDelta {
    /// The registers, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<SignedRegister>> {
        self.registers.values()
    }

    /// Adds a register, unless a later one of its key is there.
    pub fn insert(&mut self, register: Arc<SignedRegister>) {
        let kept = self
            .registers
            .entry(register.register.key())
            .or_insert_with(|| Arc::clone(&register));
        if kept.order() < register.order() {
            *kept = register;
        }
    }
}

impl Extend<Arc<SignedRegister>> for RegisterDelta {
    fn extend<I: IntoIterator<Item = Arc<SignedRegister>>>(&mut self, registers: I) {
        registers
            .into_iter()
            .for_each(|register| self.insert(register));
    }
}

impl FromIterator<Arc<SignedRegister>> for RegisterDelta {
    fn from_iter<I: IntoIterator<Item = Arc<SignedRegister>>>(registers: I) -> Self {
        let mut delta = Self::default();
        delta.extend(registers);
        delta
    }
}

impl Delta for RegisterDelta {
    fn absorb(&mut self, later: Self) {
        self.extend(later.registers.into_values());
        // What a restart has voided is owed to nobody.
        let mut boots: BTreeMap<NodeId, Boot> = BTreeMap::new();
        for (key, register) in &self.registers {
            let boot = register.register.version.boot;
            let latest = boots.entry(key.owner).or_insert(boot);
            *latest = boot.max(*latest);
        }
        self.registers
            .retain(|key, register| boots.get(&key.owner) == Some(&register.register.version.boot));
    }

    fn is_empty(&self) -> bool {
        self.registers.is_empty()
    }
}

impl Piece for RegisterDelta {
    fn split(&mut self, bytes: usize) -> Self {
        let mut room = bytes.saturating_sub(8); // the map's and the list's own bytes
        let mut part = Self::default();
        while let Some(entry) = self.registers.first_entry() {
            let len = entry.get().signed.encoded_len();
            if len > room && !part.is_empty() {
                break;
            }
            room = room.saturating_sub(len);
            let (key, register) = entry.remove_entry();
            part.registers.insert(key, register);
        }
        part
    }

    fn encode(&self) -> Vec<u8> {
        crate::wire::encode(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, decode::Error> {
        decode_whole(bytes)
    }
}

/// `{ 0: [Signed] }`
impl<C> Encode<C> for RegisterDelta {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.map(1)?.u8(0)?.array(self.registers.len() as u64)?;
        self.iter()
            .try_for_each(|register| Encode::encode(&register.signed, e, ctx))
    }
}

#[derive(Decode)]
#[cbor(map)]
struct Travelling {
    #[cbor(n(0), decode_with = "decode_list")]
    registers: Vec<Signed>,
}

fn decode_list<C>(d: &mut Decoder<'_>, ctx: &mut C) -> Result<Vec<Signed>, decode::Error> {
    let len = d
        .array()?
        .filter(|&len| len <= MAX_REGISTERS)
        .ok_or_else(|| decode::Error::message("a list is too long or of no length"))?;
    (0..len).map(|_| Decode::decode(d, ctx)).collect()
}

impl<'b, C> Decode<'b, C> for RegisterDelta {
    /// Leaves out what is no register of a channel we keep: a later release may have wider bounds.
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        let Travelling { registers } = Decode::decode(d, ctx)?;
        Ok(registers
            .into_iter()
            .filter_map(|signed| SignedRegister::new(signed).ok())
            .map(Arc::new)
            .collect())
    }
}
