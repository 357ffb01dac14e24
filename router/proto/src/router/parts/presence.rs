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
