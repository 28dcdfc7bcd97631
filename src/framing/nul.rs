//! `nul`: a zero byte ends a message. Nothing else is looked at or altered.
//!
//! Outgoing, a message with a zero byte in it is refused.

use bytes::Bytes;
use memchr::memchr;

use super::error::{EncodeError, Fault};
use super::gather::{Gather, Step, memory, size};

pub(super) fn step(text: &mut Gather, bytes: &[u8], max: u64) -> Result<Step, Fault> {
    let end = memchr(0, bytes);
    let piece = &bytes[..end.unwrap_or(bytes.len())];
    if text.len() + piece.len() > memory(max) {
        return Err(Fault::Oversize { announced: None, max });
    }
    text.add(piece, memory(max));
    Ok(match end {
        Some(at) => Step::whole(at + 1, text.take()),
        None => Step::more(piece.len()),
    })
}

/// What is left of the stream without a zero byte.
pub(super) fn finish(text: &mut Gather) -> Option<Bytes> {
    (!text.is_empty()).then(|| text.take())
}

pub(super) fn check(payload: &[u8]) -> Result<(), EncodeError> {
    match memchr(0, payload) {
        Some(at) => Err(EncodeError::Delimiter { at: size(at) }),
        None => Ok(()),
    }
}
