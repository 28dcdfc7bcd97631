//! `${NAME}`, `${NAME:-default}` and `$$` in a text. Any other `$` is itself.

use std::borrow::Cow;

/// What became of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interpolated<'t> {
    /// The text with values in place.
    pub(super) text: Cow<'t, str>,
    /// The `${…}` that were left as they stand, since they are neither form.
    pub(super) left: Vec<String>,
}

/// Puts values in place, or says which variables are unset and which defaults cannot be read.
pub(super) fn interpolate<'t>(
    text: &'t str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Interpolated<'t>, Vec<String>> {
    if !text.contains('$') {
        return Ok(Interpolated { text: Cow::Borrowed(text), left: Vec::new() });
    }
    let mut out = String::with_capacity(text.len());
    let mut left = Vec::new();
    let mut wrong = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
            continue;
        }
        let inside = rest.strip_prefix("${").and_then(|inside| inside.split_once('}'));
        let found = inside.and_then(|(inside, after)| Some((reference(inside)?, after)));
        if let Some(((name, default), after)) = found {
            match value(name, default, environment) {
                Ok(value) => out.push_str(&value),
                Err(reason) => wrong.push(reason),
            }
            rest = after;
        } else {
            left.extend(inside.map(|(inside, _)| format!("${{{inside}}}")));
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    if wrong.is_empty() { Ok(Interpolated { text: Cow::Owned(out), left }) } else { Err(wrong) }
}

/// The text with values in place, where all of it can be read.
pub(crate) fn interpolated(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Option<String> {
    interpolate(text, environment).ok().map(|done| done.text.into_owned())
}

/// A name and perhaps a default.
fn reference(inside: &str) -> Option<(&str, Option<&str>)> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let goes_on = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (begins && goes_on).then_some((name, default))
}

fn value(
    name: &str,
    default: Option<&str>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    match (environment(name), default) {
        (_, Some(default)) if default.contains("${") => {
            Err(format!("the default of `{name}` cannot itself contain `${{`"))
        }
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!("the environment variable `{name}` is not set")),
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
        ] {
            assert_eq!(interpolate(text, &environment).unwrap().text, expected, "{text}");
        }
    }

    #[test]
    fn what_is_left_and_what_is_wrong_is_said() {
        let left = interpolate("${x%y} and ${HOST-z}", &environment).unwrap().left;
        assert_eq!(left, ["${x%y}", "${HOST-z}"]);
        let wrong = interpolate("${NONE} ${HOST} ${NEITHER}", &environment).unwrap_err();
        assert_eq!(wrong.len(), 2);
        assert!(interpolate("${NONE:-${HOST}}", &environment).is_err());
    }
}
