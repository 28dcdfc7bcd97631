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

mod asking;
mod closing;
mod desk;
mod ears;
mod envelope;
mod frames;
mod give_up;
mod greeting;
mod hearing;
mod outgoing;
mod pieces;
mod protocol;
mod standing;
mod waiting;
mod words;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};

use self::desk::Desk;
use self::ears::Ears;
use self::envelope::Envelope;
use self::greeting::Greeting;
use self::outgoing::{Outgoing, What, size};
use self::waiting::{Queued, Waiting};
use crate::few::Few;
use crate::framing::{Decoder, Message};
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
