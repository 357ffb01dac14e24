//! Holds what is on this host, in the buckets that it is announced in.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use weft_types::{MacAddr, NodeId, Segment};

use super::bucket::{BUCKET_BYTES, BUCKET_SIZE, write};
use super::endpoint::{Endpoint, EndpointError, EndpointKind, Metadata, fit_addresses};
use super::place::bucket_of;

/// What is on this host.
#[derive(Clone, Debug)]
pub struct LocalEndpoints {
    owner: NodeId,
    buckets: BTreeMap<u16, Arc<[Endpoint]>>,
}

impl LocalEndpoints {
    /// Nothing is, yet.
    pub const fn new(owner: NodeId) -> Self {
        Self {
            owner,
            buckets: BTreeMap::new(),
        }
    }

    /// Adds the host itself: its bridge device.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] for addresses that no host may have.
    pub fn host(&mut self, mac: MacAddr, addresses: &[IpNet]) -> Result<u16, EndpointError> {
        self.add(mac, addresses, EndpointKind::Host, None)
    }

    /// Whether [`Self::attach`] would take it.
    ///
    /// # Errors
    ///
    /// [`EndpointError`].
    pub fn check(
        &self,
        mac: MacAddr,
        addresses: &[IpNet],
        metadata: Option<Arc<Metadata>>,
    ) -> Result<(), EndpointError> {
        let kind = EndpointKind::Attached {
            port: String::new(),
        };
        self.with(mac, addresses, kind, metadata).map(drop)
    }

    /// Adds a container behind `port`, or replaces what was said of it. Gives the bucket that changed.
    ///
    /// # Errors
    ///
    /// [`EndpointError`]; nothing changes then.
    pub fn attach(
        &mut self,
        mac: MacAddr,
        addresses: &[IpNet],
        port: String,
        metadata: Option<Arc<Metadata>>,
    ) -> Result<u16, EndpointError> {
        self.add(mac, addresses, EndpointKind::Attached { port }, metadata)
    }

    /// Removes a container. Gives the bucket that changed, `None` if it was not here.
    pub fn detach(&mut self, mac: MacAddr) -> Option<u16> {
        let attached = |endpoint: &Endpoint| matches!(endpoint.kind, EndpointKind::Attached { .. });
        self.get(mac).filter(|endpoint| attached(endpoint))?;
        let slot = bucket_of(mac);
        let left = self.bucket(slot).iter().filter(|there| there.mac != mac);
        let left: Arc<[Endpoint]> = left.cloned().collect();
        if left.is_empty() {
            self.buckets.remove(&slot);
        } else {
            self.buckets.insert(slot, left);
        }
        Some(slot)
    }

    /// Whose they are.
    pub const fn owner(&self) -> NodeId {
        self.owner
    }

    /// One of this host's.
    pub fn get(&self, mac: MacAddr) -> Option<&Endpoint> {
        let bucket = self.bucket(bucket_of(mac));
        bucket.iter().find(|endpoint| endpoint.mac == mac)
    }

    /// Everything on this host.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.buckets.values().flat_map(|bucket| &**bucket)
    }

    /// The buckets in which there is something.
    pub fn buckets(&self) -> impl Iterator<Item = (u16, &Arc<[Endpoint]>)> {
        self.buckets.iter().map(|(&slot, bucket)| (slot, bucket))
    }

    /// Whether nothing on this host is in a bucket.
    pub fn is_empty(&self, slot: u16) -> bool {
        !self.buckets.contains_key(&slot)
    }

    /// A bucket as it is announced.
    pub fn body(&self, slot: u16) -> Vec<u8> {
        write(self.bucket(slot))
    }

    fn bucket(&self, slot: u16) -> &[Endpoint] {
        self.buckets.get(&slot).map_or(&[], |bucket| bucket)
    }

    fn add(
        &mut self,
        mac: MacAddr,
        addresses: &[IpNet],
        kind: EndpointKind,
        metadata: Option<Arc<Metadata>>,
    ) -> Result<u16, EndpointError> {
        let bucket = self.with(mac, addresses, kind, metadata)?;
        let slot = bucket_of(mac);
        self.buckets.insert(slot, bucket);
        Ok(slot)
    }

    /// The bucket of an endpoint, once that is in it.
    fn with(
        &self,
        mac: MacAddr,
        addresses: &[IpNet],
        kind: EndpointKind,
        metadata: Option<Arc<Metadata>>,
    ) -> Result<Arc<[Endpoint]>, EndpointError> {
        let addresses = fit_addresses(mac, addresses.iter().map(IpNet::addr).collect())?;
        let endpoint = Endpoint {
            segment: Segment::DEFAULT,
            mac,
            addresses,
            owner: self.owner,
            kind,
            metadata,
        };
        let others = self.bucket(bucket_of(mac)).iter();
        let others = others
            .filter(|there| there.key() != endpoint.key())
            .cloned();
        let mut bucket: Vec<Endpoint> = others.collect();
        bucket.push(endpoint);
        bucket.sort_by_key(Endpoint::key);
        if bucket.len() > BUCKET_SIZE || write(&bucket).len() > BUCKET_BYTES {
            return Err(EndpointError::Full);
        }
        Ok(bucket.into())
    }
}
