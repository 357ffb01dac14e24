//! What this node says of itself to all: its record, and its list of links.

use std::time::{Duration, Instant};

use crate::gossip::registers::{RegisterDelta, TOPOLOGY};
use crate::router::ground::Reach;
use crate::router::ground::mesh::Dirty;
use crate::topology::{LINKS, Links, NodeRecord, RECORD};

/// How long changes of our links are gathered before they are announced: they come and go together, and each announcement
/// costs every member a signature.
const GATHER: Duration = Duration::from_millis(10);

/// What this node says of itself.
#[derive(Default)]
pub(crate) struct Presence {
    /// When the list of links is announced.
    links_at: Option<Instant>,
}

impl Presence {
    /// Says anew what has changed.
    pub(crate) fn write(
        &mut self,
        dirty: Dirty,
        reach: &mut Reach<'_>,
        now: Instant,
    ) -> Vec<RegisterDelta> {
        let mut written = Vec::new();
        if dirty.record {
            let record = node_record(reach).encode();
            written.extend(write(RECORD, record, reach));
        }
        if self.links_are_due(dirty.links, reach, now) {
            let links = Links::new(&reach.mesh.links.keys().copied().collect()).encode();
            written.extend(write(LINKS, links, reach));
        }
        written
    }

    fn links_are_due(&mut self, changed: bool, reach: &Reach<'_>, now: Instant) -> bool {
        let ourself = reach.mesh.ourself;
        let said = reach.mesh.registers.get(TOPOLOGY, ourself, LINKS);
        let due = match self.links_at {
            // The first word of a run is not put off.
            at if said.is_none_or(|said| said.version.boot != reach.ground.boot) => {
                changed || at.is_some()
            }
            Some(at) => at <= now,
            None => false,
        };
        if due {
            self.links_at = None;
        } else if changed {
            self.links_at.get_or_insert(now + GATHER);
        }
        due
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.links_at.map(|at| (at, "our links are announced"))
    }
}

fn write(slot: u16, body: Vec<u8>, reach: &mut Reach<'_>) -> Option<RegisterDelta> {
    let key = reach.ground.settings.keys.signing();
    reach.mesh.registers.write(TOPOLOGY, slot, body, key)
}

fn node_record(reach: &Reach<'_>) -> NodeRecord {
    let settings = &reach.ground.settings;
    let addresses = reach.ground.reachable_at();
    NodeRecord {
        nickname: settings.nickname.clone(),
        cert: settings.keys.certify(&reach.mesh.id),
        observed: reach.mesh.observed_addresses(&addresses),
        addresses,
        features: settings.features.clone(),
        release: settings.release.clone(),
        mtu: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::testing::{Fixture, boot};

    const LINKS_CHANGED: Dirty = Dirty {
        record: false,
        links: true,
        forwarding: false,
    };
    const RECORD_CHANGED: Dirty = Dirty {
        record: true,
        links: false,
        ..LINKS_CHANGED
    };
    const NOTHING_CHANGED: Dirty = Dirty {
        links: false,
        ..LINKS_CHANGED
    };

    #[test]
    fn links_that_come_together_are_announced_together() {
        let mut fixture = Fixture::new();
        let mut presence = Presence::default();
        let start = fixture.now;

        fixture.link_to("b", &[]);
        let first = presence.write(LINKS_CHANGED, &mut fixture.reach(), start);
        fixture.link_to("c", &[]);
        let soon = fixture.wait(GATHER / 2);
        let second = presence.write(LINKS_CHANGED, &mut fixture.reach(), soon);
        let due = presence.poll_timeout().map(|(at, _)| at);
        let said = presence.write(NOTHING_CHANGED, &mut fixture.reach(), start + GATHER);

        assert_eq!((first.len(), second.len()), (0, 0));
        assert_eq!(due, Some(start + GATHER), "the second puts nothing off");
        assert_eq!(said.len(), 1);
        assert_eq!(presence.poll_timeout(), None);
    }

    #[test]
    fn the_first_word_of_a_run_is_not_put_off() {
        let mut fixture = Fixture::new();
        fixture.ground.boot = boot(9);
        fixture.mesh.registers.set_boot(boot(9));
        let now = fixture.now;

        let said = Presence::default().write(LINKS_CHANGED, &mut fixture.reach(), now);

        assert_eq!(said.len(), 1);
    }

    #[test]
    fn a_record_that_says_the_same_is_not_said_again() {
        let mut fixture = Fixture::new();
        let mut presence = Presence::default();
        let now = fixture.now;

        let same = presence.write(RECORD_CHANGED, &mut fixture.reach(), now);
        fixture.ground.settings.release = "another".to_owned();
        let other = presence.write(RECORD_CHANGED, &mut fixture.reach(), now);

        assert_eq!((same.len(), other.len()), (0, 1));
    }
}
