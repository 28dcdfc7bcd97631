//! From a program's bytes to lines of a log file: as fast as memory is copied, nothing altered.
//!
//! It touches no file. What it holds back is an unfinished line of at most 64 KiB, and nothing while
//! there is none, so that a thousand silent services cost nothing. A prompt, which is an unfinished
//! line that somebody waits before, is let go of by [`LineFormatter::settle`].

use std::io::Write as _;

use memchr::memchr;

use super::line::{Source, Stream};
use crate::time::Wall;

/// The longest text of one line in a log file, in bytes; longer lines are cut into pieces.
pub const PIECE: usize = 64 << 10;

/// The end of a line.
const FULL: &[u8] = b"F ";
/// The length of what ends a line.
const LF: usize = 1;
/// A piece that goes on.
const PIECE_TAG: &[u8] = b"P ";
/// The end of a line to which no LF came.
const NO_EOL: &[u8] = b"F:noeol ";

/// Makes lines of the output of one replica, both its streams.
///
/// ```
/// # use wharf::output::{LineFormatter, Stream};
/// let mut formatter = LineFormatter::default();
/// let mut out = Vec::new();
/// formatter.push(Stream::Stdout, wharf::time::Wall(0), b"hello\nwor", &mut out);
/// formatter.push(Stream::Stderr, wharf::time::Wall(0), b"oh\n", &mut out);
/// formatter.push(Stream::Stdout, wharf::time::Wall(1), b"ld\n", &mut out);
/// assert_eq!(String::from_utf8_lossy(&out), "\
/// 1970-01-01T00:00:00.000000000Z stdout F hello
/// 1970-01-01T00:00:00.000000000Z stderr F oh
/// 1970-01-01T00:00:00.000000001Z stdout F world
/// ");
/// ```
#[derive(Debug, Default)]
pub struct LineFormatter {
    stdout: Rest,
    stderr: Rest,
}

/// The beginning of a line whose end has not come yet, at most [`PIECE`] bytes.
#[derive(Debug, Default)]
struct Rest {
    bytes: Vec<u8>,
    at: Wall,
    /// A piece of this line has been put out already.
    open: bool,
    /// `bytes` grew since they were last looked at by [`LineFormatter::settle`].
    fresh: bool,
}

impl LineFormatter {
    /// Appends to `out` the lines that `bytes`, read at `at`, bring to an end; returns how many these are.
    pub fn push(&mut self, stream: Stream, at: Wall, mut bytes: &[u8], out: &mut Vec<u8>) -> usize {
        let rest = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let header = Header::new(at, Source::Program(stream));
        // A guess that spares most of the growing: lines of a hundred bytes.
        out.reserve(bytes.len() + bytes.len() / 2);
        let mut count = 0;
        if !rest.bytes.is_empty()
            && let Some(after) = rest.go_on(&header, bytes, out)
        {
            count += 1;
            bytes = after;
        }
        while let Some(end) = memchr(b'\n', bytes) {
            let (line, after) = bytes.split_at(end + 1);
            let last = whole_pieces(&header, line, LF, &mut count, out);
            header.put_line(last, out);
            count += 1;
            rest.open = false;
            bytes = after;
        }
        let left = whole_pieces(&header, bytes, 0, &mut count, out);
        rest.open |= left.len() < bytes.len();
        if !left.is_empty() {
            rest.bytes.extend_from_slice(left);
            rest.at = at;
            rest.fresh = true;
        }
        count
    }

    /// Appends as a piece (`P`) what was held back at the call before this one already and has not
    /// grown since: called again and again while something is held, it lets go of a prompt.
    pub fn settle(&mut self, out: &mut Vec<u8>) {
        for (stream, rest) in self.streams() {
            if !rest.bytes.is_empty() && !std::mem::take(&mut rest.fresh) {
                let bytes = std::mem::take(&mut rest.bytes);
                Header::new(rest.at, Source::Program(stream)).put(PIECE_TAG, &bytes, out);
                rest.open = true;
            }
        }
    }

    /// Appends what is held back, for the program has ended. Its last words are a whole line, though
    /// no LF came: the next run of the program must not seem to go on with them. That none came is
    /// kept too (`F:noeol`).
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        for (stream, rest) in self.streams() {
            let Rest { bytes, at, open, .. } = std::mem::take(rest);
            if open || !bytes.is_empty() {
                Header::new(at, Source::Program(stream)).put(NO_EOL, &bytes, out);
            }
        }
    }

    fn streams(&mut self) -> [(Stream, &mut Rest); 2] {
        [(Stream::Stdout, &mut self.stdout), (Stream::Stderr, &mut self.stderr)]
    }

    /// How many bytes of a stream are held back, and whether the last line of it that was put out is a
    /// piece which goes on.
    pub fn standing(&self, stream: Stream) -> (usize, bool) {
        let rest = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        (rest.bytes.len(), rest.open)
    }

    /// Goes on with the output of a program whose last line of `stream` in the log is a piece.
    pub fn resume(&mut self, stream: Stream) {
        match stream {
            Stream::Stdout => self.stdout.open = true,
            Stream::Stderr => self.stderr.open = true,
        }
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.stdout.bytes.len() + self.stderr.bytes.len()
    }
}

