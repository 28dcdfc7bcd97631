//! The JSON Schema in the form the checker walks: references resolved, alternatives sorted.
//!
//! Only the words of JSON Schema that our own schema uses are known; a test holds it to that.

use std::collections::BTreeMap;
use std::rc::Rc;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::format::Format;

/// What may stand in one place.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// A scalar taken as text.
    Text {
        /// What it must look like.
        format: Format,
        /// A further pattern, and whether nothing at all will do.
        pattern: Option<String>,
        /// Whether it may be null.
        nullable: bool,
    },
    /// A whole number.
    Integer {
        /// The least.
        min: i64,
        /// The largest.
        max: i64,
    },
    /// A number.
    Number {
        /// The least.
        min: f64,
        /// The largest.
        max: f64,
    },
    /// True or false.
    Bool,
    /// A list.
    List(Rc<Shape>),
    /// A map.
    Map(Rc<MapShape>),
    /// One of several.
    Union(Rc<Union>),
}

/// The shape of a map.
#[derive(Debug, Clone, Default)]
pub(super) struct MapShape {
    /// The keys that are known.
    pub(super) keys: IndexMap<String, Key>,
    /// Those that must be there.
    pub(super) required: Vec<String>,
    /// What other keys hold, where there may be others.
    pub(super) others: Option<Shape>,
    /// What other keys look like.
    pub(super) names: Option<Format>,
    /// Whether keys that begin with `x-` are the user's own and kept.
    pub(super) own_keys: bool,
}

/// A known key.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// What it holds.
    pub(super) shape: Shape,
    /// Whether its behaviour exists.
    pub(super) supported: bool,
}

/// A known word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    /// Whether its behaviour exists.
    pub(super) supported: bool,
    /// Whether it is another way to write a word that is there too.
    pub(super) also: bool,
}

/// Alternatives.
#[derive(Debug, Clone, Default)]
pub(super) struct Union {
    /// Words.
    pub(super) words: IndexMap<String, Word>,
    /// Maps of one key.
    pub(super) tagged: IndexMap<String, Key>,
    /// A list.
    pub(super) list: Option<Shape>,
    /// A map of several keys.
    pub(super) map: Option<Shape>,
    /// Scalars, the narrowest first.
    pub(super) scalars: Vec<Shape>,
}

impl Shape {
    /// The shape that a whole schema describes.
    pub(super) fn of(schema: &Value) -> Self {
        let mut compiler = Compiler { schema, known: BTreeMap::new() };
        compiler.shape(schema)
    }

    /// The shape of what stands at a known key.
    pub(super) fn at(&self, key: &str) -> Option<Self> {
        if let Self::Map(map) = self { Some(map.keys.get(key)?.shape.clone()) } else { None }
    }

    /// The shape of what stands at a key that the user chooses.
    pub(super) fn at_any_name(&self) -> Option<Self> {
        if let Self::Map(map) = self { map.others.clone() } else { None }
    }
}

struct Compiler<'s> {
    schema: &'s Value,
    known: BTreeMap<String, Shape>,
}

