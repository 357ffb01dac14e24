//! Who belongs to the mesh: hash-chained, numbered logs, one per signer, merged from everywhere.
//!
//! ```text
//!   signed records ──▶ held until signer and predecessor are known ──▶ logs ──▶ view: members, gone, tokens
//!                                                                      │
//!                                                                      └──▶ forks: liars and from where on
//! ```
//!
//! Whose logs are kept follows from the logs: the creator's, and those of whoever was ever admitted in a kept log. Records
//! of others wait, bounded, since their admission may arrive after them.
//!
//! **Invariant.** Logs, view and digest depend on which records were merged, not on their order or repetition, as long as
//! no bound is met; what a bound refused comes back by anti-entropy.
//! **Failure policy.** A record that is damaged, forged or of another mesh is dropped and counted. A signer of two records
//! with one number is void from that number on, everywhere, and reported; both records are kept and passed on as proof.

mod admission;
mod delta;
mod log;
mod record;
mod revoke;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

pub use admission::{DoorKey, SignedDoorKey, TokenSecret, Welcome};
pub use delta::{Head, MAX_RECORDS, MembershipDelta, Summary};
use log::{Log, Offer, Verified};
pub use record::{Admit, Entry, Record, RecordError, Revoke, Role, RoleChange, TokenGrant};
use view::View;
pub use view::{Gone, Member, Standing, TokenView};
use weft_types::{MeshId, NodeId, Replica, TokenId};

use crate::crypto::sha256;
use crate::identity::NodeKeys;
use crate::wire::envelope::Signed;

/// How many logs are kept: everybody who ever belonged.
const MAX_LOGS: usize = 1024;
/// How many records wait, of one signer and of all signers who are not known to belong. 512 of them have at most 8 MiB.
const MAX_HELD: usize = 256;
/// How many bytes wait in all.
const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;

type Held = BTreeMap<(NodeId, u64, [u8; 32]), Verified>;

/// The logs, and what they say.
#[derive(Clone, Debug)]
pub struct Membership {
    mesh: MeshId,
    creator: NodeId,
    logs: BTreeMap<NodeId, Log>,
    held: Held,
    view: View,
    rejected: u64,
}

/// Why a record could not be added to one's own log. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Others know records of this log that are not here: this node was restored from a copy. Fetch them first.
    #[error("this node's own membership log is incomplete")]
    Behind,
    /// Nobody would believe it any more.
    #[error("this node's membership log has forked: it needs another key")]
    Forked,
    /// The log or the record is too long.
    #[error("this node's membership log is full")]
    Full,
    /// Not the creator, and admitted by nobody.
    #[error("this node is no member, so nobody would read its log")]
    NotAMember,
}

impl Membership {
    /// Begins with no record: the creator is admin, and nobody is a member.
    pub fn new(mesh: MeshId, creator: NodeId) -> Self {
        Self {
            mesh,
            creator,
            logs: BTreeMap::from([(creator, Log::default())]),
            held: Held::new(),
            view: View::default(),
            rejected: 0,
        }
    }

    /// Adds a record to the log of `keys`, to be saved and then passed on.
    pub fn append(&mut self, record: Record, keys: &NodeKeys) -> Result<Signed, AppendError> {
        let signer = keys.node();
        let log = self.logs.get(&signer).ok_or(AppendError::NotAMember)?;
        if log.forked_at().is_some() {
            return Err(AppendError::Forked);
        }
        if self.held_of(signer).next().is_some() {
            return Err(AppendError::Behind);
        }
        let entry = Entry {
            signer,
            number: log.next(),
            previous: log.head_hash(&self.mesh),
            record,
        };
        let signed = entry
            .seal(keys.signing(), &self.mesh)
            .ok_or(AppendError::Full)?;
        let verified = Verified {
            hash: signed.hash(),
            signed: signed.clone(),
            entry,
        };
        self.held.insert(key(&verified), verified);
        if self.settle().is_empty() {
            return Err(AppendError::Full);
        }
        self.evaluate();
        Ok(signed)
    }

