//! What the loop tells: one value for each thing that happened, small enough to be kept.
//!
//! How an event looks to a client is said in [`notice`](super::notice), how long it can be asked for
//! in [`history`](super::history). Nothing here knows of JSON or of who listens.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::event::{Health, Purpose, State};
use crate::exit::{ExitRecord, Reason, Signal};
use crate::name::{Incarnation, ReplicaId, Requester, Target};
use crate::time::Wall;

use super::hooks::HookEnd;

/// One event with its place among all events of this manager.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// Counts the events that are no exits, from 1 in each of the manager's lives. An exit has the
    /// number of the last one before it: what counts it is its `seq`.
    pub number: u64,
    /// The `seq` of the last exit that was told before; of an exit its own.
    pub seq: u64,
    /// When it happened.
    pub ts: Wall,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A run ended; its record is in the journal.
    Exit {
        /// The record.
        record: Arc<ExitRecord>,
        /// The same as it stands in the journal, one line of JSON without its LF.
        line: Bytes,
    },
    /// A program began to run.
    Start {
        /// Of which replica.
        replica: ReplicaId,
        /// Its run.
        incarnation: Incarnation,
        /// Its process.
        pid: i32,
        /// The program, as far as it can be seen.
        executable: Option<Box<str>>,
    },
    /// A run became ready; without a declared readiness, it runs.
    Ready {
        /// Of which replica.
        replica: ReplicaId,
        /// Its run.
        incarnation: Incarnation,
        /// Its process.
        pid: Option<i32>,
    },
    /// A replica changed its state.
    State {
        /// Which replica.
        replica: ReplicaId,
        /// The new state.
        state: State,
        /// The state before; `None` for a replica that is new.
        before: Option<State>,
        /// Its run.
        incarnation: Option<Incarnation>,
        /// Its process.
        pid: Option<i32>,
        /// What it waits for, or for whose sake it is skipped.
        because: Option<Box<str>>,
    },
    /// A replica that ended is started again.
    Restart {
        /// Which replica.
        replica: ReplicaId,
        /// The run that ended.
        incarnation: Incarnation,
        /// In so many seconds.
        delay_s: f64,
        /// As so manieth start in the present row of failures; `None` where it did not fail.
        attempt: Option<u32>,
    },
    /// A replica failed too often and is not started again.
    GiveUp {
        /// Which replica.
        replica: ReplicaId,
        /// The run that ended.
        incarnation: Incarnation,
    },
    /// A replica keeps failing, or does so no more.
    CrashLoop {
        /// Which replica.
        replica: ReplicaId,
        /// Whether it keeps failing.
        active: bool,
        /// So many failures in a row.
        failures: u32,
    },
    /// A start by the schedule is left out.
    Skipped {
        /// Of which replica.
        replica: ReplicaId,
        /// Why.
        why: SkipReason,
    },
    /// A question whether a run is ready, or well, had no good answer. The same failure again and again
    /// is told `retries` times, or once before it is ready.
    ProbeFailed {
        /// Of which replica.
        replica: ReplicaId,
        /// Its run.
        incarnation: Incarnation,
        /// What the question was for.
        purpose: Purpose,
        /// What was wrong.
        error: Box<str>,
    },
    /// What is known of a run's health changed.
    Health {
        /// Of which replica.
        replica: ReplicaId,
        /// Its run.
        incarnation: Incarnation,
        /// What is known now.
        health: Health,
        /// So many checks in a row have failed.
        failures: u32,
    },
    /// A run ended and the disk does not take its record: the exit is told once it does.
    Unrecorded {
        /// Of which replica.
        replica: ReplicaId,
        /// The run.
        incarnation: Incarnation,
        /// Why it ended.
        reason: Reason,
        /// The end as a sentence.
        msg: Box<str>,
    },
    /// What a run left behind was killed, or could not be.
    Cleaned {
        /// Of which replica.
        replica: ReplicaId,
        /// The run that left them behind.
        incarnation: Incarnation,
        /// The processes that were killed.
        killed: Box<[i32]>,
        /// The processes that are still there.
        left: Box<[i32]>,
        /// The processes that were left alone, as `stop_kill: process` wants it.
        spared: Box<[i32]>,
        /// Whether nothing can have escaped the search.
        exact: bool,
    },
    /// The kernel killed something that a program had started, because memory ran out; the program
    /// itself runs on.
    Oom {
        /// Which replica.
        replica: ReplicaId,
        /// Its run.
        incarnation: Incarnation,
        /// How many processes were killed.
        killed: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A port said something that is no reply.
    Message {
        /// Which replica.
        replica: ReplicaId,
        /// Its run.
        incarnation: Incarnation,
        /// What it said, where it is text and not long.
        text: Option<Box<str>>,
        /// Its size in bytes.
        bytes: u64,
    },
    /// What a port wrote is not its protocol.
    ProtocolError {
        /// Which replica.
        replica: ReplicaId,
        /// Its run.
        incarnation: Incarnation,
        /// What is wrong with it.
        error: Box<str>,
    },
    /// A hook ended.
    Hook {
        /// The replica to which something had happened.
        replica: ReplicaId,
        /// The run that it was about.
        incarnation: Incarnation,
        /// How it ended.
        end: Box<HookEnd>,
    },
    /// A program was told by a signal to read its files again.
    Reread {
        /// Of which replica.
        replica: ReplicaId,
        /// Its run.
        incarnation: Incarnation,
        /// The signal.
        signal: Signal,
        /// Whose reload found them changed.
        by: Box<Requester>,
        /// The files that changed; empty where that was seen in an earlier life of the manager.
        files: Box<[Box<str>]>,
    },
    /// A configuration took effect.
    Reload {
        /// By whom.
        by: Requester,
        /// With so many services.
        services: usize,
    },
    /// Something is not as it should be, or is so again.
    Degraded {
        /// What, in words; empty when all is well again.
        what: Vec<String>,
    },
    /// The manager began a life.
    ManagerStart,
    /// Everything is to end.
    ManagerStopping {
        /// By whom.
        by: Requester,
    },
    /// Everything is down; nothing follows.
    ManagerStop,
}

