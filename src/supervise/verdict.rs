//! The judgement on an end: reason, cause, evidence and certainty. It never decides what follows.

use std::time::Duration;

use crate::event::{End, Oom, Verdict};
use crate::exit::{Cause, Certainty, Decision, How, Reason, RestartPart, Signal, Stage, StopPart};
use crate::name::{Requester, ServiceName};
use crate::spec::{Eof, Restart, Service};
use crate::time::{Tick, format_duration};

use super::ladder::Ending;
use super::machine::Sent;

/// All that is known of an end.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) service: &'a Service,
    pub(super) end: &'a End,
    /// The end that was under way, if one was.
    pub(super) ending: Option<&'a Ending>,
    /// The last signal an operator had sent to this run.
    pub(super) signal: Option<&'a Sent>,
    /// The death of manager or guardian that ended it.
    pub(super) past: Option<Cause>,
    pub(super) now: Tick,
}

/// How soon after the kernel killed a helper for memory a failure counts as due to that.
const AFTERMATH: Duration = Duration::from_secs(5);

/// What is to be said of an end.
#[derive(Debug)]
pub(super) struct Judgement {
    pub(super) reason: Reason,
    pub(super) cause: Cause,
    pub(super) by: Option<Requester>,
    pub(super) stop: Option<StopPart>,
    pub(super) evidence: Vec<String>,
    pub(super) certainty: Certainty,
}

/// Judges an end.
pub(super) fn judge(facts: &Facts<'_>) -> Judgement {
    let reason = reason(facts);
    let (cause, by, known) = cause(facts, reason);
    Judgement {
        reason,
        cause,
        by,
        stop: facts.ending.map(|ending| ending.part(facts.now)),
        evidence: evidence(facts, cause),
        certainty: match reason {
            Reason::Lost => Certainty::Unknown,
            // The kernel names the signal; that a limit sent it, or that memory was the reason
            // when we had killed it ourselves, is a conclusion.
            Reason::ResourceLimit => Certainty::Inferred,
            Reason::Signaled if facts.end.oom == Oom::Now => Certainty::Inferred,
            // That it failed because of what it had lost is a conclusion too.
            Reason::OomKilled if facts.end.how.code().is_some() && facts.ending.is_none() => {
                Certainty::Inferred
            }
            _ => known,
        },
    }
}

/// Judges a run of an earlier life that had a successor already: it is recorded and nothing follows
/// from it any more. One whose service is not configured is judged by the defaults.
pub fn of_predecessor(
    name: &ServiceName,
    service: Option<&Service>,
    end: &End,
    cause: Cause,
) -> Verdict {
    let now = Tick(0);
    let unknown = Service::new(name.clone());
    let service = service.unwrap_or(&unknown);
    let facts = Facts { service, end, ending: None, signal: None, past: Some(cause), now };
    let Judgement { reason, cause, by, stop, evidence, certainty } = judge(&facts);
    let restart = RestartPart { decision: Decision::Restart, attempt: None, delay_s: Some(0.0) };
    Verdict {
        how: end.how,
        reason,
        cause,
        requested_by: by,
        stop,
        evidence,
        certainty,
        restart,
        started_at: None,
    }
}

/// Whether the end is a success, in the service's own terms.
pub(super) fn is_success(reason: Reason, how: How, restart: &Restart) -> bool {
    match reason {
        Reason::Completed | Reason::Returned => true,
        Reason::Signaled | Reason::CoreDumped | Reason::ResourceLimit => how
            .signal()
            .is_some_and(|signal| restart.success_signals.iter().any(|good| good.0 == signal)),
        Reason::Failed
        | Reason::OomKilled
        | Reason::ExecFailed
        | Reason::SetupFailed
        | Reason::ProtocolError
        | Reason::ReturnedError
        | Reason::Panicked
        | Reason::Lost
        | Reason::NodeDown => false,
    }
}

