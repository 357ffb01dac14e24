//! Keeps one signer's records in order, and the proof when they fork.
//!
//! ```text
//!   mesh id ◀── 1 ◀── 2 ◀── 3          each record names the hash of the one before
//!                     ▲
//!                     └──── 3'         two with one number: the signer lied, 3 and all that follows is void
//! ```
//!
//! **Invariant.** Records `1..=len` are a chain; a proof has two different records that both are number `len + 1`. Which
//! records are kept depends on which have been offered, not on their order, as long as what was [`Offer::Ahead`] is
//! offered again when the log has changed.

use weft_types::MeshId;

use super::record::{Entry, Record};
use crate::wire::envelope::Signed;

/// The bytes that one log may have: some 4000 admissions, and a bound for what a liar can make others keep.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

/// A record whose signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verified {
    pub(super) signed: Signed,
    pub(super) hash: [u8; 32],
    pub(super) entry: Entry,
}

/// Two records with one number, the one with the lesser hash first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proof(pub(super) [Verified; 2]);

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// Its predecessor is missing: offer it again later.
    Ahead(Box<Verified>),
    /// It is news, and is kept.
    Kept,
    /// It is no news: known, void since the log forked, or beyond the log's quota.
    Stale,
}

/// One signer's records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Log {
    records: Vec<Verified>,
    proof: Option<Box<Proof>>,
    bytes: usize,
}

impl Log {
    /// Takes a record of this log's signer.
    pub(super) fn offer(&mut self, record: Verified, mesh: &MeshId) -> Offer {
        let number = record.entry.number;
        if let Some(known) = self.get(number) {
            if known.hash == record.hash {
                return Offer::Stale;
            }
            return self.fork(record);
        }
        if let Some(proof) = &mut self.proof {
            return proof.improve(record);
        }
        if number != self.next() || record.entry.previous != self.head_hash(mesh) {
            return Offer::Ahead(Box::new(record));
        }
        let bytes = self.bytes + record.signed.encoded_len();
        if bytes > MAX_BYTES {
            return Offer::Stale;
        }
        self.bytes = bytes;
        self.records.push(record);
        Offer::Kept
    }

    /// Cuts the log before the number that `other` has in common with a kept record, and keeps both as proof.
    fn fork(&mut self, other: Verified) -> Offer {
        let void = usize::try_from(other.entry.number - 1)
            .map(|first| self.records.split_off(first))
            .unwrap_or_default();
        self.bytes = self
            .records
            .iter()
            .map(|kept| kept.signed.encoded_len())
            .sum();
        let Some(known) = void.into_iter().next() else {
            return Offer::Stale;
        };
        let mut pair = [known, other];
        pair.sort_by_key(|record| record.hash);
        self.proof = Some(Box::new(Proof(pair)));
        Offer::Kept
    }

    /// Finds a kept record.
    pub(super) fn get(&self, number: u64) -> Option<&Verified> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.records.get(index)
    }

    /// Whether a record is kept, in the chain or in the proof.
    pub(super) fn holds(&self, number: u64, hash: &[u8; 32]) -> bool {
        let chained = self.get(number).is_some_and(|kept| kept.hash == *hash);
        chained || self.proof().any(|kept| kept.hash == *hash)
    }

    /// The number that the next record must have.
    pub(super) const fn next(&self) -> u64 {
        self.len() + 1
    }

    /// The number of the last record that counts.
    pub(super) const fn len(&self) -> u64 {
        self.records.len() as u64
    }

    /// What the next record must name as its predecessor.
    pub(super) fn head_hash(&self, mesh: &MeshId) -> [u8; 32] {
        self.records
            .last()
            .map_or(*mesh.as_bytes(), |record| record.hash)
    }

    /// From which number on everything is void.
    pub(super) fn forked_at(&self) -> Option<u64> {
        self.proof.as_ref().map(|_| self.next())
    }

    /// The records that prove the fork: none, or two.
    pub(super) fn proof(&self) -> impl Iterator<Item = &Verified> {
        self.proof.iter().flat_map(|proof| proof.0.iter())
    }

    /// The chain from `first` on.
    pub(super) fn since(&self, first: u64) -> &[Verified] {
        let index = usize::try_from(first.saturating_sub(1)).unwrap_or(usize::MAX);
        self.records.get(index..).unwrap_or_default()
    }

    /// What the chain says, in order.
    pub(super) fn records(&self) -> impl Iterator<Item = (u64, &Record)> {
        self.records
            .iter()
            .map(|kept| (kept.entry.number, &kept.entry.record))
    }

    /// Everything that is kept, for taking it apart.
    pub(super) fn into_all(self) -> impl Iterator<Item = Verified> {
        let proof = self.proof.map(|proof| proof.0);
        self.records.into_iter().chain(proof.into_iter().flatten())
    }
}

impl Proof {
    /// Prefers the two least hashes, so that everybody ends up with the same proof.
    fn improve(&mut self, record: Verified) -> Offer {
        let [least, second] = &mut self.0;
        let same_number = record.entry.number == least.entry.number;
        if !same_number || record.hash == least.hash || record.hash >= second.hash {
            return Offer::Stale;
        }
        *second = record;
        self.0.sort_by_key(|record| record.hash);
        Offer::Kept
    }
}
