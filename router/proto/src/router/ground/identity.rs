//! Other machines with our identity: a copied disk, or an earlier run of ourselves whose footsteps we have to pass.
//!
//! Whoever meets a later run of itself steps past it once, as one does whose disk was restored from a copy; twice within
//! ten minutes is a clone, and it stops. So does who has no link and is refused as a clone by two members for three seconds;
//! what one member alone says is told, and stops nobody. The original says in its status that there is a copy.

use std::net::SocketAddr;
use std::time::Instant;

use weft_types::{Boot, BootId, Code, NodeId, Problem};

use super::clones::{Refusals, Sighting, WINDOW};
use super::saves::Part;
use super::{Ground, Reach};
use crate::io::{Event, Ticket};
use crate::store::{Change, Table};

/// So many members have to say that we are the copy: one alone may lie, or be mistaken.
const WITNESSES: usize = 2;

const CLONE: &str = "another machine uses this node's identity";
const CURE: &str = "On the copy run `weft reset --force`, then join it with a token of its own";

/// Where the boot counter is saved.
pub(crate) const BOOT: &[u8] = b"boot";
/// Where the genesis record is saved.
pub(crate) const GENESIS: &[u8] = b"genesis";

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

    /// Whoever refuses us says that another run of this node is linked there. After a restart that passes with the old
    /// run's last heartbeat; a clone's does not, and `has_links` tells the original. Nobody is stopped on the word of one.
    /// Whether it is news that `by` means it.
    pub(crate) fn refused_as_clone(&mut self, by: NodeId, has_links: bool, now: Instant) -> bool {
        self.clones.refusals.retain(|_, said| said.is_recent(now));
        let fresh = Refusals {
            first: now,
            last: now,
        };
        let said = self.clones.refusals.entry(by).or_insert(fresh);
        let meant = said.is_meant();
        said.last = now;
        let news = !meant && said.is_meant();
        if self.clones.refusers(now).count() >= WITNESSES && !has_links {
            self.halt(problem());
        }
        news
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

    /// A member refuses us as a clone: we go on, and say who says so.
    pub(crate) fn refused_as_clone(&mut self, by: NodeId, now: Instant) {
        let has_links = !self.mesh.links.is_empty();
        if self.ground.refused_as_clone(by, has_links, now)
            && !self.ground.is_halted()
            && let Some(problem) = refused_around(self.ground, |by| self.mesh.name_of(by), now)
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

/// Who says that we are a copy, for as long as they do.
pub(crate) fn refused_around(
    ground: &Ground,
    name_of: impl Fn(NodeId) -> String,
    now: Instant,
) -> Option<Problem> {
    let names: Vec<String> = ground.clones.refusers(now).map(name_of).collect();
    let by = match names.as_slice() {
        [] => return None,
        [one] => format!("{one} refuses this node"),
        many => format!("{} refuse this node", many.join(" and ")),
    };
    let why = format!("{by}: it says that another machine with its identity is linked there");
    let problem = Problem::new(Code::Clone, "this node is taken for a copy of itself").why(why);
    Some(problem.fix("If this machine is a copy: `weft reset --force`, then join it with a token of its own. If not: look at whoever refuses it"))
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
    use std::time::Duration;

    use super::*;
    use crate::io::Output;
    use crate::router::ground::clones::PATIENCE;
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
    fn whoever_two_members_refuse_for_three_seconds_is_a_clone_unless_others_know_it() {
        let halts_after = |has_links: bool, wait: Duration| {
            let mut fixture = Fixture::new();
            let (first, members) = (fixture.now, [fixture.stranger(), fixture.stranger()]);
            for by in members {
                fixture.ground.refused_as_clone(by, has_links, first);
            }
            let later = fixture.wait(wait);
            for by in members {
                fixture.ground.refused_as_clone(by, has_links, later);
            }
            halts(&mut fixture)
        };

        assert!(!halts_after(false, PATIENCE - Duration::from_millis(1)));
        assert!(halts_after(false, PATIENCE));
        assert!(!halts_after(true, PATIENCE));
    }

    #[test]
    fn nobody_stops_on_the_word_of_one_member_and_everybody_is_told_whose_it_is() {
        let mut fixture = Fixture::new();
        let (by, first) = (fixture.admit("b"), fixture.now);
        fixture.reach().refused_as_clone(by, first);
        fixture.outputs();

        for _ in 0..20 {
            let later = fixture.wait(PATIENCE);
            fixture.reach().refused_as_clone(by, later);
        }

        let events = fixture.events();
        let [Event::Problem(problem)] = events.as_slice() else {
            panic!("it is told once: {events:?}");
        };
        let name = fixture.mesh.name_of(by);
        assert_eq!(problem.code, Code::Clone);
        assert!(problem.why.contains(&name), "{problem:?}");
        assert!(!fixture.ground.is_halted());
    }

    #[test]
    fn a_member_that_links_us_has_taken_its_word_back() {
        let mut fixture = Fixture::new();
        let (by, first) = (fixture.admit("b"), fixture.now);
        fixture.ground.refused_as_clone(by, false, first);
        let later = fixture.wait(PATIENCE);
        fixture.ground.refused_as_clone(by, false, later);

        fixture.ground.clones.forgive(by);

        assert_eq!(fixture.ground.clones.refusers(later).count(), 0);
    }
}
