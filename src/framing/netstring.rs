//! `netstring`: a decimal length, a colon, the message and a comma: `5:hello,`.
//!
//! The length is strict, as the format demands (<https://cr.yp.to/proto/netstrings.txt>): ASCII
//! digits alone, and no zero before others. So nearly everything that a program may say by mistake
//! is found out at its first byte.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::{Fault, Part};
use super::gather::{Gather, Stand, Step, memory, size};

/// Where in a netstring the stream stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Netstring {
    /// The digits that have come, as a number.
    length: u64,
    /// How many they are.
    digits: u8,
    /// Whether the colon has come.
    announced: bool,
    body: Gather,
}

impl Netstring {
    pub(super) fn step(&mut self, bytes: &[u8], max: u64) -> Result<Step, Fault> {
        let mut used = 0;
        while !self.announced {
            let Some(byte) = bytes.get(used) else { return Ok(Step::more(used)) };
            self.announce(*byte, max)?;
            used += 1;
        }
        let wanted = memory(self.length);
        let piece = &bytes[used..];
        let piece = &piece[..piece.len().min(wanted - self.body.len())];
        self.body.add(piece, wanted);
        used += piece.len();
        match bytes.get(used) {
            None => Ok(Step::more(used)),
            Some(b',') => {
                let message = self.body.take();
                *self = Self::default();
                Ok(Step::whole(used + 1, message))
            }
            Some(other) => {
                let other = other.escape_ascii();
                Err(Fault::Garbage { what: format!("has \"{other}\" where its last comma is due") })
            }
        }
    }

    /// Takes a byte of the length, or the colon after it.
    fn announce(&mut self, byte: u8, max: u64) -> Result<(), Fault> {
        match byte {
            b':' if self.digits > 0 => {
                self.announced = true;
                if self.length > max {
                    return Err(Fault::Oversize { announced: Some(self.length), max });
                }
            }
            b'0'..=b'9' if self.digits > 0 && self.length == 0 => {
                let what = "announces its length with a zero before it".to_owned();
                return Err(Fault::Garbage { what });
            }
            b'0'..=b'9' => {
                let digit = u64::from(byte - b'0');
                let length = self.length.checked_mul(10).and_then(|sum| sum.checked_add(digit));
                self.length = length.ok_or(Fault::Oversize { announced: Some(u64::MAX), max })?;
                self.digits += 1;
            }
            other => {
                let due = if self.digits == 0 { "a digit" } else { "a digit or a colon" };
                let what =
                    format!("has \"{}\" where {due} of its length is due", other.escape_ascii());
                return Err(Fault::Garbage { what });
            }
        }
        Ok(())
    }

    pub(super) fn finish(&self) -> Result<(), Fault> {
        let (got, wanted) = (size(self.body.len()), self.length);
        let (part, got, wanted) = match self.digits {
            0 => return Ok(()),
            digits if !self.announced => (Part::Header, u64::from(digits), u64::from(digits) + 1),
            _ if got < wanted => (Part::Body, got, wanted),
            _ => (Part::Trailer, 0, 1),
        };
        Err(Fault::Truncated { part, got, wanted })
    }
}

impl Stand for Netstring {
    fn held(&self) -> usize {
        usize::from(self.digits) + usize::from(self.announced) + self.body.len()
    }

    fn seen(&self) -> Vec<u8> {
        if self.digits == 0 {
            return Vec::new();
        }
        let mut seen = self.length.to_string().into_bytes();
        if self.announced {
            seen.push(b':');
            seen.extend(self.body.seen());
        }
        seen
    }

    fn capacity(&self) -> usize {
        self.body.capacity()
    }
}

/// What goes before a message.
pub(super) fn head(payload: &Bytes) -> Vec<u8> {
    format!("{}:", payload.len()).into_bytes()
}
