//! Exit records for people: one as a line, or one as a little story.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use super::text::{Show, moment, rounded_size, since, span};
use crate::exit::{Certainty, Decision, ExitRecord, RestartPart, StopPart};
use crate::time::Wall;

/// How many lines of standard error a story holds at most.
const STDERR_LINES: usize = 10;

/// When, and the sentence.
pub(super) fn line(record: &ExitRecord, zone: &TimeZone, show: Show) -> String {
    format!("{}  {}", moment(record.ts, zone), show.foreign(&record.msg))
}

/// What happened, what it rests on, what was said last, what happens next.
pub(super) fn story(record: &ExitRecord, now: Wall, zone: &TimeZone, show: Show) -> String {
    let exit = &record.exit;
    let mut text = format!("{}\n", show.bold(&show.foreign(&record.msg)));
    let mut field = |name: &str, value: &str| {
        let colon = if name.is_empty() { ' ' } else { ':' };
        let _ = writeln!(text, "{name:>12}{colon} {value}");
    };
    let run = match record.process.pid {
        Some(pid) => format!("run {}, pid {pid}", record.service.incarnation),
        None => format!("run {}", record.service.incarnation),
    };
    let (at, age) = (moment(record.ts, zone), since(record.ts, now));
    field("when", &format!("{at} ({age} ago), {run}"));
    let certainty = match exit.certainty {
        Certainty::Certain => "",
        Certainty::Inferred => " (inferred: nobody saw it)",
        Certainty::Unknown => " (not known for sure)",
    };
    field("reason", &format!("{}{certainty}", exit.reason));
    let by = exit.requested_by.as_ref().map(|by| {
        let uid = by.uid.map(|uid| format!(", uid {uid}")).unwrap_or_default();
        let pid = by.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
        format!(", by {}{uid}{pid}", by.who)
    });
    field("cause", &show.foreign(&format!("{}{}", exit.cause, by.unwrap_or_default())));
    for evidence in &exit.evidence {
        field("evidence", &show.foreign(evidence));
    }
    if let Some(executable) = record.process.executable.as_ref().filter(|_| exit.stage.is_some()) {
        field("program", &show.foreign(&executable.path));
    }
    if let Some(stop) = &exit.stop {
        field("stopped by", &steps(stop));
    }
    if let Some(port) = &record.port {
        let partial = if port.partial_frame { ", one unfinished" } else { "" };
        let unread = match port.unread_stdin_bytes {
            Some(0) => String::new(),
            Some(bytes) => format!(", {bytes} bytes of input unread"),
            None => ", some input unread".to_owned(),
        };
        let (sent, got) = (port.frames_in, port.frames_out);
        let spoken = format!("{}: {sent} sent, {got} received{partial}{unread}", port.framing);
        field("messages", &spoken);
    }
    if let Some(usage) = &record.usage {
        let (user, system) = (span(usage.cpu_user_s), span(usage.cpu_system_s));
        let memory = rounded_size(usage.max_rss_bytes);
        // The kernel counts what the manager had until the program was executed.
        field("used", &format!("{user} user, {system} system, at most {memory} of memory"));
    }
    for (at, line) in last_words(&record.stderr_tail.0, show).iter().enumerate() {
        field(if at == 0 { "last words" } else { "" }, line);
    }
    field("next", &next(&record.restart));
    text
}

fn steps(stop: &StopPart) -> String {
    let told = |step: &crate::exit::StopStep| format!("{} at {}", step.step, span(step.at_s));
    let steps: Vec<String> = stop.steps.iter().map(told).collect();
    let killed = if stop.escalated { ", killed" } else { "" };
    format!("{}; took {}{killed}", steps.join(", "), span(stop.took_s))
}

fn next(restart: &RestartPart) -> String {
    match (restart.decision, restart.delay_s) {
        (Decision::Restart, Some(delay)) if delay > 0.0 => {
            let attempt = restart.attempt.map(|attempt| format!(", attempt {attempt}"));
            format!("restart in {}{}", span(delay), attempt.unwrap_or_default())
        }
        (Decision::Restart, _) => "restart at once".to_owned(),
        (Decision::No, _) => "not restarted: the policy says so".to_owned(),
        (Decision::GaveUp, _) => "given up: it failed too often; `start` tries again".to_owned(),
        (Decision::Stopped, _) => "stays stopped until somebody starts it".to_owned(),
    }
}

