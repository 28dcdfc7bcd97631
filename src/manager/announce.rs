//! Telling subscribers: the loop and the disk thread both do, and each end is told by one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::broadcast;

use crate::exit::ExitRecord;
use crate::spec::Forward;

use super::forward::Forwarder;
use super::request::Published;

/// Tells everybody who listens. Clones tell the same people.
#[derive(Debug, Clone)]
pub(super) struct Announcer {
    events: broadcast::Sender<Arc<Published>>,
    forward: Forwarder,
}

impl Announcer {
    /// Tells those who listen to `events`, and of ends those whom `forward` reaches.
    pub(super) fn new(events: broadcast::Sender<Arc<Published>>, forward: Forwarder) -> Self {
        Self { events, forward }
    }

    /// Whether anybody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.events.receiver_count() > 0
    }

    /// Tells everybody who listens; never waits for any of them.
    pub(super) fn publish(&self, event: Published) {
        if self.is_heard() {
            // An error only says that nobody listens any more.
            let _ = self.events.send(Arc::new(event));
        }
    }

    /// Tells of an end, unless that was done before.
    pub(super) fn end(&self, once: &Once, record: ExitRecord) {
        if once.claim() {
            self.forward.exit(&once.forward, &record);
            self.publish(Published::Exit(Box::new(record)));
        }
    }
}

/// The right to tell of one end, which exists once: the disk thread takes it when the record is
/// written, the loop when the disk is too late.
#[derive(Debug, Clone)]
pub(super) struct Once {
    taken: Arc<AtomicBool>,
    /// Who is told besides those who listen.
    forward: Forward,
}

impl Once {
    /// The right to tell of a new end.
    pub(super) fn new(forward: Forward) -> Self {
        Self { taken: Arc::default(), forward }
    }

    /// Whether it was taken.
    pub(super) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes the right; false when it was taken before.
    fn claim(&self) -> bool {
        !self.taken.swap(true, Ordering::Relaxed)
    }
}
