//! The handshake of a port whose protocol has one, so that many clients share one program, each of
//! which believes it is the first: a request that a run of the program gets once, and a message that
//! says it is over.
//!
//! The first client's request goes through. Its reply is kept for as long as the run lives, and
//! answers everybody else's. What was said then is remembered beyond the run: the next one is greeted
//! with the same before anybody speaks to it. What ends a client's own part of the conversation never
//! reaches the program. Pure: nothing here is written or waited for.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use crate::correlation::{BadRule, JsonIds, Letter};
use crate::spec::{self, Framing, IdPlace, Replies};

/// How many requests of a program's own may be unanswered; beyond that the oldest is
/// forgotten, and its answer passed over.
const ASKED: usize = 1024;

/// What the messages of a handshake are, for every port of one service.
#[derive(Debug)]
pub struct Handshake {
    ids: JsonIds,
    words: spec::Handshake,
}

/// What a client's message is to the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// It begins it; with this id.
    Begin(Bytes),
    /// It ends it.
    Done,
    /// It is a request by which a client takes its leave; its answer.
    Leave(Bytes),
    /// It is a message by which a client takes its leave.
    Left,
    /// It answers a request of the program's own, which has this id.
    Answer(Bytes),
    /// It is no part of it.
    None,
}

impl Handshake {
    /// The handshake of a port; `None` where it has none, or no ids to know messages by.
    pub fn of(port: &spec::Port) -> Result<Option<Self>, BadRule> {
        let (Some(words), Replies::Id(IdPlace::Pointer(pointer))) =
            (&port.handshake, &port.replies)
        else {
            return Ok(None);
        };
        if port.framing == Framing::Msgpack {
            return Ok(None);
        }
        Ok(Some(Self { ids: JsonIds::new(pointer)?, words: words.clone() }))
    }

    /// What a client's message is.
    pub fn read(&self, message: &Bytes) -> Part {
        let words = &self.words;
        let leaves = |method: &String| words.end.contains(method);
        match self.ids.read(message) {
            Letter::Request { id, method } if method == words.begin => {
                Part::Begin(message.slice(id))
            }
            Letter::Request { id, method } if leaves(&method) => {
                let answer =
                    [&b"{\"jsonrpc\":\"2.0\",\"id\":"[..], &message[id], b",\"result\":null}"];
                Part::Leave(answer.concat().into())
            }
            Letter::Notification { method } if words.done.as_ref() == Some(&method) => Part::Done,
            Letter::Notification { method } if leaves(&method) => Part::Left,
            Letter::Answer { id } => Part::Answer(message.slice(id)),
            Letter::Request { .. } | Letter::Notification { .. } | Letter::Other => Part::None,
        }
    }

    /// The id of a request of the program's own.
    pub fn asks(&self, message: &Bytes) -> Option<Bytes> {
        match self.ids.read(message) {
            Letter::Request { id, .. } => Some(message.slice(id)),
            Letter::Answer { .. } | Letter::Notification { .. } | Letter::Other => None,
        }
    }

    /// A reply as the caller with this id gets it.
    pub fn readdressed(&self, reply: &Bytes, id: &[u8]) -> Bytes {
        self.ids.with_id(reply, id).unwrap_or_else(|| reply.clone())
    }
}

/// Whether a reply says that the request failed: an object with a member `error`.
pub fn is_error(reply: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Reply {
        error: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Reply>(reply).map_or(true, |reply| reply.error.is_some())
}

/// The requests of a program's own that nobody has answered. The first answer is passed on.
#[derive(Debug, Default)]
pub struct Asked {
    open: BTreeSet<Bytes>,
    /// In the order in which they came.
    order: VecDeque<Bytes>,
}

impl Asked {
    /// The program asks.
    pub fn note(&mut self, id: &Bytes) {
        // A copy: an id of a few bytes must not keep a large message alive.
        let id = Bytes::copy_from_slice(id);
        if self.open.insert(id.clone()) {
            self.order.push_back(id);
        }
        while self.open.len() > ASKED
            && let Some(oldest) = self.order.pop_front()
        {
            self.open.remove(&oldest);
        }
    }

    /// Whether this is the first answer.
    pub fn is_first(&mut self, id: &Bytes) -> bool {
        let known = self.open.remove(id);
        if known {
            self.order.retain(|one| one != id);
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Port;

    fn lsp() -> Handshake {
        let port = Port {
            replies: Replies::Id(IdPlace::Pointer("/id".to_owned())),
            handshake: Some(spec::Handshake {
                begin: "initialize".to_owned(),
                done: Some("initialized".to_owned()),
                end: vec!["shutdown".to_owned(), "exit".to_owned()],
            }),
            ..Port::default()
        };
        Handshake::of(&port).unwrap().unwrap()
    }

    #[test]
    fn the_messages_of_a_handshake_are_known_by_their_method() {
        let handshake = lsp();
        let id = |text: &'static str| Bytes::from_static(text.as_bytes());
        for (message, part) in [
            (r#"{"id":1,"method":"initialize"}"#, Part::Begin(id("1"))),
            (r#"{"method":"initialized"}"#, Part::Done),
            (
                r#"{"id":"x","method":"shutdown"}"#,
                Part::Leave(id("{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"result\":null}")),
            ),
            (r#"{"method":"exit"}"#, Part::Left),
            (r#"{"id":5,"result":1}"#, Part::Answer(id("5"))),
            (r#"{"id":5,"method":"initialized"}"#, Part::None),
            (r#"{"method":"initialize"}"#, Part::None),
            (r#"{"id":5,"method":"other"}"#, Part::None),
            ("nonsense", Part::None),
        ] {
            assert_eq!(handshake.read(&id(message)), part, "{message}");
        }
        assert_eq!(handshake.asks(&id(r#"{"id":9,"method":"roots"}"#)), Some(id("9")));
        let reply = id(r#"{"id":1,"result":{"id":2}}"#);
        assert_eq!(handshake.readdressed(&reply, b"\"b\""), r#"{"id":"b","result":{"id":2}}"#);
        assert!(!is_error(&reply) && is_error(b"{\"error\":{}}") && is_error(b"?"));
    }

    #[test]
    fn a_request_of_the_programs_own_is_answered_once() {
        let mut asked = Asked::default();
        let id = |number: usize| Bytes::from(number.to_string());
        (0..ASKED + 5).for_each(|number| asked.note(&id(number)));
        assert_eq!((asked.open.len(), asked.order.len()), (ASKED, ASKED));
        assert!(!asked.is_first(&id(2)) && asked.is_first(&id(9)) && !asked.is_first(&id(9)));
        // However ids compare as texts, it is the oldest that is forgotten: 10 is less than 9.
        asked.note(&id(10_000));
        asked.note(&id(10_001));
        assert!(asked.is_first(&id(10_000)) && asked.is_first(&id(10_001)));
        assert!(!asked.is_first(&id(5)) && asked.is_first(&id(7)));
        assert_eq!(asked.open.len(), asked.order.len());
    }
}
