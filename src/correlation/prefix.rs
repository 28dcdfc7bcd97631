//! `prefix`: a number that leads a request leads its reply too.
//!
//! So speak Go programs (GTP), gdb's machine interface and squid's helpers. `send`, with the number in
//! the place of `{token}`, is put before the request. A message that begins with what `expect`, a
//! regular expression, describes is the reply, whole; its beginning is taken off, but for what a group
//! named `keep` matched. A message that does not begin so is an event.

use bytes::{BufMut, Bytes, BytesMut};
use regex::bytes::Regex;

use super::flight::DIGITS;
use super::{BadRule, Own, Sign, Tag};

const TOKEN: &str = "{token}";

#[derive(Debug)]
pub(super) struct Prefix {
    /// What stands before the number, and between it and the request.
    before: String,
    after: String,
    expect: Regex,
}

impl Prefix {
    pub(super) fn new(send: &str, expect: &str) -> Result<Self, BadRule> {
        let once = |text: &str| BadRule::NoToken { text: text.to_owned(), times: "once" };
        let only = |text: &str| text.matches(TOKEN).count() == 1;
        let (before, after) = send.split_once(TOKEN).ok_or_else(|| once(send))?;
        if !only(send) {
            return Err(once(send));
        }
        if !only(expect) {
            return Err(once(expect));
        }
        let pattern = format!(r"\A(?:{})", expect.replace(TOKEN, "(?P<token>[0-9]+)"));
        let expect = Regex::new(&pattern).map_err(|error| BadRule::Pattern {
            pattern: expect.to_owned(),
            why: error.to_string(),
        })?;
        Ok(Self { before: before.to_owned(), after: after.to_owned(), expect })
    }

    pub(super) fn tag(&self, request: &[u8]) -> (Bytes, Tag) {
        let led = self.before.len() + DIGITS + self.after.len();
        let mut whole = BytesMut::with_capacity(led + request.len());
        whole.put_slice(self.before.as_bytes());
        whole.put_bytes(b'0', DIGITS);
        whole.put_slice(self.after.as_bytes());
        whole.put_slice(request);
        (whole.freeze(), Tag { at: self.before.len(), own: Bytes::new() })
    }

    pub(super) fn sign(&self, message: &Bytes) -> Sign {
        let Some(led) = self.expect.captures(message) else { return Sign::Notification };
        let (Some(whole), Some(token)) = (led.get(0), led.name("token")) else {
            return Sign::Notification;
        };
        let number = std::str::from_utf8(token.as_bytes()).ok().and_then(|text| text.parse().ok());
        let Some(number) = number else { return Sign::Unknown };
        let kept = led.name("keep").map(|kept| message.slice(kept.range()));
        Sign::Reply { number, at: whole.range(), own: Own::Bytes(kept.unwrap_or_default()) }
    }
}