impl What {
    /// The word that says what kind of event this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Exit { .. } => Kind::Exit,
            Self::Start { .. } => Kind::Start,
            Self::Ready { .. } => Kind::Ready,
            Self::State { .. } => Kind::State,
            Self::Restart { .. } => Kind::Restart,
            Self::GiveUp { .. } => Kind::GiveUp,
            Self::CrashLoop { .. } => Kind::CrashLoop,
            Self::Skipped { .. } => Kind::Skipped,
            Self::ProbeFailed { .. } => Kind::ProbeFailed,
            Self::Health { .. } => Kind::Health,
            Self::Unrecorded { .. } => Kind::Unrecorded,
            Self::Cleaned { .. } => Kind::Cleaned,
            Self::Oom { .. } => Kind::Oom,
            Self::Message { .. } => Kind::Message,
            Self::ProtocolError { .. } => Kind::ProtocolError,
            Self::Hook { .. } => Kind::Hook,
            Self::Reread { .. } => Kind::Reread,
            Self::Reload { .. } => Kind::Reload,
            Self::Degraded { .. } => Kind::Degraded,
            Self::ManagerStart | Self::ManagerStopping { .. } | Self::ManagerStop => Kind::Manager,
        }
    }

    /// The event's name in the form of OpenTelemetry, `event.name`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Exit { .. } => "process.exit",
            Self::Start { .. } => "process.start",
            Self::Ready { .. } => "process.ready",
            Self::State { .. } => "service.state",
            Self::Restart { .. } => "restart.scheduled",
            Self::GiveUp { .. } => "restart.giveup",
            Self::CrashLoop { .. } => "service.crash_loop",
            Self::Skipped { .. } => "schedule.skipped",
            Self::ProbeFailed { .. } => "probe.failed",
            Self::Health { .. } => "service.health",
            Self::Unrecorded { .. } => "process.exit_unrecorded",
            Self::Cleaned { .. } => "process.cleaned",
            Self::Oom { .. } => "process.oom",
            Self::Message { .. } => "port.message",
            Self::ProtocolError { .. } => "port.protocol_error",
            Self::Hook { .. } => "hook.ended",
            Self::Reread { .. } => "config.reread",
            Self::Reload { .. } => "config.reload",
            Self::Degraded { .. } => "manager.degraded",
            Self::ManagerStart => "manager.start",
            Self::ManagerStopping { .. } => "manager.stopping",
            Self::ManagerStop => "manager.stop",
        }
    }

    /// The replica it is about, and its run.
    pub fn about(&self) -> Option<(ReplicaId, Option<Incarnation>)> {
        match self {
            Self::Exit { record, .. } => {
                let part = &record.service;
                let id = ReplicaId { service: part.name.clone(), replica: part.replica };
                Some((id, Some(part.incarnation)))
            }
            Self::State { replica, incarnation, .. } => Some((replica.clone(), *incarnation)),
            Self::CrashLoop { replica, .. } | Self::Skipped { replica, .. } => {
                Some((replica.clone(), None))
            }
            Self::Start { replica, incarnation, .. }
            | Self::Ready { replica, incarnation, .. }
            | Self::Restart { replica, incarnation, .. }
            | Self::GiveUp { replica, incarnation }
            | Self::ProbeFailed { replica, incarnation, .. }
            | Self::Health { replica, incarnation, .. }
            | Self::Unrecorded { replica, incarnation, .. }
            | Self::Cleaned { replica, incarnation, .. }
            | Self::Oom { replica, incarnation, .. }
            | Self::Message { replica, incarnation, .. }
            | Self::Hook { replica, incarnation, .. }
            | Self::Reread { replica, incarnation, .. }
            | Self::ProtocolError { replica, incarnation, .. } => {
                Some((replica.clone(), Some(*incarnation)))
            }
            Self::Reload { .. }
            | Self::Degraded { .. }
            | Self::ManagerStart
            | Self::ManagerStopping { .. }
            | Self::ManagerStop => None,
        }
    }

    /// Whether it is about one of `targets`; all events are where there is none.
    pub fn is_about(&self, targets: &[Target]) -> bool {
        let about = |(id, _): (ReplicaId, _)| {
            targets.iter().any(|target| {
                target.service == id.service
                    && target.replica.is_none_or(|replica| replica == id.replica)
            })
        };
        targets.is_empty() || self.about().is_some_and(about)
    }

    /// The bytes it holds beside its own size, about.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Message { text, .. } => text.as_ref().map_or(0, |text| text.len()),
            Self::ProtocolError { error, .. } | Self::ProbeFailed { error, .. } => error.len(),
            Self::Unrecorded { msg, .. } => msg.len(),
            Self::Hook { end, .. } => end.output.len() + end.program.len() + size_of::<HookEnd>(),
            Self::Cleaned { killed, left, spared, .. } => {
                4 * (killed.len() + left.len() + spared.len())
            }
            Self::Reread { by, files, .. } => {
                size_of::<Requester>()
                    + by.who.len()
                    + files.iter().map(|path| path.len()).sum::<usize>()
            }
            Self::Degraded { what } => what.iter().map(String::len).sum(),
            _ => 0,
        }
    }
}

