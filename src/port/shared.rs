//! What the handles of a port and its driver share: the exchange, the pipes, who waits, who listens.
//!
//! Everybody changes what is here under the lock, which is never held while anything is waited for, and
//! wakes the driver, which moves the bytes. Only who waits for the outcome of the one request there is,
//! with nobody else listening, moves them himself ([`Shared::poll_outcome`]): as soon as there is anybody
//! else, the driver takes over, so that no task depends on another being polled.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::error::PortError;
use super::exchange::{Delivery, Exchange, Kind, ReadState, Request, Unanswered};
use super::exit::Exit;
use super::messages::Queue;
use super::pipes::Pipes;
use crate::exit::{Cause, Signal};
use crate::few::Few;
use crate::framing::{FramingError, Message};
use crate::os::clock;
use crate::spec::{KillScope, Service};
use crate::supervise::Single;
use crate::time::Tick;

/// At least the size of a message of this length once it is framed, in bytes.
fn framed(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX).saturating_add(64)
}

/// One port, as its handles see it.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Rung when there is room for another message to the program.
    pub(super) room: Arc<Notify>,
    /// The end, once it is known.
    pub(super) exit: watch::Sender<Option<Arc<Exit>>>,
    pub(super) service: Arc<Service>,
    pub(super) pid: i32,
}

/// What a request comes to.
pub(super) type Outcome = Result<Vec<Bytes>, PortError>;

/// What is behind the lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) exchange: Exchange,
    pub(super) pipes: Pipes,
    pub(super) single: Single,
    /// When the driver's timer goes off; nothing that is due before was known when it was set.
    pub(super) armed: Option<Tick>,
    /// Rung when there is room for another message to the program.
    pub(super) room: Arc<Notify>,
    /// What the exchange has to tell, between two steps of one turn.
    pub(super) deliveries: Vec<Delivery>,
    /// What was wrong with the program's output.
    pub(super) protocol_error: Option<String>,
    /// Signals to be sent, with whether the whole group is meant.
    pub(super) signals: Vec<(Signal, bool)>,
    /// Those who wait for the outcome of a request, or have yet to fetch it.
    callers: Few<u64, Caller>,
    /// How many of them wait.
    waiting: usize,
    /// How many of them wait for a reply.
    pub(super) calls: usize,
    next_id: u64,
    pub(super) subscribers: Vec<Arc<Queue>>,
    pub(super) error_subscribers: Vec<Arc<Queue>>,
    driver: Option<Waker>,
    /// Messages of a read, on their way to the subscribers.
    events: Vec<Message>,
    /// Text of a read that is no protocol, on its way to the log.
    pub(super) texts: Vec<Bytes>,
    /// Whether anybody has ever subscribed.
    pub(super) is_subscribed: bool,
    /// What was in the pipe at the end, where nobody had subscribed before: no more than a pipe holds.
    pub(super) left: Vec<Message>,
}

#[derive(Debug)]
struct Caller {
    is_call: bool,
    /// Once it is known.
    outcome: Option<Outcome>,
    /// Whom to wake then.
    waker: Option<Waker>,
}

