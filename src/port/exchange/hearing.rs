//! What comes from the program: its bytes, and the ends of its output and input.

use super::outgoing::{What, size};
use super::words::{CallError, Delivery};
use super::{Exchange, Input, Output};
use crate::framing::Fault;
use crate::time::Tick;

impl Exchange {
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
}
