//! The only words between the two columns: what the world tells the supervisor ([`Event`]) and what
//! the supervisor wants done ([`Action`]).
//!
//! Lives, credits and ids pass here, never the bytes of a message. Every event about a process
//! carries its [`Incarnation`]; the supervisor drops those that are not the replica's present one.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exit::{Cause, Certainty, Errno, How, Reason, RestartPart, Signal, StopPart};
use crate::name::{Incarnation, ReplicaId, Requester, ServiceName, Target};
use crate::spec::{KillScope, Service, Spec};
use crate::time::Tick;

/// What happened, as far as the supervisor is concerned.
#[derive(Debug, Clone)]
pub enum Event {
    /// A configuration takes effect: the first one, or that of a reload.
    Configure(Box<Configure>),
    /// Somebody wants something of a service. The target exists: the caller has looked.
    Command {
        /// What is wanted.
        verb: Verb,
        /// Of which service or replica.
        target: Target,
        /// By whom.
        by: Requester,
    },
    /// Everything is to end. A second one hurries: it kills what has been asked to stop. From the
    /// first on nothing is started, whatever is commanded or configured.
    Shutdown {
        /// `manager_shutdown`, or `guardian_died`.
        cause: Cause,
        /// By whom.
        by: Requester,
    },
    /// The process exists, the program does not run yet.
    Spawned {
        /// Which run.
        incarnation: Incarnation,
    },
    /// The program runs (`exec` succeeded). A service without a declared readiness is ready now.
    /// What was asked of it before (a stop) is under way all the same.
    Started {
        /// Which run.
        incarnation: Incarnation,
    },
    /// The program can be spoken to, or whatever else its readiness was declared to be. Said only
    /// after `Started`, and only of a service that does not count as ready by running alone.
    Ready {
        /// Which run.
        incarnation: Incarnation,
    },
    /// There were no resources to start it (`EMFILE`, `EAGAIN`, `ENOMEM`). Nothing was started and
    /// nothing is recorded; the same incarnation is tried again, or never used if the replica is
    /// stopped meanwhile. Only before `Spawned`.
    Deferred {
        /// Which run.
        incarnation: Incarnation,
        /// What was lacking.
        errno: Errno,
    },
    /// It ended, or could not be started. What it wrote has been delivered.
    Ended {
        /// Which run.
        incarnation: Incarnation,
        /// The kernel's word and what was seen beside it.
        end: End,
    },
    /// The sweep after an end is done.
    Swept {
        /// Which run left them behind.
        incarnation: Incarnation,
        /// Whether something is left that could not be killed within the bound.
        stuck: bool,
    },
    /// What it wrote is not its port's protocol.
    ProtocolError {
        /// Which run.
        incarnation: Incarnation,
    },
    /// The time has come that a service's schedule names. Nothing where an operator has stopped it.
    Due {
        /// Which service.
        service: ServiceName,
    },
    /// The kernel killed something that it had started because memory ran out; the program itself runs
    /// on.
    OutOfMemory {
        /// Which run.
        incarnation: Incarnation,
    },
    /// A question to it has its answer; see [`Action::Probe`].
    Probed {
        /// Which run.
        incarnation: Incarnation,
        /// Which question.
        number: u64,
        /// Whether it was the right one, or what was wrong, in words that can follow a colon.
        result: Result<(), Box<str>>,
    },
    /// It said something of itself (sd_notify(3)). That it is ready is [`Event::Ready`].
    Said {
        /// Which run.
        incarnation: Incarnation,
        /// What it said.
        said: Said,
    },
    /// How much memory its processes hold; see [`Action::Measure`].
    Measured {
        /// Which run.
        incarnation: Incarnation,
        /// All together, in bytes.
        bytes: u64,
    },
    /// Time has passed; deadlines may be due.
    Time,
}

/// What a program says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It lives: `WATCHDOG=1`.
    Alive,
    /// It is not well and knows it: `WATCHDOG=trigger`.
    Unwell,
    /// It will give signs of life this often from now on: `WATCHDOG_USEC`.
    AliveEvery(Duration),
    /// It needs so much time from now on for what it is doing: `EXTEND_TIMEOUT_USEC`.
    NeedsTime(Duration),
    /// It is about to end: `STOPPING=1`.
    Stopping,
}

/// What a question to a program is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To see whether it is ready.
    Ready,
    /// To see whether it is well.
    Health,
}

/// What is known of a run's health, in the words of `ps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Nothing yet.
    Starting,
    /// The last check succeeded, or too few have failed since one did.
    Healthy,
    /// As many checks as `retries` says have failed in a row.
    Unhealthy,
}

