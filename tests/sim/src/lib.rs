//! A virtual network for router cores: one clock, one seed.
//!
//! ```text
//!   Sim ── clock, dice, agenda (what happens when)
//!    ├─ Node ── Router core, its disk, its connections, its skew
//!    └─ Weather ── loss, delay, duplication, partitions
//! ```
//!
//! Everything that happens is an entry of the agenda; entries at one instant happen in the order they were made. A run is
//! a function of its seed: whatever fails once fails again under the same seed, and every failure names it.
//!
//! Nodes share no clock: each one's `Instant`s are shifted by its own skew, drawn anew at every start from ± 10 years.

mod dice;
mod net;
mod node;
mod sim;
mod view;

pub use dice::Dice;
pub use net::Weather;
pub use node::Node;
pub use sim::{NodeIndex, Sim};
pub use view::Containers;
