//! What is said to ports: clients' messages on their way to programs, and how they fared.

use std::collections::HashMap;
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::correlation;
use crate::event::State;
use crate::exit::{ExitRecord, PortPart, Reason};
use crate::name::{Incarnation, ReplicaId, ServiceName, Target};
use crate::os::clock;
use crate::os::epoll::Interest;
use crate::os::live::{PORT_IN_REQUEST, PORT_OWES};
use crate::port::exchange::{
    BadProtocol, Ending, Exchange, Kind as RequestKind, Protocol, ReadState, Refusal, Request,
    Unanswered,
};
use crate::spec::{self, Service};
use crate::time::Tick;

use super::caller::Caller;
use super::control::{Control, Kind};
use super::reception::Reception;
use super::request::{ReadState as ToldState, SpeakError, Speech};
use super::room::Spoken;
use super::shake::Shake;
use super::spawner::Answer;

/// A client that waits for its message's fate.
pub(super) struct Call {
    pub(super) incarnation: Incarnation,
    /// Of which service, where an answer is wanted.
    pub(super) asked: Option<ServiceName>,
    pub(super) since: Tick,
    pub(super) caller: Caller,
}

/// A message on its way to a program.
pub(super) struct Posted {
    /// Our number of it.
    pub(super) id: u64,
    /// Whose it is.
    pub(super) client: u64,
    pub(super) speech: Speech,
    pub(super) payload: Bytes,
}

/// The compiled protocols of services, each as long as the service is configured so.
#[derive(Default)]
pub(super) struct Protocols {
    compiled: HashMap<ServiceName, (Arc<Service>, Arc<Protocol>)>,
}

impl Protocols {
    /// The protocol of a service; `None` for one without a port.
    pub(super) fn of(
        &mut self,
        service: &Arc<Service>,
    ) -> Result<Option<Arc<Protocol>>, BadProtocol> {
        let Some(port) = &service.port else { return Ok(None) };
        if let Some((of, protocol)) = self.compiled.get(&service.name)
            && of.port.as_ref() == Some(port)
        {
            return Ok(Some(Arc::clone(protocol)));
        }
        let protocol = Arc::new(Protocol::new(port)?);
        let entry = (Arc::clone(service), Arc::clone(&protocol));
        self.compiled.insert(service.name.clone(), entry);
        Ok(Some(protocol))
    }
}

/// How long the end of a program whose input broke may take to show.
pub(super) const BROKEN_PATIENCE: Duration = Duration::from_millis(200);

/// From this many open calls on it is worth looking for callers that went away.
const MANY_CALLS: usize = 64;

impl Control {
    /// A client's message to a port. Where as many wait for the program as may, it waits for room for
    /// as long as `wait` says, or is refused.
    pub(super) fn speak(&mut self, spoken: Spoken, wait: Option<Duration>) {
        if self.calls.len() >= MANY_CALLS {
            self.forget_callers();
        }
        if let Some(wait) = wait.filter(|_| !self.has_room(&spoken.target, spoken.payload.len())) {
            return self.wait_for_room(spoken, wait);
        }
        let Spoken { target, payload, speech, client, reply } = spoken;
        self.speak_later(&target, payload, speech, client, Caller::Request(reply));
        self.write_spoken();
    }

    /// Takes a message to a port, which [`Control::write_spoken`] will have written.
    pub(super) fn speak_later(
        &mut self,
        target: &Target,
        payload: Bytes,
        speech: Speech,
        client: u64,
        caller: Caller,
    ) {
        let incarnation = match self.addressed(target) {
            Ok(incarnation) => incarnation,
            Err(error) => return self.tell_caller(caller, Err(error)),
        };
        let id = self.next_call;
        self.next_call += 1;
        if let Caller::Guest { guest, id: theirs } = caller {
            self.wire_accepted(guest, theirs, id);
        }
        let payload = match caller {
            Caller::Guest { guest, .. } if self.has_json_ids(incarnation) => {
                correlation::with_tokens(&payload, guest).unwrap_or(payload)
            }
            _ => payload,
        };
        let asked =
            matches!(speech, Speech::Call(_) | Speech::CallLast(_)).then(|| target.service.clone());
        self.calls.insert(id, Call { incarnation, asked, since: clock::now(), caller });
        let message = Posted { id, client, speech, payload };
        if let Some(message) = self.mannered(incarnation, message) {
            self.submit(incarnation, message);
        }
    }

    /// Whether a run's messages have ids in JSON.
    pub(super) fn has_json_ids(&self, incarnation: Incarnation) -> bool {
        let run = self.runs.get(&incarnation);
        run.and_then(|run| run.service.port.as_ref()).is_some_and(spec::Port::has_json_ids)
    }

