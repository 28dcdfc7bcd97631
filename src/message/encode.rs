//! Frames to bytes. A large payload is not copied, unless NDJSON has to write it as text.

use bytes::{Bytes, BytesMut};

use super::decode::{head, size};
use super::error::Fault;
use super::frame::{Frame, IDS};
use super::kind::{Class, Flags, misflagged};
use super::payload::Payloads;
use super::{MAX_FRAME, Mode, line};

/// A payload up to this size is copied into one piece with what stands around it, so that the peer
/// gets it in one read; a larger one is not worth the copy.
const JOINED: usize = 4096;

/// How frames are written to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Form {
    /// The form they have.
    pub mode: Mode,
    /// What opaque payloads are to the peer; only NDJSON makes a difference of it.
    pub enc: Payloads,
    /// The largest payload that the peer takes, in bytes, with the trace context and the address
    /// before it.
    pub max_frame: u64,
}

impl Form {
    /// The form for a peer of which nothing more is known.
    pub fn new(mode: Mode) -> Self {
        Self { mode, enc: Payloads::Raw, max_frame: MAX_FRAME }
    }
}

/// A frame ready to be written: three pieces, one after the other, of which any may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    /// What stands before the payload.
    pub head: Bytes,
    /// The payload.
    pub body: Bytes,
    /// What stands after it.
    pub tail: Bytes,
}

impl Wire {
    /// Its size in bytes; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len() + self.tail.len()
    }

    /// Its pieces that are not empty, in order.
    pub fn into_pieces(self) -> Vec<Bytes> {
        [self.head, self.body, self.tail].into_iter().filter(|piece| !piece.is_empty()).collect()
    }

    /// All of it in one piece, which copies it.
    pub fn to_vec(&self) -> Vec<u8> {
        [&self.head[..], &self.body, &self.tail].concat()
    }

    pub(super) fn new(head: Vec<u8>, body: Bytes, tail: &'static [u8]) -> Self {
        if body.len() > JOINED {
            return Self { head: head.into(), body, tail: Bytes::from_static(tail) };
        }
        let mut whole = BytesMut::from(&head[..]);
        whole.extend_from_slice(&body);
        whole.extend_from_slice(tail);
        Self { head: whole.freeze(), body: Bytes::new(), tail: Bytes::new() }
    }
}

/// Why a frame cannot be sent. Nothing of it has been written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It is larger than the peer takes.
    #[error("send a frame with a payload of {size} bytes: {max} are allowed")]
    TooLarge {
        /// The size of what follows the header, in bytes.
        size: u64,
        /// The most that is allowed, in bytes.
        max: u64,
    },
    /// Its parts do not go together.
    #[error("send a frame that {what}")]
    Misfit {
        /// In words that can follow "a frame that".
        what: String,
    },
}

impl Frame {
    /// Its bytes, in the form that the peer wants.
    pub fn encode(&self, form: &Form) -> Result<Wire, EncodeError> {
        let misfit = |what| EncodeError::Misfit { what };
        if let Some(what) = misflagged(self.kind, self.flags()) {
            return Err(misfit(what));
        }
        if self.id >= IDS {
            return Err(misfit(format!("has the id {}, which is not below 2^53", self.id)));
        }
        if self.kind.class() == Class::Empty && !self.payload.is_empty() {
            return Err(misfit(format!("has a payload, and {} has none", self.kind)));
        }
        let before = self.before()?;
        let size = size(before.len() + self.payload.len());
        let max = form.max_frame.min(u64::from(u32::MAX) - 10);
        if size > max {
            return Err(EncodeError::TooLarge { size, max });
        }
        match form.mode {
            Mode::Frame => {
                let mut head = head(self.kind, self.flags(), self.id, size).to_vec();
                head.extend(before);
                Ok(Wire::new(head, self.payload.clone(), b""))
            }
            Mode::Ndjson => line::write(self, form.enc).map_err(|fault| match fault {
                Fault::Garbage { what } => misfit(what),
                other => misfit(other.to_string()),
            }),
        }
    }

    /// All its flags, as the header has them.
    fn flags(&self) -> Flags {
        let mut flags = self.flags;
        if self.trace.is_some() {
            flags = flags.with(Flags::TRACE);
        }
        if self.to.is_some() {
            flags = flags.with(Flags::TO);
        }
        flags
    }

    /// What stands between header and payload.
    fn before(&self) -> Result<Vec<u8>, EncodeError> {
        let mut before = Vec::new();
        if let Some(trace) = self.trace {
            before.extend(trace.to_bytes());
        }
        if let Some(to) = &self.to {
            let text = serde_json::to_vec(to).expect("an address is a text or a number");
            let length = u16::try_from(text.len()).map_err(|_| EncodeError::Misfit {
                what: format!("has an address of {} bytes", text.len()),
            })?;
            before.extend(length.to_be_bytes());
            before.extend(text);
        }
        Ok(before)
    }
}
