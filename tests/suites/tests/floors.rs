//! Arrows point down: a crate depends on lower floors only, and siblings on a floor do not know each other.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// The house, floor by floor (ARCHITECTURE.md, section 3).
const FLOORS: [&[&str]; 6] = [
    &["weft-types"],
    &["weft-router-proto", "weft-api"],
    &["weft-fastdp-proto", "weft-kernel", "weft-sim"],
    &["weft-router", "weft-fastdp", "weft-lab"],
    &["weft"],
    &["weft-suites"],
];

/// What a pure crate may not even link.
const IMPURE: [&str; 6] = ["tokio", "mio", "socket2", "nix", "rtnetlink", "redb"];

/// What a program that only asks a router shall not carry: the router itself, its disk, its cryptography, its server.
const ROUTER: [&str; 10] = [
    "aws-lc-rs",
    "axum",
    "redb",
    "ring",
    "rtnetlink",
    "snow",
    "weft-fastdp",
    "weft-kernel",
    "weft-router",
    "weft-router-proto",
];

fn metadata(more: &[&str]) -> serde_json::Value {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(more)
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
    let metadata = metadata(&["--no-deps"]);
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

/// Everything that a crate links, and what that links, by its name.
fn closure(name: &str) -> BTreeSet<String> {
    let metadata = metadata(&[]);
    let names: BTreeMap<&str, &str> = list(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let linked: BTreeMap<&str, Vec<&str>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| (text(&node["id"]), linked(node)))
        .collect();
    let mut found = BTreeSet::new();
    let mut left: Vec<&str> = names
        .iter()
        .filter(|&(_, &known)| known == name)
        .map(|(&id, _)| id)
        .collect();
    while let Some(id) = left.pop() {
        for &below in &linked[id] {
            if found.insert(names[below].to_owned()) {
                left.push(below);
            }
        }
    }
    found
}

/// What the library or program of a package links, by the ids of packages.
fn linked(node: &serde_json::Value) -> Vec<&str> {
    let normal = |dependency: &&serde_json::Value| {
        list(&dependency["dep_kinds"])
            .iter()
            .any(|kind| kind["kind"].is_null())
    };
    let dependencies = list(&node["deps"]).iter().filter(normal);
    dependencies
        .map(|dependency| text(&dependency["pkg"]))
        .collect()
}

fn list(value: &serde_json::Value) -> &[serde_json::Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[test]
fn who_only_asks_a_router_carries_nothing_of_it() {
    let linked = closure("weft-api");

    assert!(linked.contains("hyper"), "{linked:?}");
    for unwanted in ROUTER {
        assert!(!linked.contains(unwanted), "weft-api links {unwanted}");
    }
}
