//! `lines`: LF ends a message, and one CR before the LF is not part of it.
//!
//! Nothing else is looked at or altered: NUL and bytes that are no UTF-8 pass through. A CR
//! elsewhere is content.
//!
//! Outgoing, a message that ends with LF is written as it is and any other gets one. LF inside is
//! allowed: a request of several lines is an ordinary thing to say to `bc` or `sqlite3`, though the
//! program may take it for several messages.

use bytes::Bytes;
use memchr::memchr;

use super::error::Fault;
use super::gather::{Gather, Step, memory};

const LF: u8 = b'\n';
const CR: u8 = b'\r';

/// Gathers a line without its end; true once it is whole. The number is that of the bytes used.
pub(super) fn gather(line: &mut Gather, bytes: &[u8], max: u64) -> Result<(usize, bool), Fault> {
    let end = memchr(LF, bytes);
    let piece = &bytes[..end.unwrap_or(bytes.len())];
    let last = piece.last().or(line.as_slice().last());
    // A CR at the end is part of the line's end, or will turn out to be.
    let most = memory(max).saturating_add(usize::from(last == Some(&CR)));
    if line.len() + piece.len() > most {
        return Err(Fault::Oversize { announced: None, max });
    }
    line.add(piece, most);
    if end.is_none() {
        return Ok((piece.len(), false));
    }
    line.strip(CR);
    Ok((piece.len() + 1, true))
}

pub(super) fn step(line: &mut Gather, bytes: &[u8], max: u64) -> Result<Step, Fault> {
    let (used, whole) = gather(line, bytes, max)?;
    Ok(if whole { Step::whole(used, line.take()) } else { Step::more(used) })
}

/// What is left of the stream without an LF. A CR at its end is content, as no LF follows.
pub(super) fn finish(line: &mut Gather, max: u64) -> Result<Option<Bytes>, Fault> {
    if line.len() > memory(max) {
        return Err(Fault::Oversize { announced: None, max });
    }
    Ok((!line.is_empty()).then(|| line.take()))
}

/// What has to be written after a message.
pub(super) fn tail(payload: &[u8]) -> &'static [u8] {
    if payload.last() == Some(&LF) { b"" } else { b"\n" }
}
