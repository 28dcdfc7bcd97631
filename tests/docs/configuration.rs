//! `docs/guide/configuration.md` against the schema: its tables are made from it (`WHARF_BLESS=1`
//! rewrites them), every key is in one of them and in an example, and the examples are checked with all
//! other blocks. What does not work yet stands in examples that are refused for just that.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use serde_json::Value;
use wharf::spec::{self, Key};

use crate::blocks::blocks;
use crate::documents::read;
use crate::place::root;

const DOCUMENT: &str = "docs/guide/configuration.md";
const BEGIN: &str = "<!-- keys: ";
const END: &str = "<!-- end of keys -->";

/// Whether a table for these paths holds a key.
fn holds(paths: &[&str], key: &Key) -> bool {
    paths.iter().any(|path| {
        let rest = key.path.strip_prefix(path.trim_end_matches('!'));
        // `path!` is that key alone, without those below it.
        rest.is_some_and(|rest| {
            rest.is_empty() || (!path.ends_with('!') && rest.starts_with(['.', '[']))
        })
    })
}

fn table(paths: &[&str], keys: &[Key]) -> String {
    let mut table = "| key | value | default | meaning |\n|---|---|---|---|\n".to_owned();
    for key in keys.iter().filter(|key| holds(paths, key)) {
        let shown = key.path.strip_prefix("services.NAME.").unwrap_or(&key.path);
        let default = key.default.as_ref().map_or_else(String::new, |text| format!("`{text}`"));
        let mut meaning = key.meaning.clone();
        if !key.supported {
            meaning.push_str(" *Not supported yet.*");
        }
        for word in &key.words {
            let missing =
                if word.supported || !key.supported { "" } else { " *Not supported yet.*" };
            let _ = match word.meaning.as_str() {
                "" => write!(meaning, " `{}`", word.word),
                told => write!(meaning, "<br>`{}`: {told}{missing}", word.word),
            };
        }
        let row = format!("| `{shown}` | {} | {default} | {meaning} |", key.kind);
        // A bar within a cell would begin another.
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        assert!(cells.len() == 4 && !meaning.contains('|'), "{row}");
        table.push_str(&row);
        table.push('\n');
    }
    table
}

#[test]
fn the_tables_are_those_of_the_schema_and_hold_every_key_once() {
    let keys = spec::keys();
    let text = read(DOCUMENT);
    let mut times: BTreeMap<&str, usize> = keys.iter().map(|key| (key.path.as_str(), 0)).collect();
    let mut made = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (paths, after) = after.split_once(" -->").unwrap();
        let (_, after) = after.split_once(END).unwrap();
        let list: Vec<&str> = paths.split_whitespace().collect();
        for key in keys.iter().filter(|key| holds(&list, key)) {
            *times.get_mut(key.path.as_str()).unwrap() += 1;
        }
        let table = table(&list, &keys);
        let _ = write!(made, "{before}{BEGIN}{paths} -->\n{table}{END}");
        rest = after;
    }
    made.push_str(rest);
    let wrong: Vec<_> = times.into_iter().filter(|(_, times)| *times != 1).collect();
    assert!(wrong.is_empty(), "keys and in how many tables they stand: {wrong:?}");
    if std::env::var_os("WHARF_BLESS").is_some() {
        fs::write(root().join(DOCUMENT), made).unwrap();
    } else {
        assert!(made == text, "{DOCUMENT} is not what the schema says; WHARF_BLESS=1 rewrites it");
    }
}

/// The keys that a configuration uses, by the paths of `keys`.
fn used<'a>(value: &Value, keys: &'a [Key]) -> Vec<&'a str> {
    fn walk(value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    path.push(name.clone());
                    found.push(path.clone());
                    walk(value, path, found);
                    path.pop();
                }
            }
            Value::Array(items) => {
                if let Some(last) = path.last_mut() {
                    last.push_str("[]");
                }
                for item in items {
                    walk(item, path, found);
                }
                if let Some(last) = path.last_mut() {
                    last.truncate(last.len() - 2);
                }
            }
            _ => {}
        }
    }
    let mut paths = Vec::new();
    walk(value, &mut Vec::new(), &mut paths);
    let is = |key: &Key, path: &[String]| {
        let known: Vec<&str> = key.path.split('.').collect();
        known.len() == path.len()
            && known.iter().zip(path).all(|(known, name)| *known == "NAME" || known == name)
    };
    let found = |key: &&Key| paths.iter().any(|path| is(key, path));
    keys.iter().filter(found).map(|key| key.path.as_str()).collect()
}

#[test]
fn every_key_has_an_example() {
    let keys = spec::keys();
    let mut shown: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    for block in blocks(&read(DOCUMENT)).iter().filter(|block| block.kind == "yaml") {
        let value: Value = serde_saphyr::from_str(&block.text).unwrap();
        for key in used(&value, &keys) {
            *shown.entry((key, block.mark("refused").is_none())).or_default() += 1;
        }
    }
    let missing: Vec<_> = keys
        .iter()
        .filter(|key| !shown.contains_key(&(key.path.as_str(), key.supported)))
        .map(|key| format!("{}{}", key.path, if key.supported { "" } else { " (refused)" }))
        .collect();
    assert!(missing.is_empty(), "keys without an example:\n{}", missing.join("\n"));
}
