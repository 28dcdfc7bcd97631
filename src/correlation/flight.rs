//! The calls that are open at once under a rule that tells them apart, each with a number of its own.
//!
//! A number is given out again only when all others have been, so that a second reply to a call that
//! is over finds nobody. The number of a call that was given up is kept back until its late reply has
//! come; where there are plenty of numbers only the last [`MOST_OWED`] are remembered, since all
//! others would have to be used up before one of them is given out again.

use core::ops::Range;
use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::{Outcome, Own};
use crate::bytes_text;

/// How many calls that were given up are remembered where there are plenty of numbers.
const MOST_OWED: usize = 1024;

/// Up to so many numbers, one that is kept back is remembered whatever happens.
const FEW: u64 = 1 << 16;

/// The numbers that a rule gives to calls: so many from the first on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    first: u64,
    count: u64,
}

impl Numbers {
    /// All have ten digits, so that a request's size is known before its number, and fit 31 bits,
    /// which programs in any language can hold.
    pub(super) const DIGITS: Self = Self { first: 1 << 30, count: 1 << 30 };

    /// All that fit so many bytes, but for 0, which many a protocol gives a meaning of its own. In
    /// four bytes and more they stay below the sign of a program that knows signed numbers only.
    pub(super) fn of_width(bytes: usize) -> Self {
        match bytes {
            1 => Self { first: 1, count: 0xff },
            2 => Self { first: 1, count: 0xffff },
            _ => Self::DIGITS,
        }
    }
}

/// How many bytes a number has in decimal text.
pub(super) const DIGITS: usize = 10;

/// Writes a number of [`Numbers::DIGITS`] to the first bytes of `place`.
pub(super) fn write_digits(number: u64, place: &mut [u8]) {
    for (byte, digit) in place.iter_mut().zip(format!("{number:010}").bytes()) {
        *byte = digit;
    }
}

/// The open calls, by number.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Flight {
    open: BTreeMap<u64, Call>,
    /// The numbers of calls that were given up and may still be answered.
    owed: BTreeSet<u64>,
    /// How many numbers were given out or passed over since the last turn.
    given: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Call {
    call: u64,
    /// Whether its request is on its way.
    begun: bool,
    #[serde(with = "bytes_text")]
    own: Bytes,
}

impl Flight {
    pub(super) fn has_free(&self, numbers: Numbers) -> bool {
        let taken = self.open.len() + self.owed.len();
        u64::try_from(taken).is_ok_and(|taken| taken < numbers.count)
    }

    pub(super) fn reserve(
        &mut self,
        numbers: Numbers,
        call: u64,
        own: Bytes,
        seed: u64,
    ) -> Option<u64> {
        if !self.has_free(numbers) {
            return None;
        }
        loop {
            let number = numbers.first + (seed % numbers.count + self.given) % numbers.count;
            self.given = (self.given + 1) % numbers.count;
            if !self.open.contains_key(&number) && !self.owed.contains(&number) {
                self.open.insert(number, Call { call, begun: false, own });
                return Some(number);
            }
        }
    }

    pub(super) fn begin(&mut self, number: u64) {
        if let Some(call) = self.open.get_mut(&number) {
            call.begun = true;
        }
    }

    pub(super) fn is_open(&self, number: u64) -> bool {
        self.open.get(&number).is_some_and(|call| call.begun)
    }

    pub(super) fn is_owed(&self, number: u64) -> bool {
        self.owed.contains(&number)
    }

    /// The number of the call that has this id of its caller's own; `is_own` tells the caller's calls.
    pub(super) fn number_of(&self, own: &[u8], is_own: impl Fn(u64) -> bool) -> Option<u64> {
        let mut open = self.open.iter().rev();
        open.find(|(_, call)| call.own == own && is_own(call.call)).map(|(number, _)| *number)
    }

    pub(super) fn free(&mut self, number: u64) {
        self.open.remove(&number);
    }

    pub(super) fn abandon(&mut self, numbers: Numbers, number: u64) {
        if self.open.remove(&number).is_none() {
            return;
        }
        self.owed.insert(number);
        if numbers.count > FEW && self.owed.len() > MOST_OWED {
            // Numbers grow, so that the least is the oldest, but for those around a turn.
            self.owed.pop_first();
        }
    }

    /// A reply with this number came; its caller finds what was its own at the number's place.
    pub(super) fn answered(
        &mut self,
        number: u64,
        own: Own,
        message: &Bytes,
        at: Range<usize>,
    ) -> Outcome {
        if self.open.get(&number).is_some_and(|call| call.begun)
            && let Some(call) = self.open.remove(&number)
        {
            let own = match own {
                Own::AsSent => call.own,
                Own::Bytes(own) => own,
            };
            let reply = vec![replaced(message, at, &own)];
            return Outcome::Done { call: call.call, reply };
        }
        if self.pay(number) { Outcome::Swallowed } else { Outcome::Unmatched }
    }

    /// The late reply to a call that was given up came; false where none with this number is owed.
    pub(super) fn pay(&mut self, number: u64) -> bool {
        self.owed.remove(&number)
    }
}

/// A message with something else at a place of it.
pub(super) fn replaced(message: &Bytes, at: Range<usize>, with: &[u8]) -> Bytes {
    if at.start == 0 && with.is_empty() {
        return message.slice(at.end..);
    }
    let mut whole = BytesMut::with_capacity(message.len() - at.len() + with.len());
    whole.extend_from_slice(&message[..at.start]);
    whole.extend_from_slice(with);
    whole.extend_from_slice(&message[at.end..]);
    whole.freeze()
}
