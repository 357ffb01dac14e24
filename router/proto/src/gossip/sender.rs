//! Holds what a link is owed, folded together until the link has room for it.
//!
//! For each broadcast root there is one delta that absorbs what comes later, so a slow link costs memory in proportion to
//! the state and not to how often it changed. Roots take turns. There are as many as members, but a liar may name any: beyond
//! [`MAX_ROOTS`] news goes without one, which spreads it all the same.

use std::collections::BTreeMap;

use weft_types::NodeId;

use super::Piece;

/// How many broadcasts are kept apart: more than there are members.
pub const MAX_ROOTS: usize = 64;

/// What one link is owed on one topic.
#[derive(Debug)]
pub struct Outbox<D> {
    /// `None` is what answers a summary: it belongs to no broadcast.
    owed: BTreeMap<Option<NodeId>, D>,
    /// Whose turn it was last.
    last: Option<Option<NodeId>>,
}

impl<D> Default for Outbox<D> {
    fn default() -> Self {
        Self {
            owed: BTreeMap::new(),
            last: None,
        }
    }
}

impl<D: Piece> Outbox<D> {
    /// Adds to what is owed.
    pub fn push(&mut self, root: Option<NodeId>, delta: D) {
        if delta.is_empty() {
            return;
        }
        let crowded = self.owed.len() >= MAX_ROOTS && !self.owed.contains_key(&root);
        let root = root.filter(|_| !crowded);
        match self.owed.get_mut(&root) {
            Some(owed) => owed.absorb(delta),
            None => {
                self.owed.insert(root, delta);
            }
        }
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    /// Takes out at most `bytes` (but at least one record), with the root they belong to.
    pub fn poll(&mut self, bytes: usize) -> Option<(Option<NodeId>, D)> {
        let after = self
            .last
            .and_then(|last| self.owed.keys().find(|&&root| root > last));
        let root = *after.or_else(|| self.owed.keys().next())?;
        let owed = self.owed.get_mut(&root)?;
        let part = owed.split(bytes);
        if owed.is_empty() {
            self.owed.remove(&root);
        }
        self.last = Some(root);
        Some((root, part))
    }
}
