//! Where a conversation stands, for whoever may have to go on with it knowing no more than that.

use super::Exchange;

/// Where a conversation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Part of a message has been read.
    pub in_message: bool,
    /// Part of a message has been written.
    pub in_request: bool,
    /// The program owes a reply, or has still to greet.
    pub owes: bool,
}

impl Exchange {
    /// Where it stands.
    pub fn standing(&self) -> Standing {
        let state = &self.state;
        let asked = state.desk.calls.iter().any(|(_, call)| call.from.is_some());
        Standing {
            in_message: state.decoder.unfinished() > 0,
            in_request: state.outgoing.is_in_the_middle(),
            owes: asked || state.greeting.is_some(),
        }
    }

    /// Goes on with a program that was spoken to before and has greeted.
    pub fn take_up(&mut self) {
        self.state.greeting = None;
    }
}
