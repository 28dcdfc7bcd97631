//! What the handles of a port and its driver share: the exchange, who waits, who listens.
//!
//! The driver alone touches pipes and process. Everybody else changes what is here under the lock, which
//! is never held while anything is waited for, and wakes the driver.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot, watch};

use super::error::PortError;
use super::exchange::{Delivery, Exchange, Kind, ReadState, Request, Unanswered};
use super::exit::Exit;
use super::messages::Queue;
use crate::exit::{Cause, Signal};
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
    pub(super) room: Notify,
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
    pub(super) single: Single,
    /// Signals to be sent, with whether the whole group is meant.
    pub(super) signals: Vec<(Signal, bool)>,
    /// Those who wait for the outcome of a request.
    callers: HashMap<u64, Caller>,
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
    outcome: oneshot::Sender<Outcome>,
}

impl Shared {
    pub(super) fn new(exchange: Exchange, service: Arc<Service>, pid: i32) -> Arc<Self> {
        let state = State {
            exchange,
            single: Single::new(Arc::clone(&service)),
            signals: Vec::new(),
            callers: HashMap::new(),
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
        Arc::new(Self { state: Mutex::new(state), room: Notify::new(), exit, service, pid })
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

    /// Queues a request that somebody waits for.
    pub(super) fn ask(
        &self,
        client: u64,
        patience: Option<Duration>,
        payload: Bytes,
    ) -> Result<(u64, oneshot::Receiver<Outcome>), PortError> {
        let mut state = self.lock();
        let (id, is_call) = self.submit(&mut state, client, patience, payload)?;
        let (outcome, wait) = oneshot::channel();
        state.callers.insert(id, Caller { is_call, outcome });
        state.calls += usize::from(is_call);
        state.wake();
        Ok((id, wait))
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
        let id = state.next_id;
        let (kind, now) = match patience {
            Some(patience) => {
                let now = clock::now();
                (Kind::Call { deadline: now + patience }, now)
            }
            None => (Kind::Send, Tick(0)),
        };
        let refused = state.exchange.submit(Request { id, client, kind, payload }, now);
        if let Err(refusal) = refused {
            // After the end that is why, whatever else is wrong.
            return Err(self.too_late().unwrap_or(PortError::Refused(refusal)));
        }
        state.next_id += 1;
        Ok((id, patience.is_some()))
    }

    /// Takes back a request that nobody waits for any more.
    pub(super) fn forget(&self, id: u64) {
        let mut state = self.lock();
        if let Some(caller) = state.callers.remove(&id) {
            state.calls -= usize::from(caller.is_call);
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

    /// Whether anybody wants what the program says: a call waits, or a subscriber has room.
    pub(super) fn is_heard(&mut self) -> bool {
        self.subscribers.retain(|queue| !queue.is_left());
        self.calls > 0 || self.subscribers.iter().any(|queue| queue.has_room())
    }

    /// Hands on what an exchange had to tell. `last` is true for what was in the pipes at the end: it
    /// is no more than a pipe holds, and there is room for it. Gives what was wrong with the output.
    pub(super) fn deliver(
        &mut self,
        deliveries: &mut Vec<Delivery>,
        last: bool,
    ) -> Option<FramingError> {
        let mut broken = None;
        for delivery in deliveries.drain(..) {
            match delivery {
                Delivery::Event(message) => self.events.push(message),
                Delivery::Reply { id, messages } => {
                    Self::answer(&mut self.callers, &mut self.calls, id, Ok(messages));
                }
                Delivery::Sent { id } => {
                    Self::answer(&mut self.callers, &mut self.calls, id, Ok(Vec::new()));
                }
                Delivery::Failed { id, error, so_far } => {
                    let failed = PortError::Failed { error: Box::new(error), so_far };
                    Self::answer(&mut self.callers, &mut self.calls, id, Err(failed));
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
            Self::answer(&mut self.callers, &mut self.calls, id, outcome);
        }
    }

    fn answer(callers: &mut HashMap<u64, Caller>, calls: &mut usize, id: u64, outcome: Outcome) {
        if callers.is_empty() {
            return;
        }
        if let Some(caller) = callers.remove(&id) {
            *calls -= usize::from(caller.is_call);
            // Whoever went away has taken its request back, or is about to.
            let _ = caller.outcome.send(outcome);
        }
    }
}
