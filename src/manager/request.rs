//! What others may ask of the manager's loop, and what it answers.
//!
//! A [`Handle`] is how the API reaches the loop. Requests go through a bounded channel and are
//! answered through a one-shot channel each; events are broadcast, and a subscriber that is too slow
//! asks for what it missed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use crate::event::{Health, State, Verb};
use crate::exit::{Cause, Reason};
use crate::message::Failure;
use crate::metrics::Sample;
use crate::name::{Generation, Incarnation, Realm, Requester, ServiceName, Target};
use crate::os::fds::Waker;
use crate::spec::{Metrics, Port, Spec};
use crate::time::Wall;

use super::announce::{Announcer, Subscription};
use super::history::Since;
use super::report::{Reloading, Reloads};

/// How many requests may wait for the loop. It takes them many thousands a second; a full queue
/// means that a client floods it, and the next request is refused as busy. The connections are
/// bounded to as many.
pub const REQUESTS: usize = 256;

/// How many events a subscriber may lag behind before it has to ask for what it missed.
pub const EVENTS: usize = 256;

/// Why a message was not even sent.
const HELD_UP: &str = ": the program never read the message, since it still owes the reply to a call that was \
     given up; a restart helps where that never comes";

/// Seconds as they are told: no finer than a millisecond.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

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

/// Why the loop did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Refusal {
    /// There is no such service.
    #[error("there is no service {name}{}", hint(suggestion.as_deref()))]
    NoSuchService {
        /// What was asked for.
        name: String,
        /// A name that is close to it.
        suggestion: Option<String>,
    },
    /// The service has no such replica.
    #[error("{service} has {replicas} replica{}, there is no {name}", if *replicas == 1 { "" } else { "s" })]
    NoSuchReplica {
        /// What was asked for.
        name: String,
        /// The service.
        service: String,
        /// How many it has.
        replicas: u32,
    },
    /// What was wanted did not come about: it ended instead.
    #[error("{msg}")]
    Ended {
        /// The end, as a sentence.
        msg: String,
    },
    /// Nothing is running that a signal could be sent to.
    #[error("{name} is {}, there is no process to signal", state.as_str())]
    NotRunning {
        /// Which.
        name: String,
        /// Its state.
        state: State,
    },
    /// The manager is shutting down.
    #[error("the manager is shutting down")]
    ShuttingDown,
    /// Too many requests are waiting.
    #[error("the manager is busy: {REQUESTS} requests are waiting")]
    Busy,
    /// The manager cannot be replaced now.
    #[error("{msg}")]
    Upgrade {
        /// Why.
        msg: String,
    },
    /// A socket of a new configuration cannot be opened; the old configuration stays in effect.
    #[error("{msg}")]
    Listen {
        /// Which, and why.
        msg: String,
    },
    /// It could not be written down.
    #[error("{msg}")]
    Disk {
        /// Why.
        msg: String,
    },
}

fn hint(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default()
}

