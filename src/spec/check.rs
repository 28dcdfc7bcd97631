//! A tree against a shape: every mistake with its place, and the value with the types the shape
//! asks for.
//!
//! What is wrong is marked in the tree, so that nobody complains of it a second time and the rest
//! can still be understood. Rules that compare one key with another live in `mean`.

use indexmap::IndexMap;
use serde_json::{Map, Number, Value};

use super::interpolate::interpolate;
use super::mistake::{Found, KEPT, meant_instead};
use super::shape::{Key, MapShape, Shape, Union};
use super::tree::{Entry, Kind, Node, Place};

/// The environment in which `${NAME}` is looked up.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Checks one tree after another.
pub(super) struct Check<'a> {
    /// Where mistakes go.
    pub(super) found: &'a mut Vec<Found>,
    /// Where warnings go.
    pub(super) warnings: &'a mut Vec<Found>,
    /// Where `${NAME}` is looked up; `None` when that has been done already.
    pub(super) environment: Option<Environment<'a>>,
    /// The path of what is being looked at.
    path: Vec<String>,
}

impl<'a> Check<'a> {
    pub(super) fn new(
        found: &'a mut Vec<Found>,
        warnings: &'a mut Vec<Found>,
        environment: Option<Environment<'a>>,
    ) -> Self {
        Self { found, warnings, environment, path: Vec::new() }
    }

    /// The value of `node` in the types of `shape`; `None` when it is wrong.
    pub(super) fn value(&mut self, node: &mut Node, shape: &Shape) -> Option<Value> {
        if matches!(node.kind, Kind::Scalar { .. }) && self.environment.is_some() {
            self.put_values(node);
        }
        let value = match (&mut node.kind, shape) {
            (Kind::Bad, _) => None,
            (Kind::Null, Shape::Text { nullable: true, .. }) => Some(Value::Null),
            (Kind::Map(entries), Shape::Map(map)) => self.map(entries, map, node.place),
            (Kind::List(items), Shape::List(shape)) => Some(self.list(items, shape)),
            (_, Shape::Union(union)) => self.union(node, union),
            (Kind::Scalar { text, quoted }, shape) => {
                let value = scalar(text, *quoted, shape);
                value.map_err(|message| self.complain(node.place, message, None)).ok()
            }
            (kind, shape) => {
                let message = format!("expected {}, found {}", expected(shape), called(kind));
                self.complain(node.place, message, None);
                None
            }
        };
        if value.is_none() {
            node.kind = Kind::Bad;
        }
        value
    }

    fn complain(&mut self, place: Place, message: String, help: Option<String>) {
        let path = path_text(&self.path);
        self.found.push(Found { place: Some(place), path, message, help });
    }

    fn put_values(&mut self, node: &mut Node) {
        let (Kind::Scalar { text, quoted }, Some(environment)) = (&mut node.kind, self.environment)
        else {
            return;
        };
        match interpolate(text, environment) {
            Ok(done) => {
                let left = done.left;
                let done = done.text.into_owned();
                // What a variable holds may be a number even where quotes stand around it.
                *quoted &= done == *text;
                *text = done;
                for expression in left {
                    self.warnings.push(Found {
                        place: Some(node.place),
                        path: path_text(&self.path),
                        message: format!("`{expression}` is left as it stands"),
                        help: Some(
                            "wharf puts in values for ${NAME}, ${NAME:-default} and the like; \
                             write $$ for a $ that is not its"
                                .to_owned(),
                        ),
                    });
                }
            }
            Err(wrong) => {
                node.kind = Kind::Bad;
                for message in wrong {
                    let help = "write ${NAME:-default} to do without, $${NAME} for the text itself";
                    self.complain(node.place, message, Some(help.to_owned()));
                }
            }
        }
    }

    fn list(&mut self, items: &mut [Node], shape: &Shape) -> Value {
        let mut values = Vec::with_capacity(items.len());
        for (at, item) in items.iter_mut().enumerate() {
            self.path.push(format!("[{at}]"));
            values.extend(self.value(item, shape));
            self.path.pop();
        }
        Value::Array(values)
    }

    fn map(&mut self, entries: &mut Vec<Entry>, map: &MapShape, place: Place) -> Option<Value> {
        let mut values = Map::new();
        entries.retain_mut(|entry| {
            if entry.key.starts_with("x-") && !map.own_keys {
                self.own_service(entry, map);
                return false;
            }
            self.path.push(entry.key.clone());
            let kept = self.entry(entry, map, &mut values);
            self.path.pop();
            kept
        });
        let mut whole = true;
        for key in &map.required {
            if !values.contains_key(key) {
                whole = false;
                if !entries.iter().any(|entry| entry.key == *key) {
                    self.complain(place, format!("the key `{key}` is missing"), None);
                }
            }
        }
        whole.then_some(Value::Object(values))
    }