impl Compiler<'_> {
    fn shape(&mut self, schema: &Value) -> Shape {
        let Some(object) = schema.as_object() else { return free() };
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            return self.named(reference);
        }
        if object.contains_key("oneOf")
            || object.contains_key("anyOf")
            || object.contains_key("enum")
            || object.contains_key("const")
        {
            let mut union = Union::default();
            self.gather(schema, true, &mut union);
            return Shape::Union(Rc::new(union));
        }
        self.plain(object)
    }

    fn named(&mut self, reference: &str) -> Shape {
        if let Some(shape) = self.known.get(reference) {
            return shape.clone();
        }
        let target = self.schema.pointer(reference.trim_start_matches('#')).cloned();
        let shape = self.shape(&target.unwrap_or_default());
        self.known.insert(reference.to_owned(), shape.clone());
        shape
    }

    fn plain(&mut self, object: &Map<String, Value>) -> Shape {
        let types = types(object);
        let has = |name: &str| types.iter().any(|written| written == name);
        if has("object") {
            Shape::Map(Rc::new(self.map(object)))
        } else if has("array") {
            let items = object.get("items").map_or_else(free, |items| self.shape(items));
            Shape::List(Rc::new(items))
        } else if has("string") {
            let text = |key: &str| object.get(key).and_then(Value::as_str);
            let format = text("format").map_or(Format::Free, Format::named);
            // Where a format of ours stands, the pattern beside it is for editors.
            let pattern = text("pattern").filter(|_| format == Format::Free).map(str::to_owned);
            Shape::Text { format, pattern, nullable: has("null") }
        } else if has("integer") {
            let bound = |key: &str| object.get(key).and_then(Value::as_i64);
            let (least, largest) = match object.get("format").and_then(Value::as_str) {
                Some("uint32") => (0, u32::MAX.into()),
                Some("int32") => (i32::MIN.into(), i32::MAX.into()),
                Some("uint64") => (0, i64::MAX),
                _ => (i64::MIN, i64::MAX),
            };
            Shape::Integer {
                min: bound("minimum").unwrap_or(least),
                max: bound("maximum").unwrap_or(largest),
            }
        } else if has("number") {
            let bound = |key: &str| object.get(key).and_then(Value::as_f64);
            Shape::Number {
                min: bound("minimum").unwrap_or(f64::MIN),
                max: bound("maximum").unwrap_or(f64::MAX),
            }
        } else if has("boolean") {
            Shape::Bool
        } else {
            free()
        }
    }

    fn map(&mut self, object: &Map<String, Value>) -> MapShape {
        let mut map =
            MapShape { own_keys: object.contains_key("x-own-keys"), ..Default::default() };
        if let Some(Value::Object(keys)) = object.get("properties") {
            for (key, schema) in keys {
                let known = Key { shape: self.shape(schema), supported: supported(schema) };
                map.keys.insert(key.clone(), known);
            }
        }
        if let Some(Value::Array(required)) = object.get("required") {
            map.required = required.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        }
        if let Some(others @ Value::Object(_)) = object.get("additionalProperties") {
            map.others = Some(self.shape(others));
        }
        let names = object.get("propertyNames").and_then(|names| names.get("format"));
        map.names = names.and_then(Value::as_str).map(Format::named);
        map
    }

    /// Sorts the alternatives of a schema into a union, those of nested unions among them.
    fn gather(&mut self, schema: &Value, usable: bool, union: &mut Union) {
        let Some(object) = schema.as_object() else { return };
        let usable = usable && supported(schema);
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            let target = self.schema.pointer(reference.trim_start_matches('#')).cloned();
            return self.gather(&target.unwrap_or_default(), usable, union);
        }
        for branches in ["oneOf", "anyOf"] {
            if let Some(Value::Array(branches)) = object.get(branches) {
                for branch in branches {
                    self.gather(branch, usable, union);
                }
                return;
            }
        }
        let constants = object.get("const").into_iter();
        let words = object.get("enum").and_then(Value::as_array).into_iter().flatten();
        let mut is_word = false;
        for word in constants.chain(words) {
            let word = word.as_str().map_or_else(|| word.to_string(), str::to_owned);
            let also = object.contains_key("x-also");
            union.words.insert(word, Word { supported: usable, also });
            is_word = true;
        }
        if is_word {
            return;
        }
        match self.plain(object) {
            Shape::Map(map) if map.keys.len() == 1 && map.required.len() == 1 => {
                for (tag, key) in &map.keys {
                    let key = Key { shape: key.shape.clone(), supported: usable };
                    union.tagged.insert(tag.clone(), key);
                }
            }
            map @ Shape::Map(_) => union.map = Some(map),
            list @ Shape::List(_) => union.list = Some(list),
            text @ Shape::Text { .. } => union.scalars.push(text),
            narrow => union.scalars.insert(0, narrow),
        }
    }
}

fn free() -> Shape {
    Shape::Text { format: Format::Free, pattern: None, nullable: true }
}

fn supported(schema: &Value) -> bool {
    schema.get("x-supported") != Some(&Value::Bool(false))
}

fn types(object: &Map<String, Value>) -> Vec<String> {
    match object.get("type") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(several)) => {
            several.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{profile_schema, schema};

    /// Words the compiler acts on, and words that only people and editors read.
    #[rustfmt::skip]
    const KNOWN: &[&str] = &[
        "$ref", "additionalProperties", "anyOf", "const", "enum", "format", "items", "maximum",
        "minimum", "oneOf", "pattern", "properties", "propertyNames", "required", "type", "x-also",
        "x-own-keys", "x-supported", // and those that change nothing:
        "$defs", "$schema", "default", "description", "examples", "patternProperties", "title",
    ];

    fn unknown_words(schema: &Value, found: &mut Vec<String>) {
        let Some(object) = schema.as_object() else { return };
        for (word, value) in object {
            if !KNOWN.contains(&word.as_str()) {
                found.push(word.clone());
            }
            match (word.as_str(), value) {
                ("properties" | "$defs", Value::Object(below)) => {
                    below.values().for_each(|schema| unknown_words(schema, found));
                }
                ("oneOf" | "anyOf", Value::Array(branches)) => {
                    for schema in branches {
                        unknown_words(schema, found);
                    }
                }
                ("items" | "additionalProperties" | "propertyNames", schema) => {
                    unknown_words(schema, found);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn every_word_of_our_schemas_is_understood() {
        for schema in [schema(), profile_schema()] {
            let mut found = Vec::new();
            unknown_words(&schema, &mut found);
            assert_eq!(found, Vec::<String>::new());
        }
    }
}