impl Health {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// A configuration that takes effect.
#[derive(Debug, Clone)]
pub struct Configure {
    /// The configuration.
    pub spec: Arc<Spec>,
    /// Who asked for it.
    pub by: Requester,
    /// What is known of replicas from an earlier life of the manager. Only with the first
    /// configuration; a replica that is not listed has never run.
    pub past: Vec<Past>,
    /// Services that an operator has stopped, or that are not wanted by `up NAME…`. For a service
    /// that the supervisor already knows, what it knows itself counts.
    pub stopped: Vec<ServiceName>,
    /// Why and by whom everything is to end that this configuration finds: an earlier life of the manager was
    /// asked to see to that. Only with the first configuration; it is as if [`Event::Shutdown`] came with it, so
    /// nothing is started.
    pub down: Option<(Cause, Requester)>,
}

/// What an earlier life of the manager left behind of one replica.
#[derive(Debug, Clone)]
pub struct Past {
    /// The replica.
    pub replica: ReplicaId,
    /// What it was last doing.
    pub ended: PastEnd,
    /// How many failures in a row it had.
    pub row: u32,
    /// When it was to be started again, where it waited for that.
    pub until: Option<Tick>,
}

/// How an earlier life of the manager left one replica.
#[derive(Debug, Clone)]
pub enum PastEnd {
    /// It had an incarnation without a record. That run is over by now: it is to be recorded, and
    /// the policy decides what follows. `how` is what the guardian saw.
    Unrecorded {
        /// Which run.
        incarnation: Incarnation,
        /// The end, with cause `manager_died` or `guardian_died`.
        end: End,
        /// Which of the two deaths ended it.
        cause: Cause,
    },
    /// It has an incarnation that outlived the manager and goes on.
    Alive(Alive),
    /// It had ended and was not to be restarted.
    Resting(Rest),
    /// It was between two runs, or had never run.
    Between,
}

impl PastEnd {
    /// The run that is not over yet, or has no record.
    pub fn incarnation(&self) -> Option<Incarnation> {
        match self {
            Self::Unrecorded { incarnation, .. } => Some(*incarnation),
            Self::Alive(alive) => Some(alive.incarnation),
            Self::Resting(_) | Self::Between => None,
        }
    }
}

/// A run that outlived its manager.
#[derive(Debug, Clone, PartialEq)]
pub struct Alive {
    /// Which run.
    pub incarnation: Incarnation,
    /// When its program was seen to run.
    pub started: Tick,
    /// When it became ready; `None` where it is not.
    pub ready: Option<Tick>,
    /// Whether it can be spoken to any more; if not, it is ended and begun anew.
    pub in_step: bool,
    /// What it was started with, where that is not the present configuration.
    pub service: Option<Arc<Service>>,
    /// What the manager before had noted of it (`Supervisor::memo`), and whether all that followed from it
    /// had been done.
    pub memo: Option<(Box<str>, bool)>,
    /// Whether a file that it reads changed and it may not have heard of that.
    pub stale: bool,
}

/// Why a replica is down and stays down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    /// An operator stopped it, or nobody started it.
    Stopped,
    /// Its time has not come yet. Only of a service with a schedule, before its first run.
    Scheduled,
    /// Its last run ended and the policy does not ask for another.
    Finished,
    /// Its last run failed and the policy does not ask for another, or it was given up.
    Failed,
}

/// An end as the doing column saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// The kernel's word.
    pub how: How,
    /// Whether the kernel says memory ran out in its control group.
    pub oom: Oom,
    /// Whether its output broke the port's protocol before it ended.
    pub protocol_error: bool,
    /// Whether something it started may have outlived it, so that a sweep is needed.
    pub survivors: bool,
    /// Whether it had used all the processor time of `limits.cpu`, at whose hard end the kernel kills.
    pub cpu_spent: bool,
}

impl End {
    /// An end of which nothing is known but the kernel's word.
    pub fn plain(how: How) -> Self {
        Self { how, oom: Oom::No, protocol_error: false, survivors: false, cpu_spent: false }
    }
}

/// What the kernel killed in a run's control group because memory ran out, by its own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Oom {
    /// Nothing that is known of.
    #[default]
    No,
    /// Something that was not told before: the program itself, if `SIGKILL` ended it; otherwise what it
    /// had started.
    Now,
    /// What it had started, so long before its end.
    Before(Duration),
}

/// What an operator can want of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Run it.
    Start,
    /// End it and keep it down.
    Stop,
    /// End it, and before it all that depends on it, and keep all that down.
    StopWithDependents,
    /// End it and run it again.
    Restart,
    /// End and run again one replica after the other, each when the one before it is ready.
    Roll,
    /// Send it a signal.
    Signal(Signal),
}

