//! `bracket`: a line before a reply and a line after it, each with the same number of the program's.
//!
//! So speaks tmux in control mode. What comes outside such brackets is an event, what comes between
//! them is the reply. Where `begin` and `end` both have a group named `number`, an end counts only
//! with the number of its begin, so that text which looks like an end is a part of the reply. What a
//! group `keep` of `end` matched is the last message of the reply: it can tell an error from success.

use bytes::Bytes;
use regex::bytes::{Captures, Regex};
use serde::{Deserialize, Serialize};

use super::{BadRule, Verdict};
use crate::bytes_text;

#[derive(Debug)]
pub(super) struct Bracket {
    begin: Regex,
    end: Regex,
    /// Whether numbers are compared.
    numbered: bool,
}

/// The begin has come, with this number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Inside(#[serde(with = "bytes_text")] Bytes);

impl Bracket {
    pub(super) fn new(begin: &str, end: &str) -> Result<Self, BadRule> {
        let compile = |pattern: &str| {
            Regex::new(pattern).map_err(|error| BadRule::Pattern {
                pattern: pattern.to_owned(),
                why: error.to_string(),
            })
        };
        let (begin, end) = (compile(begin)?, compile(end)?);
        let has_number = |one: &Regex| one.capture_names().flatten().any(|name| name == "number");
        let numbered = has_number(&begin) && has_number(&end);
        Ok(Self { begin, end, numbered })
    }

    pub(super) fn judge(&self, message: &Bytes, inside: &mut Option<Inside>) -> Verdict {
        let Some(Inside(number)) = inside else {
            return match self.begin.captures(message) {
                None => Verdict::Foreign,
                Some(begin) => {
                    *inside = Some(Inside(Bytes::copy_from_slice(self.number(&begin))));
                    Verdict::Begin
                }
            };
        };
        match self.end.captures(message) {
            Some(end) if self.number(&end) == *number => {
                let kept = end.name("keep").filter(|kept| !kept.is_empty());
                Verdict::End(kept.map(|kept| message.slice(kept.range())))
            }
            Some(_) | None => Verdict::Part,
        }
    }

    fn number<'m>(&self, captures: &Captures<'m>) -> &'m [u8] {
        let number = captures.name("number").filter(|_| self.numbered);
        number.map_or(b"", |number| number.as_bytes())
    }
}
