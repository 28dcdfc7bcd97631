//! What a program says and nobody asked for, on its way to those who listen.
//!
//! A queue a listener. The program is read while a listener has room; one without room misses what is
//! read for others, and is told how much.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use crate::framing::Message;

use super::shared::Shared;

/// Messages were missed: this many, since the listener had no room for them when the program was
/// read for somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("hear every message: {0} were missed")]
pub struct Missed(pub u64);

/// What a program says, message by message, in the order in which it says it. Made by
/// [`Port::subscribe`](super::Port::subscribe) and [`Port::stderr`](super::Port::stderr).
///
/// It ends with the program: everything that was in the pipe at its end comes first.
#[derive(Debug)]
pub struct Messages {
    queue: Arc<Queue>,
    port: Weak<Shared>,
    /// Taken from the queue together, and not handed out yet.
    taken: VecDeque<Result<Message, Missed>>,
}

/// One listener's queue.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// It is full with so many messages …
    most: usize,
    /// … or so many bytes.
    most_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Result<Message, Missed>>,
    bytes: usize,
    /// How many were missed after the last of them.
    missed: u64,
    /// Nothing more will come.
    over: bool,
    listener: Option<Waker>,
    /// Nobody listens any more.
    left: bool,
}

impl Queue {
    pub(super) fn new(most: usize, most_bytes: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), most, most_bytes })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another message fits.
    pub(super) fn has_room(&self) -> bool {
        let state = self.lock();
        state.messages.len() < self.most && state.bytes < self.most_bytes
    }

    /// Whether nobody listens any more.
    pub(super) fn is_left(&self) -> bool {
        self.lock().left
    }

    /// Adds messages, or, where there is no `room`, counts them as missed.
    pub(super) fn push(&self, messages: impl IntoIterator<Item = Message>, room: bool) {
        let mut state = self.lock();
        for message in messages {
            if !room {
                state.missed += 1;
                continue;
            }
            if state.missed > 0 {
                let missed = Missed(std::mem::take(&mut state.missed));
                state.messages.push_back(Err(missed));
            }
            state.bytes += message.payload.len();
            state.messages.push_back(Ok(message));
        }
        let listener = state.listener.take();
        drop(state);
        if let Some(listener) = listener {
            listener.wake();
        }
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.over = true;
        let listener = state.listener.take();
        drop(state);
        if let Some(listener) = listener {
            listener.wake();
        }
    }

    /// Moves everything to the listener; ready with false when nothing more will come.
    fn poll_take(
        &self,
        context: &mut Context<'_>,
        into: &mut VecDeque<Result<Message, Missed>>,
    ) -> Poll<bool> {
        let mut state = self.lock();
        if !state.messages.is_empty() {
            // The listener's empty queue stays here, with its memory.
            std::mem::swap(&mut state.messages, into);
            state.bytes = 0;
            return Poll::Ready(true);
        }
        if state.missed > 0 && (state.over || into.is_empty()) {
            into.push_back(Err(Missed(std::mem::take(&mut state.missed))));
            return Poll::Ready(true);
        }
        if state.over {
            return Poll::Ready(false);
        }
        if !state.listener.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            state.listener = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Messages {
    pub(super) fn new(queue: Arc<Queue>, port: Weak<Shared>) -> Self {
        Self { queue, port, taken: VecDeque::new() }
    }

    /// The next message; `None` when the program has ended and everything has been heard.
    ///
    /// It gives [`Missed`] in the place of messages that there was no room for. Dropped before it is
    /// ready, it loses nothing.
    pub async fn next(&mut self) -> Option<Result<Message, Missed>> {
        if let Some(next) = self.taken.pop_front() {
            return Some(next);
        }
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// The same for those who write futures by hand.
    pub fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Message, Missed>>> {
        if self.taken.is_empty() {
            let took = std::task::ready!(self.queue.poll_take(context, &mut self.taken));
            if !took {
                return Poll::Ready(None);
            }
            // There is room again: a program that was held back is read on.
            if let Some(port) = self.port.upgrade() {
                port.room_to_read();
            }
        }
        Poll::Ready(self.taken.pop_front())
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.queue.lock().left = true;
        if let Some(port) = self.port.upgrade() {
            port.room_to_read();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn message(text: &'static str) -> Message {
        Message { payload: Bytes::from_static(text.as_bytes()), partial: false }
    }

    fn heard(messages: &mut Messages) -> Vec<Result<String, u64>> {
        let mut context = Context::from_waker(Waker::noop());
        let mut heard = Vec::new();
        while let Poll::Ready(Some(next)) = messages.poll_next(&mut context) {
            let text = |message: Message| String::from_utf8(message.payload.to_vec()).unwrap();
            heard.push(next.map(text).map_err(|missed| missed.0));
        }
        heard
    }

    #[test]
    fn what_is_missed_is_told_where_it_would_have_stood() {
        let queue = Queue::new(2, 100);
        let mut messages = Messages::new(Arc::clone(&queue), Weak::new());
        queue.push([message("a"), message("b")], queue.has_room());
        assert!(!queue.has_room());
        queue.push([message("c"), message("d")], queue.has_room());
        assert_eq!(heard(&mut messages), [Ok("a".into()), Ok("b".into()), Err(2)]);
        queue.push([message("e")], queue.has_room());
        queue.push([message("f")], false);
        queue.push([message("g")], true);
        queue.push([message("h")], false);
        queue.close();
        assert_eq!(heard(&mut messages), [Ok("e".into()), Err(1), Ok("g".into()), Err(1)]);
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(messages.poll_next(&mut context), Poll::Ready(None));
    }

    #[test]
    fn bytes_fill_a_queue_too() {
        let queue = Queue::new(10, 4);
        queue.push([message("12345")], queue.has_room());
        assert!(!queue.has_room());
    }
}
