//! Arrows point down: a crate depends on lower floors only, and siblings on a floor do not know each other.

use std::collections::BTreeMap;
use std::process::Command;

/// The house, floor by floor (ARCHITECTURE.md, section 3).
const FLOORS: [&[&str]; 6] = [
    &["weft-types"],
    &["weft-router-proto"],
    &["weft-fastdp-proto", "weft-kernel", "weft-sim"],
    &["weft-router", "weft-fastdp", "weft-lab"],
    &["weft"],
    &["weft-suites"],
];

/// What a pure crate may not even link.
const IMPURE: [&str; 6] = ["tokio", "mio", "socket2", "nix", "rtnetlink", "redb"];

fn metadata() -> serde_json::Value {
    let out = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version=1",
            "--no-deps",
            "--locked",
            "--offline",
        ])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .expect("cargo runs, since it runs this test");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    serde_json::from_slice(&out.stdout).expect("cargo metadata writes JSON")
}

/// Every crate of the workspace with what it links: dependencies of the library or program, not of its tests.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let metadata = metadata();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let linked = package["dependencies"]
                .as_array()
                .expect("dependencies")
                .iter();
            let linked = linked.filter(|dependency| dependency["kind"].is_null());
            (
                text(&package["name"]),
                linked.map(|dependency| text(&dependency["name"])).collect(),
            )
        })
        .collect()
}

fn floor(name: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&name))
}

#[test]
fn every_crate_has_a_floor() {
    for name in dependencies().keys() {
        assert!(floor(name).is_some(), "{name} stands on no floor");
    }
}

#[test]
fn arrows_point_down() {
    for (name, linked) in dependencies() {
        for below in linked.iter().filter(|below| floor(below).is_some()) {
            assert!(
                floor(below) < floor(&name),
                "{name} depends on {below}, which is not below it"
            );
        }
    }
}

#[test]
fn pure_crates_link_nothing_that_does_io() {
    let all = dependencies();
    for name in [
        "weft-types",
        "weft-router-proto",
        "weft-fastdp-proto",
        "weft-sim",
    ] {
        let linked = all.get(name).expect("a crate of the workspace");
        for impure in IMPURE {
            assert!(
                !linked.iter().any(|dependency| dependency == impure),
                "{name} links {impure}"
            );
        }
    }
}
