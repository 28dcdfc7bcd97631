//! `content-length`: a block of headers that ends with an empty line, one of which says how long the
//! message after it is. Language servers and debug adapters speak it (Language Server Protocol,
//! "Base Protocol").
//!
//! The message is the body alone. `Content-Length` is found in any spelling of its letters and must
//! be there once; **all other headers are left out**: `Content-Type`, the only other one there is,
//! never says anything but UTF-8. Lines may end with CR LF or with LF alone. A line without a colon,
//! which is what a program prints that forgot where it is, is refused at its end.
//!
//! Where stray text is borne, a line among the headers is none unless its name begins with `Content-`
//! or `X-`; text without an LF may even stand before `Content-Length` in its line, and a second
//! `Content-Length` counts in the place of the first. The length itself is never guessed at.
//!
//! Outgoing there is one header, `Content-Length`, and lines end with CR LF.

use bytes::Bytes;
use memchr::{memchr, memrchr};
use serde::{Deserialize, Serialize};

use super::error::{Fault, Part, Sample};
use super::gather::{Gather, Stand, Step, Stray, decimal, memory, size};

/// The largest block of headers, in bytes; the usual one has 22.
const LARGEST_HEADER: usize = 8192;
const NAME: &str = "Content-Length";

/// Where in a message the stream stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct ContentLength {
    /// The headers; once they are whole, as much of them as a sample shows.
    head: Gather,
    /// Where in `head` the present line begins.
    line: usize,
    length: Option<u64>,
    /// The body, once the headers are whole.
    body: Option<Gather>,
    /// Within a line that is no header, which is borne.
    #[serde(default)]
    in_stray: bool,
}

impl ContentLength {
    /// Takes bytes. With `strays` lines among the headers are borne that are none.
    pub(super) fn step(&mut self, bytes: &[u8], max: u64, strays: bool) -> Result<Step, Fault> {
        let (Some(body), Some(length)) = (&mut self.body, self.length) else {
            return if strays { self.bearing_header(bytes, max) } else { self.header(bytes, max) };
        };
        let wanted = memory(length);
        let piece = &bytes[..bytes.len().min(wanted - body.len())];
        body.add(piece, wanted);
        if body.len() < wanted {
            return Ok(Step::more(piece.len()));
        }
        let message = body.take();
        *self = Self::default();
        Ok(Step::whole(piece.len(), message))
    }

    /// Takes what there is of one line.
    fn header(&mut self, bytes: &[u8], max: u64) -> Result<Step, Fault> {
        let end = memchr(b'\n', bytes);
        let used = end.map_or(bytes.len(), |at| at + 1);
        if self.head.len() + used > LARGEST_HEADER {
            let what = format!("has headers of more than {LARGEST_HEADER} bytes");
            return Err(Fault::Garbage { what });
        }
        self.head.add(&bytes[..used], LARGEST_HEADER);
        if end.is_none() {
            return Ok(Step::more(used));
        }
        let line = unended(&self.head.as_slice()[self.line..]);
        if !line.is_empty() {
            let length = length(line, max)?;
            if length.is_some() && self.length.is_some() {
                let what = format!("has {NAME} twice");
                return Err(Fault::Garbage { what });
            }
            self.length = self.length.or(length);
            self.line = self.head.len();
            return Ok(Step::more(used));
        }
        self.headers_end(used)
    }

    /// The same where other text may stand between the headers.
    fn bearing_header(&mut self, bytes: &[u8], max: u64) -> Result<Step, Fault> {
        let end = memchr(b'\n', bytes);
        let used = end.map_or(bytes.len(), |at| at + 1);
        let begins = !self.in_stray;
        let held = self.head.len() - self.line;
        if self.in_stray || held + used > LARGEST_HEADER {
            self.in_stray = end.is_none();
            let mut text = self.head.split_off(self.line);
            text.extend_from_slice(&bytes[..used]);
            return Ok(self.stray(used, text, begins));
        }
        self.head.add(&bytes[..used], 2 * LARGEST_HEADER);
        if end.is_none() {
            return Ok(Step::more(used));
        }
        let line = unended(&self.head.as_slice()[self.line..]);
        if line.is_empty() && self.length.is_some() {
            return self.headers_end(used);
        }
        // A text that the program did not end may stand before the header in its line.
        let from = if line.is_empty() { None } else { header_in(line) };
        let Some(from) = from else {
            let text = self.head.split_off(self.line);
            return Ok(self.stray(used, text, true));
        };
        if let Some(length) = length(&line[from..], max)? {
            // What looked like one before was a part of the other text.
            self.length = Some(length);
        }
        let header = self.head.split_off(self.line + from);
        let text = self.head.split_off(self.line);
        self.head.add(&header, 2 * LARGEST_HEADER);
        self.line = self.head.len();
        if self.line > LARGEST_HEADER {
            let what = format!("has headers of more than {LARGEST_HEADER} bytes");
            return Err(Fault::Garbage { what });
        }
        if text.is_empty() {
            return Ok(Step::more(used));
        }
        Ok(self.stray(used, text, true))
    }

