//! What the underlay does to bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::dice::Dice;
use crate::node::NodeIndex;

/// From whom to whom.
type Pair = (NodeIndex, NodeIndex);

/// What the underlay does to what one host sends another.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Share of datagrams lost, and of TCP segments that are sent again after [`Weather::RETRANSMIT`].
    pub loss: f64,
    /// Share of datagrams that arrive twice.
    pub duplication: f64,
    /// Share of datagrams that arrive with other bytes than were sent.
    pub mutation: f64,
    /// The least time from one node to another.
    pub delay: Duration,
    /// What is added at most; datagrams overtake each other within it.
    pub jitter: Duration,
    /// The largest IP packet that passes; none is taken apart on the way.
    pub mtu: u16,
    /// Whether a host is told of a packet that was too large.
    pub icmp: bool,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            loss: 0.0,
            duplication: 0.0,
            mutation: 0.0,
            delay: Duration::from_micros(200),
            jitter: Duration::from_micros(100),
            mtu: 1500,
            icmp: false,
        }
    }
}

/// How the underlay behaves at the moment, for everybody alike and for some in particular, and who is cut off from whom.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    /// Between all who have no line of their own.
    pub common: Line,
    lines: BTreeMap<Pair, Line>,
    blocked: BTreeSet<Pair>,
    tcp_blocked: BTreeSet<Pair>,
    udp_blocked: BTreeSet<Pair>,
}

impl Weather {
    /// How long a lost TCP segment takes to be sent again: the least a kernel waits (RFC 6298 as Linux has it).
    pub const RETRANSMIT: Duration = Duration::from_millis(200);

    /// The line from one node to another, its own from here on.
    pub fn line(&mut self, from: NodeIndex, to: NodeIndex) -> &mut Line {
        let common = self.common.clone();
        self.lines.entry((from, to)).or_insert(common)
    }

    /// What holds from one node to another.
    pub fn between(&self, from: NodeIndex, to: NodeIndex) -> &Line {
        self.lines.get(&(from, to)).unwrap_or(&self.common)
    }

    /// Drops everything from one node to another, silently, in this direction.
    pub fn block(&mut self, from: NodeIndex, to: NodeIndex) {
        self.blocked.insert((from, to));
    }

    /// Drops TCP segments from one node to another, silently, in this direction.
    pub fn block_tcp(&mut self, from: NodeIndex, to: NodeIndex) {
        self.tcp_blocked.insert((from, to));
    }

    /// Drops datagrams from one node to another, silently, in this direction.
    pub fn block_udp(&mut self, from: NodeIndex, to: NodeIndex) {
        self.udp_blocked.insert((from, to));
    }

    /// Lets everything from one node to another through, in this direction.
    pub fn unblock(&mut self, from: NodeIndex, to: NodeIndex) {
        for blocked in [
            &mut self.blocked,
            &mut self.tcp_blocked,
            &mut self.udp_blocked,
        ] {
            blocked.remove(&(from, to));
        }
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
        self.tcp_blocked.clear();
        self.udp_blocked.clear();
    }

    /// Whether no TCP segment gets from one to the other.
    pub fn is_tcp_blocked(&self, from: NodeIndex, to: NodeIndex) -> bool {
        self.blocked.contains(&(from, to)) || self.tcp_blocked.contains(&(from, to))
    }

    /// Whether no datagram gets from one to the other.
    pub fn is_udp_blocked(&self, from: NodeIndex, to: NodeIndex) -> bool {
        self.blocked.contains(&(from, to)) || self.udp_blocked.contains(&(from, to))
    }

    /// When the copies of a datagram arrive, counted from its sending, and whether they are what was sent: none, one or
    /// two.
    pub(crate) fn datagram(
        &self,
        from: NodeIndex,
        to: NodeIndex,
        dice: &mut Dice,
    ) -> Vec<(Duration, bool)> {
        let line = self.between(from, to);
        if self.is_udp_blocked(from, to) || dice.chance(line.loss) {
            return Vec::new();
        }
        let copies = if dice.chance(line.duplication) { 2 } else { 1 };
        (0..copies)
            .map(|_| {
                let took = line.delay + dice.up_to(line.jitter);
                (took, !dice.chance(line.mutation))
            })
            .collect()
    }

    /// How long a TCP segment takes that gets through: each loss costs a retransmission, doubling.
    pub(crate) fn segment(&self, from: NodeIndex, to: NodeIndex, dice: &mut Dice) -> Duration {
        let line = self.between(from, to);
        let mut took = line.delay + dice.up_to(line.jitter);
        let mut wait = Self::RETRANSMIT;
        while dice.chance(line.loss) && wait < Duration::from_secs(10) {
            took += wait;
            wait *= 2;
        }
        took
    }
}
