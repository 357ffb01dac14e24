//! What a person said to dial: remembered, resolved, forgotten.

use std::net::SocketAddr;
use std::time::Instant;

use weft_types::{Code, Problem};

use super::Ground;
use crate::io::{Reply, RequestId, Target};
use crate::store::{Change, Saved, Table};

/// Targets are saved as keys of the node table behind this prefix.
const TARGET: &[u8] = b"target:";

impl Ground {
    /// Dials these, for good.
    pub(crate) fn connect(&mut self, id: RequestId, targets: Vec<Target>, now: Instant) {
        let changes = targets.iter().map(remember).collect();
        for target in targets {
            self.dialer.add_target(target, now);
        }
        self.save_then_reply(changes, id, Reply::Done);
    }

    /// Dials these no more.
    ///
    /// # Errors
    ///
    /// [`Code::UnknownNode`] names those that were no targets; the others are forgotten all the same.
    pub(crate) fn forget(&mut self, id: RequestId, targets: &[Target]) -> Result<(), Problem> {
        let mut unknown = Vec::new();
        for target in targets {
            if !self.dialer.remove_target(target) {
                unknown.push(target.0.as_str());
            }
        }
        let changes = targets.iter().map(forget).collect();
        if unknown.is_empty() {
            self.save_then_reply(changes, id, Reply::Done);
            return Ok(());
        }
        self.save(changes);
        let what = format!("no such target: {}", unknown.join(", "));
        Err(Problem::new(Code::UnknownNode, what).fix("`weft status targets` lists them"))
    }

    /// A name was looked up.
    pub(crate) fn resolved(&mut self, target: &Target, addresses: Vec<SocketAddr>, now: Instant) {
        let crypto = &mut *self.crypto;
        self.dialer.handle_resolved(target, addresses, crypto, now);
    }
}

/// What was remembered.
pub(crate) fn remembered(saved: &Saved) -> impl Iterator<Item = Target> {
    let keys = saved.table(Table::Node);
    let targets = keys.filter_map(|(key, _)| key.strip_prefix(TARGET));
    targets
        .filter_map(|text| std::str::from_utf8(text).ok())
        .map(|text| Target(text.to_owned()))
}

/// A target, to be remembered.
pub(crate) fn remember(target: &Target) -> Change {
    Change::Put {
        table: Table::Node,
        key: key(target),
        value: Vec::new(),
    }
}

fn forget(target: &Target) -> Change {
    Change::Delete {
        table: Table::Node,
        key: key(target),
    }
}

fn key(target: &Target) -> Vec<u8> {
    [TARGET, target.0.as_bytes()].concat()
}
