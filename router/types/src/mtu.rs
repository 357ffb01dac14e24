//! Bounds the size of what a network carries in one piece.

use std::fmt;

use minicbor::{Decode, Decoder, Encode, Encoder};

/// The largest IP packet a network carries, in bytes, without the Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Mtu(u16);

impl Mtu {
    /// The mesh default: fits VXLAN within WireGuard or ESP over IPv6 at 1500, and over IPv4 at 1460.
    pub const MESH: Self = Self(1350);
    /// What every IPv4 host must take: RFC 791 §3.2. The least an underlay may have.
    pub const MIN: Self = Self(576);
    /// The least a mesh may have: IPv6 needs it, RFC 8200 §5.
    pub const MIN_MESH: Self = Self(1280);
    /// Jumbo frames, as common hardware has them.
    pub const MAX: Self = Self(9216);

    /// Refuses what no network of ours has: below [`Self::MIN`] or above [`Self::MAX`].
    pub const fn new(bytes: u16) -> Option<Self> {
        if bytes < Self::MIN.0 || bytes > Self::MAX.0 {
            return None;
        }
        Some(Self(bytes))
    }

    /// The number of bytes.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<C> Encode<C> for Mtu {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u16(self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Mtu {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::new(d.u16()?)
            .ok_or_else(|| minicbor::decode::Error::message("no network has this MTU"))
    }
}

impl<'de> serde::Deserialize<'de> for Mtu {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(u16::deserialize(d)?)
            .ok_or_else(|| serde::de::Error::custom("an MTU lies between 576 and 9216"))
    }
}
