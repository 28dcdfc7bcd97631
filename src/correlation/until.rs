//! `until`: all messages up to and including one that matches a regular expression are the reply.
//!
//! The expression is over bytes and finds its match anywhere in a message unless it is anchored; an
//! empty line is `^$`.

use regex::bytes::Regex;

use super::{BadRule, Verdict};

#[derive(Debug)]
pub(super) struct Until(Regex);

impl Until {
    pub(super) fn new(pattern: &str) -> Result<Self, BadRule> {
        let why = |error: regex::Error| BadRule::Pattern {
            pattern: pattern.to_owned(),
            why: error.to_string(),
        };
        Regex::new(pattern).map(Self).map_err(why)
    }

    pub(super) fn judge(&self, message: &[u8]) -> Verdict {
        if self.0.is_match(message) { Verdict::Last } else { Verdict::Part }
    }
}
