//! Every key of services.yaml with its kind, default and meaning, read from the schema: what the manual
//! page and the guide are made of, so that neither can say something else than the checker does.
//!
//! Nothing is checked here and no text is laid out.

use serde_json::Value;

use super::schema::schema;

/// One key, wherever it may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The way to it from the top of the file: `services.NAME.restart.delay`; `NAME` stands for a name
    /// of the user's, `[]` for an element of a list.
    pub path: String,
    /// What kind of value it takes, with its unit and bounds: `duration`, `integer, 1 to 1000`.
    pub kind: String,
    /// The value where it is left out, as JSON; `None` where that means off, empty or as the text says.
    pub default: Option<String>,
    /// What it means, in whole sentences, on one line.
    pub meaning: String,
    /// Whether it works. What does not is refused by name.
    pub supported: bool,
    /// The words it may be, where there are such.
    pub words: Vec<Word>,
}

/// One of the words that a key may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// As it is written.
    pub word: String,
    /// What it means, on one line.
    pub meaning: String,
    /// Whether it works.
    pub supported: bool,
}

/// Every key, in the order of the schema. `defaults` takes what a service takes and is not repeated.
pub fn keys() -> Vec<Key> {
    let schema = schema();
    let mut walk = Walk { schema: &schema, found: Vec::new() };
    walk.keys_of(&schema, "", true);
    walk.found
}

struct Walk<'a> {
    schema: &'a Value,
    found: Vec<Key>,
}

