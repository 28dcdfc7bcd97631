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
//! is with the program. What needs no reply is written in between, so that a `stop` reaches a
//! program that is busy with a call; it stays behind the earlier requests of its own client.
//! Waiting is bounded in messages and bytes; when full, `submit` refuses.
//!
//! Where the whole output of a program is one message (framing `eof`), a run has one call: nothing is
//! written after its request, the input is to be closed behind it ([`Exchange::is_input_done`]), and
//! its reply is in the [`Ending`], since only the end of the run says whether it is one.

mod outgoing;
mod protocol;
mod waiting;
mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};

use self::outgoing::{Item, Outgoing, Progress, What, size};
use self::waiting::{Queued, Waiting};
use crate::correlation::{Correlator, Outcome};
use crate::framing::{Decoder, EncodeError, Fault, Message};
use crate::time::Tick;

pub use self::protocol::{BadProtocol, Protocol};
pub use self::words::{
    CallError, Cancelled, Chunk, Counters, Delivery, Ending, Kind, ReadState, Refusal, Request,
    Unanswered,
};

/// The version of the saved form.
const VERSION: u32 = 1;

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
}

#[derive(Debug, Serialize, Deserialize)]
struct State {
    version: u32,
    decoder: Decoder,
    desk: Desk,
    waiting: Waiting,
    outgoing: Outgoing,
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

/// The open call and its books.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Desk {
    correlator: Correlator,
    call: Option<Call>,
    /// Of all calls that are neither answered nor given up: deadline, id, client.
    deadlines: BTreeSet<(Tick, u64, u64)>,
    counters: Counters,
}

