//! The one open call of a serial rule, and what has come of its reply.
//!
//! A call that was given up (its deadline passed, its caller went away) stays open, abandoned, until
//! the program has answered it: what comes is swallowed and counted, and only then can another call
//! begin. So a program that never answers holds up the calls behind it, each until its own deadline.
//! There is no safe way around: with `one` and `until` nothing in a reply says whose it is, and a
//! program that swallowed a sentinel (an open quote before it) is likely to swallow the next request
//! with it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Outcome, Rule, Verdict, Within};
use crate::bytes_text;

/// The call that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Open {
    pub(super) call: u64,
    token: String,
    /// Nobody wants the reply any more.
    abandoned: bool,
    #[serde(with = "bytes_text::list")]
    reply: Vec<Bytes>,
    /// The bytes in `reply`.
    size: u64,
    /// Everything is a part of the reply, and nothing ends it.
    #[serde(default)]
    rest: bool,
    /// How far the reply has come.
    #[serde(default)]
    within: Within,
}

impl Open {
    pub(super) fn new(call: u64, token: &str) -> Self {
        let token = token.to_owned();
        let reply = Vec::new();
        Self {
            call,
            token,
            abandoned: false,
            reply,
            size: 0,
            rest: false,
            within: Within::default(),
        }
    }

    /// A call whose reply is all that comes.
    pub(super) fn rest(call: u64) -> Self {
        Self { rest: true, ..Self::new(call, "") }
    }

    pub(super) fn is_rest(&self) -> bool {
        self.rest
    }

    /// What a message is to the call, and whether that is still open then.
    pub(super) fn take(&mut self, rule: &Rule, message: Bytes, max: u64) -> (Outcome, bool) {
        let verdict = if self.rest {
            Verdict::Part
        } else {
            rule.judge(&message, &self.token, &mut self.within)
        };
        let (part, last) = match verdict {
            Verdict::Foreign => return (Outcome::Event(message), true),
            Verdict::Begin => (None, false),
            Verdict::Part => (Some(message), false),
            Verdict::Last => (Some(message), true),
            Verdict::End(kept) => (kept, true),
        };
        let call = self.call;
        if self.abandoned {
            let outcome = if last { Outcome::Resolved { call } } else { Outcome::Swallowed };
            return (outcome, !last);
        }
        if let Some(part) = part {
            self.size += u64::try_from(part.len()).unwrap_or(u64::MAX);
            let messages = u64::try_from(self.reply.len()).unwrap_or(u64::MAX);
            if self.size > max || messages >= (max / 16).max(1024) {
                return (Outcome::TooLarge { call, so_far: self.abandon() }, !last);
            }
            self.reply.push(part);
        }
        if last {
            return (Outcome::Done { call, reply: std::mem::take(&mut self.reply) }, false);
        }
        (Outcome::Part, true)
    }

    /// Nobody wants the reply any more. Gives what has come of it.
    pub(super) fn abandon(&mut self) -> Vec<Bytes> {
        self.abandoned = true;
        std::mem::take(&mut self.reply)
    }

    pub(super) fn into_reply(self) -> Vec<Bytes> {
        self.reply
    }
}
