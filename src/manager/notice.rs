//! An event as clients see it: one shape for all, the exit record's, with more or fewer parts.
//!
//! `docs/event.json` has a committed sample of each kind, `docs/event.schema.json` the schema. The
//! dotted paths are OpenTelemetry's attributes where one exists.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::history::{Cursor, Gap, GapReason, Missing};
use super::hooks::HookEnd;
use super::published::{Kind, Published, SkipReason, What};
use crate::event::{Health, Purpose, State};
use crate::exit::{
    Decision, EventPart, ExecutablePart, ExitRecord, HostPart, How, ManagerPart, ProcessPart,
    Reason, RestartPart, Stage,
};
use crate::name::{Generation, Incarnation, Requester, ServiceName};
use crate::spec::HookEvent;
use crate::time::{Wall, format_size};

/// The version of the shape, in its `schema` field.
const SCHEMA: u32 = 1;

/// One event of the stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum StreamEvent {
    /// A run ended: `kind` is `exit`, and the rest is its record.
    Exit(Box<ExitEvent>),
    /// Anything else.
    Notice(Box<Notice>),
}

/// An exit record as an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExitEvent {
    /// Always `exit`.
    pub kind: ExitKind,
    /// Its place in the stream, for `since` and `Last-Event-ID`.
    pub id: String,
    /// The record, as it stands in the journal.
    #[serde(flatten)]
    pub record: ExitRecord,
}

/// The one kind that has a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExitKind {
    /// `exit`
    Exit,
}

/// An event that is no exit. Which parts are there depends on its kind; what does not apply is
/// absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Notice {
    /// What kind of event this is.
    pub kind: Kind,
    /// Its place in the stream, for `since` and `Last-Event-ID`.
    pub id: String,
    /// When it happened.
    pub ts: Wall,
    /// The version of the shape.
    pub schema: u32,
    /// `warn` when somebody should look, otherwise `info`.
    pub level: String,
    /// Its name in the form of OpenTelemetry.
    pub event: EventPart,
    /// The whole as one sentence.
    pub msg: String,
    /// The machine.
    pub host: HostPart,
    /// The manager.
    pub manager: ManagerPart,
    /// Which replica, and which run of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service: Option<AboutPart>,
    /// Which process.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub process: Option<ProcessPart>,
    /// `state`: the new one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<State>,
    /// `state`: the one before; absent for a replica that is new.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state_before: Option<State>,
    /// `state`: what it waits for, or for whose sake it is not started.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub because: Option<String>,
    /// `restart` and `give_up`: what was decided.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub restart: Option<RestartPart>,
    /// `crash_loop`: whether it is one, and how long the row of failures is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub crash_loop: Option<CrashLoopPart>,
    /// `skipped`: why a start by the schedule was left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub skipped: Option<SkipReason>,
    /// `health`: what is known of it now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub health: Option<HealthPart>,
    /// `probe_failed`: what was asked for, and what was wrong.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub probe: Option<ProbePart>,
    /// `unrecorded`: why it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Reason>,
    /// `cleaned`: what was left behind.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cleaned: Option<CleanedPart>,
    /// `oom`: what the kernel killed because memory ran out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub oom: Option<MemoryPart>,
    /// `message`: what was said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<MessagePart>,
    /// `protocol_error`: what is wrong with the port's output.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// `hook`: what was run, and how it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hook: Option<HookPart>,
    /// `reread`: what the program was told, and why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reread: Option<RereadPart>,
    /// `reload`, `reread` and `manager`: who asked for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub requested_by: Option<Requester>,
    /// `reload`: how many services the configuration has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub services: Option<usize>,
    /// `degraded`: what is not as it should be; empty when all is well again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub degraded: Option<Vec<String>>,
    /// `gap`: what can no longer be told, and why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gap: Option<Gap>,
}

/// `service.*` of an event; the run is absent where none is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AboutPart {
    /// The service.
    #[schemars(with = "String")]
    pub name: ServiceName,
    /// The replica, from 1.
    pub replica: u32,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(with = "Option<u64>")]
    pub incarnation: Option<Incarnation>,
}

/// `crash_loop.*`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CrashLoopPart {
    /// Whether the replica keeps failing; false once it does so no more.
    pub active: bool,
    /// Failures in a row.
    pub failures: u32,
}

/// `health.*`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HealthPart {
    /// What is known.
    pub state: Health,
    /// So many checks in a row have failed, as far as they count.
    pub failures: u32,
}

/// `probe.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProbePart {
    /// What the question was for: `ready` or `health`.
    pub purpose: Purpose,
    /// What was wrong with the answer.
    pub error: String,
}

