//! Describes one endpoint: an Ethernet address of the mesh, whose it is, and what people call it.
//!
//! **Invariant.** Every [`Metadata`] is within its bounds, whoever wrote it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use weft_types::{MacAddr, NodeId, Segment};

/// The longest name: the longest of the DNS (RFC 1035 §2.3.4, without the length of the root).
pub const MAX_NAME: usize = 253;
/// Labels of one endpoint.
pub const MAX_LABELS: usize = 16;
/// Bytes of all labels of one endpoint, keys and values together.
pub const MAX_LABEL_BYTES: usize = 512;
/// Addresses per endpoint.
pub const MAX_ADDRESSES: usize = 8;

/// Why an endpoint cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Its bucket is full.
    #[error("this host has as many endpoints as it can announce")]
    Full,
    /// Too many labels, too many bytes in them, or characters that nobody can read.
    #[error(
        "an endpoint has at most {MAX_LABELS} labels of together {MAX_LABEL_BYTES} bytes, without control characters and with no empty key"
    )]
    Labels,
    /// No name, one that is too long, or one with characters that nobody can read.
    #[error("a name has 1 to {MAX_NAME} bytes and no control characters")]
    Name,
    /// More addresses than [`MAX_ADDRESSES`].
    #[error("an endpoint has at most {MAX_ADDRESSES} addresses")]
    TooManyAddresses,
    /// A group address, or an address that no host may have.
    #[error("no host may have this address")]
    Unfit,
}

/// One address on the virtual Ethernet and who answers for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Which network of the mesh.
    pub segment: Segment,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its IP addresses.
    pub addresses: Vec<IpAddr>,
    /// On whose host it is.
    pub owner: NodeId,
    /// What it is.
    pub kind: EndpointKind,
    /// What its owner calls it, if anything. It bears on no frame.
    pub metadata: Option<Arc<Metadata>>,
}

/// What an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    /// A container on a locked port. Ours name the bridge port it is behind; for others' it is empty.
    Attached {
        /// The host's end of the veth pair.
        port: String,
    },
    /// The host itself: its bridge device.
    Host,
}

/// A name and labels, on their owner's word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    name: Option<String>,
    labels: BTreeMap<String, String>,
}

impl Endpoint {
    /// What it is found by.
    pub const fn key(&self) -> (Segment, MacAddr) {
        (self.segment, self.mac)
    }

    /// Whether every frame is treated alike by either: they differ in what they are called at most.
    pub fn forwards_like(&self, other: &Self) -> bool {
        let Self {
            segment,
            mac,
            addresses,
            owner,
            kind,
            metadata: _,
        } = other;
        self.key() == (*segment, *mac)
            && self.owner == *owner
            && self.addresses == *addresses
            && self.kind == *kind
    }
}

impl Metadata {
    /// Checks what an endpoint is to be called.
    ///
    /// # Errors
    ///
    /// [`EndpointError::Labels`] or [`EndpointError::Name`].
    pub fn new(
        name: Option<String>,
        labels: BTreeMap<String, String>,
    ) -> Result<Self, EndpointError> {
        if name.as_deref().is_some_and(|name| !is_name(name)) {
            return Err(EndpointError::Name);
        }
        if !are_labels(&labels) {
            return Err(EndpointError::Labels);
        }
        Ok(Self { name, labels })
    }

    /// The name.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The labels, by key.
    pub const fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.name.is_none() && self.labels.is_empty()
    }

    /// As endpoints carry it: nothing where it says nothing.
    pub fn shared(self) -> Option<Arc<Self>> {
        (!self.is_empty()).then(|| Arc::new(self))
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && is_readable(name)
}

fn are_labels(labels: &BTreeMap<String, String>) -> bool {
    let bytes: usize = labels
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    let readable = |(key, value): (&String, &String)| {
        !key.is_empty() && is_readable(key) && is_readable(value)
    };
    labels.len() <= MAX_LABELS && bytes <= MAX_LABEL_BYTES && labels.iter().all(readable)
}

/// Nobody's terminal is told what to do by a name.
fn is_readable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// Gives the IP addresses of an endpoint, each once, if a host may have these: no group address, nothing that names no
/// host.
///
/// # Errors
///
/// [`EndpointError::TooManyAddresses`] or [`EndpointError::Unfit`].
pub(super) fn fit_addresses(
    mac: MacAddr,
    mut addresses: Vec<IpAddr>,
) -> Result<Vec<IpAddr>, EndpointError> {
    if addresses.len() > MAX_ADDRESSES {
        return Err(EndpointError::TooManyAddresses);
    }
    if mac.is_group() || mac == MacAddr::new([0; 6]) || addresses.iter().any(is_nobodys) {
        return Err(EndpointError::Unfit);
    }
    let mut seen = BTreeSet::new();
    addresses.retain(|&address| seen.insert(address));
    Ok(addresses)
}

fn is_nobodys(address: &IpAddr) -> bool {
    address.is_unspecified()
        || address.is_multicast()
        || address.is_loopback()
        || matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
        || matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(count: usize, bytes: usize) -> BTreeMap<String, String> {
        let pair = |n: usize| {
            let key = format!("key{n:05}");
            (key, "v".repeat(bytes - 8))
        };
        (0..count).map(pair).collect()
    }

    #[test]
    fn the_longest_name_and_the_most_labels_are_taken_and_no_more() {
        let name = |len| Metadata::new(Some("n".repeat(len)), BTreeMap::new());
        let labelled = |count, bytes| Metadata::new(None, labels(count, bytes));

        assert!(name(MAX_NAME).is_ok() && labelled(MAX_LABELS, 32).is_ok());
        assert_eq!(name(MAX_NAME + 1), Err(EndpointError::Name));
        assert_eq!(name(0), Err(EndpointError::Name));
        assert_eq!(labelled(MAX_LABELS + 1, 8), Err(EndpointError::Labels));
        assert_eq!(labelled(MAX_LABELS, 33), Err(EndpointError::Labels));
    }

    #[test]
    fn what_would_command_a_terminal_is_no_name_and_no_label() {
        let escape = "\u{1b}[2J".to_owned();
        let with = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);

        assert_eq!(
            Metadata::new(Some(escape.clone()), BTreeMap::new()),
            Err(EndpointError::Name)
        );
        for labels in [with(&escape, "v"), with("k", &escape), with("", "v")] {
            assert_eq!(Metadata::new(None, labels), Err(EndpointError::Labels));
        }
    }

    #[test]
    fn what_says_nothing_costs_nothing() {
        assert_eq!(Metadata::default().shared(), None);
    }
}
