//! What others may ask of the manager's loop, and what it answers.
//!
//! A [`Handle`] is how the API reaches the loop. Requests go through a bounded channel and are
//! answered through a one-shot channel each; events are broadcast, and a subscriber that is too slow
//! asks for what it missed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::event::Verb;
use crate::metrics::Sample;
use crate::name::{Requester, ServiceName, Target};
use crate::os::fds::Waker;
use crate::spec::{Metrics, Port, Spec};

use super::announce::{Announcer, Subscription};
use super::history::Since;
use super::report::{Reloading, Reloads};

pub use super::refusal::{ReadState, Refusal, SpeakError};
pub use super::snapshot::{
    CheckStatus, HealthStatus, LastExit, LimitStatus, ManagerStatus, PortStatus, ReplicaStatus,
    Snapshot, SocketStatus,
};

/// How many requests may wait for the loop. It takes them many thousands a second; a full queue
/// means that a client floods it, and the next request is refused as busy. The connections are
/// bounded to as many.
pub const REQUESTS: usize = 256;

/// How many events a subscriber may lag behind before it has to ask for what it missed.
pub const EVENTS: usize = 256;

/// The way to the manager's loop.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) requests: SyncSender<Request>,
    pub(super) waker: Waker,
    announcer: Announcer,
    metrics: watch::Receiver<Option<Metrics>>,
    /// The largest message that is taken from a client, in bytes.
    largest: Arc<AtomicU64>,
    draining: Arc<watch::Sender<bool>>,
    pub(super) reloads: Arc<Reloads>,
}

/// The largest message that is taken from a client whatever the ports are, in bytes: the usual
/// `max_frame` and a little more, so that it is the port that says what is too large.
const LARGEST: u64 = 17 << 20;
/// How much more than a port's `max_frame` is taken, in bytes.
const MORE: u64 = 1 << 20;

