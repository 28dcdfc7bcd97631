//! One port's conversation with its program, without the pipes: what to write next, what was read
//! means what, and what becomes of every request.
//!
//! Pure: bytes and points in time come in as arguments. Whoever owns the pipes writes what
//! [`Exchange::next_write`] gives, tells [`Exchange::wrote`] how much of it went, and only then
//! passes what it read to [`Exchange::received`]. Every request that [`Exchange::submit`] accepts
//! has exactly one outcome: a [`Delivery`] with its id, an answer from [`Exchange::cancel`], or a
//! line in the [`Ending`].
//!
//! Requests wait in one queue a client, clients take turns message by message, and one call at a time
//! is with the program, or as many as may wait where replies can be told apart. What needs no reply is
//! written in between, so that a `stop` reaches a program that is busy with a call; it stays behind
//! the earlier requests of its own client. Waiting is bounded in messages and bytes; when full,
//! `submit` refuses.
//!
//! Where the whole output of a program is one message (framing `eof`), a run has one call: nothing is
//! written after its request, the input is to be closed behind it ([`Exchange::is_input_done`]), and
//! its reply is in the [`Ending`], since only the end of the run says whether it is one.

mod closing;
mod desk;
mod ears;
mod envelope;
mod frames;
mod give_up;
mod greeting;
mod outgoing;
mod pieces;
mod protocol;
mod standing;
mod waiting;
mod words;

#[cfg(test)]
mod tests;

use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};

use self::desk::{Call, Desk};
use self::ears::Ears;
use self::envelope::Envelope;
use self::greeting::Greeting;
use self::outgoing::{Item, Outgoing, Progress, What, size};
use self::pieces::Pieces;
use self::waiting::{Queued, Waiting};
use crate::correlation::Tag;
use crate::few::Few;
use crate::framing::{Decoder, EncodeError, Fault, Message};
use crate::message;
use crate::time::Tick;

pub(crate) use self::greeting::requests;
pub use self::protocol::{BadProtocol, Protocol};
pub use self::standing::Standing;
pub use self::words::{
    CallError, Cancelled, Chunk, Counters, Delivery, Ending, Kind, ReadState, Refusal, Request,
    Unanswered, Unfit,
};

/// The version of the saved form.
const VERSION: u32 = 4;

/// One port's conversation. It serialises to its saved form (call [`Exchange::wrote`] first when a
/// chunk is out), from which [`Exchange::restore`] goes on.
#[derive(Debug)]
pub struct Exchange {
    protocol: Arc<Protocol>,
    state: State,
}

/// The saved form of an [`Exchange`].
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Saved(State);

/// Why a saved exchange cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// It was saved by another version of wharf in a form that this one does not know.
    #[error("restore the exchange: its saved form has version {0}, this is version {VERSION}")]
    Version(u32),
    /// The program was spoken to in another framing.
    #[error("restore the exchange: it was saved with another framing")]
    Framing,
    /// The program was called in a way that tells replies apart otherwise.
    #[error("restore the exchange: it was saved with other replies")]
    Replies,
    /// It was waiting for a greeting that is not waited for any more.
    #[error("restore the exchange: it was saved with another greeting")]
    Greeting,
}

#[derive(Debug, Serialize, Deserialize)]
struct State {
    version: u32,
    /// Whether its rule tells calls apart.
    tells_apart: bool,
    decoder: Decoder,
    desk: Desk,
    /// What the program has said so far; `None` once that is over.
    greeting: Option<Box<Greeting>>,
    /// What wire protocol 1 knows of its program; `None` where another is spoken.
    envelope: Option<Box<Envelope>>,
    waiting: Waiting,
    outgoing: Outgoing,
    /// The request after which the input is closed, while it waits for all others.
    #[serde(default)]
    last: Option<Box<Queued>>,
    input: Input,
    output: Output,
    /// What waits or is being written, sentinels apart.
    held_messages: u64,
    held_bytes: u64,
    /// Makes the tokens of this port differ from those of others.
    seed: u64,
    /// The number of the last token.
    tokens: u64,
}