/// The call that is with the program, or about to be.
#[derive(Debug, Serialize, Deserialize)]
struct Call {
    id: u64,
    client: u64,
    deadline: Tick,
    /// The number of its token.
    token: u64,
    /// Where its first byte stands in the stream, once that is written.
    from: Option<u64>,
    /// Since when nobody wants its reply.
    abandoned: Option<Tick>,
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
            decoder: Decoder::new(&protocol.codec),
            desk: Desk::default(),
            waiting: Waiting::default(),
            outgoing: Outgoing::default(),
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
        Ok(Self { protocol, state })
    }

    /// Queues a request. A refusal is its only outcome.
    pub fn submit(&mut self, request: Request, now: Tick) -> Result<(), Refusal> {
        self.admit(request.kind, now)?;
        let frame = self.protocol.codec.encode(request.payload)?;
        let size = size(frame.len());
        if size == 0 && request.kind == Kind::Send {
            return Err(EncodeError::Empty.into());
        }
        let state = &mut self.state;
        let crowded = state.held_messages > 0
            && state.held_bytes.saturating_add(size) > self.protocol.queue_bytes;
        if crowded || state.held_messages >= self.protocol.queue {
            let (messages, bytes) = (state.held_messages, state.held_bytes);
            return Err(Refusal::Busy { messages, bytes });
        }
        let Request { id, client, kind, .. } = request;
        if let Kind::Call { deadline } = kind {
            state.desk.deadlines.insert((deadline, id, client));
        }
        state.held_messages += 1;
        state.held_bytes += size;
        state.waiting.push(Queued { id, client, kind, pieces: frame.into_pieces(), size });
        Ok(())
    }

    fn admit(&self, kind: Kind, now: Tick) -> Result<(), Refusal> {
        match (self.state.input, self.state.output) {
            (_, Output::Broken) => return Err(Refusal::Broken),
            (Input::Open | Input::Spent, _) if self.is_taken() => return Err(Refusal::Taken),
            (Input::Closing | Input::Spent | Input::Closed, Output::Open | Output::Closed) => {
                return Err(Refusal::InputClosed);
            }
            (Input::Open, Output::Open | Output::Closed) => {}
        }
        match kind {
            Kind::Call { .. } if !self.protocol.rule.answers() => Err(Refusal::NoReplies),
            Kind::Call { .. } if self.state.output == Output::Closed => Err(Refusal::OutputClosed),
            Kind::Call { deadline } if deadline <= now => Err(Refusal::TooLate),
            Kind::Call { .. } | Kind::Send => Ok(()),
        }
    }

    /// Whether the one call that a run with its whole output for a reply can have has been made.
    pub fn is_taken(&self) -> bool {
        let desk = &self.state.desk;
        let called = desk.call.is_some() || !desk.deadlines.is_empty();
        self.protocol.codec.is_whole_output() && (called || self.state.input == Input::Spent)
    }

    /// The bytes to write next. Asked again before [`Exchange::wrote`], it gives at least the same.
    pub fn next_write(&mut self) -> Option<Chunk> {
        if self.state.input == Input::Closed || self.state.output == Output::Broken {
            return None;
        }
        let only_one = self.protocol.codec.is_whole_output();
        while self.state.outgoing.wants_more() {
            let calls_may_go = self.state.desk.call.is_none();
            if only_one && !calls_may_go {
                break;
            }
            let Some(request) = self.state.waiting.next(calls_may_go) else { break };
            self.let_out(request);
        }
        self.state.outgoing.chunk()
    }

    /// Puts a request among what is being written, a call with its sentinel.
    fn let_out(&mut self, request: Queued) {
        let state = &mut self.state;
        let Queued { id, client, kind, pieces, size } = request;
        let what = if kind == Kind::Send { What::Send } else { What::Call };
        if size > 0 {
            state.outgoing.push(Item { id, what, pieces, size, done: 0 });
        }
        let Kind::Call { deadline } = kind else { return };
        state.tokens += 1;
        let token = state.tokens;
        state.desk.call = Some(Call { id, client, deadline, token, from: None, abandoned: None });
        if size == 0 {
            // Nothing to write but the end of the input.
            state.desk.begun(state.outgoing.written(), state.seed);
            state.desk.counters.frames_in += 1;
            state.held_messages -= 1;
            state.input = Input::Spent;
        }
        let pieces = self.protocol.sentinel(&protocol::token(state.seed, token));
        if !pieces.is_empty() {
            let size = pieces.iter().map(|piece| outgoing::size(piece.len())).sum();
            state.outgoing.push(Item { id, what: What::Sentinel, pieces, size, done: 0 });
        }
    }

    /// So many bytes of the last chunk were written; 0 when the pipe was full.
    pub fn wrote(&mut self, bytes: usize) -> Vec<Delivery> {
        let only_one = self.protocol.codec.is_whole_output();
        let State { desk, outgoing, held_messages, held_bytes, seed, input, .. } = &mut self.state;
        let before = outgoing.written();
        let mut deliveries = Vec::new();
        outgoing.wrote(size(bytes), |progress| match progress {
            Progress::Begun(from, What::Call) => desk.begun(from, *seed),
            Progress::Begun(_, What::Send | What::Sentinel) => {}
            Progress::Complete(item) => {
                desk.counters.frames_in += 1;
                if item.what != What::Sentinel {
                    *held_messages -= 1;
                    *held_bytes -= item.size;
                }
                if item.what == What::Send {
                    deliveries.push(Delivery::Sent { id: item.id });
                } else if only_one {
                    *input = Input::Spent;
                }
            }
        });
        desk.counters.bytes_in += outgoing.written() - before;
        deliveries
    }

    /// The program wrote this. After [`Delivery::Protocol`] what it writes is ignored.
    pub fn received(&mut self, bytes: &[u8], now: Tick) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        let Self { protocol, state } = self;
        if state.output != Output::Open {
            return deliveries;
        }
        state.desk.counters.bytes_out += size(bytes.len());
        let desk = &mut state.desk;
        let mut heard = |message| desk.heard(protocol, message, now, &mut deliveries);
        if let Err(error) = state.decoder.push(&protocol.codec, bytes, &mut heard) {
            state.output = Output::Broken;
            deliveries.push(Delivery::Protocol(error));
        }
        deliveries
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
        match state.decoder.finish(&protocol.codec) {
            Ok(None) => {}
            Ok(Some(message)) => {
                state.desk.counters.partial_frame = true;
                state.desk.heard(protocol, message, now, &mut deliveries);
            }
            Err(error) => {
                state.output = Output::Broken;
                state.desk.counters.partial_frame = matches!(error.fault, Fault::Truncated { .. });
                deliveries.push(Delivery::Protocol(error));
            }
        }
        deliveries
    }

    /// Takes no more requests. Once [`Exchange::is_input_done`], the input can be closed.
    pub fn close_input(&mut self) {
        if self.state.input == Input::Open {
            self.state.input = Input::Closing;
        }
    }

    /// Whether the input is to be closed now: nothing more will be written.
    pub fn is_input_done(&self) -> bool {
        match self.state.input {
            Input::Open => false,
            // What waits behind the one call of a run will never be written.
            Input::Closing if !self.is_taken() => {
                self.state.waiting.is_empty() && self.state.outgoing.is_empty()
            }
            Input::Closing | Input::Spent => self.state.outgoing.is_empty(),
            Input::Closed => true,
        }
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
                What::Call if !begun => failed.extend(state.desk.unsend()),
                What::Call | What::Sentinel => {}
            }
        }
        failed.extend(state.waiting.drain().map(|request| {
            state.desk.forget(&request);
            request.id
        }));
        state.held_messages = 0;
        state.held_bytes = 0;
        let error = CallError::InputClosed;
        failed
            .into_iter()
            .map(|id| Delivery::Failed { id, error: error.clone(), so_far: Vec::new() })
            .collect()
    }

    /// The earliest point at which [`Exchange::expire`] has something to do.
    pub fn next_deadline(&self) -> Option<Tick> {
        self.state.desk.deadlines.first().map(|(deadline, ..)| *deadline)
    }

    /// Gives up the calls whose deadline has come.
    pub fn expire(&mut self, now: Tick) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        while let Some((deadline, id, client)) = self.state.desk.deadlines.first().copied() {
            if deadline > now {
                break;
            }
            let stuck = self.stuck_since().is_some();
            let (cancelled, so_far) = self.give_up(id, client, deadline, now);
            let error = match cancelled {
                Cancelled::Withdrawn => CallError::Unsent { stuck },
                Cancelled::Abandoned => CallError::Unanswered,
            };
            deliveries.push(Delivery::Failed { id, error, so_far });
        }
        deliveries
    }

    /// Takes back a request whose caller has gone. `None` when it has had its outcome already, or
    /// is without a reply and being written: then its outcome follows.
    pub fn cancel(&mut self, id: u64, now: Tick) -> Option<Cancelled> {
        if let Some(call) = &self.state.desk.call
            && call.id == id
        {
            let (client, deadline) = (call.client, call.deadline);
            return call.abandoned.is_none().then(|| self.give_up(id, client, deadline, now).0);
        }
        if let Some(client) = self.state.waiting.client_of(id) {
            self.withdraw_waiting(id, client);
            return Some(Cancelled::Withdrawn);
        }
        let size = self.state.outgoing.withdraw(id)?;
        self.release(size);
        Some(Cancelled::Withdrawn)
    }

    /// Since when an abandoned call, whose reply the program still owes, holds up all others.
    pub fn stuck_since(&self) -> Option<Tick> {
        self.state.desk.call.as_ref().and_then(|call| call.abandoned)
    }

    /// What passed through.
    pub fn counters(&self) -> Counters {
        self.state.desk.counters
    }

    /// How many messages, and how many bytes, wait to be written.
    pub fn waiting(&self) -> (u64, u64) {
        (self.state.held_messages, self.state.held_bytes)
    }

    /// Whether anybody waits for what the program says next.
    pub fn is_awaited(&self) -> bool {
        self.state.desk.call.is_some() || self.state.held_messages > 0
    }

    /// The program has ended, everything it wrote was received, and so many bytes were left unread
    /// in its input's pipe. The tail of its output may still complete a call; then every request
    /// that is open is accounted for.
    pub fn ended(&mut self, unread: u64, now: Tick) -> Ending {
        let mut deliveries = self.output_closed(now);
        let whole = self.whole_output();
        let state = &mut self.state;
        state.input = Input::Closed;
        let read_up_to = state.outgoing.written().saturating_sub(unread);
        let read = |from: Option<u64>| match from {
            Some(from) if from < read_up_to => ReadState::MaybeRead,
            Some(_) | None => ReadState::NeverRead,
        };
        let mut unanswered = Vec::new();
        let parts = state.desk.correlator.close();
        match state.desk.call.take() {
            Some(call) if call.abandoned.is_none() => {
                let (id, read, is_reply) = (call.id, read(call.from), whole.is_some());
                let so_far = whole.map_or(parts, |whole| vec![whole]);
                unanswered.push(Unanswered { id, read, so_far, is_reply });
            }
            Some(_) => state.desk.counters.swallowed += u64::from(whole.is_some()),
            None => {
                let said = whole.filter(|payload| !payload.is_empty());
                let event = |payload| Delivery::Event(Message { payload, partial: false });
                deliveries.extend(said.map(event));
            }
        }
        for (from, item) in state.outgoing.drain() {
            if item.what == What::Send {
                let (id, read) = (item.id, read(Some(from)));
                unanswered.push(Unanswered { id, read, so_far: Vec::new(), is_reply: false });
            }
        }
        for request in state.waiting.drain() {
            let (id, read) = (request.id, ReadState::NeverRead);
            unanswered.push(Unanswered { id, read, so_far: Vec::new(), is_reply: false });
        }
        state.desk.deadlines.clear();
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

    /// Takes back a call: for good where no byte of it is out, otherwise its reply is swallowed.
    fn give_up(
        &mut self,
        id: u64,
        client: u64,
        deadline: Tick,
        now: Tick,
    ) -> (Cancelled, Vec<Bytes>) {
        self.state.desk.deadlines.remove(&(deadline, id, client));
        let state = &mut self.state;
        let Some(call) = state.desk.call.as_mut().filter(|call| call.id == id) else {
            self.withdraw_waiting(id, client);
            return (Cancelled::Withdrawn, Vec::new());
        };
        if let Some(size) = state.outgoing.withdraw(id) {
            state.desk.call = None;
            self.release(size);
            return (Cancelled::Withdrawn, Vec::new());
        }
        call.abandoned = Some(now);
        let begun = call.from.is_some();
        let so_far = if begun { state.desk.correlator.abandon() } else { Vec::new() };
        (Cancelled::Abandoned, so_far)
    }

    fn withdraw_waiting(&mut self, id: u64, client: u64) {
        if let Some(request) = self.state.waiting.remove(client, id) {
            self.state.desk.forget(&request);
            self.release(request.size);
        }
    }

    fn release(&mut self, size: u64) {
        self.state.held_messages -= 1;
        self.state.held_bytes -= size;
    }
}

