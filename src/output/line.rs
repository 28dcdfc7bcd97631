//! One line of a log file, in the CRI log format that Kubernetes, Fluent Bit and Vector read:
//! `2026-11-22T07:31:28.576123456Z stdout F text` (kubernetes/design-proposals, kubelet-cri-logging).

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
    /// The program's line goes on in the next piece from the same source.
    pub partial: bool,
    /// What the program wrote, byte for byte, without LF.
    pub text: Vec<u8>,
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
        let (at, source, partial, from) = self.header(bytes)?;
        Some(Line { at, source, partial, text: bytes[from..].to_vec() })
    }

    /// Time, source, whether it is partial, and where the text begins.
    fn header(&mut self, bytes: &[u8]) -> Option<(Wall, Source, bool, usize)> {
        let stamp = memchr::memchr(b' ', bytes)?;
        let word = stamp + 1 + memchr::memchr(b' ', &bytes[stamp + 1..])?;
        let source = Source::from_bytes(&bytes[stamp + 1..word])?;
        let partial = is_partial(bytes.get(word + 1..word + 3)?)?;
        if bytes[..stamp] != self.written {
            self.at = std::str::from_utf8(&bytes[..stamp]).ok()?.parse().ok()?;
            self.written.clear();
            self.written.extend_from_slice(&bytes[..stamp]);
        }
        Some((self.at, source, partial, word + 3))
    }

    /// Whether `bytes` end a line of the program.
    pub(super) fn is_whole(&mut self, bytes: &[u8]) -> bool {
        self.header(bytes).is_some_and(|header| !header.2)
    }

    /// The time of a line.
    pub(super) fn time(&mut self, bytes: &[u8]) -> Option<Wall> {
        self.header(bytes).map(|header| header.0)
    }
}

fn is_partial(flag: &[u8]) -> Option<bool> {
    match flag {
        b"F " => Some(false),
        b"P " => Some(true),
        _ => None,
    }
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
        for bad in [
            "",
            "text",
            "2026-11-22T07:31:28.576123456Z stdout F",
            "2026-11-22T07:31:28.576123456Z stdout X text",
            "2026-11-22T07:31:28.576123456Z stdin F text",
            "yesterday stdout F text",
        ] {
            assert_eq!(parser.parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
