//! An id that is an integer at a fixed place of a binary message, as OTP's `inet_gethost` and SFTP
//! have it.
//!
//! A message that ends before the place is nobody's reply and an event; nothing else of the message is
//! looked at.

use core::ops::Range;

use bytes::{Bytes, BytesMut};

use super::IdError;
use crate::correlation::flight::Numbers;
use crate::correlation::{Own, Sign, Tag};
use crate::spec::IdType;

#[derive(Debug)]
pub(in crate::correlation) struct Offset {
    at: Range<usize>,
    /// Whether the smallest byte comes first.
    little: bool,
}

impl Offset {
    pub(super) fn new(offset: u32, kind: IdType) -> Self {
        let (width, little) = match kind {
            IdType::U8 => (1, false),
            IdType::U16be => (2, false),
            IdType::U16le => (2, true),
            IdType::U32be => (4, false),
            IdType::U32le => (4, true),
            IdType::U64be => (8, false),
            IdType::U64le => (8, true),
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX - width);
        Self { at: start..start + width, little }
    }

    pub(super) fn numbers(&self) -> Numbers {
        Numbers::of_width(self.at.len())
    }

    pub(super) fn tag(&self, request: &Bytes) -> Result<(Bytes, Tag), IdError> {
        let Some(own) = request.get(self.at.clone()) else {
            return Err(IdError::Short { size: request.len(), end: self.at.end });
        };
        // A copy, which can be written to, and which an id of a few bytes does not keep alive.
        let own = Bytes::copy_from_slice(own);
        let request = BytesMut::from(&request[..]).freeze();
        Ok((request, Tag { at: self.at.start, own }))
    }

    pub(super) fn write(&self, number: u64, place: &mut [u8]) {
        let width = self.at.len();
        let (be, le) = (number.to_be_bytes(), number.to_le_bytes());
        let bytes = if self.little { &le[..width] } else { &be[be.len() - width..] };
        if let Some(place) = place.get_mut(..width) {
            place.copy_from_slice(bytes);
        }
    }

    pub(super) fn sign(&self, message: &Bytes) -> Sign {
        let Some(id) = message.get(self.at.clone()) else { return Sign::Foreign };
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        let number =
            if self.little { id.iter().rev().fold(0, add) } else { id.iter().fold(0, add) };
        Sign::Reply { number, at: self.at.clone(), own: Own::AsSent }
    }
}