impl Rest {
    /// Completes the held line or piece with the beginning of `bytes`; returns what comes after it. `None`:
    /// it goes on beyond them.
    fn go_on<'a>(
        &mut self,
        header: &Header,
        bytes: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Option<&'a [u8]> {
        let room = PIECE - self.bytes.len();
        let near = &bytes[..bytes.len().min(room + 1)];
        let (tag, end, next) = match memchr(b'\n', near) {
            Some(end) => (FULL, end, end + 1),
            None if bytes.len() > room => (PIECE_TAG, room, room),
            None => return None,
        };
        self.open = tag == PIECE_TAG;
        // Not to be copied twice: what is held and what completes it go out one after the other.
        header.begin(tag, out);
        out.extend_from_slice(&std::mem::take(&mut self.bytes));
        out.extend_from_slice(&bytes[..end]);
        out.push(b'\n');
        Some(&bytes[next..])
    }
}

/// Puts out as many pieces of full length as `text` has beyond what a last piece takes, its last `end` bytes
/// apart, and counts them.
fn whole_pieces<'a>(
    header: &Header,
    mut text: &'a [u8],
    end: usize,
    count: &mut usize,
    out: &mut Vec<u8>,
) -> &'a [u8] {
    while text.len() > PIECE + end {
        let (piece, after) = text.split_at(PIECE);
        header.put(PIECE_TAG, piece, out);
        *count += 1;
        text = after;
    }
    text
}

/// A line that says that lines are missing: `… wharf F dropped 12345 bytes of stdout: disk full`.
pub fn dropped_marker(at: Wall, stream: Stream, bytes: u64, why: &str, out: &mut Vec<u8>) {
    let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = format!("dropped {bytes} bytes of {stream}: {why}");
    Header::new(at, Source::Wharf).put(FULL, text.as_bytes(), out);
}

/// What is not certain of some bytes of a program's output after the death of a manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// They may be in the log twice.
    Twice,
    /// They may be missing.
    Missing,
    /// They are missing.
    Lost,
}

/// A line that says of which bytes of a stream, counted from the start of the program, something is not
/// certain: `… wharf F bytes 120 to 160 of stdout may be here twice: …`.
pub fn doubt_marker(
    at: Wall,
    stream: Stream,
    bytes: core::ops::Range<u64>,
    doubt: Doubt,
    out: &mut Vec<u8>,
) {
    let what = match doubt {
        Doubt::Twice => "may be here twice: the manager was killed while it wrote them",
        Doubt::Missing => "may be missing: the manager was killed while it read them",
        Doubt::Lost => "are missing: the manager was killed before it had written them",
    };
    let text = format!("bytes {} to {} of {stream} {what}", bytes.start, bytes.end);
    Header::new(at, Source::Wharf).put(FULL, text.as_bytes(), out);
}

/// The end of a line of `stream` of which only pieces are in the file, and nobody is left who would
/// write the rest.
pub(super) fn cut_off(at: Wall, stream: Stream, out: &mut Vec<u8>) {
    Header::new(at, Source::Program(stream)).put(NO_EOL, b"", out);
}

/// Time and source as text, made once for many lines.
struct Header {
    /// With the tag of a whole line, which is what nearly every line has.
    bytes: [u8; 64],
    /// How much of that comes before the tag.
    len: usize,
}

impl Header {
    fn new(at: Wall, source: Source) -> Self {
        let mut bytes = [0; 64];
        let mut free = &mut bytes[..];
        write!(free, "{at} {} ", source.as_str()).expect("a time and a word have 37 bytes");
        let len = 64 - free.len();
        bytes[len..len + FULL.len()].copy_from_slice(FULL);
        Self { bytes, len }
    }

    fn begin(&self, tag: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[..self.len]);
        out.extend_from_slice(tag);
    }

    fn put(&self, tag: &[u8], text: &[u8], out: &mut Vec<u8>) {
        self.begin(tag, out);
        out.extend_from_slice(text);
        out.push(b'\n');
    }

    /// Puts out a line together with its LF: two copies, and no more.
    fn put_line(&self, line: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[..self.len + FULL.len()]);
        out.extend_from_slice(line);
    }
}
