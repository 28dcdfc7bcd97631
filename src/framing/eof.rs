//! `eof`: the whole output, until its end, is one message: `sort`, `wc`, `gzip -c`.
//!
//! The message may be empty, and whether it is worth anything is known only from how the program
//! ended; that is not decided here. Outgoing a message is written as it is, and what closes the
//! input after it is not decided here either.

use bytes::Bytes;

use super::error::Fault;
use super::gather::{Gather, Step, memory};

pub(super) fn step(output: &mut Gather, bytes: &[u8], max: u64) -> Result<Step, Fault> {
    if output.len() + bytes.len() > memory(max) {
        return Err(Fault::Oversize { announced: None, max });
    }
    output.add(bytes, memory(max));
    Ok(Step::more(bytes.len()))
}

pub(super) fn finish(output: &mut Gather) -> Bytes {
    output.take()
}
