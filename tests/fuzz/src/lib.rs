//! Gives every decoder of foreign bytes the bytes that nobody thought of.
//!
//! `targets` holds one function per target. The fuzzer drives them by `fuzz_targets/`, and the workspace's tests replay
//! every input of `corpus/` through the same functions (`tests/suites/tests/fuzz_corpora.rs`). How to run: README.md.

pub mod targets;
