//! The rule of one service's framing, compiled once and shared by all its ports; messages to bytes.

use bytes::{Bytes, BytesMut};

use super::error::{BadRule, EncodeError};
use super::gather::size;
use super::{
    content_length, counted, envelope, json, lines, msgpack, netstring, nul, packet, pkt_line,
    prompt, stanza,
};
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
    /// Whether text between messages that is not protocol is skipped, where the framing can tell.
    pub(super) bears_strays: bool,
}

/// A framing, compiled.
#[derive(Debug)]
pub(super) enum Cut {
    Lines,
    Nul,
    Packet(PacketWidth),
    Counted(counted::Rule),
    Netstring,
    PktLine,
    ContentLength,
    Json,
    Msgpack,
    Stanza,
    Prompt(Box<prompt::Rule>),
    Eof,
    Raw,
    Envelope,
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
    /// Its size in bytes; 0 only in `eof`.
    #[expect(clippy::len_without_is_empty, reason = "but for one framing, a frame is never empty")]
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
            Framing::Netstring => Cut::Netstring,
            Framing::PktLine => Cut::PktLine,
            Framing::ContentLength => Cut::ContentLength,
            Framing::Json => Cut::Json,
            Framing::Msgpack => Cut::Msgpack,
            Framing::Stanza => Cut::Stanza,
            Framing::Prompt(pattern) => Cut::Prompt(Box::new(prompt::Rule::new(pattern)?)),
            Framing::Eof => Cut::Eof,
            Framing::Raw => Cut::Raw,
            Framing::Envelope => Cut::Envelope,
        };
        Ok(Self { cut, max: max_frame, bears_strays: false })
    }

    /// The same, but text between messages that is not protocol is given out as a
    /// [`Stray`](super::Stray) instead of being an error. Only `json`, `content-length` and protocol 1 can tell
    /// such text and find their way back: see [`Codec::can_bear_strays`].
    #[must_use]
    pub fn bearing_strays(self) -> Self {
        Self { bears_strays: true, ..self }
    }

    /// Whether, without bearing them, it would take lines for headers that are stray text. Whoever
    /// wants none reads a stream as if they were borne and takes the first of them for an error
    /// ([`Stray::into_error`](super::Stray::into_error)).
    pub fn is_lax(&self) -> bool {
        matches!(self.cut, Cut::ContentLength)
    }

    /// Whether its framing can tell text that is not protocol and go on behind it.
    pub fn can_bear_strays(&self) -> bool {
        matches!(self.cut, Cut::Json | Cut::ContentLength | Cut::Envelope)
    }

    /// The largest message that can be sent, in bytes. (In `pkt-line` a message of several packets
    /// may be larger, up to `max_frame`.)
    pub fn largest(&self) -> u64 {
        match self.cut {
            Cut::Packet(width) => self.max.min(packet::largest(width)),
            Cut::PktLine => self.max.min(pkt_line::LARGEST),
            _ => self.max,
        }
    }

    /// Whether the whole output of a program is one message, so that a program answers once, when
    /// its input has been closed.
    pub fn is_whole_output(&self) -> bool {
        matches!(self.cut, Cut::Eof)
    }

    /// Messages of a program as it wrote them, where their borders mean nothing: one.
    pub fn joined(&self, messages: Vec<Bytes>) -> Vec<Bytes> {
        match self.cut {
            Cut::Raw if messages.len() > 1 => vec![messages.concat().into()],
            _ => messages,
        }
    }

    /// Whether a message can be sent.
    pub fn check(&self, payload: &[u8]) -> Result<(), EncodeError> {
        if let Cut::PktLine = self.cut {
            return pkt_line::check(payload, self.max);
        }
        let max = self.largest();
        if size(payload.len()) > max {
            return Err(EncodeError::TooLarge { size: size(payload.len()), max });
        }
        match self.cut {
            Cut::Nul => nul::check(payload),
            Cut::Json => json::check(payload),
            Cut::Msgpack => msgpack::check(payload),
            Cut::Stanza => stanza::check(payload),
            Cut::Raw if payload.is_empty() => Err(EncodeError::Empty),
            _ => Ok(()),
        }
    }

    /// Makes a message ready to be written. A large payload is not copied. Of protocol 1 it is a frame
    /// of data in the binary form; see [`Frame::encode`](crate::message::Frame::encode) for the others.
    pub fn encode(&self, payload: Bytes) -> Result<Frame, EncodeError> {
        self.check(&payload)?;
        let (length, text, header);
        let (head, tail): (&[u8], &'static [u8]) = match self.cut {
            Cut::Lines | Cut::Counted(_) | Cut::Json | Cut::Prompt(_) => {
                (b"", lines::tail(&payload))
            }
            Cut::Nul => (b"", b"\0"),
            Cut::Packet(width) => {
                let announced = u32::try_from(payload.len()).unwrap_or(u32::MAX);
                length = packet::head(announced);
                (&length[length.len() - usize::from(packet::width(width))..], b"")
            }
            Cut::Netstring => {
                text = netstring::head(&payload);
                (&text, b",")
            }
            Cut::PktLine => {
                text = pkt_line::head(&payload);
                (&text, b"")
            }
            Cut::ContentLength => {
                text = content_length::head(&payload);
                (&text, b"")
            }
            Cut::Stanza => (b"", stanza::tail(&payload)),
            Cut::Envelope => {
                header = envelope::head(&payload);
                (&header, b"")
            }
            Cut::Msgpack | Cut::Eof | Cut::Raw => (b"", b""),
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
