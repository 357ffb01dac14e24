//! Says what a link does to the frames of a rule: more than losing them, and to a part of them only.
//!
//! A middle station that answers every probe and spoils what it carries is made of this.

use std::time::Duration;

use weft_kernel::packet::Offload;

use super::queue::Chance;
use super::{Match, MtuLimit};
use crate::packet::{Packet, amended, protocol};

const UDP_HEADER: usize = 8;

/// What happens to a frame of a rule. `share` is the part of the frames it happens to, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Harm {
    /// One byte of what a UDP datagram carries is another, and its checksum is right for it. Others pass unharmed.
    Alter {
        /// The part it happens to.
        share: f64,
    },
    /// It is held back, and later ones overtake it.
    Delay {
        /// For how long.
        by: Duration,
        /// The part it happens to.
        share: f64,
    },
    /// It is lost in silence.
    Lose {
        /// The part it happens to.
        share: f64,
    },
    /// It is lost if it is longer than this.
    Narrow(MtuLimit),
}

impl Harm {
    /// Loses everything.
    pub const LOSE: Self = Self::Lose { share: 1.0 };
}

/// A set of frames and what happens to them.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) frames: Match,
    pub(super) harm: Harm,
}

/// Changes one byte of what a datagram carries; says whether there was one.
pub(super) fn alter(frame: &mut [u8], offload: &Offload, chance: &mut Chance) -> bool {
    let Some(packet) = Packet::of_frame(frame) else {
        return false;
    };
    let (Some(udp), protocol::UDP) = (packet.payload, packet.protocol) else {
        return false;
    };
    let carried = udp + UDP_HEADER;
    let Some(room) = frame.len().checked_sub(carried).filter(|&room| room > 0) else {
        return false;
    };
    let roll = chance.next();
    let at = carried + usize::try_from(roll % room as u64).unwrap_or(0);
    // Any of the 255 other values.
    let flip = u8::try_from(1 + (roll >> 32) % 255).unwrap_or(1);
    // Sums are of pairs of bytes from the header on.
    let pair = udp + (at - udp) / 2 * 2;
    let word = |frame: &[u8]| [frame[pair], frame.get(pair + 1).copied().unwrap_or(0)];
    let before = word(frame);
    frame[at] ^= flip;
    let sum = [frame[udp + 6], frame[udp + 7]];
    // An unfinished sum is computed later, over what is there then; none at all stays none.
    if offload.checksum().is_none() && sum != [0, 0] {
        let sum = match amended(u16::from_be_bytes(sum), &before, &word(frame)) {
            0 => 0xffff,
            sum => sum,
        };
        frame[udp + 6..carried].copy_from_slice(&sum.to_be_bytes());
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::{tcp6, udp4};
    use crate::packet::{finish, sum};

    #[test]
    fn one_byte_is_another_and_the_sum_is_right_for_it() {
        let mut chance = Chance(5);
        for payload in [1, 2, 99, 100] {
            let mut frame = udp4(1, 2, payload);
            let packet = Packet::of_frame(&frame).unwrap();
            assert!(finish(&packet, &mut frame));
            for _ in 0..50 {
                let before = frame.clone();

                assert!(alter(&mut frame, &Offload::default(), &mut chance));

                let changed = (42..frame.len()).filter(|&at| frame[at] != before[at]);
                assert_eq!(changed.count(), 1);
                assert_eq!(frame[..40], before[..40]);
                assert_eq!(sum(&packet, &frame), Some(0));
            }
        }
    }

    #[test]
    fn what_is_no_datagram_or_an_empty_one_is_left_alone() {
        let mut chance = Chance(5);
        for frame in [tcp6(1, 2, 10), udp4(1, 2, 0), vec![2; 14], vec![]] {
            let mut altered = frame.clone();

            assert!(!alter(&mut altered, &Offload::default(), &mut chance));

            assert_eq!(altered, frame);
        }
    }
}