/// What the supervisor wants done. Actions are carried out in order.
///
/// `Signal`, `Kill`, `SendQuit` and `CloseInput` are asked for only between [`Event::Spawned`] and
/// [`Event::Ended`] of their run, `CloseInput` only after [`Event::Started`], `SendQuit` only once it is ready.
#[derive(Debug, Clone)]
pub enum Action {
    /// Start a run: answered by `Spawned` and `Started`, by `Deferred`, or by `Ended` with
    /// [`How::NotStarted`].
    Spawn {
        /// The new run, or the one that was deferred.
        incarnation: Incarnation,
        /// Of which replica.
        replica: ReplicaId,
        /// With which configuration.
        service: Arc<Service>,
    },
    /// Send a signal to the program (and its process group, where `group`).
    Signal {
        /// Which run.
        incarnation: Incarnation,
        /// The signal.
        signal: Signal,
        /// Whether the whole process group gets it.
        group: bool,
    },
    /// Kill it: `SIGKILL` to the tree, the group or the process.
    Kill {
        /// Which run.
        incarnation: Incarnation,
        /// How far the kill reaches.
        scope: KillScope,
    },
    /// Send the port's quit message.
    SendQuit {
        /// Which run.
        incarnation: Incarnation,
    },
    /// Close the program's standard input.
    CloseInput {
        /// Which run.
        incarnation: Incarnation,
    },
    /// The run is over and judged: append its record, publish it, reap the process.
    Record {
        /// Which run.
        incarnation: Incarnation,
        /// Of which replica.
        replica: ReplicaId,
        /// The judgement.
        verdict: Box<Verdict>,
    },
    /// Kill what the run left behind and report [`Event::Swept`], within a bound. After
    /// [`SWEEP_PATIENCE`](crate::supervise) the supervisor goes on without the report.
    Sweep {
        /// Which run.
        incarnation: Incarnation,
        /// What a survivor is: anything it started, or members of its group. `Process` never asks
        /// for a sweep.
        scope: KillScope,
    },
    /// Ask a program whether it is ready or well, as its service says: answered by [`Event::Probed`]
    /// once the program has answered or the question's own time is over. A run has one question
    /// open at most; a newer one makes the older one worthless.
    Probe {
        /// Which run.
        incarnation: Incarnation,
        /// Which question of this run, counted from 1.
        number: u64,
        /// What it is for.
        purpose: Purpose,
        /// How the service is configured.
        service: Arc<Service>,
        /// How long the answer may take.
        timeout: Duration,
    },
    /// Look at the memory of all its processes: answered by [`Event::Measured`], if by anything.
    Measure {
        /// Which run.
        incarnation: Incarnation,
    },
    /// Send a program the signal at which it reads its files again, and tell of it. Asked for only while it
    /// is ready and nobody wants its end.
    Reread {
        /// Which run.
        incarnation: Incarnation,
        /// Of which replica.
        replica: ReplicaId,
        /// What it is told, and why.
        reread: Box<Reread>,
    },
    /// What [`View`](crate::supervise) shows of this replica has changed.
    Changed {
        /// The replica.
        replica: ReplicaId,
    },
    /// The replica is no longer part of the configuration and nothing of it runs.
    Forget {
        /// The replica.
        replica: ReplicaId,
    },
    /// One replica after the other was to make room for a new run; that of this replica did not become
    /// ready, so the others are left as they are.
    Halted {
        /// The replica.
        replica: ReplicaId,
        /// How many are left.
        left: u32,
    },
    /// The set of services stopped by an operator changed; it outlives the manager.
    Persist,
    /// Its time came while a run of it had not ended, and nothing new follows from that.
    Overlapped {
        /// The replica.
        replica: ReplicaId,
    },
    /// After a shutdown: nothing runs any more, except what could not be killed. Said once, last.
    Down,
}

/// A signal at which a program reads its files again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reread {
    /// The signal.
    pub signal: Signal,
    /// Whose reload found them changed.
    pub by: Requester,
    /// The files that changed; empty where that was seen in an earlier life of the manager.
    pub files: Vec<String>,
}

/// The supervisor's judgement on an end: all of the record that is decided and not measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The kernel's word.
    pub how: How,
    /// The reason.
    pub reason: Reason,
    /// The cause.
    pub cause: Cause,
    /// Who asked for the end.
    pub requested_by: Option<Requester>,
    /// What was done to stop it.
    pub stop: Option<StopPart>,
    /// What the reason rests on.
    pub evidence: Vec<String>,
    /// How far it is known.
    pub certainty: Certainty,
    /// What happens next.
    pub restart: RestartPart,
    /// When the program was seen to run, for the uptime.
    pub started_at: Option<Tick>,
}

/// The state of a replica, in the words of `ps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is to run and waits for resources, for its time or for something else to be over.
    Waiting,
    /// Its start has been ordered; its program does not run yet, or is not ready yet.
    Starting,
    /// Running.
    Running,
    /// Being stopped, or what it left behind is being swept.
    Stopping,
    /// Between a failure and the next start.
    Backoff,
    /// Down, because an operator wants it so.
    Stopped,
    /// Down, because its work is done.
    Finished,
    /// Down, because it failed and is not restarted.
    Failed,
    /// Killed, and still there; or to be ended, and not even made within the same time.
    Unkillable,
}

impl State {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 9] = [
        Self::Waiting,
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Backoff,
        Self::Stopped,
        Self::Finished,
        Self::Failed,
        Self::Unkillable,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Stopped => "stopped",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Unkillable => "unkillable",
        }
    }

    /// Whether nothing of it runs and nothing will happen by itself.
    pub fn is_resting(self) -> bool {
        matches!(self, Self::Stopped | Self::Finished | Self::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown is what is written.
    #[test]
    fn the_words_are_those_of_the_documents() {
        for health in [Health::Starting, Health::Healthy, Health::Unhealthy] {
            assert_eq!(serde_json::json!(health), health.as_str());
        }
        for state in State::ALL {
            assert_eq!(serde_json::json!(state), state.as_str());
        }
    }
}
