//! `id`: request and reply bear the same id, and wharf puts one of its own in the place of the
//! caller's, so that callers who know nothing of each other share one program.
//!
//! The caller finds its own id in the reply, byte for byte. Nothing else of a message is changed, but
//! for line breaks between the values of a JSON request, which become spaces, so that it is one line.

mod offset;
mod packed;
mod pointer;

use bytes::Bytes;

pub(super) use self::pointer::{Anatomy, Pointer};
use super::flight::Numbers;
use super::{BadRule, Sign, Tag};
use crate::spec::{Framing, IdPlace};

/// The longest id, in bytes.
const LONGEST: usize = 4096;

/// Why a request cannot be called with: no id of it can be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// It is not JSON.
    #[error("find the id of the call: the message is not JSON: {why}")]
    NotJson {
        /// In the words of the parser.
        why: String,
    },
    /// It is not MessagePack.
    #[error("find the id of the call: the message is not one whole MessagePack value")]
    NotMessagePack,
    /// There is nothing at the pointer.
    #[error(
        "find the id of the call: the message has nothing at {pointer}; one that wants no reply \
         is for send"
    )]
    None {
        /// Where it should be.
        pointer: String,
    },
    /// A key on the way to it stands there more than once.
    #[error("find the id of the call: the message has {pointer} more than once")]
    Twice {
        /// Where it is.
        pointer: String,
    },
    /// It is longer than a port wants to remember.
    #[error("take the id of the call: it has {size} bytes, {LONGEST} are allowed")]
    Long {
        /// Its size, in bytes.
        size: usize,
    },
    /// The message ends before it.
    #[error("find the id of the call: the message has {size} bytes, the id ends at byte {end}")]
    Short {
        /// The size of the message, in bytes.
        size: usize,
        /// Where the id would end.
        end: usize,
    },
}

/// Where the id of a message is.
#[derive(Debug)]
pub(super) enum Id {
    Pointer(pointer::Pointer),
    Packed(packed::Packed),
    Offset(offset::Offset),
}

impl Id {
    pub(super) fn new(place: &IdPlace, framing: &Framing) -> Result<Self, BadRule> {
        Ok(match place {
            IdPlace::Pointer(pointer) if *framing == Framing::Msgpack => {
                Self::Packed(packed::Packed::new(pointer)?)
            }
            IdPlace::Pointer(pointer) => Self::Pointer(pointer::Pointer::new(pointer)?),
            IdPlace::Offset { offset, kind } => Self::Offset(offset::Offset::new(*offset, *kind)),
        })
    }

    /// Whether messages are JSON.
    pub(super) fn is_json(&self) -> bool {
        matches!(self, Self::Pointer(_))
    }

    pub(super) fn numbers(&self) -> Numbers {
        match self {
            // In MessagePack they are numbers of four bytes.
            Self::Pointer(_) | Self::Packed(_) => Numbers::DIGITS,
            Self::Offset(offset) => offset.numbers(),
        }
    }

    pub(super) fn tag(&self, request: &Bytes) -> Result<(Bytes, Tag), IdError> {
        match self {
            Self::Pointer(pointer) => pointer.tag(request),
            Self::Packed(packed) => packed.tag(request),
            Self::Offset(offset) => offset.tag(request),
        }
    }

    pub(super) fn write(&self, number: u64, place: &mut [u8]) {
        match self {
            Self::Pointer(_) => super::flight::write_digits(number, place),
            Self::Packed(_) => packed::Packed::write(number, place),
            Self::Offset(offset) => offset.write(number, place),
        }
    }

    pub(super) fn sign(&self, message: &Bytes) -> Sign {
        match self {
            Self::Pointer(pointer) => pointer.sign(message),
            Self::Packed(packed) => packed.sign(message),
            Self::Offset(offset) => offset.sign(message),
        }
    }
}
