//! `content-length`: a block of headers that ends with an empty line, one of which says how long the
//! message after it is. Language servers and debug adapters speak it (Language Server Protocol,
//! "Base Protocol").
//!
//! The message is the body alone. `Content-Length` is found in any spelling of its letters and must
//! be there once; **all other headers are left out**: `Content-Type`, the only other one there is,
//! never says anything but UTF-8. Lines may end with CR LF or with LF alone. A line without a colon,
//! which is what a program prints that forgot where it is, is refused at its end.
//!
//! Outgoing there is one header, `Content-Length`, and lines end with CR LF.

use bytes::Bytes;
use memchr::memchr;
use serde::{Deserialize, Serialize};

use super::error::{Fault, Part, Sample};
use super::gather::{Gather, Stand, Step, decimal, memory, size};

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
}

impl ContentLength {
    pub(super) fn step(&mut self, bytes: &[u8], max: u64) -> Result<Step, Fault> {
        let (Some(body), Some(length)) = (&mut self.body, self.length) else {
            return self.header(bytes, max);
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
        let line = &self.head.as_slice()[self.line..];
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
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

/// The length that a line announces; `None` when it says something else.
fn length(line: &[u8], max: u64) -> Result<Option<u64>, Fault> {
    let shown = || line[..line.len().min(Sample::MOST)].escape_ascii();
    let Some(colon) = memchr(b':', line) else {
        let what = format!("has \"{}\" where a header such as \"{NAME}: 12\" is due", shown());
        return Err(Fault::Garbage { what });
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
