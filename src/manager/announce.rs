//! Telling subscribers: the loop and the disk thread both do, and a client begins to listen without
//! asking either.
//!
//! What was told and what is being told are behind one lock, so that a client that begins to listen
//! gets each event once: either among what was, or among what comes. The lock is held for as long as
//! it takes to give an event its place, and nobody waits for a subscriber.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::broadcast;

use super::forward::Forwarder;
use super::history::{History, Recalled, Since};
use super::notice::Teller;
use super::published::{Published, What};
use super::request::EVENTS;
use crate::exit::{ExitRecord, HostPart};
use crate::name::ReplicaId;
use crate::os::clock;
use crate::spec::Forward;

/// Tells everybody who listens. Clones tell the same people.
#[derive(Debug, Clone)]
pub struct Announcer {
    history: Arc<Mutex<History>>,
    events: broadcast::Sender<Arc<Published>>,
    teller: Teller,
    forward: Forwarder,
}

/// What a client is given that listens to events.
#[derive(Debug)]
pub struct Subscription {
    /// What was.
    pub recalled: Recalled,
    /// What comes.
    pub live: broadcast::Receiver<Arc<Published>>,
    /// Who tells.
    pub teller: Teller,
}

impl Announcer {
    /// Tells what happens on this machine from here on.
    pub fn new(history: History, host: HostPart) -> Self {
        let teller = Teller { host, generation: history.now().generation };
        let (events, _) = broadcast::channel(EVENTS);
        let forward = Forwarder::default();
        Self { history: Arc::new(Mutex::new(history)), events, teller, forward }
    }

    /// Tells of ends those too whom `forward` reaches.
    pub(super) fn forwarding(self, forward: Forwarder) -> Self {
        Self { forward, ..self }
    }

    /// Nothing in the critical sections can panic half-way, so a poisoned history is still whole.
    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody listens.
    pub fn is_heard(&self) -> bool {
        self.events.receiver_count() > 0
    }

    /// Tells everybody who listens, and those who ask later; never waits for any of them.
    pub fn publish(&self, what: What) {
        let mut history = self.lock();
        let event = history.add(clock::wall(), what);
        if self.is_heard() {
            // An error only says that nobody listens any more.
            let _ = self.events.send(event);
        }
    }

    /// Tells of an end whose record is in the journal as `line`.
    pub(super) fn end(&self, once: &Once, record: ExitRecord, line: Bytes) {
        let record = Arc::new(record);
        let first = once.claim();
        if first {
            once.before.iter().for_each(|event| self.publish(event.clone()));
        }
        self.publish(What::Exit { record: Arc::clone(&record), line });
        if first {
            self.forward.exit(&once.forward, &record);
        }
    }

    /// Tells of an end whose record the disk does not take in time: the exit itself is told once,
    /// with its number, when it is written.
    pub(super) fn late_end(&self, once: &Once, replica: ReplicaId, record: &ExitRecord) {
        if once.claim() {
            once.before.iter().for_each(|event| self.publish(event.clone()));
            let (reason, msg) = (record.exit.reason, record.msg.as_str().into());
            let incarnation = record.service.incarnation;
            self.publish(What::Unrecorded { replica, incarnation, reason, msg });
            self.forward.exit(&once.forward, record);
        }
    }

    /// Gives its place to a message of a flood that nobody hears, and keeps nothing of it.
    pub(super) fn overlook(&self) {
        self.lock().overlook(clock::wall());
    }

    /// What was, and the way to what comes, without anything in between or twice.
    pub fn subscribe(&self, since: Option<Since>) -> Subscription {
        let history = self.lock();
        let live = self.events.subscribe();
        Subscription { recalled: history.recall(since), live, teller: self.teller.clone() }
    }

    /// Ends when nobody listens any more.
    pub(super) async fn unheard(&self) {
        self.events.closed().await;
    }
}

/// The right to forward one end, and to call it late, which exists once: the disk thread takes it
/// when the record is written, the loop when the disk is too late.
#[derive(Debug, Clone)]
pub(super) struct Once {
    taken: Arc<AtomicBool>,
    /// Who is told besides those who listen.
    forward: Forward,
    /// What happened before it and waited for an earlier end of the same replica to be told.
    before: Arc<[What]>,
}

impl Once {
    /// The right to tell of a new end.
    pub(super) fn new(forward: Forward, before: Vec<What>) -> Self {
        Self { taken: Arc::default(), forward, before: before.into() }
    }

    /// Takes the right; false when it was taken before.
    fn claim(&self) -> bool {
        !self.taken.swap(true, Ordering::Relaxed)
    }
}
