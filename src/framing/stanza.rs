//! `stanza`: an empty line ends a message. `apt`'s methods, Debian's control files and the Go Text
//! Protocol are such blocks of lines.
//!
//! The message is its lines with LF between them; each line ends as in `lines`, at LF, without one
//! CR before it. *Every* empty line ends a message, so that two in a row are an empty message, and
//! that can be a reply: `hunspell -a` answers so to a line without a word. What the stream leaves
//! without its empty line is a message too.
//!
//! Outgoing the empty line is added where the message does not end with one. A message with an empty
//! line anywhere else is refused, since it would be two. (A program that takes lines and answers in
//! blocks is spoken to in `lines`, with `until: "^$"` for its replies.)

use bytes::Bytes;
use memchr::memchr;
use serde::{Deserialize, Serialize};

use super::error::{EncodeError, Fault};
use super::gather::{Gather, Stand, Step, memory, size};

const LF: u8 = b'\n';
const CR: u8 = b'\r';

/// Where in a block the stream stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Stanza {
    /// The lines, each with its LF, and what has come of the present one.
    lines: Gather,
    /// Where in `lines` the present one begins.
    line: usize,
}

impl Stanza {
    pub(super) fn step(&mut self, bytes: &[u8], max: u64) -> Result<Step, Fault> {
        let end = memchr(LF, bytes);
        let piece = &bytes[..end.unwrap_or(bytes.len())];
        let last = piece.last().or(self.lines.as_slice()[self.line..].last());
        // A CR at the end is part of the line's end, or will turn out to be; the LF before an empty
        // line is no part of the message either.
        let whole = self.lines.len() + piece.len();
        let pending_cr = usize::from(last == Some(&CR));
        let pending_lf = usize::from(self.line > 0 && whole - pending_cr == self.line);
        if whole - pending_cr - pending_lf > memory(max) {
            return Err(Fault::Oversize { announced: None, max });
        }
        self.lines.add(piece, memory(max).saturating_add(2));
        if end.is_none() {
            return Ok(Step::more(piece.len()));
        }
        if self.lines.len() > self.line {
            self.lines.strip(CR);
        }
        let used = piece.len() + 1;
        if self.lines.len() > self.line {
            self.lines.add(&[LF], memory(max).saturating_add(2));
            self.line = self.lines.len();
            return Ok(Step::more(used));
        }
        self.lines.strip(LF);
        self.line = 0;
        Ok(Step::whole(used, self.lines.take()))
    }

    /// What is left of the stream without an empty line. A CR at its end is content, as no LF
    /// follows.
    pub(super) fn finish(&mut self, max: u64) -> Result<Option<Bytes>, Fault> {
        if self.lines.is_empty() {
            return Ok(None);
        }
        if self.lines.len() == self.line {
            self.lines.strip(LF);
        }
        if self.lines.len() > memory(max) {
            return Err(Fault::Oversize { announced: None, max });
        }
        self.line = 0;
        Ok(Some(self.lines.take()))
    }
}

impl Stand for Stanza {
    fn held(&self) -> usize {
        self.lines.len()
    }

    fn seen(&self) -> Vec<u8> {
        self.lines.seen()
    }

    fn capacity(&self) -> usize {
        self.lines.capacity()
    }
}

/// What has to be written after a message, and where in it an empty line stands that would end it
/// too early.
fn end(payload: &[u8]) -> Result<&'static [u8], usize> {
    let mut at = 0;
    while let Some(length) = memchr(LF, &payload[at..]) {
        let line = &payload[at..at + length];
        if matches!(line, [] | [CR]) {
            let last = at + length + 1 == payload.len();
            return if last { Ok(b"") } else { Err(at) };
        }
        at += length + 1;
    }
    match &payload[at..] {
        [] => Ok(b"\n"),
        // With the LF after it, it would be an empty line.
        [CR] => Err(at),
        _ => Ok(b"\n\n"),
    }
}

pub(super) fn check(payload: &[u8]) -> Result<(), EncodeError> {
    end(payload).map(|_| ()).map_err(|at| EncodeError::EmptyLine { at: size(at) })
}

/// What has to be written after a message that [`check`] has passed.
pub(super) fn tail(payload: &[u8]) -> &'static [u8] {
    end(payload).unwrap_or(b"\n\n")
}
