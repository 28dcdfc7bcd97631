//! What a new configuration changes, service by service.
//!
//! The difference is taken between the serialised forms, so that a field which is added later
//! cannot be forgotten: until [`LIVE`] says otherwise, a change of it restarts the service.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Contents, Digest, Port, Service, SignalName, Spec};
use crate::name::ServiceName;

/// Fields that take effect without touching a running process, and why each can. A field counts
/// with everything below it.
const LIVE: &[(&str, &str)] = &[
    ("depends_on", "it is asked at the next start"),
    ("healthcheck", "the next question is another one"),
    ("labels", "words for people; no process sees them"),
    ("logging", "the log files belong to the manager"),
    ("max_lifetime", "it is asked of what runs as well"),
    ("max_memory", "it is asked at the next look"),
    ("on_event", "the commands are the manager's, for what happens next"),
    ("port.timeout", "a deadline of the manager's, for the next call"),
    ("profiles", "they are asked at the next `up`"),
    ("reload_signal", "it is sent at the next reload that finds a file changed"),
    ("ready.interval", "it is asked at the next start"),
    ("ready.timeout", "it is asked at the next start"),
    ("replicas", "replicas are added or stopped; the others run on"),
    ("restart", "it is asked when something ends"),
    ("schedule", "the clock is the manager's; a run goes on"),
    ("start_timeout", "it is asked at the next start"),
    ("stop", "it is asked at the next stop"),
];

/// Parts of a configuration that are no property of its services.
const NOT_OF_SERVICES: &[&str] = &["files", "services", "metrics", "on_event", "groups"];

/// Those of them that are the manager's own: a change takes effect at once and touches no process.
const OF_THE_MANAGER: &[&str] = &["groups", "metrics", "on_event"];

/// What becomes of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct Change {
    /// The service.
    #[cfg_attr(feature = "daemon", schemars(with = "String"))]
    pub service: ServiceName,
    /// What becomes of it.
    #[serde(flatten)]
    pub kind: ChangeKind,
}

/// What becomes of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum ChangeKind {
    /// Nothing.
    Unchanged,
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another than before.
    Changed {
        /// What differs, as dotted paths, sorted; a file that a program reads is `config_files[PATH]`.
        fields: Vec<String>,
        /// What that takes.
        effect: Effect,
        /// The signal that is sent, where one is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "daemon", schemars(with = "Option<String>"))]
        signal: Option<SignalName>,
    },
}

/// What it takes for a change to be in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Running processes are left alone.
    Live,
    /// Running processes run on, and are told by a signal to read their files again.
    Signal,
    /// Running processes are replaced.
    Restart,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.service)?;
        match &self.kind {
            ChangeKind::Unchanged => f.write_str("unchanged"),
            ChangeKind::Added => f.write_str("added"),
            ChangeKind::Removed => f.write_str("removed"),
            ChangeKind::Changed { fields, effect, signal } => {
                match (effect, signal) {
                    (Effect::Live, _) => f.write_str("live")?,
                    (Effect::Signal, Some(signal)) => write!(f, "signal {}", signal.0)?,
                    (Effect::Signal, None) => f.write_str("signal")?,
                    (Effect::Restart, _) => f.write_str("restart")?,
                }
                write!(f, " ({})", fields.join(", "))
            }
        }
    }
}

/// What `new` changes: its services in order, then those that only `old` has.
pub fn diff(old: &Spec, new: &Spec) -> Vec<Change> {
    let of_all = differing_parts(&around(old), &around(new));
    let mut changes: Vec<Change> = new
        .services
        .iter()
        .map(|(name, service)| {
            let kind = match old.services.get(name) {
                None => ChangeKind::Added,
                Some(before) => weighed(of_all.clone(), before, service),
            };
            Change { service: name.clone(), kind }
        })
        .collect();
    let gone = old.services.keys().filter(|name| !new.services.contains_key(*name));
    changes.extend(gone.map(|name| Change { service: name.clone(), kind: ChangeKind::Removed }));
    changes
}

/// A number that is the same for two configurations of a service between which no run has to make room
/// for another (FNV-1a of everything that is not live; what its files hold is [`contents_number`]'s).
pub fn fingerprint(service: &Service) -> u64 {
    let mut value = without_files(service);
    // A key that a later version brings and nobody has written changes nothing.
    drop_usual(&mut value, &without_files(&Service::new(service.name.clone())));
    if let (Some(port), Some(at)) = (&service.port, value.get_mut("port")) {
        let usual = Port { framing: port.framing.clone(), ..Port::default() };
        drop_usual(at, &serialised(&usual));
        at["framing"] = serialised(&port.framing);
    }
    for (field, _) in LIVE {
        let (outer, inner) = field.split_once('.').unwrap_or((field, ""));
        match (&mut value, inner) {
            (Value::Object(map), "") => drop(map.remove(outer)),
            (Value::Object(map), inner) => {
                if let Some(Value::Object(map)) = map.get_mut(outer) {
                    map.remove(inner);
                }
            }
            _ => {}
        }
    }
    number(&value)
}

/// A number that is the same as long as what stands in the files that a service reads is; never 0.
pub fn contents_number(service: &Service) -> u64 {
    number(&serialised(&service.config_files)).max(1)
}