/// `cleaned.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CleanedPart {
    /// The processes that were killed.
    pub killed: Vec<i32>,
    /// The processes that are still there.
    pub left: Vec<i32>,
    /// The processes that were left alone, as `stop_kill: process` wants it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub spared: Vec<i32>,
    /// Whether nothing can have escaped the search.
    pub exact: bool,
}

/// `oom.*`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryPart {
    /// How many processes that the program had started were killed.
    pub killed: u64,
    /// The limit, in bytes.
    pub limit_bytes: u64,
}

/// `hook.*`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HookPart {
    /// What it was run for.
    pub event: HookEvent,
    /// Its program, the first word of its command.
    pub program: String,
    /// `exited`, `signaled`, `dumped`, `not_started`, or `unseen` where the manager ended before it.
    pub how: String,
    /// The exit code, where it exited.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<i32>,
    /// The name of the signal that ended it, where one did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signal: Option<String>,
    /// The step of its start that failed, where one did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stage: Option<Stage>,
    /// The name of that step's error.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub errno: Option<String>,
    /// Whether it took longer than it may and was killed.
    pub timed_out: bool,
    /// How long it took, in seconds.
    pub took_s: f64,
    /// The last of what it said, at most 1 KiB.
    pub output: String,
    /// The processes that it left behind and that were killed.
    pub killed: Vec<i32>,
}

impl HookPart {
    fn of(end: &HookEnd) -> Self {
        let (stage, errno) = match end.how {
            How::NotStarted(stage, errno) => (Some(stage), Some(errno.to_string())),
            How::Exited(_) | How::Signaled(_) | How::Dumped(_) | How::Unseen => (None, None),
        };
        Self {
            event: end.event,
            program: end.program.clone(),
            how: end.how.word().to_owned(),
            code: end.how.code(),
            signal: end.how.signal().map(|signal| signal.to_string()),
            stage,
            errno,
            timed_out: end.timed_out,
            took_s: end.took.as_secs_f64(),
            output: end.output.clone(),
            killed: end.killed.clone(),
        }
    }
}

/// `reread.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RereadPart {
    /// The name of the signal that was sent.
    pub signal: String,
    /// The files that changed; empty where that was seen in an earlier life of the manager.
    pub files: Vec<String>,
}

/// `message.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MessagePart {
    /// What was said, where it is text of at most 4 KiB.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
    /// Its size in bytes.
    pub bytes: u64,
}

/// What is the same in all events of one manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Teller {
    /// The machine.
    pub host: HostPart,
    /// The manager's life.
    pub generation: Generation,
}

impl Notice {
    /// An event as clients see it; `None` for an exit, which is its record.
    pub fn of(event: &Published, id: Cursor, teller: &Teller) -> Option<Self> {
        if matches!(event.what, What::Exit { .. }) {
            return None;
        }
        let mut notice = Self::bare(event.what.kind(), event.what.name(), id, event.ts, teller);
        notice.msg = sentence(&event.what);
        notice.service = event.what.about().map(|(id, incarnation)| AboutPart {
            name: id.service,
            replica: id.replica,
            incarnation,
        });
        notice.fill(&event.what);
        Some(notice)
    }

    /// The event that says what can no longer be told.
    pub fn of_gap(gap: Gap, id: Cursor, ts: Wall, teller: &Teller) -> Self {
        let mut notice = Self::bare(Kind::Gap, "events.gap", id, ts, teller);
        "warn".clone_into(&mut notice.level);
        notice.msg = gap_sentence(&gap);
        notice.gap = Some(gap);
        notice
    }

    fn bare(kind: Kind, name: &str, id: Cursor, ts: Wall, teller: &Teller) -> Self {
        Self {
            kind,
            id: id.to_string(),
            ts,
            schema: SCHEMA,
            level: "info".to_owned(),
            event: EventPart { name: name.to_owned() },
            msg: String::new(),
            host: teller.host.clone(),
            manager: ManagerPart { generation: teller.generation },
            service: None,
            process: None,
            state: None,
            state_before: None,
            because: None,
            restart: None,
            crash_loop: None,
            skipped: None,
            health: None,
            probe: None,
            reason: None,
            cleaned: None,
            oom: None,
            message: None,
            error: None,
            hook: None,
            reread: None,
            requested_by: None,
            services: None,
            degraded: None,
            gap: None,
        }
    }