fn reason(facts: &Facts<'_>) -> Reason {
    // What it wrote counts when it is why it ended: not when something else was ending it anyway.
    let protocol_error = match facts.ending {
        Some(ending) => ending.protocol_error,
        None => facts.end.protocol_error && !matches!(facts.end.how, How::NotStarted(..)),
    };
    if protocol_error {
        return Reason::ProtocolError;
    }
    if facts.ending.is_some_and(|ending| ending.oom) {
        return Reason::OomKilled;
    }
    match facts.end.how {
        How::Exited(code) if facts.service.restart.success_exit_codes.contains(&code) => {
            Reason::Completed
        }
        How::Exited(_) if is_usual_at_end_of_input(facts) => Reason::Completed,
        How::Exited(_) if lost_a_helper(facts) => Reason::OomKilled,
        How::Exited(_) => Reason::Failed,
        How::Signaled(Signal::KILL) if facts.end.oom == Oom::Now && !sent(facts, Signal::KILL) => {
            Reason::OomKilled
        }
        How::Signaled(Signal::KILL) if facts.end.cpu_spent && !sent(facts, Signal::KILL) => {
            Reason::ResourceLimit
        }
        How::Signaled(signal) | How::Dumped(signal)
            if matches!(signal, Signal::XCPU | Signal::XFSZ) && !sent(facts, signal) =>
        {
            Reason::ResourceLimit
        }
        How::Signaled(_) => Reason::Signaled,
        How::Dumped(_) => Reason::CoreDumped,
        How::NotStarted(Stage::Exec, _) => Reason::ExecFailed,
        How::NotStarted(..) => Reason::SetupFailed,
        How::Unseen => Reason::Lost,
    }
}

/// Whether it failed so soon after the kernel had killed something it had started, for memory, that
/// this is why: a shell that passes on how its last command ended, a master without its worker.
fn lost_a_helper(facts: &Facts<'_>) -> bool {
    let soon = match facts.end.oom {
        Oom::No => false,
        Oom::Now => true,
        Oom::Before(ago) => ago <= AFTERMATH,
    };
    soon && facts.ending.is_none() && recent(facts).is_none()
}

/// Whether an error code is how this program ends when its input does, and that is what ended it.
fn is_usual_at_end_of_input(facts: &Facts<'_>) -> bool {
    let port = facts.service.port.as_ref();
    port.is_some_and(|port| port.eof == Eof::Error)
        && facts.ending.is_some_and(Ending::is_at_end_of_input)
}

/// Whether this signal came from us: from the ladder, or from an operator a moment ago.
fn sent(facts: &Facts<'_>, signal: Signal) -> bool {
    facts.ending.is_some_and(|ending| ending.sent(signal))
        || recent(facts).is_some_and(|sent| sent.signal == signal)
}

/// The operator's signal that may have to do with this end.
fn recent<'a>(facts: &Facts<'a>) -> Option<&'a Sent> {
    facts.signal.filter(|sent| facts.now.since(sent.at) <= facts.service.stop.grace)
}

fn cause(facts: &Facts<'_>, reason: Reason) -> (Cause, Option<Requester>, Certainty) {
    if let Some(ending) = facts.ending {
        return (ending.cause, ending.by.clone(), Certainty::Certain);
    }
    if let Some(past) = facts.past {
        return (past, None, Certainty::Inferred);
    }
    match (facts.end.how, reason) {
        (How::NotStarted(Stage::Deadline, _), _) => (Cause::StartTimeout, None, Certainty::Certain),
        // These explain themselves, whatever an operator sent before.
        (How::NotStarted(..), _)
        | (_, Reason::ProtocolError | Reason::OomKilled | Reason::ResourceLimit) => {
            (Cause::Spontaneous, None, Certainty::Certain)
        }
        (how, _) => match recent(facts) {
            Some(sent) => {
                let same = how.signal() == Some(sent.signal);
                let known = if same { Certainty::Certain } else { Certainty::Inferred };
                (Cause::SignalRequested, Some(sent.by.clone()), known)
            }
            None => (Cause::Spontaneous, None, Certainty::Certain),
        },
    }
}

