//! Telling subscribers: the loop and the disk thread both do, and each end is told by one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::broadcast;

use super::request::Published;

/// Tells everybody who listens. Clones tell the same people.
#[derive(Debug, Clone)]
pub(super) struct Announcer {
    events: broadcast::Sender<Arc<Published>>,
}

impl Announcer {
    /// Tells those who listen to `events`.
    pub(super) fn new(events: broadcast::Sender<Arc<Published>>) -> Self {
        Self { events }
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
}

/// The right to tell of one end, which exists once: the disk thread takes it when the record is
/// written, the loop when the disk is too late.
#[derive(Debug, Clone, Default)]
pub(super) struct Once(Arc<AtomicBool>);

impl Once {
    /// Takes the right; false when it was taken before.
    pub(super) fn claim(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}
