//! Numbers and seals the datagrams of one sender, and opens them at the other end.
//!
//! A session has lanes so that several threads send at once without sharing a counter: each lane has a key of its own
//! ([`lane_key`]), a counter that starts at zero, and a replay window at the receiver.
//! **Invariant.** A counter is used once per lane; [`LIMIT`] ends the lane before a cipher's bound does.

use super::SessionIndex;
use super::header::{self, Header, Type};
use super::window::Window;
use crate::crypto::seal::{AeadKey, Backend, TAG, lane_key};
use crate::keys::{Cipher, SessionKeys};
use crate::lanes::{ANSWER_LANE, RELAY_CONTROL_LANE, RELAY_FRAMES_LANE, TRIAL_LANE};

/// How many lanes a session may have: what a receiver keeps windows for.
pub const LANES: u16 = 16;

/// How many datagrams a lane seals. A session is rekeyed by time long before.
pub const LIMIT: u64 = 1 << 60;

/// What a datagram weighs beside its plaintext.
pub const OVERHEAD: usize = header::LEN + TAG;

/// Why a datagram was not sealed. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The lane has sealed [`LIMIT`] datagrams.
    #[error("the lane is used up")]
    Exhausted,
    /// There is no room for header and tag: a bug of the caller.
    #[error("the datagram has no room for header and tag")]
    TooShort,
}

/// Why a datagram was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Forged, damaged, or sealed under another key.
    #[error("the seal does not hold")]
    Inauthentic,
    /// Authentic, but seen before or older than the window.
    #[error("seen before")]
    Replayed,
}

/// The sending end.
pub struct SendLane {
    key: AeadKey,
    lane: u16,
    index: SessionIndex,
    next: u64,
}

impl SendLane {
    /// Begins a lane. One session never begins the same lane twice.
    pub fn new(keys: &SessionKeys, lane: u16, backend: Backend) -> Self {
        Self {
            key: AeadKey::new(backend, keys.cipher, &lane_key(&keys.send, lane)),
            lane,
            index: keys.remote,
            next: 0,
        }
    }

    /// The counter that the next datagram gets.
    pub const fn next_counter(&self) -> u64 {
        self.next
    }

    /// Writes the header in front and the tag behind: `datagram` is room (16) ‖ plaintext ‖ room (16).
    pub fn seal(&mut self, datagram: &mut [u8]) -> Result<(), SealError> {
        if self.next >= LIMIT {
            return Err(SealError::Exhausted);
        }
        let (head, rest) = datagram
            .split_first_chunk_mut::<{ header::LEN }>()
            .ok_or(SealError::TooShort)?;
        let (body, tag) = rest
            .split_last_chunk_mut::<TAG>()
            .ok_or(SealError::TooShort)?;
        *head = Header {
            kind: Type::Data,
            lane: self.lane,
            index: self.index,
            counter: self.next,
        }
        .encode();
        *tag = self.key.seal(self.next, head, body);
        self.next += 1;
        Ok(())
    }
}

/// Which of a session's lanes a sender has: two senders of one session share none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Those that frames leave by.
    Frames,
    /// Those of everything else.
    Control,
}

impl Part {
    /// Whether a lane belongs to it.
    pub const fn has(self, lane: u16) -> bool {
        let frames = match lane {
            RELAY_FRAMES_LANE => true,
            RELAY_CONTROL_LANE | TRIAL_LANE | ANSWER_LANE => false,
            slot => slot.is_multiple_of(2),
        };
        match self {
            Self::Frames => frames,
            Self::Control => !frames,
        }
    }
}

/// The sending end of a session, as far as one sender has it: its lanes are begun when they are first used.
pub struct SendLanes {
    direction: zeroize::Zeroizing<[u8; 32]>,
    index: SessionIndex,
    cipher: Cipher,
    backend: Backend,
    part: Part,
    lanes: [Option<Box<SendLane>>; LANES as usize],
}

impl SendLanes {
    /// Holds a session's sending key. One session has at most one of these for each part.
    pub fn new(keys: &SessionKeys, part: Part, backend: Backend) -> Self {
        Self {
            direction: zeroize::Zeroizing::new(keys.send),
            index: keys.remote,
            cipher: keys.cipher,
            backend,
            part,
            lanes: Default::default(),
        }
    }

