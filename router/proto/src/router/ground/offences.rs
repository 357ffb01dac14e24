//! What members send that no honest one does: counted, so that people are told whom to look at.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weft_types::NodeId;

/// How long it is told after the last time.
const FRESH: Duration = Duration::from_secs(600);

/// What a member did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offence {
    /// A register or a record that its author did not sign: honest members check what they pass on.
    Forged,
    /// A door key of somebody who may not make one.
    DoorKey,
    /// Bytes that are no message.
    Unreadable,
}

impl Offence {
    pub(crate) const fn in_words(self) -> &'static str {
        match self {
            Self::DoorKey => "a door key that its maker may not make",
            Self::Forged => "something that its author did not sign",
            Self::Unreadable => "something that cannot be read",
        }
    }
}

/// What each member did, the last of it, and when.
#[derive(Default)]
pub(crate) struct Offences(BTreeMap<NodeId, (u64, Offence, Instant)>);

impl Offences {
    pub(crate) fn note(&mut self, by: NodeId, count: u64, offence: Offence, now: Instant) {
        if count > 0 {
            let known = self.0.entry(by).or_insert((0, offence, now));
            *known = (known.0 + count, offence, now);
        }
    }

    /// Forgets whoever is not among these.
    pub(crate) fn retain(&mut self, stays: impl Fn(NodeId) -> bool) {
        self.0.retain(|&node, _| stays(node));
    }

    /// Who did something of late, how often since the start, and what last.
    pub(crate) fn recent(&self, now: Instant) -> impl Iterator<Item = (NodeId, u64, Offence)> {
        let recent = self
            .0
            .iter()
            .filter(move |(_, (_, _, last))| now < *last + FRESH);
        recent.map(|(&node, &(count, last, _))| (node, count, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtual_time::origin;

    #[test]
    fn a_member_is_told_of_for_ten_minutes_after_the_last_time() {
        let (by, start) = (NodeId::new([1; 32]), origin());
        let mut offences = Offences::default();

        offences.note(by, 3, Offence::Forged, start);
        offences.note(by, 0, Offence::Unreadable, start + FRESH);
        offences.note(by, 1, Offence::DoorKey, start + FRESH / 2);

        let told = |at| offences.recent(at).collect::<Vec<_>>();
        assert_eq!(told(start + FRESH), [(by, 4, Offence::DoorKey)]);
        assert_eq!(told(start + FRESH * 3 / 2), []);
    }
}
