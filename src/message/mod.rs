//! Wire protocol 1: what wharf and the programs and clients that know of it say to each other.
//!
//! `docs/PROTOCOL.md` is the specification; this is its one implementation. A [`Frame`] has a
//! [`Kind`], flags, an id and a payload. It travels in one of two forms, told apart by a [`Mode`]: with
//! a binary header, or as one JSON object a line. A [`Decoder`] makes frames of bytes in whatever
//! pieces they come, [`Frame::encode`] makes bytes of a frame without copying its payload. The payloads
//! of control frames are JSON, each with a type here ([`Hello`], [`Ready`], [`Failure`] …).
//!
//! Pure: nothing here reads, waits or looks at the clock, and nothing decides what a frame leads to.

mod decode;
mod encode;
mod error;
mod frame;
mod kind;
mod line;
mod payload;

#[cfg(test)]
mod tests;

pub(crate) use decode::head;
pub use decode::{Decoder, Read};
pub use encode::{EncodeError, Form, Wire};
pub use error::{Fault, FrameError, Part};
pub use frame::{Frame, HEADER, Trace};
pub use kind::{Class, Flags, Kind};
pub use payload::{
    Address, BadPayload, Credit, Down, Drain, Ending, Exit, Failure, Hello, Level, Log, Metric,
    MetricKind, Missed, Monitor, Payloads, Peer, Ready, Retry, Socket, Spawn,
};

/// The version of the protocol that this is.
pub const PROTO: u32 = 1;

/// The largest payload unless something else was agreed upon, in bytes.
pub const MAX_FRAME: u64 = 16 << 20;

/// The form in which frames travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A binary header before each payload.
    Frame,
    /// One JSON object a line.
    Ndjson,
}

impl Mode {
    /// Which form a stream has, by its first byte. In the binary form that is the highest byte of a
    /// length; an object begins with `{`, and what else is text, which somebody printed before the
    /// first frame, is a stray line of NDJSON. So in the binary form the first frame, HELLO, has less
    /// than [`Mode::FIRST`] bytes.
    pub fn of_first(byte: u8) -> Self {
        if (0x09..0x80).contains(&byte) { Self::Ndjson } else { Self::Frame }
    }

    /// What the length of the first frame of a stream is below, in bytes: 144 MiB.
    pub const FIRST: u64 = 0x09 << 24;

    /// The word of `PORT_MODES`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Ndjson => "ndjson",
        }
    }
}
