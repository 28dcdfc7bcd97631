//! The syntax of unit files (systemd.syntax(7)): sections, assignments that go on after a backslash,
//! words with quotes and escapes, and specifiers (systemd.unit(5)).

use crate::import::draft::Origin;
use crate::import::job::{Job, place};

/// One `Key=value` of a unit.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// The section without its brackets.
    pub(super) section: String,
    pub(super) from: Origin,
    pub(super) value: String,
}

/// Reads a file; what is wrong is said.
pub(super) fn read(job: &mut Job<'_>, file: usize) -> Vec<Line> {
    let text = job.sources[file].text.clone();
    let mut lines = Vec::new();
    let mut section = None;
    for (start, end, joined) in joined(&text) {
        let line = joined.trim();
        let spot = place(file, start, end);
        let from = Origin::new(String::new(), spot);
        if let Some(name) = line.strip_prefix('[') {
            match name.strip_suffix(']') {
                Some(name) => section = Some(name.to_owned()),
                None => job.wrong(&from, "the bracket of a section is not closed", "write [Name]"),
            }
            continue;
        }
        match (line.split_once('='), &section) {
            (Some((key, value)), Some(section)) if !key.trim().is_empty() => lines.push(Line {
                section: section.clone(),
                from: Origin::new(key.trim(), spot),
                value: value.trim().to_owned(),
            }),
            (Some(_), None) => {
                job.wrong(&from, "this stands before the first section", "begin with [Service]");
            }
            _ => job.wrong(&from, "this is not Key=value", "begin a comment with #"),
        }
    }
    lines
}

/// The lines of a file without comments, those that go on joined by a blank; each with where it
/// begins and where its first line ends.
fn joined(text: &str) -> Vec<(usize, usize, String)> {
    let mut lines: Vec<(usize, usize, String)> = Vec::new();
    let mut goes_on = false;
    let mut at = 0;
    for whole in text.split_inclusive('\n') {
        let start = at;
        at += whole.len();
        let line = whole.trim_end_matches(['\n', '\r']);
        let trimmed = line.trim_start();
        if trimmed.starts_with(['#', ';']) || (trimmed.is_empty() && !goes_on) {
            continue;
        }
        let (content, more) = match line.trim_end().strip_suffix('\\') {
            Some(content) => (content, true),
            None => (line, false),
        };
        let indent = line.len() - trimmed.len();
        if let Some((.., joined)) = lines.last_mut().filter(|_| goes_on) {
            joined.push(' ');
            joined.push_str(content.trim());
        } else {
            let end = start + line.trim_end().len();
            lines.push((start + indent, end, content.trim_start().to_owned()));
        }
        goes_on = more;
    }
    lines
}

/// A word, and whether quotes or escapes were in it.
pub(super) type Word = (String, bool);

/// The words of a value: blanks part them, quotes keep them together, escapes are those of C.
pub(super) fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(words);
        }
        let mut word = String::new();
        let mut quoted = false;
        let mut quote = None;
        while let Some(&c) = chars.peek() {
            if quote.is_none() && c.is_whitespace() {
                break;
            }
            chars.next();
            match (c, quote) {
                ('\\', _) => {
                    let escape = chars.next().ok_or("a backslash stands at the end")?;
                    quoted = true;
                    unescape(escape, &mut chars, &mut word)?;
                }
                (c, Some(open)) if c == open => quote = None,
                ('"' | '\'', None) => {
                    quote = Some(c);
                    quoted = true;
                }
                (c, _) => word.push(c),
            }
        }
        if quote.is_some() {
            return Err("a quote is opened and not closed".to_owned());
        }
        words.push((word, quoted));
    }
}

/// Takes one escape of systemd.syntax(7).
fn unescape(
    escape: char,
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    word: &mut String,
) -> Result<(), String> {
    let simple = match escape {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        's' => ' ',
        '\\' | '"' | '\'' => escape,
        // `\;` is a semicolon that parts no commands, `\x20` a code.
        ';' => ';',
        'x' => return code(chars, word, 2, 16),
        'u' => return code(chars, word, 4, 16),
        'U' => return code(chars, word, 8, 16),
        '0'..='7' => {
            let mut number = escape.to_digit(8).unwrap_or(0);
            for _ in 0..2 {
                let Some(digit) = chars.peek().and_then(|c| c.to_digit(8)) else { break };
                chars.next();
                number = number * 8 + digit;
            }
            char::from_u32(number).filter(|c| *c != '\0').ok_or("a NUL cannot be passed")?
        }
        // An unknown escape is kept as it stands, as systemd keeps it with a warning.
        other => {
            word.push('\\');
            other
        }
    };
    word.push(simple);
    Ok(())
}

fn code(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    word: &mut String,
    digits: u32,
    radix: u32,
) -> Result<(), String> {
    let mut number = 0_u32;
    for _ in 0..digits {
        let digit = chars.next().and_then(|c| c.to_digit(radix)).ok_or("an escape is too short")?;
        number = number.wrapping_mul(radix) + digit;
    }
    let c = char::from_u32(number).filter(|c| *c != '\0').ok_or("an escape is no character")?;
    word.push(c);
    Ok(())
}

