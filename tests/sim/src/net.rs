//! What the underlay does to bytes.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::dice::Dice;
use crate::sim::NodeIndex;

/// How the underlay behaves at the moment, for everybody alike, and who is cut off from whom.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Share of datagrams lost, and of TCP segments that are sent again after [`Self::RETRANSMIT`].
    pub loss: f64,
    /// Share of datagrams that arrive twice.
    pub duplication: f64,
    /// The least time from one node to another.
    pub delay: Duration,
    /// What is added at most; datagrams overtake each other within it.
    pub jitter: Duration,
    blocked: BTreeSet<(NodeIndex, NodeIndex)>,
    udp_blocked: BTreeSet<(NodeIndex, NodeIndex)>,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            loss: 0.0,
            duplication: 0.0,
            delay: Duration::from_micros(200),
            jitter: Duration::from_micros(100),
            blocked: BTreeSet::new(),
            udp_blocked: BTreeSet::new(),
        }
    }
}

impl Weather {
    /// How long a lost TCP segment takes to be sent again: the least a kernel waits (RFC 6298 as Linux has it).
    pub const RETRANSMIT: Duration = Duration::from_millis(200);

    /// Drops everything from one node to another, silently, in this direction.
    pub fn block(&mut self, from: NodeIndex, to: NodeIndex) {
        self.blocked.insert((from, to));
    }

    /// Drops datagrams from one node to another, silently, in this direction.
    pub fn block_udp(&mut self, from: NodeIndex, to: NodeIndex) {
        self.udp_blocked.insert((from, to));
    }

    /// Cuts two groups apart, both ways.
    pub fn partition(&mut self, one: &[NodeIndex], other: &[NodeIndex]) {
        for &a in one {
            for &b in other {
                self.block(a, b);
                self.block(b, a);
            }
        }
    }

    /// Lets everything through again.
    pub fn heal(&mut self) {
        self.blocked.clear();
        self.udp_blocked.clear();
    }

    /// Whether nothing gets from one to the other.
    pub fn is_blocked(&self, from: NodeIndex, to: NodeIndex) -> bool {
        self.blocked.contains(&(from, to))
    }

    /// When the copies of a datagram arrive, counted from its sending: none, one or two.
    pub(crate) fn datagram(
        &self,
        from: NodeIndex,
        to: NodeIndex,
        dice: &mut Dice,
    ) -> Vec<Duration> {
        if self.is_blocked(from, to)
            || self.udp_blocked.contains(&(from, to))
            || dice.chance(self.loss)
        {
            return Vec::new();
        }
        let copies = if dice.chance(self.duplication) { 2 } else { 1 };
        (0..copies)
            .map(|_| self.delay + dice.up_to(self.jitter))
            .collect()
    }

    /// How long a TCP segment takes that gets through: each loss costs a retransmission, doubling.
    pub(crate) fn segment(&self, dice: &mut Dice) -> Duration {
        let mut took = self.delay + dice.up_to(self.jitter);
        let mut wait = Self::RETRANSMIT;
        while dice.chance(self.loss) && wait < Duration::from_secs(10) {
            took += wait;
            wait *= 2;
        }
        took
    }
}
