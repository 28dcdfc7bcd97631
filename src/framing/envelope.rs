//! Wire protocol 1, as `docs/PROTOCOL.md` has it: frames with a kind and an id, in a binary form or as
//! lines of JSON, which the first byte tells.
//!
//! The cutting is [`message::Decoder`]'s; this makes one more framing of it. A line of JSON that is no
//! frame is stray text where that is borne, and an error where it is not.

use bytes::Bytes;

use super::error::Fault;
use super::gather::{Stand, Step, size};
use crate::message::{self, Decoder, HEADER, Kind, Read};

pub(super) fn step(frames: &mut Decoder, bytes: &[u8], strays: bool) -> Result<Step, Fault> {
    let step = frames.step(bytes)?;
    match step.read {
        Some(Read::Frame(frame)) => Ok(Step::frame(step.used, frame)),
        Some(Read::Stray { line, .. }) if strays => {
            let line: Bytes = line.iter().copied().chain([b'\n']).collect();
            Ok(Step::stray(step.used, line, true))
        }
        Some(Read::Stray { error, .. }) => Err(error.fault),
        None if step.over => Ok(Step::between(step.used)),
        None => Ok(Step::more(step.used)),
    }
}

pub(super) fn finish(frames: &mut Decoder) -> Result<(), Fault> {
    frames.finish().map_err(|error| error.fault)
}

/// The header of a frame of data.
pub(super) fn head(payload: &[u8]) -> [u8; HEADER] {
    message::head(Kind::Data, message::Flags::default(), 0, size(payload.len()))
}

impl Stand for Decoder {
    fn held(&self) -> usize {
        Decoder::held(self)
    }

    fn seen(&self) -> Vec<u8> {
        Decoder::seen(self)
    }

    fn capacity(&self) -> usize {
        Decoder::capacity(self)
    }
}
