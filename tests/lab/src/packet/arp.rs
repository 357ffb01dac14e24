//! Questions of who has an address, and answers, as IPv4 asks them on Ethernet (RFC 826).

use std::net::Ipv4Addr;

use weft_types::MacAddr;

use super::make::ethernet;
use super::numbers::{ETHERNET_HEADER, ethertype};
use super::read::word;

/// Ethernet and IPv4, with the lengths of their addresses.
const FORMAT: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];

/// A word of ARP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// What is said.
    pub operation: Operation,
    /// Who says it.
    pub sender: (MacAddr, Ipv4Addr),
    /// Of whom or to whom it is said. Of one that is asked for the hardware address is zero.
    pub target: (MacAddr, Ipv4Addr),
}

/// Which of the two words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Who has this address?
    Request,
    /// I have.
    Reply,
}

impl Arp {
    /// Reads the word in a frame; nothing if there is none.
    pub fn of_frame(frame: &[u8]) -> Option<Self> {
        let body = frame.get(ETHERNET_HEADER..)?.strip_prefix(&FORMAT)?;
        if word(frame, ETHERNET_HEADER - 2)? != ethertype::ARP {
            return None;
        }
        let operation = match word(body, 0)? {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return None,
        };
        let end = |at: usize| {
            let (mac, rest) = body.get(at..)?.split_first_chunk::<6>()?;
            Some((
                MacAddr::new(*mac),
                Ipv4Addr::from(*rest.first_chunk::<4>()?),
            ))
        };
        Some(Self {
            operation,
            sender: end(2)?,
            target: end(12)?,
        })
    }

    /// Makes the frame that brings it to a station.
    pub fn frame(&self, to: MacAddr) -> Vec<u8> {
        let mut body = FORMAT.to_vec();
        body.extend(match self.operation {
            Operation::Request => [0, 1],
            Operation::Reply => [0, 2],
        });
        for (mac, address) in [self.sender, self.target] {
            body.extend(mac.as_bytes());
            body.extend(address.octets());
        }
        ethernet(to, self.sender.0, ethertype::ARP, &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORD: Arp = Arp {
        operation: Operation::Reply,
        sender: (
            MacAddr::new([2, 0, 0, 0, 0, 1]),
            Ipv4Addr::new(192, 0, 2, 1),
        ),
        target: (
            MacAddr::new([2, 0, 0, 0, 0, 2]),
            Ipv4Addr::new(192, 0, 2, 2),
        ),
    };

    #[test]
    fn a_word_is_read_as_it_was_written() {
        let asked = Arp {
            operation: Operation::Request,
            ..WORD
        };
        for word in [WORD, asked] {
            let mut frame = word.frame(MacAddr::BROADCAST);
            assert_eq!(frame.len(), 42);
            frame.resize(60, 0);

            assert_eq!(Arp::of_frame(&frame), Some(word));
        }
    }

    #[test]
    fn what_is_cut_or_of_another_format_says_nothing() {
        let frame = WORD.frame(MacAddr::BROADCAST);

        for end in 0..frame.len() {
            assert_eq!(Arp::of_frame(&frame[..end]), None);
        }
        // The type, the format and the operation.
        for at in 12..22 {
            let mut other = frame.clone();
            other[at] ^= 0x10;
            assert_eq!(Arp::of_frame(&other), None, "{at}");
        }
    }
}
