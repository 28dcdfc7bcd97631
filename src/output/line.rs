//! One line of a log file, in the CRI log format that Kubernetes, Fluent Bit and Vector read:
//! `2026-11-22T07:31:28.576123456Z stdout F text` (kubernetes/design-proposals, kubelet-cri-logging).
//!
//! The third word is `F` for the end of a line and `P` for a piece that goes on. Further tags follow
//! after a colon, as that proposal has it; ours is `F:noeol`, last words to which no LF came.

use std::fmt;

use crate::time::Wall;

/// A stream of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The word in log files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Who said a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The program.
    Program(Stream),
    /// The manager, about lines that are not there.
    Wharf,
}

impl Source {
    /// The word in log files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Program(stream) => stream.as_str(),
            Self::Wharf => "wharf",
        }
    }

    fn from_bytes(word: &[u8]) -> Option<Self> {
        match word {
            b"stdout" => Some(Self::Program(Stream::Stdout)),
            b"stderr" => Some(Self::Program(Stream::Stderr)),
            b"wharf" => Some(Self::Wharf),
            _ => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A line, or a piece of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When its end was read from the program.
    pub at: Wall,
    /// Who said it.
    pub source: Source,
    /// The program's line goes on in the next piece from the same source, or has not ended yet.
    pub partial: bool,
    /// It ends here though the program wrote no LF: its last words.
    pub noeol: bool,
    /// What the program wrote, byte for byte, without LF.
    pub text: Vec<u8>,
}

impl Line {
    /// Appends what the program wrote, byte for byte; nothing where the program did not say it.
    pub fn put_raw(&self, out: &mut Vec<u8>) {
        if let Source::Program(_) = self.source {
            out.extend_from_slice(&self.text);
            if !self.partial && !self.noeol {
                out.push(b'\n');
            }
        }
    }
}

/// What stands before the text of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) at: Wall,
    pub(super) source: Source,
    pub(super) partial: bool,
    noeol: bool,
    /// Where the text begins.
    from: usize,
}

/// Reads lines. It remembers the last time, since many lines in a row have the same.
#[derive(Debug, Default)]
pub(super) struct Parser {
    written: Vec<u8>,
    at: Wall,
}

impl Parser {
    /// The line in `bytes` (without LF), where it is one.
    pub(super) fn parse(&mut self, bytes: &[u8]) -> Option<Line> {
        let Head { at, source, partial, noeol, from } = self.head(bytes)?;
        Some(Line { at, source, partial, noeol, text: bytes[from..].to_vec() })
    }

    /// What stands before the text.
    pub(super) fn head(&mut self, bytes: &[u8]) -> Option<Head> {
        let stamp = memchr::memchr(b' ', bytes)?;
        let word = stamp + 1 + memchr::memchr(b' ', &bytes[stamp + 1..])?;
        let source = Source::from_bytes(&bytes[stamp + 1..word])?;
        let tags = word + 1 + memchr::memchr(b' ', &bytes[word + 1..])?;
        let (partial, noeol) = flags(&bytes[word + 1..tags])?;
        if bytes[..stamp] != self.written {
            self.at = std::str::from_utf8(&bytes[..stamp]).ok()?.parse().ok()?;
            self.written.clear();
            self.written.extend_from_slice(&bytes[..stamp]);
        }
        Some(Head { at: self.at, source, partial, noeol, from: tags + 1 })
    }
}

/// The lines in `bytes`, which are lines of a log file; what has not the format is passed over.
pub fn parse_lines(bytes: &[u8]) -> impl Iterator<Item = Line> {
    let mut parser = Parser::default();
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    lines.filter_map(move |line| parser.parse(line.strip_suffix(b"\n").unwrap_or(line)))
}

/// Whether a line is partial, and whether its end came without LF. Tags of others are passed over.
fn flags(tags: &[u8]) -> Option<(bool, bool)> {
    let mut tags = tags.split(|byte| *byte == b':');
    let partial = match tags.next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    Some((partial, tags.any(|tag| tag == b"noeol")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_others_are_not() {
        let mut parser = Parser::default();
        let line = parser.parse(b"2026-11-22T07:31:28.576123456Z stderr P a  b \r").unwrap();
        assert_eq!(line.at.to_string(), "2026-11-22T07:31:28.576123456Z");
        assert_eq!((line.source, line.partial), (Source::Program(Stream::Stderr), true));
        assert_eq!(line.text, b"a  b \r");
        let line = parser.parse(b"2026-11-22T07:31:28.576123456Z wharf F ").unwrap();
        assert_eq!((line.source, line.partial, line.text), (Source::Wharf, false, Vec::new()));
        let line =
            parser.parse(b"2026-11-22T07:31:28.576123456Z stdout F:other:noeol bye").unwrap();
        assert_eq!((line.partial, line.noeol, &line.text[..]), (false, true, &b"bye"[..]));
        for bad in [
            "",
            "text",
            "2026-11-22T07:31:28.576123456Z stdout F",
            "2026-11-22T07:31:28.576123456Z stdout X text",
            "2026-11-22T07:31:28.576123456Z stdin F text",
            "2026-11-22T07:31:28.576123456Z stdout FF text",
            "2026-11-22T07:31:28.576123456Z stdout :F text",
            "yesterday stdout F text",
        ] {
            assert_eq!(parser.parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
