//! What a message of JSON-RPC, or of something like it, says of itself: for those who stand between a
//! client and a program and must know a request from an answer. Nothing is kept.

use core::ops::Range;

use bytes::{Bytes, BytesMut};

use super::BadRule;
use super::id::{Anatomy, Pointer};

/// Reads messages whose id is at a place that a JSON pointer names.
#[derive(Debug)]
pub struct JsonIds(Pointer);

/// What a message is. Ids are the text of a JSON value, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Letter {
    /// It wants an answer.
    Request {
        /// Where its id is.
        id: Range<usize>,
        /// What is asked for.
        method: String,
    },
    /// It answers a request.
    Answer {
        /// Where the id of the request is.
        id: Range<usize>,
    },
    /// It wants none.
    Notification {
        /// What is told.
        method: String,
    },
    /// It is JSON with neither id nor method, or none at all.
    Other,
}

impl JsonIds {
    /// For ids at this JSON pointer.
    pub fn new(pointer: &str) -> Result<Self, BadRule> {
        Pointer::new(pointer).map(Self)
    }

    /// What a message is.
    pub fn read(&self, message: &[u8]) -> Letter {
        let Ok(Anatomy { id, method }) = self.0.anatomy(message) else { return Letter::Other };
        let id = id.filter(|at| message.get(at.clone()) != Some(b"null"));
        match (id, method) {
            (Some(id), Some(method)) => Letter::Request { id, method },
            (Some(id), None) => Letter::Answer { id },
            (None, Some(method)) => Letter::Notification { method },
            (None, None) => Letter::Other,
        }
    }

    /// The same message with another id; `None` where it has none.
    pub fn with_id(&self, message: &[u8], id: &[u8]) -> Option<Bytes> {
        let at = self.0.anatomy(message).ok()?.id?;
        let mut whole = BytesMut::with_capacity(message.len() - at.len() + id.len());
        whole.extend_from_slice(&message[..at.start]);
        whole.extend_from_slice(id);
        whole.extend_from_slice(&message[at.end..]);
        Some(whole.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_by_id_and_method() {
        let ids = JsonIds::new("/id").unwrap();
        let request = |id: Range<usize>| Letter::Request { id, method: "m".into() };
        for (message, letter) in [
            (r#"{"id":7,"method":"m"}"#, request(6..7)),
            (r#"{"method":"m","params":{"id":1},"id":"a"}"#, request(37..40)),
            (r#"{"id":7,"result":{"method":"m"}}"#, Letter::Answer { id: 6..7 }),
            (r#"{"id":7,"error":{}}"#, Letter::Answer { id: 6..7 }),
            (r#"{"method":"m"}"#, Letter::Notification { method: "m".into() }),
            (r#"{"id":null,"method":"m"}"#, Letter::Notification { method: "m".into() }),
            (r#"{"id":7,"method":5}"#, Letter::Answer { id: 6..7 }),
            ("{}", Letter::Other),
            ("[]", Letter::Other),
            ("hello", Letter::Other),
        ] {
            assert_eq!(ids.read(message.as_bytes()), letter, "{message}");
        }
        let other = ids.with_id(br#"{"id": 12, "x":1}"#, b"\"a\"").unwrap();
        assert_eq!(other, r#"{"id": "a", "x":1}"#);
        assert_eq!(ids.with_id(b"{}", b"1"), None);
    }
}