fn evidence(facts: &Facts<'_>, cause: Cause) -> Vec<String> {
    let mut evidence = vec![facts.end.how.to_string()];
    match facts.end.oom {
        Oom::No => {}
        Oom::Now => evidence.push("memory ran out in its control group".to_owned()),
        Oom::Before(ago) => {
            let ago = ago.as_secs_f64();
            evidence.push(format!("memory ran out in its control group {ago:.1}s before"));
        }
    }
    if facts.ending.is_some_and(|ending| ending.oom) {
        evidence.push("it was killed for that with all it had started (on_oom: kill)".to_owned());
    }
    if facts.end.cpu_spent && facts.end.how == How::Signaled(Signal::KILL) {
        evidence.push("it had used more processor time than limits.cpu".to_owned());
    }
    if facts.end.protocol_error || facts.ending.is_some_and(|ending| ending.protocol_error) {
        evidence.push("what it wrote was not its port's protocol".to_owned());
    }
    if let Some(ending) = facts.ending {
        let limit = format_duration(facts.service.start_timeout);
        match cause {
            Cause::StartTimeout => {
                evidence.push(format!("it did not run within start_timeout ({limit})"));
            }
            Cause::ReadyTimeout if ending.why.is_none() => {
                evidence.push(format!("it was not ready within start_timeout ({limit})"));
            }
            _ => {}
        }
        evidence.extend(ending.why.as_deref().map(str::to_owned));
        let steps: Vec<_> =
            ending.part(facts.now).steps.into_iter().map(|step| step.step).collect();
        if !steps.is_empty() {
            evidence.push(format!("the manager did: {}", steps.join(", ")));
        }
    }
    let code = facts.end.how.code().filter(|code| *code != 0);
    if let (Some(code), true) = (code, is_usual_at_end_of_input(facts)) {
        evidence.push(format!("code {code} after the end of its input is its way (eof: error)"));
    }
    if let Some(sent) = recent(facts) {
        let before = facts.now.since(sent.at).as_secs_f64();
        evidence.push(format!("{} was sent by {} {before:.1}s before", sent.signal, sent.by.who));
    }
    if facts.end.survivors {
        evidence.push("something it started may have outlived it".to_owned());
    }
    evidence
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Errno;
    use crate::spec::SignalName;
    use crate::supervise::ladder::{After, Climber};
    use crate::supervise::sample::service;

    const SECOND: u64 = 1_000_000_000;

    fn end(how: How) -> End {
        End::plain(how)
    }

    fn who(who: &str) -> Requester {
        Requester { uid: Some(1000), pid: Some(7), who: who.to_owned() }
    }

    fn facts<'a>(service: &'a Service, end: &'a End) -> Facts<'a> {
        Facts { service, end, ending: None, signal: None, past: None, now: Tick(100 * SECOND) }
    }

    #[test]
    fn the_kernels_word_becomes_a_reason() {
        let mut service = service("a");
        service.restart.success_exit_codes = vec![0, 3];
        let signal = |number| Signal::new(number).unwrap();
        for (how, reason) in [
            (How::Exited(0), Reason::Completed),
            (How::Exited(3), Reason::Completed),
            (How::Exited(1), Reason::Failed),
            (How::Exited(137), Reason::Failed),
            (How::Signaled(Signal::KILL), Reason::Signaled),
            (How::Signaled(signal(11)), Reason::Signaled),
            (How::Dumped(signal(11)), Reason::CoreDumped),
            (How::Signaled(Signal::XCPU), Reason::ResourceLimit),
            (How::Dumped(Signal::XFSZ), Reason::ResourceLimit),
            (How::NotStarted(Stage::Exec, Errno(2)), Reason::ExecFailed),
            (How::NotStarted(Stage::User, Errno(1)), Reason::SetupFailed),
            (How::NotStarted(Stage::Deadline, Errno(110)), Reason::SetupFailed),
            (How::Unseen, Reason::Lost),
        ] {
            let end = end(how);
            assert_eq!(judge(&facts(&service, &end)).reason, reason, "{how}");
        }
    }

    #[test]
    fn memory_is_the_reason_only_of_a_kill_nobody_here_sent() {
        let service = service("a");
        let kill = |how| End { oom: Oom::Now, ..end(how) };
        let judged = judge(&facts(&service, &kill(How::Signaled(Signal::KILL))));
        assert_eq!((judged.reason, judged.cause), (Reason::OomKilled, Cause::Spontaneous));

        let mut ending = Ending::asked(Cause::StopRequested, &who("x"), Tick(0), After::Rest);
        ending.hurry(crate::spec::KillScope::Tree);
        let target = Climber { incarnation: crate::name::Incarnation(1), runs: true, ready: true };
        ending.climb(Tick(0), &service, target, &mut Vec::new()).unwrap();
        let end = kill(How::Signaled(Signal::KILL));
        let judged = judge(&Facts { ending: Some(&ending), ..facts(&service, &end) });
        assert_eq!(judged.reason, Reason::Signaled);
        assert_eq!(judged.certainty, Certainty::Inferred);
        assert!(judged.evidence.iter().any(|words| words.contains("memory ran out")));
    }

    #[test]
    fn a_failure_soon_after_a_helper_was_lost_to_memory_is_due_to_it() {
        let service = service("a");
        let before = |seconds| Oom::Before(Duration::from_secs(seconds));
        let sent = Sent { signal: Signal::TERM, by: who("x"), at: Tick(99 * SECOND) };
        for (how, oom, sent, reason, certainty) in [
            (How::Exited(137), Oom::Now, None, Reason::OomKilled, Certainty::Inferred),
            (How::Exited(1), before(5), None, Reason::OomKilled, Certainty::Inferred),
            (How::Exited(1), before(6), None, Reason::Failed, Certainty::Certain),
            (How::Exited(0), Oom::Now, None, Reason::Completed, Certainty::Certain),
            (How::Exited(1), Oom::Now, Some(&sent), Reason::Failed, Certainty::Inferred),
            (How::Signaled(Signal::KILL), before(0), None, Reason::Signaled, Certainty::Certain),
        ] {
            let end = End { oom, ..end(how) };
            let judged = judge(&Facts { signal: sent, ..facts(&service, &end) });
            assert_eq!((judged.reason, judged.certainty), (reason, certainty), "{how} {oom:?}");
        }
        let ending = Ending::out_of_memory(Tick(0));
        let end = end(How::Signaled(Signal::KILL));
        let judged = judge(&Facts { ending: Some(&ending), ..facts(&service, &end) });
        assert_eq!((judged.reason, judged.cause), (Reason::OomKilled, Cause::Spontaneous));
        assert_eq!(judged.certainty, Certainty::Certain);
        assert!(judged.evidence.iter().any(|words| words.contains("on_oom: kill")));
    }

    #[test]
    fn an_error_code_after_the_end_of_its_input_can_be_a_success() {
        let mut service = service("a");
        let port = |eof| Some(crate::spec::Port { eof, ..crate::spec::Port::default() });
        let target = Climber { incarnation: crate::name::Incarnation(1), runs: true, ready: true };
        let mut ending = Ending::asked(Cause::StopRequested, &who("x"), Tick(0), After::Rest);
        service.port = port(Eof::Error);
        ending.climb(Tick(0), &service, target, &mut Vec::new()).unwrap();
        let mut told_off = ending.clone();
        told_off.climb(Tick(0), &service, target, &mut Vec::new()).unwrap();
        let end = end(How::Exited(1));
        for (eof, ending, reason) in [
            (Eof::Error, Some(&ending), Reason::Completed),
            (Eof::Graceful, Some(&ending), Reason::Failed),
            (Eof::Error, Some(&told_off), Reason::Failed),
            (Eof::Error, None, Reason::Failed),
        ] {
            service.port = port(eof);
            let judged = judge(&Facts { ending, ..facts(&service, &end) });
            assert_eq!(judged.reason, reason, "{eof:?} {ending:?}");
            let told = judged.evidence.iter().any(|words| words.contains("eof: error"));
            assert_eq!(told, reason == Reason::Completed);
        }
    }

    #[test]
    fn an_operators_signal_is_the_cause_for_a_while() {
        let service = service("a"); // grace 10 s
        let sent =
            |second, signal| Sent { signal, by: who("wharf signal"), at: Tick(second * SECOND) };
        let int = Signal::INT;
        for (sent, how, cause, certainty) in [
            (sent(95, int), How::Signaled(int), Cause::SignalRequested, Certainty::Certain),
            (sent(95, int), How::Exited(0), Cause::SignalRequested, Certainty::Inferred),
            (sent(90, int), How::Exited(0), Cause::SignalRequested, Certainty::Inferred),
            (sent(89, int), How::Signaled(int), Cause::Spontaneous, Certainty::Certain),
            (
                sent(99, Signal::XCPU),
                How::Signaled(Signal::XCPU),
                Cause::SignalRequested,
                Certainty::Certain,
            ),
        ] {
            let end = end(how);
            let judged = judge(&Facts { signal: Some(&sent), ..facts(&service, &end) });
            assert_eq!(
                (judged.cause, judged.certainty),
                (cause, certainty),
                "{how} after {sent:?}"
            );
            assert_eq!(judged.by.is_some(), cause == Cause::SignalRequested);
        }
    }

    #[test]
    fn a_broken_protocol_is_the_reason_unless_something_else_was_ending_it() {
        let service = service("a");
        let end = End { protocol_error: true, ..end(How::Exited(0)) };
        assert_eq!(judge(&facts(&service, &end)).reason, Reason::ProtocolError);
        let ending = Ending::asked(Cause::StopRequested, &who("x"), Tick(0), After::Rest);
        let judged = judge(&Facts { ending: Some(&ending), ..facts(&service, &end) });
        assert_eq!((judged.reason, judged.cause), (Reason::Completed, Cause::StopRequested));
        let ending = Ending::killed(Cause::Spontaneous, Tick(0), true);
        let judged = judge(&Facts { ending: Some(&ending), ..facts(&service, &end) });
        assert_eq!((judged.reason, judged.cause), (Reason::ProtocolError, Cause::Spontaneous));
    }

    /// What the reason rests on is told whole, and nothing else is.
    #[test]
    fn the_evidence_is_what_was_seen() {
        let service = service("a"); // start_timeout 60 s
        let told = |facts: Facts<'_>| judge(&facts).evidence;
        let plain = end(How::Exited(1));
        assert_eq!(told(facts(&service, &plain)), ["exited with code 1"]);

        let end = End {
            oom: Oom::Before(Duration::from_secs(3)),
            protocol_error: true,
            survivors: true,
            ..plain.clone()
        };
        let sent = Sent { signal: Signal::HUP, by: who("wharf signal"), at: Tick(95 * SECOND) };
        assert_eq!(
            told(Facts { signal: Some(&sent), ..facts(&service, &end) }),
            [
                "exited with code 1",
                "memory ran out in its control group 3.0s before",
                "what it wrote was not its port's protocol",
                "SIGHUP was sent by wharf signal 5.0s before",
                "something it started may have outlived it",
            ]
        );

        let target = Climber { incarnation: crate::name::Incarnation(1), runs: true, ready: true };
        let climbed = |mut ending: Ending| {
            ending.climb(Tick(90 * SECOND), &service, target, &mut Vec::new()).unwrap();
            told(Facts { ending: Some(&ending), ..facts(&service, &plain) })
        };
        let killed = |cause| Ending::killed(cause, Tick(90 * SECOND), false);
        for (ending, words) in [
            (killed(Cause::StartTimeout), Some("it did not run within start_timeout (1m)")),
            (killed(Cause::ReadyTimeout), Some("it was not ready within start_timeout (1m)")),
            (
                killed(Cause::ReadyTimeout).because("nobody answered".to_owned()),
                Some("nobody answered"),
            ),
            (
                Ending::killed(Cause::Spontaneous, Tick(90 * SECOND), true),
                Some("what it wrote was not its port's protocol"),
            ),
            (
                Ending::out_of_memory(Tick(90 * SECOND)),
                Some("it was killed for that with all it had started (on_oom: kill)"),
            ),
            (killed(Cause::ManagerShutdown), None),
        ] {
            let mut all = vec!["exited with code 1"];
            all.extend(words);
            all.push("the manager did: SIGKILL");
            assert_eq!(climbed(ending), all);
        }
    }

    #[test]
    fn an_end_nobody_saw_is_said_to_be_unknown() {
        let service = service("a");
        for (how, certainty) in
            [(How::Unseen, Certainty::Unknown), (How::Signaled(Signal::KILL), Certainty::Inferred)]
        {
            let end = end(how);
            let judged = judge(&Facts { past: Some(Cause::ManagerDied), ..facts(&service, &end) });
            assert_eq!((judged.cause, judged.certainty), (Cause::ManagerDied, certainty));
        }
    }

    #[test]
    fn success_is_in_the_services_own_terms() {
        let mut restart = Restart::default();
        restart.success_signals.push(SignalName(Signal::TERM));
        for (reason, how, success) in [
            (Reason::Completed, How::Exited(0), true),
            (Reason::Failed, How::Exited(1), false),
            (Reason::Signaled, How::Signaled(Signal::TERM), true),
            (Reason::Signaled, How::Signaled(Signal::INT), false),
            (Reason::CoreDumped, How::Dumped(Signal::TERM), true),
            (Reason::OomKilled, How::Signaled(Signal::KILL), false),
            (Reason::Lost, How::Unseen, false),
        ] {
            assert_eq!(is_success(reason, how, &restart), success, "{reason} {how}");
        }
    }
}
