//! Which message belongs to which request, one file a rule.
//!
//! A [`Rule`] is compiled once and shared by every port of a service; a [`Correlator`] is the state
//! of one port, serialisable so that an upgrade can carry it over. It sees the messages that come
//! and nothing else: no clock, no bytes on a wire.
//!
//! There are two kinds of rule. Those that **tell calls apart** (`id`, `prefix`) give each request a
//! number which its reply bears: many calls are open at once, replies come in any order, and the late
//! reply of a call that was given up is known for what it is. All others are **serial**: nothing in a
//! reply says whose it is, so one call is open at a time, and one that was given up stays open,
//! abandoned, until the program has answered it. So no caller ever gets the late reply of another,
//! under any rule. A message that belongs to no call is an *event*.

mod bracket;
mod flight;
mod id;
mod inner;
mod json_ids;
mod none;
mod one;
mod prefix;
mod sections;
mod sentinel;
mod serial;
mod until;

#[cfg(test)]
mod garbage;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::bytes_text;
use crate::spec::{Framing, Replies};

use self::flight::Flight;
use self::serial::Open;

pub use self::id::IdError;
pub use self::inner::{progress_of, with_tokens};
pub use self::json_ids::{JsonIds, Letter};
pub use self::sections::Sections;

/// Why a rule in a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRule {
    /// What should be a regular expression is none.
    #[error("use {pattern:?} in `replies`: {why}")]
    Pattern {
        /// As written.
        pattern: String,
        /// In the words of the regular expression compiler.
        why: String,
    },
    /// A text has no place for the token, or more than one.
    #[error("use {text:?} in `replies`: it must contain {{token}} {times}")]
    NoToken {
        /// As written.
        text: String,
        /// How often it must: `once`, or `at least once`.
        times: &'static str,
    },
    /// The place of the id is no JSON pointer.
    #[error("use {pointer:?} as the place of the id: a JSON pointer such as /id is needed")]
    Pointer {
        /// As written.
        pointer: String,
    },
}

/// How replies are told apart, for every port of one service.
#[derive(Debug)]
pub struct Rule(Kind);

#[derive(Debug)]
enum Kind {
    None,
    One,
    Until(until::Until),
    Sentinel(sentinel::Sentinel),
    Bracket(bracket::Bracket),
    Sections(Sections),
    Id(id::Id),
    Prefix(prefix::Prefix),
    /// The id of a frame of wire protocol 1, which is no part of the message.
    Envelope,
}

/// What a message is to the open call of a serial rule.
enum Verdict {
    /// Nothing.
    Foreign,
    /// It announces the reply and is no part of it.
    Begin,
    /// A part of its reply.
    Part,
    /// The last part.
    Last,
    /// The end, with what of the same message belongs to the reply.
    End(Option<Bytes>),
}

/// How far the reply to the open call of a serial rule has come.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Within {
    /// Of `bracket`: the line that announced it has come.
    bracket: Option<bracket::Inside>,
    /// Of `sections`: how many are still to end, once the first packet has come.
    sections: Option<u32>,
}

/// What a message is under a rule that tells calls apart.
enum Sign {
    /// Said by the program of itself: a notification, or a request of its own.
    Notification,
    /// Nothing that the protocol knows.
    Foreign,
    /// A reply whose number, if it has one, wharf never gives.
    Unknown,
    /// A reply to the call with this number, with the place that is its caller's.
    Reply { number: u64, at: core::ops::Range<usize>, own: Own },
}

/// What goes to the number's place in a reply.
enum Own {
    /// What stood there in the request.
    AsSent,
    /// This.
    Bytes(Bytes),
}

/// The place in a request that its number goes to, and what its caller wrote there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// Where the number begins.
    at: usize,
    /// To be put back into the reply.
    #[serde(with = "bytes_text")]
    own: Bytes,
}

impl Rule {
    /// Compiles the rule of a configuration whose messages, where it looks into them, are JSON.
    pub fn new(replies: &Replies) -> Result<Self, BadRule> {
        Self::within(replies, &Framing::Lines)
    }

