//! `msgpack`: MessagePack values one after the other (<https://msgpack.org>), as Neovim speaks them.
//!
//! The message is the value's bytes. Values may be nested 128 deep. What a value announces, bytes
//! of a string as well as items of a list, each of which takes a byte at least, is checked against
//! `max_frame` at once; nothing is allocated for it until it comes. Text in place of values is
//! mostly not found out: each of its letters is a small number.
//!
//! Outgoing a message must be one value.

use serde::{Deserialize, Serialize};

use super::error::{EncodeError, Fault, Part};
use super::gather::{Gather, Stand, Step, size};

/// How deep values may be nested.
pub(super) const DEPTH: usize = 128;

/// Where in a value the stream stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Msgpack {
    value: Gather,
    scan: Scan,
}

/// A reader of MessagePack that keeps nothing but where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Scan {
    /// How many values each list and map that is open still lacks; at most [`DEPTH`] of them.
    open: Vec<u64>,
    /// How many bytes the whole value still lacks at least.
    lacks: u64,
    at: At,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum At {
    /// Before a value.
    #[default]
    Type,
    /// Within a length, so many bytes of it missing.
    Length(Kind, u32, u8),
    /// Within the bytes of a value, so many of them missing.
    Bytes(u64),
}

/// What a length counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Bytes,
    /// Bytes, and one more before them that says what they are.
    Extension,
    Items,
    Pairs,
}

/// What is wrong with a value.
enum Wrong {
    /// It takes so many bytes at least.
    Size(u64),
    /// In words that can follow "the message".
    Garbage(String),
}

impl Scan {
    /// Reads on, from `from` bytes into the value, to the end of the value or of the bytes. Gives
    /// how many were used and whether the value is whole.
    fn read(&mut self, bytes: &[u8], from: usize, max: u64) -> Result<(usize, bool), Wrong> {
        let mut used = 0;
        while let Some(byte) = bytes.get(used) {
            let whole = match self.at {
                At::Bytes(left) => {
                    let taken = left.min(size(bytes.len() - used));
                    // As much as there is, so that it fits.
                    used += usize::try_from(taken).unwrap_or(usize::MAX);
                    self.lacks -= taken;
                    self.at = At::Bytes(left - taken);
                    left == taken && self.ends()
                }
                At::Type => {
                    used += 1;
                    // The first byte of an item was announced with its list.
                    self.lacks = self.lacks.saturating_sub(1);
                    let whole = self.kind(*byte).map_err(|what| {
                        Wrong::Garbage(format!("{what} at its byte {}", from + used - 1))
                    })?;
                    self.fits(from + used, max)?;
                    whole
                }
                At::Length(kind, length, left) => {
                    used += 1;
                    self.lacks -= 1;
                    let length = length << 8 | u32::from(*byte);
                    if left > 1 {
                        self.at = At::Length(kind, length, left - 1);
                        continue;
                    }
                    let whole = self.announced(kind, u64::from(length)).map_err(|what| {
                        Wrong::Garbage(format!("{what} at its byte {}", from + used - 1))
                    })?;
                    self.fits(from + used, max)?;
                    whole
                }
            };
            if whole {
                return Ok((used, true));
            }
        }
        Ok((used, false))
    }

    /// Whether all that is announced is within the limit.
    fn fits(&self, have: usize, max: u64) -> Result<(), Wrong> {
        let least = size(have).saturating_add(self.lacks);
        if least > max { Err(Wrong::Size(least)) } else { Ok(()) }
    }

