//! Where one stream stands: cuts it into messages, whatever the pieces in which it comes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::codec::{Codec, Cut};
use super::counted::Counted;
use super::error::{Fault, FramingError, Sample};
use super::gather::{Gather, Step, size};
use super::packet::{self, Packet};
use super::{lines, nul, raw};

/// A message that a program wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its bytes, without what framed them.
    pub payload: Bytes,
    /// Whether the stream ended before the message did: a last line without LF.
    pub partial: bool,
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
    Raw,
}

impl Decoder {
    /// Stands at the beginning of a stream.
    pub fn new(codec: &Codec) -> Self {
        let state = match codec.cut {
            Cut::Lines => State::Lines(Gather::default()),
            Cut::Nul => State::Nul(Gather::default()),
            Cut::Packet(_) => State::Packet(Packet::default()),
            Cut::Counted(_) => State::Counted(Counted::default()),
            Cut::Raw => State::Raw,
        };
        Self { state, start: 0, at: 0, failed: None }
    }

    /// Takes the next bytes of the stream and gives `out` each message they complete, in order.
    ///
    /// After an error, which is given once the messages before it are out, the decoder stays failed
    /// and says the same again.
    pub fn push(
        &mut self,
        codec: &Codec,
        mut bytes: &[u8],
        out: &mut impl FnMut(Message),
    ) -> Result<(), FramingError> {
        if let Some(error) = &self.failed {
            return Err(FramingError::clone(error));
        }
        while !bytes.is_empty() {
            let before = self.held_bytes();
            let step = match self.step(codec, bytes) {
                Ok(step) => step,
                Err(fault) => return Err(self.fail(codec, fault, before, bytes)),
            };
            debug_assert!(step.used > 0, "a step without progress would never end");
            self.at += size(step.used);
            bytes = &bytes[step.used..];
            if let Some(payload) = step.message {
                self.start = self.at;
                out(Message { payload, partial: false });
            }
        }
        Ok(())
    }

    /// The stream has ended: gives the message it left unfinished, where the framing can tell that
    /// what came is worth delivering (`lines`, `nul`), and an error where it cannot.
    pub fn finish(&mut self, codec: &Codec) -> Result<Option<Message>, FramingError> {
        if let Some(error) = &self.failed {
            return Err(FramingError::clone(error));
        }
        let left = match (&mut self.state, &codec.cut) {
            (State::Lines(line), Cut::Lines) => lines::finish(line, codec.max),
            (State::Nul(text), Cut::Nul) => Ok(nul::finish(text)),
            (State::Packet(packet), Cut::Packet(width)) => {
                packet.finish(packet::width(*width)).map(|()| None)
            }
            (State::Counted(counted), Cut::Counted(rule)) => counted.finish(rule, codec.max),
            (State::Raw, Cut::Raw) => Ok(None),
            _ => Err(foreign()),
        };
        let left = left.map_err(|fault| self.fail(codec, fault, Sample::MOST, b""))?;
        self.start = self.at;
        Ok(left.map(|payload| Message { payload, partial: true }))
    }

    /// Whether the stream is beyond use.
    pub fn is_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// How many bytes of an unfinished message have come, what frames it included.
    pub fn unfinished(&self) -> u64 {
        self.at - self.start
    }

    /// The memory it owns for an unfinished message, in bytes.
    pub fn held(&self) -> usize {
        match &self.state {
            State::Lines(gather) | State::Nul(gather) => gather.capacity(),
            State::Packet(packet) => packet.body.capacity(),
            State::Counted(counted) => counted.gathered.capacity(),
            State::Raw => 0,
        }
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
            (State::Raw, Cut::Raw) => Ok(raw::step(bytes, codec.max)),
            _ => Err(foreign()),
        }
    }

    /// Gives up and lets go of what was gathered. The sample is what was held of the message
    /// `before` the failing step, which may have added to it, and then that step's `bytes`.
    fn fail(&mut self, codec: &Codec, fault: Fault, before: usize, bytes: &[u8]) -> FramingError {
        let mut seen = match &self.state {
            State::Lines(gather) | State::Nul(gather) => start_of(gather),
            State::Packet(packet) => packet.seen(),
            State::Counted(counted) => start_of(&counted.gathered),
            State::Raw => Vec::new(),
        };
        seen.truncate(before);
        let error = FramingError { fault, offset: self.start, sample: Sample::of(&seen, bytes) };
        self.failed = Some(Box::new(error.clone()));
        self.state = Self::new(codec).state;
        error
    }

    /// How many bytes are held of the present message.
    fn held_bytes(&self) -> usize {
        match &self.state {
            State::Lines(gather) | State::Nul(gather) => gather.len(),
            State::Packet(packet) => packet.held(),
            State::Counted(counted) => counted.gathered.len(),
            State::Raw => 0,
        }
    }
}

/// A decoder was given the codec of another framing, which restoring it should have refused.
fn foreign() -> Fault {
    Fault::Garbage { what: "cannot be read: its decoder was made for another framing".to_owned() }
}

fn start_of(gather: &Gather) -> Vec<u8> {
    gather.as_slice().iter().take(Sample::MOST).copied().collect()
}
