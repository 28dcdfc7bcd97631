//! Where one stream stands: cuts it into messages, whatever the pieces in which it comes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::codec::{Codec, Cut};
use super::content_length::{self, ContentLength};
use super::counted::Counted;
use super::error::{Fault, FramingError, Sample};
use super::gather::{Gather, Stand, Step, Stray, size};
use super::json::Json;
use super::msgpack::Msgpack;
use super::netstring::Netstring;
use super::packet::{self, Packet};
use super::pkt_line::PktLine;
use super::prompt::Prompt;
use super::stanza::Stanza;
use super::{envelope, eof, lines, nul, raw};
use crate::message::{self, Mode};

/// A message that a program wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its bytes, without what framed them.
    pub payload: Bytes,
    /// Whether the stream ended before the message did: a last line without LF.
    pub partial: bool,
}

impl Stray {
    /// The error that it is where it is not borne.
    pub fn into_error(self) -> FramingError {
        let fault = content_length::no_header(&self.bytes);
        FramingError { fault, offset: self.at, sample: Sample::of(&self.bytes, b"") }
    }
}

/// What a stream holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A message.
    Message {
        /// It.
        message: Message,
        /// Where it begins, what frames it included, from the first byte of the stream.
        at: u64,
    },
    /// A frame of wire protocol 1.
    Frame {
        /// It.
        frame: message::Frame,
        /// The form in which it came.
        mode: Mode,
        /// Where it begins, from the first byte of the stream.
        at: u64,
    },
    /// A piece of text that is not protocol.
    Stray(Stray),
}

/// Where one stream stands. It belongs to the [`Codec`] it was made for and is given it each time;
/// serialised, it carries over what was read of an unfinished message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decoder {
    state: State,
    /// Where the present message begins, from the first byte of the stream.
    start: u64,
    /// How many bytes have been used.
    at: u64,
    failed: Option<Box<FramingError>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Lines(Gather),
    Nul(Gather),
    Packet(Packet),
    Counted(Counted),
    Netstring(Netstring),
    PktLine(PktLine),
    ContentLength(ContentLength),
    Json(Json),
    Msgpack(Msgpack),
    Stanza(Stanza),
    Prompt(Prompt),
    Eof(Gather),
    Raw,
    Envelope(Box<message::Decoder>),
}

impl State {
    /// Where the present message stands; `raw` never has an unfinished one.
    fn stand(&self) -> Option<&dyn Stand> {
        Some(match self {
            Self::Lines(gather) | Self::Nul(gather) | Self::Eof(gather) => gather,
            Self::Packet(packet) => packet,
            Self::Counted(counted) => counted,
            Self::Netstring(netstring) => netstring,
            Self::PktLine(packet) => packet,
            Self::ContentLength(message) => message,
            Self::Json(json) => json,
            Self::Msgpack(msgpack) => msgpack,
            Self::Stanza(stanza) => stanza,
            Self::Prompt(prompt) => prompt,
            Self::Envelope(frames) => &**frames,
            Self::Raw => return None,
        })
    }
}

/// What the end of a stream left.
struct Left {
    payload: Bytes,
    /// Whether the message lacks its end.
    partial: bool,
}

fn partial(payload: Option<Bytes>) -> Option<Left> {
    payload.map(|payload| Left { payload, partial: true })
}

fn whole(payload: Option<Bytes>) -> Option<Left> {
    payload.map(|payload| Left { payload, partial: false })
}

impl Decoder {
    /// Stands at the beginning of a stream.
    pub fn new(codec: &Codec) -> Self {
        let state = match codec.cut {
            Cut::Lines => State::Lines(Gather::default()),
            Cut::Nul => State::Nul(Gather::default()),
            Cut::Packet(_) => State::Packet(Packet::default()),
            Cut::Counted(_) => State::Counted(Counted::default()),
            Cut::Netstring => State::Netstring(Netstring::default()),
            Cut::PktLine => State::PktLine(PktLine::default()),
            Cut::ContentLength => State::ContentLength(ContentLength::default()),
            Cut::Json => State::Json(Json::default()),
            Cut::Msgpack => State::Msgpack(Msgpack::default()),
            Cut::Stanza => State::Stanza(Stanza::default()),
            Cut::Prompt(_) => State::Prompt(Prompt::default()),
            Cut::Eof => State::Eof(Gather::default()),
            Cut::Raw => State::Raw,
            Cut::Envelope => State::Envelope(Box::new(message::Decoder::of_any(codec.max))),
        };
        Self { state, start: 0, at: 0, failed: None }
    }

