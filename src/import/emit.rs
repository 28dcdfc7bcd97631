//! Services as the text of services.yaml, in the order of the schema, with what is missing as
//! comments beside each.
//!
//! A key that the schema marks as not supported is written as a comment, so that the text can be
//! used today and the key comes alive by taking two characters away.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::Format;
use super::draft::Draft;
use super::loss::{Loss, Weight};
use crate::spec::Keys;

/// Everything that a text is made of.
pub(super) struct Whole<'a> {
    pub(super) format: Format,
    /// The names of all files that were read.
    pub(super) files: &'a [&'a str],
    /// What concerns no single service.
    pub(super) general: &'a [Loss],
    pub(super) drafts: &'a [Draft],
    /// What is missing, one list a draft.
    pub(super) losses: &'a [Vec<Loss>],
    pub(super) groups: &'a Map<String, Value>,
    pub(super) keys: &'a Keys,
}

/// The widest line of a comment or a list, in characters.
const WIDEST: usize = 100;

/// The text of services.yaml.
pub(super) fn yaml(whole: &Whole<'_>) -> String {
    let mut text = String::from("# yaml-language-server: $schema=./services.schema.json\n");
    let files = whole.files.join(", ");
    comment(&mut text, 0, &format!("From {files} ({}), by wharf import.", whole.format.title()));
    for loss in whole.general {
        comment(&mut text, 0, &told(loss));
    }
    text.push_str("version: 1\n\nservices:\n");
    for (at, (draft, losses)) in whole.drafts.iter().zip(whole.losses).enumerate() {
        if at > 0 {
            text.push('\n');
        }
        for line in &draft.about {
            comment(&mut text, 1, line);
        }
        let _ = writeln!(text, "  {}:", scalar(&draft.name, false));
        for loss in losses {
            comment(&mut text, 2, &told(loss));
        }
        let path = ["services", draft.name.as_str()];
        block(&mut text, &draft.keys, &path, 2, whole.keys);
    }
    if !whole.groups.is_empty() {
        text.push('\n');
        let groups = Map::from_iter([("groups".to_owned(), Value::Object(whole.groups.clone()))]);
        block(&mut text, &groups, &[], 0, whole.keys);
    }
    text
}

fn told(loss: &Loss) -> String {
    let word = match loss.weight {
        Weight::Loss => "lost",
        Weight::Note => "note",
    };
    if loss.file == loss.key {
        return format!("{word}: {}: {}", loss.place(), loss.reason());
    }
    format!("{word}: {} ({}): {}", loss.key, loss.place(), loss.reason())
}