/// Why a message got no reply.
#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum SpeakError {
    /// The service has no `port:`.
    #[error("{name} is a plain server, not a port: nothing is known of how to speak to it")]
    NotAPort {
        /// Which.
        name: String,
    },
    /// The port's `replies` is `none`: nothing it says is a reply.
    #[error("{name} gives no replies (replies: none); use send")]
    NoReplies {
        /// Which.
        name: String,
    },
    /// It is not running.
    #[error("{name} is {}{}", state.as_str(), last(msg.as_deref()))]
    NotRunning {
        /// Which.
        name: String,
        /// Its state.
        state: State,
        /// Its last end, as a sentence.
        msg: Option<String>,
    },
    /// Too many messages wait for the program already.
    #[error("{name} is busy: its queue is full")]
    Busy {
        /// Which.
        name: String,
    },
    /// Somebody closed the program's input before, or the program did.
    #[error("the input of {name} is closed: this run takes no more messages")]
    InputClosed {
        /// Which.
        name: String,
    },
    /// The run's whole output is the reply to a call that somebody made before.
    #[error("{name} is busy: the whole output of this run is the reply to another call")]
    Taken {
        /// Which.
        name: String,
    },
    /// The message cannot be sent in this port's framing, or has no id to tell its reply by.
    #[error("the message does not fit the port: {msg}")]
    Unfit {
        /// Why.
        msg: String,
    },
    /// No reply came in time. The program goes on; a late reply is dropped.
    #[error("no reply within {} s{}", rounded(*after_s), if *held_up { HELD_UP } else { "" })]
    TimedOut {
        /// How long it waited, in seconds.
        after_s: f64,
        /// Whether the program can have seen the message.
        read: ReadState,
        /// Whether all this time the program owed its answer to a call that was given up, so that no
        /// other could be made: only its answer or its end changes that.
        held_up: bool,
    },
    /// The program ended. `read` says whether it can have seen the request.
    #[error("{msg} ({})", read.words())]
    Ended {
        /// The end, as a sentence.
        msg: String,
        /// Why it ended.
        reason: Reason,
        /// The exit code, where it exited.
        exit_code: Option<i32>,
        /// The signal's name, where one ended it.
        signal: Option<String>,
        /// Which run it was.
        incarnation: Incarnation,
        /// Whether it can have seen the request.
        read: ReadState,
    },
    /// The reply is not the port's protocol, or larger than its limit.
    #[error("the reply is unusable: {msg}")]
    BadReply {
        /// Why.
        msg: String,
    },
    /// The program answered with an error: wire protocol 1.
    #[error("the program says {}: {}", failure.code, failure.message)]
    ProgramError {
        /// What it said.
        failure: Box<Failure>,
    },
    /// As for any request.
    #[error(transparent)]
    #[serde(untagged)]
    Refused(Refusal),
}

fn last(msg: Option<&str>) -> String {
    msg.map(|msg| format!("; last: {msg}")).unwrap_or_default()
}

/// Whether a program that ended can have seen a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadState {
    /// Not a byte of it: trying again is safe.
    NeverRead,
    /// Perhaps: it may have been acted upon.
    MaybeRead,
}

impl ReadState {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::NeverRead => "never_read: it never saw the request",
            Self::MaybeRead => "maybe_read: it may have acted on the request",
        }
    }
}

/// Everything about everything, at one instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The manager.
    pub manager: ManagerStatus,
    /// Every replica, in the order of the configuration.
    pub replicas: Vec<ReplicaStatus>,
}

/// The manager's own state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ManagerStatus {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: i32,
    /// The guardian's process.
    pub guardian_pid: i32,
    /// Which of its lives this is.
    pub generation: Generation,
    /// The state directory's realm.
    pub realm: Realm,
    /// When this life began.
    pub started_at: Wall,
    /// Whether control groups are in use, or why not.
    pub cgroups: String,
    /// What is not as it should be; empty when all is well.
    pub degraded: Vec<String>,
    /// Bytes of output that were dropped because the disk could not take them.
    pub output_dropped_bytes: u64,
    /// Messages to journald and syslog that were dropped because they were not taken in time.
    #[serde(default)]
    pub forward_dropped: u64,
    /// Hooks that were not run because too many were waiting.
    #[serde(default)]
    pub hooks_dropped: u64,
    /// Failed attempts to append to the journal.
    pub journal_write_errors: u64,
    /// Records that wait in memory for the disk.
    pub records_waiting: u64,
    /// Whether everything is being stopped.
    pub shutting_down: bool,
}

