//! One frame of wire protocol 1, in neither of its forms: what both forms say.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::kind::{Flags, Kind};
use super::payload::Address;
use crate::bytes_text;

/// How many bytes stand before the payload in the binary form.
pub const HEADER: usize = 14;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// [`Flags::MORE`], [`Flags::NOREPLY`] and [`Flags::FDS`]; the others follow from the fields below, or are gone
    /// because they mean nothing.
    pub flags: Flags,
    /// What it belongs to: a call, a channel, a monitor. Below 2^53, so that every language can hold it
    /// in any kind of number.
    pub id: u64,
    /// The trace that it is a part of.
    pub trace: Option<Trace>,
    /// Whom it is for, where that is not the peer.
    pub to: Option<Address>,
    /// What it says.
    #[serde(with = "bytes_text")]
    pub payload: Bytes,
}

/// The ids that frames may have end before this.
pub(super) const IDS: u64 = 1 << 53;

impl Frame {
    /// A frame without flags, trace or address.
    pub fn new(kind: Kind, id: u64, payload: impl Into<Bytes>) -> Self {
        let payload = payload.into();
        Self { kind, flags: Flags::default(), id, trace: None, to: None, payload }
    }

    /// The same with one more flag.
    #[must_use]
    pub fn with(mut self, flags: Flags) -> Self {
        self.flags = self.flags.with(flags);
        self
    }
}

/// A trace context as the W3C recommendation "Trace Context" has it, version 00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Trace {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span that this frame was sent in.
    pub parent_id: [u8; 8],
    /// Bit 0: sampled.
    pub flags: u8,
}

impl Trace {
    /// Its size in the binary form, in bytes.
    pub const SIZE: usize = 25;

    /// The binary form: trace, span, flags.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..16].copy_from_slice(&self.trace_id);
        bytes[16..24].copy_from_slice(&self.parent_id);
        bytes[24] = self.flags;
        bytes
    }

    /// Reads the binary form.
    pub fn of_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let (mut trace_id, mut parent_id) = ([0; 16], [0; 8]);
        trace_id.copy_from_slice(&bytes[..16]);
        parent_id.copy_from_slice(&bytes[16..24]);
        Self { trace_id, parent_id, flags: bytes[24] }
    }

    /// As in the header `traceparent`: `00-TRACE-SPAN-FLAGS` in lower-case hexadecimal.
    pub fn to_text(self) -> String {
        let trace = u128::from_be_bytes(self.trace_id);
        let parent = u64::from_be_bytes(self.parent_id);
        format!("00-{trace:032x}-{parent:016x}-{:02x}", self.flags)
    }

    /// Reads what [`Trace::to_text`] wrote.
    pub fn of_text(text: &str) -> Option<Self> {
        let [version, trace, parent, flags] = text.split('-').collect::<Vec<_>>()[..] else {
            return None;
        };
        let (mut trace_id, mut parent_id, mut bits) = ([0; 16], [0; 8], [0]);
        let read = version == "00"
            && hex(trace, &mut trace_id)
            && hex(parent, &mut parent_id)
            && hex(flags, &mut bits);
        read.then_some(Self { trace_id, parent_id, flags: bits[0] })
    }
}

/// Reads exactly as many bytes as there is room for from lower-case hexadecimal digits.
fn hex(text: &str, into: &mut [u8]) -> bool {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * into.len() {
        return false;
    }
    for (pair, byte) in text.as_bytes().chunks_exact(2).zip(into) {
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return false };
        *byte = high << 4 | low;
    }
    true
}