/// The program's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Input {
    Open,
    /// Takes no more requests and is to be closed once those it has are written.
    Closing,
    /// The one request of a run whose whole output is its reply is written: to be closed now.
    Spent,
    Closed,
}

/// The program's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Output {
    Open,
    Closed,
    /// Not its protocol any more.
    Broken,
}

impl Exchange {
    /// A conversation with a program that has just started. `seed` makes its tokens differ from
    /// those of other ports and earlier runs; a realm mixed with an incarnation will do.
    pub fn new(protocol: Arc<Protocol>, seed: u64) -> Self {
        let state = State {
            version: VERSION,
            tells_apart: protocol.rule.tells_apart(),
            decoder: Decoder::new(&protocol.codec),
            desk: Desk::default(),
            greeting: protocol.greeting.begin(),
            envelope: protocol.is_enveloped.then(|| Box::new(Envelope::new())),
            waiting: Waiting::default(),
            outgoing: Outgoing::default(),
            last: None,
            input: Input::Open,
            output: Output::Open,
            held_messages: 0,
            held_bytes: 0,
            seed,
            tokens: 0,
        };
        Self { protocol, state }
    }

    /// Goes on from a saved form.
    pub fn restore(protocol: Arc<Protocol>, saved: Saved) -> Result<Self, RestoreError> {
        let state = saved.0;
        if state.version != VERSION {
            return Err(RestoreError::Version(state.version));
        }
        if !state.decoder.fits(&protocol.codec) {
            return Err(RestoreError::Framing);
        }
        if state.tells_apart != protocol.rule.tells_apart() {
            return Err(RestoreError::Replies);
        }
        if state.greeting.is_some() && protocol.greeting.begin().is_none() {
            return Err(RestoreError::Greeting);
        }
        if state.waiting.unframed().any(|message| protocol.codec.check(message).is_err()) {
            return Err(RestoreError::Framing);
        }
        if state.envelope.is_some() != protocol.is_enveloped {
            return Err(RestoreError::Framing);
        }
        Ok(Self { protocol, state })
    }

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
    fn is_held(&self) -> bool {
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

    /// The program wrote this. After [`Delivery::Protocol`] what it writes is ignored.
    pub fn received(&mut self, bytes: &[u8], now: Tick) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        self.received_into(bytes, now, &mut deliveries);
        deliveries
    }

    /// The same, with what there is to tell added to `deliveries`.
    pub fn received_into(&mut self, bytes: &[u8], now: Tick, deliveries: &mut Vec<Delivery>) {
        let Self { protocol, state } = self;
        if state.output != Output::Open {
            return;
        }
        state.desk.counters.bytes_out += size(bytes.len());
        let unknown = state.envelope.as_ref().is_some_and(|one| one.largest().is_none());
        let (decoder, mut ears) = state.listening(protocol, now, deliveries);
        let cut = decoder.push_all(&protocol.codec, bytes, &mut |said| ears.hear(said));
        if let Some(error) = ears.broken.or(cut.err()) {
            state.output = Output::Broken;
            deliveries.push(Delivery::Protocol(error));
        }
        if unknown {
            self.sort_out(deliveries);
        }
        if self.state.envelope.as_ref().is_some_and(|one| one.is_hopeless()) {
            self.close_input();
        }
    }

