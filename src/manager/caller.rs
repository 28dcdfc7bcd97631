//! Who waits for the fate of a message, and how it is told.

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::name::Incarnation;

use super::control::Control;
use super::request::SpeakError;

/// Who waits for a message's fate.
#[derive(Debug)]
pub(super) enum Caller {
    /// A request of the API.
    Request(oneshot::Sender<Result<Vec<Bytes>, SpeakError>>),
    /// A call of a client of protocol 1.
    Guest {
        /// Which client.
        guest: u64,
        /// Its own id of the call.
        id: u64,
    },
    /// A client of protocol 1 that wants to know only what went wrong.
    Sender {
        /// Which client.
        guest: u64,
    },
    /// Those who wait for the handshake of this run.
    Handshake(Incarnation),
    /// A health check of this run: its question of this number.
    Probe {
        /// Which run.
        incarnation: Incarnation,
        /// Which question.
        number: u64,
    },
    /// Nobody: a message of the manager's own.
    Nobody,
}

impl Caller {
    /// Whether nobody waits any more.
    pub(super) fn is_gone(&self) -> bool {
        match self {
            Self::Request(reply) => reply.is_closed(),
            // These say so when they go.
            Self::Guest { .. }
            | Self::Sender { .. }
            | Self::Handshake(_)
            | Self::Probe { .. }
            | Self::Nobody => false,
        }
    }
}

impl Control {
    /// Tells a caller.
    pub(super) fn tell_caller(&mut self, caller: Caller, result: Result<Vec<Bytes>, SpeakError>) {
        match caller {
            // A client that went away needs no answer.
            Caller::Request(reply) => drop(reply.send(result)),
            Caller::Guest { guest, id } => self.wire_answer(guest, id, result),
            Caller::Sender { guest } => {
                if let Err(error) = result {
                    self.wire_unsent(guest, &error);
                }
            }
            Caller::Handshake(incarnation) => self.shaken(incarnation, result),
            Caller::Probe { incarnation, number } => {
                self.call_probed(incarnation, number, result);
            }
            Caller::Nobody => {}
        }
    }
}
