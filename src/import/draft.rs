//! A service while it is being imported: its keys so far, where each came from, and what is missing.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::loss::Weight;
use super::table::{Row, told};
use crate::spec::Place;

/// A key of the file that is read, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    /// The key as the file writes it.
    pub(super) key: String,
    /// Where.
    pub(super) place: Place,
}

impl Origin {
    pub(super) fn new(key: impl Into<String>, place: Place) -> Self {
        Self { key: key.into(), place }
    }
}

/// A loss whose line has not been counted yet.
#[derive(Debug, Clone)]
pub(super) struct Missing {
    pub(super) weight: Weight,
    pub(super) origin: Origin,
    pub(super) why: String,
    pub(super) instead: String,
}

/// A service of services.yaml in the making. Texts in it are as they will be written: a `$` of the
/// old file is `$$` already.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    /// Its name, which is good and not taken.
    pub(super) name: String,
    /// Words about it, for the comment above.
    pub(super) about: Vec<String>,
    /// Its keys.
    pub(super) keys: Map<String, Value>,
    /// Whether it is kept from being started.
    pub(super) held: bool,
    /// Where it begins.
    pub(super) place: Place,
    /// Which keys came from where, by their dotted paths.
    pub(super) origins: BTreeMap<String, Origin>,
    /// What is missing.
    pub(super) missing: Vec<Missing>,
}

impl Draft {
    pub(super) fn new(name: String, place: Place) -> Self {
        Self {
            name,
            about: Vec::new(),
            keys: Map::new(),
            held: false,
            place,
            origins: BTreeMap::new(),
            missing: Vec::new(),
        }
    }

    /// Sets the key with this dotted path.
    pub(super) fn put(&mut self, path: &str, value: impl Into<Value>, from: &Origin) {
        self.origins.insert(path.to_owned(), from.clone());
        put(&mut self.keys, path, value.into());
    }

    /// Sets an environment variable. Its name may hold dots.
    pub(super) fn variable(&mut self, name: &str, value: impl Into<Value>) {
        let map = self.keys.entry("environment").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(map) = map {
            map.insert(name.to_owned(), value.into());
        }
    }

    /// Whether an environment variable is set.
    pub(super) fn has_variable(&self, name: &str) -> bool {
        self.keys.get("environment").is_some_and(|map| map.get(name).is_some())
    }

    /// The value with this dotted path.
    pub(super) fn get(&self, path: &str) -> Option<&Value> {
        let mut steps = path.split('.');
        let first = self.keys.get(steps.next()?)?;
        steps.try_fold(first, |value, step| value.get(step))
    }

    /// Says that something asked for will not happen.
    pub(super) fn lose(
        &mut self,
        from: &Origin,
        why: impl Into<String>,
        instead: impl Into<String>,
    ) {
        self.tell(Weight::Loss, from, why, instead);
    }

    /// Says that something is done in another way.
    pub(super) fn note(&mut self, from: &Origin, why: impl Into<String>) {
        self.tell(Weight::Note, from, why, "");
    }

    /// Says what the format's table says of a key.
    pub(super) fn lose_by(&mut self, table: &[Row], from: &Origin) {
        let (weight, why, instead) = told(table, &from.key);
        self.tell(weight, from, why, instead);
    }

    pub(super) fn tell(
        &mut self,
        weight: Weight,
        from: &Origin,
        why: impl Into<String>,
        instead: impl Into<String>,
    ) {
        let (why, instead) = (why.into(), instead.into());
        self.missing.push(Missing { weight, origin: from.clone(), why, instead });
    }

    /// Keeps the service from being started, and says why.
    pub(super) fn hold(&mut self, from: &Origin, why: impl Into<String>) {
        self.held = true;
        self.tell(Weight::Loss, from, why, "it is kept with `replicas: 0`; write 1 to run it");
    }
}

/// Sets the key with this dotted path in a map.
pub(super) fn put(map: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            map.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let below = map.entry(first).or_insert_with(|| Value::Object(Map::new()));
            if !below.is_object() {
                *below = Value::Object(Map::new());
            }
            if let Value::Object(below) = below {
                put(below, rest, value);
            }
        }
    }
}