    /// Finds somebody who belongs.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.view.members.get(&node)
    }

    /// Everybody who belongs, by id.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.view.members.values()
    }

    /// Everybody who belongs no more, by id.
    pub fn left(&self) -> impl Iterator<Item = (NodeId, Gone)> {
        self.view.gone.iter().map(|(&node, &gone)| (node, gone))
    }

    /// Whether somebody belongs.
    pub fn standing(&self, node: NodeId) -> Standing {
        if let Some(&gone) = self.view.gone.get(&node) {
            return Standing::Gone(gone);
        }
        if self.view.members.contains_key(&node) {
            return Standing::Member;
        }
        Standing::Unknown
    }

    /// Finds a token that the logs know.
    pub fn token(&self, id: TokenId) -> Option<&TokenView> {
        self.view.tokens.get(&id)
    }

    /// Every token that the logs know, by id.
    pub fn tokens(&self) -> impl Iterator<Item = (TokenId, &TokenView)> {
        self.view.tokens.iter().map(|(&id, view)| (id, view))
    }

    /// Everybody who signed two records with one number, and that number.
    pub fn forks(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.logs
            .iter()
            .filter_map(|(&signer, log)| Some((signer, log.forked_at()?)))
    }

    /// The number of the last record in somebody's log; 0 where there is none.
    pub fn last_number(&self, signer: NodeId) -> u64 {
        self.logs.get(&signer).map_or(0, Log::len)
    }

    /// Whether the author of a summary knows no record of `signer` beyond those that are here.
    pub fn has_all_of(&self, signer: NodeId, summary: &[u8]) -> bool {
        Summary::decode(summary).is_ok_and(|summary| {
            let theirs = summary.heads.iter().find(|head| head.signer == signer);
            theirs.is_none_or(|head| head.number <= self.last_number(signer))
        })
    }

    /// How many records were dropped as damaged or forged.
    pub const fn rejected(&self) -> u64 {
        self.rejected
    }

    /// Names the state of all logs: equal where the logs are.
    pub fn digest(&self) -> [u8; 32] {
        let mut bytes = Vec::new();
        for head in self.heads() {
            bytes.extend_from_slice(head.signer.as_bytes());
            bytes.extend_from_slice(&head.number.to_be_bytes());
            bytes.extend_from_slice(&head.hash);
            bytes.extend_from_slice(&head.forked_at.unwrap_or(0).to_be_bytes());
        }
        sha256(&bytes)
    }

    /// Says how far the logs go.
    pub fn summary(&self) -> Summary {
        Summary {
            heads: self.heads().collect(),
        }
    }

    /// What the author of a summary lacks, as far as it is here.
    pub fn missing(&self, summary: &Summary) -> MembershipDelta {
        let theirs: BTreeMap<NodeId, &Head> = summary
            .heads
            .iter()
            .map(|head| (head.signer, head))
            .collect();
        let records = self
            .signers()
            .into_iter()
            .filter_map(|signer| Some((signer, self.logs.get(&signer)?)))
            .flat_map(|(signer, log)| missing_of(log, theirs.get(&signer).copied()))
            .map(|record| record.signed.clone())
            .collect();
        MembershipDelta::new(records)
    }

    /// Where a record lies in the store: signer ‖ number ‖ hash, so that both records of a fork have a place.
    pub fn store_key(signed: &Signed) -> Option<Vec<u8>> {
        let entry = Entry::decode(signed.unverified()).ok()?;
        Some(
            [
                &entry.signer.as_bytes()[..],
                &entry.number.to_be_bytes(),
                &signed.hash(),
            ]
            .concat(),
        )
    }

    fn heads(&self) -> impl Iterator<Item = Head> {
        // The creator's log is there from the beginning: an empty one says nothing.
        self.logs
            .iter()
            .filter(|(_, log)| log.len() > 0 || log.forked_at().is_some())
            .map(|(&signer, log)| Head {
                signer,
                number: log.len(),
                hash: log.head_hash(&self.mesh),
                forked_at: log.forked_at(),
            })
    }

    fn held_of(&self, signer: NodeId) -> impl Iterator<Item = &Verified> {
        self.held
            .range((signer, 0, [0; 32])..=(signer, u64::MAX, [0xff; 32]))
            .map(|(_, record)| record)
    }

    /// Reads a record that is not here yet. `None` where it is, or is worth nothing.
    fn check(&mut self, signed: Signed) -> Option<Verified> {
        let hash = signed.hash();
        let entry = Entry::decode(signed.unverified());
        if let Ok(entry) = &entry {
            let log = self.logs.get(&entry.signer);
            let waits = self.held.contains_key(&(entry.signer, entry.number, hash));
            if waits || log.is_some_and(|log| log.holds(entry.number, &hash)) {
                return None;
            }
        }
        match Entry::open(&signed, &self.mesh) {
            Ok(entry) => Some(Verified {
                signed,
                hash,
                entry,
            }),
            Err(RecordError::Inauthentic | RecordError::Malformed) => {
                self.rejected += 1;
                None
            }
        }
    }

    /// Moves records from those that wait into the logs until nothing moves. Returns what is kept from here on.
    fn settle(&mut self) -> Vec<Signed> {
        let mut news = Vec::new();
        loop {
            let before = news.len();
            for signer in self.signers() {
                self.settle_log(signer, &mut news);
            }
            self.drop_orphans();
            if news.len() == before {
                break;
            }
        }
        self.trim();
        news
    }

    fn settle_log(&mut self, signer: NodeId, news: &mut Vec<Signed>) {
        let log = self.logs.entry(signer).or_default();
        loop {
            let waiting: Vec<_> = self
                .held
                .range((signer, 0, [0; 32])..=(signer, u64::MAX, [0xff; 32]))
                .map(|(&key, _)| key)
                .collect();
            let before = news.len();
            for key in waiting {
                let Some(record) = self.held.remove(&key) else {
                    continue;
                };
                let signed = record.signed.clone();
                match log.offer(record, &self.mesh) {
                    Offer::Ahead(record) => {
                        self.held.insert(key, *record);
                    }
                    Offer::Kept => news.push(signed),
                    Offer::Stale => {}
                }
            }
            if news.len() == before {
                break;
            }
        }
    }

    /// Everybody whose log is kept, each after somebody who admitted it.
    fn signers(&self) -> Vec<NodeId> {
        let mut order = vec![self.creator];
        let mut known = BTreeSet::from([self.creator]);
        let mut next = 0;
        while let Some(log) = order.get(next).map(|signer| self.logs.get(signer)) {
            next += 1;
            for (_, record) in log.into_iter().flat_map(Log::records) {
                if let Record::Admit(admit) = record
                    && known.len() < MAX_LOGS
                    && known.insert(admit.node)
                {
                    order.push(admit.node);
                }
            }
        }
        order
    }

    /// Takes apart the logs of those whose only admission a fork has voided: they wait like any stranger's.
    fn drop_orphans(&mut self) {
        let known: BTreeSet<NodeId> = self.signers().into_iter().collect();
        let orphans: Vec<NodeId> = self
            .logs
            .keys()
            .copied()
            .filter(|signer| !known.contains(signer))
            .collect();
        for signer in orphans {
            let records = self
                .logs
                .remove(&signer)
                .into_iter()
                .flat_map(Log::into_all);
            self.held
                .extend(records.map(|record| (key(&record), record)));
        }
    }

    /// Forgets what waits beyond the bounds: the highest numbers of a signer first, they are needed last.
    fn trim(&mut self) {
        let (mut of_signer, mut of_strangers, mut bytes) = (0, 0, 0);
        let mut current = None;
        let logs = &self.logs;
        self.held.retain(|(signer, ..), record| {
            if current.replace(*signer) != Some(*signer) {
                of_signer = 0;
            }
            of_signer += 1;
            of_strangers += usize::from(!logs.contains_key(signer));
            bytes += record.signed.encoded_len();
            let known = logs.contains_key(signer);
            of_signer <= MAX_HELD && bytes <= MAX_HELD_BYTES && (known || of_strangers <= MAX_HELD)
        });
    }

    fn evaluate(&mut self) {
        self.view = View::evaluate(self.creator, &self.logs);
    }
}

