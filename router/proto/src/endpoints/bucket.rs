//! Reads and writes a bucket: the full list of what one owner has in it.
//!
//! ```text
//!   bucket   = { 0: [endpoint…] }
//!   endpoint = { 0: segment, 1: MAC, 2: [address…], 3: kind, 4: name (optional), 5: [[key, value]…] (optional) }
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;

use minicbor::decode::Error;
use minicbor::{Decode, Decoder, Encode};
use weft_types::{MacAddr, NodeId, Segment};

use super::endpoint::{Endpoint, EndpointKind, Metadata, fit_addresses};
use super::place::bucket_of;
use crate::wire::{decode_whole, encode};

/// Endpoints per bucket: eight times what 1 000 endpoints put into one on average.
pub const BUCKET_SIZE: usize = 32;
/// Bytes of a bucket: 23 endpoints with two addresses, the longest name and all the labels that there may be. Of 1 000
/// such endpoints that many never meet in one bucket.
pub const BUCKET_BYTES: usize = 20_000;
/// Labels that are read at all; an endpoint with more than it may have is left out.
const READ_LABELS: u64 = 64;

const HOST: u8 = 0;
const ATTACHED: u8 = 1;

/// An endpoint as its owner announces it.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Announced<'a> {
    #[n(0)]
    segment: Segment,
    #[n(1)]
    mac: MacAddr,
    #[cbor(n(2), with = "crate::wire::ip::addr_list")]
    addresses: Vec<IpAddr>,
    /// 0 host, 1 attached; what a later release adds is treated as attached.
    #[n(3)]
    kind: u8,
    #[b(4)]
    name: Option<&'a str>,
    #[cbor(b(5), decode_with = "read_labels")]
    labels: Option<Vec<Label<'a>>>,
}

/// A label: its key, then its value.
#[derive(Encode, Decode)]
#[cbor(array)]
struct Label<'a>(#[b(0)] &'a str, #[b(1)] &'a str);

#[derive(Encode, Decode)]
#[cbor(map)]
struct Bucket<'a> {
    #[b(0)]
    endpoints: Vec<Announced<'a>>,
}

/// Reads a bucket as `owner` announced it, sorted by (segment, MAC), leaving out what no endpoint may be, what belongs to
/// another bucket, and all but the first of several with one key.
///
/// # Errors
///
/// If it is no bucket, or holds more than [`BUCKET_SIZE`].
pub fn decode(owner: NodeId, slot: u16, body: &[u8]) -> Result<Vec<Endpoint>, Error> {
    let bucket: Bucket<'_> = decode_whole(body)?;
    if bucket.endpoints.len() > BUCKET_SIZE {
        return Err(Error::message("a bucket is too full"));
    }
    let here = bucket
        .endpoints
        .into_iter()
        .filter(|announced| bucket_of(announced.mac) == slot);
    let mut endpoints: Vec<Endpoint> = here
        .filter_map(|announced| announced.endpoint(owner))
        .collect();
    endpoints.sort_by_key(Endpoint::key);
    endpoints.dedup_by_key(|endpoint| endpoint.key());
    Ok(endpoints)
}

/// Writes a bucket.
pub(super) fn write<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>) -> Vec<u8> {
    encode(&Bucket {
        endpoints: endpoints.into_iter().map(Announced::of).collect(),
    })
}

impl<'a> Announced<'a> {
    fn of(endpoint: &'a Endpoint) -> Self {
        let metadata = endpoint.metadata.as_deref();
        let labels = metadata.map(Metadata::labels).filter(|all| !all.is_empty());
        let label = |(key, value): (&'a String, &'a String)| Label(key, value);
        Self {
            segment: endpoint.segment,
            mac: endpoint.mac,
            addresses: endpoint.addresses.clone(),
            kind: match endpoint.kind {
                EndpointKind::Host => HOST,
                EndpointKind::Attached { .. } => ATTACHED,
            },
            name: metadata.and_then(Metadata::name),
            labels: labels.map(|all| all.iter().map(label).collect()),
        }
    }

    /// What it says, if a host may have it.
    fn endpoint(self, owner: NodeId) -> Option<Endpoint> {
        let addresses = fit_addresses(self.mac, self.addresses).ok()?;
        let metadata = match (self.name, &self.labels) {
            (None, None) => None,
            (name, labels) => metadata(name, labels.as_deref().unwrap_or_default())?.shared(),
        };
        Some(Endpoint {
            segment: self.segment,
            mac: self.mac,
            addresses,
            owner,
            kind: match self.kind {
                HOST => EndpointKind::Host,
                _ => EndpointKind::Attached {
                    port: String::new(),
                },
            },
            metadata,
        })
    }
}

fn metadata(name: Option<&str>, labels: &[Label<'_>]) -> Option<Metadata> {
    if !labels.is_sorted_by(|a, b| a.0 < b.0) {
        return None;
    }
    let pair = |Label(key, value): &Label<'_>| ((*key).to_owned(), (*value).to_owned());
    let labels: BTreeMap<String, String> = labels.iter().map(pair).collect();
    Metadata::new(name.map(str::to_owned), labels).ok()
}

fn read_labels<'b, C>(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Option<Vec<Label<'b>>>, Error> {
    let len = d
        .array()?
        .filter(|&len| len <= READ_LABELS)
        .ok_or_else(|| Error::message("a list of labels is too long or of no length"))?;
    (0..len)
        .map(|_| Label::decode(d, ctx))
        .collect::<Result<_, _>>()
        .map(Some)
}