    fn stray(&self, used: usize, text: Vec<u8>, begins: bool) -> Step {
        let between = self.head.is_empty();
        Step { between, ..Step::stray(used, text.into(), begins) }
    }

    /// What stands where a header should be when the stream ends, and is none.
    pub(super) fn stray_at_end(&mut self) -> Option<Stray> {
        if self.body.is_some() || self.length.is_some() || self.head.is_empty() {
            return None;
        }
        let bytes = self.head.split_off(0).into();
        *self = Self::default();
        Some(Stray { bytes, begins: true, at: 0 })
    }

    /// The empty line after the headers.
    fn headers_end(&mut self, used: usize) -> Result<Step, Fault> {
        match self.length {
            None => Err(Fault::Garbage { what: format!("has no {NAME} in its headers") }),
            Some(0) => {
                *self = Self::default();
                Ok(Step::whole(used, Bytes::new()))
            }
            Some(_) => {
                self.head.truncate(Sample::MOST);
                self.head.shrink();
                self.body = Some(Gather::default());
                Ok(Step::more(used))
            }
        }
    }

    pub(super) fn finish(&self) -> Result<(), Fault> {
        let (part, got, wanted) = match (&self.body, self.length) {
            (Some(body), Some(length)) => (Part::Body, size(body.len()), length),
            _ if self.head.is_empty() => return Ok(()),
            _ => (Part::Header, size(self.head.len()), size(self.head.len()) + 1),
        };
        Err(Fault::Truncated { part, got, wanted })
    }
}

/// A line without what ends it.
fn unended(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Where in a line of a stream with other text a header begins: at its beginning, or, if it is the
/// one with the length, anywhere. Names of headers begin with `Content-` or `X-`.
fn header_in(line: &[u8]) -> Option<usize> {
    let begins = |name: &str| {
        let first = line.get(..name.len()).unwrap_or_default();
        first.eq_ignore_ascii_case(name.as_bytes())
    };
    if let (true, Some(colon)) = (begins("Content-") || begins("X-"), memchr(b':', line)) {
        let name = &line[..colon];
        let token = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        if name.trim_ascii_end().iter().all(token) {
            return Some(0);
        }
    }
    let colon = memrchr(b':', line)?;
    let from = colon.checked_sub(NAME.len())?;
    let is_name = line[from..colon].eq_ignore_ascii_case(NAME.as_bytes());
    (is_name && decimal(line[colon + 1..].trim_ascii()).is_some()).then_some(from)
}

/// What is wrong with a line that stands where a header should.
pub(super) fn no_header(line: &[u8]) -> Fault {
    let shown = unended(line);
    let shown = shown[..shown.len().min(Sample::MOST)].escape_ascii();
    Fault::Garbage { what: format!("has \"{shown}\" where a header such as \"{NAME}: 12\" is due") }
}

/// The length that a line announces; `None` when it says something else.
fn length(line: &[u8], max: u64) -> Result<Option<u64>, Fault> {
    let shown = || line[..line.len().min(Sample::MOST)].escape_ascii();
    let Some(colon) = memchr(b':', line) else {
        return Err(no_header(line));
    };
    if !line[..colon].trim_ascii().eq_ignore_ascii_case(NAME.as_bytes()) {
        return Ok(None);
    }
    let length = decimal(line[colon + 1..].trim_ascii()).ok_or_else(|| {
        let what = format!("has \"{}\", which is no length", shown());
        Fault::Garbage { what }
    })?;
    if length > max {
        return Err(Fault::Oversize { announced: Some(length), max });
    }
    Ok(Some(length))
}

impl Stand for ContentLength {
    fn held(&self) -> usize {
        self.head.len() + self.body.as_ref().map_or(0, Gather::len)
    }

    fn seen(&self) -> Vec<u8> {
        let mut seen = self.head.seen();
        seen.extend(self.body.iter().flat_map(Stand::seen));
        seen
    }

    fn capacity(&self) -> usize {
        self.head.capacity() + self.body.as_ref().map_or(0, Stand::capacity)
    }
}

/// What goes before a message.
pub(super) fn head(payload: &[u8]) -> Vec<u8> {
    format!("{NAME}: {}\r\n\r\n", payload.len()).into_bytes()
}
