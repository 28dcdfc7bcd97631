//! What one client is told of one replica, in order: messages, ends of runs and next starts.
//!
//! Bounded in bytes. A port is read while one of its listeners has room; a listener that has none
//! while others have misses messages, and is told how many where they would have stood.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::message::Monitor;
use crate::name::ReplicaId;

/// A listener has room while less than this waits for it, in bytes.
const ROOM: usize = 256 << 10;
/// The most that waits for a listener, in bytes, but for one message: what a read beyond `ROOM`
/// brings, and what a program leaves in its pipe at its end.
const MOST: usize = 4 << 20;
/// The most that waits for all listeners of all clients, in bytes, where there are many of them: each
/// has its part of it, and `ROOM` in any case.
const ALL: usize = 64 << 20;
/// What a message counts for beside its bytes: the memory that keeps it.
const EACH: usize = 64;

/// Something to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// The program said it, and it is nobody's reply.
    Message(Bytes),
    /// A run began.
    Start(Bytes),
    /// A run ended.
    End(Bytes),
    /// So many of these could not be kept.
    Missed(u64),
}

impl Told {
    fn weight(&self) -> usize {
        match self {
            Self::Message(bytes) | Self::Start(bytes) | Self::End(bytes) => bytes.len() + EACH,
            Self::Missed(_) => EACH,
        }
    }
}

/// One client's hearing of one replica.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) replica: ReplicaId,
    /// Whether messages are wanted, and not only starts and ends.
    messages: bool,
    /// Whether it goes on with the next run.
    follows: bool,
    waiting: VecDeque<Told>,
    weight: usize,
    /// How many messages may still be sent; `None` without limit.
    credit: Option<u64>,
    /// Whether what it was to hear is complete.
    over: bool,
}

impl Stream {
    pub(super) fn new(replica: ReplicaId, wanted: &Monitor, credit: Option<u32>) -> Self {
        Self {
            replica,
            messages: wanted.messages,
            follows: wanted.follow,
            waiting: VecDeque::new(),
            weight: 0,
            credit: credit.map(u64::from),
            over: false,
        }
    }

    /// Whether its client takes more.
    pub(super) fn has_room(&self) -> bool {
        self.weight < ROOM
    }

    /// The most that may wait for each of so many streams, in bytes.
    pub(super) fn most(streams: usize) -> usize {
        (ALL / streams.max(1)).clamp(ROOM, MOST)
    }

    /// Keeps what is to be told, or counts it as missed where `most` bytes wait already.
    pub(super) fn take(&mut self, told: Told, most: usize) {
        if self.over || (!self.messages && matches!(told, Told::Message(_))) {
            return;
        }
        self.over = matches!(told, Told::End(_)) && !self.follows;
        if self.weight >= most && !self.over {
            if let Some(Told::Missed(count)) = self.waiting.back_mut() {
                *count += 1;
            } else {
                self.add(Told::Missed(1));
            }
            return;
        }
        self.add(told);
    }

    fn add(&mut self, told: Told) {
        self.weight += told.weight();
        self.waiting.push_back(told);
    }

    /// The next thing that may be sent.
    pub(super) fn next(&mut self) -> Option<Told> {
        if let Some(Told::Message(_)) = self.waiting.front()
            && let Some(credit) = &mut self.credit
        {
            *credit = credit.checked_sub(1)?;
        }
        let told = self.waiting.pop_front()?;
        self.weight -= told.weight();
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some(told)
    }

    /// Its client takes so many messages more; nothing to one that takes what its socket does.
    pub(super) fn grant(&mut self, frames: u32) {
        self.credit = self.credit.map(|credit| credit.saturating_add(u64::from(frames)));
    }

    /// Whether there is nothing more to come.
    pub(super) fn is_over(&self) -> bool {
        self.over && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Address;
    use crate::name::ServiceName;

    fn stream(follow: bool, credit: Option<u32>) -> Stream {
        let replica = ReplicaId { service: ServiceName::new("x").unwrap(), replica: 1 };
        let target = Address::Name("x/1".to_owned());
        Stream::new(replica, &Monitor { target, messages: true, follow }, credit)
    }

    fn message(size: usize) -> Told {
        Told::Message(Bytes::from(vec![b'x'; size]))
    }

    #[test]
    fn what_is_too_much_is_counted_where_it_would_have_stood() {
        let mut stream = stream(true, None);
        while stream.has_room() {
            stream.take(message(1000), MOST);
        }
        let mut kept = stream.waiting.len();
        while stream.weight < MOST {
            stream.take(message(1000), MOST);
            kept += 1;
        }
        for _ in 0..7 {
            stream.take(message(1000), MOST);
        }
        stream.take(Told::End(Bytes::from_static(b"{}")), MOST);
        for _ in 0..kept {
            assert_eq!(stream.next(), Some(message(1000)));
        }
        assert_eq!((stream.next(), stream.next()), (Some(Told::Missed(8)), None));
        assert_eq!((stream.weight, stream.waiting.capacity()), (0, 0));
    }

    #[test]
    fn many_streams_have_less_each() {
        assert_eq!((Stream::most(0), Stream::most(16)), (MOST, MOST));
        assert_eq!((Stream::most(64), Stream::most(10_000)), (1 << 20, ROOM));
        let mut stream = stream(true, None);
        for _ in 0..10 {
            stream.take(message(ROOM), Stream::most(10_000));
        }
        assert_eq!(stream.next(), Some(message(ROOM)));
        assert_eq!(stream.next(), Some(Told::Missed(9)));
    }

    #[test]
    fn without_credit_messages_wait_in_their_place() {
        let mut stream = stream(false, Some(1));
        for told in [message(1), Told::Start(Bytes::new()), message(2), Told::End(Bytes::new())] {
            stream.take(told, MOST);
        }
        stream.take(message(3), MOST);
        assert_eq!(stream.next(), Some(message(1)));
        assert_eq!(stream.next(), Some(Told::Start(Bytes::new())));
        assert_eq!(stream.next(), None);
        stream.grant(5);
        assert!(!stream.is_over());
        assert_eq!(stream.next(), Some(message(2)));
        assert_eq!(stream.next(), Some(Told::End(Bytes::new())));
        assert!(stream.is_over());
    }

    #[test]
    fn one_message_however_large_is_kept_and_the_end_always_told() {
        let mut stream = stream(false, None);
        stream.take(message(3 * MOST), MOST);
        stream.take(message(1), MOST);
        stream.take(Told::End(Bytes::new()), MOST);
        assert_eq!(stream.next(), Some(message(3 * MOST)));
        assert_eq!(stream.next(), Some(Told::Missed(1)));
        assert_eq!(stream.next(), Some(Told::End(Bytes::new())));
    }
}
