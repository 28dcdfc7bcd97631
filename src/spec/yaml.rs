//! Text to tree: one YAML document with anchors, merge keys and a place for everything.
//!
//! The parser's events are read directly, since a deserialiser stops at the first duplicate key
//! and this must find them all. What a file may cost is bounded here: levels, nodes, and the
//! copies that aliases make.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::mistake::{Found, KEPT, Source, line_of};
use super::tree::{Entry, Kind, Node, Place};

/// The most levels of lists and maps.
const MAX_LEVELS: usize = 64;
/// The most values in one file, the copies made by aliases included.
const MAX_NODES: usize = 500_000;

/// Reads file number `file` of `sources`. `None` when it holds nothing or stops being YAML; what
/// is wrong is added to `found`.
pub(crate) fn parse(file: usize, sources: &[Source], found: &mut Vec<Found>) -> Option<Node> {
    let text = sources[file].text.as_str();
    let mut options = granit_parser::options! { block_nesting_limit: MAX_LEVELS };
    options.flow_nesting_limit = MAX_LEVELS;
    options.set_emit_comments(false);
    let builder = Builder {
        file: u32::try_from(file).unwrap_or(u32::MAX),
        sources,
        found,
        open: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        root: None,
        documents: 0,
    };
    builder.run(Parser::new_from_str_with_options(text, options))
}

/// A list or map that is not complete yet.
struct Open {
    place: Place,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, merged: Vec<Node>, key: Option<Key> },
}

struct Key {
    text: String,
    place: Place,
    role: Role,
}

#[derive(PartialEq)]
enum Role {
    /// It names its value.
    Ordinary,
    /// It is the `<<` that takes over another map.
    Merge,
    /// It is no key; the mistake has been told and its value is dropped.
    Wrong,
}

struct Builder<'a> {
    file: u32,
    sources: &'a [Source],
    found: &'a mut Vec<Found>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
    documents: usize,
}

/// The file cannot be read any further; what is wrong has been said.
struct Stop;