    /// Hands a message to its exchange, or tells its caller why not.
    pub(super) fn submit(&mut self, incarnation: Incarnation, message: Posted) {
        let id = message.id;
        let only_closes = message.speech == Speech::SendLast && message.payload.is_empty();
        match self.accept(incarnation, message) {
            Ok(()) => {
                if only_closes {
                    self.answer(id, Ok(Vec::new()));
                }
                self.rise(incarnation);
                self.guests.unwritten.push(incarnation);
            }
            Err(error) => self.answer(id, Err(error)),
        }
    }

    /// Has programs written to that have been spoken to.
    pub(super) fn write_spoken(&mut self) {
        let mut spoken = std::mem::take(&mut self.guests.unwritten);
        spoken.sort_unstable();
        spoken.dedup();
        for incarnation in spoken.drain(..) {
            self.write_input(incarnation);
            self.note_deadline(incarnation);
        }
        if self.guests.unwritten.is_empty() {
            // Its memory serves again.
            self.guests.unwritten = spoken;
        }
    }

    /// The run that is to have a message.
    fn addressed(&self, target: &Target) -> Result<Incarnation, SpeakError> {
        let replicas = self.replicas_of(target).map_err(SpeakError::Refused)?;
        let service = self.spec.services.get(&target.service);
        if service.is_none_or(|service| service.port.is_none()) {
            return Err(SpeakError::NotAPort { name: target.to_string() });
        }
        self.least_busy(&replicas).ok_or_else(|| self.silent(&target.to_string(), &replicas))
    }

    fn accept(&mut self, incarnation: Incarnation, message: Posted) -> Result<(), SpeakError> {
        let Posted { id, client, speech, payload } = message;
        let now = clock::now();
        let run = self.runs.get_mut(&incarnation);
        let Some((exchange, service, replica)) =
            run.and_then(|run| Some((run.exchange.as_mut()?, &run.service, &run.replica)))
        else {
            return Err(SpeakError::NotAPort { name: format!("run {incarnation}") });
        };
        let name = || replica.to_string();
        let own = service.port.as_ref().map(|port| port.timeout).unwrap_or_default();
        let deadline = |patience: Option<Duration>| now + patience.unwrap_or(own);
        let kind = match speech {
            Speech::Send | Speech::SendLast => RequestKind::Send,
            Speech::Call(patience) => RequestKind::Call { deadline: deadline(patience) },
            Speech::CallLast(patience) => RequestKind::Last { deadline: deadline(patience) },
        };
        let closes = speech == Speech::SendLast;
        let accepted = if closes && payload.is_empty() {
            if exchange.is_input_open() { Ok(()) } else { Err(Refusal::InputClosed) }
        } else {
            exchange.submit(Request { id, client, kind, payload }, now)
        };
        accepted.map_err(|refusal| match refusal {
            Refusal::Busy { .. } => SpeakError::Busy { name: name() },
            Refusal::Taken => SpeakError::Taken { name: name() },
            Refusal::NoReplies => SpeakError::NoReplies { name: name() },
            Refusal::TooLate => {
                SpeakError::TimedOut { after_s: 0.0, read: ToldState::NeverRead, held_up: false }
            }
            Refusal::Encode(error) => SpeakError::Unfit { msg: error.to_string() },
            Refusal::Id(error) => SpeakError::Unfit { msg: format!("cannot {error}") },
            Refusal::Enveloped => SpeakError::Unfit { msg: format!("cannot {refusal}") },
            Refusal::InputClosed => SpeakError::InputClosed { name: name() },
            Refusal::OutputClosed | Refusal::Broken => {
                SpeakError::BadReply { msg: format!("cannot {refusal}") }
            }
        })?;
        if closes {
            exchange.close_input();
        }
        Ok(())
    }

    /// Of the replicas that run or are about to, the one with the fewest messages waiting and calls
    /// open. What is said to a program on its way is written once it runs.
    pub(super) fn least_busy(&self, replicas: &[ReplicaId]) -> Option<Incarnation> {
        let running = replicas.iter().filter_map(|replica| {
            let incarnation = *self.present.get(replica)?;
            let run = self.runs.get(&incarnation)?;
            let plain = run.service.port.is_none();
            let usable =
                run.end.is_none() && run.ended.is_none() && (plain || run.exchange.is_some());
            let state = self.supervisor.view(replica)?.state;
            let usable = usable && matches!(state, State::Running | State::Starting);
            let load = |one: &Exchange| {
                (!one.is_input_open(), !one.is_ready(), one.waiting().0 + one.open_calls())
            };
            usable.then(|| (run.exchange.as_deref().map(load), incarnation))
        });
        running.min().map(|(_, incarnation)| incarnation)
    }