    /// The first byte of a value. True when it is all of the outermost one.
    fn kind(&mut self, byte: u8) -> Result<bool, &'static str> {
        let low = |bits: u8| u64::from(byte & bits);
        let (kind, width) = match byte {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => return Ok(self.ends()),
            0x80..=0x8f => return self.items(low(0x0f) * 2),
            0x90..=0x9f => return self.items(low(0x0f)),
            0xa0..=0xbf => return Ok(self.bytes(low(0x1f))),
            0xc1 => return Err("has the byte c1, which is never used,"),
            0xcc | 0xd0 => return Ok(self.bytes(1)),
            0xcd | 0xd1 => return Ok(self.bytes(2)),
            0xca | 0xce | 0xd2 => return Ok(self.bytes(4)),
            0xcb | 0xcf | 0xd3 => return Ok(self.bytes(8)),
            0xd4..=0xd8 => return Ok(self.bytes(1 + (1 << (byte - 0xd4)))),
            0xc4 | 0xd9 => (Kind::Bytes, 1),
            0xc5 | 0xda => (Kind::Bytes, 2),
            0xc6 | 0xdb => (Kind::Bytes, 4),
            0xc7 => (Kind::Extension, 1),
            0xc8 => (Kind::Extension, 2),
            0xc9 => (Kind::Extension, 4),
            0xdc => (Kind::Items, 2),
            0xdd => (Kind::Items, 4),
            0xde => (Kind::Pairs, 2),
            0xdf => (Kind::Pairs, 4),
        };
        self.at = At::Length(kind, 0, width);
        self.lacks = self.lacks.saturating_add(u64::from(width));
        Ok(false)
    }

    fn announced(&mut self, kind: Kind, length: u64) -> Result<bool, &'static str> {
        match kind {
            Kind::Bytes => Ok(self.bytes(length)),
            Kind::Extension => Ok(self.bytes(length + 1)),
            Kind::Items => self.items(length),
            Kind::Pairs => self.items(length * 2),
        }
    }

    fn bytes(&mut self, left: u64) -> bool {
        self.at = At::Bytes(left);
        self.lacks = self.lacks.saturating_add(left);
        left == 0 && self.ends()
    }

    fn items(&mut self, count: u64) -> Result<bool, &'static str> {
        if count == 0 {
            return Ok(self.ends());
        }
        if self.open.len() == DEPTH {
            return Err("is nested more than 128 deep");
        }
        self.at = At::Type;
        self.open.push(count);
        self.lacks = self.lacks.saturating_add(count);
        Ok(false)
    }

    /// A value ends, and with it each list of which it is the last. True for the outermost.
    fn ends(&mut self) -> bool {
        self.at = At::Type;
        while let Some(lacks) = self.open.last_mut() {
            *lacks -= 1;
            if *lacks > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }
}

impl Msgpack {
    pub(super) fn step(&mut self, bytes: &[u8], max: u64) -> Result<Step, Fault> {
        let read = self.scan.read(bytes, self.value.len(), max);
        let (used, whole) = read.map_err(|wrong| match wrong {
            Wrong::Size(least) => Fault::Oversize { announced: Some(least), max },
            Wrong::Garbage(what) => Fault::Garbage { what },
        })?;
        let most = usize::try_from(max).unwrap_or(usize::MAX);
        self.value.add(&bytes[..used], most);
        if !whole {
            return Ok(Step::more(used));
        }
        let message = self.value.take();
        *self = Self::default();
        Ok(Step::whole(used, message))
    }

    pub(super) fn finish(&self) -> Result<(), Fault> {
        if self.value.is_empty() {
            return Ok(());
        }
        let got = size(self.value.len());
        let wanted = got.saturating_add(self.scan.lacks);
        Err(Fault::Truncated { part: Part::Body, got, wanted })
    }
}

impl Stand for Msgpack {
    fn held(&self) -> usize {
        self.value.len()
    }

    fn seen(&self) -> Vec<u8> {
        self.value.seen()
    }

    fn capacity(&self) -> usize {
        self.value.capacity() + self.scan.open.capacity() * size_of::<u64>()
    }
}

/// Whether a message is one value.
pub(super) fn check(payload: &[u8]) -> Result<(), EncodeError> {
    let what = match Scan::default().read(payload, 0, size(payload.len())) {
        Ok((used, true)) if used == payload.len() => return Ok(()),
        Ok((used, true)) => {
            format!("has more than one MessagePack value: one ends at its byte {used}")
        }
        Ok((_, false)) | Err(Wrong::Size(_)) => "is no whole MessagePack value".to_owned(),
        Err(Wrong::Garbage(what)) => what,
    };
    Err(EncodeError::Malformed { what })
}
