//! Other machines with our identity: a copied disk, or an earlier run of ourselves whose footsteps we have to pass.
//!
//! Whoever meets a later run of itself steps past it once, as one does whose disk was restored from a copy; twice within
//! ten minutes is a clone, and it stops. The original says in its status that there is one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_types::{Boot, BootId, Code, NodeId, Problem};

use super::clones::{Sighting, WINDOW};
use super::saves::Part;
use super::{Ground, Reach};
use crate::io::{Event, Ticket};
use crate::store::{Change, Table};

/// How long we are refused as a clone before we believe it: longer than any link takes to notice silence.
const PATIENCE: Duration = Duration::from_secs(3);

const CLONE: &str = "another machine uses this node's identity";
const CURE: &str = "On the copy run `weft reset --force`, then join it with a token of its own";

/// Where the boot counter is saved.
pub(crate) const BOOT: &[u8] = b"boot";

impl Ground {
    /// Another machine has our key: it came to us, or somebody tells that it came there. Whether that is news.
    pub(crate) fn note_clone(
        &mut self,
        theirs: Boot,
        from: SocketAddr,
        by: Option<NodeId>,
        now: Instant,
    ) -> bool {
        if theirs.id == self.boot.id {
            return false; // the restart that made this run, or this run as seen by who still knows the last
        }
        let known = self.sighting(now).is_some();
        self.clones.seen = Some(Sighting { at: now, from, by });
        !known
    }

    fn sighting(&self, now: Instant) -> Option<&Sighting> {
        let seen = self.clones.seen.as_ref();
        seen.filter(|seen| now < seen.at + WINDOW)
    }

    /// Somebody writes in our name with a boot not below ours: a restored snapshot of ourselves, or a clone.
    pub(crate) fn meet_ourself(&mut self, theirs: Boot, now: Instant) {
        if theirs.counter < self.boot.counter || theirs.id == self.boot.id {
            return;
        }
        let stepped = self.clones.stepped;
        if stepped.is_some_and(|stepped| now < stepped + WINDOW) {
            return self.halt(problem());
        }
        self.clones.stepped = Some(now);
        let boot = Boot {
            counter: theirs.counter + 1,
            id: BootId::new(self.crypto.array()),
        };
        let ticket = self.save_for(Part::Clones, vec![boot_change(boot.counter)]);
        self.clones.stepping = Some((ticket, boot));
    }

    /// A later boot is durable: gives the one to step to.
    pub(crate) fn stepped(&mut self, ticket: Ticket) -> Option<Boot> {
        let stepping = self.clones.stepping.take_if(|(waits, _)| *waits == ticket);
        stepping.map(|(_, boot)| boot)
    }

    /// Whoever refuses us has another run of this node linked. After a restart that passes with the old run's last
    /// heartbeat; a clone's does not, and `has_links` tells the original.
    pub(crate) fn refused_as_clone(&mut self, has_links: bool, now: Instant) {
        let since = *self.clones.refused.get_or_insert(now);
        if now >= since + PATIENCE && !has_links {
            self.halt(problem());
        }
    }
}

impl Reach<'_> {
    /// The same as [`Ground::note_clone`], and says so once.
    pub(crate) fn clone_seen(
        &mut self,
        theirs: Boot,
        from: SocketAddr,
        by: Option<NodeId>,
        now: Instant,
    ) {
        if self.ground.note_clone(theirs, from, by, now)
            && let Some(problem) = self.clone_around(now)
        {
            self.ground.event(Event::Problem(problem));
        }
    }

    /// What the original says of a clone, for as long as it may be about.
    pub(crate) fn clone_around(&self, now: Instant) -> Option<Problem> {
        clone_around(self.ground, |by| self.mesh.name_of(by), now)
    }
}

/// The same for who only reads.
pub(crate) fn clone_around(
    ground: &Ground,
    name_of: impl Fn(NodeId) -> String,
    now: Instant,
) -> Option<Problem> {
    let Sighting { from, by, .. } = ground.sighting(now)?;
    let whom = by.map_or_else(|| "this node".to_owned(), name_of);
    let why =
        format!("it came to {whom} from {from} and was refused: a copied disk or virtual machine");
    Some(Problem::new(Code::Clone, CLONE).why(why).fix(CURE))
}

/// What a saved boot counter looks like.
pub(crate) fn boot_change(counter: u64) -> Change {
    Change::Put {
        table: Table::Node,
        key: BOOT.to_vec(),
        value: counter.to_be_bytes().to_vec(),
    }
}

fn problem() -> Problem {
    Problem::new(Code::Clone, CLONE)
        .why("two routers with one key are running: a copied disk or virtual machine")
        .fix(CURE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Output;
    use crate::router::testing::{Fixture, boot};

    fn halts(fixture: &mut Fixture) -> bool {
        let outputs = fixture.outputs();
        outputs.iter().any(|it| matches!(it, Output::Halt(_)))
    }

    #[test]
    fn a_later_run_of_ours_is_stepped_past_once_and_then_is_a_clone() {
        let mut fixture = Fixture::new();
        let now = fixture.now;

        fixture.ground.meet_ourself(boot(8), now);
        let first = halts(&mut fixture);
        let later = fixture.wait(WINDOW - Duration::from_secs(1));
        fixture.ground.meet_ourself(boot(9), later);

        assert!(!first);
        assert!(halts(&mut fixture));
    }

    #[test]
    fn a_restored_disk_may_be_restored_again_another_day() {
        let mut fixture = Fixture::new();
        let now = fixture.now;

        fixture.ground.meet_ourself(boot(8), now);
        let later = fixture.wait(WINDOW);
        fixture.ground.meet_ourself(boot(9), later);

        assert!(!halts(&mut fixture));
    }

    #[test]
    fn an_earlier_run_of_ours_is_nobody() {
        let mut fixture = Fixture::new();
        let now = fixture.now;

        fixture.ground.meet_ourself(boot(0), now);

        assert!(fixture.outputs().is_empty());
    }

    #[test]
    fn whoever_is_refused_as_a_clone_for_three_seconds_is_one_unless_others_know_it() {
        let halts_after = |has_links: bool, wait: Duration| {
            let mut fixture = Fixture::new();
            let first = fixture.now;
            fixture.ground.refused_as_clone(has_links, first);
            let later = fixture.wait(wait);
            fixture.ground.refused_as_clone(has_links, later);
            halts(&mut fixture)
        };

        assert!(!halts_after(false, PATIENCE - Duration::from_millis(1)));
        assert!(halts_after(false, PATIENCE));
        assert!(!halts_after(true, PATIENCE));
    }
}
