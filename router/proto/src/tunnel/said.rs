//! Says now and then that frames travel to or from a peer, and whether they are more than chatter.
//!
//! **Invariant.** Traffic is said once in a second while it lasts, chatter at most as often and only while no
//! traffic was said of late. What was lost on the way to the hub counts as not said.

use std::time::{Duration, Instant};

use weft_types::NodeId;

use super::chatter::Load;
use super::ports::Turn;
use super::report::Report;
use crate::io::Direction;

/// How often what goes on is said again.
const SAY_AGAIN: Duration = Duration::from_secs(1);

/// Whether what was said then is to be said again.
pub(super) fn is_due(said: Option<Instant>, now: Instant) -> bool {
    said.is_none_or(|at| now.saturating_duration_since(at) >= SAY_AGAIN)
}

/// When it was last said that frames travel in one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    traffic: Option<Instant>,
    chatter: Option<Instant>,
}

impl Said {
    /// What a new session with the peer inherits of the ones before: that traffic is known of.
    pub(super) fn inherit(others: impl Iterator<Item = Self>) -> Self {
        Self {
            traffic: others.filter_map(|other| other.traffic).max(),
            chatter: None,
        }
    }

    /// Says that a frame travels, if that is due. Only then `judge` is asked what it is.
    pub(super) fn say(
        &mut self,
        (peer, direction): (NodeId, Direction),
        judge: impl FnOnce() -> Load,
        turn: &mut Turn<'_>,
    ) {
        if !is_due(self.traffic, turn.now) {
            return;
        }
        let (said, report) = match judge() {
            Load::Chatter => (&mut self.chatter, Report::Chatter { peer }),
            Load::Traffic => (&mut self.traffic, Report::Traffic { peer, direction }),
        };
        if is_due(*said, turn.now) && turn.ports.report(report) {
            *said = Some(turn.now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::testing::{World, origin};

    const PEER: NodeId = NodeId::new([7; 32]);
    const HALF: Duration = Duration::from_millis(500);

    fn say(said: &mut Said, load: Load, world: &mut World, now: Instant) -> Vec<Report> {
        let direction = Direction::Sent;
        said.say((PEER, direction), || load, &mut world.turn(now));
        std::mem::take(&mut world.reports)
    }

    #[test]
    fn traffic_is_said_once_a_second_and_chatter_while_there_is_none() {
        let (start, mut world) = (origin(), World::default());
        let mut said = Said::default();
        let traffic = Report::Traffic {
            peer: PEER,
            direction: Direction::Sent,
        };
        let chatter = Report::Chatter { peer: PEER };

        let told: Vec<_> = [
            (0, Load::Chatter),
            (0, Load::Chatter),
            (1, Load::Traffic),
            (2, Load::Chatter),
            (2, Load::Traffic),
            (3, Load::Traffic),
            (5, Load::Chatter),
        ]
        .into_iter()
        .map(|(halves, load)| say(&mut said, load, &mut world, start + HALF * halves))
        .collect();

        let nothing = Vec::new();
        let expected = [
            vec![chatter.clone()],
            nothing.clone(),
            vec![traffic.clone()],
            nothing.clone(),
            nothing,
            vec![traffic],
            vec![chatter],
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_was_lost_is_said_by_the_next_frame() {
        let (now, mut world) = (origin(), World::default());
        let mut said = Said::default();

        world.deaf = true;
        let lost = say(&mut said, Load::Traffic, &mut world, now);
        world.deaf = false;
        let told = say(&mut said, Load::Traffic, &mut world, now);

        assert_eq!((lost.len(), told.len()), (0, 1));
    }
}
