//! Every input that a fuzzer has been given or has found: none of them does any harm.
//!
//! The corpora are `tests/fuzz/corpus`, a directory per target; the fuzzing itself is described in `tests/fuzz/README.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "../../fuzz/src/seeds.rs"]
pub mod seeds;
#[path = "../../fuzz/src/targets/mod.rs"]
pub mod targets;

/// What a corpus may hold: it is replayed with every run of the tests.
const MAX_FILES: usize = 40;
const MAX_BYTES: usize = 64 * 1024;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The names in a directory.
fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    entries
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("a plain name"))
        .collect()
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = fuzz().join("corpus").join(target);
    names(&directory)
        .into_iter()
        .map(|name| {
            (
                name.clone(),
                fs::read(directory.join(name)).expect("a file"),
            )
        })
        .collect()
}

#[test]
fn every_target_has_a_program_and_a_corpus_and_nothing_is_left_over() {
    let targets: BTreeSet<String> = targets::ALL
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let programs = targets.iter().map(|name| format!("{name}.rs")).collect();
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("a manifest");
    let built = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("path = \"fuzz_targets/"));
    let built: BTreeSet<String> = built
        .map(|name| name.trim_end_matches('"').to_owned())
        .collect();

    assert_eq!(targets.len(), targets::ALL.len());
    assert_eq!(names(&fuzz().join("corpus")), targets);
    assert_eq!(names(&fuzz().join("fuzz_targets")), programs);
    assert_eq!(built, programs);
}

#[test]
fn every_corpus_is_small() {
    for (target, _) in targets::ALL {
        let corpus = corpus(target);
        let bytes: usize = corpus.iter().map(|(_, input)| input.len()).sum();

        assert!(
            (1..=MAX_FILES).contains(&corpus.len()),
            "{target}: {} files",
            corpus.len()
        );
        assert!(bytes <= MAX_BYTES, "{target}: {bytes} bytes");
    }
}

#[test]
fn every_input_of_every_corpus_is_taken_in_stride() {
    for (target, run) in targets::ALL {
        for (name, input) in corpus(target) {
            let outcome = std::panic::catch_unwind(|| run(&input));
            assert!(outcome.is_ok(), "{target}: {name}");
        }
    }
}

#[test]
fn every_seed_is_taken_in_stride() {
    for (target, run) in targets::ALL {
        for (number, seed) in seeds::with_damage(target).iter().enumerate() {
            let outcome = std::panic::catch_unwind(|| run(seed));
            assert!(outcome.is_ok(), "{target}: seed {number}");
        }
    }
}

/// To be run by hand when a format has changed: `cargo test -p weft-suites --test fuzz_corpora -- --ignored`.
#[test]
#[ignore = "writes tests/fuzz/corpus"]
fn the_seeds_are_written() {
    for (target, _) in targets::ALL {
        let directory = fuzz().join("corpus").join(target);
        fs::create_dir_all(&directory).expect("a directory");
        for (number, seed) in seeds::with_damage(target).iter().enumerate() {
            fs::write(directory.join(format!("seed-{number:02}")), seed).expect("a file");
        }
    }
}
