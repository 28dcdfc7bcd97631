//! What an exchange does more where wire protocol 1 is spoken: frames in the form that the program
//! chose, what it does not take, and the words that are nobody's request.

use bytes::Bytes;

use super::outgoing::{Item, What, size};
use super::pieces::Pieces;
use super::waiting::Queued;
use super::words::{CallError, Delivery, Kind, Refusal, Unfit};
use super::{Exchange, State};
use crate::framing::EncodeError;
use crate::message::{self, Form, Frame, Mode};

impl Exchange {
    /// Whether a program that has introduced itself takes such a request.
    pub(super) fn introduced(&self, kind: Kind, size: u64) -> Result<(), Refusal> {
        let Some(envelope) = &self.state.envelope else { return Ok(()) };
        if envelope.takes_no_calls() && kind != Kind::Send {
            return Err(Refusal::NoReplies);
        }
        match envelope.largest().filter(|max| size > *max) {
            Some(max) => Err(EncodeError::TooLarge { size, max }.into()),
            None => Ok(()),
        }
    }

    /// Puts frames that are nobody's request among what is being written, before all requests that are
    /// not there yet.
    pub(super) fn let_out_control(&mut self) {
        let State { envelope, outgoing, decoder, .. } = &mut self.state;
        let (Some(envelope), Some(mode)) = (envelope, decoder.mode()) else { return };
        while outgoing.wants_more() {
            let Some(frame) = envelope.next() else { break };
            // The peer's limit holds for those who talk; what the protocol itself has to say is small.
            let form = Form { max_frame: u64::MAX, ..envelope.form(mode) };
            let wire = frame.encode(&form).expect("a frame made here has the parts of its kind");
            let (size, pieces) = (size(wire.len()), Pieces::from(wire));
            outgoing.push(Item { id: 0, what: What::Control, pieces, size, done: 0 });
        }
    }

    /// The pieces of a frame of wire protocol 1.
    pub(super) fn frame(&self, kind: message::Kind, id: u64, payload: Bytes) -> Pieces {
        let State { envelope, decoder, .. } = &self.state;
        let mode = decoder.mode().unwrap_or(Mode::Frame);
        let form = envelope.as_ref().map_or_else(|| Form::new(mode), |one| one.form(mode));
        let wire = Frame::new(kind, id, payload).encode(&form);
        wire.expect("what does not fit was refused when the program said so").into()
    }

    /// A request has these pieces now that its form is known. Gives its bytes.
    pub(super) fn reweigh(&mut self, before: u64, pieces: &Pieces) -> u64 {
        let now = pieces.size();
        self.state.held_bytes = self.state.held_bytes - before + now;
        now
    }

    /// A program of wire protocol 1 may have introduced itself: refuses what it does not take.
    pub(super) fn sort_out(&mut self, deliveries: &mut Vec<Delivery>) {
        let state = &mut self.state;
        let Some(envelope) = &state.envelope else { return };
        let Some(max) = envelope.largest() else { return };
        let no_calls = envelope.takes_no_calls();
        let length = |request: &Queued| request.pieces.size();
        let fit = |one: &Queued| length(one) <= max && (one.kind == Kind::Send || !no_calls);
        for request in state.waiting.sort_out(fit) {
            state.desk.forget(&request);
            state.held_messages -= 1;
            state.held_bytes -= request.size;
            let error = if length(&request) > max { Unfit::TooLarge(max) } else { Unfit::NoCalls };
            let error = CallError::Unfit(error);
            deliveries.push(Delivery::Failed { id: request.id, error, so_far: Vec::new() });
        }
    }

    /// Tells a program of wire protocol 1 that no more calls will come, and how long it has until the
    /// next step, in milliseconds. What waits is not written any more.
    pub fn drain(&mut self, deadline_ms: u64) {
        self.state.envelope.iter_mut().for_each(|one| one.drain(deadline_ms));
    }

    /// What a program of wire protocol 1 said of its end, in words that make a sentence.
    pub fn farewell(&self) -> Option<String> {
        self.state.envelope.as_ref().and_then(|one| one.farewell())
    }

    /// Whether it has something to write that nobody requested, or its input is to be closed.
    pub fn has_word(&self) -> bool {
        self.state.envelope.as_ref().is_some_and(|one| !one.is_idle() || one.is_hopeless())
    }
}
