//! What goes to the program: requests as they come in, the order in which they are written, and how far they were.

use std::io::IoSlice;

use bytes::Bytes;

use super::desk::Call;
use super::outgoing::{self, Item, Progress, What, size};
use super::pieces::Pieces;
use super::waiting::Queued;
use super::words::{Chunk, Delivery, Kind, Refusal, Request};
use super::{Exchange, Input, Output, State};
use crate::correlation::Tag;
use crate::framing::EncodeError;
use crate::message;
use crate::time::Tick;

impl Exchange {
    /// Queues a request. A refusal is its only outcome.
    pub fn submit(&mut self, mut request: Request, now: Tick) -> Result<(), Refusal> {
        self.admit(request.kind, now)?;
        self.introduced(request.kind, outgoing::size(request.payload.len()))?;
        // Nothing else holds it from here on, so that its number is written where it is.
        let named = self.addressed(&request);
        let payload = std::mem::take(&mut request.payload);
        let payload = named.unwrap_or(payload);
        let (pieces, tag, size) = self.prepare(request.kind, payload)?;
        if size == 0 && request.kind == Kind::Send {
            return Err(EncodeError::Empty.into());
        }
        if !self.has_room(size) {
            let (messages, bytes) = self.waiting();
            return Err(Refusal::Busy { messages, bytes });
        }
        let state = &mut self.state;
        let Request { id, client, mut kind, .. } = request;
        if let Some(deadline) = kind.deadline() {
            state.desk.deadlines.insert((deadline, id, client), ());
            if self.protocol.codec.is_whole_output() {
                // Every call is the last one there.
                kind = Kind::Call { deadline };
            }
        }
        state.held_messages += 1;
        state.held_bytes += size;
        let queued = Queued { id, client, kind, pieces, tag, size };
        match kind {
            Kind::Last { .. } => state.last = Some(Box::new(queued)),
            Kind::Call { .. } | Kind::Send => state.waiting.push(queued),
        }
        Ok(())
    }

    /// A message that cancels a call of its own client, as the program knows that call.
    fn addressed(&self, request: &Request) -> Option<Bytes> {
        let desk = &self.state.desk;
        if request.kind != Kind::Send {
            return None;
        }
        let is_own = |id| desk.calls.get(&id).is_some_and(|call| call.client == request.client);
        desk.correlator.cancelling(&self.protocol.rule, &request.payload, is_own)
    }

    /// Whether a request with a message of so many bytes would find room now.
    pub fn has_room(&self, size: u64) -> bool {
        let state = &self.state;
        let fits = state.held_bytes.saturating_add(size) <= self.protocol.queue_bytes;
        state.held_messages < self.protocol.queue && (fits || state.held_messages == 0)
    }

    /// The pieces of a request, its tag and its size when framed.
    fn prepare(&self, kind: Kind, payload: Bytes) -> Result<(Pieces, Option<Tag>, u64), Refusal> {
        let (payload, tag) = match kind {
            Kind::Last { .. } if payload.is_empty() => return Ok((Pieces::default(), None, 0)),
            // How a frame is written, the program says with its first one.
            Kind::Send if self.protocol.is_enveloped => self.protocol.rule.tag(payload)?,
            Kind::Send | Kind::Last { .. } => (payload, None),
            Kind::Call { .. } => self.protocol.rule.tag(payload)?,
        };
        if tag.is_some() {
            let size = size(self.protocol.codec.encode(payload.clone())?.len());
            return Ok((Pieces::unframed(payload), tag, size));
        }
        let frame = self.protocol.codec.encode(payload)?;
        let size = size(frame.len());
        Ok((frame.into(), tag, size))
    }