impl Replica for Membership {
    type Delta = MembershipDelta;

    fn merge(&mut self, delta: MembershipDelta, _: Instant) -> Option<MembershipDelta> {
        for signed in delta.into_records() {
            if let Some(record) = self.check(signed) {
                self.held.insert(key(&record), record);
            }
        }
        let news = self.settle();
        if news.is_empty() {
            return None;
        }
        self.evaluate();
        Some(MembershipDelta::new(news))
    }

    fn snapshot(&self) -> MembershipDelta {
        self.missing(&Summary::default())
    }
}

fn key(record: &Verified) -> (NodeId, u64, [u8; 32]) {
    (record.entry.signer, record.entry.number, record.hash)
}

fn missing_of<'a>(log: &'a Log, theirs: Option<&Head>) -> Vec<&'a Verified> {
    let (number, forked_at) = theirs.map_or((0, None), |head| (head.number, head.forked_at));
    let same_so_far = theirs
        .zip(log.get(number))
        .is_none_or(|(head, record)| head.hash == record.hash);
    // Where the logs differ below their heads, only the whole chain shows from where on.
    let chain = log.since(if same_so_far { number + 1 } else { 1 });
    // Where they know the signer for a liar from an earlier record on, the rest is void to them.
    let chain = chain
        .iter()
        .filter(|record| forked_at.is_none_or(|void| record.entry.number < void));
    let proof = log
        .proof()
        .filter(|record| forked_at.is_none_or(|void| record.entry.number < void));
    chain.chain(proof).collect()
}
