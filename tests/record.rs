//! The exit record's shape: one committed sample, one committed schema, and the code agree.

#![expect(clippy::unwrap_used, reason = "a test stops where the world is not as it must be")]

use std::path::PathBuf;

use serde_json::Value;
use wharf::exit::{ExitRecord, record_schema, sentence};

fn document(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

fn blessing() -> bool {
    std::env::var_os("WHARF_BLESS").is_some()
}

#[test]
fn the_schema_is_that_of_the_code() {
    let text = format!("{}\n", serde_json::to_string_pretty(&record_schema()).unwrap());
    let path = document("exit-record.schema.json");
    if blessing() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(committed, text, "WHARF_BLESS=1 cargo test rewrites it");
}

#[test]
fn the_sample_is_a_record_and_says_what_its_fields_say() {
    let text = std::fs::read_to_string(document("exit-record.json")).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let record: ExitRecord = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_value(&record).unwrap(), value, "no field is lost or added");
    assert_eq!(record.msg, sentence(&record));
}

/// Every key of the sample stands in the schema, and the sample has every key of the schema but
/// those that exclude each other.
#[test]
fn the_sample_shows_every_field() {
    let schema = record_schema();
    let text = std::fs::read_to_string(document("exit-record.json")).unwrap();
    let sample: Value = serde_json::from_str(&text).unwrap();
    let absent = ["stage", "errno", "stderr_tail_base64", "error", "exit (of process)"];
    let mut missing = Vec::new();
    let mut unknown = Vec::new();
    compare(&schema, &schema, &sample, "", &mut missing, &mut unknown);
    missing.retain(|path: &String| !absent.iter().any(|name| path.ends_with(name)));
    missing.retain(|path| path != ".process.exit");
    assert_eq!((missing, unknown), (vec![], vec![]));
}

fn compare(
    root: &Value,
    schema: &Value,
    sample: &Value,
    path: &str,
    missing: &mut Vec<String>,
    unknown: &mut Vec<String>,
) {
    let schema = resolve(root, schema);
    let (Some(properties), Some(object)) = (schema["properties"].as_object(), sample.as_object())
    else {
        return;
    };
    for key in object.keys().filter(|key| !properties.contains_key(*key)) {
        unknown.push(format!("{path}.{key}"));
    }
    for (key, inner) in properties {
        match object.get(key) {
            None => missing.push(format!("{path}.{key}")),
            Some(value) => compare(root, inner, value, &format!("{path}.{key}"), missing, unknown),
        }
    }
}

fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let inner = schema["anyOf"].as_array().and_then(|all| all.first()).unwrap_or(schema);
    match inner["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
        None => inner,
    }
}