/// The last whole lines on standard error.
fn last_words(tail: &[u8], show: Show) -> Vec<String> {
    let text = String::from_utf8_lossy(tail);
    let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
    let skipped = lines.len().saturating_sub(STDERR_LINES);
    lines[skipped..].iter().map(|line| show.foreign(line)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::exit::{
        Cause, Errno, EventPart, ExecutablePart, ExitCodePart, ExitPart, HostPart, ManagerPart,
        PortPart, ProcessPart, Reason, SCHEMA, ServicePart, Signal, Stage, StopStep, Tail, Usage,
        sentence,
    };
    use crate::name::{Generation, Incarnation, Requester};

    pub(in crate::cli) const NOW: Wall = Wall(1_795_332_688_576_123_456);

    pub(in crate::cli) fn record(seq: u64, change: impl FnOnce(&mut ExitRecord)) -> ExitRecord {
        let mut record = ExitRecord {
            ts: Wall(NOW.0 - 200_000_000_000 + seq),
            seq,
            schema: SCHEMA,
            level: "warn".into(),
            event: EventPart { name: "process.exit".into() },
            msg: String::new(),
            host: HostPart { name: "host".into(), boot_id: "b".into() },
            manager: ManagerPart { generation: Generation(1) },
            service: ServicePart {
                name: "web".parse().unwrap(),
                replica: 1,
                incarnation: Incarnation(16 + seq),
            },
            process: ProcessPart {
                pid: Some(4242),
                exit: Some(ExitCodePart { code: 3 }),
                ..ProcessPart::default()
            },
            exit: ExitPart {
                how: "exited".into(),
                reason: Reason::Failed,
                cause: Cause::Spontaneous,
                signal: None,
                core_dumped: None,
                requested_by: None,
                stage: None,
                errno: None,
                stop: None,
                oom: None,
                survivors: vec![],
                evidence: vec!["exit code 3 is not in success_exit_codes".into()],
                certainty: Certainty::Certain,
            },
            uptime_s: Some(1.234),
            usage: Some(Usage { max_rss_bytes: 12 << 20, cpu_user_s: 0.5, ..Usage::default() }),
            port: None,
            stderr_tail: Tail(b"cannot open \x1b[31mapp.db\x1b[0m\n\nbye\n".to_vec()),
            restart: RestartPart {
                decision: Decision::Restart,
                attempt: Some(2),
                delay_s: Some(0.2),
            },
        };
        change(&mut record);
        record.msg = sentence(&record);
        record
    }

    pub(in crate::cli) fn some() -> Vec<ExitRecord> {
        let failed = record(1, |_| {});
        let killed = record(2, |record| {
            record.process.exit = None;
            record.exit.how = "signaled".into();
            record.exit.reason = Reason::Signaled;
            record.exit.signal = Some(Signal::KILL);
            record.exit.core_dumped = Some(false);
            record.exit.cause = Cause::StopRequested;
            record.exit.requested_by =
                Some(Requester { uid: Some(0), pid: Some(99), who: "wharf stop".into() });
            record.exit.evidence.clear();
            let step = |step: &str, at_s| StopStep { step: step.into(), at_s };
            let steps = vec![step("SIGTERM", 0.0), step("SIGKILL", 10.0)];
            record.exit.stop = Some(StopPart { steps, escalated: true, took_s: 10.01 });
            record.port = Some(PortPart {
                framing: "lines".into(),
                frames_in: 3,
                frames_out: 2,
                partial_frame: true,
                unread_stdin_bytes: Some(17),
                error: None,
            });
            record.stderr_tail =
                Tail((0..30).flat_map(|n| format!("line {n}\n").into_bytes()).collect());
            record.restart.decision = Decision::Stopped;
        });
        let missing = record(3, |record| {
            record.process.pid = None;
            record.process.exit = None;
            record.process.executable = Some(ExecutablePart { path: "./srever".into() });
            record.exit.how = "not_started".into();
            record.exit.reason = Reason::ExecFailed;
            record.exit.stage = Some(Stage::Exec);
            record.exit.errno = Some(Errno(2));
            record.exit.evidence.clear();
            record.uptime_s = None;
            record.usage = None;
            record.stderr_tail = Tail::default();
            record.restart = RestartPart { decision: Decision::No, attempt: None, delay_s: None };
        });
        let lost = record(4, |record| {
            record.process.exit = None;
            record.exit.how = "unseen".into();
            record.exit.reason = Reason::Lost;
            record.exit.cause = Cause::GuardianDied;
            record.exit.certainty = Certainty::Unknown;
            record.exit.evidence = vec!["neither guardian nor manager lived".into()];
            record.restart.delay_s = Some(0.0);
        });
        vec![failed, killed, missing, lost]
    }

    #[test]
    fn ends_as_stories_and_as_lines() {
        let zone = TimeZone::UTC;
        let show = Show { terminal: true, color: false };
        let stories: Vec<_> = some().iter().map(|end| story(end, NOW, &zone, show)).collect();
        insta::assert_snapshot!("stories", stories.join("\n"));
        let lines: Vec<_> = some().iter().map(|end| line(end, &zone, show)).collect();
        insta::assert_snapshot!("lines", lines.join("\n"));
    }
}
