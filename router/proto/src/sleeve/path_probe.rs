//! Asks what a way does with datagrams: whether one of this size passes, how long it takes, and what became of the
//! others.
//!
//! ```text
//!   PathProbe (8)    0                 8        9
//!                   ┌─────────────────┬────────┬─ ─ ─
//!                   │ id              │ slot   │ zeroes, up to the size that is tried
//!                   └─────────────────┴────────┴─ ─ ─
//!   PathReply (9)    0                 8                 16                24       25                      41        43
//!                   ┌─────────────────┬─────────────────┬─────────────────┬────────┬───────────────────────┬─────────┐
//!                   │ id              │ highest         │ received        │ family │ address               │ port    │
//!                   └─────────────────┴─────────────────┴─────────────────┴────────┴───────────────────────┴─────────┘
//! ```
//!
//! A probe is one datagram, never split, and is answered by the way that it came, once. The counts are those of the
//! lane of frames of the slot asked about, in the session that the probe came in; a probe of no slot (255) gets zeroes.
//! Family, address and port say where the probe came from: 4 and 6 if it came straight, 0 if it did not.
//! **Invariant.** A probe is no smaller than its answer ([`PathProbe::LEAST`]): who sends one gets no more bytes sent
//! than it sent itself.

use std::net::{IpAddr, SocketAddr};

use super::Malformed;
use super::lane::OVERHEAD;
use super::payload;
use crate::lanes::Slot;

const NO_SLOT: u8 = 255;

/// A probe's body up to its padding.
const HEAD: usize = 9;

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathProbe {
    /// Comes back.
    pub id: u64,
    /// Whose lane of frames is asked about.
    pub slot: Option<Slot>,
}

impl PathProbe {
    /// The least datagram of a probe: what its answer weighs.
    pub const LEAST: usize = OVERHEAD + payload::LEN + PathReply::LEN;

    /// Fills a body, which is as long as [`PathReply::LEN`] at least.
    pub fn emit(self, body: &mut [u8]) {
        body.fill(0);
        body[..8].copy_from_slice(&self.id.to_be_bytes());
        body[8] = self.slot.map_or(NO_SLOT, Slot::number);
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let (&[id @ .., slot], _) = body
            .split_first_chunk::<HEAD>()
            .filter(|_| body.len() >= PathReply::LEN)
            .ok_or(Malformed::Truncated)?;
        let slot = match slot {
            NO_SLOT => None,
            number => Some(Slot::new(number).ok_or(Malformed::Inconsistent)?),
        };
        let id = u64::from_be_bytes(id);
        Ok(Self { id, slot })
    }
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathReply {
    /// Which probe.
    pub id: u64,
    /// One more than the highest counter that was opened on the lane; zero before the first.
    pub highest: u64,
    /// How many datagrams were opened on it.
    pub received: u64,
    /// Where the probe came from, if it came straight.
    pub seen_at: Option<SocketAddr>,
}

impl PathReply {
    /// How long the body is.
    pub const LEN: usize = 43;

    /// As it travels.
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.id.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.highest.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.received.to_be_bytes());
        if let Some(seen_at) = self.seen_at {
            match seen_at.ip() {
                IpAddr::V4(ip) => {
                    bytes[24] = 4;
                    bytes[25..29].copy_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes[24] = 6;
                    bytes[25..41].copy_from_slice(&ip.octets());
                }
            }
            bytes[41..].copy_from_slice(&seen_at.port().to_be_bytes());
        }
        bytes
    }

    /// Reads a body; what follows it is ignored.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let (id, rest) = number(body)?;
        let (highest, rest) = number(rest)?;
        let (received, rest) = number(rest)?;
        let (place, _) = rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        let [family, address @ .., p0, p1]: [u8; 19] = *place;
        let [a, b, c, d, ..]: [u8; 16] = address;
        let ip = match family {
            0 => None,
            4 => Some(IpAddr::from([a, b, c, d])),
            6 => Some(IpAddr::from(address)),
            _ => return Err(Malformed::Inconsistent),
        };
        let port = u16::from_be_bytes([p0, p1]);
        Ok(Self {
            id,
            highest,
            received,
            seen_at: ip.map(|ip| SocketAddr::new(ip, port)),
        })
    }
}

fn number(bytes: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let (number, rest) = bytes.split_first_chunk().ok_or(Malformed::Truncated)?;
    Ok((u64::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_probe_travels_as_drawn_and_is_no_smaller_than_its_answer() {
        let probe = PathProbe {
            id: 0x0102,
            slot: Slot::new(5),
        };
        let mut body = [0xff; PathProbe::LEAST - OVERHEAD - payload::LEN];
        probe.emit(&mut body);

        assert_eq!(body[..10], [0, 0, 0, 0, 0, 0, 1, 2, 5, 0]);
        assert_eq!(body.len(), PathReply::LEN);
        assert_eq!(PathProbe::decode(&body), Ok(probe));
        assert!((0..body.len()).all(|len| PathProbe::decode(&body[..len]).is_err()));
        for slot in 6..255 {
            body[8] = slot;
            assert_eq!(PathProbe::decode(&body), Err(Malformed::Inconsistent));
        }
        body[8] = 255;
        assert_eq!(PathProbe::decode(&body).map(|probe| probe.slot), Ok(None));
    }

    #[test]
    fn an_answer_travels_as_drawn() {
        let reply = PathReply {
            id: 1,
            highest: 2,
            received: 3,
            seen_at: Some("192.0.2.1:6783".parse().unwrap()),
        };
        let mut bytes = reply.encode();

        assert_eq!(bytes[24..29], [4, 192, 0, 2, 1]);
        assert_eq!(bytes[41..], [0x1a, 0x7f]);
        assert!((0..bytes.len()).all(|len| PathReply::decode(&bytes[..len]).is_err()));
        bytes[24] = 5;
        assert_eq!(PathReply::decode(&bytes), Err(Malformed::Inconsistent));
    }

    proptest! {
        #[test]
        fn every_answer_is_read_back(
            id: u64,
            highest: u64,
            received: u64,
            seen_at: Option<(IpAddr, u16)>,
        ) {
            let seen_at = seen_at.map(|(ip, port)| SocketAddr::new(ip, port));
            let reply = PathReply { id, highest, received, seen_at };

            prop_assert_eq!(PathReply::decode(&reply.encode()), Ok(reply));
        }
    }
}
