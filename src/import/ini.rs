//! The INI dialect of Python's configparser, as supervisord reads it, with a place for every key.
//!
//! Crates that read INI keep no places, and this dialect has rules of its own: comments behind a
//! blank and `;` or `#`, values that go on in indented lines, `=` or `:`.

use super::draft::Origin;
use super::job::{Job, place};

/// A section.
#[derive(Debug)]
pub(super) struct Section {
    /// What stands between the brackets.
    pub(super) name: String,
    /// Where.
    pub(super) from: Origin,
    /// Its keys in lower case, in order; the last of two counts.
    pub(super) keys: Vec<Key>,
}

/// A key with its value.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) from: Origin,
    pub(super) value: String,
}

impl Section {
    /// The key with this name.
    pub(super) fn get(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.from.key == name)
    }
}

/// Reads a file; what is wrong is said.
pub(super) fn read(job: &mut Job<'_>, file: usize) -> Vec<Section> {
    let text = job.sources[file].text.clone();
    let mut sections: Vec<Section> = Vec::new();
    let mut open = false; // whether an indented line goes on with the last value
    let mut at = 0;
    for whole in text.split_inclusive('\n') {
        let start = at;
        at += whole.len();
        let line = without_comment(whole.trim_end());
        let trimmed = line.trim();
        if trimmed.is_empty() {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let spot = place(file, start + indent, start + line.trim_end().len());
        if indent > 0 && open {
            if let Some(key) = sections.last_mut().and_then(|section| section.keys.last_mut()) {
                key.value.push('\n');
                key.value.push_str(trimmed);
            }
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[') {
            open = false;
            if let Some((name, _)) = name.split_once(']') {
                let name = name.trim().to_owned();
                let from = Origin::new(format!("[{name}]"), spot);
                sections.push(Section { name, from, keys: Vec::new() });
            } else {
                let from = Origin::new(String::new(), spot);
                job.wrong(&from, "the bracket of a section is not closed", "write [NAME]");
            }
            continue;
        }
        open = key(job, &mut sections, trimmed, spot);
    }
    sections
}

/// Takes one line in as a key; returns whether it is one.
fn key(job: &mut Job<'_>, sections: &mut [Section], line: &str, spot: crate::spec::Place) -> bool {
    let from = Origin::new(String::new(), spot);
    let Some(section) = sections.last_mut() else {
        job.wrong(&from, "this stands before the first section", "begin with [SECTION]");
        return false;
    };
    let Some((name, value)) = line.split_once(['=', ':']) else {
        job.wrong(&from, "this is not KEY=VALUE", "begin a comment with ;");
        return false;
    };
    let name = name.trim().to_lowercase();
    if name.is_empty() {
        job.wrong(&from, "the key is missing", "write KEY=VALUE");
        return false;
    }
    let key = Key { from: Origin::new(name.clone(), spot), value: value.trim().to_owned() };
    section.keys.retain(|known| known.from.key != name);
    section.keys.push(key);
    true
}

/// The line up to a comment: one from the start, or one that a blank and `;` or `#` begin.
fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with([';', '#']) {
        return "";
    }
    let begins = |(at, c): (usize, char)| {
        matches!(c, ';' | '#') && line[..at].ends_with(char::is_whitespace)
    };
    line.char_indices().find(|found| begins(*found)).map_or(line, |(at, _)| line[..at].trim_end())
}
