//! Several files, `defaults:` and profiles laid over one another, by the rules of docker-compose:
//! maps merge, lists and single values are replaced by what lies above.
//!
//! Three things are short for a map and are spelled out first, so that it does not matter which way
//! they are written: `restart: always`, a list of `NAME=value` and one of dependencies.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::tree::{Entry, Kind, Node};

/// Which keys of a map are merged in a way of their own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rule {
    /// A whole services.yaml.
    File,
    /// Services by name.
    Services,
    /// A service, or the defaults of all.
    Service,
    /// A `port:` block.
    Port,
    /// A `restart:` block.
    Restart,
    /// Maps merge all the way down.
    Deep,
    /// It is one of several things and is replaced as a whole.
    Whole,
}

impl Rule {
    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::File, "services") => Self::Services,
            (Self::File, "defaults") | (Self::Services, _) => Self::Service,
            (Self::Service, "port") => Self::Port,
            (Self::Service, "restart") => Self::Restart,
            (Self::Port, "framing" | "replies")
            | (Self::Restart, "on_give_up")
            | (Self::File | Self::Service, "on_event")
            | (Self::Whole, _) => Self::Whole,
            (Self::File | Self::Service | Self::Port | Self::Restart | Self::Deep, _) => Self::Deep,
        }
    }
}

/// Lays `over` on `base`.
pub(crate) fn merge(base: &mut Node, over: Node, rule: Rule) {
    let replace = matches!(rule, Rule::Whole);
    match (&mut base.kind, over.kind) {
        (Kind::Map(below), Kind::Map(above)) if !replace => {
            // Services can be thousands, so they are not searched for one by one.
            let known: HashMap<String, usize> =
                below.iter().enumerate().map(|(at, entry)| (entry.key.clone(), at)).collect();
            for entry in above {
                match known.get(&entry.key) {
                    Some(&at) => {
                        let under = &mut below[at];
                        under.place = entry.place;
                        merge(&mut under.value, entry.value, rule.below(&entry.key));
                    }
                    None => below.push(entry),
                }
            }
            base.place = over.place;
        }
        (_, kind) => *base = Node { place: over.place, kind, anchored: over.anchored },
    }
}

/// Spells out what is short for a map, in a service, the defaults or a profile.
pub(super) fn spell_out(service: &mut Node) {
    if let Some(restart) = service.get_mut("restart")
        && matches!(restart.kind, Kind::Scalar { .. })
    {
        let place = restart.place;
        let policy = std::mem::replace(restart, Node::new(place, Kind::Bad));
        let entry = Entry { key: "policy".to_owned(), place, value: policy };
        restart.kind = Kind::Map(vec![entry]);
    }
    if let Some(needed) = service.get_mut("depends_on")
        && let Kind::List(items) = &mut needed.kind
    {
        let mut entries: IndexMap<String, Entry> = IndexMap::new();
        for item in std::mem::take(items) {
            let Some(key) = item.text().map(str::to_owned) else { continue };
            let kind = Kind::Scalar { text: "service_started".to_owned(), quoted: false };
            let value = Node::new(item.place, kind);
            entries.entry(key.clone()).or_insert(Entry { key, place: item.place, value });
        }
        needed.kind = Kind::Map(entries.into_values().collect());
    }
    if let Some(environment) = service.get_mut("environment")
        && let Kind::List(items) = &mut environment.kind
    {
        let mut entries: IndexMap<String, Entry> = IndexMap::new();
        for item in std::mem::take(items) {
            let Some(text) = item.text() else { continue };
            let (key, kind) = match text.split_once('=') {
                Some((key, value)) => (key, Kind::Scalar { text: value.to_owned(), quoted: true }),
                None => (text, Kind::Null),
            };
            let entry = Entry {
                key: key.to_owned(),
                place: item.place,
                value: Node::new(item.place, kind),
            };
            // As in a shell, and as docker-compose has it, the last of two counts.
            entries.insert(entry.key.clone(), entry);
        }
        environment.kind = Kind::Map(entries.into_values().collect());
    }
}