    /// `x-` at the level of names is usually a template with an anchor. Without one it looks like
    /// something that is meant to exist.
    fn own_service(&mut self, entry: &Entry, map: &MapShape) {
        if map.others.is_some() && !entry.value.anchored {
            let path = path_text(&self.path);
            self.warnings.push(Found {
                place: Some(entry.place),
                path,
                message: format!("`{}` is ignored", entry.key),
                help: Some("keys that begin with x- are the user's own".to_owned()),
            });
        }
    }

    /// Whether the entry stays in the tree.
    fn entry(
        &mut self,
        entry: &mut Entry,
        map: &MapShape,
        values: &mut Map<String, Value>,
    ) -> bool {
        let Some(known) = map.keys.get(&entry.key) else {
            let Some(others) = &map.others else {
                self.unknown_key(entry, &map.keys);
                return false;
            };
            if let Some(Err(message)) = map.names.map(|names| names.check(&entry.key)) {
                self.complain(entry.place, message, None);
                return false;
            }
            if let Some(value) = self.value(&mut entry.value, others) {
                values.insert(entry.key.clone(), value);
            }
            return true;
        };
        let value = self.value(&mut entry.value, &known.shape);
        if !known.supported {
            self.not_yet(entry.place, &entry.key);
            entry.value.kind = Kind::Bad;
            return true;
        }
        values.extend(value.map(|value| (entry.key.clone(), value)));
        true
    }

    fn not_yet(&mut self, place: Place, word: &str) {
        self.complain(place, format!("`{word}` is not supported yet"), None);
    }

    fn unknown_key(&mut self, entry: &Entry, known: &IndexMap<String, Key>) {
        let message = format!("unknown key `{}`", entry.key);
        if self.found.len() >= KEPT {
            return self.complain(entry.place, message, None); // it will only be counted
        }
        let near = meant_instead(&entry.key, known.keys().map(String::as_str));
        let help = near.map(|candidate| format!("did you mean `{candidate}`?"));
        let help = help.unwrap_or_else(|| {
            let usable = known.iter().filter(|(_, key)| key.supported);
            let names: Vec<_> = usable.map(|(name, _)| name.as_str()).collect();
            format!("the keys here are {}", names.join(", "))
        });
        self.complain(entry.place, message, Some(help));
    }

    fn union(&mut self, node: &mut Node, union: &Union) -> Option<Value> {
        match &mut node.kind {
            Kind::Map(entries) if !union.tagged.is_empty() && union.map.is_none() => {
                entries.retain(|entry| !entry.key.starts_with("x-"));
                return self.tagged(entries, union, node.place);
            }
            Kind::Map(_) if union.map.is_some() => {
                return union.map.as_ref().and_then(|shape| self.value(node, shape));
            }
            Kind::List(_) if union.list.is_some() => {
                return union.list.as_ref().and_then(|shape| self.value(node, shape));
            }
            Kind::Scalar { text, quoted } => {
                let (text, quoted) = (text.clone(), *quoted);
                return self.alternative(&text, quoted, union, node.place);
            }
            _ => {}
        }
        let expected = expected(&Shape::Union(union.clone().into()));
        let message = format!("expected {expected}, found {}", called(&node.kind));
        self.complain(node.place, message, None);
        None
    }

    fn tagged(&mut self, entries: &mut [Entry], union: &Union, place: Place) -> Option<Value> {
        let [entry] = entries else {
            let message = format!("expected one of the keys {}", listed(tags(union)));
            self.complain(place, message, Some("only one of them at a time".to_owned()));
            return None;
        };
        self.path.push(entry.key.clone());
        let value = match union.tagged.get(&entry.key) {
            Some(Key { shape, supported }) => {
                let value = self.value(&mut entry.value, shape);
                if *supported {
                    value
                } else {
                    self.not_yet(entry.place, &entry.key);
                    None
                }
            }
            None if union.words.contains_key(&entry.key) => {
                let message = format!("`{}` stands alone, without a value", entry.key);
                self.complain(entry.place, message, None);
                None
            }
            None => {
                self.unknown_key(entry, &union.tagged);
                None
            }
        };
        self.path.pop();
        Some(Value::Object(Map::from_iter([(entry.key.clone(), value?)])))
    }

