//! From a run and the supervisor's verdict on it to an exit record.

use crate::event::Verdict;
use crate::exit::{
    Cause, CreationPart, Decision, EventPart, ExecutablePart, ExitCodePart, ExitPart, ExitRecord,
    HostPart, How, ManagerPart, OomPart, PortPart, ProcessPart, Reason, SCHEMA, ServicePart, Tail,
    Usage, sentence,
};
use crate::name::{Generation, Incarnation, ReplicaId};
use crate::time::Wall;

/// What is the same in all records of one manager.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) host: HostPart,
    pub(super) generation: Generation,
}

/// What was measured of one run.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) pid: Option<i32>,
    pub(super) created: Option<Wall>,
    pub(super) executable: Option<String>,
    pub(super) usage: Option<Usage>,
    pub(super) uptime_s: Option<f64>,
    pub(super) port: Option<PortPart>,
    pub(super) stderr_tail: Vec<u8>,
    pub(super) evidence: Vec<String>,
    pub(super) oom: Option<OomPart>,
    pub(super) survivors: Vec<i32>,
}

/// Makes the record. Its `seq` is the journal's to give.
pub(super) fn record(
    origin: &Origin,
    ts: Wall,
    replica: &ReplicaId,
    incarnation: Incarnation,
    verdict: Verdict,
    facts: Facts,
) -> ExitRecord {
    let (stage, errno) = match verdict.how {
        How::NotStarted(stage, errno) => (Some(stage), Some(errno)),
        How::Exited(_) | How::Signaled(_) | How::Dumped(_) | How::Unseen => (None, None),
    };
    let signal = verdict.how.signal();
    let level = level(&verdict, &facts.survivors).to_owned();
    let mut evidence = verdict.evidence;
    evidence.extend(facts.evidence);
    let mut record = ExitRecord {
        ts,
        seq: 0,
        schema: SCHEMA,
        level,
        event: EventPart { name: "process.exit".to_owned() },
        msg: String::new(),
        host: origin.host.clone(),
        manager: ManagerPart { generation: origin.generation },
        service: ServicePart {
            name: replica.service.clone(),
            replica: replica.replica,
            incarnation,
        },
        process: ProcessPart {
            pid: facts.pid,
            creation: facts.created.map(|time| CreationPart { time }),
            executable: facts.executable.map(|path| ExecutablePart { path }),
            exit: verdict.how.code().map(|code| ExitCodePart { code }),
        },
        exit: ExitPart {
            how: verdict.how.word().to_owned(),
            reason: verdict.reason,
            cause: verdict.cause,
            signal,
            core_dumped: signal.map(|_| matches!(verdict.how, How::Dumped(_))),
            requested_by: verdict.requested_by,
            stage,
            errno,
            stop: verdict.stop,
            oom: facts.oom,
            survivors: facts.survivors,
            evidence,
            certainty: verdict.certainty,
        },
        uptime_s: facts.uptime_s,
        usage: facts.usage,
        port: facts.port,
        stderr_tail: Tail(facts.stderr_tail),
        restart: verdict.restart,
    };
    record.msg = sentence(&record);
    record
}

/// `warn` where somebody should look.
fn level(verdict: &Verdict, survivors: &[i32]) -> &'static str {
    let cause = verdict.cause;
    let asked_for = !matches!(
        cause,
        Cause::Spontaneous
            | Cause::StartTimeout
            | Cause::ReadyTimeout
            | Cause::HealthFailed
            | Cause::Watchdog
            | Cause::MaxMemory
            | Cause::StopTimeout
    );
    // A program that puts itself into the background seems to have done its work, and has not.
    let completed = verdict.reason == Reason::Completed && cause == Cause::Spontaneous;
    let done = completed && survivors.is_empty();
    if verdict.restart.decision != Decision::GaveUp && (done || asked_for) {
        "info"
    } else {
        "warn"
    }
}