    /// Adds what belongs to its kind.
    fn fill(&mut self, what: &What) {
        let mut warns = false;
        let process = |pid: Option<i32>| {
            pid.map(|pid| ProcessPart { pid: Some(pid), ..ProcessPart::default() })
        };
        match what {
            What::Exit { .. } | What::ManagerStart | What::ManagerStop => {}
            What::Start { pid, executable, .. } => {
                let executable =
                    executable.as_ref().map(|path| ExecutablePart { path: path.to_string() });
                self.process =
                    Some(ProcessPart { pid: Some(*pid), executable, ..ProcessPart::default() });
            }
            What::Ready { pid, .. } => self.process = process(*pid),
            What::State { state, before, pid, because, .. } => {
                self.because = because.as_ref().map(ToString::to_string);
                (self.state, self.state_before) = (Some(*state), *before);
                self.process = process(*pid);
                warns = matches!(state, State::Failed | State::Unkillable);
            }
            What::Restart { delay_s, attempt, .. } => {
                let (attempt, delay_s) = (*attempt, Some(*delay_s));
                self.restart = Some(RestartPart { decision: Decision::Restart, attempt, delay_s });
            }
            What::GiveUp { .. } => {
                let decision = Decision::GaveUp;
                self.restart = Some(RestartPart { decision, attempt: None, delay_s: None });
                warns = true;
            }
            What::CrashLoop { active, failures, .. } => {
                self.crash_loop = Some(CrashLoopPart { active: *active, failures: *failures });
                warns = *active;
            }
            What::Skipped { why, .. } => {
                self.skipped = Some(*why);
                warns = true;
            }
            What::Health { health, failures, .. } => {
                self.health = Some(HealthPart { state: *health, failures: *failures });
                warns = *health == Health::Unhealthy;
            }
            What::ProbeFailed { purpose, error, .. } => {
                self.probe = Some(ProbePart { purpose: *purpose, error: error.to_string() });
                // Before it is ready an answer is not to be expected.
                warns = *purpose == Purpose::Health;
            }
            What::Unrecorded { reason, .. } => {
                self.reason = Some(*reason);
                warns = true;
            }
            What::Cleaned { killed, left, spared, exact, .. } => {
                warns = !left.is_empty();
                let (killed, left, spared) = (killed.to_vec(), left.to_vec(), spared.to_vec());
                self.cleaned = Some(CleanedPart { killed, left, spared, exact: *exact });
            }
            What::Oom { killed, limit, .. } => {
                self.oom = Some(MemoryPart { killed: *killed, limit_bytes: *limit });
                warns = true;
            }
            What::Message { text, bytes, .. } => {
                let text = text.as_ref().map(ToString::to_string);
                self.message = Some(MessagePart { text, bytes: *bytes });
            }
            What::ProtocolError { error, .. } => {
                self.error = Some(error.to_string());
                warns = true;
            }
            What::Hook { end, .. } => {
                self.hook = Some(HookPart::of(end));
                warns = end.is_bad();
            }
            What::Reread { signal, by, files, .. } => {
                self.requested_by = Some(Requester::clone(by));
                let files = files.iter().map(ToString::to_string).collect();
                self.reread = Some(RereadPart { signal: signal.to_string(), files });
            }
            What::Reload { by, services } => {
                self.requested_by = Some(by.clone());
                self.services = Some(*services);
            }
            What::ManagerStopping { by } => self.requested_by = Some(by.clone()),
            What::Degraded { what } => {
                self.degraded = Some(what.clone());
                warns = !what.is_empty();
            }
        }
        if warns {
            "warn".clone_into(&mut self.level);
        }
    }
}

