//! `sentinel`: a message that makes the program say a token follows each request, and what comes
//! before the token is the reply.
//!
//! This is how programs are called that do not say where a reply ends, or whose reply can be empty:
//! `bc`, `sqlite3`, `R`. The end is a message that equals `expect`, or ends with it: `bc`'s
//! `print 5` writes no LF, so that the token follows on the same line, and `5` is the reply. The
//! exception is a message that ends with `send`, which is the request echoed by a program that
//! repeats what it is told, and a part of the reply.

use bytes::Bytes;

use super::{BadRule, Verdict};

const TOKEN: &str = "{token}";

#[derive(Debug)]
pub(super) struct Sentinel {
    send: String,
    expect: String,
}

impl Sentinel {
    pub(super) fn new(send: &str, expect: &str) -> Result<Self, BadRule> {
        for text in [send, expect] {
            if !text.contains(TOKEN) {
                return Err(BadRule::NoToken { text: text.to_owned(), times: "at least once" });
            }
        }
        Ok(Self { send: send.to_owned(), expect: expect.to_owned() })
    }

    pub(super) fn send(&self, token: &str) -> Bytes {
        Bytes::from(self.send.replace(TOKEN, token))
    }

    pub(super) fn judge(&self, message: &Bytes, token: &str) -> Verdict {
        // Most messages do not have the token; they are not worth making the texts for.
        if memchr::memmem::find(message, token.as_bytes()).is_none() {
            return Verdict::Part;
        }
        let expect = self.expect.replace(TOKEN, token);
        if message == expect.as_bytes() {
            return Verdict::End(None);
        }
        let echo = self.send.replace(TOKEN, token);
        let echo = echo.strip_suffix('\n').unwrap_or(&echo);
        if message.ends_with(expect.as_bytes()) && !message.ends_with(echo.as_bytes()) {
            return Verdict::End(Some(message.slice(..message.len() - expect.len())));
        }
        Verdict::Part
    }
}
