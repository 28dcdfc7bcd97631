//! Calls that are given up: at their deadline, or because their caller has gone.

use bytes::Bytes;

use super::outgoing::{What, size};
use super::words::{CallError, Cancelled, Delivery};
use super::{Exchange, State};
use crate::time::Tick;

impl Exchange {
    /// The earliest point at which [`Exchange::expire`] has something to do.
    pub fn next_deadline(&self) -> Option<Tick> {
        self.state.desk.deadlines.first().map(|((deadline, ..), ())| *deadline)
    }

    /// Gives up the calls whose deadline has come.
    pub fn expire(&mut self, now: Tick) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        while let Some((&(deadline, id, client), ())) = self.state.desk.deadlines.first() {
            if deadline > now {
                break;
            }
            let stuck = self.is_stuck();
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
        if let Some(call) = self.state.desk.calls.get(&id) {
            let (client, deadline) = (call.client, call.deadline);
            return call.abandoned.is_none().then(|| self.give_up(id, client, deadline, now).0);
        }
        let last = self.state.last.as_ref().filter(|last| last.id == id).map(|last| last.client);
        if let Some(client) = self.state.waiting.client_of(id).or(last) {
            self.withdraw_waiting(id, client);
            return Some(Cancelled::Withdrawn);
        }
        // A call among what is being written has been given up, or it would have been found.
        let size = self.state.outgoing.withdraw(id, What::Send)?;
        self.release(size);
        Some(Cancelled::Withdrawn)
    }

    /// Since when an abandoned call, whose reply the program still owes, holds up all others. Where
    /// calls are told apart, none does.
    pub fn stuck_since(&self) -> Option<Tick> {
        self.state.desk.calls.iter().find_map(|(_, call)| call.abandoned)
    }

    /// Whether replies that the program owes are all that holds up calls.
    fn is_stuck(&self) -> bool {
        let desk = &self.state.desk;
        let unnumbered = self.state.tells_apart
            && size(desk.calls.len()) < self.protocol.queue
            && !desk.correlator.has_number(&self.protocol.rule);
        unnumbered || self.stuck_since().is_some()
    }

    /// Takes back a call: for good where no byte of it is out, otherwise its reply is swallowed.
    fn give_up(
        &mut self,
        id: u64,
        client: u64,
        deadline: Tick,
        now: Tick,
    ) -> (Cancelled, Vec<Bytes>) {
        let Self { protocol, state } = self;
        let desk = &mut state.desk;
        desk.deadlines.remove(&(deadline, id, client));
        let Some(call) = desk.calls.get_mut(&id) else {
            self.withdraw_waiting(id, client);
            return (Cancelled::Withdrawn, Vec::new());
        };
        let number = call.number;
        if let Some(size) = state.outgoing.withdraw(id, What::Call) {
            desk.calls.remove(&id);
            desk.correlator.unreserve(number);
            self.release(size);
            return (Cancelled::Withdrawn, Vec::new());
        }
        if state.tells_apart && !call.rest {
            desk.calls.remove(&id);
            desk.correlator.abandon_numbered(&protocol.rule, number);
            state.envelope.iter_mut().for_each(|one| one.cancel(number));
            return (Cancelled::Abandoned, Vec::new());
        }
        call.abandoned = Some(now);
        let begun = call.from.is_some();
        let so_far = if begun { state.desk.correlator.abandon() } else { Vec::new() };
        (Cancelled::Abandoned, so_far)
    }

    fn withdraw_waiting(&mut self, id: u64, client: u64) {
        let last = |state: &mut State| state.last.take_if(|last| last.id == id).map(|last| *last);
        let request = self.state.waiting.remove(client, id).or_else(|| last(&mut self.state));
        if let Some(request) = request {
            self.state.desk.forget(&request);
            self.release(request.size);
        }
    }
}
