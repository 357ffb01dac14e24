//! The userspace transport's bytes: datagram header, lanes, replay windows, trains.
//!
//! ```text
//!   super-frame ──Train──▶ cars ─┐                                   ┌─▶ Join ────▶ the same super-frame
//!   frame ──────bundle─────────▶ │ SendLane ══ datagrams ══ ReceiveLanes ─▶ records ─▶ frames
//!   long frame ──Piece─────────▶ ┘                                   └─▶ Rejoiner ─▶ the long frame
//! ```
//!
//! Everything works in place: [`slots::Slots`] is where frames are read to and where their datagrams are sealed, and
//! what comes in is opened where it was received and described by offsets. Nothing here sends, waits or allocates per
//! frame; the packet workers of the driver do the first two.

pub mod bundle;
pub mod fragment;
pub mod header;
pub mod inner;
pub mod lane;
pub mod message;
pub mod path_probe;
pub mod payload;
pub mod relayed;
pub mod slots;
pub mod train;
pub mod vnet;
pub mod window;

pub use crate::keys::SessionIndex;

/// The largest ordinary frame: the largest MTU with an Ethernet header and two VLAN tags.
pub const MAX_FRAME: usize = weft_types::Mtu::MAX.get() as usize + 14 + 8;

/// The largest super-frame: what IP's length field can say, an Ethernet header and two VLAN tags.
pub const MAX_SUPER_FRAME: usize = 65_535 + 14 + 8;

/// Why an authentic payload could not be used. The sender is at fault; no variant changes state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Lengths or offsets contradict each other.
    #[error("lengths contradict each other")]
    Inconsistent,
    /// Shorter than what it must begin with.
    #[error("truncated")]
    Truncated,
    /// A kind that this release does not know.
    #[error("unknown kind")]
    Unknown,
}
