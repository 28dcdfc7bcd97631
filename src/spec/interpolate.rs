//! `${NAME}` and `$$` in a text, and what docker-compose can say in the braces beside the name:
//!
//! | written | set and not empty | empty | unset |
//! |---|---|---|---|
//! | `${NAME}` | its value | nothing | a mistake |
//! | `${NAME:-text}` | its value | text | text |
//! | `${NAME-text}` | its value | nothing | text |
//! | `${NAME:?text}` | its value | a mistake | a mistake |
//! | `${NAME?text}` | its value | nothing | a mistake |
//! | `${NAME:+text}` | text | nothing | nothing |
//! | `${NAME+text}` | text | text | nothing |
//!
//! A text may have references itself. Any other `$` is itself.

use std::borrow::Cow;

/// What became of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interpolated<'t> {
    /// The text with values in place.
    pub(super) text: Cow<'t, str>,
    /// The `${…}` that were left as they stand, since they are none of the forms.
    pub(super) left: Vec<String>,
}

/// References deeper inside one another than this are left as they stand.
const DEEPEST: usize = 32;

/// Puts values in place, or says which variables are missing.
pub(super) fn interpolate<'t>(
    text: &'t str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Interpolated<'t>, Vec<String>> {
    if !text.contains('$') {
        return Ok(Interpolated { text: Cow::Borrowed(text), left: Vec::new() });
    }
    let mut work = Work { environment, out: String::new(), left: Vec::new(), wrong: Vec::new() };
    work.out.reserve(text.len());
    work.text(text);
    let Work { out, left, wrong, .. } = work;
    if wrong.is_empty() { Ok(Interpolated { text: Cow::Owned(out), left }) } else { Err(wrong) }
}

/// The text with values in place, where all of it can be read.
pub(crate) fn interpolated(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Option<String> {
    interpolate(text, environment).ok().map(|done| done.text.into_owned())
}

struct Work<'e> {
    environment: &'e dyn Fn(&str) -> Option<String>,
    out: String,
    left: Vec<String>,
    wrong: Vec<String>,
}

impl Work<'_> {
    fn text(&mut self, text: &str) {
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            self.out.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("$$") {
                self.out.push('$');
                rest = after;
                continue;
            }
            let inside = rest
                .strip_prefix("${")
                .and_then(|inside| closing(inside).map(|end| (&inside[..end], &inside[end + 1..])));
            let found = inside.and_then(|(inside, after)| Some((Reference::of(inside)?, after)));
            if let Some((reference, after)) = found {
                self.reference(&reference);
                rest = after;
            } else {
                self.left.extend(inside.map(|(inside, _)| format!("${{{inside}}}")));
                self.out.push('$');
                rest = &rest[1..];
            }
        }
        self.out.push_str(rest);
    }

    fn reference(&mut self, reference: &Reference<'_>) {
        let Reference { name, form, empty_too, text } = *reference;
        let value = (self.environment)(name);
        let is_set = value.as_ref().is_some_and(|value| !empty_too || !value.is_empty());
        match (form, is_set) {
            (Form::Plain | Form::Default | Form::Must, true) => {
                self.out.push_str(&value.unwrap_or_default());
            }
            (Form::Default, false) | (Form::Instead, true) => self.text(text),
            (Form::Instead, false) => {}
            (Form::Plain, false) => {
                self.wrong.push(format!("the environment variable `{name}` is not set"));
            }
            (Form::Must, false) => {
                let what = if empty_too { "not set or empty" } else { "not set" };
                let why = if text.is_empty() { String::new() } else { format!(": {text}") };
                self.wrong.push(format!("the environment variable `{name}` is {what}{why}"));
            }
        }
    }
}

/// What stands in braces.
#[derive(Clone, Copy)]
struct Reference<'t> {
    name: &'t str,
    form: Form,
    /// Whether an empty value counts as none: `:` stands before the sign.
    empty_too: bool,
    /// What stands behind the sign.
    text: &'t str,
}

#[derive(Clone, Copy)]
enum Form {
    /// The name alone.
    Plain,
    /// `-`: the text where there is no value.
    Default,
    /// `?`: without a value it is a mistake, and the text says which.
    Must,
    /// `+`: the text where there is a value.
    Instead,
}

