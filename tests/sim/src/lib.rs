//! A virtual network for router cores: one clock, one seed.
//!
//! ```text
//!   Sim ── clock, dice, agenda (what happens when)
//!    ├─ Node ── Router core, its disk, its connections, its skew; the tunnel of its packet workers
//!    │   └─ Rogue ── what runs in a core's place once a member was turned: it says what it is told to
//!    ├─ Weather ── loss, delay, duplication, MTU; partitions and blocks, for each direction
//!    ├─ NatSpec ── what stands between a site and the open network
//!    └─ Record ── everything that the cores put out, in digests that two builds are compared by
//! ```
//!
//! Everything that happens is an entry of the agenda; entries at one instant happen in the order they were made. A run is
//! a function of its seed: whatever fails once fails again under the same seed, and every failure names it.
//!
//! Nodes share no clock: each one's `Instant`s are shifted by its own skew, drawn anew at every start from ± 10 years.

mod connections;
mod dice;
mod names;
mod nat;
mod net;
mod node;
mod plane;
mod record;
mod recorder;
mod rogue;
mod sim;
mod underlay;
mod view;
mod worker;
mod world;

pub use dice::Dice;
pub use nat::{NatIndex, NatKind, NatSpec, Realm};
pub use net::{Line, Weather};
pub use node::{Malice, Node, NodeIndex, Sent, Spent};
pub use recorder::{LASTING, Record};
pub use rogue::Rogue;
pub use view::Containers;
pub use world::Sim;