    /// A start came to nothing and will be tried again: what was said to it was not heard.
    pub(super) fn unheard(&mut self, incarnation: Incarnation, replica: &ReplicaId) {
        let calls = self.calls.extract_if(|_, call| call.incarnation == incarnation);
        for (_, call) in calls.collect::<Vec<_>>() {
            let error = self.silent(&replica.to_string(), std::slice::from_ref(replica));
            self.tell_caller(call.caller, Err(error));
        }
        self.shakes.remove(&incarnation);
        self.receptions.remove(&incarnation);
    }

    pub(super) fn silent(&self, name: &str, replicas: &[ReplicaId]) -> SpeakError {
        let first = replicas.first();
        let state = first.and_then(|first| self.supervisor.view(first)).map(|view| view.state);
        let last = first.and_then(|first| self.last.get(first));
        SpeakError::NotRunning {
            name: name.to_owned(),
            state: state.unwrap_or(State::Stopped),
            msg: last.map(|last| last.msg.clone()),
        }
    }

    /// Writes what waits for a program, as far as its pipe takes it.
    pub(super) fn write_input(&mut self, incarnation: Incarnation) {
        self.doubt_conversation(incarnation, PORT_IN_REQUEST | PORT_OWES);
        self.write_what_waits(incarnation);
        self.note_conversation(incarnation);
    }

