//! The end of a program's input: who wants it, and when it has come.

use super::waiting::Queued;
use super::{Exchange, Input};

impl Exchange {
    /// Whether the input is open, and nothing that waits will close it.
    pub fn is_input_open(&self) -> bool {
        self.state.input == Input::Open && self.state.last.is_none() && !self.is_taken()
    }

    /// Takes no more requests. Once [`Exchange::is_input_done`], the input can be closed.
    pub fn close_input(&mut self) {
        if self.state.input == Input::Open {
            self.state.input = Input::Closing;
        }
    }

    /// Whether the input is to be closed now: nothing more will be written.
    pub fn is_input_done(&self) -> bool {
        let idle = self.state.envelope.as_ref().is_none_or(|one| one.is_idle());
        match self.state.input {
            Input::Open => false,
            Input::Closing | Input::Spent if !idle => false,
            // What waits behind the one call of a run, or for a program that was not ready in time, will
            // never be written.
            Input::Closing if !self.is_taken() && !self.is_held() => {
                let state = &self.state;
                state.waiting.is_empty() && state.last.is_none() && state.outgoing.is_empty()
            }
            Input::Closing | Input::Spent => self.state.outgoing.is_empty(),
            Input::Closed => true,
        }
    }

    /// The last request, once there is no other.
    pub(super) fn last(&mut self) -> Option<Queued> {
        let state = &mut self.state;
        let alone = state.waiting.is_empty() && state.desk.calls.is_empty();
        state.last.take_if(|_| alone).map(|last| *last)
    }
}
