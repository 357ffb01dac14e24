//! Says which addresses of the virtual Ethernet are on which host.
//!
//! Every owner signs what it has, in at most [`BUCKETS`] registers: a bucket is the full list of the live endpoints that
//! fall into it, so what is gone is simply not in the list, and an attach re-signs a handful. Buckets in which nothing has
//! been are not announced.
//!
//! | file | about |
//! |---|---|
//! | `endpoint` | one endpoint, and what it may be |
//! | `place` | which bucket an endpoint is in |
//! | `bucket` | how a bucket is written |
//! | `local` | what is on this host |
//! | `shards` | what is in the mesh, in parts that snapshots share |
//! | `view` | how that follows from what all owners say |
//!
//! **Room.** 1 000 endpoints of one host fit with any names and labels: in 10 000 fillings with random addresses and the
//! largest records none was refused. Of small records about 3 000 fit.

mod bucket;
mod endpoint;
mod local;
pub(crate) mod place;
mod shards;
mod view;

pub use bucket::{BUCKET_BYTES, BUCKET_SIZE, decode};
pub use endpoint::{
    Endpoint, EndpointError, EndpointKind, MAX_ADDRESSES, MAX_LABEL_BYTES, MAX_LABELS, MAX_NAME,
    Metadata,
};
pub use local::LocalEndpoints;
pub use place::{BUCKETS, bucket_of, host_mac};
pub use shards::{Endpoints, Holder};
pub use view::{Announcement, Dispute, Disputed, View};

#[cfg(test)]
mod tests;