impl<'a> Walk<'a> {
    /// A schema with what it refers to.
    fn meant(&self, schema: &'a Value) -> &'a Value {
        let reference = schema.get("$ref").and_then(Value::as_str);
        let target = reference.and_then(|path| self.schema.pointer(path.trim_start_matches('#')));
        target.unwrap_or(schema)
    }

    /// The ways in which a value may be written: itself, or its alternatives.
    fn ways(&self, schema: &'a Value) -> Vec<&'a Value> {
        let meant = self.meant(schema);
        let of = |word| meant.get(word).and_then(Value::as_array);
        match of("anyOf").or_else(|| of("oneOf")) {
            Some(ways) => ways.iter().flat_map(|way| self.under(way)).collect(),
            None => vec![meant],
        }
    }

    /// The ways of one alternative; its own description and support come with those that are inline.
    fn under(&self, way: &'a Value) -> Vec<&'a Value> {
        if way.get("$ref").is_some() { self.ways(way) } else { vec![way] }
    }

    fn keys_of(&mut self, schema: &'a Value, path: &str, supported: bool) {
        for way in self.ways(schema) {
            let works = supported && supports(way);
            if let Some(Value::Object(keys)) = way.get("properties") {
                for (name, key) in keys {
                    self.key(name, key, way, path, works);
                }
            }
            if let Some(elements) = way.get("items") {
                self.keys_of(elements, &format!("{path}[]"), works);
            }
            let own = way.get("x-own-keys").is_some();
            if let Some(values @ Value::Object(_)) = way.get("additionalProperties")
                && !own
            {
                self.keys_of(values, &format!("{path}.NAME"), works);
            }
        }
    }

    fn key(&mut self, name: &str, key: &'a Value, of: &'a Value, path: &str, supported: bool) {
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let supported = supported && supports(key);
        // The only key of an alternative, such as `until`, is explained where the alternative is.
        let meaning = one_line(key).or_else(|| one_line(of)).unwrap_or_default();
        self.found.push(Key {
            kind: self.kind(key),
            default: key.get("default").map(default_text),
            meaning,
            supported,
            words: self.words(key),
            path: path.clone(),
        });
        if path != "defaults" {
            self.keys_of(key, &path, supported);
        }
    }

    /// The kinds of a value, each told once.
    fn kind(&self, schema: &'a Value) -> String {
        let mut kinds: Vec<String> = Vec::new();
        for way in self.ways(schema) {
            let kind = self.kind_of(way);
            if !kind.is_empty() && !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds.join(", or ")
    }

    fn kind_of(&self, way: &'a Value) -> String {
        if way.get("const").is_some() || way.get("enum").is_some() {
            return "word".to_owned();
        }
        if let Some(elements) = way.get("items") {
            return format!("list of {}", several(&self.kind(elements)));
        }
        let format = way.get("format").and_then(Value::as_str).unwrap_or_default();
        if let Some((_, told)) = FORMATS.iter().find(|(known, _)| *known == format) {
            return (*told).to_owned();
        }
        match way.get("type") {
            Some(Value::String(name)) if name == "integer" || name == "number" => bounds(name, way),
            Some(Value::String(name)) if name == "boolean" => "true or false".to_owned(),
            Some(Value::String(name)) if name == "object" => self.kind_of_map(way),
            Some(_) => "text".to_owned(),
            None => String::new(),
        }
    }

    fn kind_of_map(&self, way: &'a Value) -> String {
        let values = way.get("additionalProperties").filter(|values| values.is_object());
        match values {
            Some(values) if way.get("x-own-keys").is_some() => {
                format!("map of names to {}", several(&self.kind(values)))
            }
            Some(_) => "map by name".to_owned(),
            None => "map".to_owned(),
        }
    }

    fn words(&self, schema: &'a Value) -> Vec<Word> {
        let mut found: Vec<Word> = Vec::new();
        for way in self.ways(schema) {
            let elements = way.get("items").map(|elements| self.ways(elements));
            for way in elements.unwrap_or_else(|| vec![way]) {
                found.extend(words_of(way));
            }
        }
        // A map with a single key is no choice where it is the only way.
        if found.len() == 1 && found.iter().all(|word| word.word.starts_with('{')) {
            found.clear();
        }
        found
    }
}

/// What the formats of the schema are called by people.
const FORMATS: &[(&str, &str)] = &[
    ("wharf-cron", "cron expression"),
    ("wharf-duration", "duration"),
    ("wharf-env-entry", "NAME=value"),
    ("wharf-name", "name"),
    ("wharf-octal", "octal number"),
    ("wharf-regex", "regular expression"),
    ("wharf-signal", "signal"),
    ("wharf-size", "size"),
    ("wharf-size-or-unlimited", "size or `unlimited`"),
    ("wharf-user", "user"),
];

fn supports(schema: &Value) -> bool {
    schema.get("x-supported") != Some(&Value::Bool(false))
}

/// Second spellings of the same word are left out.
fn words_of(way: &Value) -> Vec<Word> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if let Some(Value::Array(words)) = way.get("enum") {
        let plain = |word| Word { word: text(word), meaning: String::new(), supported: true };
        return words.iter().map(plain).collect();
    }
    let shape = way.get("properties").and_then(Value::as_object);
    let only = shape.filter(|keys| keys.len() == 1).and_then(|keys| keys.keys().next());
    let word = match (way.get("const"), only) {
        (Some(word), _) if way.get("x-also").is_none() => text(word),
        (None, Some(key)) if way.get("required").is_some() => format!("{{ {key}: … }}"),
        _ => return Vec::new(),
    };
    let meaning = one_line(way).unwrap_or_default();
    vec![Word { word, meaning, supported: supports(way) }]
}

fn one_line(schema: &Value) -> Option<String> {
    let text = schema.get("description")?.as_str()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn default_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(default_text).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn bounds(name: &str, way: &Value) -> String {
    match (way.get("minimum"), way.get("maximum")) {
        (Some(least), Some(most)) if least == most => format!("the {name} {least}"),
        (Some(least), Some(most)) => format!("{name}, {least} to {most}"),
        (Some(least), None) => format!("{name}, {least} or more"),
        (None, Some(most)) => format!("{name}, at most {most}"),
        (None, None) => name.to_owned(),
    }
}

fn several(kind: &str) -> String {
    match kind {
        "" | "map" => "maps".to_owned(),
        "text" => "texts".to_owned(),
        other if other.contains([' ', ',', '=']) => other.to_owned(),
        other => format!("{other}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> Key {
        keys().into_iter().find(|key| key.path == path).expect(path)
    }

    #[test]
    fn keys_are_told_with_kind_default_and_meaning() {
        for (path, kind, default) in [
            ("version", "the integer 1", None),
            ("services.NAME.command", "list of texts, or text", None),
            ("services.NAME.start_timeout", "duration", Some("1m")),
            ("services.NAME.restart.factor", "number, 1 to 1000", Some("2.0")),
            ("services.NAME.restart.success_exit_codes", "list of integer, 0 to 255", Some("[0]")),
            ("services.NAME.restart.on_give_up.retry_every", "duration", None),
            ("services.NAME.port.framing.counted.header", "regular expression", None),
            ("services.NAME.labels", "map of names to texts", None),
            ("services.NAME.secrets[].file", "text", None),
            ("services.NAME.depends_on.NAME.condition", "word", Some("service_started")),
            ("metrics.listen", "text", None),
        ] {
            let key = key(path);
            assert_eq!((key.kind.as_str(), key.default.as_deref()), (kind, default), "{path}");
        }
    }

    #[test]
    fn every_key_means_something_and_stands_once() {
        let mut seen = std::collections::BTreeSet::new();
        for key in keys() {
            assert!(!key.meaning.is_empty() && !key.meaning.contains('\n'), "{}", key.path);
            assert!(!key.kind.is_empty(), "{}", key.path);
            assert!(seen.insert(key.path.clone()), "{} twice", key.path);
        }
        assert!(seen.len() > 100, "{}", seen.len());
    }

    #[test]
    fn what_does_not_work_yet_is_marked_with_all_below_it() {
        let policy = key("services.NAME.restart.policy");
        let words: Vec<_> = policy.words.iter().map(|word| word.word.as_str()).collect();
        assert_eq!(words, ["no", "always", "on-failure", "unless-stopped"]);
        let give_up = key("services.NAME.restart.on_give_up");
        let words: Vec<_> =
            give_up.words.iter().map(|word| (word.word.as_str(), word.supported)).collect();
        assert_eq!(words, [("stop", true), ("escalate", true), ("{ retry_every: … }", true)]);
        assert!(!key("cluster.name").supported && key("services.NAME.replicas").supported);
    }
}