/// One question or order.
#[derive(Debug)]
pub enum Request {
    /// Everything about everything.
    Snapshot {
        /// The answer.
        reply: oneshot::Sender<Snapshot>,
    },
    /// What can be measured, for a scrape.
    Measure {
        /// The answer.
        reply: oneshot::Sender<Box<Sample>>,
    },
    /// Whether metrics can be scraped where the configuration says: `None` when they can, or why not.
    MetricsDoor {
        /// The address this is about.
        listen: SocketAddr,
        /// What is wrong, in words.
        trouble: Option<String>,
    },
    /// A configuration that was to take effect had mistakes.
    ReloadRefused,
    /// The configuration in effect.
    Spec {
        /// The answer.
        reply: oneshot::Sender<Arc<Spec>>,
    },
    /// The same as it was read: without the numbers of replicas that operators want.
    Written {
        /// The answer.
        reply: oneshot::Sender<Arc<Spec>>,
    },
    /// Make it so many replicas. Answered when they run and the others are gone.
    Scale {
        /// Of which service.
        service: ServiceName,
        /// How many.
        replicas: u32,
        /// By whom.
        by: Requester,
        /// The answer.
        reply: oneshot::Sender<Result<Vec<ReplicaStatus>, Refusal>>,
    },
    /// Start, stop, restart or signal a service. Answered when the wish has come true or cannot.
    Command {
        /// What is wanted.
        verb: Verb,
        /// Of which service or replica.
        target: Target,
        /// By whom.
        by: Requester,
        /// The answer.
        reply: oneshot::Sender<Result<Vec<ReplicaStatus>, Refusal>>,
    },
    /// Send a message to a port and wait for the reply, or only send it.
    Speak {
        /// To which service (any running replica) or replica.
        target: Target,
        /// The message.
        payload: Bytes,
        /// Whether a reply is wanted, and how long to wait; `None` takes the port's own time-out.
        kind: Speech,
        /// Whose message it is: clients are served in turn.
        client: u64,
        /// How long to wait for room where as many messages wait for the program as may; `None` does
        /// not, and is refused as busy.
        wait: Option<Duration>,
        /// The answer: the reply's messages, or nothing for a mere send.
        reply: oneshot::Sender<Result<Vec<Bytes>, SpeakError>>,
    },
    /// A client goes on in wire protocol 1, over its connection.
    Join(super::Joining),
    /// A client went away without its answer: messages that nobody waits for are taken back.
    Forget,
    /// Make this the configuration in effect.
    Apply {
        /// The new configuration.
        spec: Box<Spec>,
        /// By whom.
        by: Requester,
        /// The answer, once it is persisted.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Make room for another binary, once nobody waits for anything. Answered when nobody but who asks
    /// is left, or with the reason why not.
    Upgrade {
        /// The binary: an absolute path.
        binary: PathBuf,
        /// The form in which that one hands over and takes over.
        form: u32,
        /// By whom.
        by: Requester,
        /// The answer.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// So many connections are left that wait for an answer. Said while [`Handle::draining`] says so.
    Drained {
        /// How many: one, which asks for the upgrade, or none.
        left: usize,
    },
    /// End everything. A second one hurries. Answered at once; the end of the process is the end.
    Shutdown {
        /// By whom.
        by: Requester,
        /// The answer.
        reply: oneshot::Sender<()>,
    },
}

/// Whether a message asks for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// No: it is sent and that is all.
    Send,
    /// Yes, within this time; `None` takes the port's own.
    Call(Option<Duration>),
    /// No, and the program's input is closed after it. An empty message is none.
    SendLast,
    /// All that the program says from then on, for its input is closed after it; within this time. An
    /// empty message is none.
    CallLast(Option<Duration>),
}

impl Handle {
    /// A way to whoever takes from the other end of `requests` when `waker` wakes it, and to what
    /// `announcer` tells; `metrics` tells where metrics are to be scraped.
    pub fn new(
        requests: SyncSender<Request>,
        waker: Waker,
        announcer: Announcer,
        metrics: watch::Receiver<Option<Metrics>>,
    ) -> Self {
        let largest = Arc::new(AtomicU64::new(LARGEST));
        let draining = Arc::new(watch::Sender::new(false));
        let reloads = Arc::default();
        Self { requests, waker, announcer, metrics, largest, draining, reloads }
    }

    /// Says that a reload is under way, until what is returned is dropped.
    pub fn reloading(&self) -> Reloading {
        Reloading::begin(&self.reloads, &self.waker)
    }

    /// Listens to events: what was, from that place on, and what comes.
    pub fn subscribe(&self, since: Option<Since>) -> Subscription {
        self.announcer.subscribe(since)
    }

    /// Where metrics are to be scraped over TCP, now and whenever that changes.
    pub fn metrics(&self) -> watch::Receiver<Option<Metrics>> {
        self.metrics.clone()
    }

    /// The largest message that is taken from a client, in bytes: a little more than the largest port
    /// of the configuration in effect takes, so that it is the port that says what is too large.
    pub fn largest(&self) -> u64 {
        self.largest.load(Ordering::Relaxed)
    }

    /// Another configuration is in effect.
    pub(super) fn configured(&self, spec: &Spec) {
        let ports = spec.services.values().filter_map(|service| service.port.as_ref());
        let most = ports.map(|port: &Port| port.max_frame.saturating_add(MORE)).max();
        self.largest.store(most.unwrap_or(LARGEST).max(LARGEST), Ordering::Relaxed);
    }

    /// Whether nobody is to be let in any more, and whoever is in is to be answered and seen off.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Has everybody seen off, or lets them in again.
    pub(super) fn drain(&self, draining: bool) {
        self.draining.send_replace(draining);
    }

    /// Hands a request to the loop without waiting.
    pub fn ask(&self, request: Request) -> Result<(), Refusal> {
        match self.requests.try_send(request) {
            Ok(()) => {
                self.waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(_)) => Err(Refusal::Busy),
            Err(TrySendError::Disconnected(_)) => Err(Refusal::ShuttingDown),
        }
    }
}
