//! Names an endpoint on the virtual Ethernet.

use std::fmt;
use std::str::FromStr;

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Decoder, Encode, Encoder};

/// An Ethernet address (IEEE 802-2014 §8.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

/// Why a text is no Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseMacError;

impl fmt::Display for ParseMacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an Ethernet address is written as six pairs of hexadecimal digits, 02:00:00:00:00:01",
        )
    }
}

impl std::error::Error for ParseMacError {}

impl MacAddr {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Takes the bytes as they are: every value is legal.
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The bytes, as they travel.
    pub const fn as_bytes(&self) -> &[u8; 6] {
        &self.0
    }

    /// Makes a unicast, locally administered address out of six arbitrary bytes.
    pub const fn local(mut bytes: [u8; 6]) -> Self {
        bytes[0] = bytes[0] & 0xfc | 0x02;
        Self(bytes)
    }

    /// Broadcast or multicast: never a source.
    pub const fn is_group(&self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Reserved for the link itself, never forwarded by a bridge (IEEE 802.1D-2004 §7.12.6).
    pub const fn is_link_local(&self) -> bool {
        matches!(self.0, [0x01, 0x80, 0xc2, 0x00, 0x00, 0x00..=0x0f])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or(ParseMacError)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| ParseMacError)?;
        }
        if parts.next().is_some() {
            return Err(ParseMacError);
        }
        Ok(Self(bytes))
    }
}

impl<C> Encode<C> for MacAddr {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for MacAddr {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        ByteArray::<6>::decode(d, ctx).map(|bytes| Self(*bytes))
    }
}

impl serde::Serialize for MacAddr {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for MacAddr {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_back() {
        let mac = MacAddr::new([0x02, 0xab, 0, 1, 2, 0xff]);

        assert_eq!(mac.to_string(), "02:ab:00:01:02:ff");
        assert_eq!(mac.to_string().parse(), Ok(mac));
        assert_eq!("02:ab:00:01:02".parse::<MacAddr>(), Err(ParseMacError));
        assert_eq!("02:ab:00:01:02:ff:".parse::<MacAddr>(), Err(ParseMacError));
    }

    #[test]
    fn a_made_up_address_is_local_and_unicast() {
        let mac = MacAddr::local([0xff; 6]);

        assert!(!mac.is_group());
        assert_eq!(mac.as_bytes()[0] & 2, 2);
    }
}
