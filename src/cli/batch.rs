//! Lists of messages, as JSON-RPC 2.0 (section 6) allows a client to say several at once. Programs never
//! see the list: each part goes its own way, or the ids within could not be told from those of other
//! clients. What answers the parts is put together to one list again.
//!
//! Nothing is sent or written here.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::joined::{Joined, Meaning};
use crate::correlation::Letter;

/// A list that waits for answers.
#[derive(Debug)]
pub(super) struct Batch {
    /// How many answers are missing.
    missing: usize,
    answers: Vec<Bytes>,
}

/// The messages of a list; `None` where it is a message like any other.
pub(super) fn parts(joined: &Joined, message: &Bytes) -> Option<Vec<Bytes>> {
    let ids = joined.ids.as_ref()?;
    let lists = message.trim_ascii_start().first() == Some(&b'[');
    // Where lists are the messages themselves their ids are found in them.
    if !lists || ids.read(message) != Letter::Other {
        return None;
    }
    let parts: Vec<&RawValue> = serde_json::from_slice(message).ok()?;
    let objects = !parts.is_empty() && parts.iter().all(|part| part.get().starts_with('{'));
    objects
        .then(|| parts.iter().map(|part| Bytes::copy_from_slice(part.get().as_bytes())).collect())
}

impl Batch {
    /// The answers that these parts will have, up to one by which the client takes its leave; `None`
    /// where there will be none.
    pub(super) fn of(joined: &Joined, parts: &[Bytes]) -> Option<Self> {
        let meanings = parts.iter().map(|part| joined.meaning(part));
        let heard = meanings.take_while(|meaning| *meaning != Meaning::Leave);
        let missing = heard.filter(|meaning| matches!(meaning, Meaning::Call(_))).count();
        (missing > 0).then(|| Self { missing, answers: Vec::new() })
    }

    /// Another answer has come; with the last one the list of all.
    pub(super) fn answered(&mut self, answer: Bytes) -> Option<Bytes> {
        self.answers.push(answer);
        self.missing = self.missing.saturating_sub(1);
        if self.missing > 0 {
            return None;
        }
        let all = std::mem::take(&mut self.answers).join(&b","[..]);
        Some([&b"["[..], &all, b"]"].concat().into())
    }
}
