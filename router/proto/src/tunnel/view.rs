//! A snapshot, and what it says of frames, compiled.

use std::sync::Arc;

use weft_types::NodeId;

use crate::snapshot::Snapshot;
use crate::switch::ForwardingTable;

/// What a tunnel forwards by.
pub struct View {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) table: ForwardingTable,
}

impl View {
    /// Compiles a snapshot.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        let table = ForwardingTable::compile(&snapshot);
        Self { snapshot, table }
    }

    /// A later one; what they share is not compiled again.
    pub fn follow(&self, snapshot: Arc<Snapshot>) -> Self {
        let table = self.table.follow(&snapshot);
        Self { snapshot, table }
    }

    /// What was compiled.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Where a peer is among those that are present.
    pub(super) fn position(&self, peer: NodeId) -> Option<usize> {
        self.snapshot
            .peers
            .binary_search_by_key(&peer, |peer| peer.node)
            .ok()
    }
}
