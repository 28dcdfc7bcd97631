//! Requests that wait for their turn: one queue a client, and the clients take turns.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::pieces::Pieces;
use super::words::Kind;
use crate::correlation::Tag;
use crate::few::Few;

/// A request: framed, or, where it has a tag, the message that will be framed with its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Queued {
    pub(super) id: u64,
    pub(super) client: u64,
    pub(super) kind: Kind,
    pub(super) pieces: Pieces,
    /// Where its number goes.
    pub(super) tag: Option<Tag>,
    /// Its bytes, framed.
    pub(super) size: u64,
}

impl Queued {
    fn is_send(&self) -> bool {
        self.kind == Kind::Send
    }
}

/// The queues. Empty, they own no memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Waiting {
    /// The clients that have something waiting; the first is next. One whose turn cannot be taken
    /// yet keeps its place.
    turns: VecDeque<u64>,
    /// What each of them has waiting; never an empty queue.
    queues: Few<u64, VecDeque<Queued>>,
    /// How many of all these are without a reply.
    sends: u64,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    pub(super) fn push(&mut self, request: Queued) {
        self.sends += u64::from(request.is_send());
        if let Some(queue) = self.queues.get_mut(&request.client) {
            queue.push_back(request);
        } else {
            self.turns.push_back(request.client);
            self.queues.insert(request.client, VecDeque::from([request]));
        }
    }

    /// The next request in turn of those that may go. While a call is open only what needs no reply
    /// may, and it stays behind the earlier calls of its own client.
    pub(super) fn next(&mut self, calls_may_go: bool, sends_may_go: bool) -> Option<Queued> {
        if !calls_may_go && (self.sends == 0 || !sends_may_go) {
            return None;
        }
        let may_go = |client: &u64| {
            let first = self.queues.get(client).and_then(VecDeque::front);
            first.is_some_and(|first| if first.is_send() { sends_may_go } else { calls_may_go })
        };
        let turn = self.turns.iter().position(may_go)?;
        let client = self.turns.remove(turn)?;
        let queue = self.queues.get_mut(&client)?;
        let request = queue.pop_front()?;
        if queue.is_empty() {
            self.queues.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        self.taken(&request);
        Some(request)
    }

    /// Takes back a request of a client.
    pub(super) fn remove(&mut self, client: u64, id: u64) -> Option<Queued> {
        let queue = self.queues.get_mut(&client)?;
        let at = queue.iter().position(|request| request.id == id)?;
        let request = queue.remove(at)?;
        if queue.is_empty() {
            self.queues.remove(&client);
            self.turns.retain(|turn| *turn != client);
        }
        self.taken(&request);
        Some(request)
    }

    /// Takes back all requests that are not fit to be sent.
    pub(super) fn sort_out(&mut self, fit: impl Fn(&Queued) -> bool) -> Vec<Queued> {
        let all = self.queues.iter().flat_map(|(_, queue)| queue).filter(|request| !fit(request));
        let unfit: Vec<_> = all.map(|request| (request.client, request.id)).collect();
        unfit.into_iter().filter_map(|(client, id)| self.remove(client, id)).collect()
    }

    /// The messages that are not framed yet.
    pub(super) fn unframed(&self) -> impl Iterator<Item = &Bytes> {
        let all = self.queues.iter().flat_map(|(_, queue)| queue);
        all.filter(|request| request.tag.is_some()).map(|request| request.pieces.message())
    }

    /// Whose request this is.
    pub(super) fn client_of(&self, id: u64) -> Option<u64> {
        let mut all = self.queues.iter().flat_map(|(_, queue)| queue);
        all.find(|request| request.id == id).map(|request| request.client)
    }

    /// Takes everything, in the order in which clients have their turns.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Queued> {
        let mut waiting = std::mem::take(self);
        std::iter::from_fn(move || waiting.next(true, true))
    }

    /// How many clients it has memory for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.turns.capacity()
    }

    fn taken(&mut self, request: &Queued) {
        self.sends -= u64::from(request.is_send());
        if self.turns.is_empty() {
            self.turns = VecDeque::new();
        }
    }
}
