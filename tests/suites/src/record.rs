//! Compares how simulated runs go with how they went when their record was committed: `records/NAME.txt`, a line per seed.
//!
//! | environment                           | what happens                                                        |
//! |---------------------------------------|---------------------------------------------------------------------|
//! | nothing                               | the first seeds are compared: as many as take a second or two       |
//! | `WEFT_RECORD=check`                   | all seeds are compared                                              |
//! | `WEFT_RECORD=write`                   | all seeds are recorded anew                                         |
//! | `WEFT_RECORD_SEED=n`                  | only this seed is compared                                          |
//! | `WEFT_RECORD_DIR=d`                   | whatever runs is written to `d/NAME-SEED.txt` line by line as well  |

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One scenario that is recorded.
pub struct Recorded {
    /// Names its file.
    pub name: &'static str,
    /// The test that compares it, and its program: how a message says to run it.
    pub test: (&'static str, &'static str),
    /// All seeds.
    pub seeds: Range<u64>,
    /// So many are compared in every run of the tests.
    pub slice: usize,
    /// The columns that no change may alter.
    pub lasting: &'static [&'static str],
}

/// How one run went: its columns, `name=value` separated by blanks, and its text.
pub type Run = (String, String);

impl Recorded {
    /// Runs seeds, and compares or writes; `run` is told the seed and whether the text is wanted.
    ///
    /// # Panics
    ///
    /// If a run differs from its record, or there is none.
    pub fn compare(&self, run: impl Fn(u64, bool) -> Run) {
        let directory = std::env::var_os("WEFT_RECORD_DIR").map(PathBuf::from);
        let play = |seed: u64| {
            let (columns, text) = run(seed, directory.is_some());
            if let Some(directory) = &directory {
                let path = directory.join(format!("{}-{seed}.txt", self.name));
                std::fs::create_dir_all(directory).expect("a directory for texts");
                std::fs::write(path, text).expect("a text is written");
            }
            columns
        };
        let mode = std::env::var("WEFT_RECORD").unwrap_or_default();
        if mode == "write" {
            let rows = self.seeds.clone().map(|seed| (seed, play(seed)));
            let rows: String = rows.map(|(seed, row)| format!("{seed} {row}\n")).collect();
            std::fs::write(self.path(), rows).expect("the record is written");
            return;
        }
        let was = self.read();
        let differing: Vec<String> = self
            .chosen(&mode)
            .into_iter()
            .filter_map(|seed| {
                let old = was.get(&seed).map_or("", String::as_str);
                self.difference(seed, old, &play(seed))
            })
            .collect();
        assert!(differing.is_empty(), "{}", self.story(&differing));
    }

    fn chosen(&self, mode: &str) -> Vec<u64> {
        let one = std::env::var("WEFT_RECORD_SEED").ok();
        match one.map(|seed| seed.parse().expect("WEFT_RECORD_SEED is a number")) {
            Some(seed) => vec![seed],
            None if mode == "check" => self.seeds.clone().collect(),
            None => self.seeds.clone().take(self.slice).collect(),
        }
    }

    fn path(&self) -> PathBuf {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("records");
        directory.join(format!("{}.txt", self.name))
    }

    /// The committed record, by seed.
    fn read(&self) -> BTreeMap<u64, String> {
        let text = std::fs::read_to_string(self.path()).unwrap_or_default();
        let row = |line: &str| {
            let (seed, columns) = line.split_once(' ')?;
            Some((seed.parse().ok()?, columns.to_owned()))
        };
        text.lines().filter_map(row).collect()
    }

    /// What is to be said of a seed, if anything: which columns were one thing and are another.
    fn difference(&self, seed: u64, old: &str, new: &str) -> Option<String> {
        let (old, new) = (columns(old), columns(new));
        let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
        let differing: Vec<String> = names
            .into_iter()
            .filter(|name| old.get(name) != new.get(name))
            .map(|name| {
                let must = if self.lasting.contains(&name) {
                    "!"
                } else {
                    ""
                };
                let [old, new] = [&old, &new].map(|row| row.get(name).copied().unwrap_or("none"));
                format!("{must}{name} ({old} -> {new})")
            })
            .collect();
        (!differing.is_empty()).then(|| format!("seed {seed}: {}", differing.join(", ")))
    }

    fn story(&self, differing: &[String]) -> String {
        let (program, test) = self.test;
        format!(
            "{}: {} seeds differ from records/{}.txt; what is marked ! must never differ\n{}\n\
             For every line of a run, in this build and in one that agrees, to diff:\n\
             \x20 WEFT_RECORD_DIR=/tmp/new WEFT_RECORD_SEED=n cargo test -p weft-suites --test {program} {test}\n\
             To record anew, with every difference and its reason in the commit: WEFT_RECORD=write (CONTRIBUTING.md)",
            self.name,
            differing.len(),
            self.name,
            differing.join("\n")
        )
    }
}

fn columns(row: &str) -> BTreeMap<&str, &str> {
    let columns = row.split(' ');
    columns
        .filter_map(|column| column.split_once('='))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCENARIO: Recorded = Recorded {
        name: "some",
        test: ("program", "its_test"),
        seeds: 1..3,
        slice: 1,
        lasting: &["frames"],
    };

    #[test]
    fn equal_rows_differ_in_nothing() {
        assert_eq!(SCENARIO.difference(1, "a=1 b=2", "a=1 b=2"), None);
    }

    #[test]
    fn a_difference_names_the_seed_its_columns_and_what_must_not_differ() {
        let told = SCENARIO.difference(7, "frames=1 save=2 same=3", "event=4 frames=5 same=3");

        assert_eq!(
            told.as_deref(),
            Some("seed 7: event (none -> 4), !frames (1 -> 5), save (2 -> none)")
        );
    }

    #[test]
    fn a_seed_that_was_never_recorded_differs() {
        assert!(SCENARIO.difference(7, "", "frames=1").is_some());
    }
}
