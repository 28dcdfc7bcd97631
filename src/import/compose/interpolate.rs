//! `$NAME`, `${NAME}` and `${NAME:-default}` as compose and process-compose read them, as wharf
//! reads them.
//!
//! What `.env` says becomes the default, since the environment comes before it there too.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::import::command::{escape, reference};

/// A text after it was translated.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::import) struct Translated {
    /// As services.yaml has it.
    pub(in crate::import) text: String,
    /// What is not quite the same, in words.
    pub(in crate::import) remarks: Vec<String>,
}

/// Defaults deeper inside one another than this stay as they stand.
const DEEPEST: u8 = 32;

/// Translates a text.
pub(in crate::import) fn translate(text: &str, dotenv: &HashMap<String, String>) -> Translated {
    inside(text, dotenv, 0)
}

fn inside(text: &str, dotenv: &HashMap<String, String>, depth: u8) -> Translated {
    let mut out = Translated::default();
    if depth == DEEPEST {
        out.text = escape(text);
        out.remarks.push("references too deep inside one another stay as they stand".to_owned());
        return out;
    }
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.text.push_str("$$");
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let Some(end) = closing(after) else {
                out.text.push_str("$$");
                continue;
            };
            braces(&after[..end], dotenv, depth, &mut out);
            rest = &after[end + 1..];
        } else {
            let name = name_of(rest);
            if name.is_empty() {
                out.text.push_str("$$");
            } else {
                variable(name, "", dotenv, depth, &mut out);
                rest = &rest[name.len()..];
            }
        }
    }
    out.text.push_str(rest);
    out
}

/// The text that a translated one has where nothing is set: defaults in place, `$$` once.
pub(in crate::import) fn without_environment(text: &str) -> String {
    let nothing = |_: &str| None;
    crate::spec::interpolated(text, &nothing).unwrap_or_else(|| text.to_owned())
}

/// Where the brace that belongs to the one before `text` is.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn name_of(text: &str) -> &str {
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    if begins { &text[..end] } else { "" }
}

fn braces(text: &str, dotenv: &HashMap<String, String>, depth: u8, out: &mut Translated) {
    let name = name_of(text);
    let rest = &text[name.len()..];
    if name.is_empty() {
        let _ = write!(out.text, "$${{{}}}", escape(text));
        return;
    }
    let (sign, value) = match rest.strip_prefix(':') {
        Some(after) => (after.chars().next(), after.get(1..)),
        None => (rest.chars().next(), rest.get(1..)),
    };
    let value = value.unwrap_or_default();
    match sign {
        None => variable(name, "", dotenv, depth, out),
        Some('-') => variable(name, value, dotenv, depth, out),
        Some('?') => {
            variable(name, "", dotenv, depth, out);
            if !dotenv.contains_key(name) {
                out.remarks
                    .push(format!("${name} must be set there; here it is empty if it is not"));
            }
        }
        Some('+') => {
            let set = dotenv.get(name).is_some_and(|value| !value.is_empty());
            let value = if set { value } else { "" };
            let chosen = inside(value, dotenv, depth + 1);
            out.text.push_str(&chosen.text);
            out.remarks.extend(chosen.remarks);
            out.remarks.push(format!(
                "${{{text}}} is decided now: {name} is {}",
                if set { "set" } else { "not set" }
            ));
        }
        Some(_) => {
            let _ = write!(out.text, "$${{{}}}", escape(text));
            out.remarks.push(format!("${{{text}}} is not understood and left as it stands"));
        }
    }
}

fn variable(
    name: &str,
    default: &str,
    dotenv: &HashMap<String, String>,
    depth: u8,
    out: &mut Translated,
) {
    let nested = inside(default, dotenv, depth + 1);
    let plain = without_environment(&nested.text);
    if nested.text.contains("${") {
        out.remarks.push(format!("the default of ${name} is `{plain}` whatever it refers to"));
    }
    let default = dotenv.get(name).filter(|value| !value.is_empty()).cloned().unwrap_or(plain);
    if let Some(reference) = reference(name, &default) {
        out.text.push_str(&reference);
    } else {
        out.text.push_str(&escape(&default));
        out.remarks.push(format!("${name} is replaced by its value of now"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_mean_the_same_to_wharf() {
        let dotenv = HashMap::from([
            ("TAG".to_owned(), "7.2".to_owned()),
            ("ODD".to_owned(), "a$b".to_owned()),
        ]);
        for (text, expected, remarks) in [
            ("plain", "plain", 0),
            ("$A-${B}", "${A:-}-${B:-}", 0),
            ("redis:$TAG", "redis:${TAG:-7.2}", 0),
            ("${TAG:-6}", "${TAG:-7.2}", 0),
            ("${A:-x y}", "${A:-x y}", 0),
            ("${A-x}", "${A:-x}", 0),
            ("${A:?is missing}", "${A:-}", 1),
            ("${A:-${TAG}}", "${A:-7.2}", 1),
            ("${TAG:+-v}", "-v", 1),
            ("${A:+-v}", "", 1),
            ("$$HOME costs $5, $(date) ${1}", "$$HOME costs $$5, $$(date) $${1}", 0),
            ("$ODD", "a$$b", 1),
            ("${", "$${", 0),
            ("${TAG:+${A:?no}}", "${A:-}", 2),
        ] {
            let out = translate(text, &dotenv);
            assert_eq!((out.text.as_str(), out.remarks.len()), (expected, remarks), "{text}");
        }
    }

    #[test]
    fn references_without_end_inside_one_another_are_left_as_they_stand() {
        let deep = |times: usize| "${A:-".repeat(times) + "x" + &"}".repeat(times);
        let out = translate(&deep(20_000), &HashMap::new());
        assert!(out.text.contains("$${A:-$${A:-") && !out.remarks.is_empty());
        let out = translate(&deep(10), &HashMap::new());
        assert_eq!(out.text, "${A:-x}");
    }
}
