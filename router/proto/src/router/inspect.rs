//! Shows what a router knows, whole, to a simulation that compares how runs end. No driver asks.

use super::Router;
use crate::gossip::registers::Registers;
use crate::membership::Membership;

impl Router {
    /// Who belongs, as far as is known here; `None` before the mesh is known.
    pub fn membership(&self) -> Option<&Membership> {
        self.mesh.as_ref().map(|mesh| &mesh.membership)
    }

    /// What everybody has announced, as far as is known here; `None` before the mesh is known.
    pub fn registers(&self) -> Option<&Registers> {
        self.mesh.as_ref().map(|mesh| &mesh.registers)
    }
}