/// A comment, folded where it is wide.
fn comment(text: &mut String, depth: usize, words: &str) {
    let margin = "  ".repeat(depth);
    let mut line = format!("{margin}#");
    let visible = words.replace(|c: char| c.is_control(), " ");
    for word in visible.split(' ') {
        let used = line.chars().count();
        if used > margin.len() + 1 && used + 1 + word.chars().count() > WIDEST {
            let _ = writeln!(text, "{}", line.trim_end());
            line = format!("{margin}#  ");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

/// A map, a key a line. Keys that do not work yet are comments.
fn block(text: &mut String, map: &Map<String, Value>, path: &[&str], depth: usize, keys: &Keys) {
    let mut sorted: Vec<_> =
        map.iter().map(|(key, value)| (place(path, key, keys), key, value)).collect();
    sorted.sort_by_key(|((at, _), ..)| *at);
    let mut told = false;
    for ((_, supported), key, value) in sorted {
        let below: Vec<&str> = path.iter().copied().chain([key.as_str()]).collect();
        if supported && usable(value, &below, keys) {
            entry(text, key, value, depth, &mut |text, map, depth| {
                block(text, map, &below, depth, keys);
            });
            told = false;
            continue;
        }
        let mut lines = String::new();
        entry(&mut lines, key, value, 0, &mut plain_block);
        let margin = "  ".repeat(depth);
        if !told {
            let _ = writeln!(text, "{margin}# not supported yet:");
        }
        told = true;
        for line in lines.lines() {
            let _ = writeln!(text, "{}", format!("{margin}# {line}").trim_end());
        }
    }
}

fn place(path: &[&str], key: &str, keys: &Keys) -> (usize, bool) {
    let whole: Vec<&str> = path.iter().copied().chain([key]).collect();
    keys.find(&whole).unwrap_or((usize::MAX, true))
}

/// Whether anything of a value works; a map of nothing but later keys does not.
fn usable(value: &Value, path: &[&str], keys: &Keys) -> bool {
    let Value::Object(map) = value else { return true };
    map.is_empty()
        || map.iter().any(|(key, value)| {
            let below: Vec<&str> = path.iter().copied().chain([key.as_str()]).collect();
            place(path, key, keys).1 && usable(value, &below, keys)
        })
}

fn plain_block(text: &mut String, map: &Map<String, Value>, depth: usize) {
    for (key, value) in map {
        entry(text, key, value, depth, &mut plain_block);
    }
}

/// How the map below a key is written.
type Below<'a> = &'a mut dyn FnMut(&mut String, &Map<String, Value>, usize);

fn entry(text: &mut String, key: &str, value: &Value, depth: usize, below: Below<'_>) {
    let margin = "  ".repeat(depth);
    let _ = write!(text, "{margin}{}:", scalar(key, false));
    match value {
        Value::Object(map) if map.is_empty() => text.push_str(" {}\n"),
        Value::Object(map) if small(map) => {
            let _ = writeln!(text, " {}", flow(value));
        }
        Value::Object(map) => {
            text.push('\n');
            below(text, map, depth + 1);
        }
        Value::Array(items) => list(text, items, depth),
        Value::String(words) if words.contains('\n') && literal(words) => {
            text.push_str(if words.ends_with('\n') { " |\n" } else { " |-\n" });
            for line in words.lines() {
                let _ = writeln!(text, "{}", format!("{margin}  {line}").trim_end());
            }
        }
        Value::String(words) => {
            let _ = writeln!(text, " {}", scalar(words, false));
        }
        Value::Null => text.push('\n'),
        value => {
            let _ = writeln!(text, " {value}");
        }
    }
}

/// Whether a map fits a line: no map in it, and `condition: service_started` at most.
fn small(map: &Map<String, Value>) -> bool {
    map.len() == 1 && map.keys().all(|key| key == "condition" || key == "retry_every")
}

fn list(text: &mut String, items: &[Value], depth: usize) {
    let one = flow(&Value::Array(items.to_vec()));
    let several_lines = items.iter().any(|item| item.as_str().is_some_and(|s| s.contains('\n')));
    if one.chars().count() + 2 * depth < WIDEST - 12 && !several_lines {
        let _ = writeln!(text, " {one}");
        return;
    }
    text.push('\n');
    let margin = "  ".repeat(depth + 1);
    for item in items {
        match item {
            Value::String(words) if words.contains('\n') && literal(words) => {
                let end = if words.ends_with('\n') { "|" } else { "|-" };
                let _ = writeln!(text, "{margin}- {end}");
                for line in words.lines() {
                    let _ = writeln!(text, "{}", format!("{margin}  {line}").trim_end());
                }
            }
            Value::String(words) => {
                let _ = writeln!(text, "{margin}- {}", scalar(words, false));
            }
            value => {
                let _ = writeln!(text, "{margin}- {}", flow(value));
            }
        }
    }
}

/// A value in one line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(words) => scalar(words, true),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let pairs: Vec<_> = map
                .iter()
                .map(|(key, value)| format!("{}: {}", scalar(key, true), flow(value)))
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        value => value.to_string(),
    }
}

/// Whether a text of several lines can stand as it is below a `|`.
fn literal(text: &str) -> bool {
    let visible = |c: char| c == '\n' || c == ' ' || (!c.is_control() && c != '\u{feff}');
    !text.starts_with([' ', '\n'])
        && !text.ends_with("\n\n")
        && text.chars().all(visible)
        && text.lines().all(|line| !line.ends_with(' '))
        && !text.contains(['\u{2028}', '\u{2029}', '\u{85}'])
}

/// A text that every YAML reader takes for that text, without quotes where none are needed.
fn scalar(text: &str, flow: bool) -> String {
    let inside = |c: char| c.is_ascii_alphanumeric() || "_-./=@%+$&*()|;<>~^!' ".contains(c);
    let in_block = |c: char| inside(c) || ":,{}[]\"\\?".contains(c);
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || "/_.$".contains(c))
        || is_option(text)
        || is_quantity(text);
    let no_number = !text.starts_with('.') || text.starts_with("./") || text.starts_with("../");
    let fits = text.chars().all(|c| if flow { inside(c) } else { in_block(c) });
    let breaks = text.contains(": ") || text.contains(" #") || text.ends_with([' ', ':']);
    let word = text.to_ascii_lowercase();
    let other = matches!(
        word.as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n" | "none"
    );
    if first && no_number && fits && !breaks && !other {
        return text.to_owned();
    }
    crate::spec::quoted(text)
}

/// `-x` or `--long`, which is no item of a list and no number.
fn is_option(text: &str) -> bool {
    let second = text.strip_prefix('-').and_then(|rest| rest.chars().next());
    second.is_some_and(|c| c.is_ascii_alphabetic() || c == '-') && !text.starts_with("---")
}

/// A duration or a size: digits and a unit, perhaps several times. No reader takes it for a number.
fn is_quantity(text: &str) -> bool {
    const UNITS: &[&str] = &["us", "ms", "s", "m", "h", "d", "B", "KiB", "MiB", "GiB", "TiB"];
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let unit = number.find(|c: char| c.is_ascii_digit()).unwrap_or(number.len());
        if number.len() == rest.len() || !UNITS.contains(&&number[..unit]) {
            return false;
        }
        rest = &number[unit..];
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_where_they_must_be() {
        for (text, block, inside) in [
            ("bundle exec puma", "bundle exec puma", "bundle exec puma"),
            ("a: b", "\"a: b\"", "\"a: b\""),
            ("a, b", "a, b", "\"a, b\""),
            ("http://x:80/", "http://x:80/", "\"http://x:80/\""),
            ("8080", "\"8080\"", "\"8080\""),
            ("yes", "\"yes\"", "\"yes\""),
            ("", "\"\"", "\"\""),
            ("-c", "-c", "-c"),
            ("--opt=a b", "--opt=a b", "--opt=a b"),
            ("-5", "\"-5\"", "\"-5\""),
            ("- x", "\"- x\"", "\"- x\""),
            ("---", "\"---\"", "\"---\""),
            ("1m30s", "1m30s", "1m30s"),
            ("512MiB", "512MiB", "512MiB"),
            ("1e5", "\"1e5\"", "\"1e5\""),
            ("12x", "\"12x\"", "\"12x\""),
            ("./run.sh", "./run.sh", "./run.sh"),
            ("x #y", "\"x #y\"", "\"x #y\""),
            ("*a", "\"*a\"", "\"*a\""),
            ("exec a \"$$B\"", "exec a \"$$B\"", "\"exec a \\\"$$B\\\"\""),
        ] {
            assert_eq!(scalar(text, false), block, "{text}");
            assert_eq!(scalar(text, true), inside, "{text}");
        }
    }
}