    fn alternative(
        &mut self,
        text: &str,
        quoted: bool,
        union: &Union,
        place: Place,
    ) -> Option<Value> {
        if let Some(word) = union.words.get(text) {
            if word.supported {
                return Some(Value::String(text.to_owned()));
            }
            self.not_yet(place, text);
            return None;
        }
        let mut wrong = None;
        for shape in &union.scalars {
            match scalar(text, quoted, shape) {
                Ok(value) => return Some(value),
                Err(message) => wrong = Some(message),
            }
        }
        if let Some(message) = wrong {
            self.complain(place, message, None);
        } else if union.tagged.contains_key(text) {
            let help = format!("write it as {{ {text}: … }}");
            self.complain(place, format!("`{text}` needs a value"), Some(help));
        } else {
            let expected = expected(&Shape::Union(union.clone().into()));
            let names = union.words.keys().chain(union.tagged.keys()).map(String::as_str);
            let help = meant_instead(text, names).map(|word| format!("did you mean `{word}`?"));
            self.complain(place, format!("expected {expected}, found `{text}`"), help);
        }
        None
    }
}

/// A scalar as `shape` wants it, or what is wrong.
fn scalar(text: &str, quoted: bool, shape: &Shape) -> Result<Value, String> {
    let wrong = || Err(format!("expected {}, found {}", expected(shape), shown(text, quoted)));
    match shape {
        Shape::Text { format, pattern, .. } => {
            format.check(text)?;
            if let Some(pattern) = pattern
                && !super::format::regex(pattern)?.is_match(text.as_bytes())
            {
                return Err(format!("`{text}` does not match {pattern}"));
            }
            Ok(Value::String(text.to_owned()))
        }
        Shape::Integer { min, max } if !quoted => {
            let digits = text.trim_start_matches(['-', '+']);
            if digits.len() > 1 && digits.starts_with('0') && digits.parse::<u64>().is_ok() {
                return Err(format!("`{text}` may be read as octal: leave out the zero in front"));
            }
            match text.parse::<i64>() {
                Ok(number) if (*min..=*max).contains(&number) => Ok(number.into()),
                _ => wrong(),
            }
        }
        Shape::Number { min, max } if !quoted => match text.parse::<f64>() {
            Ok(number) if (*min..=*max).contains(&number) => {
                Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
            }
            _ => wrong(),
        },
        Shape::Bool if !quoted => match text {
            "true" | "True" | "TRUE" => Ok(Value::Bool(true)),
            "false" | "False" | "FALSE" => Ok(Value::Bool(false)),
            _ => wrong(),
        },
        _ => wrong(),
    }
}

fn shown(text: &str, quoted: bool) -> String {
    if quoted { format!("the text \"{text}\"") } else { format!("`{text}`") }
}

fn called(kind: &Kind) -> &'static str {
    match kind {
        Kind::Null => "nothing",
        Kind::Scalar { .. } => "a single value",
        Kind::List(_) => "a list",
        Kind::Map(_) => "a map",
        Kind::Bad => "a mistake",
    }
}

/// What a shape allows, in words.
fn expected(shape: &Shape) -> String {
    match shape {
        Shape::Text { format, .. } => format.expected().to_owned(),
        Shape::Integer { min: i64::MIN, .. } => "a whole number".to_owned(),
        Shape::Integer { min, max: i64::MAX } => format!("a whole number of at least {min}"),
        Shape::Integer { min, max } if min == max => format!("the number {min}"),
        Shape::Integer { min, max } => format!("a whole number from {min} to {max}"),
        Shape::Number { min, max } if *max < f64::MAX => format!("a number from {min} to {max}"),
        Shape::Number { min, .. } if *min > f64::MIN => format!("a number of at least {min}"),
        Shape::Number { .. } => "a number".to_owned(),
        Shape::Bool => "true or false".to_owned(),
        Shape::List(_) => "a list".to_owned(),
        Shape::Map(_) => "a map".to_owned(),
        Shape::Union(union) => {
            let mut parts = Vec::new();
            if !union.words.is_empty() {
                let shown = union.words.iter().filter(|(_, word)| word.supported && !word.also);
                parts.push(listed(shown.map(|(text, _)| text.as_str())));
            }
            if tags(union).next().is_some() {
                parts.push(format!("a map with {}", listed(tags(union))));
            }
            parts.extend(union.scalars.iter().map(expected));
            parts.extend(union.list.iter().map(expected));
            parts.extend(union.map.iter().map(expected));
            parts.join(", or ")
        }
    }
}

fn tags(union: &Union) -> impl Iterator<Item = &str> {
    union.tagged.iter().filter(|(_, key)| key.supported).map(|(tag, _)| tag.as_str())
}

/// `a`, `b` or `c`.
fn listed<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let words: Vec<_> = words.map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        None => "none".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

/// `services.web.command[2]`.
fn path_text(path: &[String]) -> String {
    let mut text = String::new();
    for step in path {
        if !text.is_empty() && !step.starts_with('[') {
            text.push('.');
        }
        text.push_str(step);
    }
    text
}
