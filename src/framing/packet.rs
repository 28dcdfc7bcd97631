//! `packet1`, `packet2`, `packet4`: a big-endian length, which does not count itself, stands before
//! each message. The same as Erlang's `{packet, N}`. A message of length zero is a message.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::{Fault, Part};
use super::gather::{Gather, Stand, Step, memory, size};
use crate::spec::PacketWidth;

/// Where in a packet the stream stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Packet {
    /// The bytes of the length that have come, as a number.
    length: u32,
    /// How many they are.
    have: u8,
    /// Whether the length has come and is no longer than allowed.
    #[serde(default)]
    announced: bool,
    pub(super) body: Gather,
}

/// How many bytes the length has.
pub(super) fn width(width: PacketWidth) -> u8 {
    match width {
        PacketWidth::One => 1,
        PacketWidth::Two => 2,
        PacketWidth::Four => 4,
    }
}

/// The largest size the length can say, in bytes.
pub(super) fn largest(width: PacketWidth) -> u64 {
    match width {
        PacketWidth::One => u64::from(u8::MAX),
        PacketWidth::Two => u64::from(u16::MAX),
        PacketWidth::Four => u64::from(u32::MAX),
    }
}

impl Packet {
    pub(super) fn step(&mut self, width: u8, bytes: &[u8], max: u64) -> Result<Step, Fault> {
        let mut used = 0;
        while self.have < width {
            let Some(byte) = bytes.get(used) else { return Ok(Step::more(used)) };
            self.length = self.length << 8 | u32::from(*byte);
            self.have += 1;
            used += 1;
        }
        let announced = u64::from(self.length);
        if announced > max {
            return Err(Fault::Oversize { announced: Some(announced), max });
        }
        self.announced = true;
        let wanted = memory(announced);
        let piece = &bytes[used..];
        let piece = &piece[..piece.len().min(wanted - self.body.len())];
        self.body.add(piece, wanted);
        used += piece.len();
        if self.body.len() < wanted {
            return Ok(Step::more(used));
        }
        Ok(Step::whole(used, self.whole()))
    }

    /// How many bytes of a body are missing; 0 where the length has not come.
    pub(super) fn missing(&self) -> usize {
        // The length is used as it stands only when all of it has come, and was held against the bound.
        let wanted = if self.announced { memory(u64::from(self.length)) } else { 0 };
        wanted.saturating_sub(self.body.len())
    }

    /// Hands over a body that is whole.
    pub(super) fn whole(&mut self) -> Bytes {
        self.have = 0;
        self.length = 0;
        self.announced = false;
        self.body.take()
    }

    pub(super) fn finish(&self, width: u8) -> Result<(), Fault> {
        if self.have == 0 {
            return Ok(());
        }
        let (part, got, wanted) = if self.have < width {
            (Part::Header, u64::from(self.have), u64::from(width))
        } else {
            (Part::Body, size(self.body.len()), u64::from(self.length))
        };
        Err(Fault::Truncated { part, got, wanted })
    }
}

impl Stand for Packet {
    fn held(&self) -> usize {
        usize::from(self.have) + self.body.len()
    }

    fn seen(&self) -> Vec<u8> {
        let length = self.length.to_be_bytes();
        let mut seen = length[length.len() - usize::from(self.have)..].to_vec();
        seen.extend(self.body.seen());
        seen
    }

    fn capacity(&self) -> usize {
        self.body.capacity()
    }
}

/// The length that goes before a message of this size, as its last `width` bytes.
pub(super) fn head(size: u32) -> [u8; 4] {
    size.to_be_bytes()
}
