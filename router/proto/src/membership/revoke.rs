//! Works out what revocations leave of their victims' logs. The one place that evaluates Revoke records.
//!
//! Only the creator's count: it is the only admin whose own standing nobody can dispute, so the result follows from its
//! log alone. When roles are evaluated, revocations by other admins are to be ordered here.

use std::collections::BTreeMap;

use weft_types::NodeId;

use super::log::Log;
use super::record::Record;

/// The last number that counts in each victim's log. Of several revocations of one victim the strictest stands.
pub(super) fn limits(creator: NodeId, logs: &BTreeMap<NodeId, Log>) -> BTreeMap<NodeId, u64> {
    let mut limits = BTreeMap::new();
    for (_, record) in logs.get(&creator).into_iter().flat_map(Log::records) {
        if let Record::Revoke(revoke) = record
            && revoke.victim != creator
        {
            let limit = limits.entry(revoke.victim).or_insert(u64::MAX);
            *limit = revoke.last_valid.min(*limit);
        }
    }
    limits
}