impl Serialize for Exchange {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.state.serialize(s)
    }
}

impl Desk {
    /// The first byte of the call is written: from now on a message may be its reply.
    fn begun(&mut self, from: u64, seed: u64) {
        let Some(call) = &mut self.call else { return };
        call.from = Some(from);
        let begun = self.correlator.begin(call.id, &protocol::token(seed, call.token));
        begun.expect("a call is let out only when no other is open");
        if call.abandoned.is_some() {
            self.correlator.abandon();
        }
    }

    /// The program said something.
    fn heard(
        &mut self,
        protocol: &Protocol,
        message: Message,
        now: Tick,
        deliveries: &mut Vec<Delivery>,
    ) {
        self.counters.frames_out += 1;
        let partial = message.partial;
        match self.correlator.take(&protocol.rule, message.payload, protocol.max_reply) {
            Outcome::Event(payload) => {
                self.counters.strays += u64::from(protocol.rule.answers());
                deliveries.push(Delivery::Event(Message { payload, partial }));
            }
            Outcome::Part => {}
            Outcome::Done { call: id, reply } => {
                self.close_call();
                deliveries.push(Delivery::Reply { id, messages: reply });
            }
            Outcome::TooLarge { call: id, so_far } => {
                match (self.correlator.open(), &mut self.call) {
                    (Some(_), Some(call)) => {
                        self.deadlines.remove(&(call.deadline, call.id, call.client));
                        call.abandoned = Some(now);
                    }
                    (None, _) | (_, None) => self.close_call(),
                }
                let error = CallError::ReplyTooLarge { max: protocol.max_reply };
                deliveries.push(Delivery::Failed { id, error, so_far });
            }
            Outcome::Swallowed => self.counters.swallowed += 1,
            Outcome::Resolved { .. } => {
                self.counters.swallowed += 1;
                self.close_call();
            }
        }
    }

    fn close_call(&mut self) {
        if let Some(call) = self.call.take() {
            self.deadlines.remove(&(call.deadline, call.id, call.client));
        }
    }

    /// The open call's request will never be written. Gives its id, unless it was abandoned.
    fn unsend(&mut self) -> Option<u64> {
        let call = self.call.take()?;
        self.deadlines.remove(&(call.deadline, call.id, call.client));
        call.abandoned.is_none().then_some(call.id)
    }

    fn forget(&mut self, request: &Queued) {
        if let Kind::Call { deadline } = request.kind {
            self.deadlines.remove(&(deadline, request.id, request.client));
        }
    }
}