    fn write_what_waits(&mut self, incarnation: Incarnation) {
        let mut deliveries = Vec::new();
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        let Some(exchange) = run.exchange.as_mut() else { return };
        let mut full = false;
        while let (Some(input), false, None) = (&mut run.input, full, run.broken_at) {
            let Some(chunk) = exchange.next_write() else { break };
            let pieces: Vec<_> = chunk.pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            match input.write(&pieces) {
                Ok(written) => deliveries.extend(exchange.wrote(written)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    exchange.wrote(0);
                    full = true;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // The program closed its input, or is dying: its end, which says more, is given a
                // moment to show before the input counts as closed.
                Err(_) => {
                    exchange.wrote(0);
                    run.broken_at = Some(clock::now() + BROKEN_PATIENCE);
                    break;
                }
            }
        }
        let done = exchange.is_input_done();
        if let (Some(input), None) = (&mut run.input, run.broken_at) {
            let held = if done { input.end() } else { input.flush() };
            full |= held.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        }
        if done && !full {
            if run.writing {
                run.set_writing(false, clock::now());
                if let Some(input) = &run.input {
                    let _ = self.ports.remove(input.as_fd());
                }
            }
            self.drop_input(incarnation);
        }
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        if let Some(input) = &run.input
            && full != run.writing
        {
            let token = Kind::Input.token(incarnation);
            let watched = if full {
                self.ports.add(input.as_fd(), token, Interest::Write)
            } else {
                self.ports.remove(input.as_fd())
            };
            if let Err(error) = watched {
                tracing::error!(%incarnation, %error, "cannot watch a program's input");
            }
            run.set_writing(full, clock::now());
        }
        let broken = run.broken_at.is_some();
        self.deliver(incarnation, deliveries);
        if broken {
            self.note_deadline(incarnation);
        }
    }

    pub(super) fn answer(&mut self, id: u64, result: Result<Vec<Bytes>, SpeakError>) {
        if let Some(call) = self.calls.remove(&id) {
            if let Some(service) = &call.asked {
                self.measured_request(service, clock::now().since(call.since));
            }
            self.tell_caller(call.caller, result);
        }
    }

    /// Sends the port's quit message, ahead of nothing and after what is queued.
    pub(super) fn send_quit(&mut self, incarnation: Incarnation) {
        let now = clock::now();
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        let port = run.service.port.as_ref();
        if let (Some(exchange), Some(port)) = (run.exchange.as_mut(), port) {
            let patience = u64::try_from(port.eof_grace.as_millis()).unwrap_or(u64::MAX);
            exchange.drain(patience);
        }
        let quit = port.and_then(|port| port.quit.clone());
        if let (Some(exchange), Some(quit)) = (run.exchange.as_mut(), quit) {
            let id = self.next_call;
            self.next_call += 1;
            let request =
                Request { id, client: u64::MAX, kind: RequestKind::Send, payload: quit.into() };
            if let Err(refusal) = exchange.submit(request, now) {
                tracing::warn!(%incarnation, "cannot {refusal}: the quit message was not sent");
            }
        }
        self.write_input(incarnation);
    }

    /// Closes a program's standard input once what waits for it is written.
    pub(super) fn close_input(&mut self, incarnation: Incarnation) {
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        match run.exchange.as_mut() {
            Some(exchange) => {
                exchange.close_input();
                self.write_input(incarnation);
            }
            None => self.drop_input(incarnation),
        }
    }

    /// Gives up the calls of a port whose time has come.
    pub(super) fn port_expired(&mut self, incarnation: Incarnation, now: Tick) {
        let Some(run) = self.runs.get_mut(&incarnation) else {
            return self.note_deadline(incarnation);
        };
        let Some(exchange) = run.exchange.as_mut() else { return };
        let mut deliveries = exchange.expire(now);
        let says_so = exchange.has_word();
        if run.broken_at.is_some_and(|at| at <= now) {
            run.broken_at = None;
            deliveries.extend(exchange.input_closed());
            let written = run.writing;
            run.set_writing(false, now);
            if let (Some(input), true) = (&run.input, written) {
                let _ = self.ports.remove(input.as_fd());
            }
            self.drop_input(incarnation);
        }
        self.deliver(incarnation, deliveries);
        if says_so {
            self.write_input(incarnation);
        }
        let run = self.runs.get(&incarnation);
        if run.and_then(|run| run.resting).is_some_and(|at| at <= now) {
            self.rise(incarnation);
        }
        self.note_deadline(incarnation);
    }

    /// Keeps the one deadline of a port.
    pub(super) fn note_deadline(&mut self, incarnation: Incarnation) {
        let Some(run) = self.runs.get_mut(&incarnation) else {
            self.port_deadlines.retain(|(_, one)| *one != incarnation);
            return;
        };
        let expires = run.exchange.as_ref().and_then(|one| one.next_deadline());
        let next = expires.into_iter().chain(run.broken_at).chain(run.resting).min();
        if next != run.deadline {
            if let Some(old) = run.deadline.take() {
                self.port_deadlines.remove(&(old, incarnation));
            }
            if let Some(new) = next {
                self.port_deadlines.insert((new, incarnation));
            }
            run.deadline = next;
        }
    }

    /// Ends a port's exchange: the last deliveries are made, and what no program will ever answer is
    /// kept until its end has been judged.
    pub(super) fn end_exchange(&mut self, incarnation: Incarnation, unread: Option<u64>) {
        let now = clock::now();
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        if let Some(deadline) = run.deadline.take() {
            self.port_deadlines.remove(&(deadline, incarnation));
        }
        let Some(exchange) = run.exchange.as_mut() else { return };
        // Where some is all that is known, it was one byte at least.
        let Ending { deliveries, unanswered } = exchange.ended(unread.unwrap_or(1), now);
        let counters = exchange.counters();
        // Of a program that never ran there is nothing to be said.
        let unready = exchange.unready().filter(|_| run.landing == Some(Answer::Executed));
        run.evidence.extend(unready);
        run.evidence.extend(exchange.farewell());
        run.lost = unanswered;
        run.lost.extend(self.shakes.remove(&incarnation).into_iter().flat_map(Shake::unspoken));
        let reception = self.receptions.remove(&incarnation);
        run.lost.extend(reception.into_iter().flat_map(Reception::unspoken));
        let (service, blocked) = (run.replica.service.clone(), run.blocked(now));
        self.measured_port(&service, &counters, blocked);
        self.deliver(incarnation, deliveries);
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        let framing = run.service.port.as_ref().map(|port| port.framing.name());
        run.port = Some(PortPart {
            framing: framing.unwrap_or_default().to_owned(),
            frames_in: counters.frames_in,
            frames_out: counters.frames_out,
            partial_frame: counters.partial_frame,
            unread_stdin_bytes: unread,
            error: run.protocol_error.clone(),
        });
    }

    /// Tells the callers of a program that ended why it did; who called a run whose whole output is
    /// its reply gets that where the run was a success.
    pub(super) fn tell_lost(&mut self, lost: Vec<Unanswered>, record: &ExitRecord) {
        for Unanswered { id, read, so_far, is_reply } in lost {
            if is_reply && record.exit.reason == Reason::Completed {
                self.answer(id, Ok(so_far));
                continue;
            }
            let error = SpeakError::Ended {
                msg: record.msg.clone(),
                reason: record.exit.reason,
                exit_code: record.process.exit.as_ref().map(|exit| exit.code),
                signal: record.exit.signal.map(|signal| signal.to_string()),
                incarnation: record.service.incarnation,
                read: match read {
                    ReadState::NeverRead => ToldState::NeverRead,
                    ReadState::MaybeRead => ToldState::MaybeRead,
                },
            };
            self.answer(id, Err(error));
        }
    }

    /// Takes back the messages of clients that went away.
    pub(super) fn forget_callers(&mut self) {
        let gone: Vec<u64> = self
            .calls
            .iter()
            .filter(|(_, call)| call.caller.is_gone())
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.cancel_call(id);
        }
    }

    /// Takes back a message; who sent it is not told.
    pub(super) fn cancel_call(&mut self, id: u64) {
        let Some(Call { incarnation, .. }) = self.calls.remove(&id) else { return };
        let run = self.runs.get_mut(&incarnation);
        if let Some(exchange) = run.and_then(|run| run.exchange.as_mut()) {
            exchange.cancel(id, clock::now());
        }
        self.write_input(incarnation);
        self.note_deadline(incarnation);
    }
}
