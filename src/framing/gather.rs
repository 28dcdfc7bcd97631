//! A message in the making: the bytes of it that have come so far.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::Sample;
use crate::bytes_text;
use crate::message::Frame;

/// Bytes gathered until a message is whole. Empty, it owns no memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Gather(#[serde(with = "bytes_text")] Vec<u8>);

impl Gather {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The memory itself, for who adds to its end.
    pub(super) fn as_vec(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// Adds bytes. The first ones get exactly the room they need, so that a message that came in
    /// one piece is copied once; later ones double it, which keeps the cost linear, but never
    /// beyond `most`, the size the whole can have.
    pub(super) fn add(&mut self, bytes: &[u8], most: usize) {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            let room = needed.max(self.0.capacity().saturating_mul(2).min(most));
            self.0.reserve_exact(room - self.0.len());
        }
        self.0.extend_from_slice(bytes);
    }

    /// Takes the last byte off when it is this one.
    pub(super) fn strip(&mut self, last: u8) {
        if self.0.last() == Some(&last) {
            self.0.pop();
        }
    }

    /// Takes all that stands from a place on.
    pub(super) fn split_off(&mut self, at: usize) -> Vec<u8> {
        self.0.split_off(at.min(self.0.len()))
    }

    /// Lets go of all but so many of the first bytes.
    pub(super) fn truncate(&mut self, most: usize) {
        self.0.truncate(most);
    }

    /// Lets go of the memory that nothing is in.
    pub(super) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }

    /// Hands over what was gathered, without spare room, and starts anew.
    pub(super) fn take(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.0).into_boxed_slice())
    }
}

/// What a framing did with the bytes it was given.
pub(super) struct Step {
    /// How many it took off the front; at least one, unless the message ended just before them.
    pub(super) used: usize,
    /// The message they completed.
    pub(super) message: Option<Bytes>,
    /// The frame they completed, of wire protocol 1.
    pub(super) frame: Option<Box<Frame>>,
    /// Whether they stand between messages and belong to none.
    pub(super) between: bool,
    /// Text that is not protocol and is borne: these bytes, with what was held before them.
    pub(super) stray: Option<Stray>,
}

/// A piece of text that is not protocol, on a stream where that is borne.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// The bytes, with the LF that ends them where that has come.
    pub bytes: Bytes,
    /// Whether it is the first piece of its line.
    pub begins: bool,
    /// Where it begins, from the first byte of the stream; where headers stand before it, they do.
    pub at: u64,
}

impl Step {
    /// The message needs more bytes than these.
    pub(super) fn more(used: usize) -> Self {
        Self { used, message: None, frame: None, between: false, stray: None }
    }

    /// These bytes belong to no message.
    pub(super) fn between(used: usize) -> Self {
        Self { between: true, ..Self::more(used) }
    }

    /// These bytes end a piece of text that is no protocol.
    pub(super) fn stray(used: usize, bytes: Bytes, begins: bool) -> Self {
        Self { stray: Some(Stray { bytes, begins, at: 0 }), ..Self::between(used) }
    }

    /// These bytes completed a frame of wire protocol 1.
    pub(super) fn frame(used: usize, frame: Frame) -> Self {
        Self { frame: Some(Box::new(frame)), ..Self::more(used) }
    }

    /// These bytes completed a message.
    pub(super) fn whole(used: usize, message: Bytes) -> Self {
        Self { message: Some(message), ..Self::more(used) }
    }
}

/// What a framing holds of the present message.
pub(super) trait Stand {
    /// How many bytes; where only the beginning of the message is kept, at least those of a sample.
    fn held(&self) -> usize;

    /// The beginning, at most a sample of it.
    fn seen(&self) -> Vec<u8>;

    /// The memory it owns for it, in bytes.
    fn capacity(&self) -> usize;
}

impl Stand for Gather {
    fn held(&self) -> usize {
        self.len()
    }

    fn seen(&self) -> Vec<u8> {
        self.0.iter().take(Sample::MOST).copied().collect()
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

/// The number that decimal digits say, `u64::MAX` where it is larger; `None` for anything else.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(digits.iter().fold(0, add))
}

/// A size as the machine counts memory. What does not fit cannot be allocated anyway.
pub(super) fn memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A length of memory as a size in bytes.
pub(super) fn size(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
