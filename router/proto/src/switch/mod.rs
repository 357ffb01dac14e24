//! Decides where a captured frame goes, and whether a received one may speak in the name it bears.
//!
//! ```text
//!   bridge ──▶ TAP ──▶ decide_captured ──▶ Deliver (one peer) │ Flood (every peer) │ Drop
//!   session ─▶ open ─▶ check_received  ──▶ TAP ──▶ bridge                          │ Drop
//! ```
//!
//! **Invariant.** A frame enters only if its source Ethernet address, and every mesh address it claims as its own, belong
//! to the node whose session it came out of, and leaves only if they belong to the one endpoint of this host that has its
//! source: nodes that know the same endpoints accept whatever an honest one sends. A frame crosses the mesh once: what a peer sent is never sent on.
//! **Failure policy.** What cannot be read is dropped. Every exit is a value, counted under its name.
//! **Cost.** One pass over the headers, no allocation; the payload is never looked at.

mod announce;
mod ethernet;
mod owner;
mod reason;
mod table;

use weft_types::Segment;

pub use announce::Announcer;
pub use ethernet::MAX_TAGS;
pub use owner::{MAX_EXTENSIONS, MAX_TUNNELS};
pub use reason::DropReason;
pub use table::{ForwardingTable, Owner};

use ethernet::Header;

/// What becomes of a frame captured on the local bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To one peer, by its position in the snapshot.
    Deliver(usize),
    /// To nobody.
    Drop(DropReason),
    /// To every peer: a group address, or one nobody is known to have.
    Flood,
}

impl ForwardingTable {
    /// Decides what becomes of a frame captured on the local bridge.
    pub fn decide_captured(&self, segment: Segment, frame: &[u8]) -> Decision {
        let header = match Header::parse(frame) {
            Ok(header) => header,
            Err(reason) => return Decision::Drop(reason),
        };
        if header.is_link_control() {
            return Decision::Drop(DropReason::LinkControl);
        }
        let Some(source) = self.number_of_mac(segment, header.source) else {
            return Decision::Drop(DropReason::MacUnknown);
        };
        if self.owner(source) != Some(Owner::Ourself) {
            // A bridge floods to all its ports, so what we injected may come back.
            return Decision::Drop(DropReason::Loop);
        }
        // The peers would refuse what is another node's, and hold it against us; what is another container's they would
        // believe.
        let sender = owner::Sender::Endpoint(source);
        if let Err(reason) = owner::Check::new(self, segment, sender).frame(&header) {
            return Decision::Drop(reason);
        }
        if header.destination.is_group() {
            return Decision::Flood;
        }
        match self.mac_owner(segment, header.destination) {
            Some(Owner::Absent) => Decision::Drop(DropReason::OwnerAbsent),
            Some(Owner::Ourself) => Decision::Drop(DropReason::Local),
            Some(Owner::Peer(to)) => Decision::Deliver(to),
            None => Decision::Flood,
        }
    }

    /// Checks that a frame out of a session of peer `from` speaks in no name but its own.
    ///
    /// `frame` may be cut after its headers: packets whose payload is not looked at are judged the same without it.
    pub fn check_received(
        &self,
        segment: Segment,
        from: usize,
        frame: &[u8],
    ) -> Result<(), DropReason> {
        let header = Header::parse(frame)?;
        if header.is_link_control() {
            return Err(DropReason::LinkControl);
        }
        owner::Check::new(self, segment, owner::Sender::Peer(from)).frame(&header)
    }
}

#[cfg(test)]
mod tests;