impl Shared {
    pub(super) fn new(exchange: Exchange, service: Arc<Service>, pid: i32) -> Arc<Self> {
        let room = Arc::new(Notify::new());
        let state = State {
            exchange,
            pipes: Pipes::default(),
            single: Single::new(Arc::clone(&service)),
            armed: None,
            room: Arc::clone(&room),
            deliveries: Vec::new(),
            protocol_error: None,
            signals: Vec::new(),
            callers: Few::default(),
            waiting: 0,
            calls: 0,
            next_id: 1,
            subscribers: Vec::new(),
            error_subscribers: Vec::new(),
            driver: None,
            events: Vec::new(),
            texts: Vec::new(),
            is_subscribed: false,
            left: Vec::new(),
        };
        let (exit, _) = watch::channel(None);
        Arc::new(Self { state: Mutex::new(state), room, exit, service, pid })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end, if it is known.
    pub(super) fn ended(&self) -> Option<Arc<Exit>> {
        self.exit.borrow().clone()
    }

    /// What a request gets that comes after the end.
    fn too_late(&self) -> Option<PortError> {
        let read = ReadState::NeverRead;
        self.ended().map(|exit| PortError::Ended { exit, read, so_far: Vec::new() })
    }

    /// Queues a request that somebody waits for: its number for [`Shared::poll_outcome`], which is to be
    /// asked at once, and [`Shared::forget`].
    pub(super) fn ask(
        &self,
        client: u64,
        patience: Option<Duration>,
        payload: Bytes,
    ) -> Result<u64, PortError> {
        let mut state = self.lock();
        let (id, is_call) = self.submit(&mut state, client, patience, payload)?;
        state.wait_for(id, is_call);
        Ok(id)
    }

    /// What came of a request.
    pub(super) fn poll_outcome(&self, id: u64, context: &mut Context<'_>) -> Poll<Outcome> {
        let mut state = self.lock();
        if let Some(outcome) = state.fetch(id) {
            return Poll::Ready(outcome);
        }
        if state.is_lone() {
            // Whoever finds his own outcome needs not be woken for it.
            let waker = state.callers.get_mut(&id).and_then(|caller| caller.waker.take());
            let now = clock::now();
            let mut more = state.write_input(now, context);
            if state.waiting > 0 {
                more |= state.read_output(now, context);
            }
            if more || state.concerns_driver() {
                state.wake();
            }
            if let Some(outcome) = state.fetch(id) {
                return Poll::Ready(outcome);
            }
            if let Some(caller) = state.callers.get_mut(&id) {
                caller.waker = waker;
            }
        }
        if let Some(caller) = state.callers.get_mut(&id)
            && !caller.waker.as_ref().is_some_and(|known| known.will_wake(context.waker()))
        {
            caller.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// The same for the last request of a run, whose reply is all that the program still says.
    pub(super) fn ask_last(
        &self,
        client: u64,
        patience: Duration,
        payload: Bytes,
    ) -> Result<u64, PortError> {
        let mut state = self.lock();
        let now = clock::now();
        let kind = Kind::Last { deadline: now + patience };
        let id = self.submit_as(&mut state, client, kind, payload, now)?;
        state.wait_for(id, true);
        Ok(id)
    }

    /// Queues as many messages as there is room for, from the front; whether it has them all.
    pub(super) fn feed_many(
        &self,
        client: u64,
        payloads: &mut std::iter::Peekable<impl Iterator<Item = Bytes>>,
    ) -> Result<bool, PortError> {
        let mut state = self.lock();
        let mut all = true;
        while let Some(length) = payloads.peek().map(Bytes::len) {
            if !state.exchange.has_room(framed(length)) {
                all = false;
                break;
            }
            let Some(payload) = payloads.next() else { break };
            if let Err(error) = self.submit(&mut state, client, None, payload) {
                state.wake();
                return Err(error);
            }
        }
        state.wake();
        Ok(all)
    }

    fn submit(
        &self,
        state: &mut State,
        client: u64,
        patience: Option<Duration>,
        payload: Bytes,
    ) -> Result<(u64, bool), PortError> {
        let (kind, now) = match patience {
            Some(patience) => {
                let now = clock::now();
                (Kind::Call { deadline: now + patience }, now)
            }
            None => (Kind::Send, Tick(0)),
        };
        let id = self.submit_as(state, client, kind, payload, now)?;
        Ok((id, patience.is_some()))
    }

    fn submit_as(
        &self,
        state: &mut State,
        client: u64,
        kind: Kind,
        payload: Bytes,
        now: Tick,
    ) -> Result<u64, PortError> {
        let id = state.next_id;
        let refused = state.exchange.submit(Request { id, client, kind, payload }, now);
        if let Err(refusal) = refused {
            // After the end that is why, whatever else is wrong.
            return Err(self.too_late().unwrap_or(PortError::Refused(refusal)));
        }
        state.next_id += 1;
        Ok(id)
    }

    /// Takes back a request that nobody waits for any more.
    pub(super) fn forget(&self, id: u64) {
        let mut state = self.lock();
        if let Some(Caller { is_call, outcome: None, .. }) = state.callers.remove(&id) {
            state.waiting -= 1;
            state.calls -= usize::from(is_call);
            state.exchange.cancel(id, clock::now());
            state.wake();
        }
    }

    /// A subscriber has room again, or is gone.
    pub(super) fn room_to_read(&self) {
        self.lock().wake();
    }

    /// Has something done by the driver.
    pub(super) fn tell(&self, what: impl FnOnce(&mut State, Tick)) {
        let mut state = self.lock();
        what(&mut state, clock::now());
        state.wake();
    }

    /// No handle is left.
    pub(super) fn dropped(&self) {
        self.tell(|state, now| state.single.stop(Cause::Cancelled, now));
    }

    /// Has it killed.
    pub(super) fn kill(&self) {
        let scope: KillScope = self.service.stop.kill;
        self.tell(|state, now| state.single.kill(Cause::StopRequested, scope, now));
    }
}

impl State {
    /// Has the driver look at what has changed.
    pub(super) fn wake(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Who is to be woken when something changes.
    pub(super) fn driven_by(&mut self, waker: &Waker) {
        if !self.driver.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.driver = Some(waker.clone());
        }
    }

    /// Somebody waits for the outcome of a request.
    fn wait_for(&mut self, id: u64, is_call: bool) {
        self.callers.insert(id, Caller { is_call, outcome: None, waker: None });
        self.waiting += 1;
        self.calls += usize::from(is_call);
        if !self.is_lone() {
            self.wake();
        }
    }

    /// Whether one request is all that anybody waits for: then who waits moves the bytes.
    fn is_lone(&self) -> bool {
        self.waiting == 1 && self.subscribers.is_empty()
    }

    /// Whether a turn that was not the driver's left something for it to do or to wait for.
    fn concerns_driver(&self) -> bool {
        !self.texts.is_empty()
            || !self.exchange.is_all_written()
            || self.due().is_some_and(|due| self.armed.is_none_or(|armed| due < armed))
    }

    /// When something is due next, whatever pipes and process do.
    pub(super) fn due(&self) -> Option<Tick> {
        let due = self.exchange.next_deadline().into_iter().chain(self.pipes.broken_at);
        due.chain(self.single.next_deadline()).min()
    }

    /// What came of a request, for who asked for it.
    fn fetch(&mut self, id: u64) -> Option<Outcome> {
        let outcome = self.callers.get_mut(&id)?.outcome.take()?;
        self.callers.remove(&id);
        Some(outcome)
    }

    /// Whether anybody wants what the program says: a call waits, or a subscriber has room.
    pub(super) fn is_heard(&mut self) -> bool {
        self.subscribers.retain(|queue| !queue.is_left());
        self.calls > 0 || self.subscribers.iter().any(|queue| queue.has_room())
    }

    /// Hands on what the exchange had to tell. `last` is true for what was in the pipes at the end: it
    /// is no more than a pipe holds, and there is room for it.
    pub(super) fn heard(&mut self, last: bool) {
        let mut deliveries = std::mem::take(&mut self.deliveries);
        if let Some(error) = self.deliver(&mut deliveries, last) {
            self.protocol_error = Some(error.to_string());
            self.pipes.output = None;
        }
        // Its memory is used again.
        self.deliveries = deliveries;
    }

    /// The same; what was wrong with the output.
    fn deliver(&mut self, deliveries: &mut Vec<Delivery>, last: bool) -> Option<FramingError> {
        let mut broken = None;
        for delivery in deliveries.drain(..) {
            match delivery {
                Delivery::Event(message) => self.events.push(message),
                Delivery::Reply { id, messages } => {
                    self.answer(id, Ok(messages));
                }
                Delivery::Sent { id } => {
                    self.answer(id, Ok(Vec::new()));
                }
                Delivery::Failed { id, error, so_far } => {
                    let failed = PortError::Failed { error: Box::new(error), so_far };
                    self.answer(id, Err(failed));
                }
                Delivery::Protocol(error) => broken = Some(error),
                // What waited for it is written by the driver in a moment.
                Delivery::Ready => {}
                Delivery::Stray(text) | Delivery::Log(text) => self.texts.push(text),
            }
        }
        if broken.is_some() {
            self.single.broke_protocol(clock::now());
        }
        if self.events.is_empty() {
            return broken;
        }
        if let Some((final_one, others)) = self.subscribers.split_last() {
            for queue in others {
                queue.push(self.events.iter().cloned(), last || queue.has_room());
            }
            final_one.push(self.events.drain(..), last || final_one.has_room());
        }
        if last && !self.is_subscribed {
            self.left.append(&mut self.events);
        }
        self.events.clear();
        broken
    }

    /// Tells those whose requests no program will ever answer.
    pub(super) fn tell_lost(&mut self, lost: Vec<Unanswered>, exit: &Arc<Exit>) {
        for Unanswered { id, read, so_far, is_reply } in lost {
            let outcome = if is_reply && exit.is_success() {
                Ok(so_far)
            } else {
                Err(PortError::Ended { exit: Arc::clone(exit), read, so_far })
            };
            self.answer(id, outcome);
        }
    }

    fn answer(&mut self, id: u64, outcome: Outcome) {
        // Whoever went away has taken its request back.
        let Some(caller) = self.callers.get_mut(&id) else { return };
        caller.outcome = Some(outcome);
        let (is_call, waker) = (caller.is_call, caller.waker.take());
        self.waiting -= 1;
        self.calls -= usize::from(is_call);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
