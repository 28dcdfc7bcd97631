//! `counted`: a header line announces how long the body after it is; a trailer follows the body.
//! This is how `git cat-file --batch` answers: `<oid> blob 12`, twelve bytes, LF.
//!
//! The message of a counted frame is the **header line, one LF, and the body**, without the trailer:
//! a caller needs the header to know which object of what type it got, finds its end at the first
//! LF, and knows that all the rest is the body, whatever bytes it has. A line that the header does
//! not match (`<name> missing`) is a message of its own, so that it answers a call as well. Lines end
//! as in `lines`: at LF, without one CR before it. `max_frame` bounds the message as delivered.
//!
//! The header is a regular expression over bytes: `\d` is a digit of ASCII, which alone can be a length,
//! and `.` is any byte but LF, since names may be in any encoding.
//!
//! Requests are plain lines, as in `lines`: nothing is announced in that direction.

use bytes::Bytes;
use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::error::{BadRule, Fault, Part};
use super::gather::{Gather, Stand, Step, decimal, memory, size};
use super::lines;

/// The rule, compiled.
#[derive(Debug)]
pub(super) struct Rule {
    header: Regex,
    /// The number of the group that holds the length.
    group: usize,
    trailer: Bytes,
}

impl Rule {
    pub(super) fn new(pattern: &str, trailer: &str) -> Result<Self, BadRule> {
        let header = RegexBuilder::new(pattern).unicode(false).build();
        let header = header.map_err(|error| BadRule::Pattern {
            pattern: pattern.to_owned(),
            why: error.to_string(),
        })?;
        let named = header.capture_names().position(|name| name == Some("length"));
        if header.captures_len() < 2 {
            return Err(BadRule::NoGroup { pattern: pattern.to_owned() });
        }
        let trailer = Bytes::copy_from_slice(trailer.as_bytes());
        Ok(Self { header, group: named.unwrap_or(1), trailer })
    }

    /// The length that a line announces; `None` when it is no header.
    fn length(&self, line: &[u8]) -> Result<Option<u64>, Fault> {
        let Some(found) = self.header.captures(line).and_then(|found| found.get(self.group)) else {
            return Ok(None);
        };
        let digits = found.as_bytes();
        decimal(digits).map(Some).ok_or_else(|| {
            let what = format!("announces \"{}\" as its length", digits.escape_ascii());
            Fault::Garbage { what }
        })
    }
}

/// Where in a frame the stream stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Counted {
    /// The header line; once it is whole, an LF and the body so far.
    gathered: Gather,
    /// Set once the header is whole.
    body: Option<Body>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Body {
    /// The size of the header and its LF.
    header: usize,
    /// The size of the whole message.
    whole: usize,
    /// How many bytes of the trailer have come.
    trailer: usize,
}

impl Counted {
    pub(super) fn step(&mut self, rule: &Rule, bytes: &[u8], max: u64) -> Result<Step, Fault> {
        if self.body.is_some() {
            return self.body_step(rule, bytes);
        }
        let (used, whole) = lines::gather(&mut self.gathered, bytes, max)?;
        if !whole {
            return Ok(Step::more(used));
        }
        let Some(length) = rule.length(self.gathered.as_slice())? else {
            return Ok(Step::whole(used, self.gathered.take()));
        };
        let header = self.gathered.len() + 1;
        let whole = size(header).saturating_add(length);
        if whole > max {
            return Err(Fault::Oversize { announced: Some(length), max });
        }
        let whole = memory(whole);
        self.gathered.add(b"\n", whole);
        self.body = Some(Body { header, whole, trailer: 0 });
        let step = self.body_step(rule, &bytes[used..])?;
        Ok(Step { used: used + step.used, ..step })
    }

    fn body_step(&mut self, rule: &Rule, bytes: &[u8]) -> Result<Step, Fault> {
        let Some(body) = &mut self.body else { return Ok(Step::more(0)) };
        let taken = bytes.len().min(body.whole - self.gathered.len());
        self.gathered.add(&bytes[..taken], body.whole);
        if self.gathered.len() < body.whole {
            return Ok(Step::more(taken));
        }
        let expected = &rule.trailer[body.trailer.min(rule.trailer.len())..];
        let found = &bytes[taken..];
        let found = &found[..found.len().min(expected.len())];
        if let Some((other, _)) = found.iter().zip(expected).find(|(is, due)| is != due) {
            let what = format!(
                "has \"{}\" where its trailer \"{}\" is due",
                other.escape_ascii(),
                rule.trailer.escape_ascii()
            );
            return Err(Fault::Garbage { what });
        }
        body.trailer += found.len();
        if found.len() < expected.len() {
            return Ok(Step::more(taken + found.len()));
        }
        let used = taken + found.len();
        self.body = None;
        Ok(Step::whole(used, self.gathered.take()))
    }

    /// What is left of the stream: an unfinished line that is no header is a message.
    pub(super) fn finish(&mut self, rule: &Rule, max: u64) -> Result<Option<Bytes>, Fault> {
        let length = size(self.gathered.len());
        let (part, got, wanted) = match self.body {
            None if rule.length(self.gathered.as_slice())?.is_none() => {
                return lines::finish(&mut self.gathered, max);
            }
            None => (Part::Header, length, length + 1),
            Some(body) if self.gathered.len() < body.whole => {
                let header = size(body.header);
                (Part::Body, length - header, size(body.whole) - header)
            }
            Some(body) => (Part::Trailer, size(body.trailer), size(rule.trailer.len())),
        };
        Err(Fault::Truncated { part, got, wanted })
    }
}

impl Stand for Counted {
    fn held(&self) -> usize {
        self.gathered.len()
    }

    fn seen(&self) -> Vec<u8> {
        self.gathered.seen()
    }

    fn capacity(&self) -> usize {
        self.gathered.capacity()
    }
}