    /// The lane of that number; `None` if it is not of this part.
    pub fn lane(&mut self, number: u16) -> Option<&mut SendLane> {
        if !self.part.has(number) {
            return None;
        }
        let (direction, cipher, backend) = (&self.direction, self.cipher, self.backend);
        let index = self.index;
        let lane = self.lanes.get_mut(usize::from(number))?;
        Some(lane.get_or_insert_with(|| {
            Box::new(SendLane {
                key: AeadKey::new(backend, cipher, &lane_key(direction, number)),
                lane: number,
                index,
                next: 0,
            })
        }))
    }
}

/// The receiving end of one lane.
struct ReceiveLane {
    key: AeadKey,
    window: Window,
    received: u64,
}

/// What has been opened on a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// One more than the highest counter; zero before the first.
    pub highest: u64,
    /// How many datagrams.
    pub received: u64,
}

/// The receiving end of a session: its lanes are made when they are first heard of.
pub struct ReceiveLanes {
    direction: zeroize::Zeroizing<[u8; 32]>,
    cipher: Cipher,
    backend: Backend,
    lanes: [Option<Box<ReceiveLane>>; LANES as usize],
}

impl ReceiveLanes {
    /// Holds a session's receiving key.
    pub fn new(keys: &SessionKeys, backend: Backend) -> Self {
        Self {
            direction: zeroize::Zeroizing::new(keys.receive),
            cipher: keys.cipher,
            backend,
            lanes: Default::default(),
        }
    }