impl Builder<'_> {
    fn run<'i>(
        mut self,
        events: impl Iterator<Item = Result<(Event<'i>, Span), ScanError>>,
    ) -> Option<Node> {
        for event in events {
            let step = match event {
                Ok((event, span)) => self.event(event, span),
                Err(error) => Err(self.not_yaml(&error)),
            };
            if let Err(Stop) = step {
                return None;
            }
        }
        self.root
    }

    fn not_yaml(&mut self, error: &ScanError) -> Stop {
        let marker = error.marker();
        let start = marker.byte_offset().unwrap_or(0);
        let place = self.place_at(start, start + 1);
        self.complain(place, &format!("this is not YAML: {}", error.info()));
        Stop
    }

    fn complain(&mut self, place: Place, message: &str) {
        let message = message.to_owned();
        self.found.push(Found { place: Some(place), path: self.path(), message, help: None });
    }

    /// The path of the value that is being read.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match &open.inside {
                Inside::List(items) => {
                    let _ = write!(path, "[{}]", items.len());
                }
                Inside::Map { key: Some(key), .. } => {
                    let dot = if path.is_empty() { "" } else { "." };
                    let _ = write!(path, "{dot}{}", key.text);
                }
                Inside::Map { key: None, .. } => {}
            }
        }
        path
    }

    fn place_at(&self, start: usize, end: usize) -> Place {
        let narrow = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        Place { file: self.file, start: narrow(start), end: narrow(end) }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        let range = span.byte_range().unwrap_or(0..0);
        let place = self.place_at(range.start, range.end);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.complain(place, "a second document begins here; only one is read");
                    return Err(Stop);
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let as_text = self.tagged_as_text(tag.as_deref(), &span);
                let quoted = as_text || style != ScalarStyle::Plain;
                let null = matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let kind = if null && !quoted {
                    Kind::Null
                } else {
                    Kind::Scalar { text: text.into_owned(), quoted }
                };
                self.complete(Node::new(place, kind), anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.tagged_as_text(tag.as_deref(), &span);
                self.descend(place, anchor, Inside::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.tagged_as_text(tag.as_deref(), &span);
                let inside = Inside::Map { entries: Vec::new(), merged: Vec::new(), key: None };
                self.descend(place, anchor, inside)
            }
            Event::SequenceEnd | Event::MappingEnd => self.ascend(range.end),
            Event::Alias(anchor) => self.alias(anchor, place),
            _ => Ok(()),
        }
    }

    /// Whether a tag says that a scalar is text. Tags of the user's own mean nothing here.
    fn tagged_as_text(&mut self, tag: Option<&Tag>, span: &Span) -> bool {
        let Some(tag) = tag else { return false };
        let range = span.tag_span().unwrap_or(*span).byte_range().unwrap_or(0..0);
        let place = self.place_at(range.start, range.end);
        if !tag.is_yaml_core_schema() && tag.original() != "!" {
            let message = format!("the tag `{}` means nothing here", tag.original());
            self.complain(place, &message);
        }
        tag.original() == "!" || tag.is_yaml_core_schema_tag("str")
    }

    fn descend(&mut self, place: Place, anchor: usize, inside: Inside) -> Result<(), Stop> {
        if self.open.len() >= MAX_LEVELS {
            self.complain(place, &format!("more than {MAX_LEVELS} levels of lists and maps"));
            return Err(Stop);
        }
        self.open.push(Open { place, anchor, inside });
        Ok(())
    }

    fn ascend(&mut self, end: usize) -> Result<(), Stop> {
        let Some(Open { mut place, anchor, inside }) = self.open.pop() else { return Ok(()) };
        place.end = u32::try_from(end).unwrap_or(u32::MAX).max(place.start);
        let kind = match inside {
            Inside::List(items) => Kind::List(items),
            Inside::Map { entries, merged, .. } => Kind::Map(self.map(entries, merged)),
        };
        self.complete(Node::new(place, kind), anchor)
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Result<(), Stop> {
        let Some(target) = self.anchors.get(&anchor) else {
            self.complain(place, "this alias stands inside the value it refers to");
            return Err(Stop);
        };
        if self.open.len() + target.height() > MAX_LEVELS {
            self.complain(place, &format!("more than {MAX_LEVELS} levels of lists and maps"));
            return Err(Stop);
        }
        self.nodes += target.count();
        let mut copy = target.clone();
        copy.anchored = false;
        self.complete(copy, 0)
    }

    /// A value is complete: it becomes the root, an item, a key or the value of one.
    fn complete(&mut self, mut node: Node, anchor: usize) -> Result<(), Stop> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            self.complain(node.place, &format!("more than {MAX_NODES} values in one file"));
            return Err(Stop);
        }
        if anchor != 0 {
            node.anchored = true;
            self.nodes += node.count();
            self.anchors.insert(anchor, node.clone());
        }
        let is_key = match self.open.last_mut().map(|open| &mut open.inside) {
            None => {
                self.root = Some(node);
                return Ok(());
            }
            Some(Inside::List(items)) => {
                items.push(node);
                return Ok(());
            }
            Some(Inside::Map { entries, merged, key }) => match key.take() {
                Some(Key { role: Role::Wrong, .. }) => return Ok(()),
                Some(Key { role: Role::Merge, .. }) => {
                    merged.push(node);
                    return Ok(());
                }
                Some(Key { text, place, .. }) => {
                    entries.push(Entry { key: text, place, value: node });
                    return Ok(());
                }
                None => node,
            },
        };
        let read = self.key(is_key);
        if let Some(Open { inside: Inside::Map { key, .. }, .. }) = self.open.last_mut() {
            *key = Some(read);
        }
        Ok(())
    }

    fn key(&mut self, node: Node) -> Key {
        let place = node.place;
        let (text, role) = match node.kind {
            Kind::Scalar { text, quoted: false } if text == "<<" => (text, Role::Merge),
            Kind::Scalar { text, .. } => (text, Role::Ordinary),
            Kind::Null => ("null".to_owned(), Role::Ordinary),
            Kind::List(_) | Kind::Map(_) | Kind::Bad => {
                self.complain(place, "a key is a word, not a list or a map");
                (String::new(), Role::Wrong)
            }
        };
        Key { text, place, role }
    }

    /// The entries of a map: each key once, then what `<<` adds.
    fn map(&mut self, written: Vec<Entry>, merged: Vec<Node>) -> Vec<Entry> {
        let mut seen: HashMap<String, Place> = HashMap::with_capacity(written.len());
        let mut entries = Vec::with_capacity(written.len());
        for entry in written {
            match seen.get(&entry.key) {
                None => {
                    seen.insert(entry.key.clone(), entry.place);
                    entries.push(entry);
                }
                Some(first) => {
                    // Lines are counted from the start; not for a file of nothing but mistakes.
                    let help = (self.found.len() < KEPT).then(|| {
                        format!("it is first written in line {}", line_of(*first, self.sources))
                    });
                    let path = self.path();
                    let dot = if path.is_empty() { "" } else { "." };
                    self.found.push(Found {
                        place: Some(entry.place),
                        path: format!("{path}{dot}{}", entry.key),
                        message: format!("the key `{}` is written twice in this map", entry.key),
                        help,
                    });
                }
            }
        }
        let mut known: HashSet<String> = seen.into_keys().collect();
        for source in merged {
            let place = source.place;
            let maps = match source.kind {
                Kind::List(items) => items,
                kind => vec![Node::new(place, kind)],
            };
            for map in maps {
                let Kind::Map(more) = map.kind else {
                    self.complain(map.place, "`<<` takes over a map or a list of maps");
                    continue;
                };
                entries.extend(more.into_iter().filter(|entry| known.insert(entry.key.clone())));
            }
        }
        entries
    }
}
