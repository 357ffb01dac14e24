//! The schema in `docs/schema/` is the API's: write it anew with `UPDATE=1 cargo test -p weft-api --test schema`.
//!
//! A change of it is a change of what programs rely on: fields are added, never renamed.

use std::fs;
use std::path::Path;

use schemars::{Schema, schema_for};
use weft_api::connections::ConnectionStatus;
use weft_api::containers::ContainerStatus;
use weft_api::events::Event;
use weft_api::peers::PeerStatus;
use weft_api::ping::PingAnswer;
use weft_api::status::Status;
use weft_api::targets::TargetStatus;
use weft_api::tokens::{TokenAnswer, TokenStatus};
use weft_api::trace::TraceAnswer;
use weft_api::wire::WireStatus;
use weft_types::Problem;

#[test]
fn the_schema_is_as_reviewed() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema");
    for (name, schema) in schemas() {
        let path = directory.join(format!("{name}.json"));
        let text = format!(
            "{}\n",
            serde_json::to_string_pretty(&schema).expect("a schema is JSON")
        );
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(&directory).expect("docs can be written");
            fs::write(&path, &text).expect("docs can be written");
        }
        let reviewed = fs::read_to_string(&path).unwrap_or_default();

        assert!(
            text == reviewed,
            "{} differs; if that is meant: UPDATE=1 cargo test -p weft-api --test schema",
            path.display()
        );
    }
}

/// What each reading command prints with `-o json`.
fn schemas() -> [(&'static str, Schema); 12] {
    [
        ("connections", schema_for!(Vec<ConnectionStatus>)),
        ("containers", schema_for!(Vec<ContainerStatus>)),
        ("event", schema_for!(Event)),
        ("peers", schema_for!(Vec<PeerStatus>)),
        ("ping", schema_for!(PingAnswer)),
        ("problem", schema_for!(Problem)),
        ("status", schema_for!(Status)),
        ("targets", schema_for!(Vec<TargetStatus>)),
        ("token", schema_for!(TokenAnswer)),
        ("tokens", schema_for!(Vec<TokenStatus>)),
        ("trace", schema_for!(TraceAnswer)),
        ("wire", schema_for!(WireStatus)),
    ]
}
