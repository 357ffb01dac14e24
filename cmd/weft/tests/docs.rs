//! What the documentation says is what the program does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use weft_types::{Code, WireCounters};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

#[test]
fn every_code_has_its_page_and_every_page_its_code() {
    let index = fs::read_to_string(docs().join("errors/README.md")).unwrap();
    let mut pages: BTreeSet<String> = fs::read_dir(docs().join("errors"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();

    for code in Code::ALL {
        let name = format!("{code}.md");
        assert!(pages.remove(&name), "{name} is missing");
        let page = fs::read_to_string(docs().join("errors").join(&name)).unwrap();
        let exit = code.exit() as u8;
        assert_eq!(
            page.lines().next(),
            Some(format!("# {code}: {}", code.title()).as_str())
        );
        assert!(page.contains(&format!("Exit code {exit}.")), "{name}");
        for part in [
            "**What it means.**",
            "**What you see.**",
            "**Why.**",
            "**What to do.**",
        ] {
            assert!(page.contains(part), "{name}: {part}");
        }
        let line = format!("| [{code}]({name}) | {} | {exit} |", code.title());
        assert!(index.contains(&line), "the index lacks: {line}");
    }

    assert_eq!(pages, BTreeSet::new(), "pages without a code");
}

#[test]
fn every_counter_of_the_wire_is_among_the_metrics_and_in_the_schema() {
    let metrics = fs::read_to_string(docs().join("metrics.md")).unwrap();
    let schema = fs::read_to_string(docs().join("schema/wire.json")).unwrap();

    for counter in WireCounters::default().table() {
        let metric = format!("`weft_{}_total`", counter.metric);
        assert!(metrics.contains(&metric), "metrics.md lacks {metric}");
        let field = format!("\"{}\": {{", counter.name);
        assert!(schema.contains(&field), "wire.json lacks {field}");
    }
}