impl<'t> Reference<'t> {
    fn of(inside: &'t str) -> Option<Self> {
        let begins = inside.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = inside.find(|c| !is_of_name(c)).unwrap_or(inside.len());
        let (name, rest) = inside.split_at(end);
        let (empty_too, sign) = match rest.strip_prefix(':') {
            Some(sign) => (true, sign),
            None => (false, rest),
        };
        let text = sign.get(1..).unwrap_or_default();
        let form = match sign.chars().next() {
            None if !empty_too => Form::Plain,
            Some('-') => Form::Default,
            Some('?') => Form::Must,
            Some('+') => Form::Instead,
            None | Some(_) => return None,
        };
        begins.then_some(Self { name, form, empty_too, text })
    }
}

/// Where the brace is that closes a reference whose inside `text` begins.
fn closing(text: &str) -> Option<usize> {
    let (mut at, mut depth) = (0, 0);
    loop {
        let next = at + text[at..].find(['$', '}'])?;
        if text[next..].starts_with('}') {
            if depth == 0 {
                return Some(next);
            }
            depth -= 1;
        } else if text[next..].starts_with("${") {
            depth += 1;
            if depth == DEEPEST {
                return None;
            }
        }
        at = next + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("db.example".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn values_take_their_place() {
        for (text, expected) in [
            ("plain", "plain"),
            ("http://${HOST}/x", "http://db.example/x"),
            ("${NONE:-8080}", "8080"),
            ("${EMPTY:-8080}", "8080"),
            ("${EMPTY}", ""),
            ("${NONE:-}", ""),
            ("$$HOME costs $5 and $(date)", "$HOME costs $5 and $(date)"),
            ("$${HOST}", "${HOST}"),
            ("$$$$", "$$"),
            ("end$", "end$"),
            ("${", "${"),
            ("${HOST", "${HOST"),
            ("^a$", "^a$"),
            ("${x%y} ${1}", "${x%y} ${1}"),
            ("${NONE:-a:-b}", "a:-b"),
            ("é${HOST}é", "édb.exampleé"),
            ("${NONE-x} ${EMPTY-x} ${HOST-x}", "x  db.example"),
            ("${NONE:+x}${EMPTY:+x}${HOST:+x}", "x"),
            ("${NONE+x}${EMPTY+x}${HOST+x}", "xx"),
            ("${HOST:?must}${HOST?must}${EMPTY?must}", "db.exampledb.example"),
            ("${NONE:-${HOST}}:${EMPTY:-${NONE:-${HOST:+deep}}}", "db.example:deep"),
            ("${NONE:-$$5}${HOST:+${HOST}/}", "$5db.example/"),
            ("${HOST:}${HOST:x}", "${HOST:}${HOST:x}"),
            ("${NONE:-{}}", "{}"),
            ("${HOST:-${NONE}}", "db.example"),
        ] {
            assert_eq!(interpolate(text, &environment).unwrap().text, expected, "{text}");
        }
    }

    #[test]
    fn what_is_left_and_what_is_wrong_is_said() {
        let left = interpolate("${x%y} and ${HOST/z/y}", &environment).unwrap().left;
        assert_eq!(left, ["${x%y}", "${HOST/z/y}"]);
        let wrong = interpolate("${NONE} ${HOST} ${NEITHER}", &environment).unwrap_err();
        assert_eq!(wrong.len(), 2);
        let wrong = interpolate("${NONE:?say who} ${EMPTY:?} ${NONE?}", &environment).unwrap_err();
        assert_eq!(
            wrong,
            [
                "the environment variable `NONE` is not set or empty: say who",
                "the environment variable `EMPTY` is not set or empty",
                "the environment variable `NONE` is not set",
            ]
        );
        assert!(interpolate("${NONE:-${NEITHER}}", &environment).is_err());
    }

    #[test]
    fn references_without_end_inside_one_another_are_left_as_they_stand() {
        let deep = |times: usize| "${NONE:-".repeat(times) + "x" + &"}".repeat(times);
        assert_eq!(interpolate(&deep(20), &environment).unwrap().text, "x");
        let text = deep(100_000);
        assert!(interpolate(&text, &environment).unwrap().text.starts_with("${NONE:-${NONE:-"));
        let open = "${".repeat(1_000_000);
        assert_eq!(interpolate(&open, &environment).unwrap().text, open);
    }
}
