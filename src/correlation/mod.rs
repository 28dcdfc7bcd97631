//! Which message belongs to which request, one file a rule.
//!
//! A [`Rule`] is compiled once and shared by every port of a service; a [`Correlator`] is the state
//! of one port, serialisable so that an upgrade can carry it over. It sees the messages that come
//! and nothing else: no clock, no bytes on a wire.
//!
//! One call is open at a time. A message that comes while none is open is an *event*. A call that
//! was given up (its deadline passed, its caller went away) **stays open, abandoned, until the
//! program has answered it**: what comes is swallowed and counted, and only then can another call
//! begin. So no caller ever gets the late reply of another, under any rule, and a program that
//! never answers holds up the calls behind it, each until its own deadline. There is no safe way
//! around: with `one` and `until` nothing in a reply says whose it is, and a program that swallowed
//! a sentinel (an open quote before it) is likely to swallow the next request with it.

mod none;
mod one;
mod sentinel;
mod until;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::bytes_text;
use crate::spec::Replies;

/// Why a rule in a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRule {
    /// `until` is no regular expression.
    #[error("use {pattern:?} as the end of replies: {why}")]
    Pattern {
        /// As written.
        pattern: String,
        /// In the words of the regular expression compiler.
        why: String,
    },
    /// A text of `sentinel` has no place for the token.
    #[error("use {text:?} in `sentinel`: it does not contain {{token}}")]
    NoToken {
        /// As written.
        text: String,
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
}

/// What a message is to the open call.
enum Verdict {
    /// Nothing.
    Foreign,
    /// A part of its reply.
    Part,
    /// The last part.
    Last,
    /// The end, with what stood before the end in the same message.
    End(Option<Bytes>),
}

impl Rule {
    /// Compiles the rule of a configuration.
    pub fn new(replies: &Replies) -> Result<Self, BadRule> {
        Ok(Self(match replies {
            Replies::None => Kind::None,
            Replies::One => Kind::One,
            Replies::Until(pattern) => Kind::Until(until::Until::new(pattern)?),
            Replies::Sentinel { send, expect } => {
                Kind::Sentinel(sentinel::Sentinel::new(send, expect)?)
            }
        }))
    }

    /// Whether requests are answered at all; where they are not, a call cannot be made.
    pub fn answers(&self) -> bool {
        !matches!(self.0, Kind::None)
    }

    /// The message to send straight after a request, if any. `token` must be unique to the call,
    /// unlikely in anything the program says, and no suffix of another call's.
    pub fn after_request(&self, token: &str) -> Option<Bytes> {
        match &self.0 {
            Kind::Sentinel(sentinel) => Some(sentinel.send(token)),
            Kind::None | Kind::One | Kind::Until(_) => None,
        }
    }

    fn judge(&self, message: &Bytes, token: &str) -> Verdict {
        match &self.0 {
            Kind::None => none::judge(),
            Kind::One => one::judge(),
            Kind::Until(until) => until.judge(message),
            Kind::Sentinel(sentinel) => sentinel.judge(message, token),
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
    /// It is kept as a part of the reply to the open call.
    Part,
    /// It completed the reply to this call. No call is open now.
    Done {
        /// Which call.
        call: u64,
        /// The messages of the reply; may be none with `sentinel`.
        reply: Vec<Bytes>,
    },
    /// With it, the reply to this call is larger than allowed. The call is abandoned from now on.
    TooLarge {
        /// Which call.
        call: u64,
        /// The messages before this one.
        so_far: Vec<Bytes>,
    },
    /// It belongs to an abandoned call, whose reply is still not complete.
    Swallowed,
    /// It completed the reply to an abandoned call. No call is open now.
    Resolved {
        /// Which call.
        call: u64,
    },
}

/// What one port is waiting for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Correlator {
    open: Option<Box<Open>>,
}

/// The call that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    call: u64,
    token: String,
    /// Nobody wants the reply any more.
    abandoned: bool,
    #[serde(with = "bytes_text::list")]
    reply: Vec<Bytes>,
    /// The bytes in `reply`.
    size: u64,
}

impl Correlator {
    /// A call begins: its request is on its way to the program.
    pub fn begin(&mut self, call: u64, token: &str) -> Result<(), Occupied> {
        if self.open.is_some() {
            return Err(Occupied);
        }
        let token = token.to_owned();
        let open = Open { call, token, abandoned: false, reply: Vec::new(), size: 0 };
        self.open = Some(Box::new(open));
        Ok(())
    }

    /// Which call is open, abandoned or not.
    pub fn open(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.call)
    }

    /// Says whose a message is. A reply may have `max` bytes, not counting what frames its messages,
    /// and one message for every 16 bytes of that (but at least 1,024), since empty ones take room
    /// as well.
    pub fn take(&mut self, rule: &Rule, message: Bytes, max: u64) -> Outcome {
        let Some(open) = &mut self.open else { return Outcome::Event(message) };
        let (part, last) = match rule.judge(&message, &open.token) {
            Verdict::Foreign => return Outcome::Event(message),
            Verdict::Part => (Some(message), false),
            Verdict::Last => (Some(message), true),
            Verdict::End(before) => (before, true),
        };
        if open.abandoned {
            return if last { self.resolve() } else { Outcome::Swallowed };
        }
        if let Some(part) = part {
            open.size += u64::try_from(part.len()).unwrap_or(u64::MAX);
            let messages = u64::try_from(open.reply.len()).unwrap_or(u64::MAX);
            if open.size > max || messages >= (max / 16).max(1024) {
                return self.too_large(last);
            }
            open.reply.push(part);
        }
        if last { self.done() } else { Outcome::Part }
    }

    /// Nobody wants the reply to the open call any more. Gives what has come of it.
    pub fn abandon(&mut self) -> Vec<Bytes> {
        match &mut self.open {
            None => Vec::new(),
            Some(open) => {
                open.abandoned = true;
                std::mem::take(&mut open.reply)
            }
        }
    }

    /// No reply can come any more, because the program is gone. Gives what has come of the open one.
    pub fn close(&mut self) -> Vec<Bytes> {
        self.open.take().map_or_else(Vec::new, |open| open.reply)
    }

    fn done(&mut self) -> Outcome {
        let open = self.open.take().expect("only called with an open call");
        Outcome::Done { call: open.call, reply: open.reply }
    }

    fn resolve(&mut self) -> Outcome {
        let open = self.open.take().expect("only called with an open call");
        Outcome::Resolved { call: open.call }
    }

    fn too_large(&mut self, last: bool) -> Outcome {
        let call = self.open().expect("only called with an open call");
        let so_far = self.abandon();
        if last {
            self.open = None;
        }
        Outcome::TooLarge { call, so_far }
    }
}
