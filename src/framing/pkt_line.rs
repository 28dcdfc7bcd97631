//! `pkt-line`: four hexadecimal digits, which count themselves, stand before each message, as git
//! speaks it (gitprotocol-common(5)).
//!
//! A message is a packet's payload. Three packets have none and are messages of their own, told by
//! their digits: `0000` *flush*, `0001` *delimiter*, `0002` *response end*. Where a payload itself
//! reads as whole packets (`0000`, or `0006hi`) it is given with its own four digits before it, so
//! that no two packets ever give the same message.
//!
//! Outgoing the same rule holds: **a message that reads as whole packets is sent as it stands, any
//! other is the payload of one packet**. So `hello` is sent as `0009hello`, `0000` is a flush, and a
//! request of several packets, which git's protocols are full of, is one message with their digits
//! in it. What is sent back unchanged arrives unchanged.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::error::{EncodeError, Fault, Part};
use super::gather::{Gather, Stand, Step, memory, size};

/// How many digits a length has. It counts them too.
const DIGITS: usize = 4;
/// The largest packet that git takes, digits included (`LARGE_PACKET_MAX`).
const LARGEST_PACKET: u16 = 65_520;
/// The largest payload of one packet, in bytes.
pub(super) const LARGEST: u64 = 65_516;

/// Where in a packet the stream stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct PktLine {
    /// The digits that have come, as they came.
    digits: [u8; DIGITS],
    /// How many they are.
    have: u8,
    body: Gather,
}

/// What a length says.
enum Says {
    /// A packet without payload, told by its digits.
    Special,
    /// So many bytes of payload follow.
    Payload(u16),
    /// Nothing that git knows.
    Nothing,
}

fn says(length: u16) -> Says {
    match length {
        0..=2 => Says::Special,
        3 => Says::Nothing,
        length => Says::Payload(length - 4),
    }
}

fn digit(byte: u8) -> Option<u16> {
    char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok())
}

/// The length that digits say, in letters of either case.
fn length(digits: [u8; DIGITS]) -> Option<u16> {
    digits.iter().try_fold(0, |sum, byte| Some(sum << 4 | digit(*byte)?))
}

fn digits(length: u16) -> Vec<u8> {
    format!("{length:04x}").into_bytes()
}

impl PktLine {
    pub(super) fn step(&mut self, bytes: &[u8], max: u64) -> Result<Step, Fault> {
        let mut used = 0;
        while usize::from(self.have) < DIGITS {
            let Some(byte) = bytes.get(used) else { return Ok(Step::more(used)) };
            if !byte.is_ascii_hexdigit() {
                let byte = byte.escape_ascii();
                let what = format!("has \"{byte}\" where a hexadecimal digit of its length is due");
                return Err(Fault::Garbage { what });
            }
            self.digits[usize::from(self.have)] = *byte;
            self.have += 1;
            used += 1;
        }
        let length = length(self.digits).unwrap_or_default();
        let payload = match says(length) {
            Says::Special => return self.whole(used, Bytes::from(digits(length)), max),
            Says::Payload(payload) => u64::from(payload),
            Says::Nothing => {
                let what = format!("announces {length} bytes, which no packet has");
                return Err(Fault::Garbage { what });
            }
        };
        let most = max.min(LARGEST);
        if payload > most {
            return Err(Fault::Oversize { announced: Some(payload), max: most });
        }
        let wanted = memory(payload);
        let piece = &bytes[used..];
        let piece = &piece[..piece.len().min(wanted - self.body.len())];
        self.body.add(piece, wanted);
        used += piece.len();
        if self.body.len() < wanted {
            return Ok(Step::more(used));
        }
        let mut message = self.body.take();
        if is_packets(&message) {
            let mut told = BytesMut::from(&digits(length)[..]);
            told.put(message);
            message = told.freeze();
        }
        self.whole(used, message, max)
    }

    fn whole(&mut self, used: usize, message: Bytes, max: u64) -> Result<Step, Fault> {
        let length = size(message.len());
        if length > max {
            return Err(Fault::Oversize { announced: Some(length), max });
        }
        *self = Self::default();
        Ok(Step::whole(used, message))
    }

    pub(super) fn finish(&self) -> Result<(), Fault> {
        let (part, got, wanted) = match self.have {
            0 => return Ok(()),
            have if usize::from(have) < DIGITS => (Part::Header, u64::from(have), size(DIGITS)),
            _ => {
                let length = u64::from(length(self.digits).unwrap_or_default());
                (Part::Body, size(self.body.len()), length.saturating_sub(size(DIGITS)))
            }
        };
        Err(Fault::Truncated { part, got, wanted })
    }
}

impl Stand for PktLine {
    fn held(&self) -> usize {
        usize::from(self.have) + self.body.len()
    }

    fn seen(&self) -> Vec<u8> {
        let mut seen = self.digits[..usize::from(self.have)].to_vec();
        seen.extend(self.body.seen());
        seen
    }

    fn capacity(&self) -> usize {
        self.body.capacity()
    }
}

/// Whether a text is one or more whole packets and nothing else.
pub(super) fn is_packets(mut text: &[u8]) -> bool {
    if text.is_empty() {
        return false;
    }
    while !text.is_empty() {
        let Some((head, rest)) = text.split_first_chunk::<DIGITS>() else { return false };
        let payload = match length(*head).map(says) {
            Some(Says::Special) => 0,
            Some(Says::Payload(payload)) if u64::from(payload) <= LARGEST => usize::from(payload),
            Some(Says::Payload(_) | Says::Nothing) | None => return false,
        };
        let Some((_, rest)) = rest.split_at_checked(payload) else { return false };
        text = rest;
    }
    true
}

/// Whether a message can be sent: whole packets, or what fits into one.
pub(super) fn check(payload: &[u8], max: u64) -> Result<(), EncodeError> {
    let length = size(payload.len());
    let max = if length > max.min(LARGEST) && is_packets(payload) { max } else { max.min(LARGEST) };
    if length > max { Err(EncodeError::TooLarge { size: length, max }) } else { Ok(()) }
}

/// What goes before a message that [`check`] has passed.
pub(super) fn head(payload: &[u8]) -> Vec<u8> {
    if is_packets(payload) {
        return Vec::new();
    }
    let length = u16::try_from(payload.len() + DIGITS).unwrap_or(LARGEST_PACKET);
    digits(length)
}
