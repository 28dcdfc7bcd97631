//! The JSON Schema of services.yaml and of a profile, made from the written types.
//!
//! The same document guides editors and the checker, so they cannot disagree. Nothing is checked
//! here.

use std::rc::Rc;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::resolve::{
    group_defaults, health_defaults, logging, port, ready_defaults, restart, service_defaults,
};
use super::shape::{MapShape, Shape};
use super::written::{File, Profile};
use super::{Dependency, Logging, Port, Restart};

/// The JSON Schema of services.yaml (draft 2020-12).
///
/// `x-supported: false` marks keys and values that are known and refused until they work.
pub fn schema() -> Value {
    schema_of::<File>()
}

/// The JSON Schema of a profile, `ports/NAME/port.yaml`.
pub fn profile_schema() -> Value {
    schema_of::<Profile>()
}

fn schema_of<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.transforms.push(Box::new(RecursiveTransform(as_people_write)));
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    for (name, defaults) in [
        ("Service", service_defaults()),
        ("Ready", ready_defaults()),
        ("Healthcheck", health_defaults()),
        ("RestartLong", restart(&Restart::default())),
        ("Group", group_defaults()),
        ("DependencyLong", json!(Dependency::default())),
        ("Logging", logging(&Logging::default())),
        ("Port", port(&Port::default())),
    ] {
        note_defaults(&mut schema, name, defaults);
    }
    schema
}

/// Tells editors what holds where a key is left out.
fn note_defaults(schema: &mut Value, name: &str, defaults: Value) {
    let keys = schema.pointer_mut(&format!("/$defs/{name}/properties"));
    if let (Some(Value::Object(keys)), Value::Object(defaults)) = (keys, defaults) {
        for (key, default) in defaults {
            if let Some(Value::Object(key)) = keys.get_mut(&key) {
                key.insert("default".to_owned(), default);
            }
        }
    }
}

/// Where the types and the file differ: an optional key is left out and never null, and maps may
/// have `x-` keys that are ignored, unless their keys are the user's own (`x-own-keys`).
fn as_people_write(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(Value::Object(keys)) = object.get_mut("properties") {
        for key in keys.values_mut().filter_map(Value::as_object_mut) {
            without_null(key);
        }
    }
    if object.contains_key("x-own-keys") {
        return;
    }
    if let Some(others) = object.get("additionalProperties") {
        if others.is_object() {
            object.insert("propertyNames".to_owned(), json!({ "format": "wharf-name" }));
        }
        object.insert("patternProperties".to_owned(), json!({ "^x-": true }));
    }
}

fn without_null(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(branches)) = schema.get_mut("anyOf") {
        branches.retain(|branch| branch.get("type") != Some(&json!("null")));
        if let [Value::Object(only)] = branches.as_mut_slice() {
            let only = std::mem::take(only);
            schema.remove("anyOf");
            for (key, value) in only {
                schema.entry(key).or_insert(value);
            }
        }
    }
}

/// The keys of a service and of the whole file as a schema has them: their order, and which of
/// them work yet.
pub(crate) struct Keys {
    file: Shape,
}

impl Keys {
    /// Those of a schema as [`schema`] makes it.
    pub(crate) fn of(schema: &Value) -> Self {
        Self { file: Shape::of(schema) }
    }

    /// Where a key stands among its neighbours and whether it works; `None` for one there is not.
    /// The path begins at the top of the file.
    pub(crate) fn find(&self, path: &[&str]) -> Option<(usize, bool)> {
        let (last, before) = path.split_last()?;
        let mut shape = self.file.clone();
        for step in before {
            let map = map_of(&shape)?;
            shape = match map.keys.get(*step) {
                Some(key) => key.shape.clone(),
                None => map.others.clone()?,
            };
        }
        let map = map_of(&shape)?;
        match map.keys.get_full(*last) {
            Some((at, _, key)) => Some((at, key.supported)),
            None => map.others.as_ref().map(|_| (usize::MAX, true)),
        }
    }
}

fn map_of(shape: &Shape) -> Option<Rc<MapShape>> {
    match shape {
        Shape::Map(map) => Some(Rc::clone(map)),
        Shape::Union(union) => union.map.as_ref().and_then(map_of),
        _ => None,
    }
}
