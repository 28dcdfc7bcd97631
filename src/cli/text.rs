//! How things are shown to people: lengths of time, moments, tables, colours, foreign text.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;

use crate::event::State;
use crate::time::Wall;

/// The two largest units of a length of time: `3m12s`, `4.2s`, `120ms`.
pub(super) fn span(seconds: f64) -> String {
    let length = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let whole = length.as_secs();
    match whole {
        0 => format!("{}ms", length.as_millis()),
        1..=9 => format!("{whole}.{}s", length.subsec_millis() / 100),
        10..=59 => format!("{whole}s"),
        60..=3_599 => format!("{}m{}s", whole / 60, whole % 60),
        3_600..=86_399 => format!("{}h{}m", whole / 3_600, whole / 60 % 60),
        _ => format!("{}d{}h", whole / 86_400, whole / 3_600 % 24),
    }
}

/// A size to a person's precision: `1.2GiB`.
pub(super) fn rounded_size(bytes: u64) -> String {
    for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        let whole = bytes >> shift;
        if whole > 0 {
            let tenth = ((bytes >> (shift - 10)) & 1023) * 10 / 1024;
            return if tenth == 0 {
                format!("{whole}{unit}")
            } else {
                format!("{whole}.{tenth}{unit}")
            };
        }
    }
    format!("{bytes}B")
}

/// The length of time from `then` to `now`.
pub(super) fn since(then: Wall, now: Wall) -> String {
    span(Duration::from_nanos(now.0.saturating_sub(then.0)).as_secs_f64())
}

/// A moment in a zone: `2026-11-22 07:31:28`.
pub(super) fn moment(at: Wall, zone: &TimeZone) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(at.0)) {
        Ok(at) => at.to_zoned(zone.clone()).strftime("%F %T").to_string(),
        Err(_) => at.to_string(),
    }
}

/// A moment to the millisecond: `2026-11-22 07:31:28.576`.
pub(super) fn instant(at: Wall, zone: &TimeZone) -> String {
    format!("{}.{:03}", moment(at, zone), at.0 / 1_000_000 % 1_000)
}

/// `1st`, `2nd`, `3rd`, `4th`.
pub(super) fn ordinal(number: u32) -> String {
    let ending = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// At most `room` characters of a text, with a sign that something is missing.
pub(super) fn cut(text: &str, room: Option<usize>) -> String {
    match room {
        Some(room) if text.chars().count() > room => {
            let mut short: String = text.chars().take(room.saturating_sub(1)).collect();
            short.push('…');
            short
        }
        _ => text.to_owned(),
    }
}

/// Foreign text on one line, with everything that a terminal would obey made visible.
pub(super) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => shown.push('\t'),
            c if c.is_control() || is_bidi(c) => {
                let _ = write!(shown, "{}", c.escape_default());
            }
            c => shown.push(c),
        }
    }
    shown
}

/// Characters that turn the order of what follows around.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// How foreign text is shown: at a terminal harmless, elsewhere as it is but on one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Show {
    /// Whether a terminal obeys what is written.
    pub(super) terminal: bool,
    /// Whether to use colours.
    pub(super) color: bool,
}

impl Show {
    /// Foreign text.
    pub(super) fn foreign(self, text: &str) -> String {
        if self.terminal {
            return harmless(text);
        }
        text.replace('\n', "\\n").replace('\r', "\\r")
    }

    /// Text in a style.
    pub(super) fn styled(self, style: Style, text: &str) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// Text in the colour of a state.
    pub(super) fn state(self, state: State, text: &str) -> String {
        self.styled(state_style(state), text)
    }

    /// Text that stands out.
    pub(super) fn bold(self, text: &str) -> String {
        self.styled(Style::new().bold(), text)
    }
}

fn state_style(state: State) -> Style {
    match state {
        State::Running => AnsiColor::Green.on_default(),
        State::Waiting | State::Starting | State::Stopping | State::Backoff => {
            AnsiColor::Yellow.on_default()
        }
        State::Failed | State::Unkillable => AnsiColor::Red.on_default(),
        State::Stopped | State::Finished => Style::new().dimmed(),
    }
}

/// A cell: its text and how it is painted.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) style: Style,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, style: Style::new() }
    }
}

impl Cell {
    /// A state's own colour.
    pub(super) fn of_state(text: String, state: State) -> Self {
        Self { text, style: state_style(state) }
    }
}

/// Columns with two spaces between them; the last one is not padded.
pub(super) fn table(head: &[&str], rows: &[Vec<Cell>], show: Show) -> String {
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.text.chars().count());
        cells.chain([head[at].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &[Cell]| {
        for (at, cell) in cells.iter().enumerate() {
            text.push_str(&show.styled(cell.style, &cell.text));
            if at + 1 < cells.len() {
                let gap = widths[at] + 2 - cell.text.chars().count();
                text.extend(std::iter::repeat_n(' ', gap));
            }
        }
        text.push('\n');
    };
    let heading = |word: &&str| Cell { text: (*word).to_owned(), style: Style::new().bold() };
    line(&head.iter().map(heading).collect::<Vec<_>>());
    for row in rows {
        line(row);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_two_units() {
        for (seconds, text) in [
            (0.0, "0ms"),
            (0.12, "120ms"),
            (4.26, "4.2s"),
            (59.9, "59s"),
            (192.0, "3m12s"),
            (3_600.0, "1h0m"),
            (100_000.0, "1d3h"),
            (-1.0, "0ms"),
        ] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(since(Wall(5_000_000_000), Wall(2_000_000_000)), "0ms");
    }

    #[test]
    fn numbers_of_a_row_and_texts_of_a_length() {
        let told = [1, 2, 3, 4, 11, 12, 13, 21, 102, 113].map(ordinal).join(" ");
        assert_eq!(told, "1st 2nd 3rd 4th 11th 12th 13th 21st 102nd 113th");
        for (room, text) in
            [(None, "häuser"), (Some(6), "häuser"), (Some(3), "hä…"), (Some(0), "…")]
        {
            assert_eq!(cut("häuser", room), text);
        }
    }

    #[test]
    fn sizes_have_one_digit_after_the_point() {
        for (bytes, text) in [(0, "0B"), (1536, "1.5KiB"), ((1 << 40) + (1 << 39), "1.5TiB")] {
            assert_eq!(rounded_size(bytes), text);
        }
    }

    #[test]
    fn a_terminal_obeys_nothing_foreign() {
        assert_eq!(
            harmless("a\tb\x1b]0;x\x07\r\u{9b}1m\u{202e}é"),
            "a\tb\\u{1b}]0;x\\u{7}\\r\\u{9b}1m\\u{202e}é"
        );
        let show = Show { terminal: false, color: false };
        assert_eq!(show.foreign("\x1b[0m"), "\x1b[0m");
        // A line of its own would look like one of ours.
        assert_eq!(show.foreign("a\r\n    Main PID: 1"), "a\\r\\n    Main PID: 1");
    }

    #[test]
    fn moments_are_in_the_zone_of_the_reader() {
        let at = Wall(1_795_332_688_576_123_456);
        assert_eq!(moment(at, &TimeZone::UTC), "2026-11-22 07:31:28");
        assert_eq!(moment(at, &TimeZone::fixed(jiff::tz::offset(2))), "2026-11-22 09:31:28");
    }
}