/// Why a start by the schedule is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// The last run has not ended.
    Overlap,
    /// Its time went by while nobody could start it.
    Missed,
}

impl SkipReason {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Missed => "missed",
        }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)*) => {
        /// What kinds of events there are: the `event:` of the stream, `kind` in JSON, and the word
        /// for the filter `kind=`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Kind { $($(#[$doc])* $variant,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

kinds! {
    /// A run ended: its record. Never missed and never doubled.
    Exit = "exit",
    /// A program began to run.
    Start = "start",
    /// A run became ready.
    Ready = "ready",
    /// A replica changed its state.
    State = "state",
    /// A replica is started again, at once or after a delay.
    Restart = "restart",
    /// A replica failed too often and stays down.
    GiveUp = "give_up",
    /// A replica keeps failing, or does so no more.
    CrashLoop = "crash_loop",
    /// A start by the schedule is left out.
    Skipped = "skipped",
    /// A question whether a replica is ready or well had no good answer.
    ProbeFailed = "probe_failed",
    /// What is known of a replica's health changed.
    Health = "health",
    /// A run ended and its record cannot be written yet; the exit follows when it is.
    Unrecorded = "unrecorded",
    /// What a run left behind was killed.
    Cleaned = "cleaned",
    /// The kernel killed something that a program had started, because memory ran out.
    Oom = "oom",
    /// A port said something that is no reply.
    Message = "message",
    /// What a port wrote is not its protocol.
    ProtocolError = "protocol_error",
    /// A command that was run for something that happened has ended.
    Hook = "hook",
    /// A program was told by a signal to read its files again, since one of them changed.
    Reread = "reread",
    /// A configuration took effect.
    Reload = "reload",
    /// Something is not as it should be, or is so again.
    Degraded = "degraded",
    /// The manager started, is stopping, or has stopped.
    Manager = "manager",
    /// Something can no longer be told: which events, and why. Not to be filtered away.
    Gap = "gap",
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|kind| kind.as_str()).collect();
            format!("{text:?} is no kind of event; there are {}", all.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_json_agree() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(kind.as_str().parse(), Ok(*kind));
        }
        assert!("explosion".parse::<Kind>().unwrap_err().contains("exit, start"));
    }

    /// A thousand and more of them are kept.
    #[test]
    fn an_event_is_small() {
        let size = size_of::<Published>();
        assert!(size <= 112, "{size} bytes");
    }
}
