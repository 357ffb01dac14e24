//! What goes with a frame from where it is read to where it is sealed.

use weft_types::Segment;

use crate::sleeve::vnet::Vnet;

/// What is said of a frame beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framing {
    pub(super) segment: Segment,
    pub(super) vnet: Vnet,
}