/// What specifiers stand for in one unit.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// The whole name: `worker@1.service`.
    pub(super) full: String,
}

impl Names {
    /// The name without its end.
    pub(super) fn stem(&self) -> &str {
        self.full.rsplit_once('.').map_or(&self.full, |(stem, _)| stem)
    }

    fn prefix(&self) -> &str {
        self.stem().split_once('@').map_or(self.stem(), |(prefix, _)| prefix)
    }

    fn instance(&self) -> &str {
        self.stem().split_once('@').map_or("", |(_, instance)| instance)
    }

    /// The text with specifiers in place and every `$` written twice; the names of those that
    /// cannot be known here are returned too.
    pub(super) fn expand(&self, text: &str) -> (String, Vec<char>) {
        let mut out = String::new();
        let mut unknown = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let Some(letter) = chars.next() else {
                out.push('%');
                break;
            };
            match letter {
                '%' => out.push('%'),
                'n' => out.push_str(&self.full),
                'N' => out.push_str(self.stem()),
                'p' => out.push_str(self.prefix()),
                'P' => out.push_str(&unit_unescape(self.prefix())),
                'i' => out.push_str(self.instance()),
                'I' => out.push_str(&unit_unescape(self.instance())),
                'j' => out.push_str(self.prefix().rsplit('-').next().unwrap_or_default()),
                'f' => {
                    out.push('/');
                    out.push_str(unit_unescape(self.instance()).trim_start_matches('/'));
                }
                't' => out.push_str("/run"),
                'S' => out.push_str("/var/lib"),
                'C' => out.push_str("/var/cache"),
                'L' => out.push_str("/var/log"),
                'E' => out.push_str("/etc"),
                'T' => out.push_str("/tmp"),
                'V' => out.push_str("/var/tmp"),
                // These are put in when services.yaml is read.
                'h' => out.push_str("\u{1}HOME:-/root\u{2}"),
                'u' => out.push_str("\u{1}USER:-root\u{2}"),
                'H' | 'l' | 'q' => {
                    out.push_str("\u{1}HOSTNAME:-localhost\u{2}");
                    unknown.push(letter);
                }
                other => {
                    out.push('%');
                    out.push(other);
                    unknown.push(other);
                }
            }
        }
        (out, unknown)
    }
}

/// A text as services.yaml writes it: references that [`Names::expand`] has left, `$` twice.
pub(super) fn written(text: &str) -> String {
    text.replace('$', "$$").replace('\u{1}', "${").replace('\u{2}', "}")
}

/// `a-b\x20c` as `a/b c` (systemd-escape(1)).
fn unit_unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let code = rest.strip_prefix("\\x").and_then(|code| code.get(..2));
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            out.push(byte);
            rest = &rest[4..];
            continue;
        }
        let c = if c == '-' { '/' } else { c };
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &rest[rest.chars().next().map_or(1, char::len_utf8)..];
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_on_after_a_backslash_and_comments_are_skipped() {
        let text = "# c\n[Service]\nExecStart=/bin/a \\\n  # inside\n  -b \\\n  c\n; c\n\nUser=x\n";
        let read: Vec<_> = joined(text).into_iter().map(|(at, _, line)| (at, line)).collect();
        assert_eq!(
            read,
            [
                (4, "[Service]".to_owned()),
                (14, "ExecStart=/bin/a  -b c".to_owned()),
                (60, "User=x".to_owned())
            ]
        );
    }

    #[test]
    fn words_are_those_of_systemd() {
        for (text, expected) in [
            ("a  b\tc", vec!["a", "b", "c"]),
            ("\"a b\" 'c \"d' e\"f g\"h", vec!["a b", "c \"d", "ef gh"]),
            ("a\\x20b \\t\\101 \\u00e9 \\s", vec!["a b", "\tA", "é", " "]),
            ("'' x", vec!["", "x"]),
            ("\\w", vec!["\\w"]),
        ] {
            let words = words(text).unwrap();
            let words: Vec<_> = words.iter().map(|(word, _)| word.as_str()).collect();
            assert_eq!(words, expected, "{text}");
        }
        assert!(words("a 'b").is_err() && words("\\x2").is_err());
    }

    #[test]
    fn specifiers_take_their_place() {
        let names = Names { full: "back-end@srv-data\\x20x.service".to_owned() };
        for (text, expected) in [
            ("%n %N %p", "back-end@srv-data\\x20x.service back-end@srv-data\\x20x back-end"),
            ("%i %I %f %j", "srv-data\\x20x srv/data x /srv/data x end"),
            ("%t %S %% 5%", "/run /var/lib % 5%"),
            ("%h/$A", "${HOME:-/root}/$$A"),
        ] {
            let (out, unknown) = names.expand(text);
            assert_eq!(written(&out), expected);
            assert!(unknown.is_empty());
        }
        assert_eq!(names.expand("%m").1, ['m']);
    }
}
