//! What is known of other machines with our identity: a copied disk, or an earlier run of ourselves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_types::{Boot, NodeId};

use crate::io::Ticket;

/// How long a member refuses us before it means it: longer than any link takes to notice silence.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// What a member said counts for so long: it is dialled again meanwhile, at the longest pause of the dialler thrice.
pub(super) const RECENT: Duration = Duration::from_secs(60);

/// Twice within this time past one's own footsteps is a clone, and no restored snapshot.
pub(super) const WINDOW: Duration = Duration::from_secs(600);

/// What is known of other machines with our identity.
#[derive(Default)]
pub(crate) struct Clones {
    /// When this node last stepped past its own footsteps.
    pub(super) stepped: Option<Instant>,
    /// The later boot that is being saved.
    pub(super) stepping: Option<(Ticket, Boot)>,
    /// The last word of another machine.
    pub(super) seen: Option<Sighting>,
    /// Which members say that it is we who are the copy.
    pub(super) refusals: BTreeMap<NodeId, Refusals>,
}

impl Clones {
    /// A member takes us for ourselves, whatever it said before.
    pub(super) fn forgive(&mut self, node: NodeId) {
        self.refusals.remove(&node);
    }

    /// Who refuses us, and has done so for long enough to mean it.
    pub(super) fn refusers(&self, now: Instant) -> impl Iterator<Item = NodeId> {
        let refusals = self.refusals.iter();
        refusals
            .filter(move |(_, said)| said.is_meant() && said.is_recent(now))
            .map(|(&node, _)| node)
    }
}

/// One member refuses us as a clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusals {
    pub(super) first: Instant,
    pub(super) last: Instant,
}

impl Refusals {
    /// After a restart members refuse us until the old run's last heartbeat has passed.
    pub(super) fn is_meant(&self) -> bool {
        self.last >= self.first + PATIENCE
    }

    pub(super) fn is_recent(&self, now: Instant) -> bool {
        now < self.last + RECENT
    }
}

/// Another machine with our identity was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) at: Instant,
    /// Where it was.
    pub(super) from: SocketAddr,
    /// Who met it; `None` where it came to us.
    pub(super) by: Option<NodeId>,
}