    fn admit(&self, kind: Kind, now: Tick) -> Result<(), Refusal> {
        match (self.state.input, self.state.output) {
            (_, Output::Broken) => return Err(Refusal::Broken),
            (Input::Open | Input::Spent, _) if self.is_taken() => return Err(Refusal::Taken),
            (Input::Closing | Input::Spent | Input::Closed, Output::Open | Output::Closed) => {
                return Err(Refusal::InputClosed);
            }
            (Input::Open, Output::Open | Output::Closed) if self.state.last.is_some() => {
                return Err(Refusal::InputClosed);
            }
            (Input::Open, Output::Open | Output::Closed) => {}
        }
        match kind {
            Kind::Send => Ok(()),
            Kind::Last { .. } if self.protocol.is_enveloped => Err(Refusal::Enveloped),
            Kind::Call { .. } if !self.protocol.rule.answers() => Err(Refusal::NoReplies),
            _ if self.state.output == Output::Closed => Err(Refusal::OutputClosed),
            Kind::Call { deadline } | Kind::Last { deadline } if deadline <= now => {
                Err(Refusal::TooLate)
            }
            Kind::Call { .. } | Kind::Last { .. } => Ok(()),
        }
    }

    /// Whether the one call that a run with its whole output for a reply can have has been made.
    pub fn is_taken(&self) -> bool {
        let desk = &self.state.desk;
        let called = !desk.calls.is_empty() || !desk.deadlines.is_empty();
        self.protocol.codec.is_whole_output() && (called || self.state.input == Input::Spent)
    }

    /// The bytes to write next. Asked again before [`Exchange::wrote`], it gives at least the same.
    pub fn next_write(&mut self) -> Option<Chunk> {
        self.let_all_out();
        self.state.outgoing.chunk()
    }