    /// Compiles the rule of a configuration; the framing says what messages are made of.
    pub fn within(replies: &Replies, framing: &Framing) -> Result<Self, BadRule> {
        Ok(Self(match replies {
            Replies::None => Kind::None,
            Replies::One => Kind::One,
            Replies::Until(pattern) => Kind::Until(until::Until::new(pattern)?),
            Replies::Sentinel { send, expect } => {
                Kind::Sentinel(sentinel::Sentinel::new(send, expect)?)
            }
            Replies::Id(place) => Kind::Id(id::Id::new(place, framing)?),
            Replies::Prefix { send, expect } => Kind::Prefix(prefix::Prefix::new(send, expect)?),
            Replies::Bracket { begin, end } => Kind::Bracket(bracket::Bracket::new(begin, end)?),
            Replies::Sections { longer, .. } => Kind::Sections(Sections::new(longer)?),
            Replies::Envelope => Kind::Envelope,
        }))
    }

    /// Whether requests are answered at all; where they are not, a call cannot be made.
    pub fn answers(&self) -> bool {
        !matches!(self.0, Kind::None)
    }

    /// Whether a reply says which call it belongs to, so that several may be open at once.
    pub fn tells_apart(&self) -> bool {
        self.numbers().is_some()
    }

    /// Whether a reply is known by a token, so that each call needs one of its own.
    pub fn needs_token(&self) -> bool {
        matches!(self.0, Kind::Sentinel(_))
    }

    /// How many sections messages have, where that says where they end.
    pub fn sections(&self) -> Option<&Sections> {
        match &self.0 {
            Kind::Sections(sections) => Some(sections),
            Kind::None
            | Kind::One
            | Kind::Until(_)
            | Kind::Sentinel(_)
            | Kind::Bracket(_)
            | Kind::Id(_)
            | Kind::Prefix(_)
            | Kind::Envelope => None,
        }
    }

    /// The message to send straight after a request, if any. `token` must be unique to the call,
    /// unlikely in anything the program says, and no suffix of another call's.
    pub fn after_request(&self, token: &str) -> Option<Bytes> {
        match &self.0 {
            Kind::Sentinel(sentinel) => Some(sentinel.send(token)),
            Kind::None
            | Kind::One
            | Kind::Until(_)
            | Kind::Bracket(_)
            | Kind::Sections(_)
            | Kind::Id(_)
            | Kind::Prefix(_)
            | Kind::Envelope => None,
        }
    }

    /// Makes a call's request ready for the number that [`Correlator::reserve`] will give it; what
    /// comes out has the size that it will have. Without a tag it needs no number.
    pub fn tag(&self, request: Bytes) -> Result<(Bytes, Option<Tag>), IdError> {
        let (request, tag) = match &self.0 {
            Kind::Id(id) => id.tag(&request)?,
            Kind::Prefix(prefix) => prefix.tag(&request),
            Kind::Envelope => (request, Tag { at: 0, own: Bytes::new() }),
            Kind::None
            | Kind::One
            | Kind::Until(_)
            | Kind::Sentinel(_)
            | Kind::Bracket(_)
            | Kind::Sections(_) => return Ok((request, None)),
        };
        Ok((request, Some(tag)))
    }

    /// A tagged request with its number. A large one is not copied, unless somebody else holds it.
    pub fn numbered(&self, request: Bytes, tag: &Tag, number: u64) -> Bytes {
        if let Kind::Envelope = self.0 {
            return request;
        }
        let mut request = request.try_into_mut().unwrap_or_else(|shared| shared[..].into());
        let place = request.get_mut(tag.at..).unwrap_or_default();
        match &self.0 {
            Kind::Id(id) => id.write(number, place),
            Kind::Prefix(_) => flight::write_digits(number, place),
            Kind::None
            | Kind::One
            | Kind::Until(_)
            | Kind::Sentinel(_)
            | Kind::Bracket(_)
            | Kind::Sections(_)
            | Kind::Envelope => {}
        }
        request.freeze()
    }

    /// Where a message that is no call has the id of the call that it cancels.
    fn cancels(&self, message: &[u8]) -> Option<core::ops::Range<usize>> {
        match &self.0 {
            Kind::Id(id) if id.is_json() => inner::cancels(message),
            Kind::None
            | Kind::One
            | Kind::Until(_)
            | Kind::Sentinel(_)
            | Kind::Bracket(_)
            | Kind::Sections(_)
            | Kind::Id(_)
            | Kind::Prefix(_)
            | Kind::Envelope => None,
        }
    }

