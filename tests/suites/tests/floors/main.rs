//! Arrows point down: a crate depends on lower floors only, siblings on a floor do not know each other, and within a crate
//! no files import in a circle.

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use imports::Imports;

/// The house, floor by floor (ARCHITECTURE.md, section 3).
const FLOORS: [&[&str]; 6] = [
    &["weft-types"],
    &["weft-router-proto", "weft-api"],
    &["weft-fastdp-proto", "weft-kernel", "weft-sim"],
    &["weft-router", "weft-fastdp", "weft-lab"],
    &["weft"],
    &["weft-suites"],
];

/// What a pure crate may not even link, by way of whatever else.
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

/// Every crate of the workspace with the folder of its sources.
fn sources() -> BTreeMap<String, String> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let place = |package: &serde_json::Value| {
        let manifest = Path::new(package["manifest_path"].as_str()?);
        let src = manifest.parent()?.join("src");
        let name = package["name"].as_str()?.to_owned();
        Some((name, src.to_string_lossy().into_owned()))
    };
    packages.iter().filter_map(place).collect()
}

/// Everything that a crate links, also by way of others, on the platform of this test.
fn linked(name: &str) -> BTreeSet<String> {
    let out = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--package",
            name,
            "--edges=normal",
            "--prefix=none",
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
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
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
    for name in [
        "weft-types",
        "weft-router-proto",
        "weft-fastdp-proto",
        "weft-sim",
    ] {
        let linked = linked(name);
        assert!(linked.contains("serde"), "{name} links {linked:?}");
        for impure in IMPURE {
            assert!(!linked.contains(impure), "{name} links {impure}");
        }
    }
    assert!(linked("weft-router").contains("mio"), "by way of tokio");
}

#[test]
fn who_only_asks_a_router_carries_nothing_of_it() {
    let linked = linked("weft-api");

    assert!(linked.contains("hyper"), "{linked:?}");
    for unwanted in ROUTER {
        assert!(!linked.contains(unwanted), "weft-api links {unwanted}");
    }
}

/// What a part of the core is to do because of another, the member tells it: no part names another.
#[test]
fn no_part_of_the_core_names_another() {
    let parts = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../router/proto/src/router/parts"
    );
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for entry in std::fs::read_dir(parts).expect("the parts") {
        let path = entry.expect("a part").path();
        let name = path.file_stem().expect("a name").to_string_lossy();
        let text = std::fs::read_to_string(&path).expect("a file");
        names.insert(name.into_owned(), text);
    }
    names.remove("mod");
    assert!(names.len() >= 10, "{:?}", names.keys());

    for (name, text) in &names {
        for other in names.keys().filter(|other| *other != name) {
            for way in [format!("super::{other}"), format!("parts::{other}")] {
                assert!(!text.contains(&way), "{name} names {other}");
            }
        }
    }
}

#[test]
fn no_files_of_a_crate_import_in_a_circle() {
    for (name, src) in sources() {
        assert_eq!(
            Imports::of(Path::new(&src)).circles(),
            Vec::<BTreeSet<String>>::new(),
            "{name}"
        );
    }
}

#[test]
fn no_modules_of_the_core_import_in_a_circle() {
    let sources = sources();
    let imports = Imports::of(Path::new(&sources["weft-router-proto"]));

    assert_eq!(
        imports.circles_of_top_modules(),
        Vec::<BTreeSet<String>>::new()
    );
}

fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let files = files
        .iter()
        .map(|&(path, text)| (path.to_owned(), text.to_owned()));
    let circles = Imports::read(files).circles();
    circles
        .into_iter()
        .map(|circle| circle.into_iter().collect())
        .collect()
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    for there in [
        "use crate::b::Thing;",
        "use super::b::{self, other::{Else as E}, Thing};",
        "pub use crate::b::Thing as Other;",
        "fn f() -> crate::b::Thing { g() }",
        "use crate::b; fn f<'a>(c: char) -> b::Thing<'a> { if c == '\"' {} b::new() }",
        "#[cbor(with = \"crate::b::codec\")] struct S;",
        "mod inner { use super::super::b::Thing; }",
    ] {
        let files = [
            ("lib.rs", "mod a; mod b; pub use a::A;"),
            ("a.rs", there),
            // The crate's root only passes the name on.
            ("b/mod.rs", "pub mod other; use crate::A; pub struct Thing;"),
            ("b/other.rs", "pub struct Else;"),
        ];

        assert_eq!(circles_of(&files), [["a", "b"]], "{there}");
    }
}

#[test]
fn what_is_no_import_closes_no_circle() {
    for there in [
        "// use crate::b::Thing;",
        "/* use crate::b::Thing; */",
        "const TEXT: &str = \"a \\\" use crate::b::Thing;\";",
        "const TEXT: &str = r#\"use crate::b::Thing;\"#;",
        "#[cfg(test)] mod tests { use crate::b::Thing; }",
        "#[cfg(test)] use crate::b::Thing;",
        "pub(in crate::b) struct S;",
        "use std::b::Thing;",
    ] {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", there),
            ("a/tests.rs", "use crate::b::Thing;"),
            ("b.rs", "use crate::a::A; pub struct Thing;"),
        ];

        assert_eq!(circles_of(&files), Vec::<Vec<String>>::new(), "{there}");
    }
}
