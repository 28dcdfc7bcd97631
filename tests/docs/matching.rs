//! Whether a command said what a document shows, where some of it is different each time.
//!
//! The rules are those of CONTRIBUTING.md: an expected text shows one real run, and what is bound to
//! differ in it (times, long numbers, object names) is taken as an example.

use std::fmt::Write as _;

use regex::Regex;

/// What is an example rather than a promise, in the order of looking: how it looks in an expected
/// text, and what it stands for.
const EXAMPLES: &[(&str, &str)] = &[
    // 2026-11-22, 2026-11-22 07:31:28, 2026-11-22T07:31:28.576123456Z
    (
        r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d:\d\d(\.\d+)?Z?)?",
        r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d:\d\d(\.\d+)?Z?)?",
    ),
    (r"\d\d:\d\d:\d\d", r"\d\d:\d\d:\d\d"),
    // Names of git objects, and random identities.
    (r"\b[0-9a-f]{40}\b", r"[0-9a-f]{40}"),
    (
        r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b",
        r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    ),
    // Lengths of time and sizes, with their unit.
    (
        r"(under )?\b(\d+(\.\d+)?(us|ms|s|m|h|d|KiB|MiB|GiB|B))+\b",
        r"(under )?(\d+(\.\d+)?(us|ms|s|m|h|d|KiB|MiB|GiB|B))+",
    ),
    (r"\buid \d+", r"uid \d+"),
    // Numbers of three digits or more: process ids, counts of bytes, times in seconds.
    (r"\b\d+\.\d{2,}\b|\b\d\d+\.\d\b|\b\d{3,}(\.\d+)?\b", r"\d+(\.\d+)?"),
];

/// The expected text as an expression.
fn pattern(expected: &str) -> Regex {
    let lines: Vec<String> = expected.trim_end().lines().map(line_pattern).collect();
    let mut whole = String::from(r"\A");
    for (at, line) in lines.iter().enumerate() {
        // A line of its own `…` stands for any number of lines.
        let end = if at + 1 == lines.len() { "" } else { "\n" };
        match line.as_str() {
            "(?:.*)" if at + 1 == lines.len() => whole.push_str(r"(?:.*\n?)*?"),
            "(?:.*)" => whole.push_str(r"(?:.*\n)*?"),
            line => {
                whole.push_str(line);
                whole.push_str(end);
            }
        }
    }
    whole.push_str(r"\s*\z");
    Regex::new(&whole).unwrap()
}

fn line_pattern(line: &str) -> String {
    let examples: Vec<(Regex, &str)> = EXAMPLES
        .iter()
        .map(|(look, stands_for)| (Regex::new(look).unwrap(), *stands_for))
        .collect();
    let mut rest = line.trim_end();
    let mut pattern = String::new();
    // An indent is part of what is shown; how wide it is, is not.
    while !rest.is_empty() {
        let first = examples
            .iter()
            .filter_map(|(look, stands_for)| Some((look.find(rest)?, *stands_for)))
            .min_by_key(|(found, _)| (found.start(), usize::MAX - found.end()));
        let (plain, found) = first.map_or((rest, None), |(found, stands_for)| {
            (&rest[..found.start()], Some((found.end(), stands_for)))
        });
        pattern.push_str(&plain_pattern(plain));
        let Some((end, stands_for)) = found else { break };
        let _ = write!(pattern, "(?:{stands_for})");
        rest = &rest[end..];
    }
    format!("{pattern}[ \\t]*").replace("(?:.*)[ \\t]*", "(?:.*)")
}

/// Spaces are as wide as they must be, and `…` is anything within a line.
fn plain_pattern(text: &str) -> String {
    let spaces = Regex::new("[ \\t]+").unwrap();
    let pieces = text.split('…').map(|piece| {
        let words: Vec<String> = spaces.split(piece).map(regex::escape).collect();
        words.join("[ \\t]+")
    });
    pieces.collect::<Vec<_>>().join("(?:.*)")
}

/// Whether `said` is what `expected` shows.
pub(crate) fn matches(expected: &str, said: &str) -> bool {
    if expected.trim().is_empty() {
        said.trim().is_empty()
    } else {
        pattern(expected).is_match(said)
    }
}

#[test]
fn examples_are_told_from_promises() {
    for (expected, said, same) in [
        ("42", "42\n", true),
        ("42", "43\n", false),
        ("", "\n", true),
        ("", "words\n", false),
        ("pid 31822, run 3", "pid 77, run 3\n", true),
        ("pid 31822, run 3", "pid 77, run 4\n", false),
        ("up 178ms (uid 0)", "up   under 1ms (uid 1000)\n", true),
        ("up 178ms", "up a while", false),
        ("web   running  812  1.5s  0", "web running 4711  2m10s 0", true),
        ("web   running  812  1.5s  0", "web running 4711  2m10s 1", false),
        ("web   running  812  1.5s  0", "web failed 4711  2m10s 0", false),
        ("at 2026-11-22 13:27:03, 8992KiB", "at 2027-01-02 00:00:00, 1.2MiB", true),
        (
            "6c180ac2e6b84085cb746424c25c8400df6bb77e commit 401",
            "0000000000000000000000000000000000000000 commit 1234",
            true,
        ),
        ("a … z", "a b c z", true),
        ("a … z", "a b\nc z", false),
        ("a\n…\nz", "a\nb\nc\nz", true),
        ("a\n…\nz", "a\nz", true),
        ("a\n…", "a\nb\nc", true),
        ("a\n…", "b\nc", false),
        ("{\"pid\":123,\"uptime_s\":0.08}", "{\"pid\":9,\"uptime_s\":12.5}", true),
        ("a.b", "axb", false),
        ("exit 1.5", "exit 1.6", false),
        ("a\nb", "a", false),
    ] {
        assert_eq!(matches(expected, said), same, "{expected:?} {said:?} {}", pattern(expected));
    }
}