/// What happened, as one sentence.
fn sentence(what: &What) -> String {
    match what {
        What::Exit { record, .. } => record.msg.clone(),
        What::Start { replica, pid, .. } => format!("{replica} was started (pid {pid})"),
        What::Ready { replica, .. } => format!("{replica} is ready"),
        What::State { replica, state, pid: Some(pid), .. } => {
            format!("{replica} is {} (pid {pid})", state.as_str())
        }
        What::State { replica, state, pid: None, because, .. } => {
            let because = because.as_ref().map(|words| format!(": {words}")).unwrap_or_default();
            format!("{replica} is {}{because}", state.as_str())
        }
        What::Restart { replica, delay_s, attempt, .. } => {
            let when = if *delay_s > 0.0 { format!("in {delay_s:.1}s") } else { "at once".into() };
            let row = match attempt {
                None | Some(1) => String::new(),
                Some(row) => format!(", after {row} failures in a row"),
            };
            format!("{replica} is started again {when}{row}")
        }
        What::GiveUp { replica, .. } => {
            format!("{replica} failed too often and is not started again")
        }
        What::CrashLoop { replica, active: true, failures } => {
            format!("{replica} is crash-looping: {failures} failures in a row")
        }
        What::CrashLoop { replica, active: false, .. } => {
            format!("{replica} is not crash-looping any more")
        }
        What::Skipped { replica, why: SkipReason::Overlap } => {
            format!("{replica} is not started by its schedule: its last run has not ended")
        }
        What::Skipped { replica, why: SkipReason::Missed } => {
            format!("{replica} is not started by its schedule: its time has gone by")
        }
        What::ProbeFailed { replica, purpose: Purpose::Ready, error, .. } => {
            format!("{replica} is not ready yet: {error}")
        }
        What::ProbeFailed { replica, purpose: Purpose::Health, error, .. } => {
            format!("the health check of {replica} failed: {error}")
        }
        What::Health { replica, health: Health::Unhealthy, failures, .. } => {
            format!("{replica} is unhealthy: {failures} checks in a row have failed")
        }
        What::Health { replica, health, .. } => format!("{replica} is {}", health.as_str()),
        What::Unrecorded { msg, .. } => {
            format!("{msg}; its record cannot be written yet and follows when it is")
        }
        What::Cleaned { replica, killed, left, spared, .. } => {
            cleaned(&replica.to_string(), killed, left, spared)
        }
        What::Oom { replica, killed, limit, .. } => {
            let what = match killed {
                1 => "a process".to_owned(),
                many => format!("{many} processes"),
            };
            let limit = format_size(*limit);
            format!(
                "the kernel killed {what} of {replica} because memory ran out (limit {limit}); the program itself runs on"
            )
        }
        What::Message { replica, text: Some(text), .. } => format!("{replica} says: {text}"),
        What::Message { replica, text: None, bytes, .. } => {
            format!("{replica} says {bytes} bytes that are long or no text")
        }
        What::ProtocolError { replica, error, .. } => {
            format!("what {replica} wrote is not its port's protocol: {error}")
        }
        What::Hook { replica, end, .. } => {
            let (program, event) = (&end.program, end.event.as_str());
            let how = match end.how {
                _ if end.timed_out => "took too long and was killed".to_owned(),
                How::Unseen => "ended with the manager".to_owned(),
                how => how.to_string(),
            };
            format!("{program}, run for {event} of {replica}: {how}")
        }
        What::Reread { replica, signal, files, .. } => {
            let what = match &**files {
                [] => "a file that it reads changed while no manager ran".to_owned(),
                [one] => format!("{one} changed"),
                [first, others @ ..] => format!("{first} and {} more changed", others.len()),
            };
            format!("{signal} was sent to {replica}, to have it read its files again: {what}")
        }
        What::Reload { by, services } => {
            format!("a configuration with {services} services took effect, by {}", by.who)
        }
        What::Degraded { what } if what.is_empty() => "all is well again".to_owned(),
        What::Degraded { what } => what.join("; "),
        What::ManagerStart => "the manager started".to_owned(),
        What::ManagerStopping { by } => format!("everything is being stopped, by {}", by.who),
        What::ManagerStop => "everything is down, the manager ends".to_owned(),
    }
}

fn cleaned(replica: &str, killed: &[i32], left: &[i32], spared: &[i32]) -> String {
    let pids = |all: &[i32]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut parts = Vec::new();
    if !killed.is_empty() {
        parts.push(format!("what {replica} left behind was killed: pid {}", pids(killed)));
    }
    if !left.is_empty() {
        parts.push(format!("what {replica} left behind cannot be killed: pid {}", pids(left)));
    }
    if !spared.is_empty() {
        let pids = pids(spared);
        parts.push(format!("what {replica} left behind lives on (stop_kill: process): pid {pids}"));
    }
    parts.join("; ")
}

fn gap_sentence(gap: &Gap) -> String {
    let what = match gap.what {
        Missing::Exits => "exits",
        Missing::Events => "events other than exits",
        Missing::Messages => "messages of ports",
    };
    let which = match (gap.after, gap.before) {
        (Some(after), Some(before)) => format!(" {} to {}", after + 1, before.saturating_sub(1)),
        (Some(after), None) => format!(" after {after}"),
        (None, Some(before)) => format!(" before {before}"),
        (None, None) => String::new(),
    };
    let life = gap.generation.map(|life| format!(" of the manager's life {}", life.0));
    let life = life.unwrap_or_default();
    let why = match gap.reason {
        GapReason::ManagerEnded => "that manager has ended",
        GapReason::Overrun => "more has happened since than is kept",
        GapReason::NotInJournal => "the journal does not have them any more",
        GapReason::ElsewhereOrWiped => {
            "that place is not in this journal; everything that is kept is told"
        }
    };
    format!("{what}{which}{life} cannot be told: {why}")
}

/// The JSON Schema of an event, as in `docs/event.schema.json`.
pub fn event_schema() -> serde_json::Value {
    schemars::schema_for!(StreamEvent).to_value()
}