    /// The numbers that calls are told apart by.
    fn numbers(&self) -> Option<flight::Numbers> {
        match &self.0 {
            Kind::Id(id) => Some(id.numbers()),
            Kind::Prefix(_) | Kind::Envelope => Some(flight::Numbers::DIGITS),
            Kind::None
            | Kind::One
            | Kind::Until(_)
            | Kind::Sentinel(_)
            | Kind::Bracket(_)
            | Kind::Sections(_) => None,
        }
    }

    fn judge(&self, message: &Bytes, token: &str, within: &mut Within) -> Verdict {
        match &self.0 {
            Kind::One => one::judge(),
            Kind::Until(until) => until.judge(message),
            Kind::Sentinel(sentinel) => sentinel.judge(message, token),
            Kind::Bracket(bracket) => bracket.judge(message, &mut within.bracket),
            Kind::Sections(sections) if sections.ends(message, &mut within.sections) => {
                Verdict::Last
            }
            Kind::Sections(_) => Verdict::Part,
            // Those that tell calls apart never come here.
            Kind::None | Kind::Id(_) | Kind::Prefix(_) | Kind::Envelope => none::judge(),
        }
    }

    fn sign(&self, message: &Bytes) -> Sign {
        match &self.0 {
            Kind::Id(id) => id.sign(message),
            Kind::Prefix(prefix) => prefix.sign(message),
            // What a frame is, its kind says, and `Correlator::answered` takes its number.
            Kind::None
            | Kind::One
            | Kind::Until(_)
            | Kind::Sentinel(_)
            | Kind::Bracket(_)
            | Kind::Sections(_)
            | Kind::Envelope => Sign::Foreign,
        }
    }
}

/// Another call is still open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("begin a call: another one is open")]
pub struct Occupied;

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It belongs to no call.
    Event(Bytes),
    /// It belongs to no call and is not meant to: the program said it of itself.
    Notification(Bytes),
    /// It is kept as a part of the reply to the open call, or announces it.
    Part,
    /// It completed the reply to this call, which is not open any more.
    Done {
        /// Which call.
        call: u64,
        /// The messages of the reply; may be none with `sentinel` and `bracket`.
        reply: Vec<Bytes>,
    },
    /// With it, the reply to this call is larger than allowed. The call is abandoned from now on.
    TooLarge {
        /// Which call.
        call: u64,
        /// The messages before this one.
        so_far: Vec<Bytes>,
    },
    /// It belongs to an abandoned call.
    Swallowed,
    /// It completed the reply to the abandoned call of a serial rule. No call is open now.
    Resolved {
        /// Which call.
        call: u64,
    },
    /// It is a reply, and no call is open that it could belong to: a second one, or to nobody.
    Unmatched,
}

/// What one port is waiting for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Correlator {
    /// The call that is open under a serial rule.
    open: Option<Open>,
    /// The calls that are open under a rule that tells them apart.
    flight: Option<Box<Flight>>,
}

impl Correlator {
    /// A call begins under a serial rule: its request is on its way to the program.
    pub fn begin(&mut self, call: u64, token: &str) -> Result<(), Occupied> {
        if self.open.is_some() {
            return Err(Occupied);
        }
        self.open = Some(Open::new(call, token));
        Ok(())
    }

    /// A call begins whose reply is all that the program still says, whatever the rule. No other may be
    /// open, and none may begin after it.
    pub fn begin_rest(&mut self, call: u64) {
        self.open = Some(Open::rest(call));
    }

    /// Whether a number is free for another call; never under a serial rule.
    pub fn has_number(&self, rule: &Rule) -> bool {
        let Some(numbers) = rule.numbers() else { return false };
        self.flight.as_ref().is_none_or(|flight| flight.has_free(numbers))
    }