/// One replica; a row of `ps --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReplicaStatus {
    /// The service.
    pub service: String,
    /// The replica, from 1.
    pub replica: u32,
    /// Its state.
    pub state: State,
    /// Its process; null when there is none.
    pub pid: Option<i32>,
    /// Its run; null before the first.
    pub incarnation: Option<Incarnation>,
    /// How often it was started again since the manager first knew it.
    pub restarts: u64,
    /// Whether it is ready; without a declared readiness, whether it runs.
    pub ready: bool,
    /// Seconds since the program began to run; null when it does not.
    pub uptime_s: Option<f64>,
    /// Whether it has failed five times in a row or more.
    pub crash_looping: bool,
    /// How many failures in a row it has had.
    pub failures_in_a_row: u32,
    /// When it came into this state.
    pub since: Wall,
    /// Seconds until its next start, in backoff.
    pub next_start_s: Option<f64>,
    /// What is known of its health, where a health check is declared and it runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub health: Option<HealthStatus>,
    /// What came of the last question whether it is ready or well.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub check: Option<CheckStatus>,
    /// What it says of itself (`STATUS` of sd_notify(3)).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status_text: Option<String>,
    /// What its state alone does not say: what it waits for, for whose sake it is not started, or that it
    /// still has an older configuration.
    #[serde(default)]
    pub note: Option<String>,
    /// Its last end.
    pub last_exit: Option<LastExit>,
    /// Its counters, where it is a port and runs.
    pub port: Option<PortStatus>,
    /// What is enforced of its limits, and by what; empty where it has none.
    #[serde(default)]
    pub limits: Vec<LimitStatus>,
    /// The words of its command.
    pub command: Vec<String>,
    /// The labels of its service.
    pub labels: BTreeMap<String, String>,
    /// The sockets of its service, which all its replicas share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listen: Vec<SocketStatus>,
}

/// A socket that the manager holds for a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SocketStatus {
    /// Its name.
    pub name: String,
    /// Where it listens: `tcp 127.0.0.1:8080`, `udp [::]:53`, `unix /run/app.sock`.
    pub address: String,
    /// Its descriptor in the programs of the service.
    pub fd: i32,
    /// Whether it is open; it is closed while no replica will run by itself.
    pub open: bool,
}

/// A limit of a replica: what it is, and whether and by what it is enforced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LimitStatus {
    /// The key below `limits`.
    pub limit: String,
    /// Its value.
    pub value: String,
    /// What enforces it, such as `cgroup v1 memory.limit_in_bytes`; absent where nothing does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub enforced_by: Option<String>,
    /// Why nothing enforces it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_enforced: Option<String>,
}

impl std::fmt::Display for LimitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (limit, value) = (&self.limit, &self.value);
        match (&self.enforced_by, &self.not_enforced) {
            (Some(by), _) => write!(f, "{limit} {value}: {by}"),
            (None, Some(why)) => write!(f, "{limit} {value}: not enforced: {why}"),
            (None, None) => write!(f, "{limit} {value}: not enforced"),
        }
    }
}

/// A replica's last end, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LastExit {
    /// When.
    pub ts: Wall,
    /// Which run.
    pub incarnation: Incarnation,
    /// The reason.
    pub reason: Reason,
    /// The cause.
    pub cause: Cause,
    /// The exit code, where it exited.
    pub code: Option<i32>,
    /// The signal's name, where one ended it.
    pub signal: Option<String>,
    /// The whole story as one sentence.
    pub msg: String,
}

/// What is known of a replica's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HealthStatus {
    /// The word.
    pub state: Health,
    /// Checks in a row that failed, as far as they count.
    pub failures: u32,
}

/// What came of a question whether a replica is ready or well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckStatus {
    /// When the answer came, or its time was up.
    pub at: Wall,
    /// Whether it was a good one.
    pub ok: bool,
    /// What was wrong with it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// What the program, or the command that asked, said: its last 4 KiB, or the first of a page.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output: Option<String>,
}

/// A running port's counters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PortStatus {
    /// Its framing.
    pub framing: String,
    /// Messages written to the program.
    pub frames_in: u64,
    /// Messages read from the program.
    pub frames_out: u64,
    /// Messages that wait to be written.
    pub queued: u64,
    /// Calls that the program has, or is about to get, and has not answered.
    #[serde(default)]
    pub open: u64,
    /// Replies that were dropped because no open call could have had them.
    #[serde(default)]
    pub unmatched: u64,
    /// Lines that are no protocol and were borne (`stray`).
    #[serde(default)]
    pub strays: u64,
    /// For how long a call that was given up, and that the program has not answered, has held up all
    /// others, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_up_s: Option<f64>,
    /// Whether the program's input is closed, or will be after what waits: it takes no more messages.
    #[serde(default)]
    pub input_closed: bool,
    /// Whether the program has closed its output, and lives: it says nothing more.
    #[serde(default)]
    pub output_closed: bool,
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
