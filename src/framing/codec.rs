//! The rule of one service's framing, compiled once and shared by all its ports; messages to bytes.

use bytes::{Bytes, BytesMut};

use super::error::{BadRule, EncodeError};
use super::gather::size;
use super::{counted, lines, nul, packet};
use crate::spec::{Framing, PacketWidth};

/// A message up to this size is copied into one piece with its head and tail, so that the program
/// gets it in one read; a larger one is not worth the copy.
const JOINED: usize = 4096;

/// How messages become bytes and bytes messages, for every port of one service.
#[derive(Debug)]
pub struct Codec {
    pub(super) cut: Cut,
    /// The largest message, in bytes; at least 1.
    pub(super) max: u64,
}

/// A framing, compiled.
#[derive(Debug)]
pub(super) enum Cut {
    Lines,
    Nul,
    Packet(PacketWidth),
    Counted(counted::Rule),
    Raw,
}

/// A message ready to be written: three pieces, one after the other, of which any may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What stands before the message.
    pub head: Bytes,
    /// The message.
    pub body: Bytes,
    /// What stands after it.
    pub tail: Bytes,
}

impl Frame {
    /// Its size in bytes; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len() + self.tail.len()
    }

    /// Its pieces that are not empty, in order.
    pub fn into_pieces(self) -> Vec<Bytes> {
        [self.head, self.body, self.tail].into_iter().filter(|piece| !piece.is_empty()).collect()
    }
}

impl Codec {
    /// Compiles a framing with its largest message in bytes.
    pub fn new(framing: &Framing, max_frame: u64) -> Result<Self, BadRule> {
        if max_frame == 0 {
            return Err(BadRule::NoFrame);
        }
        let cut = match framing {
            Framing::Lines => Cut::Lines,
            Framing::Nul => Cut::Nul,
            Framing::Packet(width) => Cut::Packet(*width),
            Framing::Counted { header, trailer } => {
                Cut::Counted(counted::Rule::new(header, trailer)?)
            }
            Framing::Raw => Cut::Raw,
        };
        Ok(Self { cut, max: max_frame })
    }

    /// The largest message that can be sent, in bytes.
    pub fn largest(&self) -> u64 {
        match self.cut {
            Cut::Packet(width) => self.max.min(packet::largest(width)),
            Cut::Lines | Cut::Nul | Cut::Counted(_) | Cut::Raw => self.max,
        }
    }

    /// Whether a message can be sent.
    pub fn check(&self, payload: &[u8]) -> Result<(), EncodeError> {
        let max = self.largest();
        if size(payload.len()) > max {
            return Err(EncodeError::TooLarge { size: size(payload.len()), max });
        }
        match self.cut {
            Cut::Nul => nul::check(payload),
            Cut::Raw if payload.is_empty() => Err(EncodeError::Empty),
            Cut::Lines | Cut::Packet(_) | Cut::Counted(_) | Cut::Raw => Ok(()),
        }
    }

    /// Makes a message ready to be written. A large payload is not copied.
    pub fn encode(&self, payload: Bytes) -> Result<Frame, EncodeError> {
        self.check(&payload)?;
        let length;
        let (head, tail): (&[u8], &'static [u8]) = match self.cut {
            Cut::Lines | Cut::Counted(_) => (b"", lines::tail(&payload)),
            Cut::Nul => (b"", b"\0"),
            Cut::Packet(width) => {
                let announced = u32::try_from(payload.len()).unwrap_or(u32::MAX);
                length = packet::head(announced);
                (&length[length.len() - usize::from(packet::width(width))..], b"")
            }
            Cut::Raw => (b"", b""),
        };
        if payload.len() > JOINED || (head.is_empty() && tail.is_empty()) {
            let head = Bytes::copy_from_slice(head);
            return Ok(Frame { head, body: payload, tail: Bytes::from_static(tail) });
        }
        let mut joined = BytesMut::with_capacity(head.len() + payload.len() + tail.len());
        joined.extend_from_slice(head);
        joined.extend_from_slice(&payload);
        joined.extend_from_slice(tail);
        Ok(Frame { head: Bytes::new(), body: joined.freeze(), tail: Bytes::new() })
    }
}
