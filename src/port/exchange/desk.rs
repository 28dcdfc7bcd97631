//! The calls that are with the program, or about to be, and what the program's messages mean to them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::envelope::Envelope;
use super::outgoing::size;
use super::protocol::Protocol;
use super::waiting::Queued;
use super::words::{CallError, Counters, Delivery};
use crate::correlation::{Correlator, Outcome};
use crate::few::{self, Few};
use crate::framing::Message;
use crate::message::Failure;
use crate::time::Tick;

/// The open calls and their books.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Desk {
    pub(super) correlator: Correlator,
    /// By id. Under a serial rule one at most, which stays when it is given up.
    pub(super) calls: Few<u64, Call>,
    /// Of all calls that are neither answered nor given up: deadline, id, client.
    #[serde(with = "few::keys")]
    pub(super) deadlines: Few<(Tick, u64, u64), ()>,
    pub(super) counters: Counters,
}

/// A call that is with the program, or about to be.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Call {
    pub(super) client: u64,
    pub(super) deadline: Tick,
    /// The number of its token, or the number that it is told apart by.
    pub(super) number: u64,
    /// Where its first byte stands in the stream, once that is written.
    pub(super) from: Option<u64>,
    /// Since when nobody wants its reply.
    pub(super) abandoned: Option<Tick>,
    /// Whether its reply is all that the program still says.
    #[serde(default)]
    pub(super) rest: bool,
}

impl Desk {
    /// The first byte of a call is written: from now on a message may be its reply.
    pub(super) fn begun(&mut self, protocol: &Protocol, id: u64, from: u64, seed: u64) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.from = Some(from);
        let abandoned = call.abandoned.is_some();
        if call.rest {
            self.correlator.begin_rest(id);
            if abandoned {
                self.correlator.abandon();
            }
            return;
        }
        if protocol.rule.tells_apart() {
            return self.correlator.begin_numbered(call.number);
        }
        let begun = self.correlator.begin(id, &protocol.token(seed, call.number));
        begun.expect("a call is let out only when no other is open");
        if abandoned {
            self.correlator.abandon();
        }
    }

    /// The program said something. Gives it back where the rule tells calls apart and does not know
    /// what it is.
    pub(super) fn heard(
        &mut self,
        protocol: &Protocol,
        message: Message,
        now: Tick,
        deliveries: &mut Vec<Delivery>,
    ) -> Option<Message> {
        self.counters.frames_out += 1;
        let partial = message.partial;
        match self.correlator.take(&protocol.rule, message.payload, protocol.max_reply) {
            Outcome::Event(payload) if protocol.rule.tells_apart() => {
                return Some(Message { payload, partial });
            }
            Outcome::Event(payload) => {
                self.counters.unasked += u64::from(protocol.rule.answers());
                deliveries.push(Delivery::Event(Message { payload, partial }));
            }
            Outcome::Notification(payload) => {
                deliveries.push(Delivery::Event(Message { payload, partial }));
            }
            Outcome::Part => {}
            Outcome::Done { call: id, reply } => {
                self.close_call(id);
                deliveries.push(Delivery::Reply { id, messages: reply });
            }
            Outcome::TooLarge { call: id, so_far } => {
                match (self.correlator.open(), self.calls.get_mut(&id)) {
                    (Some(_), Some(call)) => {
                        self.deadlines.remove(&(call.deadline, id, call.client));
                        call.abandoned = Some(now);
                    }
                    (None, _) | (_, None) => self.close_call(id),
                }
                let error = CallError::ReplyTooLarge { max: protocol.max_reply };
                deliveries.push(Delivery::Failed { id, error, so_far });
            }
            Outcome::Swallowed => self.counters.swallowed += 1,
            Outcome::Resolved { call: id } => {
                self.counters.swallowed += 1;
                self.close_call(id);
            }
            Outcome::Unmatched => self.counters.unmatched += 1,
        }
        None
    }

    /// A part of the reply to the call with this number has come in wire protocol 1, or the last of it.
    /// All parts together may have `max` bytes.
    pub(super) fn replied(
        &mut self,
        envelope: &mut Envelope,
        number: u64,
        part: &Bytes,
        more: bool,
        max: u64,
        deliveries: &mut Vec<Delivery>,
    ) {
        if !self.correlator.is_open(number) {
            return self.late(number, more);
        }
        let whole = envelope.part_bytes(number).saturating_add(size(part.len()));
        let fits = if more { envelope.keep(number, part.clone(), max) } else { whole <= max };
        if more && fits {
            return;
        }
        let mut messages = envelope.parts(number);
        let Outcome::Done { call: id, reply } = self.correlator.answered(number, part) else {
            return;
        };
        self.close_call(id);
        if fits {
            messages.extend(reply);
            deliveries.push(Delivery::Reply { id, messages });
        } else {
            // Of what is still to come nothing belongs to anybody.
            envelope.cancel(number);
            let error = CallError::ReplyTooLarge { max };
            deliveries.push(Delivery::Failed { id, error, so_far: messages });
        }
    }

    /// The call with this number was answered with an error.
    pub(super) fn refused(
        &mut self,
        envelope: &mut Envelope,
        number: u64,
        failure: Failure,
        deliveries: &mut Vec<Delivery>,
    ) {
        if !self.correlator.is_open(number) {
            return self.late(number, false);
        }
        let so_far = envelope.parts(number);
        if let Outcome::Done { call: id, .. } = self.correlator.answered(number, &Bytes::new()) {
            self.close_call(id);
            deliveries.push(Delivery::Failed { id, error: CallError::Refused(failure), so_far });
        }
    }

    /// An answer to a call that is not open, or a part of one.
    fn late(&mut self, number: u64, more: bool) {
        if !self.correlator.is_owed(number) {
            self.counters.unmatched += 1;
            return;
        }
        self.counters.swallowed += 1;
        if !more {
            // With the last part the number is free again.
            self.correlator.answered(number, &Bytes::new());
        }
    }

    fn close_call(&mut self, id: u64) {
        if let Some(call) = self.calls.remove(&id) {
            self.deadlines.remove(&(call.deadline, id, call.client));
        }
    }

    /// An open call's request will never be written. Gives its id, unless it was abandoned.
    pub(super) fn unsend(&mut self, id: u64) -> Option<u64> {
        let call = self.calls.remove(&id)?;
        self.deadlines.remove(&(call.deadline, id, call.client));
        self.correlator.unreserve(call.number);
        call.abandoned.is_none().then_some(id)
    }

    pub(super) fn forget(&mut self, request: &Queued) {
        if let Some(deadline) = request.kind.deadline() {
            self.deadlines.remove(&(deadline, request.id, request.client));
        }
    }
}
