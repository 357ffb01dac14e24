//! Numbers the lanes of a session: which seal what.
//!
//! ```text
//!   0 1 │ 2 3 │ 4 5 │ 6 7 │ 8 9 │ 10 11 │ 12 13    │ 14     │ 15
//!   six slots: frames, control each     │ relaying │ trials │ answers
//! ```
//!
//! `overlay` gives a way in use the next slot; `sleeve` seals by the lanes.

/// Seals what a member shall pass on, where frames are sealed.
pub const RELAY_FRAMES_LANE: u16 = 12;

/// Seals what a member shall pass on, where messages and probes are sealed and others' datagrams are passed on.
pub const RELAY_CONTROL_LANE: u16 = 13;

/// Seals probes of ways that carry no frames.
pub const TRIAL_LANE: u16 = 14;

/// Seals answers to probes: what a way answers with says nothing about the ways of this end.
pub const ANSWER_LANE: u16 = 15;

/// Tells a way in use from those used before it: each has lanes of its own, so what was sent and what came are counted
/// way by way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(u8);

impl Slot {
    /// How many there are: so many switches later a slot is used again.
    pub const COUNT: u8 = 6;

    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self((self.0 + 1) % Self::COUNT)
    }

    /// Makes a slot of its number.
    pub const fn new(number: u8) -> Option<Self> {
        if number < Self::COUNT {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Its number, below [`Self::COUNT`].
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Seals frames.
    pub const fn frames_lane(self) -> u16 {
        self.0 as u16 * 2
    }

    /// Seals messages and probes.
    pub const fn control_lane(self) -> u16 {
        self.0 as u16 * 2 + 1
    }
}
