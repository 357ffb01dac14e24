//! What is known of other machines with our identity: a copied disk, or an earlier run of ourselves.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_types::{Boot, NodeId};

use crate::io::Ticket;

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
    /// Since when others say that it is we who are the copy.
    pub(super) refused: Option<Instant>,
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