    /// Takes the next bytes of the stream and gives `out` each message they complete, in order.
    ///
    /// After an error, which is given once the messages before it are out, the decoder stays failed
    /// and says the same again. Text that is not protocol is left out, where it is borne at all, and so
    /// is what a frame says besides its payload.
    pub fn push(
        &mut self,
        codec: &Codec,
        bytes: &[u8],
        out: &mut impl FnMut(Message),
    ) -> Result<(), FramingError> {
        self.push_all(codec, bytes, &mut |said| match said {
            Said::Message { message, .. } => out(message),
            Said::Frame { frame, .. } => out(Message { payload: frame.payload, partial: false }),
            Said::Stray(_) => {}
        })
    }

    /// The same, with the text that is not protocol.
    pub fn push_all(
        &mut self,
        codec: &Codec,
        mut bytes: &[u8],
        out: &mut impl FnMut(Said),
    ) -> Result<(), FramingError> {
        if let Some(error) = &self.failed {
            return Err(FramingError::clone(error));
        }
        while !bytes.is_empty() {
            let (before, start) = (self.held_bytes(), self.start);
            let step = match self.step(codec, bytes) {
                Ok(step) => step,
                Err(fault) => return Err(self.fail(codec, fault, before, bytes)),
            };
            debug_assert!(
                step.used > 0 || step.message.is_some() || step.frame.is_some(),
                "a step without progress would never end"
            );
            self.at += size(step.used);
            bytes = &bytes[step.used..];
            if step.between {
                self.start = self.at;
            }
            if let Some(stray) = step.stray {
                out(Said::Stray(Stray { at: start, ..stray }));
            }
            if let Some(frame) = step.frame {
                let at = std::mem::replace(&mut self.start, self.at);
                let mode = self.mode().unwrap_or(Mode::Frame);
                out(Said::Frame { frame: *frame, mode, at });
            }
            if let Some(payload) = step.message {
                let at = std::mem::replace(&mut self.start, self.at);
                out(Said::Message { message: Message { payload, partial: false }, at });
            }
        }
        Ok(())
    }

    /// How many bytes are missing of a message whose length has been read; 0 where the framing has
    /// none, or none has come.
    pub fn missing(&self) -> usize {
        match &self.state {
            State::Packet(packet) => packet.missing(),
            _ => 0,
        }
    }

    /// Has such bytes put where they will stay, which spares large messages a copy: `read` adds at most
    /// as many to the vector as it is told are missing. How many it added; `None` where
    /// [`Decoder::missing`] is 0. With a message comes where it begins.
    pub fn fill<E>(
        &mut self,
        codec: &Codec,
        read: impl FnOnce(&mut Vec<u8>, usize) -> Result<(), E>,
        out: &mut impl FnMut(Message, u64),
    ) -> Option<Result<usize, E>> {
        let missing = self.missing();
        let (State::Packet(packet), Cut::Packet(_), 1..) = (&mut self.state, &codec.cut, missing)
        else {
            return None;
        };
        let before = packet.body.len();
        let read = read(packet.body.as_vec(), missing);
        packet.body.truncate(before + missing);
        let added = packet.body.len().saturating_sub(before);
        self.at += size(added);
        if added == missing {
            let payload = packet.whole();
            let at = std::mem::replace(&mut self.start, self.at);
            out(Message { payload, partial: false }, at);
        }
        Some(read.map(|()| added))
    }

    /// The stream has ended: gives the message it left unfinished, where the framing can tell that
    /// what came is worth delivering (`lines`, `nul`, `stanza`, `prompt`), the message that its end
    /// makes whole (`eof`, which always has one; a number in `json`), and an error where neither is
    /// so.
    pub fn finish(&mut self, codec: &Codec) -> Result<Option<Message>, FramingError> {
        self.finish_all(codec, &mut |_| {})
    }

    /// The same, with the text that is not protocol.
    pub fn finish_all(
        &mut self,
        codec: &Codec,
        out: &mut impl FnMut(Stray),
    ) -> Result<Option<Message>, FramingError> {
        if let Some(error) = &self.failed {
            return Err(FramingError::clone(error));
        }
        if let (State::ContentLength(message), true) = (&mut self.state, codec.bears_strays) {
            let at = self.start;
            message.stray_at_end().map(|stray| Stray { at, ..stray }).into_iter().for_each(out);
        }
        let left = self.left(codec);
        let left = left.map_err(|fault| self.fail(codec, fault, Sample::MOST, b""))?;
        self.start = self.at;
        Ok(left.map(|Left { payload, partial }| Message { payload, partial }))
    }

