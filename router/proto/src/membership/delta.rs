//! What membership says on the wire: records, and how far somebody's logs go.
//!
//! ```text
//!   MembershipDelta = { 0: [Signed] }
//!   Summary         = { 0: [{ 0: signer, 1: number of the last record, 2: its hash, 3: forked at }] }
//! ```

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};
use weft_types::{Delta, NodeId};

use crate::wire;
use crate::wire::envelope::Signed;

/// The most records in one delta, and the most logs in one summary. The size of a message bounds their bytes.
pub const MAX_RECORDS: u64 = 4096;

/// Signed records, in an order in which they can be taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MembershipDelta {
    #[cbor(n(0), with = "bounded")]
    records: Vec<Signed>,
}

impl MembershipDelta {
    /// Takes records as they are: each is checked when it is merged.
    pub fn new(records: Vec<Signed>) -> Self {
        Self { records }
    }

    /// The records.
    pub fn records(&self) -> &[Signed] {
        &self.records
    }

    /// The records, for good.
    pub fn into_records(self) -> Vec<Signed> {
        self.records
    }

    /// Cuts it into pieces of at most `bytes` each (but at least one record), in order.
    pub fn into_chunks(self, bytes: usize) -> Vec<Self> {
        let mut chunks: Vec<Self> = Vec::new();
        let mut room = 0;
        for record in self.records {
            let len = record.encoded_len();
            match chunks.last_mut() {
                Some(chunk) if len <= room => {
                    room -= len;
                    chunk.records.push(record);
                }
                Some(_) | None => {
                    room = bytes.saturating_sub(len);
                    chunks.push(Self::new(vec![record]));
                }
            }
        }
        chunks
    }

    /// Reads one, with nothing behind it.
    pub fn decode(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        wire::decode_whole(bytes)
    }
}

impl Delta for MembershipDelta {
    fn absorb(&mut self, later: Self) {
        let known: BTreeSet<&Signed> = self.records.iter().collect();
        let fresh: Vec<Signed> = later
            .records
            .into_iter()
            .filter(|record| !known.contains(record))
            .collect();
        self.records.extend(fresh);
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

/// How far one log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Head {
    /// Whose log.
    #[n(0)]
    pub signer: NodeId,
    /// Its last record that counts; 0 where none does.
    #[n(1)]
    pub number: u64,
    /// Hash of that record; of two logs of one length it tells whether they are one.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub hash: [u8; 32],
    /// From which number on everything is void, where the signer lied.
    #[n(3)]
    pub forked_at: Option<u64>,
}

/// How far all logs go: small, and enough to find what somebody lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Summary {
    /// One per log.
    #[cbor(n(0), with = "bounded")]
    pub heads: Vec<Head>,
}

impl Summary {
    /// Reads one, with nothing behind it.
    pub fn decode(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        wire::decode_whole(bytes)
    }
}

pub(super) mod bounded {
    use minicbor::decode::Error;
    use minicbor::encode::{Error as WriteError, Write};
    use minicbor::{Decode, Decoder, Encode, Encoder};

    use super::MAX_RECORDS;

    pub(in crate::membership) fn encode<C, T: Encode<C>, W: Write>(
        items: &[T],
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), WriteError<W::Error>> {
        e.array(items.len() as u64)?;
        items.iter().try_for_each(|item| item.encode(e, ctx))
    }

    pub(in crate::membership) fn decode<'b, C, T: Decode<'b, C>>(
        d: &mut Decoder<'b>,
        ctx: &mut C,
    ) -> Result<Vec<T>, Error> {
        let len = d
            .array()?
            .filter(|&len| len <= MAX_RECORDS)
            .ok_or_else(|| Error::message("a list is too long or of no length"))?;
        (0..len).map(|_| T::decode(d, ctx)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_types::MeshId;

    use super::*;
    use crate::crypto::{Label, Secret32, SigningKey};

    fn records(count: u8) -> Vec<Signed> {
        let key = SigningKey::from_seed(Secret32::new([1; 32]));
        (0..count)
            .map(|i| Signed::seal(&key, Label::MemberLog, &MeshId::new([9; 32]), vec![i; 50]))
            .collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let delta = MembershipDelta::new(records(3));
        let summary = Summary {
            heads: vec![Head {
                signer: NodeId::new([1; 32]),
                number: 3,
                hash: [4; 32],
                forked_at: Some(4),
            }],
        };
        let (delta_bytes, summary_bytes) = (wire::encode(&delta), wire::encode(&summary));

        assert_eq!(
            MembershipDelta::decode(&delta_bytes).expect("decodes"),
            delta
        );
        assert_eq!(Summary::decode(&summary_bytes).expect("decodes"), summary);
        assert!(
            (0..delta_bytes.len()).all(|len| MembershipDelta::decode(&delta_bytes[..len]).is_err())
        );
        assert!(
            (0..summary_bytes.len()).all(|len| Summary::decode(&summary_bytes[..len]).is_err())
        );
    }

    #[test]
    fn a_list_that_claims_to_be_endless_is_refused() {
        let claims_4097 = [0xa1, 0x00, 0x99, 0x10, 0x01];

        assert!(MembershipDelta::decode(&claims_4097).is_err());
        assert!(Summary::decode(&claims_4097).is_err());
    }

    #[test]
    fn absorbing_what_is_there_changes_nothing() {
        let mut delta = MembershipDelta::new(records(3));

        delta.absorb(MembershipDelta::new(records(4)));

        assert_eq!(delta.records(), records(4));
    }

    #[test]
    fn chunks_keep_every_record_and_the_bound() {
        let chunks = MembershipDelta::new(records(7)).into_chunks(300);

        assert!(chunks.iter().all(|chunk| wire::encode(chunk).len() <= 300));
        let joined: Vec<Signed> = chunks.into_iter().flat_map(|chunk| chunk.records).collect();
        assert_eq!(joined, records(7));
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = MembershipDelta::decode(&bytes);
            let _ = Summary::decode(&bytes);
        }
    }
}
