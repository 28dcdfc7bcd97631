//! The bytes of one message on their way to the program, in place and in order.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::outgoing::size;
use crate::bytes_text;
use crate::framing::Frame;
use crate::message::Wire;

/// What is written one after the other; any of the pieces may be empty. Saved as a list of texts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Pieces([Bytes; Self::MOST]);

impl Pieces {
    /// As many there can be.
    pub(super) const MOST: usize = 3;

    /// A message that is not framed yet.
    pub(super) fn unframed(message: Bytes) -> Self {
        Self([message, Bytes::new(), Bytes::new()])
    }

    /// That message.
    pub(super) fn message(&self) -> &Bytes {
        &self.0[0]
    }

    /// The same, handed over: nobody else holds it then, unless somebody did before.
    pub(super) fn into_message(self) -> Bytes {
        let [message, _, _] = self.0;
        message
    }

    /// Those that are not empty.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.0.iter().filter(|piece| !piece.is_empty())
    }

    /// All bytes.
    pub(super) fn size(&self) -> u64 {
        self.0.iter().map(|piece| size(piece.len())).sum()
    }
}

impl From<Frame> for Pieces {
    fn from(Frame { head, body, tail }: Frame) -> Self {
        Self([head, body, tail])
    }
}

impl From<Wire> for Pieces {
    fn from(Wire { head, body, tail }: Wire) -> Self {
        Self([head, body, tail])
    }
}

impl Serialize for Pieces {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.iter().map(|piece| bytes_text::encode(piece)))
    }
}

impl<'de> Deserialize<'de> for Pieces {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut list = bytes_text::list::deserialize(d)?.into_iter();
        let pieces = Self(std::array::from_fn(|_| list.next().unwrap_or_default()));
        match list.next() {
            None => Ok(pieces),
            Some(_) => Err(serde::de::Error::custom("a message has three pieces at most")),
        }
    }
}