    fn left(&mut self, codec: &Codec) -> Result<Option<Left>, Fault> {
        match (&mut self.state, &codec.cut) {
            (State::Lines(line), Cut::Lines) => lines::finish(line, codec.max).map(partial),
            (State::Nul(text), Cut::Nul) => Ok(partial(nul::finish(text))),
            (State::Packet(packet), Cut::Packet(width)) => {
                packet.finish(packet::width(*width)).map(|()| None)
            }
            (State::Counted(counted), Cut::Counted(rule)) => {
                counted.finish(rule, codec.max).map(partial)
            }
            (State::Netstring(netstring), Cut::Netstring) => netstring.finish().map(|()| None),
            (State::PktLine(packet), Cut::PktLine) => packet.finish().map(|()| None),
            (State::ContentLength(message), Cut::ContentLength) => message.finish().map(|()| None),
            (State::Json(json), Cut::Json) => json.finish().map(whole),
            (State::Msgpack(msgpack), Cut::Msgpack) => msgpack.finish().map(|()| None),
            (State::Stanza(stanza), Cut::Stanza) => stanza.finish(codec.max).map(partial),
            (State::Prompt(prompt), Cut::Prompt(_)) => Ok(partial(prompt.finish())),
            (State::Eof(output), Cut::Eof) => Ok(whole(Some(eof::finish(output)))),
            (State::Raw, Cut::Raw) => Ok(None),
            (State::Envelope(frames), Cut::Envelope) => envelope::finish(frames).map(|()| None),
            _ => Err(foreign()),
        }
    }

    /// Whether the stream is beyond use.
    pub fn is_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// How many bytes of an unfinished message have come, what frames it included.
    pub fn unfinished(&self) -> u64 {
        self.at - self.start
    }

    /// Where the present message begins, from the first byte of the stream.
    pub fn place(&self) -> u64 {
        self.start
    }

    /// The form in which a program speaks wire protocol 1, once its first byte has told.
    pub fn mode(&self) -> Option<Mode> {
        match &self.state {
            State::Envelope(frames) => frames.mode(),
            _ => None,
        }
    }

    /// The memory it owns for an unfinished message, in bytes.
    pub fn held(&self) -> usize {
        self.state.stand().map_or(0, Stand::capacity)
    }

    /// Whether it was made for such a framing.
    pub fn fits(&self, codec: &Codec) -> bool {
        std::mem::discriminant(&self.state) == std::mem::discriminant(&Self::new(codec).state)
    }

    fn step(&mut self, codec: &Codec, bytes: &[u8]) -> Result<Step, Fault> {
        match (&mut self.state, &codec.cut) {
            (State::Lines(line), Cut::Lines) => lines::step(line, bytes, codec.max),
            (State::Nul(text), Cut::Nul) => nul::step(text, bytes, codec.max),
            (State::Packet(packet), Cut::Packet(width)) => {
                packet.step(packet::width(*width), bytes, codec.max)
            }
            (State::Counted(counted), Cut::Counted(rule)) => counted.step(rule, bytes, codec.max),
            (State::Netstring(netstring), Cut::Netstring) => netstring.step(bytes, codec.max),
            (State::PktLine(packet), Cut::PktLine) => packet.step(bytes, codec.max),
            (State::ContentLength(message), Cut::ContentLength) => {
                message.step(bytes, codec.max, codec.bears_strays)
            }
            (State::Json(json), Cut::Json) => json.step(bytes, codec.max, codec.bears_strays),
            (State::Msgpack(msgpack), Cut::Msgpack) => msgpack.step(bytes, codec.max),
            (State::Stanza(stanza), Cut::Stanza) => stanza.step(bytes, codec.max),
            (State::Prompt(prompt), Cut::Prompt(rule)) => prompt.step(rule, bytes, codec.max),
            (State::Eof(output), Cut::Eof) => eof::step(output, bytes, codec.max),
            (State::Raw, Cut::Raw) => Ok(raw::step(bytes, codec.max)),
            (State::Envelope(frames), Cut::Envelope) => {
                envelope::step(frames, bytes, codec.bears_strays)
            }
            _ => Err(foreign()),
        }
    }

    /// Gives up and lets go of what was gathered. The sample is what was held of the message
    /// `before` the failing step, which may have added to it, and then that step's `bytes`.
    fn fail(&mut self, codec: &Codec, fault: Fault, before: usize, bytes: &[u8]) -> FramingError {
        let mut seen = self.state.stand().map_or_else(Vec::new, Stand::seen);
        seen.truncate(before);
        let error = FramingError { fault, offset: self.start, sample: Sample::of(&seen, bytes) };
        self.failed = Some(Box::new(error.clone()));
        self.state = Self::new(codec).state;
        error
    }

    /// How many bytes are held of the present message.
    fn held_bytes(&self) -> usize {
        self.state.stand().map_or(0, Stand::held)
    }
}

/// A decoder was given the codec of another framing, which restoring it should have refused.
fn foreign() -> Fault {
    Fault::Garbage { what: "cannot be read: its decoder was made for another framing".to_owned() }
}
