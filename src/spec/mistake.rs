//! What is wrong with a configuration, all of it at once, shown as a compiler would show it.
//!
//! A mistake keeps the one line it is about, never the file.

use std::collections::HashSet;
use std::fmt::{self, Write as _};

use serde::Serialize;

use super::tree::Place;

/// More mistakes than this are kept and not shown.
const SHOWN: usize = 50;
/// More mistakes than this are counted and not kept.
pub(super) const KEPT: usize = 1_000;
/// The widest excerpt of a line, in characters.
const WIDEST: usize = 120;

/// A file as it was read.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Its name, as the user gave it.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: String,
}

/// Something that is wrong, found while reading; not yet told to anybody.
#[derive(Debug)]
pub(crate) struct Found {
    /// Where; `None` when a file as a whole is meant.
    pub(crate) place: Option<Place>,
    /// The path of the key, such as `services.web.restart`, or the name of a file.
    pub(crate) path: String,
    /// What is wrong.
    pub(crate) message: String,
    /// What could be done about it.
    pub(crate) help: Option<String>,
}

/// One mistake, or a warning in the same form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct Mistake {
    /// The path of the key, such as `services.web.restart`; empty for the whole file.
    pub path: String,
    /// What is wrong, in words.
    pub message: String,
    /// What could be done about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Where it is; absent where a file cannot be read at all.
    #[serde(flatten)]
    pub at: Option<Spot>,
}

/// A place in a file with the line that stands there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct Spot {
    /// The name of the file, as it was given.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, in characters, from 1.
    pub column: usize,
    /// The line itself, or the part of it around the place.
    pub text: String,
    /// How many characters of `text` stand before the place.
    #[serde(skip)]
    indent: usize,
    /// How many characters the place has, at least 1.
    #[serde(skip)]
    width: usize,
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mistakes {
    /// How many there are.
    total: usize,
    /// The first thousand of them.
    mistakes: Vec<Mistake>,
}

impl Mistakes {
    /// The mistakes, in the order of the files; of more than a thousand, the first thousand.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Mistake> {
        self.mistakes.iter()
    }

    /// How many there are.
    pub fn total(&self) -> usize {
        self.total
    }

    pub(crate) fn new(found: Vec<Found>, sources: &[Source]) -> Self {
        let (mistakes, total) = told(found, sources);
        Self { total, mistakes }
    }
}

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in self.mistakes.iter().take(SHOWN) {
            writeln!(f, "{}", mistake.as_text("error"))?;
        }
        match self.total {
            1 => write!(f, "1 mistake"),
            many if many > SHOWN => write!(f, "{many} mistakes, the first {SHOWN} of them shown"),
            many => write!(f, "{many} mistakes"),
        }
    }
}

impl Mistake {
    /// The mistake as a block of text that begins with `kind`, such as `error` or `warning`.
    pub fn as_text(&self, kind: &str) -> String {
        let mut text = format!("{kind}: ");
        if !self.path.is_empty() {
            let _ = write!(text, "{}: ", visible(&self.path));
        }
        let _ = writeln!(text, "{}", visible(&self.message));
        let margin = match &self.at {
            None => 1,
            Some(spot) => {
                let margin = spot.line.to_string().len();
                let empty = " ".repeat(margin);
                let _ = writeln!(
                    text,
                    "{empty}--> {}:{}:{}\n{empty} |\n{} | {}\n{empty} | {}{}",
                    spot.file,
                    spot.line,
                    spot.column,
                    spot.line,
                    spot.text,
                    " ".repeat(spot.indent),
                    "^".repeat(spot.width),
                );
                margin
            }
        };
        if let Some(help) = &self.help {
            let _ = writeln!(text, "{} = help: {}", " ".repeat(margin), visible(help));
        }
        text
    }
}

/// Orders what was found by place and looks up the lines. What is written once and reaches many
/// services, as a default or an alias, is told once. Returns how many there are besides.
pub(super) fn told(mut found: Vec<Found>, sources: &[Source]) -> (Vec<Mistake>, usize) {
    found.sort_by_key(|found| found.place.map(|place| (place.file, place.start)));
    let mut told = HashSet::new();
    found
        .retain(|found| found.place.is_none() || told.insert((found.place, found.message.clone())));
    let total = found.len();
    found.truncate(KEPT);
    let told = found
        .into_iter()
        .map(|found| Mistake {
            path: found.path,
            message: found.message,
            help: found.help,
            at: found.place.and_then(|place| spot(place, sources)),
        })
        .collect();
    (told, total)
}

/// The line, from 1, on which a place begins.
pub(super) fn line_of(place: Place, sources: &[Source]) -> usize {
    spot(place, sources).map_or(0, |spot| spot.line)
}

fn spot(place: Place, sources: &[Source]) -> Option<Spot> {
    let source = sources.get(usize::try_from(place.file).ok()?)?;
    let text = source.text.as_str();
    let mut start = usize::try_from(place.start).ok()?.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let mut end = usize::try_from(place.end).ok()?.clamp(start, line_end);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[line_start..start];
    // A line that is too long is shown around the place.
    let shown_from = if text[line_start..line_end].chars().nth(WIDEST).is_none() {
        line_start
    } else {
        before.char_indices().rev().nth(WIDEST / 2).map_or(line_start, |(at, _)| line_start + at)
    };
    let shown: String = text[shown_from..line_end].chars().take(WIDEST).collect();
    let shown = shown.trim_end();
    let indent = text[shown_from..start].chars().count();
    let left = shown.chars().count().saturating_sub(indent).max(1);
    let width = text[start..end].trim_end().chars().take(WIDEST).count().clamp(1, left);
    Some(Spot {
        file: source.name.clone(),
        line: text[..line_start].matches('\n').count() + 1,
        column: before.chars().count() + 1,
        text: visible(shown),
        indent,
        width,
    })
}

/// The text with what a terminal would obey replaced, one character for one.
fn visible(text: &str) -> String {
    let shown = |c: char| match c {
        '\t' => ' ',
        '\n' => '␤',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect()
}

/// The candidate that `word` was probably meant to be: one slip for three letters.
pub(crate) fn meant_instead<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_lowercase();
    let bound = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&word, &known.to_lowercase()), known))
        .filter(|(distance, _)| *distance <= bound)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