    /// Opens a datagram in place; what is returned is its plaintext, 16 bytes into `datagram`.
    ///
    /// The tag is checked before the window moves, so a forger cannot make authentic datagrams look replayed.
    pub fn open<'a>(
        &mut self,
        header: Header,
        datagram: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        let (head, sealed) = datagram
            .split_first_chunk_mut::<{ header::LEN }>()
            .ok_or(OpenError::Inauthentic)?;
        if header.counter >= LIMIT || sealed.len() < TAG {
            return Err(OpenError::Inauthentic);
        }
        let lane = self
            .lanes
            .get_mut(usize::from(header.lane))
            .ok_or(OpenError::Inauthentic)?;
        let (direction, cipher, backend) = (&self.direction, self.cipher, self.backend);
        let lane = lane.get_or_insert_with(|| {
            Box::new(ReceiveLane {
                key: AeadKey::new(backend, cipher, &lane_key(direction, header.lane)),
                window: Window::default(),
                received: 0,
            })
        });
        let plain = lane
            .key
            .open(header.counter, head, sealed)
            .map_err(|_| OpenError::Inauthentic)?;
        if !lane.window.accept(header.counter) {
            return Err(OpenError::Replayed);
        }
        lane.received += 1;
        Ok(plain)
    }

    /// What has been opened on a lane so far.
    pub fn arrivals(&self, lane: u16) -> Arrivals {
        let lane = self.lanes.get(usize::from(lane)).and_then(Option::as_ref);
        lane.map_or_else(Arrivals::default, |lane| Arrivals {
            highest: lane.window.next(),
            received: lane.received,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::lanes::Slot;

    /// Two ends of one session.
    pub(crate) fn pair() -> (SessionKeys, SessionKeys) {
        let ours = SessionKeys {
            local: SessionIndex(1),
            remote: SessionIndex(2),
            cipher: Cipher::ChaCha20Poly1305,
            send: [3; 32],
            receive: [4; 32],
        };
        let theirs = SessionKeys {
            local: SessionIndex(2),
            remote: SessionIndex(1),
            cipher: Cipher::ChaCha20Poly1305,
            send: [4; 32],
            receive: [3; 32],
        };
        (ours, theirs)
    }

    fn sealed(lane: &mut SendLane) -> Vec<u8> {
        let mut datagram = vec![9; OVERHEAD + 10];
        lane.seal(&mut datagram).unwrap();
        datagram
    }

    fn open(lanes: &mut ReceiveLanes, datagram: &mut [u8]) -> Result<Vec<u8>, OpenError> {
        let header = Header::decode(datagram).unwrap();
        lanes.open(header, datagram).map(|plain| plain.to_vec())
    }

    #[test]
    fn a_datagram_is_opened_once() {
        let (ours, theirs) = pair();
        let mut lane = SendLane::new(&ours, 1, Backend::Ring);
        let mut lanes = ReceiveLanes::new(&theirs, Backend::AwsLc);
        let datagram = sealed(&mut lane);

        assert_eq!(open(&mut lanes, &mut datagram.clone()), Ok(vec![9; 10]));
        assert_eq!(
            open(&mut lanes, &mut datagram.clone()),
            Err(OpenError::Replayed)
        );
    }

    #[test]
    fn a_forged_counter_does_not_move_the_window() {
        let (ours, theirs) = pair();
        let mut lane = SendLane::new(&ours, 0, Backend::Ring);
        let mut lanes = ReceiveLanes::new(&theirs, Backend::Ring);
        let genuine = sealed(&mut lane);
        let mut forged = genuine.clone();
        forged[8] = 0x0f;

        assert_eq!(open(&mut lanes, &mut forged), Err(OpenError::Inauthentic));
        assert!(open(&mut lanes, &mut genuine.clone()).is_ok());
    }

    #[test]
    fn the_same_bytes_on_another_lane_are_inauthentic() {
        let (ours, theirs) = pair();
        let mut datagram = sealed(&mut SendLane::new(&ours, 0, Backend::Ring));
        datagram[3] = 1;

        let mut lanes = ReceiveLanes::new(&theirs, Backend::Ring);

        assert_eq!(open(&mut lanes, &mut datagram), Err(OpenError::Inauthentic));
        datagram[2] = 0xff;
        assert_eq!(open(&mut lanes, &mut datagram), Err(OpenError::Inauthentic));
    }

    #[test]
    fn the_parts_of_a_session_share_no_lane_and_each_goes_on_with_its_own() {
        let (ours, theirs) = pair();
        let mut frames = SendLanes::new(&ours, Part::Frames, Backend::Ring);
        let mut control = SendLanes::new(&ours, Part::Control, Backend::AwsLc);
        let mut lanes = ReceiveLanes::new(&theirs, Backend::Ring);
        for round in 0..3 {
            for number in 0..LANES {
                let ends = [frames.lane(number), control.lane(number)];

                let [lane] = &mut ends.into_iter().flatten().collect::<Vec<_>>()[..] else {
                    panic!("lane {number} belongs to one part");
                };
                assert_eq!(open(&mut lanes, &mut sealed(lane)), Ok(vec![9; 10]));
                let arrivals = Arrivals {
                    highest: round + 1,
                    received: round + 1,
                };
                assert_eq!(lanes.arrivals(number), arrivals);
            }
        }
        assert!(frames.lane(LANES).is_none() && control.lane(LANES).is_none());
        for slot in (0..Slot::COUNT).filter_map(Slot::new) {
            assert!(Part::Frames.has(slot.frames_lane()));
            assert!(Part::Control.has(slot.control_lane()));
        }
    }

    #[test]
    fn arrivals_tell_what_is_missing() {
        let (ours, theirs) = pair();
        let mut lane = SendLane::new(&ours, 0, Backend::Ring);
        let mut lanes = ReceiveLanes::new(&theirs, Backend::Ring);
        let sent: Vec<Vec<u8>> = (0..5).map(|_| sealed(&mut lane)).collect();
        for kept in [0, 3, 1, 3] {
            let _ = open(&mut lanes, &mut sent[kept].clone());
        }

        let arrivals = Arrivals {
            highest: 4,
            received: 3,
        };
        assert_eq!(lanes.arrivals(0), arrivals);
        assert_eq!(lanes.arrivals(2), Arrivals::default());
    }

    #[test]
    fn a_used_up_lane_seals_nothing() {
        let (ours, _) = pair();
        let mut lane = SendLane::new(&ours, 0, Backend::Ring);
        lane.next = LIMIT;

        assert_eq!(lane.seal(&mut [0; 64]), Err(SealError::Exhausted));
    }

    #[test]
    fn every_prefix_is_refused() {
        let (ours, theirs) = pair();
        let datagram = sealed(&mut SendLane::new(&ours, 0, Backend::Ring));
        let mut lanes = ReceiveLanes::new(&theirs, Backend::Ring);

        for len in header::LEN..datagram.len() {
            assert!(open(&mut lanes, &mut datagram[..len].to_vec()).is_err());
        }
    }
}
