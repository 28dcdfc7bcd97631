//! What stands between an exchange and a model program: the clock, the pipes of a few bytes, and what
//! became of each request. What the program says to what it read is the model's own business.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::super::{CallError, Cancelled, Delivery, Exchange, Protocol, ReadState, Saved};
use crate::spec::Port;
use crate::time::Tick;

/// What was said of a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Reply(Vec<Bytes>),
    Sent,
    Failed(CallError),
    Cancelled(Cancelled),
    Ended(ReadState),
}

pub(super) struct Driver {
    protocol: Arc<Protocol>,
    pub(super) exchange: Exchange,
    pub(super) now: Tick,
    /// What a pipe holds.
    pipe: usize,
    pub(super) outcomes: BTreeMap<u64, Outcome>,
    /// Everything written to the program, and how much of it the program has read.
    pub(super) written: Vec<u8>,
    pub(super) read: usize,
    /// What the program said and nobody has read.
    pub(super) said: VecDeque<u8>,
    /// What it said that is nobody's reply.
    pub(super) heard: Vec<Bytes>,
}

impl Driver {
    pub(super) fn new(port: &Port, seed: u64, pipe: usize) -> Self {
        let protocol = Arc::new(Protocol::new(port).unwrap());
        Self {
            exchange: Exchange::new(Arc::clone(&protocol), seed),
            protocol,
            now: Tick(0),
            pipe,
            outcomes: BTreeMap::new(),
            written: Vec::new(),
            read: 0,
            said: VecDeque::new(),
            heard: Vec::new(),
        }
    }

    /// Takes a chunk, lets time pass, and only then writes some of it.
    pub(super) fn write(&mut self, most: usize, passing: u64) {
        // What is lent is what is given; who writes none of it changes nothing.
        let lent = self.exchange.write_by(&mut Vec::new(), |slices, total| {
            let lent: Vec<_> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            assert_eq!(lent.len(), total);
            Err::<usize, _>(lent)
        });
        let chunk = self.exchange.next_write();
        assert_eq!(lent, chunk.as_ref().map(|chunk| Err(chunk.pieces.concat())));
        let Some(chunk) = chunk else { return };
        assert_eq!(chunk.at, self.written.len() as u64);
        self.pass(passing);
        let bytes = chunk.pieces.concat();
        let room = self.pipe - (self.written.len() - self.read);
        let count = bytes.len().min(room).min(most);
        self.written.extend(&bytes[..count]);
        let deliveries = self.exchange.wrote(count);
        self.tell(deliveries);
    }

    /// Some of what the program said arrives.
    pub(super) fn deliver(&mut self, most: usize) {
        let bytes: Vec<_> = self.said.drain(..most.min(self.said.len())).collect();
        let deliveries = self.exchange.received(&bytes, self.now);
        self.tell(deliveries);
    }

    pub(super) fn pass(&mut self, time: u64) {
        self.now.0 += time;
        let deliveries = self.exchange.expire(self.now);
        self.tell(deliveries);
        assert!(self.exchange.next_deadline().is_none_or(|deadline| deadline > self.now));
    }

    pub(super) fn cancel(&mut self, id: u64) {
        if let Some(cancelled) = self.exchange.cancel(id, self.now) {
            self.outcome(id, Outcome::Cancelled(cancelled));
        }
    }

    /// Saves the exchange, and goes on from its saved form.
    pub(super) fn save(&mut self) {
        let text = serde_json::to_string(&self.exchange).unwrap();
        let saved: Saved = serde_json::from_str(&text).unwrap();
        self.exchange = Exchange::restore(Arc::clone(&self.protocol), saved).unwrap();
    }

    /// The program dies, having written all of `said`.
    pub(super) fn end(&mut self) {
        self.deliver(usize::MAX);
        let unread = (self.written.len() - self.read) as u64;
        let ending = self.exchange.ended(unread, self.now);
        self.tell(ending.deliveries);
        for open in ending.unanswered {
            self.outcome(open.id, Outcome::Ended(open.read));
        }
        assert_eq!((self.exchange.waiting(), self.exchange.next_deadline()), ((0, 0), None));
        assert_eq!(self.exchange.open_calls(), 0);
    }

    fn tell(&mut self, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            match delivery {
                Delivery::Reply { id, messages } => self.outcome(id, Outcome::Reply(messages)),
                Delivery::Sent { id } => self.outcome(id, Outcome::Sent),
                Delivery::Failed { id, error, .. } => self.outcome(id, Outcome::Failed(error)),
                Delivery::Event(message) => self.heard.push(message.payload),
                Delivery::Protocol(error) => panic!("the program keeps its protocol: {error}"),
                Delivery::Ready | Delivery::Log(_) | Delivery::Stray(_) => {
                    panic!("there is nothing such")
                }
            }
        }
    }

    fn outcome(&mut self, id: u64, outcome: Outcome) {
        let before = self.outcomes.insert(id, outcome);
        assert_eq!(before, None, "{id} has two outcomes, this and {:?}", self.outcomes[&id]);
    }
}
