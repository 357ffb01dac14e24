//! Reads the Ethernet header of a frame, through its VLAN tags.
//!
//! ```text
//!   0            6            12       14
//!   ├────────────┼────────────┼────────┼─────────
//!   │ destination│ source     │ type   │ payload      IEEE 802.3-2018 §3.1.1
//!   └────────────┴────────────┴────────┴─────────
//!                             ├ 81 00 / 88 a8 ─ tag ┼ type …     IEEE 802.1Q-2018 §9.5, up to [`MAX_TAGS`]
//! ```

use weft_types::MacAddr;

use super::DropReason;

/// Service tag within service tag within customer tag, and one to spare.
pub const MAX_TAGS: usize = 4;

pub(super) mod ethertype {
    pub(crate) const ARP: u16 = 0x0806;
    pub(crate) const CUSTOMER_TAG: u16 = 0x8100;
    /// "Local experimental" (IEEE 802-2014 §9.2.4): the probes of the kernel path, which may not go by any other.
    pub(crate) const EXPERIMENTAL: u16 = 0x88b5;
    pub(crate) const IPV4: u16 = 0x0800;
    pub(crate) const IPV6: u16 = 0x86dd;
    pub(crate) const LLDP: u16 = 0x88cc;
    /// Service tag as it was before it had a number of its own.
    pub(crate) const OLD_SERVICE_TAG: u16 = 0x9100;
    pub(crate) const SERVICE_TAG: u16 = 0x88a8;
}

/// A frame's header, and what its innermost tag leaves.
pub(super) struct Header<'a> {
    pub(super) destination: MacAddr,
    pub(super) source: MacAddr,
    pub(super) ethertype: u16,
    pub(super) payload: &'a [u8],
}

impl<'a> Header<'a> {
    pub(super) fn parse(frame: &'a [u8]) -> Result<Self, DropReason> {
        let (destination, rest) = split::<6>(frame)?;
        let (source, rest) = split::<6>(rest)?;
        let (mut kind, mut payload) = split::<2>(rest)?;
        let mut tags = 0;
        while let ethertype::CUSTOMER_TAG | ethertype::OLD_SERVICE_TAG | ethertype::SERVICE_TAG =
            u16::from_be_bytes(*kind)
        {
            if tags == MAX_TAGS {
                return Err(DropReason::Nested);
            }
            tags += 1;
            let (_, rest) = split::<2>(payload)?;
            (kind, payload) = split::<2>(rest)?;
        }
        Ok(Self {
            destination: MacAddr::new(*destination),
            source: MacAddr::new(*source),
            ethertype: u16::from_be_bytes(*kind),
            payload,
        })
    }

    /// Whether it is between two neighbours on a wire, which a network of many hosts has not.
    pub(super) fn is_link_control(&self) -> bool {
        self.destination.is_link_local()
            || matches!(
                self.ethertype,
                ethertype::EXPERIMENTAL | ethertype::LLDP
            )
            // Per-VLAN spanning tree, and the discovery protocols beside it.
            || matches!(
                self.destination.as_bytes(),
                [0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcc | 0xcd]
            )
    }
}

/// The first bytes of a header and what follows, or the one complaint there can be.
pub(super) fn split<const N: usize>(bytes: &[u8]) -> Result<(&[u8; N], &[u8]), DropReason> {
    bytes.split_first_chunk().ok_or(DropReason::Truncated)
}