    /// Has bytes that belong to a message whose length is known read to where they will stay: `read` adds
    /// at most as many to the vector as it is told are missing. `None` where no such message has begun.
    pub fn received_by<E>(
        &mut self,
        now: Tick,
        deliveries: &mut Vec<Delivery>,
        read: impl FnOnce(&mut Vec<u8>, usize) -> Result<(), E>,
    ) -> Option<Result<usize, E>> {
        let Self { protocol, state } = self;
        if state.output != Output::Open {
            return None;
        }
        let (decoder, mut ears) = state.listening(protocol, now, deliveries);
        let mut hear = |message, at| ears.message(message, at);
        let received = decoder.fill(&protocol.codec, read, &mut hear)?;
        if let Some(error) = ears.broken {
            state.output = Output::Broken;
            deliveries.push(Delivery::Protocol(error));
        }
        if let Ok(count) = received {
            state.desk.counters.bytes_out += size(count);
        }
        Some(received)
    }

    /// How many bytes are missing of a message whose length is known; 0 where none has begun.
    pub fn missing(&self) -> usize {
        if self.state.output == Output::Open { self.state.decoder.missing() } else { 0 }
    }

    /// The program closed its output, though it may live on. What it left unfinished is delivered;
    /// whether its whole output is a reply, its end will tell.
    pub fn output_closed(&mut self, now: Tick) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        let Self { protocol, state } = self;
        if state.output != Output::Open {
            return deliveries;
        }
        state.output = Output::Closed;
        if protocol.codec.is_whole_output() {
            return deliveries;
        }
        let (decoder, mut ears) = state.listening(protocol, now, &mut deliveries);
        let at = decoder.place();
        let left = decoder.finish_all(&protocol.codec, &mut |stray| ears.stray(stray));
        let left = left.map(|message| {
            if let Some(message) = message {
                ears.desk.counters.partial_frame = true;
                ears.message(message, at);
            }
        });
        match ears.broken.map_or(left, Err) {
            Ok(()) => {}
            Err(error) => {
                state.output = Output::Broken;
                state.desk.counters.partial_frame = matches!(error.fault, Fault::Truncated { .. });
                deliveries.push(Delivery::Protocol(error));
            }
        }
        deliveries
    }

    /// The program closed its input (`EPIPE`). What it has read it may still answer; all else fails.
    pub fn input_closed(&mut self) -> Vec<Delivery> {
        let state = &mut self.state;
        state.input = Input::Closed;
        let mut failed = Vec::new();
        for (_, item) in state.outgoing.drain() {
            let begun = item.done > 0;
            match item.what {
                What::Send => failed.push(item.id),
                What::Call if !begun => failed.extend(state.desk.unsend(item.id)),
                What::Call | What::Sentinel | What::Question | What::Control => {}
            }
        }
        failed.extend(state.waiting.drain().chain(state.last.take().map(|last| *last)).map(
            |request| {
                state.desk.forget(&request);
                request.id
            },
        ));
        state.held_messages = 0;
        state.held_bytes = 0;
        let error = CallError::InputClosed;
        failed
            .into_iter()
            .map(|id| Delivery::Failed { id, error: error.clone(), so_far: Vec::new() })
            .collect()
    }

    /// What passed through.
    pub fn counters(&self) -> Counters {
        self.state.desk.counters
    }

    /// How many messages, and how many bytes, wait to be written.
    pub fn waiting(&self) -> (u64, u64) {
        (self.state.held_messages, self.state.held_bytes)
    }

    /// Whether nothing is left to write: no request, and nothing that the protocol itself has to say.
    pub fn is_all_written(&self) -> bool {
        let state = &self.state;
        let requests = state.waiting.is_empty() && state.last.is_none();
        requests && state.outgoing.is_empty() && !self.has_word()
    }

    /// Whether the program counts as ready: at once where nothing else was declared.
    pub fn is_ready(&self) -> bool {
        match &self.state.envelope {
            Some(envelope) => envelope.is_ready(),
            None => !self.is_held(),
        }
    }

    /// Whether something is still expected of the program before it is spoken to, or a banner.
    pub fn is_greeting(&self) -> bool {
        self.state.greeting.is_some()
    }

    /// Where the program has not become ready, what is waited for and what it has said so far, in
    /// words that make a sentence.
    pub fn unready(&self) -> Option<String> {
        if let Some(envelope) = &self.state.envelope {
            return envelope.unready();
        }
        let greeting = self.state.greeting.as_ref().filter(|_| self.is_held())?;
        Some(greeting.words(&self.protocol.greeting))
    }

    /// Whether anybody waits for what the program says next.
    pub fn is_awaited(&self) -> bool {
        self.is_held() || !self.state.desk.calls.is_empty() || self.state.held_messages > 0
    }

    /// How many calls are with the program, or about to be: written, and neither answered nor, where
    /// calls are told apart, given up.
    pub fn open_calls(&self) -> u64 {
        size(self.state.desk.calls.len())
    }

    /// The program has ended, everything it wrote was received, and so many bytes were left unread
    /// in its input's pipe. The tail of its output may still complete a call; then every request
    /// that is open is accounted for.
    pub fn ended(&mut self, unread: u64, now: Tick) -> Ending {
        let mut deliveries = self.output_closed(now);
        let mut whole = self.whole_output();
        let state = &mut self.state;
        state.input = Input::Closed;
        let read_up_to = state.outgoing.written().saturating_sub(unread);
        let read = |from: Option<u64>| match from {
            Some(from) if from < read_up_to => ReadState::MaybeRead,
            Some(_) | None => ReadState::NeverRead,
        };
        let mut unanswered = Vec::new();
        // Only a serial rule knows of a reply that has begun, and then there is but one call; so it is
        // where all that the program said is the reply.
        let mut parts = state.desk.correlator.close();
        for (id, call) in state.desk.calls.take() {
            let whole = whole.take();
            let is_reply = whole.is_some();
            if call.abandoned.is_some() {
                state.desk.counters.swallowed += u64::from(is_reply);
                continue;
            }
            let is_reply = is_reply || (call.rest && state.output != Output::Broken);
            let parts = std::mem::take(&mut parts);
            let so_far =
                whole.map_or_else(|| self.protocol.codec.joined(parts), |whole| vec![whole]);
            unanswered.push(Unanswered { id, read: read(call.from), so_far, is_reply });
        }
        let said = whole.filter(|payload| !payload.is_empty());
        let event = |payload| Delivery::Event(Message { payload, partial: false });
        deliveries.extend(said.map(event));
        for (from, item) in state.outgoing.drain() {
            if item.what == What::Send {
                let (id, read) = (item.id, read(Some(from)));
                unanswered.push(Unanswered { id, read, so_far: Vec::new(), is_reply: false });
            }
        }
        for request in state.waiting.drain().chain(state.last.take().map(|last| *last)) {
            let (id, read) = (request.id, ReadState::NeverRead);
            unanswered.push(Unanswered { id, read, so_far: Vec::new(), is_reply: false });
        }
        state.desk.deadlines = Few::default();
        state.held_messages = 0;
        state.held_bytes = 0;
        Ending { deliveries, unanswered }
    }

    /// All that the program said, where that is one message.
    fn whole_output(&mut self) -> Option<Bytes> {
        let state = &mut self.state;
        if !self.protocol.codec.is_whole_output() || state.output == Output::Broken {
            return None;
        }
        let output = state.decoder.finish(&self.protocol.codec).ok().flatten()?;
        state.desk.counters.frames_out += 1;
        Some(output.payload)
    }

    fn release(&mut self, size: u64) {
        self.state.held_messages -= 1;
        self.state.held_bytes -= size;
    }
}

impl State {
    /// What cuts the output into messages, and who hears them.
    fn listening<'a>(
        &'a mut self,
        protocol: &'a Protocol,
        now: Tick,
        deliveries: &'a mut Vec<Delivery>,
    ) -> (&'a mut Decoder, Ears<'a>) {
        let Self { decoder, desk, greeting, envelope, .. } = self;
        let broken = None;
        (decoder, Ears { protocol, desk, greeting, envelope, now, deliveries, broken })
    }
}

impl Serialize for Exchange {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.state.serialize(s)
    }
}
