//! Compares a JSON value with a schema of `docs/schema`: the few words of JSON Schema that those schemas are written in.
//!
//! Stricter than JSON Schema: a property that a schema does not know is a fault, and so is a word that this module does
//! not know. What passes is therefore documented in full.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

/// Words that constrain nothing by themselves.
const NOTES: [&str; 8] = [
    "$schema",
    "$defs",
    "title",
    "description",
    "format",
    "default",
    "examples",
    "additionalProperties",
];

/// Returns everything in which `value` departs from `schema`, each as its place and what is wrong there.
pub fn faults(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, schema, value, ("$", false), &mut found);
    found
}

/// Reads a schema by the name of its file; one that is not there is none that anything fits.
pub fn load(name: &str) -> Value {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema");
    let bytes = fs::read(directory.join(name)).ok();
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or(Value::Bool(false))
}

/// The place is open where another part of the same schema knows properties of the same value.
fn check(
    root: &Value,
    schema: &Value,
    value: &Value,
    (place, open): (&str, bool),
    found: &mut Vec<String>,
) {
    let Some(words) = schema.as_object() else {
        if schema == &Value::Bool(false) {
            found.push(format!("{place}: nothing is allowed here"));
        }
        return;
    };
    let open = open || (words.contains_key("properties") && words.contains_key("oneOf"));
    for (word, meaning) in words {
        let fault = match word.as_str() {
            "$ref" => refer(root, meaning, value, (place, open), found),
            "anyOf" | "oneOf" => fits_none(root, meaning, value, (place, open))
                .then(|| format!("{value} fits nothing of {word}")),
            "items" => {
                items(root, meaning, value, place, found);
                None
            }
            "properties" => {
                properties(root, words, meaning, value, (place, open), found);
                None
            }
            other => fault(other, meaning, value),
        };
        found.extend(fault.map(|what| format!("{place}: {what}")));
    }
    if let (None, Some(rest), Value::Object(members)) = (
        words.get("properties"),
        words.get("additionalProperties"),
        value,
    ) {
        for (name, member) in members {
            let here = format!("{place}.{name}");
            check(root, rest, member, (&here, false), found);
        }
    }
}

/// What is wrong with a value by a word that looks at nothing else.
fn fault(word: &str, meaning: &Value, value: &Value) -> Option<String> {
    match word {
        "type" => (!has_type(meaning, value)).then(|| format!("{value} is no {meaning}")),
        "const" => (meaning != value).then(|| format!("{value} is not {meaning}")),
        "enum" => (!list(meaning).contains(value)).then(|| format!("{value} is none of {meaning}")),
        "minimum" => below(value, meaning).then(|| format!("{value} is below {meaning}")),
        "maximum" => below(meaning, value).then(|| format!("{value} is above {meaning}")),
        "required" => missing(meaning, value).map(|name| format!("{name} is missing")),
        other if NOTES.contains(&other) => None,
        other => Some(format!("the word {other} is not understood")),
    }
}

fn missing<'a>(names: &'a Value, value: &Value) -> Option<&'a str> {
    let mut names = list(names).iter().filter_map(Value::as_str);
    names.find(|name| value.is_object() && value.get(name).is_none())
}

/// Goes on by the schema that is referred to, in this file or in another.
fn refer(
    root: &Value,
    meaning: &Value,
    value: &Value,
    at: (&str, bool),
    found: &mut Vec<String>,
) -> Option<String> {
    let text = meaning.as_str().unwrap_or_default();
    let (name, pointer) = text.split_once('#').unwrap_or((text, ""));
    let other = (!name.is_empty()).then(|| load(name));
    let root = other.as_ref().unwrap_or(root);
    let Some(target) = root.pointer(pointer) else {
        return Some(format!("{meaning} leads nowhere"));
    };
    check(root, target, value, at, found);
    None
}

/// Whether a value fits none of several schemas.
fn fits_none(root: &Value, meaning: &Value, value: &Value, at: (&str, bool)) -> bool {
    !list(meaning).iter().any(|one| {
        let mut inner = Vec::new();
        check(root, one, value, at, &mut inner);
        inner.is_empty()
    })
}

fn items(root: &Value, meaning: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    for (at, item) in list(value).iter().enumerate() {
        let here = format!("{place}[{at}]");
        check(root, meaning, item, (&here, false), found);
    }
}

fn properties(
    root: &Value,
    words: &Map<String, Value>,
    known: &Value,
    value: &Value,
    (place, open): (&str, bool),
    found: &mut Vec<String>,
) {
    for (name, member) in value.as_object().into_iter().flatten() {
        let here = format!("{place}.{name}");
        match known
            .get(name)
            .or_else(|| words.get("additionalProperties"))
        {
            Some(schema) => check(root, schema, member, (&here, false), found),
            None if open => {}
            None => found.push(format!("{here}: not in the schema")),
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn below(low: &Value, high: &Value) -> bool {
    matches!((low.as_f64(), high.as_f64()), (Some(low), Some(high)) if low < high)
}

fn has_type(wanted: &Value, value: &Value) -> bool {
    if let Some(any) = wanted.as_array() {
        return any.iter().any(|one| has_type(one, value));
    }
    match wanted.as_str() {
        Some("array") => value.is_array(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("null") => value.is_null(),
        Some("number") => value.is_number(),
        Some("object") => value.is_object(),
        Some("string") => value.is_string(),
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_departs_from_a_schema_is_found() {
        let schema = json!({
            "type": "object",
            "required": ["a"],
            "properties": {
                "a": { "type": ["integer", "null"], "minimum": 0 },
                "b": { "type": "array", "items": { "$ref": "#/$defs/B" } },
                "c": { "type": "object", "additionalProperties": { "type": "integer" } }
            },
            "$defs": { "B": { "anyOf": [{ "const": "x" }, { "enum": ["y", "z"] }] } }
        });
        let count = |value: Value| faults(&schema, &value).len();

        assert_eq!(
            count(json!({ "a": 1, "b": ["x", "z"], "c": { "k": 1 } })),
            0
        );
        assert_eq!(count(json!({ "a": null })), 0);
        assert_eq!(count(json!({})), 1);
        assert_eq!(count(json!({ "a": -1 })), 1);
        assert_eq!(count(json!({ "a": "1" })), 1);
        assert_eq!(count(json!({ "a": 1, "b": ["q"] })), 1);
        assert_eq!(count(json!({ "a": 1, "c": { "k": "v" } })), 1);
        assert_eq!(count(json!({ "a": 1, "d": 1 })), 1);
        assert_eq!(faults(&json!({ "pattern": "x" }), &json!("y")).len(), 1);
    }

    #[test]
    fn a_schema_may_lead_to_another() {
        let schema = json!({ "properties": { "t": { "$ref": "token.json" } } });

        assert_eq!(
            faults(&schema, &json!({ "t": { "token": "wft1-x" } })).len(),
            0
        );
        assert_eq!(faults(&schema, &json!({ "t": {} })).len(), 1);
        assert_eq!(
            faults(&json!({ "$ref": "nothing.json" }), &json!(1)).len(),
            1
        );
    }
}
