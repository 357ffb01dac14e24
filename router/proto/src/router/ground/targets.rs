//! What a person said to dial: remembered, resolved, forgotten.

use std::net::SocketAddr;
use std::time::Instant;

use weft_types::{Code, Problem};

use super::Ground;
use super::saves::Undo;
use crate::io::{Reply, RequestId, Target};
use crate::store::{Change, Saved, Table};

/// Targets are saved as keys of the node table behind this prefix.
const TARGET: &[u8] = b"target:";

impl Ground {
    /// Dials these, for good.
    pub(crate) fn connect(&mut self, id: RequestId, targets: Vec<Target>, now: Instant) {
        let changes = targets.iter().map(remember).collect();
        let known: Vec<Target> = self.dialer.targets().map(|it| it.target).collect();
        let mut new = targets.clone();
        new.retain(|target| !known.contains(target));
        for target in targets {
            self.dialer.add_target(target, now);
        }
        self.save_targets(changes, id, Undo::Forget(new));
    }

    /// Dials these no more.
    ///
    /// # Errors
    ///
    /// [`Code::UnknownNode`] names those that were no targets; the others are forgotten all the same.
    pub(crate) fn forget(&mut self, id: RequestId, targets: &[Target]) -> Result<(), Problem> {
        let (known, unknown): (Vec<_>, Vec<_>) = targets
            .iter()
            .partition(|target| self.dialer.remove_target(target));
        let changes = targets.iter().map(forget).collect();
        if unknown.is_empty() {
            let known = known.into_iter().cloned().collect();
            self.save_targets(changes, id, Undo::Remember(known));
            return Ok(());
        }
        self.save(changes);
        let unknown: Vec<&str> = unknown.iter().map(|target| target.0.as_str()).collect();
        let what = format!("no such target: {}", unknown.join(", "));
        Err(Problem::new(Code::UnknownNode, what).fix("`weft status targets` lists them"))
    }

    /// What could not be saved is not done either.
    pub(super) fn undo_targets(&mut self, undo: Undo, now: Instant) {
        let changes = match undo {
            Undo::Forget(targets) => {
                for target in &targets {
                    self.dialer.remove_target(target);
                }
                targets.iter().map(forget).collect()
            }
            Undo::Remember(targets) => {
                let changes = targets.iter().map(remember).collect();
                for target in targets {
                    self.dialer.add_target(target, now);
                }
                changes
            }
        };
        self.save_if_any(changes);
    }

    /// Dials at once whoever is waited for.
    pub(crate) fn retry(&mut self, id: RequestId, now: Instant) {
        self.dialer.hurry(now);
        self.reply(id, Reply::Done);
    }

    /// A name was looked up.
    pub(crate) fn resolved(&mut self, target: &Target, addresses: Vec<SocketAddr>, now: Instant) {
        let crypto = &mut *self.crypto;
        self.dialer.handle_resolved(target, addresses, crypto, now);
    }
}

/// What was remembered.
pub(crate) fn remembered(saved: &Saved) -> impl Iterator<Item = Target> {
    let keys = saved.table(Table::Node);
    let targets = keys.filter_map(|(key, _)| key.strip_prefix(TARGET));
    targets
        .filter_map(|text| std::str::from_utf8(text).ok())
        .map(|text| Target(text.to_owned()))
}

/// A target, to be remembered.
pub(crate) fn remember(target: &Target) -> Change {
    Change::Put {
        table: Table::Node,
        key: key(target),
        value: Vec::new(),
    }
}

fn forget(target: &Target) -> Change {
    Change::Delete {
        table: Table::Node,
        key: key(target),
    }
}

fn key(target: &Target) -> Vec<u8> {
    [TARGET, target.0.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Output;
    use crate::router::testing::Fixture;

    const ID: RequestId = RequestId(1);

    fn target() -> Target {
        Target("a.example".to_owned())
    }

    /// How often the host's name was asked for since the last time.
    fn asked(fixture: &mut Fixture) -> usize {
        let now = fixture.now;
        let ground = &mut fixture.ground;
        ground.dialer.handle_timeout(&mut *ground.crypto, now);
        while let Some(output) = ground.dialer.poll_output() {
            let _ = ground.dialer_wants(output);
        }
        let outputs = fixture.outputs().into_iter();
        let asks =
            |it: &Output| matches!(it, Output::Resolve { target: name } if *name == target());
        outputs.filter(asks).count()
    }

    #[test]
    fn a_retry_dials_whoever_is_waited_for_at_once() {
        let mut fixture = Fixture::new();
        let now = fixture.now;
        fixture.ground.connect(ID, vec![target()], now);
        let first = asked(&mut fixture);
        fixture.ground.resolved(&target(), Vec::new(), now);
        let paused = asked(&mut fixture);

        fixture.ground.retry(ID, now);

        assert_eq!((first, paused, asked(&mut fixture)), (1, 0, 1));
    }

    /// Fails the last save that was asked for.
    fn fail(fixture: &mut Fixture) {
        let outputs = fixture.outputs();
        let saved = outputs.iter().rev().find_map(|output| {
            let Output::Save { ticket, .. } = output else {
                return None;
            };
            Some(*ticket)
        });
        let (now, full) = (fixture.now, Problem::new(Code::DiskFull, "full"));
        let ground = &mut fixture.ground;
        ground.save_failed(saved.expect("something is saved"), &full, now);
    }

    #[test]
    fn what_could_not_be_saved_is_not_done() {
        let mut fixture = Fixture::new();
        let now = fixture.now;

        fixture.ground.connect(ID, vec![target()], now);
        fail(&mut fixture);
        let named = fixture.ground.dialer.targets().count();
        fixture.ground.connect(ID, vec![target()], now);
        fixture.outputs();
        fixture.ground.forget(ID, &[target()]).expect("a target");
        fail(&mut fixture);

        assert_eq!((named, fixture.ground.dialer.targets().count()), (0, 1));
        let saved_anew = |output: &Output| matches!(output, Output::Save { .. });
        assert!(fixture.outputs().iter().any(saved_anew));
    }

    #[test]
    fn what_was_no_target_is_named_and_the_rest_is_forgotten() {
        let mut fixture = Fixture::new();
        let now = fixture.now;
        fixture.ground.connect(ID, vec![target()], now);

        let unknown = Target("b.example".to_owned());
        let forgot = fixture.ground.forget(ID, &[target(), unknown]);

        let problem = forgot.expect_err("b.example was never named");
        assert_eq!(problem.code, Code::UnknownNode);
        assert!(problem.what.contains("b.example") && !problem.what.contains("a.example"));
        assert_eq!(fixture.ground.dialer.targets().count(), 0);
    }
}