fn number(value: &Value) -> u64 {
    let mut parts = Vec::new();
    flatten(value, "", &mut parts);
    parts.sort();
    let mut digest = Digest::default();
    digest.add(parts.concat().as_bytes());
    digest.number()
}

/// The files of which both configurations of a service speak and in which something else stands: those
/// of a folder one by one.
pub fn changed_files(old: &Service, new: &Service) -> Vec<String> {
    let mut files = Vec::new();
    for (path, after) in &new.config_files {
        let before = old.config_files.get(path).filter(|before| *before != after);
        let Some(before) = before else { continue };
        match (before, after) {
            (Contents::Folder(before), Contents::Folder(after)) => {
                let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
                let other = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
                files.extend(other.map(|name| path.join(name).display().to_string()));
            }
            (Contents::File(_) | Contents::Folder(_), _) => files.push(path.display().to_string()),
        }
    }
    files
}

/// Takes out of a map, and of the maps in it, what is as usual.
fn drop_usual(value: &mut Value, usual: &Value) {
    let (Value::Object(map), Value::Object(usual)) = (value, usual) else { return };
    map.retain(|key, value| usual.get(key) != Some(&*value));
    for (key, value) in map {
        if let Some(usual) = usual.get(key) {
            drop_usual(value, usual);
        }
    }
}

/// The leaves of a value, each with its path, in no order.
fn flatten(value: &Value, path: &str, parts: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                flatten(value, &format!("{path}/{key}"), parts);
            }
        }
        other => parts.push(format!("{path}={other}\n")),
    }
}

/// What `new` changes that is the manager's own, as dotted paths; no service takes part in it.
pub fn differing_around(old: &Spec, new: &Spec) -> Vec<String> {
    let own = |spec: &Spec| {
        let mut value = without_services(spec);
        if let Value::Object(map) = &mut value {
            map.retain(|key, _| OF_THE_MANAGER.contains(&key.as_str()));
        }
        value
    };
    let mut fields = differing_parts(&own(old), &own(new));
    fields.sort();
    fields
}

/// What it takes to go from one configuration of a service to another; `None` where they are the
/// same.
pub fn effect(old: &Service, new: &Service) -> Option<Effect> {
    if old == new {
        return None;
    }
    match weighed(Vec::new(), old, new) {
        ChangeKind::Changed { effect, .. } => Some(effect),
        ChangeKind::Unchanged | ChangeKind::Added | ChangeKind::Removed => None,
    }
}

/// What it takes to go from one service to another; `fields` is what differs around them.
fn weighed(mut fields: Vec<String>, old: &Service, new: &Service) -> ChangeKind {
    fields.extend(differing_parts(&without_files(old), &without_files(new)));
    let mut effect = Effect::Live;
    if !fields.iter().all(|field| is_live(field)) {
        effect = Effect::Restart;
    }
    let changed = changed_files(old, new);
    if !changed.is_empty() && effect == Effect::Live {
        // Who cannot be told reads its files when it starts.
        effect = if new.reload_signal.is_some() { Effect::Signal } else { Effect::Restart };
    }
    // That a file counts from now on, or counts no more, is no news for the program.
    let only = |one: &Service, other: &Service| -> Vec<String> {
        let paths = one.config_files.keys().filter(|path| !other.config_files.contains_key(*path));
        paths.map(|path| path.display().to_string()).collect()
    };
    let files = [changed, only(old, new), only(new, old)].concat();
    fields.extend(files.iter().map(|file| format!("config_files[{file}]")));
    fields.sort();
    if fields.is_empty() {
        return ChangeKind::Unchanged;
    }
    let signal = new.reload_signal.filter(|_| effect == Effect::Signal);
    ChangeKind::Changed { fields, effect, signal }
}

/// A service without the files that it reads, of which is told in another way.
fn without_files(service: &Service) -> Value {
    let mut value = serialised(service);
    if let Value::Object(map) = &mut value {
        map.remove("config_files");
    }
    value
}

fn is_live(field: &str) -> bool {
    LIVE.iter().any(|(live, _)| {
        field.strip_prefix(live).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// What a configuration says of all its services alike.
fn around(spec: &Spec) -> Value {
    let mut value = without_services(spec);
    if let Value::Object(map) = &mut value {
        for key in NOT_OF_SERVICES {
            map.remove(*key);
        }
    }
    value
}

fn without_services(spec: &Spec) -> Value {
    serialised(&Spec { services: indexmap::IndexMap::new(), ..spec.clone() })
}

fn serialised(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("a configuration consists of maps with text keys")
}

fn differing_parts(old: &Value, new: &Value) -> Vec<String> {
    let mut fields = Vec::new();
    walk(old, new, "", &mut fields);
    fields
}

fn walk(old: &Value, new: &Value, path: &str, fields: &mut Vec<String>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(before), Value::Object(after)) => {
            for key in keys(before, after) {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let part = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                match (before.get(key), after.get(key)) {
                    (Some(old), Some(new)) => walk(old, new, &below, fields),
                    _ => walk(&part(before), &part(after), &below, fields),
                }
            }
        }
        _ => fields.push(path.to_owned()),
    }
}

fn keys<'m>(
    before: &'m Map<String, Value>,
    after: &'m Map<String, Value>,
) -> impl Iterator<Item = &'m String> {
    before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)))
}
