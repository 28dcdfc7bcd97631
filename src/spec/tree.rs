//! A YAML document as a tree in which every key and value knows its place.
//!
//! The tree lives while a configuration is loaded and is dropped after it. It knows nothing of
//! what the keys mean.

/// A stretch of one of the files that are read, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// The index of the file among all that are read.
    pub(crate) file: u32,
    /// Where it begins.
    pub(crate) start: u32,
    /// Where it ends.
    pub(crate) end: u32,
}

/// A value.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Where it is written.
    pub(crate) place: Place,
    /// What it is.
    pub(crate) kind: Kind,
    /// Whether an anchor makes it usable elsewhere.
    pub(crate) anchored: bool,
}

/// What a value is. Whether a scalar is a number is decided by what is expected in its place.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar as it was written.
    Scalar {
        /// Its text.
        text: String,
        /// Whether quotes say that it is text and no number.
        quoted: bool,
    },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order written, without duplicate keys.
    Map(Vec<Entry>),
    /// Something about which a mistake has been reported; nobody complains of it again.
    Bad,
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: String,
    /// Where the key is written.
    pub(crate) place: Place,
    /// The value.
    pub(crate) value: Node,
}

impl Node {
    /// A node without an anchor.
    pub(crate) fn new(place: Place, kind: Kind) -> Self {
        Self { place, kind, anchored: false }
    }

    /// The entries of a map; none for anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        if let Kind::Map(entries) = &self.kind { entries } else { &[] }
    }

    /// The entry with this key.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The value with this key.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The value with this key, to be changed.
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        match &mut self.kind {
            Kind::Map(entries) => {
                entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
            }
            _ => None,
        }
    }

    /// Takes the entry with this key out.
    pub(crate) fn take(&mut self, key: &str) -> Option<Entry> {
        match &mut self.kind {
            Kind::Map(entries) => {
                let at = entries.iter().position(|entry| entry.key == key)?;
                Some(entries.remove(at))
            }
            _ => None,
        }
    }

    /// The text of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Kind::Scalar { text, .. } = &self.kind { Some(text) } else { None }
    }

    /// The value one step further: of a list by its number, of a map by its key.
    fn step(&self, step: &str) -> Option<&Self> {
        match &self.kind {
            Kind::List(items) => step.parse::<usize>().ok().and_then(|at| items.get(at)),
            _ => self.get(step),
        }
    }

    /// The value at `path`.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, step| node.step(step))
    }

    /// The place of the value at `path`, or of the innermost value on the way that exists.
    pub(crate) fn place_of(&self, path: &[&str]) -> Place {
        let mut node = self;
        for step in path {
            match node.step(step) {
                Some(next) => node = next,
                None => break,
            }
        }
        node.place
    }

    /// How many nodes it has, itself included.
    pub(crate) fn count(&self) -> usize {
        1 + match &self.kind {
            Kind::List(items) => items.iter().map(Self::count).sum(),
            Kind::Map(entries) => entries.iter().map(|entry| entry.value.count()).sum(),
            _ => 0,
        }
    }

    /// How many levels it has, itself included.
    pub(crate) fn height(&self) -> usize {
        1 + match &self.kind {
            Kind::List(items) => items.iter().map(Self::height).max().unwrap_or(0),
            Kind::Map(entries) => {
                entries.iter().map(|entry| entry.value.height()).max().unwrap_or(0)
            }
            _ => 0,
        }
    }
}