    /// Gives a call a number that no other has. Its request is not on its way yet. `seed` makes the
    /// first number differ from port to port.
    pub fn reserve(&mut self, rule: &Rule, call: u64, tag: &Tag, seed: u64) -> Option<u64> {
        let numbers = rule.numbers()?;
        self.flight.get_or_insert_default().reserve(numbers, call, tag.own.clone(), seed)
    }

    /// The request with this number is on its way: from now on its reply may come.
    pub fn begin_numbered(&mut self, number: u64) {
        if let Some(flight) = &mut self.flight {
            flight.begin(number);
        }
    }

    /// The request with this number will never be on its way.
    pub fn unreserve(&mut self, number: u64) {
        if let Some(flight) = &mut self.flight {
            flight.free(number);
        }
    }

    /// Nobody wants the reply to the request with this number any more. If one comes it is
    /// swallowed; no other call waits for that.
    pub fn abandon_numbered(&mut self, rule: &Rule, number: u64) {
        if let (Some(flight), Some(numbers)) = (&mut self.flight, rule.numbers()) {
            flight.abandon(numbers, number);
        }
    }

    /// Whether the request with this number is on its way and its reply is wanted.
    pub fn is_open(&self, number: u64) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.is_open(number))
    }

    /// Whether the request with this number was given up and is still owed its reply.
    pub fn is_owed(&self, number: u64) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.is_owed(number))
    }

    /// A message that cancels a call, with that call's number in the place of the id that its caller
    /// gave it: among calls that have the same, the one of which `is_own` says so. `None` where the
    /// message cancels nothing; where its call is not open it names none.
    pub fn cancelling(
        &self,
        rule: &Rule,
        message: &Bytes,
        is_own: impl Fn(u64) -> bool,
    ) -> Option<Bytes> {
        let at = rule.cancels(message)?;
        let flight = self.flight.as_ref();
        let number = flight.and_then(|flight| flight.number_of(&message[at.clone()], is_own));
        Some(inner::cancelling(message, at, number.unwrap_or(0)))
    }

    /// The reply to the request with this number has come, or the last of it.
    pub fn answered(&mut self, number: u64, reply: &Bytes) -> Outcome {
        let Some(flight) = &mut self.flight else { return Outcome::Unmatched };
        flight.answered(number, Own::AsSent, reply, 0..0)
    }

    /// Which call is open under a serial rule, abandoned or not.
    pub fn open(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.call)
    }

    /// Says whose a message is. A reply may have `max` bytes, not counting what frames its messages,
    /// and one message for every 16 bytes of that (but at least 1,024), since empty ones take room
    /// as well.
    pub fn take(&mut self, rule: &Rule, message: Bytes, max: u64) -> Outcome {
        let rest = self.open.as_ref().is_some_and(Open::is_rest);
        if rest && rule.tells_apart() && self.pays(rule, &message) {
            return Outcome::Swallowed;
        }
        if rule.tells_apart() && !rest {
            return match rule.sign(&message) {
                Sign::Notification => Outcome::Notification(message),
                Sign::Foreign => Outcome::Event(message),
                Sign::Unknown => Outcome::Unmatched,
                Sign::Reply { number, at, own } => match &mut self.flight {
                    None => Outcome::Unmatched,
                    Some(flight) => flight.answered(number, own, &message, at),
                },
            };
        }
        let Some(open) = &mut self.open else { return Outcome::Event(message) };
        let (outcome, goes_on) = open.take(rule, message, max);
        if !goes_on {
            self.open = None;
        }
        outcome
    }

    /// Whether a message is the late reply to a call that was given up.
    fn pays(&mut self, rule: &Rule, message: &Bytes) -> bool {
        let Sign::Reply { number, .. } = rule.sign(message) else { return false };
        self.flight.as_mut().is_some_and(|flight| flight.pay(number))
    }

    /// Nobody wants the reply to the open call of a serial rule any more. Gives what has come of it.
    pub fn abandon(&mut self) -> Vec<Bytes> {
        self.open.as_mut().map_or_else(Vec::new, Open::abandon)
    }

    /// No reply can come any more, because the program is gone. Gives what has come of the open one.
    pub fn close(&mut self) -> Vec<Bytes> {
        self.flight = None;
        self.open.take().map_or_else(Vec::new, Open::into_reply)
    }
}