    /// Has the next bytes written where they are: `write` is given them and how many they are, says
    /// how many went, and what that did is added to `deliveries`. `None` where there are none. A chunk
    /// of [`Exchange::next_write`] must not be out.
    pub fn write_by<E>(
        &mut self,
        deliveries: &mut Vec<Delivery>,
        write: impl FnOnce(&[IoSlice<'_>], usize) -> Result<usize, E>,
    ) -> Option<Result<usize, E>> {
        self.let_all_out();
        let written = self.state.outgoing.lend(write)?;
        if let Ok(count) = written {
            self.wrote_into(count, deliveries);
        }
        Some(written)
    }

    /// Takes requests out of turn-taking, as many as are to be written next.
    fn let_all_out(&mut self) {
        if self.state.input == Input::Closed || self.state.output == Output::Broken {
            return;
        }
        self.let_out_question();
        self.let_out_control();
        let only_one = self.protocol.codec.is_whole_output();
        while !self.is_held() && self.state.outgoing.wants_more() {
            let State { desk, envelope, .. } = &self.state;
            let open = desk.calls.len();
            let calls_may_go = self.protocol.may_begin(&desk.correlator, open)
                && envelope.as_ref().is_none_or(|one| size(open) < one.concurrency());
            if only_one && !calls_may_go {
                break;
            }
            let sends_may_go = envelope.as_ref().is_none_or(|one| one.has_credit());
            let request = self.state.waiting.next(calls_may_go, sends_may_go);
            let request = request.or_else(|| self.last());
            let Some(request) = request else { break };
            self.let_out(request);
        }
    }

    /// Whether what clients send waits for the program to be ready.
    pub(super) fn is_held(&self) -> bool {
        let greets = self.state.greeting.is_some() && self.protocol.greeting.holds();
        greets || self.state.envelope.as_ref().is_some_and(|one| !one.is_open())
    }

    /// Puts the question that shows readiness among what is being written, when it is due.
    fn let_out_question(&mut self) {
        let Self { protocol, state } = self;
        let greeting = state.greeting.as_mut().filter(|_| state.input == Input::Open);
        let Some(pieces) = greeting.and_then(|one| one.question(&protocol.greeting)) else {
            return;
        };
        let size = pieces.size();
        state.outgoing.push(Item { id: 0, what: What::Question, pieces, size, done: 0 });
    }

    /// Puts a request among what is being written, a call with its sentinel.
    fn let_out(&mut self, request: Queued) {
        let Queued { id, client, kind, mut pieces, tag, mut size } = request;
        let (what, pieces, number) = match (kind, tag) {
            (Kind::Send, Some(_)) => {
                let message = pieces.into_message();
                self.state.envelope.iter_mut().for_each(|one| one.spend());
                pieces = self.frame(message::Kind::Data, 0, message);
                size = self.reweigh(size, &pieces);
                (What::Send, pieces, 0)
            }
            (Kind::Send, None) => (What::Send, pieces, 0),
            (Kind::Last { .. }, _) => (What::Call, pieces, 0),
            (Kind::Call { .. }, None) => {
                self.state.tokens += 1;
                (What::Call, pieces, self.state.tokens)
            }
            (Kind::Call { .. }, Some(tag)) => {
                let (pieces, number) = self.number(id, pieces.into_message(), &tag);
                size = self.reweigh(size, &pieces);
                (What::Call, pieces, number)
            }
        };
        let state = &mut self.state;
        if size > 0 {
            state.outgoing.push(Item { id, what, pieces, size, done: 0 });
        }
        let Some(deadline) = kind.deadline() else { return };
        let rest = matches!(kind, Kind::Last { .. });
        let call = Call { client, deadline, number, from: None, abandoned: None, rest };
        state.desk.calls.insert(id, call);
        if size == 0 {
            // Nothing to write but the end of the input.
            state.desk.begun(&self.protocol, id, state.outgoing.written(), state.seed);
            state.desk.counters.frames_in += u64::from(!rest);
            state.held_messages -= 1;
            state.input = Input::Spent;
        }
        if rest {
            return self.close_input();
        }
        let pieces = self.protocol.sentinel(&self.protocol.token(state.seed, number));
        let size = pieces.size();
        if size > 0 {
            state.outgoing.push(Item { id, what: What::Sentinel, pieces, size, done: 0 });
        }
    }

    /// Gives a call its number, and makes of its message the pieces of a frame.
    fn number(&mut self, id: u64, message: Bytes, tag: &Tag) -> (Pieces, u64) {
        let Self { protocol, state } = self;
        let rule = &protocol.rule;
        let reserved = state.desk.correlator.reserve(rule, id, tag, state.seed);
        let number = reserved.expect("a call is let out only when a number is free");
        if protocol.is_enveloped {
            return (self.frame(message::Kind::Call, number, message), number);
        }
        let frame = protocol.codec.encode(rule.numbered(message, tag, number));
        let frame = frame.expect("a message of this size was framed before");
        (frame.into(), number)
    }

    /// So many bytes of the last chunk were written; 0 when the pipe was full.
    pub fn wrote(&mut self, bytes: usize) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        self.wrote_into(bytes, &mut deliveries);
        deliveries
    }

    fn wrote_into(&mut self, bytes: usize, deliveries: &mut Vec<Delivery>) {
        let Self { protocol, state } = self;
        let only_one = protocol.codec.is_whole_output();
        let State { desk, outgoing, held_messages, held_bytes, seed, input, greeting, .. } = state;
        let before = outgoing.written();
        outgoing.wrote(size(bytes), |progress| match progress {
            Progress::Begun { id, what: What::Call, from } => desk.begun(protocol, id, from, *seed),
            Progress::Begun { what: What::Send | What::Sentinel | What::Control, .. } => {}
            Progress::Begun { what: What::Question, .. } => {
                if let Some(greeting) = greeting {
                    greeting.asked();
                }
            }
            Progress::Complete(item) => {
                desk.counters.frames_in += 1;
                let is_request = matches!(item.what, What::Send | What::Call);
                if is_request {
                    *held_messages -= 1;
                    *held_bytes -= item.size;
                }
                if item.what == What::Send {
                    deliveries.push(Delivery::Sent { id: item.id });
                } else if only_one && is_request {
                    *input = Input::Spent;
                }
            }
        });
        desk.counters.bytes_in += outgoing.written() - before;
    }
}
